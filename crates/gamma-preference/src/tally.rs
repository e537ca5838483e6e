//! Running sums behind the scores.

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
    value: f64,
    square: f64,
}

impl Tally {
    pub(crate) fn new(candidates: usize) -> Self {
        Self { sums: vec![Sum::default(); candidates] }
    }

    /// Adds one step: the shares `used` in the forward pass and the inner products `slopes`.
    pub(crate) fn add(&mut self, used: &[f32], slopes: &[f64]) {
        for ((sum, &share), slope) in self.sums.iter_mut().zip(used).zip(slopes) {
            let (share, value) = (f64::from(share), 0.5 * slope);
            sum.weight += share;
            sum.value += share * value;
            sum.square += share * value * value;
        }
    }

    /// Mean cost, its standard error and its weight for every candidate; `None` for one that was
    /// never in use.
    pub(crate) fn means(&self) -> Vec<Option<(f64, f64, f64)>> {
        let mean = |sum: &Sum| {
            (sum.weight > 0.0).then(|| {
                let mean = sum.value / sum.weight;
                let variance = (sum.square / sum.weight - mean * mean).max(0.0);
                (mean, (variance / sum.weight.max(1.0)).sqrt(), sum.weight)
            })
        };
        self.sums.iter().map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_candidates_in_use_are_charged() {
        let mut tally = Tally::new(2);
        tally.add(&[1.0, 0.0], &[4.0, 100.0]);
        tally.add(&[1.0, 0.0], &[8.0, -100.0]);
        let means = tally.means();
        let (mean, error, weight) = means[0].unwrap();
        assert!((mean - 3.0).abs() < 1e-12 && (error - (0.5_f64).sqrt()).abs() < 1e-12 && (weight - 2.0).abs() < 1e-12);
        assert!(means[1].is_none());
    }
}
