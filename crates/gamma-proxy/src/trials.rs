//! Scores from the divergence of the whole model.

use burn::tensor::{Tensor, TensorData};
use gamma_core::ScoreTable;
use gamma_preference::{Network, ordered_sum};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    ProxyError, Tick, Trial,
    local::{number_of, numbers},
    table::{Costs, load, step, table, zeros},
};

/// The divergence of every candidate alone.
pub(crate) fn divergence<N: Network, T: Trial<Error = N::Error>>(
    network: &mut N,
    trial: &mut T,
    mut tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().to_vec();
    let total: usize = blocks.iter().flatten().map(|module| module.candidates.len()).sum();
    let (mut costs, mut done): (Vec<Costs>, usize) = (Vec::new(), 0);
    for (number, modules) in blocks.iter().enumerate() {
        let bank = load(network, number)?;
        let mut of_block = zeros(modules);
        for (slot, module) in modules.iter().enumerate() {
            for (k, cost) in of_block[slot].iter_mut().enumerate() {
                let difference = bank.differences[slot].clone().narrow(0, k, 1).reshape(module.shape);
                let weight = bank.originals[slot].clone() + difference;
                let failed = |source| ProxyError::Trial { module: module.name.clone(), source };
                *cost = trial.divergence(number, slot, weight).map_err(failed)?;
                done += 1;
                step(&mut tick, done, total)?;
            }
        }
        costs.push(of_block);
    }
    table(&blocks, costs)
}

/// `α ‖Q - W‖²/‖W‖²`. With the divergences `d_j` under Gaussian noise of relative squared sizes
/// `s_j`, `α = Σ d_j s_j / Σ s_j²`: a least-squares line through the origin. The sizes are spread
/// evenly, on a logarithmic scale, over the middle of the candidates' own errors, where the line is
/// straight.
pub(crate) fn noise<N: Network, T: Trial<Error = N::Error>>(
    network: &mut N,
    trial: &mut T,
    levels: usize,
    seed: u64,
    mut tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().to_vec();
    let levels = levels.max(1);
    let total = levels * blocks.iter().map(Vec::len).sum::<usize>();
    let (mut costs, mut done): (Vec<Costs>, usize) = (Vec::new(), 0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (number, modules) in blocks.iter().enumerate() {
        let bank = load(network, number)?;
        let mut of_block = zeros(modules);
        for (slot, module) in modules.iter().enumerate() {
            let original = &bank.originals[slot];
            let energy = number_of(ordered_sum(original.clone().square())).max(f64::MIN_POSITIVE);
            let errors = numbers(bank.differences[slot].clone().square().sum_dim(1));
            let relative: Vec<f64> = errors.iter().map(|error| error / energy).collect();
            let (mut with_size, mut squares) = (0.0, 0.0);
            for level in 0..levels {
                let size = spread(&relative, level, levels);
                let noise = gaussian(module.shape, (size * energy).sqrt(), original, &mut rng);
                let failed = |source| ProxyError::Trial { module: module.name.clone(), source };
                let found = trial.divergence(number, slot, original.clone() + noise).map_err(failed)?;
                with_size += found * size;
                squares += size * size;
                done += 1;
                step(&mut tick, done, total)?;
            }
            let alpha = with_size / f64::max(squares, f64::MIN_POSITIVE);
            of_block[slot] = relative.into_iter().map(|size| alpha * size).collect();
        }
        costs.push(of_block);
    }
    table(&blocks, costs)
}

/// Size `level` of `levels`, from the geometric middle of the errors down to the smallest.
fn spread(errors: &[f64], level: usize, levels: usize) -> f64 {
    let positive = errors.iter().copied().filter(|error| *error > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0), |(l, h), e| (f64::min(l, e), f64::max(h, e)));
    if high == 0.0 {
        return 1e-4; // exact candidates: any small size will do
    }
    let middle = (low * high).sqrt();
    let part = if levels < 2 { 1.0 } else { level as f64 / (levels - 1) as f64 };
    low * (middle / low).powf(part)
}

/// Gaussian noise of Euclidean norm close to `norm`.
fn gaussian(shape: [usize; 2], norm: f64, like: &Tensor<2>, rng: &mut ChaCha8Rng) -> Tensor<2> {
    let count = shape[0] * shape[1];
    let sigma = norm / (count as f64).sqrt();
    let mut normal = || {
        // Box and Muller 1958.
        let (u, v) = (rng.random::<f64>().max(f64::MIN_POSITIVE), rng.random::<f64>());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let values: Vec<f32> = (0..count).map(|_| (sigma * normal()) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &like.device())
}
