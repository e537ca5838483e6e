//! What a learning run leaves behind besides scores, and how far it supports a plan.

use gamma_core::{ModuleName, ScoresFile};
use gamma_ilp::{Limits, Problem};
use gamma_preference::Learned;

use crate::{Error, Plan, Scores, experts::as_floored};

/// Scores, and all that was seen while they were learned. Made by
/// [`Run::learn_detailed`](crate::Run::learn_detailed).
#[derive(Clone, Debug)]
pub struct Learning {
    /// The scores.
    pub scores: Scores,
    /// What they were made of.
    pub learned: Learned,
}

/// How often each module kept its format when the calibration data were drawn anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Stability {
    /// How many times the data were drawn anew.
    pub resamples: usize,
    /// The share of them in which each module kept its format, 0 to 1, in the order of the plan.
    pub kept: Vec<(ModuleName, f64)>,
}

/// A module that keeps its format in fewer resamples is a coin flip.
const COIN_FLIP: f64 = 0.75;

impl Stability {
    /// The modules whose format the data hardly decide: they kept it in less than three quarters of
    /// the resamples. The least certain first.
    #[must_use]
    pub fn coin_flips(&self) -> Vec<(&ModuleName, f64)> {
        let flips = self.kept.iter().filter(|(_, share)| *share < COIN_FLIP);
        let mut flips: Vec<_> = flips.map(|(name, share)| (name, *share)).collect();
        flips.sort_by(|a, b| a.1.total_cmp(&b.1));
        flips
    }
}

impl Learning {
    /// Draws the calibration batches anew, with replacement, `resamples` times; makes scores of what
    /// was seen in them, solves `problem` again, and counts in how many of these plans each module
    /// has the format it has in `plan`.
    ///
    /// Only the sample of the data is varied: not the seed of learning, nor what the quantizer made
    /// of the data.
    ///
    /// # Errors
    /// [`Error::Missing`] without resamples; [`Error::Project`] if the problem has no plan.
    pub fn stability(
        &self,
        problem: &Problem<'_>,
        plan: &Plan,
        resamples: usize,
    ) -> Result<Stability, Error> {
        if resamples == 0 {
            return Err(Error::Missing { setting: "resamples", expected: "one or more" });
        }
        let mut kept: Vec<(ModuleName, f64)> =
            plan.choices().iter().map(|choice| (choice.name.clone(), 0.0)).collect();
        for seed in 0..resamples as u64 {
            let (table, contexts) = self.learned.resample(seed);
            let drawn = ScoresFile { table, contexts, ..(*self.scores).clone() };
            let scores = Scores::new(as_floored(drawn, &self.scores)?);
            let other = scores.solve(&problem.clone().scores(&scores.table), &Limits::default())?;
            for ((_, count), choice) in kept.iter_mut().zip(plan.choices()) {
                let same = other.choice(&choice.name).is_some_and(|own| own.format == choice.format);
                *count += f64::from(u8::from(same));
            }
        }
        for (_, count) in &mut kept {
            *count /= resamples as f64;
        }
        Ok(Stability { resamples, kept })
    }
}
