//! How much the end loss minds an error in each channel of the residual stream.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rand::RngExt;

use crate::{
    Block, Head, Inputs, LearnError, Network, Settings, choices::stream, learn::load, ordered_sum,
    reconstruction::Target,
};

/// Batches that the diagonal is averaged over, at most.
const BATCHES: usize = 32;
/// Logits in memory at once: 16 MiB.
const LOGITS: usize = 1 << 22;
/// Random streams of the labels are those of a round that there is not.
const NOT_A_ROUND: usize = (1 << 15) + 1;

/// For each block the diagonal Fisher information of its output, `E_t (∂ℓ/∂h)²` with `ℓ` the sum of
/// the negative log-likelihoods of labels that the full-precision model draws itself: shape
/// `[1, 1, width]`. `½ eᵀ F e` is then the divergence, in nats per token, that an error `e` of the
/// output makes, as far as channels and tokens do so independently.
pub(crate) fn fisher<N: Network>(
    network: &mut N,
    inputs: &dyn Inputs,
    settings: &Settings,
) -> Result<Vec<Tensor<3>>, LearnError<N::Error>> {
    let step = inputs.count().div_ceil(BATCHES);
    let mut hidden: Vec<Tensor<3>> =
        (0..inputs.count()).step_by(step).map(|batch| inputs.batch(batch)).collect();
    let blocks = network.competitors().len();
    let mut kept = Vec::with_capacity(blocks);
    let mut masks: Vec<Vec<Target>> = Vec::with_capacity(blocks);
    for block in 0..blocks {
        let bank = load(network, block)?;
        kept.push(hidden.clone());
        let run = |h: &Tensor<3>| bank.block.forward(&bank.originals, h.clone());
        hidden = hidden.iter().map(run).collect();
        masks.push(hidden.iter().map(|h| Target::new(h.clone())).collect());
    }
    let mut arriving: Vec<Tensor<3>> = hidden
        .iter()
        .enumerate()
        .map(|(batch, h)| surprise(network.head(), h, &mut stream(settings.seed, NOT_A_ROUND, 0, batch)))
        .collect();
    let mut diagonals = vec![];
    while let (Some(states), Some(targets)) = (kept.pop(), masks.pop()) {
        let block = kept.len();
        let squares = arriving.iter().zip(&targets).map(|(gradient, target)| target.squares(gradient));
        let (squares, tokens) = squares.fold((None, 0.0), |(sum, tokens), (square, count)| {
            let sum = match sum {
                None => square,
                Some(sum) => sum + square,
            };
            (Some(sum), tokens + count)
        });
        diagonals.extend(squares.map(|sum: Tensor<3>| sum / f64::max(tokens, 1.0)));
        if block == 0 {
            break;
        }
        let bank = load(network, block)?;
        for (gradient, state) in arriving.iter_mut().zip(states) {
            let leaf = state.autodiff().require_grad();
            let output = bank.block.forward(&bank.originals, leaf.clone());
            let mut gradients = ordered_sum(output * gradient.clone()).backward();
            *gradient = leaf.grad_remove(&mut gradients).unwrap_or_else(|| leaf.inner().zeros_like());
        }
    }
    diagonals.reverse();
    Ok(diagonals)
}

/// The gradient, in the residual stream after the last block, of the negative log-likelihood of
/// labels drawn from the model's own predictions, summed over tokens.
fn surprise<H: Head>(head: &H, hidden: &Tensor<3>, rng: &mut impl rand::Rng) -> Tensor<3> {
    let [batch, length, width] = hidden.dims();
    let tokens = batch * length;
    let flat = hidden.clone().reshape([1, tokens, width]);
    let [_, _, vocabulary] = head.logits(flat.clone().narrow(1, 0, 1)).dims();
    let rows = (LOGITS / vocabulary).max(1);
    let mut gradients = Vec::new();
    for from in (0..tokens).step_by(rows) {
        let count = rows.min(tokens - from);
        let leaf = flat.clone().narrow(1, from, count).autodiff().require_grad();
        let log_probs = log_softmax(head.logits(leaf.clone()), 2); // [1, count, vocabulary]
        let cumulative = log_probs.clone().inner().exp().cumsum(2);
        let uniform: Vec<f32> = (0..count).map(|_| rng.random::<f32>()).collect();
        let uniform = Tensor::<3>::from_data(TensorData::new(uniform, [1, count, 1]), &hidden.device());
        // The label is the number of classes whose cumulative probability stays below the draw.
        let below = cumulative.lower(uniform.expand([1, count, vocabulary])).int().sum_dim(2);
        let labels: Tensor<3, Int> = below.clamp(0, i64::try_from(vocabulary - 1).unwrap_or(i64::MAX));
        let mut all = ordered_sum(-log_probs.gather(2, labels)).backward();
        gradients.push(leaf.grad_remove(&mut all).unwrap_or_else(|| leaf.inner().zeros_like()));
    }
    Tensor::cat(gradients, 1).reshape([batch, length, width])
}
