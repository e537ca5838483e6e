//! The last word: which of several plans to ship.

use gamma_core::Plan;

use crate::{
    Estimate, Examiner, Method, Progress, RefineError, Spent, Split, Status,
    session::{Halt, Session, ended},
};

/// One of the plans to choose from.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its size, in stored bits.
    pub stored_bits: u64,
    /// Its divergence on the gate; `None` where the choice was stopped before it was measured.
    pub gate: Option<Estimate>,
    /// What choosing it instead would change, window by window: positive on average. `None` where
    /// both are infinitely bad, too.
    pub excess: Option<Estimate>,
}

/// The plan of the lowest divergence on the gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The plan.
    pub plan: Plan,
    /// Its position among the candidates.
    pub position: usize,
    /// All candidates, in the order in which they were given.
    pub candidates: Vec<Candidate>,
    /// [`Status::Done`], or [`Status::Stopped`] if not all were measured.
    pub status: Status,
    /// What measuring has cost.
    pub spent: Spent,
}

impl Choice {
    /// Name of the plan.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.candidates[self.position].name
    }
}

/// The plan with the lowest divergence on the gate, the first one among equals.
///
/// This is what makes a promise hold whatever the scores are worth: with the uniform plan among the
/// candidates, the choice is never worse than uniform on the gate. Put the plan that must not be
/// lost to first: it is measured first. Where the choice is stopped, it is among those measured; and
/// the first one if none is.
///
/// # Errors
/// [`RefineError::NoCandidates`], or the examiner fails.
pub fn choose<X: Examiner>(
    examiner: &mut X,
    split: &Split,
    candidates: &[(&str, &Plan)],
    progress: &mut dyn Progress,
) -> Result<Choice, RefineError<X::Error>> {
    if candidates.is_empty() {
        return Err(RefineError::NoCandidates);
    }
    let mut session = Session::new(Method::Choose, examiner, split, progress, candidates.len())?;
    let mut measured: Vec<Vec<f64>> = Vec::with_capacity(candidates.len());
    let mut run = || -> Result<Status, Halt<X::Error>> {
        for (number, (_, plan)) in candidates.iter().enumerate() {
            session.round = number;
            let values = session.gate(plan)?;
            let mean = Estimate::of(&values).mean;
            if session.best.is_none_or(|known| mean < known) {
                session.best = Some(mean);
            }
            measured.push(values);
        }
        Ok(Status::Done)
    };
    let status = ended(run())?;
    let estimates: Vec<Estimate> = measured.iter().map(|values| Estimate::of(values)).collect();
    let position =
        (0..estimates.len()).min_by(|&a, &b| estimates[a].mean.total_cmp(&estimates[b].mean)).unwrap_or(0);
    let describe = |(number, &(name, plan)): (usize, &(&str, &Plan))| Candidate {
        name: name.to_owned(),
        stored_bits: plan.stored_bits(),
        gate: estimates.get(number).copied(),
        excess: measured
            .get(number)
            .map(|values| Estimate::paired(&measured[position], values))
            .filter(|excess| !excess.mean.is_nan()),
    };
    Ok(Choice {
        plan: candidates[position].1.clone(),
        position,
        candidates: candidates.iter().enumerate().map(describe).collect(),
        status,
        spent: session.spent,
    })
}
