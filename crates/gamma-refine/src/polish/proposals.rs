//! Swaps that keep the budget, best promise first.

use std::collections::HashSet;

use gamma_ilp::Space;

use super::beliefs::Beliefs;

/// How many of the pairs are completed to whole swaps.
const POOL: usize = 4096;

/// A plan to try.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) places: Vec<usize>,
    /// Groups that move, with their new places.
    pub(super) moves: Vec<(usize, usize)>,
    /// By how much the divergence should fall.
    pub(super) gain: f64,
}

/// The swap of the highest gain that was not tried yet, where there is one.
///
/// Every swap begins as one group going up, alone or with one going down. Where that takes too much,
/// further groups go down, those that lose least per bit; where it leaves room, further groups go
/// up, those that gain most.
pub(super) fn best(
    space: &Space<'_>,
    beliefs: &Beliefs,
    current: &[usize],
    reach: usize,
    tried: &HashSet<Vec<usize>>,
) -> Option<Proposal> {
    let swap = Swap { space, beliefs, current };
    let mut seeds = swap.seeds(reach);
    // Among equals the later modules: they are cheaper to measure.
    seeds.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
    let mut seen = HashSet::new();
    let mut best: Option<Proposal> = None;
    let mut completed = 0;
    for (moves, _) in seeds {
        let Some(proposal) = swap.complete(moves) else { continue };
        if tried.contains(&proposal.places) || !seen.insert(proposal.places.clone()) {
            continue;
        }
        if best.as_ref().is_none_or(|best| proposal.gain > best.gain) {
            best = Some(proposal);
        }
        completed += 1;
        if completed == POOL {
            break;
        }
    }
    best
}

struct Swap<'a> {
    space: &'a Space<'a>,
    beliefs: &'a Beliefs,
    current: &'a [usize],
}

impl Swap<'_> {
    /// Beginnings of swaps and their gains.
    fn seeds(&self, reach: usize) -> Vec<(Vec<(usize, usize)>, f64)> {
        let (mut ups, mut downs) = (Vec::new(), Vec::new());
        for (group, &own) in self.current.iter().enumerate() {
            let gain = |place: usize| ((group, place), -self.beliefs.change(group, own, place));
            ups.extend((own + 1..self.space.places_of(group)).take(reach).map(gain));
            downs.extend((0..own).rev().take(reach).map(gain));
        }
        let mut seeds: Vec<_> = ups.iter().map(|&(up, gain)| (vec![up], gain)).collect();
        for &(up, gain) in &ups {
            let others = downs.iter().filter(|(down, _)| down.0 != up.0);
            seeds.extend(others.map(|&(down, loss)| (vec![up, down], gain + loss)));
        }
        seeds
    }

    /// The swap with what it takes to keep the budget and to use it.
    fn complete(&self, mut moves: Vec<(usize, usize)>) -> Option<Proposal> {
        let mut places = self.current.to_vec();
        for &(group, place) in &moves {
            places[group] = place;
        }
        let limit = self.space.limit().bits;
        let size = |group: usize, place: usize| self.space.size(group, place);
        let mut used: u64 = places.iter().enumerate().map(|(group, &place)| size(group, place)).sum();
        while used > limit {
            let excess = used - limit;
            let loss_per_bit = |&group: &usize| {
                let place = places[group];
                let freed = (size(group, place) - size(group, place - 1)).min(excess);
                self.beliefs.change(group, place, place - 1) / freed as f64
            };
            let free = (0..places.len()).rev().filter(|&group| {
                places[group] > 0
                    && places[group] == self.current[group]
                    && size(group, places[group]) > size(group, places[group] - 1)
            });
            let down = free.min_by(|a, b| loss_per_bit(a).total_cmp(&loss_per_bit(b)))?;
            used -= size(down, places[down]) - size(down, places[down] - 1);
            places[down] -= 1;
            moves.push((down, places[down]));
        }
        loop {
            let room = limit - used;
            let gain = |&group: &usize| -self.beliefs.change(group, places[group], places[group] + 1);
            let free = (0..places.len()).rev().filter(|&group| {
                let place = places[group];
                place == self.current[group]
                    && place + 1 < self.space.places_of(group)
                    && size(group, place + 1) - size(group, place) <= room
                    && gain(&group) > 0.0
            });
            let Some(up) = free.max_by(|a, b| gain(a).total_cmp(&gain(b))) else { break };
            used += size(up, places[up] + 1) - size(up, places[up]);
            places[up] += 1;
            moves.push((up, places[up]));
        }
        let gain =
            moves.iter().map(|&(group, to)| -self.beliefs.change(group, self.current[group], to)).sum();
        self.space.admits(&places).then_some(Proposal { places, moves, gain })
    }
}
