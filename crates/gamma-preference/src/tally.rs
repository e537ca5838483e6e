//! Running sums behind the scores.

use crate::choices::Shares;

/// Mean in-context cost of each candidate of one module.
///
/// For a candidate in use, `½⟨G, Q_k - W⟩` is its part of the loss: where the loss is a quadratic
/// form of the errors, these parts add up to the loss itself (Euler's identity for homogeneous
/// functions). Their mean over the steps in which the candidate was in use is its score.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    sums: Vec<Sum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    weight: f64,
    weight_square: f64,
    value: f64,
    square: f64,
}

/// The mean cost of a candidate, and how well it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    /// How often the candidate was in use; fractions where candidates are mixed.
    pub(crate) weight: f64,
    /// Variance of a single observation; `None` from fewer than two.
    variance: Option<f64>,
}

impl Estimate {
    /// Standard error of the mean.
    pub(crate) fn std_error(self) -> Option<f64> {
        Some((self.variance? / self.weight).sqrt())
    }
}

impl Tally {
    pub(crate) fn new(candidates: usize) -> Self {
        Self { sums: vec![Sum::default(); candidates] }
    }

    /// Adds one step: what was `used` in the forward pass and the inner products `slopes`.
    pub(crate) fn add(&mut self, used: &Shares, slopes: &[f64]) {
        for (k, (sum, slope)) in self.sums.iter_mut().zip(slopes).enumerate() {
            let (share, value) = (used.of(k), 0.5 * slope);
            sum.weight += share;
            sum.weight_square += share * share;
            sum.value += share * value;
            sum.square += share * value * value;
        }
    }

    /// An estimate for every candidate.
    ///
    /// # Panics
    /// If a candidate was never in use.
    pub(crate) fn means(&self) -> Vec<Estimate> {
        let estimate = |sum: &Sum| {
            assert!(sum.weight > 0.0, "the survey draws every candidate");
            let mean = sum.value / sum.weight;
            // The number of equally weighted observations that would be worth as much.
            let count = sum.weight * sum.weight / sum.weight_square;
            let spread = (sum.square / sum.weight - mean * mean).max(0.0);
            let variance = (count > 1.5).then(|| spread * count / (count - 1.0));
            Estimate { mean, weight: sum.weight, variance }
        };
        self.sums.iter().map(estimate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_candidates_in_use_are_charged() {
        let mut tally = Tally::new(2);
        tally.add(&Shares::Pure(0), &[4.0, 100.0]);
        tally.add(&Shares::Mixed(vec![1.0, 0.0]), &[8.0, -100.0]);
        tally.add(&Shares::Pure(1), &[0.0, 10.0]);
        let means = tally.means();
        let estimate = means[0];
        // The values 2 and 4: mean 3, sample variance 2, standard error 1.
        assert!((estimate.mean - 3.0).abs() < 1e-12 && (estimate.weight - 2.0).abs() < 1e-12);
        assert!((estimate.std_error().unwrap() - 1.0).abs() < 1e-12);
        assert!((means[1].mean - 5.0).abs() < 1e-12 && means[1].std_error().is_none());
    }
}
