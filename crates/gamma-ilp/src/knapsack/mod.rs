//! The exact solver of this crate.
//!
//! In the order of the files: the instance becomes [groups] of items; their linear [relaxation] is
//! solved by sorting; what it cannot decide is the [core], in [fixed]-point numbers; a [search]
//! decides it by dynamic programming. A [sweep] follows the relaxation over all budgets at once. Sinha and Zoltners 1979 and Pisinger 1995 describe such
//! solvers; the exact numbers and the lower end of the window are ours.

mod core;
mod fixed;
mod groups;
mod relaxation;
mod search;
mod sweep;

pub(crate) use self::sweep::{price, sweep};
use self::{
    core::{Bound, Core},
    groups::{Groups, Keep, Measure, Span},
    relaxation::Relaxation,
    search::{Goal, Search},
};
use crate::{Instance, Limits, Window, solve::Answer};

/// The cheapest plan within `window`, or `None` where there is none.
pub(crate) fn solve(instance: &Instance, window: Window, limits: &Limits) -> Option<Answer> {
    if window.ceiling < instance.narrowest() || instance.widest() < window.floor {
        return None;
    }
    let scale = power_of_two(instance);
    // Deviations are numbered in 32 bits.
    let max_states = limits.max_states.min(1 << 31);
    let mut known: Option<(f64, Vec<usize>)> = None;
    let mut bounds = Vec::new();
    // With one end of the window alone the search is far smaller, and mostly its plan lies within
    // the other end anyway.
    for measure in [Measure::Spent, Measure::Saved] {
        let groups = Groups::new(instance, measure, Keep::Efficient, scale);
        let attempt = one_sided(&groups, groups.span(window), max_states);
        let picks = groups.picks(&attempt.chosen);
        if window.contains(instance.size(&picks)) {
            return Some(Answer { picks, gap: attempt.gap / scale });
        }
        bounds.push((picks, attempt.gap));
        if let Some(aside) = attempt.aside {
            let picks = groups.picks(&aside);
            let cost = groups.at(&aside).map(|(_, item)| item.cost).sum();
            if known.as_ref().is_none_or(|&(best, _)| cost < best) {
                known = Some((cost, picks));
            }
        }
    }
    let mut problem = Problem::new(instance, window, scale, Measure::Spent);
    if problem.relaxation.price == 0.0 {
        problem = Problem::new(instance, window, scale, Measure::Saved);
    }
    let known = known.and_then(|(_, picks)| problem.groups.find(&picks));
    let bounds = bounds.into_iter().filter_map(|(picks, gap)| {
        let chosen = problem.groups.find(&picks)?;
        Some(Bound { chosen, gap })
    });
    let (chosen, gap) = problem.two_sided(known, &bounds.collect::<Vec<_>>(), max_states)?;
    Some(Answer { picks: problem.groups.picks(&chosen), gap: gap / scale })
}

struct Attempt {
    chosen: Vec<u32>,
    gap: f64,
    /// A plan within the whole window, if one was met.
    aside: Option<Vec<u32>>,
}

/// The cheapest plan up to the ceiling, of those the smallest.
fn one_sided(groups: &Groups, span: Span, max_states: u64) -> Attempt {
    let relaxation = Relaxation::new(groups, span.ceiling);
    if relaxation.price == 0.0 {
        // Every module takes its smallest item of least cost.
        return Attempt { chosen: relaxation.chosen, gap: 0.0, aside: None };
    }
    let known = relaxation.filled_up(groups, span.ceiling);
    let core = Core::new(groups, &relaxation, span.ceiling, Some(&known), &[]);
    let least = span.floor - groups.size(&core.base);
    let outcome = Search::new(&core, Goal { least, strict: false, max_states }).run();
    let before = core.known.map_or(i128::MAX, |(cost, _)| cost);
    let (cost, chosen) = outcome.best.map_or((before, known), |found| (found.cost, found.chosen));
    Attempt { chosen, gap: gap(&core, cost, outcome.bound), aside: outcome.aside.map(|found| found.chosen) }
}

/// A search between both ends of a window, for where each end alone leads beyond the other.
struct Problem {
    groups: Groups,
    span: Span,
    relaxation: Relaxation,
}

impl Problem {
    fn new(instance: &Instance, window: Window, scale: f64, measure: Measure) -> Self {
        let groups = Groups::new(instance, measure, Keep::All, scale);
        let span = groups.span(window);
        let relaxation = Relaxation::new(&groups, span.ceiling);
        Self { groups, span, relaxation }
    }

    /// The cheapest plan and its gap.
    fn two_sided(
        &self,
        mut known: Option<Vec<u32>>,
        bounds: &[Bound],
        max_states: u64,
    ) -> Option<(Vec<u32>, f64)> {
        let Span { floor, ceiling } = self.span;
        if floor > ceiling {
            return None;
        }
        let mut proof = f64::INFINITY;
        // Any plan at all shrinks the core, so a first look is a short one.
        let looks = [known.is_none().then_some(0), Some(max_states)];
        for max_states in looks.into_iter().flatten() {
            let core = Core::new(&self.groups, &self.relaxation, ceiling, known.as_deref(), bounds);
            let least = floor - self.groups.size(&core.base);
            let outcome = Search::new(&core, Goal { least, strict: true, max_states }).run();
            let cost = outcome.best.as_ref().map(|found| found.cost).or(core.known.map(|(cost, _)| cost));
            known = outcome.best.map(|found| found.chosen).or(known);
            proof = cost.map_or(proof, |cost| gap(&core, cost, outcome.bound));
            if outcome.bound.is_none() {
                break;
            }
        }
        known.map(|chosen| (chosen, proof))
    }
}

/// How far below `cost` a better plan could be, rounded up.
fn gap(core: &Core, cost: i128, bound: Option<i128>) -> f64 {
    let Some(bound) = bound else { return 0.0 };
    let gap = cost.saturating_sub(bound.max(core.bound).max(core.proven)).max(0);
    core.scale.value(gap) * (1.0 + f64::EPSILON)
}

/// A factor that brings costs to where differences and slopes neither overflow nor underflow.
fn power_of_two(instance: &Instance) -> f64 {
    let costs = instance.groups().flatten().map(|item| item.cost.abs());
    let largest = costs.fold(0.0, f64::max);
    if largest > 2_f64.powi(960) {
        2_f64.powi(-64)
    } else if largest > 0.0 && largest < 1.0 {
        // The inverse of the smallest subnormal number would overflow.
        2_f64.powi((-largest.log2()).floor().min(1000.0) as i32)
    } else {
        1.0
    }
}
