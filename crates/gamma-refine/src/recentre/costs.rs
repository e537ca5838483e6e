//! From measured moves to a cost for every option.

use std::collections::HashMap;

use gamma_core::{ModuleScores, ScoreTable, ScoreTableError, ScoredOption, non_increasing};
use gamma_ilp::Space;

use super::survey::Survey;

/// How much an extrapolated cost counts beside a measured one when they are out of order.
const EXTRAPOLATED: f64 = 0.05;

/// How far the ratio of measured to predicted differences of one group may be from that of all.
const SPREAD: f64 = 4.0;

/// What a move that breaks the model costs, in multiples of the worst one that does not.
const BROKEN: f64 = 10.0;

/// Ratios of measured to predicted differences of all moves together, narrower and wider.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratios {
    down: f64,
    up: f64,
}

/// The cost of every place of every group, and of every option of every module.
///
/// The costs of a group's present place add up to the divergence of the centre: each has the share
/// that `previous` gives it, its *anchor*. Another place costs the anchor and the measured change.
pub(super) fn in_context(
    space: &Space<'_>,
    survey: &Survey,
    previous: &ScoreTable,
) -> Result<(Vec<Vec<f64>>, ScoreTable), ScoreTableError> {
    let former = Former::new(space, previous);
    let anchors = anchors(survey, &former);
    let ratios = ratios(survey, &former);
    let mut costs = Vec::with_capacity(space.len());
    for (group, anchor) in anchors.into_iter().enumerate() {
        let changes = changes(survey, group);
        let centre = survey.places[group];
        let mut own: Vec<f64> = changes.iter().map(|change| anchor + change.unwrap_or(0.0)).collect();
        extrapolate(&mut own, &changes, centre, &former.groups[group], ratios);
        let weights: Vec<f64> =
            changes.iter().map(|c| if c.is_some() { 1.0 } else { EXTRAPOLATED }).collect();
        non_increasing(&mut own, &weights);
        costs.push(own);
    }
    let table = former.spread(space, survey, &costs, f64::midpoint(ratios.down, ratios.up))?;
    Ok((costs, table))
}

/// The measured changes of one group; what breaks the model gets a large number.
fn changes(survey: &Survey, group: usize) -> Vec<Option<f64>> {
    let all = survey.changes.iter().flatten().flatten().map(|change| change.mean.abs());
    let worst = all.filter(|change| change.is_finite()).fold(survey.centre.mean.abs(), f64::max);
    let finite = |mean: f64| if mean.is_finite() { mean } else { BROKEN * worst };
    survey.changes[group].iter().map(|change| change.map(|change| finite(change.mean))).collect()
}

fn anchors(survey: &Survey, former: &Former<'_>) -> Vec<f64> {
    let present = || former.groups.iter().zip(&survey.places).map(|(costs, &place)| costs[place]);
    let total: f64 = present().sum();
    let n_groups = survey.places.len() as f64;
    if total > 0.0 && present().all(|cost| cost >= 0.0) {
        present().map(|cost| survey.centre.mean * (cost / total)).collect()
    } else {
        vec![survey.centre.mean / n_groups; survey.places.len()]
    }
}

fn ratios(survey: &Survey, former: &Former<'_>) -> Ratios {
    let ratio = |wanted: fn(usize, usize) -> bool| {
        let (mut measured, mut predicted) = (0.0, 0.0);
        for (group, &centre) in survey.places.iter().enumerate() {
            for (place, change) in survey.changes[group].iter().enumerate() {
                if let Some(change) = change.filter(|c| wanted(place, centre) && c.mean.is_finite()) {
                    measured += change.mean;
                    predicted += former.groups[group][place] - former.groups[group][centre];
                }
            }
        }
        let ratio: f64 = measured / predicted;
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    };
    let (down, up) = (ratio(|place, centre| place < centre), ratio(|place, centre| place > centre));
    Ratios { down: down.or(up).unwrap_or(1.0), up: up.or(down).unwrap_or(1.0) }
}

/// Fills in the places beyond the measured ones, in the shape of the former costs.
fn extrapolate(own: &mut [f64], changes: &[Option<f64>], centre: usize, former: &[f64], all: Ratios) {
    let known = |place: &usize| changes[*place].is_some();
    let (first, last) =
        ((0..=centre).find(known).unwrap_or(centre), (centre..own.len()).rfind(known).unwrap_or(centre));
    let ratio = |edge: usize, all: f64| {
        let ratio = changes[edge].unwrap_or(0.0) / (former[edge] - former[centre]);
        if ratio.is_finite() && ratio > 0.0 { ratio.clamp(all / SPREAD, all * SPREAD) } else { all }
    };
    let (down, up) = (ratio(first, all.down), ratio(last, all.up));
    for place in 0..own.len() {
        if place < first {
            own[place] = own[first] + down * (former[place] - former[first]);
        } else if place > last {
            own[place] = own[last] + up * (former[place] - former[last]);
        }
    }
}

/// The costs before the survey.
struct Former<'a> {
    table: &'a ScoreTable,
    /// Where each allocated module stands in `table`.
    rows: Vec<usize>,
    /// Place by place, the sum over the modules of each group.
    groups: Vec<Vec<f64>>,
}

impl<'a> Former<'a> {
    fn new(space: &Space<'_>, table: &'a ScoreTable) -> Self {
        let names: HashMap<_, _> =
            table.modules().iter().enumerate().map(|(row, m)| (&m.name, row)).collect();
        let rows: Vec<usize> = space.table().modules().iter().map(|module| names[&module.name]).collect();
        let cost = |group: usize, place: usize| {
            let own = space.members(group).zip(space.options(group, place));
            own.map(|(member, option)| table.modules()[rows[member]].options[option].cost).sum()
        };
        let groups = (0..space.len())
            .map(|group| (0..space.places_of(group)).map(|place| cost(group, place)).collect())
            .collect();
        Self { table, rows, groups }
    }

    /// A table of all modules. Tied modules share the costs of their group in proportion to their
    /// former range, so that they add up to it at every place; options that the rules keep out of
    /// the group, and modules that they exclude, keep the shape of their former costs.
    fn spread(
        &self,
        space: &Space<'_>,
        survey: &Survey,
        costs: &[Vec<f64>],
        ratio: f64,
    ) -> Result<ScoreTable, ScoreTableError> {
        let mut modules = self.table.modules().to_vec();
        for (group, costs) in costs.iter().enumerate() {
            let members: Vec<usize> = space.members(group).collect();
            let shares = self.shares(&members);
            for (position, (&member, share)) in members.iter().zip(shares).enumerate() {
                let module = &mut modules[self.rows[member]];
                let mut known: Vec<Option<(f64, Option<f64>)>> = vec![None; module.options.len()];
                for (place, cost) in costs.iter().enumerate() {
                    let option =
                        space.options(group, place).nth(position).expect("an option for every member");
                    let error = survey.changes[group][place].map(|change| share * change.std_error);
                    known[option] = Some((share * cost, error));
                }
                fill(module, &known, ratio);
            }
        }
        ScoreTable::new(modules)
    }

    fn shares(&self, members: &[usize]) -> Vec<f64> {
        let module = |member: usize| &self.table.modules()[self.rows[member]];
        let range = |&member: &usize| {
            let costs = || module(member).options.iter().map(|option| option.cost);
            costs().fold(f64::NEG_INFINITY, f64::max) - costs().fold(f64::INFINITY, f64::min)
        };
        let ranges: Vec<f64> = members.iter().map(range).collect();
        let total: f64 = ranges.iter().sum();
        if total > 0.0 && total.is_finite() {
            ranges.into_iter().map(|range| range / total).collect()
        } else {
            let weights: u64 = members.iter().map(|&member| module(member).weights()).sum();
            members.iter().map(|&member| module(member).weights() as f64 / weights as f64).collect()
        }
    }
}

/// Writes the known costs into a module, and in between the former ones, shifted and rescaled.
fn fill(module: &mut ModuleScores, known: &[Option<(f64, Option<f64>)>], ratio: f64) {
    let former: Vec<f64> = module.options.iter().map(|option| option.cost).collect();
    let nearest = |option: usize| {
        let places = (0..known.len()).filter(|&other| known[other].is_some());
        places.min_by_key(|&other| other.abs_diff(option)).expect("a group has places")
    };
    let mut costs: Vec<f64> = Vec::with_capacity(known.len());
    for (option, own) in known.iter().enumerate() {
        costs.push(own.map_or_else(
            || {
                let near = nearest(option);
                known[near].map_or(0.0, |(cost, _)| cost) + ratio * (former[option] - former[near])
            },
            |(cost, _)| cost,
        ));
    }
    let weights: Vec<f64> = known.iter().map(|own| if own.is_some() { 1.0 } else { EXTRAPOLATED }).collect();
    non_increasing(&mut costs, &weights);
    for ((option, cost), own) in module.options.iter_mut().zip(costs).zip(known) {
        let ScoredOption { format, stored_bits, .. } = option.clone();
        *option = ScoredOption { format, stored_bits, cost, std_error: own.and_then(|(_, error)| error) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_places_keep_the_shape_of_the_former_costs_at_the_measured_scale() {
        let former = [100.0, 40.0, 10.0, 4.0, 1.0];
        // Twice what was predicted below the centre, half of it above.
        let changes = [None, Some(60.0), Some(0.0), Some(-3.0), None];
        let mut own = vec![0.0, 61.0, 1.0, -2.0, 0.0];
        extrapolate(&mut own, &changes, 2, &former, Ratios { down: 1.5, up: 0.6 });
        assert_eq!(own, vec![61.0 + 2.0 * 60.0, 61.0, 1.0, -2.0, -2.0 - 0.5 * 3.0]);
    }

    #[test]
    fn a_ratio_far_from_all_others_or_of_the_wrong_sign_is_not_trusted() {
        let former = [100.0, 40.0, 10.0, 4.0, 1.0];
        let changes = [None, Some(6000.0), Some(0.0), Some(3.0), None];
        let mut own = vec![0.0, 6000.0, 0.0, 3.0, 0.0];
        extrapolate(&mut own, &changes, 2, &former, Ratios { down: 1.5, up: 0.5 });
        assert_eq!(own, vec![6000.0 + 6.0 * 60.0, 6000.0, 0.0, 3.0, 3.0 - 0.5 * 3.0]);
    }
}
