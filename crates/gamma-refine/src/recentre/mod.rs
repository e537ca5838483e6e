//! Measures single moves around a plan, solves again with what was measured, and repeats.
//!
//! Costs that were learned one module at a time, or over many budgets, add up to the damage of a
//! plan only roughly: below 3 bits joint damage is a multiple of the sum. Around one plan they add
//! up well, because all that is common to the moves is in what the plan itself does.

mod costs;
mod survey;
mod trust;

use gamma_core::{Context, Origin, Plan, ScoreTable};
use gamma_ilp::{Limits, Problem, Space};

use crate::{
    Estimate, Examiner, Method, Progress, RefineError, Report, Split, Status,
    error::setting,
    session::{Halt, Session, Stand, ended, stand_at},
};

/// Settings of [`recentre`].
///
/// | setting | default | range | purpose |
/// |---|---|---|---|
/// | `rounds` | 3 | 1 to 3 | surveys, each around the plan that the one before led to |
/// | `reach` | 2 | 1 or 2 | how many places a module moves, down and up |
/// | `halvings` | 2 | up to 8 | smaller steps to try: half of the changes, a quarter, ... |
/// | `std_errors` | 0 | not negative | how clearly the gate must fall, in standard errors of the paired difference |
/// | `limits` | those of the solver | | how each re-solving is computed |
///
/// A round costs about `2 reach` measurements of the probe for every group of modules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecentreSettings {
    /// Surveys, each around the plan that the one before led to.
    pub rounds: usize,
    /// How many places in its list of options a module moves at most, down and up.
    pub reach: usize,
    /// How often the number of changes is halved, to find a step that the measurements bear out.
    pub halvings: usize,
    /// How many standard errors of the paired difference the gate must fall by.
    pub std_errors: f64,
    /// How each re-solving is computed.
    pub limits: Limits,
}

impl Default for RecentreSettings {
    fn default() -> Self {
        Self { rounds: 3, reach: 2, halvings: 2, std_errors: 0.0, limits: Limits::default() }
    }
}

impl RecentreSettings {
    fn check<E: std::error::Error + 'static>(&self) -> Result<(), RefineError<E>> {
        let Self { rounds, reach, halvings, std_errors, .. } = *self;
        setting("rounds", rounds, (1..=3).contains(&rounds), "1 to 3")?;
        setting("reach", reach, (1..=2).contains(&reach), "1 or 2 places")?;
        setting("halvings", halvings, halvings <= 8, "8 at most")?;
        setting("std_errors", std_errors, std_errors.is_finite() && std_errors >= 0.0, "a number from 0 on")
    }
}

/// One round of [`recentre`]: what the measured moves promised, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// The plan around which moves were measured, on the probe.
    pub centre: Estimate,
    /// Single moves that were measured.
    pub moves: usize,
    /// Groups that the proposed plan changes; 0 where the centre is the best plan already.
    pub changed: usize,
    /// The change of divergence by the sum of the single moves, in nats per token.
    pub predicted: f64,
    /// The change as measured, paired over the windows of the probe.
    pub probe: Option<Estimate>,
    /// The same on the gate; `None` where the probe refused the plan already.
    pub gate: Option<Estimate>,
    /// Whether the plan became the next centre.
    pub accepted: bool,
}

/// What [`recentre`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Recentred {
    /// The plan. It has no certificate: it is the best one near another plan.
    pub plan: Plan,
    /// What the search did.
    pub report: Report,
    /// The costs of the last complete round; `None` where it was stopped before there was any.
    pub context: Option<Context>,
    /// Round by round.
    pub history: Vec<Round>,
}

/// Improves `start` by solving `problem` again with costs that are measured around it.
///
/// Each round moves every module, or group of tied modules, by up to `reach` places in its list of
/// options and measures the divergence on the probe, all other modules left as the plan has them.
/// The latest modules come first, so that an examiner which keeps the states before them has the
/// least to do again. The differences to the plan are the costs of the moves. Places further away
/// are extrapolated from the costs of the problem, or of the round before, rescaled by the ratio of
/// measured to predicted differences; [`gamma_core::non_increasing`] repairs what noise has put out
/// of order. The problem is then solved again, with no move further than `reach`.
///
/// Many small changes at once may still do other than their sum. So the same problem is solved with
/// a price on every change as well, which halves their number again and again, and the probe tells
/// which of these plans is best. It takes the place of the former one if the gate falls.
///
/// # Errors
/// [`RefineError`]: the examiner fails, `start` does not belong to `problem` or breaks its budget or
/// rules, or a setting is out of range.
pub fn recentre<X: Examiner>(
    examiner: &mut X,
    split: &Split,
    problem: &Problem<'_>,
    start: &Plan,
    settings: &RecentreSettings,
    progress: &mut dyn Progress,
) -> Result<Recentred, RefineError<X::Error>> {
    settings.check()?;
    let space = problem.space()?;
    let mut work = Work {
        stand: stand_at(problem, &space, start)?,
        space: &space,
        previous: problem.table().clone(),
        context: None,
        history: Vec::new(),
    };
    let mut session = Session::new(Method::Recentre, examiner, split, progress, settings.rounds)?;
    let status = ended(work.run(&mut session, settings))?;
    let outcome = session.outcome(&space, status, &work.stand);
    let Work { context, history, .. } = work;
    Ok(Recentred { plan: outcome.plan, report: outcome.report, context, history })
}

struct Work<'a> {
    space: &'a Space<'a>,
    stand: Stand,
    /// The costs that unmeasured places are extrapolated from.
    previous: ScoreTable,
    context: Option<Context>,
    history: Vec<Round>,
}

impl Work<'_> {
    fn run<X: Examiner>(
        &mut self,
        session: &mut Session<'_, X>,
        settings: &RecentreSettings,
    ) -> Result<Status, Halt<X::Error>> {
        session.open(self.space, &mut self.stand)?;
        for round in 0..settings.rounds {
            session.round = round;
            if !self.round(session, settings)? {
                return Ok(Status::Exhausted);
            }
        }
        Ok(Status::Done)
    }

    /// Whether the round led to another plan.
    fn round<X: Examiner>(
        &mut self,
        session: &mut Session<'_, X>,
        settings: &RecentreSettings,
    ) -> Result<bool, Halt<X::Error>> {
        let space = self.space;
        let survey = survey::around(session, space, &self.stand, settings.reach)?;
        let (costs, table) = costs::in_context(space, &survey, &self.previous).map_err(RefineError::from)?;
        let stored_bits = space.plan(&self.stand.places).stored_bits();
        self.context = Some(Context { stored_bits, origin: Origin::Measured, table: table.clone() });
        self.previous = table;

        let mut record = Round {
            centre: survey.centre,
            moves: survey.measured(),
            changed: 0,
            predicted: 0.0,
            probe: None,
            gate: None,
            accepted: false,
        };
        let steps = trust::steps(space, &survey, &costs, settings)?;
        let mut best: Option<(Stand, Estimate)> = None;
        for step in steps {
            let probe = session.whole_probe(&space.plan(&step.places))?;
            session.rejected += 1; // unless the gate says otherwise
            let change = Estimate::paired(&self.stand.probe, &probe);
            if best.as_ref().is_none_or(|(_, known)| change.mean < known.mean) {
                record.changed = step.changed;
                record.predicted = step.predicted;
                record.probe = Some(change);
                best = Some((Stand { probe, ..Stand::new(step.places) }, change));
            }
        }
        self.history.push(record);
        let Some((mut next, _)) = best.filter(|(_, change)| change.mean < 0.0) else {
            return Ok(false);
        };
        let plan = space.plan(&next.places);
        next.gate = session.gate(&plan)?;
        let change = Estimate::paired(&self.stand.gate, &next.gate);
        let accepted = change.is_below_zero(settings.std_errors);
        if let Some(record) = self.history.last_mut() {
            (record.gate, record.accepted) = (Some(change), accepted);
        }
        if accepted {
            session.rejected -= 1;
            session.accept(&next.gate);
            self.stand = next;
            session.settle(&plan)?;
        }
        Ok(accepted)
    }
}
