//! What is believed of every place, and how measurements change it.

use gamma_ilp::Space;

use super::Proposal;

/// By which part of its promise a rejected proposal is blamed, beside what was measured: without
/// it, a module whose moves do exactly what they promise, which is not enough, would be tried with
/// every partner.
const FATIGUE: f64 = 0.1;

/// Costs in nats per token, place by place of every group; only differences within a group count.
pub(super) struct Beliefs {
    costs: Vec<Vec<f64>>,
}

impl Beliefs {
    /// The scores of the problem, scaled to add up to `divergence` at `places` where their sum there
    /// is positive.
    pub(super) fn new(space: &Space<'_>, places: &[usize], divergence: f64) -> Self {
        let total: f64 = places.iter().enumerate().map(|(group, &place)| space.cost(group, place)).sum();
        let scale = divergence / total;
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        let own = |group| (0..space.places_of(group)).map(|place| scale * space.cost(group, place)).collect();
        Self { costs: (0..space.len()).map(own).collect() }
    }

    /// The change of divergence that a move of one group promises.
    pub(super) fn change(&self, group: usize, from: usize, to: usize) -> f64 {
        self.costs[group][to] - self.costs[group][from]
    }

    /// Corrects the moves of a proposal, in equal parts, by what was measured of it. Measuring
    /// cannot raise the promise of a rejected one.
    pub(super) fn learn(&mut self, proposal: &Proposal, measured: f64, accepted: bool) {
        // A broken model teaches as much as one that is as bad as all scores together.
        let bound: f64 = self.costs.iter().flatten().map(|cost| cost.abs()).fold(f64::MIN_POSITIVE, f64::max);
        let surprise = (measured + proposal.gain).clamp(-bound, bound);
        let error = if accepted { surprise } else { surprise.max(0.0) + FATIGUE * proposal.gain.abs() };
        let part = error / proposal.moves.len() as f64;
        for &(group, place) in &proposal.moves {
            self.costs[group][place] += part;
        }
    }
}
