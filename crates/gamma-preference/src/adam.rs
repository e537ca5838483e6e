//! Adam (Kingma & Ba 2015) on the logits.

use serde::{Deserialize, Serialize};

/// First moments per logit; the second moment is shared by all modules.
///
/// A second moment per logit would move every module at the same speed, whatever its effect on the
/// loss, and with it erase the very differences that are to be learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Adam {
    rate: f64,
    first: Vec<Vec<f64>>,
    /// Mean square of each module's gradient, moving.
    second: Vec<f64>,
    updates: Vec<i32>,
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.99;

impl Adam {
    pub(crate) fn new(rate: f64, logits: &[Vec<f64>]) -> Self {
        Self {
            rate,
            first: logits.iter().map(|theta| vec![0.0; theta.len()]).collect(),
            second: vec![0.0; logits.len()],
            updates: vec![0; logits.len()],
        }
    }

    /// Whether there is one moment for each of `logits`.
    pub(crate) fn fits(&self, logits: &[Vec<f64>]) -> bool {
        let same = self.first.iter().map(Vec::len).eq(logits.iter().map(Vec::len));
        same && self.second.len() == logits.len() && self.updates.len() == logits.len()
    }

    /// Takes note of the mean square of a module's gradient before the first update.
    pub(crate) fn record(&mut self, module: usize, square: f64) {
        self.updates[module] += 1;
        self.second[module] += (square - self.second[module]) / f64::from(self.updates[module]);
    }

    /// Ends the recording; gradients are `unit` times smaller from now on.
    pub(crate) fn start(&mut self, unit: f64) {
        self.second.iter_mut().for_each(|second| *second /= unit * unit);
        self.updates.fill(0);
    }

    /// Moves the logits `theta` of `module` against `gradient`.
    pub(crate) fn update(&mut self, module: usize, theta: &mut [f64], gradient: &[f64]) {
        self.updates[module] += 1;
        let square = gradient.iter().map(|g| g * g).sum::<f64>() / gradient.len() as f64;
        self.second[module] = BETA_2 * self.second[module] + (1.0 - BETA_2) * square;
        let mean = self.second.iter().sum::<f64>() / self.second.len() as f64;
        let scale = self.rate / (mean.sqrt() + f64::MIN_POSITIVE);
        let correction = 1.0 - BETA_1.powi(self.updates[module]);
        for ((theta, first), gradient) in theta.iter_mut().zip(&mut self.first[module]).zip(gradient) {
            *first = BETA_1 * *first + (1.0 - BETA_1) * gradient;
            *theta -= scale * *first / correction;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_with_larger_gradients_moves_further() {
        let mut logits = vec![vec![0.0, 0.0], vec![0.0, 0.0]];
        let mut adam = Adam::new(0.1, &logits);
        adam.record(0, 4.0);
        adam.record(1, 4e-4);
        adam.start(2.0);
        for _ in 0..10 {
            for (module, size) in [(0, 1.0), (1, 0.01)] {
                adam.update(module, &mut logits[module], &[size, -size]);
            }
        }
        assert!(logits[0][0] < -0.5 && logits[0][1] > 0.5, "{logits:?}");
        assert!(logits[1][0] < 0.0 && logits[1][0] > 0.05 * logits[0][0], "{logits:?}");
    }
}
