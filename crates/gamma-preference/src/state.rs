//! Where a learning run stands, so that another process can go on from there.
//!
//! All randomness comes from streams that depend on the seed and the position alone, so a position
//! takes the place of a generator's state. What follows from the full-precision model (its hidden
//! states, the Fisher information) is computed again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    LearnError, Observations, Progress,
    adam::Adam,
    learner::{Learner, Pass},
    price::Multiplier,
};

/// Everything that a learning run knows at a place where it can be taken up again.
///
/// [`Progress::rest`] gives it, [`resume`](crate::resume()) takes it.
#[derive(Clone, PartialEq)]
pub struct State(Known);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    /// The round that is under way, or comes next.
    round: usize,
    /// How much of it is done: blocks where they learn apart, passes where the student runs through.
    units: usize,
    /// All passes of the round that is under way; they were drawn when it began.
    passes: Vec<Pass>,
    logits: Vec<Vec<f64>>,
    adam: Adam,
    multiplier: Option<Multiplier>,
    price: f64,
    losses: Vec<f64>,
    ending: f64,
    random_loss: f64,
    done: usize,
    seen: Observations,
    shapes: Vec<Vec<f64>>,
    costs: Vec<Vec<f64>>,
}

/// The layout of the bytes; raised with every change of what is kept.
const LAYOUT: u8 = 1;

/// Why a state cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Bytes that are no state.
    #[error("the state of the learning run is damaged: it ends early or holds what it cannot hold")]
    Damaged,
    /// Written by another version.
    #[error("the state of the learning run has layout {found}, this version reads {expected}")]
    Layout {
        /// What this version reads.
        expected: u8,
        /// What the bytes say.
        found: u8,
    },
    /// A state from the midst of a run, where one from its end is wanted.
    #[error("the learning run has not ended: first let it")]
    Unfinished,
    /// A state of other modules, data or settings.
    #[error("the state is not one of this learning run: {0} differ")]
    Other(&'static str),
}

impl State {
    /// The state as bytes, for a file. The same on every machine.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "plain numbers and lists serialize into memory")]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(&self.0, vec![LAYOUT]).expect("plain numbers and lists serialize into memory")
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`StateError`] if the bytes were cut or written by another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes {
            [LAYOUT, known @ ..] => match postcard::take_from_bytes(known) {
                Ok((known, [])) => Ok(Self(known)),
                _ => Err(StateError::Damaged),
            },
            [found, ..] => Err(StateError::Layout { expected: LAYOUT, found: *found }),
            [] => Err(StateError::Damaged),
        }
    }

    /// The same for modules that have more candidates now, as many as `now` has numbers: `known` gives the
    /// present numbers of those that there were.
    pub(crate) fn widened(self, known: &[Vec<usize>], now: &[Vec<f64>]) -> Result<Self, StateError> {
        let Self(mut state) = self;
        let fits = state.logits.len() == known.len()
            && known.len() == now.len()
            && state.seen.modules.len() == known.len()
            && (state.logits.iter().zip(known).zip(now)).all(|((then, known), now)| {
                then.len() == known.len() && known.iter().all(|&k| k < now.len())
            })
            && (state.seen.modules.iter().zip(known))
                .all(|(seen, known)| seen.iter().all(|seen| seen.candidate < known.len()));
        if !fits {
            return Err(StateError::Other("modules or candidates"));
        }
        for (seen, known) in state.seen.modules.iter_mut().zip(known) {
            for seen in seen {
                seen.candidate = known[seen.candidate];
            }
        }
        // Where budgets are drawn the costs are all the preference there is, and they are found anew.
        state.logits = now.to_vec();
        state.adam = Adam::new(0.0, now);
        (state.shapes, state.costs) = (Vec::new(), Vec::new());
        Ok(Self(state))
    }

    /// Whether it is from the midst of `round`.
    pub(crate) fn is_within(&self, round: usize) -> bool {
        self.0.round == round && self.0.units > 0
    }

    /// Steps done, over all rounds and blocks.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.0.done
    }

    /// The round that is under way or comes next; 0 is the survey.
    #[must_use]
    pub fn round(&self) -> usize {
        self.0.round
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("round", &self.0.round)
            .field("steps", &self.0.done)
            .finish_non_exhaustive()
    }
}

/// The position that a resumed run goes on from: the beginning, for a new one.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    pub(crate) round: usize,
    units: usize,
    /// Passes of that round, if it has begun.
    pub(crate) passes: Vec<Pass>,
}

impl Resumed {
    /// Whether `round` is the one that was interrupted midway.
    pub(crate) fn is_within(&self, round: usize) -> bool {
        self.round == round && self.units > 0
    }

    /// How much of `round` is done already.
    pub(crate) fn units(&self, round: usize) -> usize {
        if self.is_within(round) { self.units } else { 0 }
    }
}

impl Learner<'_> {
    /// Offers the present state to the caller, who may stop here. `round` is the one to go on with,
    /// `units` of which are done.
    pub(crate) fn rest<E: std::error::Error>(
        &self,
        round: usize,
        units: usize,
        passes: &[Pass],
        progress: &mut dyn Progress,
    ) -> Result<(), LearnError<E>> {
        let state = || {
            State(Known {
                round,
                units,
                passes: passes.to_vec(),
                logits: self.logits.clone(),
                adam: self.adam.clone(),
                multiplier: self.multiplier,
                price: self.price,
                losses: self.losses.clone(),
                ending: self.ending,
                random_loss: self.random_loss,
                done: self.done,
                seen: self.seen.clone(),
                shapes: self.shapes.clone(),
                costs: self.costs.clone(),
            })
        };
        if progress.rest(&state).is_break() { Err(LearnError::Interrupted) } else { Ok(()) }
    }

    /// Takes the place of the learner that `state` is of, in a run of `rounds` on `batches`.
    pub(crate) fn restore(
        &mut self,
        State(known): State,
        rounds: usize,
        batches: usize,
    ) -> Result<(), StateError> {
        let checks = [
            ("modules or candidates", self.fits_modules(&known)),
            ("numbers of rounds or steps", known.round <= rounds + 1 && self.fits_position(&known)),
            ("calibration batches", known.passes.iter().all(|pass| pass.batch < batches)),
        ];
        if let Some((what, _)) = checks.into_iter().find(|(_, fits)| !fits) {
            return Err(StateError::Other(what));
        }
        self.resumed = Resumed { round: known.round, units: known.units, passes: known.passes };
        self.logits = known.logits;
        self.adam = known.adam;
        self.multiplier = known.multiplier;
        self.price = known.price;
        self.losses = known.losses;
        self.ending = known.ending;
        self.random_loss = known.random_loss;
        self.done = known.done;
        self.seen = known.seen;
        self.shapes = known.shapes;
        self.costs = known.costs;
        Ok(())
    }

    fn fits_modules(&self, known: &Known) -> bool {
        let candidates = |module: usize| self.logits[module].len();
        let same = known.logits.iter().map(Vec::len).eq(self.logits.iter().map(Vec::len));
        let contexts = known.seen.contexts.len();
        // Nothing yet, or one number for every candidate.
        let table = |table: &Vec<Vec<f64>>| {
            table.is_empty() || table.iter().map(Vec::len).eq(self.logits.iter().map(Vec::len))
        };
        same && table(&known.shapes)
            && table(&known.costs)
            && known.adam.fits(&known.logits)
            && known.losses.len() == self.losses.len()
            && known.seen.modules.len() == self.logits.len()
            && (known.seen.modules.iter().enumerate()).all(|(module, seen)| {
                seen.iter().all(|seen| seen.candidate < candidates(module) && seen.context < contexts)
            })
    }

    fn fits_position(&self, known: &Known) -> bool {
        let drawn = |pass: &Pass| {
            pass.draws.len() == self.logits.len()
                && (pass.draws.iter().zip(&self.logits))
                    .all(|(draw, logits)| draw.used.fits(logits.len()) && draw.soft.len() == logits.len())
        };
        let most = if known.passes.is_empty() { self.blocks.len() } else { known.passes.len() };
        // No round can be done in full: its end is the beginning of the next one.
        known.units < most && known.passes.iter().all(drawn)
    }
}

#[cfg(test)]
pub(crate) mod tests;
