//! What the benchmarks share: inputs made from a formula, the clock, and the speed of the machine.

use std::time::Instant;

use faer::{Accum, Mat, Par, linalg::matmul::matmul, traits::ComplexField};
use gamma_quant::{CalibrationStats, HessianAccumulator, InvalidActivations};
use ndarray::{Array2, Axis, s};
use rayon::prelude::*;

/// Tokens that [`statistics`] adds at once.
pub const CHUNK: usize = 4096;

/// What `job` returns, and the seconds it took.
pub fn time<T>(job: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = job();
    (result, start.elapsed().as_secs_f64())
}

/// Uniform numbers from -1 to 1 (splitmix64).
pub fn noise(shape: [usize; 2]) -> Array2<f32> {
    let mut state = 7_u64;
    Array2::from_shape_simple_fn(shape, || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    })
}

/// Weights, `shape` being `[out_features, in_features]`.
pub fn weights(shape: [usize; 2]) -> Array2<f32> {
    noise(shape) * 0.02
}

/// Activations in which neighbouring channels are alike, and a few channels are large.
pub fn inputs(channels: usize, tokens: usize) -> Array2<f32> {
    let mut x = noise([tokens, channels]);
    for channel in 1..channels {
        let (before, mut from) = x.view_mut().split_at(Axis(1), channel);
        from.column_mut(0).scaled_add(0.6, &before.column(channel - 1));
    }
    x.slice_mut(s![.., ..;channels / 8]).mapv_inplace(|x| 8.0 * x);
    x
}

/// Adds the same chunk of activations `repeats` times.
pub fn statistics(chunk: &Array2<f32>, repeats: usize) -> Result<CalibrationStats, InvalidActivations> {
    let mut sums = HessianAccumulator::new(chunk.ncols());
    for _ in 0..repeats {
        sums.add(chunk.view())?;
    }
    Ok(sums.finish())
}

/// GFLOP/s of matrix products without anything around them, one per thread.
pub fn plain_product<T: ComplexField + From<u8>>() -> f64 {
    let side = 2048;
    let [left, right] =
        [1, 2].map(|seed| Mat::<T>::from_fn(side, side, |i, j| T::from(((i * 7 + j * 3) % 11 + seed) as u8)));
    let mut products: Vec<Mat<T>> =
        (0..rayon::current_num_threads()).map(|_| Mat::zeros(side, side)).collect();
    let operations = 2.0 * (side as f64).powi(3) * products.len() as f64;
    let product = |out: &mut Mat<T>| matmul(out, Accum::Replace, &left, &right, T::from(1), Par::Seq);
    let run = |_| time(|| products.par_iter_mut().for_each(product)).1;
    operations / (0..3).map(run).fold(f64::INFINITY, f64::min) * 1e-9
}
