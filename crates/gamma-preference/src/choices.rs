//! Choosing one candidate per module at random.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Sampling;

/// A random stream of its own for every step, so that a step's draws depend on nothing before it.
pub(crate) fn stream(seed: u64, round: usize, block: usize, step: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((round as u64) << 48) | ((block as u64) << 24) | step as u64);
    rng
}

/// A drawn choice among the candidates of one module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Draw {
    /// What runs in the forward pass.
    pub(crate) used: Shares,
    /// Shares by the softmax, through which the gradient passes.
    pub(crate) soft: Vec<f64>,
}

/// How much of each candidate is in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Shares {
    /// One candidate and nothing else.
    Pure(usize),
    /// A mixture; the shares add up to 1.
    Mixed(Vec<f64>),
}

impl Shares {
    /// Whether this is a choice among `candidates`.
    pub(crate) fn fits(&self, candidates: usize) -> bool {
        match self {
            Self::Pure(only) => *only < candidates,
            Self::Mixed(shares) => shares.len() == candidates,
        }
    }

    /// The share of candidate `k`.
    pub(crate) fn of(&self, k: usize) -> f64 {
        match self {
            Self::Pure(only) => f64::from(u8::from(*only == k)),
            Self::Mixed(shares) => shares[k],
        }
    }
}

/// `softmax(logits / temperature)`.
pub(crate) fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|x| ((x - highest) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

/// Draws by the Gumbel-softmax (Jang et al. 2017, eq. 2): `softmax((θ + g) / τ)` with
/// `g = -ln(-ln u)`; a hard draw takes its largest entry in the forward pass. With probability
/// `exploration` a hard draw ignores the logits.
pub(crate) fn draw(
    logits: &[f64],
    temperature: f64,
    sampling: Sampling,
    exploration: f64,
    rng: &mut impl Rng,
) -> Draw {
    let mut gumbel = || match sampling {
        Sampling::Mean => 0.0,
        _ => -(-rng.random::<f64>().max(1e-300).ln()).ln(),
    };
    let noisy: Vec<f64> = logits.iter().map(|theta| theta + gumbel()).collect();
    let soft = softmax(&noisy, temperature);
    let explored = rng.random_bool(exploration).then(|| rng.random_range(0..logits.len()));
    let used = match sampling {
        Sampling::Soft | Sampling::Mean => Shares::Mixed(soft.clone()),
        _ => Shares::Pure(explored.unwrap_or_else(|| largest(&noisy))),
    };
    Draw { used, soft }
}

fn largest(values: &[f64]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
}

/// `times` passes over `candidates` choices, each pass in an order of its own, so that any first
/// part of the answer holds every choice equally often but for one.
pub(crate) fn balanced(candidates: usize, times: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates * times).map(|i| i % candidates).collect();
    for pass in order.chunks_mut(candidates) {
        for last in (1..pass.len()).rev() {
            pass.swap(last, rng.random_range(0..=last));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_draws_follow_the_softmax_of_the_logits() {
        let logits = [0.0, 1.0, 2.0];
        let expected = softmax(&logits, 1.0);
        let mut counts = [0.0; 3];
        for step in 0..20_000 {
            // The temperature does not change which entry of a Gumbel draw is the largest.
            let draw = draw(&logits, 0.5, Sampling::Hard, 0.0, &mut stream(7, 0, 0, step));
            (0..3).for_each(|k| counts[k] += draw.used.of(k));
        }
        for (count, expected) in counts.iter().zip(expected) {
            assert!((count / 20_000.0 - expected).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn soft_draws_are_distributions_and_streams_differ() {
        let a = draw(&[0.3, -2.0, 5.0, 0.0], 0.7, Sampling::Soft, 0.0, &mut stream(1, 2, 3, 4));
        let b = draw(&[0.3, -2.0, 5.0, 0.0], 0.7, Sampling::Soft, 0.0, &mut stream(1, 2, 3, 5));
        assert!((a.soft.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_ne!(a.soft, b.soft);
        let mean = draw(&[0.3, -2.0, 5.0, 0.0], 0.7, Sampling::Mean, 0.0, &mut stream(1, 2, 3, 4));
        assert_eq!(mean.used, Shares::Mixed(softmax(&[0.3, -2.0, 5.0, 0.0], 0.7)));
    }

    #[test]
    fn a_balanced_order_holds_every_choice_equally_often() {
        let order = balanced(5, 4, &mut stream(0, 0, 0, 0));
        assert!((0..5).all(|k| order.iter().filter(|&&x| x == k).count() == 4));
        assert_ne!(order[..5], order[5..10]);
    }
}
