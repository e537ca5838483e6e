//! The exact solver of this crate.

mod core;
mod fixed;
mod groups;
mod relaxation;
mod search;

use gamma_core::ScoreTable;

use self::{
    core::{Bound, Core},
    groups::{Groups, Keep, Measure},
    relaxation::Relaxation,
    search::{Goal, Search},
};
use crate::{Answer, Limits, Window};

/// The cheapest plan within `window`, or `None` where there is none.
pub(crate) fn solve(table: &ScoreTable, window: Window, limits: &Limits) -> Option<Answer> {
    let scale = power_of_two(table);
    let max_states = limits.max_states.min(u64::from(u32::MAX / 2));
    let mut known: Option<(f64, Vec<usize>)> = None;
    let mut bounds = Vec::new();
    // With one end of the window alone the search is far smaller, and mostly its plan lies within
    // the other end anyway.
    for measure in [Measure::Spent, Measure::Saved] {
        let groups = Groups::new(table, measure, Keep::Efficient, scale);
        let within = groups.window(window);
        let result = one_sided(&groups, within, max_states);
        let picks = groups.picks(&result.chosen);
        if window.contains(bits(table, &picks)) {
            return Some(Answer { picks, gap: result.gap / scale });
        }
        bounds.push((picks, result.gap));
        if let Some(aside) = result.aside {
            let picks = groups.picks(&aside);
            let cost = picks.iter().zip(table.modules()).map(|(&pick, m)| m.options[pick].cost).sum();
            if known.as_ref().is_none_or(|&(best, _)| cost < best) {
                known = Some((cost, picks));
            }
        }
    }
    two_sided(table, window, scale, known.map(|(_, picks)| picks), &bounds, max_states)
}

struct Attempt {
    chosen: Vec<u32>,
    gap: f64,
    aside: Option<Vec<u32>>,
}

/// The cheapest plan up to the ceiling, of those the smallest.
fn one_sided(groups: &Groups, window: Window, max_states: u64) -> Attempt {
    let relaxation = Relaxation::new(groups, window.ceiling);
    if relaxation.price == 0.0 {
        // Every module takes its smallest item of least cost.
        return Attempt { chosen: relaxation.chosen, gap: 0.0, aside: None };
    }
    let known = relaxation.filled_up(groups, window.ceiling);
    let core = Core::new(groups, &relaxation, window.ceiling, Some(&known), &[]);
    let least = window.floor as i64 - groups.size(&core.base) as i64;
    let outcome = Search::new(&core, Goal { least, strict: false, max_states }).run();
    let before = core.known.map_or(i128::MAX, |(cost, _)| cost);
    let (cost, chosen) = outcome.best.map_or((before, known), |found| (found.cost, found.chosen));
    Attempt { chosen, gap: gap(&core, cost, outcome.bound), aside: outcome.aside.map(|found| found.chosen) }
}

/// The cheapest plan between both ends, where each end alone leads beyond the other.
fn two_sided(
    table: &ScoreTable,
    window: Window,
    scale: f64,
    known: Option<Vec<usize>>,
    bounds: &[(Vec<usize>, f64)],
    max_states: u64,
) -> Option<Answer> {
    let mut measure = Measure::Spent;
    let groups = loop {
        let groups = Groups::new(table, measure, Keep::All, scale);
        let ceiling = groups.window(window).ceiling;
        if measure == Measure::Saved || Relaxation::new(&groups, ceiling).price > 0.0 {
            break groups;
        }
        measure = Measure::Saved;
    };
    let window = groups.window(window);
    if window.floor > window.ceiling {
        return None;
    }
    let relaxation = Relaxation::new(&groups, window.ceiling);
    let mut known = known.and_then(|picks| groups.find(&picks));
    let found = |(picks, gap): &(Vec<usize>, f64)| groups.find(picks).map(|chosen| Bound { chosen, gap: *gap });
    let bounds: Vec<_> = bounds.iter().filter_map(found).collect();
    // Any plan at all shrinks the core, so the first look is a short one.
    for max_states in if known.is_none() { [0, max_states] } else { [max_states, 0] } {
        let core = Core::new(&groups, &relaxation, window.ceiling, known.as_deref(), &bounds);
        let least = window.floor as i64 - groups.size(&core.base) as i64;
        let outcome = Search::new(&core, Goal { least, strict: true, max_states }).run();
        let before = core.known.map(|(cost, _)| cost);
        let cost = outcome.best.as_ref().map(|found| found.cost).or(before);
        known = outcome.best.map(|found| found.chosen).or(known);
        if max_states > 0 || outcome.bound.is_none() {
            let (cost, known) = cost.zip(known)?;
            let gap = gap(&core, cost, outcome.bound) / scale;
            return Some(Answer { picks: groups.picks(&known), gap });
        }
    }
    None
}

/// How far below `cost` a better plan could be, rounded up.
fn gap(core: &Core, cost: i128, bound: Option<i128>) -> f64 {
    let Some(bound) = bound else { return 0.0 };
    let gap = cost.saturating_sub(bound.max(core.bound).max(core.proven)).max(0);
    core.scale.value(gap) * (1.0 + f64::EPSILON)
}

/// A factor that brings costs to where differences and slopes neither overflow nor underflow.
fn power_of_two(table: &ScoreTable) -> f64 {
    let costs = table.modules().iter().flat_map(|m| &m.options).map(|option| option.cost.abs());
    let largest = costs.fold(0.0, f64::max);
    if largest > 2_f64.powi(960) {
        2_f64.powi(-64)
    } else if largest > 0.0 && largest < 1.0 {
        // Subnormal numbers have no negative exponent of their own, hence the ceiling.
        2_f64.powi((-largest.log2()).floor().min(1000.0) as i32)
    } else {
        1.0
    }
}

fn bits(table: &ScoreTable, picks: &[usize]) -> u64 {
    picks.iter().zip(table.modules()).map(|(&pick, m)| m.options[pick].stored_bits).sum()
}
