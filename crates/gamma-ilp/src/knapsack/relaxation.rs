//! The linear relaxation: at which price of a size unit the capacity is just used up.

use std::cmp::Ordering;

use super::groups::{Groups, Item};

/// Each round looks at every item once; the search does the rest.
const FILL_ROUNDS: usize = 3;

/// A solution of the relaxation, rounded down to whole options.
#[derive(Debug)]
pub(super) struct Relaxation {
    /// One item per module; fits the capacity.
    pub(super) chosen: Vec<u32>,
    /// What a unit of size is worth; zero if every module takes its cheapest item.
    pub(super) price: f64,
}

/// One edge of a module's lower convex hull.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Cost saved per unit of size.
    pub(super) slope: f64,
    pub(super) size: i64,
    pub(super) module: u32,
    pub(super) to: u32,
}

impl Relaxation {
    /// Fills `capacity` in order of falling slope, until the first step that no longer fits.
    ///
    /// Everything here is rounded; see [`super::core`] for why that does no harm.
    pub(super) fn new(groups: &Groups, capacity: i64) -> Self {
        let (mut chosen, mut steps) = edges(groups);
        let (taken, price) = fill(&mut steps, capacity);
        for step in &steps[..taken] {
            let item = &mut chosen[step.module as usize];
            *item = step.to.max(*item);
        }
        Self { chosen, price }
    }

    /// The rounded solution with what still fits added, one item at a time, best first.
    pub(super) fn filled_up(&self, groups: &Groups, capacity: i64) -> Vec<u32> {
        let mut chosen = self.chosen.clone();
        let mut room = capacity - groups.size(&chosen);
        for _ in 0..FILL_ROUNDS {
            let mut best = (0.0, 0, 0, 0);
            for (module, (items, &own)) in groups.modules().zip(&chosen).enumerate() {
                let from = &items[own as usize];
                for (place, item) in (0_u32..).zip(items) {
                    let change = item.cost - from.cost;
                    if change < best.0 && item.size <= from.size + room {
                        best = (change, module, place, item.size);
                    }
                }
            }
            let (change, module, place, size) = best;
            if change >= 0.0 {
                break;
            }
            room = room + groups.module(module)[chosen[module] as usize].size - size;
            chosen[module] = place;
        }
        chosen
    }
}

/// The smallest useful item of every module, and all edges of the hulls, module by module.
pub(super) fn edges(groups: &Groups) -> (Vec<u32>, Vec<Step>) {
    let mut steps = Vec::with_capacity(groups.n_items());
    let mut chosen = Vec::with_capacity(groups.len());
    let mut hull = Vec::new();
    for (module, items) in groups.modules().enumerate() {
        lower_hull(items, &mut hull);
        chosen.push(hull[0]);
        let mut steepest = f64::MAX;
        for edge in hull.windows(2) {
            let (from, to) = (&items[edge[0] as usize], &items[edge[1] as usize]);
            let size = to.size - from.size;
            // Rounding must not turn the order of two edges of a module around.
            let slope = ((from.cost - to.cost) / size as f64).min(steepest);
            steepest = slope;
            steps.push(Step { slope, size, module: module as u32, to: edge[1] });
        }
    }
    (chosen, steps)
}

/// Positions of the corners of the lower left convex hull, largest cost first.
fn lower_hull(items: &[Item], hull: &mut Vec<u32>) {
    hull.clear();
    for (place, item) in items.iter().enumerate() {
        if let Some(&last) = hull.last() {
            let last = &items[last as usize];
            if item.cost >= last.cost {
                continue;
            }
            if item.size == last.size {
                hull.pop();
            }
        }
        while let [.., a, b] = hull[..] {
            let (a, b) = (&items[a as usize], &items[b as usize]);
            let before = (a.cost - b.cost) / (b.size - a.size) as f64;
            let after = (b.cost - item.cost) / (item.size - b.size) as f64;
            // Corners on a straight edge stay: short steps fill the capacity better.
            if after <= before {
                break;
            }
            hull.pop();
        }
        hull.push(place as u32);
    }
}

/// Steepest first.
pub(super) fn order(a: &Step, b: &Step) -> Ordering {
    b.slope.total_cmp(&a.slope).then(a.module.cmp(&b.module)).then(a.to.cmp(&b.to))
}

/// Moves the steps that fit `capacity` to the front; their number, and the slope of the first that
/// does not fit.
///
/// Halves the range in doubt at every turn, which is linear where a full sort would not be.
fn fill(steps: &mut [Step], capacity: i64) -> (usize, f64) {
    let (mut taken, mut end, mut room) = (0, steps.len(), capacity);
    while end - taken > 16 {
        let half = (end - taken) / 2;
        steps[taken..end].select_nth_unstable_by(half, order);
        let size: i64 = steps[taken..taken + half].iter().map(|step| step.size).sum();
        if size <= room {
            room -= size;
            taken += half;
        } else {
            end = taken + half;
        }
    }
    // What is in doubt fits as a whole only where nothing was ever too large.
    steps[taken..end].sort_unstable_by(order);
    while taken < end && steps[taken].size <= room {
        room -= steps[taken].size;
        taken += 1;
    }
    (taken, if taken < end { steps[taken].slope } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn filling_by_halves_takes_what_filling_in_order_takes(
            steps in prop::collection::vec((0_u8..20, 1_i64..50), 0..200),
            capacity in 0_i64..3000,
        ) {
            let step = |(module, &(slope, size)): (u32, &(u8, i64))| {
                Step { slope: f64::from(slope), size, module, to: 1 }
            };
            let mut steps: Vec<_> = (0..).zip(&steps).map(step).collect();
            let mut sorted = steps.clone();
            sorted.sort_unstable_by(order);
            let ends = sorted.iter().scan(0, |end, step| {
                *end += step.size;
                Some(*end)
            });
            let expected = ends.take_while(|&end| end <= capacity).count();
            let (taken, price) = fill(&mut steps, capacity);
            prop_assert_eq!(taken, expected);
            let next = sorted.get(taken).map_or(0.0, |step| step.slope);
            prop_assert!(price.total_cmp(&next).is_eq());
            let modules = |steps: &[Step]| {
                let mut modules: Vec<_> = steps.iter().map(|step| step.module).collect();
                modules.sort_unstable();
                modules
            };
            prop_assert_eq!(modules(&steps[..taken]), modules(&sorted[..taken]));
        }
    }
}
