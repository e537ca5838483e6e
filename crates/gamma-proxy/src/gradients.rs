//! Scores from gradients of the loss at the end of the model.

use burn::tensor::Tensor;
use gamma_core::ScoreTable;
use gamma_preference::{Bank, Block, Network, ordered_sum};

use crate::{
    Ending, Labels, Proxy, ProxyError, Tick,
    backward::pull_back,
    local::{flat, number_of, numbers, some},
    table::{Costs, load, step, table, zeros},
};

/// Gradients of the full-precision model: [`Proxy::Trace`] and [`Proxy::Fisher`].
pub(crate) fn at_full_precision<N: Network>(
    network: &mut N,
    inputs: &[Tensor<3>],
    ending: &dyn Ending,
    proxy: Proxy,
    mut tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().to_vec();
    let total = 2 * blocks.len();
    let mut kept = vec![some(inputs)?.to_vec()]; // the stream before each block, and after the last
    for number in 0..blocks.len() {
        let bank = load(network, number)?;
        let forward = |states: &Tensor<3>| bank.block.forward(&bank.originals, states.clone());
        kept.push(kept[number].iter().map(forward).collect());
        step(&mut tick, number + 1, total)?;
    }
    let end = kept.pop().unwrap_or_default();
    let mut upstream: Vec<Tensor<3>> = end
        .iter()
        .enumerate()
        .map(|(batch, hidden)| {
            let labels = if proxy == Proxy::Trace { Labels::Drawn { seed: 0 } } else { Labels::Text };
            ending.gradient(batch, hidden, labels)
        })
        .collect();
    let mut costs: Vec<Costs> = Vec::new();
    for number in (0..blocks.len()).rev() {
        let bank = load(network, number)?;
        let mut of_block = zeros(&blocks[number]);
        let before = kept.pop().unwrap_or_default();
        for (hidden, upstream) in before.iter().zip(&mut upstream) {
            *upstream = match proxy {
                Proxy::Trace => add_trace(&bank, hidden, upstream, &mut of_block),
                _ => add_fisher(&bank, hidden, upstream, &mut of_block),
            };
        }
        if proxy == Proxy::Trace {
            // So far the squared gradients; they stand for the trace.
            for ((costs, d), module) in of_block.iter_mut().zip(&bank.differences).zip(&blocks[number]) {
                let weights = (module.shape[0] * module.shape[1]) as f64;
                let errors = numbers(d.clone().square().sum_dim(1));
                costs.iter_mut().zip(errors).for_each(|(cost, error)| *cost *= error / weights);
            }
        }
        costs.push(of_block);
        step(&mut tick, total - number, total)?;
    }
    costs.reverse();
    table(&blocks, costs)
}

/// Adds `‖∂L/∂W‖²` to every candidate of a module.
fn add_trace<B: Block>(
    bank: &Bank<B>,
    hidden: &Tensor<3>,
    upstream: &Tensor<3>,
    costs: &mut Costs,
) -> Tensor<3> {
    let pulled = pull_back(&bank.block, &bank.originals, hidden, upstream);
    for (costs, gradient) in costs.iter_mut().zip(pulled.weights) {
        let square = number_of(ordered_sum(gradient.square()));
        for cost in costs {
            *cost += square;
        }
    }
    pulled.hidden
}

/// Adds `Σ (∂L/∂y)² ((Q - W) x)²`.
fn add_fisher<B: Block>(
    bank: &Bank<B>,
    hidden: &Tensor<3>,
    upstream: &Tensor<3>,
    costs: &mut Costs,
) -> Tensor<3> {
    let input = hidden.clone().autodiff().require_grad();
    // Zeros added to each module's output: their gradient is that of the output.
    let mut seen: Vec<(usize, Tensor<2>, Tensor<3>)> = Vec::new();
    let output = bank.block.forward_tapped(&bank.originals, input.clone(), &mut |slot, x, y| {
        let leaf = y.clone().inner().zeros_like().autodiff().require_grad();
        seen.push((slot, flat(&x.clone().inner()), leaf.clone()));
        y + leaf
    });
    let mut gradients = ordered_sum(output * Tensor::from_inner(upstream.clone())).backward();
    for (slot, x, leaf) in seen {
        let Some(gradient) = leaf.grad_remove(&mut gradients) else { continue };
        let squares = flat(&gradient).square();
        let [out_features, in_features] = bank.originals[slot].dims();
        for (k, cost) in costs[slot].iter_mut().enumerate() {
            let d = bank.differences[slot].clone().narrow(0, k, 1).reshape([out_features, in_features]);
            let change = x.clone().matmul(d.transpose()); // [batch * tokens, out_features]
            *cost += number_of(ordered_sum(change.square() * squares.clone()));
        }
    }
    input.grad_remove(&mut gradients).unwrap_or_else(|| hidden.zeros_like())
}

/// `Σ |∂L/∂Q (Q - W)|`, every candidate at the model in which all modules take the candidate of the
/// same number (the last one where a module has fewer).
pub(crate) fn first_order<N: Network>(
    network: &mut N,
    inputs: &[Tensor<3>],
    ending: &dyn Ending,
    mut tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().to_vec();
    let candidates = blocks.iter().flatten().map(|module| module.candidates.len()).max().unwrap_or(0);
    let total = 2 * candidates * blocks.len();
    let mut done = 0;
    let mut costs: Vec<Costs> = blocks.iter().map(|modules| zeros(modules)).collect();
    for k in 0..candidates {
        let mut kept = vec![some(inputs)?.to_vec()];
        for number in 0..blocks.len() {
            let bank = load(network, number)?;
            let weights = quantized(&bank, k);
            kept.push(kept[number].iter().map(|h| bank.block.forward(&weights, h.clone())).collect());
            done += 1;
            step(&mut tick, done, total)?;
        }
        let end = kept.pop().unwrap_or_default();
        let ends = end.iter().enumerate();
        let mut upstream: Vec<Tensor<3>> =
            ends.map(|(batch, hidden)| ending.gradient(batch, hidden, Labels::Text)).collect();
        for number in (0..blocks.len()).rev() {
            let bank = load(network, number)?;
            let weights = quantized(&bank, k);
            let mut sums: Vec<Option<Tensor<2>>> = vec![None; weights.len()];
            let before = kept.pop().unwrap_or_default();
            for (hidden, upstream) in before.iter().zip(&mut upstream) {
                let pulled = pull_back(&bank.block, &weights, hidden, upstream);
                *upstream = pulled.hidden;
                for (sum, gradient) in sums.iter_mut().zip(pulled.weights) {
                    *sum = Some(match sum.take() {
                        None => gradient,
                        Some(total) => total + gradient,
                    });
                }
            }
            for (slot, sum) in sums.into_iter().enumerate() {
                let (Some(gradient), Some(cost)) = (sum, costs[number][slot].get_mut(k)) else { continue };
                let d = bank.differences[slot].clone().narrow(0, k, 1).reshape(gradient.dims());
                *cost = number_of(ordered_sum((gradient * d).abs()));
            }
            done += 1;
            step(&mut tick, done, total)?;
        }
    }
    table(&blocks, costs)
}

/// The weights with candidate `k` everywhere.
fn quantized<B>(bank: &Bank<B>, k: usize) -> Vec<Tensor<2>> {
    let pairs = bank.originals.iter().zip(&bank.differences);
    pairs
        .map(|(original, differences)| {
            let k = k.min(differences.dims()[0] - 1);
            original.clone() + differences.clone().narrow(0, k, 1).reshape(original.dims())
        })
        .collect()
}
