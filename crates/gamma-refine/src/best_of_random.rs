//! The best of many random plans: the least that any method must beat.

use gamma_ilp::Problem;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    Estimate, Examiner, Method, Outcome, Progress, RefineError, Split, Status,
    error::setting,
    session::{Halt, Session, Stand, ended},
    walk,
};

/// Settings of [`best_of_random`].
///
/// | setting | default | range | purpose |
/// |---|---|---|---|
/// | `plans` | 100 | positive | how many plans to measure |
/// | `seed` | 0 | | of all draws |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomSettings {
    /// How many plans to measure.
    pub plans: usize,
    /// Seed of all draws.
    pub seed: u64,
}

impl Default for RandomSettings {
    fn default() -> Self {
        Self { plans: 100, seed: 0 }
    }
}

/// The best on the probe of random plans that `problem` admits, then measured on the gate.
///
/// Every plan is drawn place by place, brought within the budget by random moves down, and up again
/// by random moves until nothing more fits. The scores of the problem play no part. A search that is
/// stopped before it has measured any plan returns the first one it would have measured.
///
/// The report's `before` is the first plan, which an unlucky draw of one would be; on the gate it is
/// not measured.
///
/// # Errors
/// [`RefineError::NoRandomPlan`] if no plan is found that obeys everything; else the examiner fails,
/// the problem is at fault, or a setting is out of range.
pub fn best_of_random<X: Examiner>(
    examiner: &mut X,
    split: &Split,
    problem: &Problem<'_>,
    settings: &RandomSettings,
    progress: &mut dyn Progress,
) -> Result<Outcome, RefineError<X::Error>> {
    setting("plans", settings.plans, settings.plans > 0, "1 or more")?;
    let space = problem.space()?;
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let first =
        walk::random_point(&space, &mut rng).ok_or(RefineError::NoRandomPlan { tries: walk::TRIES })?;
    let mut best = Stand::new(first);
    let mut session = Session::new(Method::Random, examiner, split, progress, settings.plans)?;
    let mut run = || -> Result<Status, Halt<X::Error>> {
        best.probe = session.whole_probe(&space.plan(&best.places))?;
        session.before = best.measured();
        for number in 1..settings.plans {
            session.round = number;
            let Some(places) = walk::random_point(&space, &mut rng) else { continue };
            let probe = session.whole_probe(&space.plan(&places))?;
            if Estimate::of(&probe).mean < Estimate::of(&best.probe).mean {
                best = Stand { probe, ..Stand::new(places) };
                session.accepted += 1;
            } else {
                session.rejected += 1;
            }
        }
        best.gate = session.gate(&space.plan(&best.places))?;
        Ok(Status::Done)
    };
    let status = ended(run())?;
    Ok(session.outcome(&space, status, &best))
}
