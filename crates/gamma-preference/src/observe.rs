//! What was seen in each step, and the mean cost of every option that follows from it.

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::choices::{Shares, stream};

/// The circumstances of one step: what it was shown, and what else was quantized.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The round; 0 is the survey.
    pub round: usize,
    /// The calibration batch.
    pub batch: usize,
    /// Code bits per weight of everything that was drawn; 0 where nothing was.
    pub bits: f64,
    /// The loss of the step, all its terms together.
    pub loss: f64,
}

/// What one option of one module was charged in one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Which of [`Observations::contexts`].
    pub context: usize,
    /// The candidate, in the network's order.
    pub candidate: usize,
    /// How much of it was in use: 1, or its share of a mixture.
    pub share: f64,
    /// Its part of the loss, `½⟨G, Q_k - W⟩`.
    ///
    /// Where the loss is a quadratic form of the errors, these parts add up to the loss itself
    /// (Euler's identity for homogeneous functions).
    pub value: f64,
}

/// Everything that a run has seen, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// One for each step; where blocks learn apart, one for each step of each block.
    pub contexts: Vec<Context>,
    /// For each module, in the order of the network, what its options were charged.
    pub modules: Vec<Vec<Observation>>,
}

/// The mean cost of a candidate, and how well it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    /// How often the candidate was in use; fractions where candidates are mixed.
    pub(crate) weight: f64,
    /// How many observations, each of the candidate alone and of this very level, would tell as much.
    pub(crate) count: f64,
    /// Variance of a single observation; `None` from fewer than two.
    variance: Option<f64>,
}

impl Estimate {
    /// Standard error of the mean.
    pub(crate) fn std_error(self) -> Option<f64> {
        Some((self.variance? / self.count).sqrt())
    }
}

#[derive(Clone, Copy, Default)]
struct Sum {
    weight: f64,
    square_shares: f64,
    value: f64,
    square: f64,
}

impl Sum {
    /// An observation that counts like `precision` observations, of a candidate that was in use by
    /// `share`: the mean weighs it by both, but its noise is less only by the former.
    fn add(&mut self, precision: f64, share: f64, value: f64) {
        let weight = precision * share;
        self.weight += weight;
        self.square_shares += weight * share;
        self.value += weight * value;
        self.square += weight * value * value;
    }

    fn estimate(self) -> Option<Estimate> {
        if self.weight <= 0.0 {
            return None;
        }
        let mean = self.value / self.weight;
        let count = self.weight * self.weight / self.square_shares;
        let spread = (self.square / self.weight - mean * mean).max(0.0);
        let variance = (count > 1.5).then(|| spread * count / (count - 1.0));
        Some(Estimate { mean, weight: self.weight, count, variance })
    }
}

impl Observations {
    pub(crate) fn new(modules: usize) -> Self {
        Self { contexts: Vec::new(), modules: vec![Vec::new(); modules] }
    }

    /// Adds what the latest context says about `module`: what was `used` in the forward pass and the
    /// inner products `slopes`.
    pub(crate) fn add(&mut self, module: usize, context: usize, used: &Shares, slopes: &[f64]) {
        for (candidate, slope) in slopes.iter().enumerate() {
            let share = used.of(candidate);
            if share > 0.0 {
                self.modules[module].push(Observation { context, candidate, share, value: 0.5 * slope });
            }
        }
    }

    /// Whether every step went through the whole network.
    pub(crate) fn whole(&self) -> bool {
        let charged = |seen: &Vec<Observation>| seen.iter().map(|seen| seen.context).max();
        let last = self.contexts.len().checked_sub(1);
        last.is_some() && self.modules.iter().all(|seen| charged(seen) == last)
    }

    /// An estimate for each of the `candidates` of `module`; `None` for those that were never in use.
    pub(crate) fn means(&self, module: usize, candidates: usize) -> Vec<Option<Estimate>> {
        self.weighted(module, candidates, |_| 1.0)
    }

    /// The same with a weight for each context.
    pub(crate) fn weighted(
        &self,
        module: usize,
        candidates: usize,
        weight: impl Fn(usize) -> f64,
    ) -> Vec<Option<Estimate>> {
        let mut sums = vec![Sum::default(); candidates];
        for seen in &self.modules[module] {
            let weight = weight(seen.context);
            if weight > 0.0 {
                sums[seen.candidate].add(weight, seen.share, seen.value);
            }
        }
        sums.into_iter().map(Sum::estimate).collect()
    }

    /// How often each context counts where batches are drawn anew, as many as there are, with
    /// replacement (the bootstrap of Efron 1979, with batches as clusters).
    pub(crate) fn redraw(&self, seed: u64) -> Vec<f64> {
        let batches = self.contexts.iter().map(|context| context.batch + 1).max().unwrap_or(0);
        let mut present = vec![false; batches];
        self.contexts.iter().for_each(|context| present[context.batch] = true);
        let present: Vec<usize> = (0..batches).filter(|&batch| present[batch]).collect();
        let mut rng = stream(seed, 0, 0, 0);
        let mut counts = vec![0.0; batches];
        for _ in &present {
            counts[present[rng.random_range(0..present.len())]] += 1.0;
        }
        self.contexts.iter().map(|context| counts[context.batch]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_candidates_in_use_are_charged() {
        let mut seen = Observations::new(1);
        seen.add(0, 0, &Shares::Pure(0), &[4.0, 100.0]);
        seen.add(0, 1, &Shares::Mixed(vec![1.0, 0.0]), &[8.0, -100.0]);
        seen.add(0, 2, &Shares::Pure(1), &[0.0, 10.0]);
        let means = seen.means(0, 3);
        let estimate = means[0].expect("seen twice");
        // The values 2 and 4: mean 3, sample variance 2, standard error 1.
        assert!((estimate.mean - 3.0).abs() < 1e-12 && (estimate.weight - 2.0).abs() < 1e-12);
        assert!((estimate.std_error().unwrap() - 1.0).abs() < 1e-12);
        let estimate = means[1].expect("seen once");
        assert!((estimate.mean - 5.0).abs() < 1e-12 && estimate.std_error().is_none());
        assert!(means[2].is_none());
    }

    #[test]
    fn a_share_weighs_an_observation_and_a_weight_thins_it_out() {
        let mut seen = Observations::new(1);
        for (step, value) in [1.0, 3.0, 5.0, 7.0].into_iter().enumerate() {
            seen.add(0, step, &Shares::Mixed(vec![0.25, 0.75]), &[2.0 * value, 0.0]);
        }
        // The mean of four is as certain whether all were in use by a quarter or alone.
        let estimate = seen.means(0, 2)[0].expect("seen");
        assert!((estimate.count - 4.0).abs() < 1e-12 && (estimate.weight - 1.0).abs() < 1e-12);
        assert!((estimate.std_error().unwrap() - (20.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        // Steps that belong to a level by half tell half as much of it.
        let half = seen.weighted(0, 2, |_| 0.5)[0].expect("seen");
        assert!((half.count - 2.0).abs() < 1e-12 && (half.mean - 4.0).abs() < 1e-12);
        assert!(half.std_error().unwrap() > estimate.std_error().unwrap());
    }

    #[test]
    fn a_redraw_takes_whole_batches_and_as_many_as_there_are() {
        let context = |batch| Context { round: 0, batch, bits: 3.0, loss: 0.0 };
        let seen = Observations { contexts: (0..12).map(|i| context(i % 6)).collect(), modules: Vec::new() };
        let counts = seen.redraw(1);
        assert_eq!(counts[..6], counts[6..]);
        assert!((counts[..6].iter().sum::<f64>() - 6.0).abs() < 1e-12);
        assert_ne!(counts, seen.redraw(2));
    }
}
