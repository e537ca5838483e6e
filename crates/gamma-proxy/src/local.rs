//! Scores from a module's weights and inputs, or from its block's output.

use burn::tensor::Tensor;
use gamma_core::ScoreTable;
use gamma_preference::{Block, Network, ordered_sum};

use crate::{
    Proxy, ProxyError, Tick,
    table::{Costs, load, step, table, zeros},
};

/// `‖Q - W‖²`.
pub(crate) fn weights<N: Network>(
    network: &mut N,
    mut tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().to_vec();
    let mut costs: Vec<Costs> = Vec::new();
    for number in 0..blocks.len() {
        let bank = load(network, number)?;
        costs.push(bank.differences.iter().map(|d| numbers(d.clone().square().sum_dim(1))).collect());
        step(&mut tick, number + 1, blocks.len())?;
    }
    table(&blocks, costs)
}

/// `Σ_ij E[x_j²] (Q - W)_ij²`, or with the whole matrix `H = E[x xᵀ]`, `tr((Q - W) H (Q - W)ᵀ)`. Means
/// are over all tokens; those that do not go to a module, because it is another expert, count as zero.
pub(crate) fn outputs<N: Network>(
    network: &mut N,
    inputs: &[Tensor<3>],
    proxy: Proxy,
    mut tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().to_vec();
    let mut hidden = some(inputs)?.to_vec();
    let mut costs: Vec<Costs> = Vec::new();
    for (number, modules) in blocks.iter().enumerate() {
        let bank = load(network, number)?;
        let mut sums: Vec<Option<Tensor<2>>> = vec![None; modules.len()];
        let mut tokens = 0;
        for states in &mut hidden {
            let [batch, length, _] = states.dims();
            tokens += batch * length;
            *states = bank.block.forward_tapped(&bank.originals, states.clone(), &mut |slot, x, y| {
                let x = flat(x);
                let sum = match proxy {
                    Proxy::Moments => x.square().sum_dim(0), // [1, in_features]
                    _ => x.clone().transpose().matmul(x),    // [in_features, in_features]
                };
                sums[slot] = Some(match sums[slot].take() {
                    None => sum,
                    Some(total) => total + sum,
                });
                y
            });
        }
        let mut of_block = zeros(modules);
        for (slot, module) in modules.iter().enumerate() {
            let Some(sum) = sums[slot].take() else { continue };
            let moments = sum / f64::max(tokens as f64, 1.0);
            for (k, cost) in of_block[slot].iter_mut().enumerate() {
                let d = bank.differences[slot].clone().narrow(0, k, 1).reshape(module.shape);
                let weighted = match proxy {
                    Proxy::Moments => d.clone() * moments.clone(),
                    _ => d.clone().matmul(moments.clone()),
                };
                *cost = number_of(ordered_sum(weighted * d));
            }
        }
        costs.push(of_block);
        step(&mut tick, number + 1, blocks.len())?;
    }
    table(&blocks, costs)
}

/// `E‖f(h; Q at one module) - f(h; W)‖² / E‖f(h; W)‖²`, over all tokens but the first of each
/// sequence, which tends to hold activations that no other token has.
pub(crate) fn blocks<N: Network>(
    network: &mut N,
    inputs: &[Tensor<3>],
    mut tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().to_vec();
    let mut hidden = some(inputs)?.to_vec();
    let total: usize = blocks.iter().map(Vec::len).sum();
    let (mut costs, mut done): (Vec<Costs>, usize) = (Vec::new(), 0);
    for (number, modules) in blocks.iter().enumerate() {
        let bank = load(network, number)?;
        let targets: Vec<Tensor<3>> =
            hidden.iter().map(|states| bank.block.forward(&bank.originals, states.clone())).collect();
        let energy: f64 = targets.iter().map(|target| number_of(after_first(target).square().sum())).sum();
        let mut of_block = zeros(modules);
        for (slot, module) in modules.iter().enumerate() {
            for (k, cost) in of_block[slot].iter_mut().enumerate() {
                let mut weights = bank.originals.clone();
                let difference = bank.differences[slot].clone().narrow(0, k, 1).reshape(module.shape);
                weights[slot] = weights[slot].clone() + difference;
                for (states, target) in hidden.iter().zip(&targets) {
                    let error = bank.block.forward(&weights, states.clone()) - target.clone();
                    *cost +=
                        number_of(ordered_sum(after_first(&error).square())) / energy.max(f64::MIN_POSITIVE);
                }
            }
            done += 1;
            step(&mut tick, done, total)?;
        }
        costs.push(of_block);
        hidden = targets;
    }
    table(&blocks, costs)
}

/// All tokens but the first of each sequence; all if there is only one.
fn after_first(states: &Tensor<3>) -> Tensor<3> {
    let [_, tokens, _] = states.dims();
    if tokens < 2 { states.clone() } else { states.clone().narrow(1, 1, tokens - 1) }
}

/// `[batch * tokens, width]`.
pub(crate) fn flat(x: &Tensor<3>) -> Tensor<2> {
    x.clone().flatten::<2>(0, 1)
}

/// The values of a tensor.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.into_data_as::<f32>();
    data.as_slice::<f32>().expect("converted to f32").iter().map(|&x| f64::from(x)).collect()
}

/// The value of a tensor with one.
pub(crate) fn number_of(tensor: Tensor<1>) -> f64 {
    numbers(tensor)[0]
}

/// The batches, if there are any.
pub(crate) fn some<E: std::error::Error + 'static>(
    inputs: &[Tensor<3>],
) -> Result<&[Tensor<3>], ProxyError<E>> {
    if inputs.is_empty() { Err(ProxyError::NoData) } else { Ok(inputs) }
}
