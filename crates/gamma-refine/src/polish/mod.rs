//! Swaps that are kept only if the model gets better.

mod beliefs;
mod proposals;

use std::collections::HashSet;

use gamma_core::Plan;
use gamma_ilp::{Problem, Space};

use self::{beliefs::Beliefs, proposals::Proposal};
use crate::{
    Estimate, Examiner, Method, Outcome, Progress, RefineError, Split, Status,
    error::setting,
    session::{Halt, Session, Stand, ended, stand_at},
};

/// Settings of [`polish`].
///
/// | setting | default | range | purpose |
/// |---|---|---|---|
/// | `proposals` | 200 | | plans to try at most |
/// | `patience` | 24 | positive | rejected proposals in a row before it ends |
/// | `reach` | 2 | positive | how many places a module moves at most in one swap |
/// | `stages` | 1/8, 1/2, 1 | growing, the last one 1 | shares of the probe a proposal must survive one after the other |
/// | `std_errors` | 1 | not negative | how clearly the gate must fall, in standard errors of the paired difference |
#[derive(Clone, Debug, PartialEq)]
pub struct PolishSettings {
    /// Plans to try at most.
    pub proposals: usize,
    /// Rejected proposals in a row before it ends.
    pub patience: usize,
    /// How many places a module moves at most in one swap.
    pub reach: usize,
    /// Shares of the probe. A proposal that is no better on the windows so far goes no further.
    pub stages: Vec<f64>,
    /// How many standard errors of the paired difference the gate must fall by.
    pub std_errors: f64,
}

impl Default for PolishSettings {
    fn default() -> Self {
        Self { proposals: 200, patience: 24, reach: 2, stages: vec![0.125, 0.5, 1.0], std_errors: 1.0 }
    }
}

impl PolishSettings {
    fn check<E: std::error::Error + 'static>(&self) -> Result<(), RefineError<E>> {
        let Self { patience, reach, std_errors, .. } = *self;
        setting("patience", patience, patience > 0, "1 or more")?;
        setting("reach", reach, reach > 0, "1 or more places")?;
        check_stages(&self.stages)?;
        setting("std_errors", std_errors, std_errors.is_finite() && std_errors >= 0.0, "a number from 0 on")
    }
}

/// Checks shares of the probe.
pub(crate) fn check_stages<E: std::error::Error + 'static>(stages: &[f64]) -> Result<(), RefineError<E>> {
    let grows = stages.windows(2).all(|pair| pair[0] < pair[1]);
    let holds = grows && stages.first().is_some_and(|&first| first > 0.0) && stages.last() == Some(&1.0);
    setting("stages", stages, holds, "growing shares of the probe above 0, the last one 1")
}

/// Improves `start` by swaps that keep the budget: some modules down, some up, of any sizes.
///
/// Proposals come in the order of their gain by the scores of `problem`, so give it the best scores
/// there are, such as those of a [`Context`](gamma_core::Context). The scores are scaled such that they
/// add up to the divergence of `start`, and learn from every measurement: a rejected move promises
/// less from then on. They decide what is tried, never what is kept: a proposal must be better on
/// growing parts of the probe, and then on the gate by `std_errors` standard errors. Hence the gate
/// never rises, whatever the scores say.
///
/// # Errors
/// [`RefineError`]: the examiner fails, `start` does not belong to `problem` or breaks its budget or
/// rules, or a setting is out of range.
pub fn polish<X: Examiner>(
    examiner: &mut X,
    split: &Split,
    problem: &Problem<'_>,
    start: &Plan,
    settings: &PolishSettings,
    progress: &mut dyn Progress,
) -> Result<Outcome, RefineError<X::Error>> {
    settings.check()?;
    let space = problem.space()?;
    let mut stand = stand_at(problem, &space, start)?;
    let mut session = Session::new(Method::Polish, examiner, split, progress, settings.proposals)?;
    let status = ended(run(&mut session, &space, &mut stand, settings))?;
    Ok(session.outcome(&space, status, &stand))
}

fn run<X: Examiner>(
    session: &mut Session<'_, X>,
    space: &Space<'_>,
    stand: &mut Stand,
    settings: &PolishSettings,
) -> Result<Status, Halt<X::Error>> {
    session.open(space, stand)?;
    let mut beliefs = Beliefs::new(space, &stand.places, Estimate::of(&stand.probe).mean);
    let mut tried: HashSet<Vec<usize>> = HashSet::from([stand.places.clone()]);
    let mut in_a_row = 0;
    for number in 0..settings.proposals {
        session.round = number;
        let Some(proposal) = proposals::best(space, &beliefs, &stand.places, settings.reach, &tried) else {
            return Ok(Status::Exhausted);
        };
        tried.insert(proposal.places.clone());
        let plan = space.plan(&proposal.places);
        match examine(session, &plan, &proposal, stand, settings)? {
            Verdict::Better(next, change) => {
                beliefs.learn(&proposal, change, true);
                session.accept(&next.gate);
                *stand = next;
                in_a_row = 0;
                session.settle(&plan)?;
            }
            Verdict::NoBetter(change) => {
                beliefs.learn(&proposal, change, false);
                session.rejected += 1;
                in_a_row += 1;
            }
        }
        if in_a_row == settings.patience {
            return Ok(Status::OutOfPatience);
        }
    }
    Ok(Status::Done)
}

/// What came of a proposal, with the change of the divergence on the windows that were measured
/// last.
enum Verdict {
    Better(Stand, f64),
    NoBetter(f64),
}

fn examine<X: Examiner>(
    session: &mut Session<'_, X>,
    plan: &Plan,
    proposal: &Proposal,
    stand: &Stand,
    settings: &PolishSettings,
) -> Result<Verdict, Halt<X::Error>> {
    let mut next = Stand::new(proposal.places.clone());
    let mut change = 0.0;
    for &share in &settings.stages {
        let windows = session.split().stage(share);
        next.probe.extend(session.probe(plan, next.probe.len()..windows)?);
        change = Estimate::paired(&stand.probe[..windows], &next.probe).mean;
        if change >= 0.0 {
            return Ok(Verdict::NoBetter(change));
        }
    }
    next.gate = session.gate(plan)?;
    if Estimate::paired(&stand.gate, &next.gate).is_below_zero(settings.std_errors) {
        Ok(Verdict::Better(next, change))
    } else {
        Ok(Verdict::NoBetter(change))
    }
}
