//! What a bit costs while learning.

use serde::{Deserialize, Serialize};

use crate::{
    Competitor,
    choices::{Shares, softmax},
};

/// The code bits per weight of each candidate, and each module's share of all weights.
#[derive(Debug)]
pub(crate) struct Widths {
    /// Code bits per weight, per module and candidate.
    bits: Vec<Vec<f64>>,
    shares: Vec<f64>,
}

impl Widths {
    pub(crate) fn new(modules: &[&Competitor]) -> Self {
        let total: f64 = modules.iter().map(|module| module.weights()).sum();
        let bits = |module: &&Competitor| {
            module.candidates.iter().map(|candidate| f64::from(candidate.format.bits().bits())).collect()
        };
        Self {
            bits: modules.iter().map(bits).collect(),
            shares: modules.iter().map(|module| module.weights() / total).collect(),
        }
    }

    pub(crate) fn of(&self, module: usize) -> &[f64] {
        &self.bits[module]
    }

    pub(crate) fn share(&self, module: usize) -> f64 {
        self.shares[module]
    }

    /// Code bits per weight of what is `used` by the modules from `first` on.
    pub(crate) fn average<'a>(&self, first: usize, used: impl Iterator<Item = &'a Shares>) -> f64 {
        let modules = self.bits[first..].iter().zip(&self.shares[first..]).zip(used);
        let (sum, total) = modules.fold((0.0, 0.0), |(sum, total), ((bits, share), used)| {
            let own: f64 = bits.iter().enumerate().map(|(k, bits)| used.of(k) * bits).sum();
            (sum + share * own, total + share)
        });
        sum / total
    }

    /// Narrowest and widest average that any choice can have.
    pub(crate) fn range(&self) -> (f64, f64) {
        let mean = |pick: fn(f64, f64) -> f64| -> f64 {
            let bits = self.bits.iter().map(|bits| bits.iter().copied().reduce(pick).unwrap_or(0.0));
            bits.zip(&self.shares).map(|(bits, share)| bits * share).sum()
        };
        (mean(f64::min), mean(f64::max))
    }

    /// The part of the range `from..=to` that choices reach, or all that they reach where the two
    /// do not meet.
    pub(crate) fn reachable(&self, from: f64, to: f64) -> (f64, f64) {
        let (low, high) = self.range();
        let margin = 0.02 * (high - low); // the ends take an infinite price
        let (from, to) = (from.max(low + margin), to.min(high - margin));
        if from <= to { (from, to) } else { (low + margin, high - margin) }
    }

    /// Expected bits per weight when every module chooses by `softmax(θ / τ)`.
    pub(crate) fn expected(&self, logits: &[Vec<f64>], temperature: f64) -> f64 {
        self.mean(logits.iter().map(|theta| softmax(theta, temperature)))
    }

    /// The logits by which `module` chooses at a price of a bit per weight: `-(cost / price + bits) / τ`,
    /// with the price as that of a bit for all of its weights and `τ =` [`SPREAD`] bits. What is less
    /// than the best by as much as a bit is worth is drawn `exp(-1 / τ)` times as often.
    pub(crate) fn preferences(&self, module: usize, costs: &[f64], price: f64) -> Vec<f64> {
        let unit = price * self.shares[module];
        costs.iter().zip(&self.bits[module]).map(|(cost, bits)| -(cost / unit + bits) / SPREAD).collect()
    }

    /// Expected bits per weight of choices by these preferences.
    pub(crate) fn expected_at(&self, costs: &[Vec<f64>], price: f64) -> f64 {
        let own = |(module, costs): (usize, &Vec<f64>)| softmax(&self.preferences(module, costs, price), 1.0);
        self.mean(costs.iter().enumerate().map(own))
    }

    fn mean(&self, chances: impl Iterator<Item = Vec<f64>>) -> f64 {
        let own = |((chances, bits), share): ((Vec<f64>, &Vec<f64>), &f64)| {
            share * chances.iter().zip(bits).map(|(p, bits)| p * bits).sum::<f64>()
        };
        chances.zip(&self.bits).zip(&self.shares).map(own).sum()
    }

    /// The price at which the expected bits equal `target`, by bisection on a logarithmic scale. A
    /// target that no price reaches gives the nearest end.
    pub(crate) fn price_for(&self, costs: &[Vec<f64>], target: f64) -> f64 {
        let largest = costs.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        // Expected bits fall as the price rises.
        let (mut low, mut high) = (largest * 1e-12, largest * 1e6);
        for _ in 0..80 {
            let middle = (low * high).sqrt();
            if self.expected_at(costs, middle) > target { low = middle } else { high = middle }
        }
        (low * high).sqrt()
    }
}

/// How far draws at a price stray from what is best there, in bits: enough to see what lies around,
/// little enough that what is seen is the damage of good plans, not of random ones.
const SPREAD: f64 = 0.5;

/// Multiplier and quadratic weight of the augmented Lagrangian `λ g + ρ/2 g²`, with `g` the
/// expected bits per weight minus the target. (Nocedal & Wright 2006, framework 17.3.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Multiplier {
    pub(crate) lambda: f64,
    rho: f64,
    last_excess: f64,
}

/// Above this the quadratic term drowns the loss.
const RHO_MAX: f64 = 64.0;

impl Multiplier {
    pub(crate) fn new(lambda: f64, rho: f64) -> Self {
        Self { lambda, rho, last_excess: f64::INFINITY }
    }

    /// The price of a bit in the gradient: `λ + ρ g`.
    pub(crate) fn price(self, excess: f64) -> f64 {
        self.lambda + self.rho * excess
    }

    /// `λ ← λ + ρ g`; `ρ` doubles where the excess has not halved.
    pub(crate) fn update(&mut self, excess: f64) {
        self.lambda += self.rho * excess;
        if excess.abs() > 0.5 * self.last_excess.abs() {
            self.rho = (2.0 * self.rho).min(RHO_MAX);
        }
        self.last_excess = excess;
    }
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, Format, GroupSize, ModuleName};

    use super::*;
    use crate::Candidate;

    fn widths() -> Widths {
        let module = |name: &str, shape| Competitor {
            name: ModuleName::new(name),
            shape,
            candidates: [2, 3, 4, 8]
                .map(|bits| {
                    let format = Format::symmetric(BitWidth::new(bits).unwrap(), GroupSize::G128);
                    Candidate { stored_bits: format.stored_bits(shape).unwrap(), format }
                })
                .to_vec(),
        };
        Widths::new(&[&module("a", [128, 128]), &module("b", [128, 384])])
    }

    #[test]
    fn the_price_meets_every_reachable_budget() {
        let widths = widths();
        let costs = [vec![4.0, 1.0, 0.25, 0.001], vec![0.4, 0.1, 0.025, 0.0001]];
        for target in [2.2, 2.5, 3.0, 4.0, 6.5] {
            let price = widths.price_for(&costs, target);
            assert!((widths.expected_at(&costs, price) - target).abs() < 1e-9, "{target}");
        }
        assert_eq!(widths.range(), (2.0, 8.0));
        assert_eq!(widths.reachable(2.5, 4.5), (2.5, 4.5));
        assert_eq!(widths.reachable(9.0, 12.0), (2.12, 7.88));
    }

    #[test]
    fn the_multiplier_rises_while_too_many_bits_are_used() {
        let mut multiplier = Multiplier::new(0.5, 1.0);
        multiplier.update(0.4);
        assert!((multiplier.lambda - 0.9).abs() < 1e-12);
        multiplier.update(0.3); // not halved: rho doubles for the next update
        assert!((multiplier.price(0.1) - (1.2 + 0.2)).abs() < 1e-12);
    }
}
