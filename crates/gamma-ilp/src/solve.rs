//! Who solves which program.

use std::time::Instant;

use gamma_core::{Certificate, Plan, ScoreKind};

#[cfg(feature = "highs")]
use crate::highs;
use crate::{
    Instance, Limits, ProjectError, Solver, Window, instance::Item, knapsack, program::Program, row::Joints,
};

/// Places of items, one per group, and how much cheaper another plan could be.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) picks: Vec<usize>,
    pub(crate) gap: f64,
}

/// An answer and what it is the best of.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) answer: Answer,
    pub(crate) window: Window,
    pub(crate) solver: &'static str,
}

/// The cheapest plan, or `None` where there is none.
pub(crate) fn best(
    program: &Program<'_>,
    kind: ScoreKind,
    limits: &Limits,
) -> Result<Option<Found>, ProjectError> {
    if program.overdraft > 0 {
        return Ok(None);
    }
    let filling = (kind == ScoreKind::Logits).then(|| program.instance.filling(program.limit.bits));
    let mut limits = *limits;
    for window in filling.into_iter().flatten() {
        let start = Instant::now();
        // Half of what is left, so that there is time for the next window.
        let found =
            within(&program.joints, &program.instance, window, &limits.time_limit(limits.time_limit / 2));
        limits.time_limit = limits.time_limit.saturating_sub(start.elapsed());
        match found {
            Ok(Some((answer, solver))) => return Ok(Some(Found { answer, window, solver })),
            Ok(None) | Err(ProjectError::TimeLimit { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let window = Window::up_to(program.limit.bits);
    let found = within(&program.joints, &program.instance, window, &limits)?;
    Ok(found.map(|(answer, solver)| Found { answer, window, solver }))
}

/// The cheapest plan of `instance` within `window` that keeps `joints`.
pub(crate) fn within(
    joints: &Joints,
    instance: &Instance,
    window: Window,
    limits: &Limits,
) -> Result<Option<(Answer, &'static str)>, ProjectError> {
    if limits.solver == Solver::Highs {
        return general(joints, instance, window, limits);
    }
    let Some(answer) = knapsack::solve(instance, window, limits) else {
        return Ok(None);
    };
    // What is best among more plans, is best among these as well.
    if joints.hold(instance, &answer.picks) {
        return Ok(Some((answer, "knapsack")));
    }
    match limits.solver {
        Solver::Knapsack => Err(ProjectError::NotAKnapsack { constraints: joints.labels() }),
        _ => general(joints, instance, window, limits),
    }
}

#[cfg(feature = "highs")]
fn general(
    joints: &Joints,
    instance: &Instance,
    window: Window,
    limits: &Limits,
) -> Result<Option<(Answer, &'static str)>, ProjectError> {
    let general = highs::General { instance, window, joints };
    Ok(highs::solve(&general, limits)?.map(|answer| (answer, "highs")))
}

#[cfg(not(feature = "highs"))]
fn general(
    joints: &Joints,
    _instance: &Instance,
    _window: Window,
    _limits: &Limits,
) -> Result<Option<(Answer, &'static str)>, ProjectError> {
    Err(ProjectError::NoHighs { constraints: joints.labels() })
}

/// Size of the smallest plan that obeys everything but the budget, or `None` where there is none.
///
/// # Errors
/// [`ProjectError::TimeLimit`] if time ran out before the smallest plan was proven to be that, and
/// the best one found is larger than `enough`.
pub(crate) fn narrowest(
    program: &Program<'_>,
    enough: u64,
    limits: &Limits,
) -> Result<Option<u64>, ProjectError> {
    let instance = &program.instance;
    let narrow = vec![0; instance.len()];
    if program.joints.hold(instance, &narrow) {
        return Ok(Some(instance.narrowest()));
    }
    let unit = instance.unit();
    let mut sized = Instance::with_capacity(instance.len(), instance.n_items());
    for items in instance.groups() {
        let above = |size: u64| ((size - items[0].size) / unit) as f64;
        sized.push(items.iter().map(|item| Item { size: item.size, cost: above(item.size) }));
    }
    let Some((answer, _)) = within(&program.joints, &sized, Window::up_to(instance.widest()), limits)? else {
        return Ok(None);
    };
    let size = instance.size(&answer.picks);
    // Between whole units nothing smaller is left.
    if size > enough && answer.gap >= 1.0 {
        return Err(ProjectError::TimeLimit { seconds: limits.time_limit.as_secs_f64() });
    }
    Ok(Some(size))
}

/// The plan with its proof.
pub(crate) fn certified(program: &Program<'_>, found: &Found) -> Plan {
    let Found { answer, window, solver } = found;
    let used_bits = program.instance.size(&answer.picks);
    assert!(window.contains(used_bits), "a plan of {used_bits} bits is outside {window:?}");
    let picks = program.units.expand(&answer.picks);
    let costs =
        || program.table.modules().iter().zip(&picks).map(|(module, &pick)| module.options[pick].cost);
    let cost: f64 = costs().sum();
    let rounding = f64::EPSILON * costs().map(f64::abs).sum::<f64>();
    let bound = if answer.gap > rounding { (cost - answer.gap).next_down() } else { cost };
    let certificate = Certificate {
        solver: (*solver).to_owned(),
        cost,
        bound,
        measure: program.limit.measure,
        limit_bits: program.limit.bits,
        used_bits,
    };
    Plan::from_picks(&program.table, &picks, Some(certificate)).expect("one option of each module is picked")
}
