//! The linear relaxation for all budgets at once.

use super::{
    groups::{Groups, Keep, Measure},
    power_of_two,
    relaxation::{self, Relaxation},
};
use crate::{Instance, Window};

/// One change of one item on the way from the narrowest plan to the cheapest one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) group: usize,
    /// Place of the item that is taken from here on.
    pub(crate) place: usize,
    /// Cost saved per bit.
    pub(crate) slope: f64,
}

/// The smallest plan, and the changes that lead from it to the cheapest one, most worth first.
///
/// After each of them stands a *supported* plan: the cheapest of its own size, and the cheapest of
/// all plans where a bit costs as much as the slope there.
pub(crate) fn sweep(instance: &Instance) -> (Vec<usize>, Vec<Edge>) {
    let scale = power_of_two(instance);
    let groups = Groups::new(instance, Measure::Spent, Keep::Efficient, scale);
    let (start, mut steps) = relaxation::edges(&groups);
    steps.sort_unstable_by(relaxation::order);
    let per_bit = scale * groups.unit() as f64;
    let edge = |step: &relaxation::Step| {
        let group = step.module as usize;
        Edge {
            group,
            place: groups.module(group)[step.to as usize].pick as usize,
            slope: step.slope / per_bit,
        }
    };
    (groups.picks(&start), steps.iter().map(edge).collect())
}

/// Cost that one more bit saves at `ceiling` in the relaxation: the shadow price of the budget.
pub(crate) fn price(instance: &Instance, ceiling: u64) -> f64 {
    let scale = power_of_two(instance);
    let groups = Groups::new(instance, Measure::Spent, Keep::Efficient, scale);
    let span = groups.span(Window::up_to(ceiling));
    Relaxation::new(&groups, span.ceiling).price / (scale * groups.unit() as f64)
}
