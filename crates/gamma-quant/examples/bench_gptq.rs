//! How long GPTQ takes, as Markdown tables.
//!
//! ```text
//! cargo run --release -p gamma-quant --example bench_gptq [THREADS]
//! ```
//!
//! Times are the best of five. The update of the weights behind is `out * in²` operations; its
//! rate counts the whole of one bit-width, rounding, grids and packing included, and is compared with
//! a plain matrix product by the same library, in the same run, on as many threads.

#![allow(clippy::print_stdout, reason = "the tables are the result")]

use std::time::Instant;

use faer::{Accum, Mat, Par, linalg::matmul::matmul};
use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{CalibrationStats, Gptq, HessianAccumulator, Quantizer, WeightView};
use ndarray::{Array2, Axis, s};
use rayon::prelude::*;

const TOKENS: usize = 32_768;
const CHUNK: usize = 4096;
const REPEATS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let gptq = Gptq::asymmetric(GroupSize::G128);
    println!("{}, 3 bits, {} threads\n", gptq.describe(), rayon::current_num_threads());
    println!("| out x in | factor, s | one width, s | GFLOP/s | plain product, GFLOP/s | fraction |");
    println!("|---|---:|---:|---:|---:|---:|");
    for [rows, channels] in [[2048, 2048], [2048, 8192]] {
        let weight = noise([rows, channels]) * 0.02;
        let hessian = statistics(&inputs(channels, 2 * CHUNK), 1)?.hessian.ok_or("no Hessian")?;
        let [mut factor, mut width, mut peak] = [f64::INFINITY, f64::INFINITY, 0.0];
        for _ in 0..REPEATS {
            // A fresh copy has no factor yet: the first width computes it, the second does not.
            let stats = CalibrationStats::from_hessian(1, hessian.matrix().clone());
            let job = || quantize(&gptq, &weight, &stats, &[BitWidth::B3]);
            let [(first, with_factor), (second, without)] = [time(job), time(job)];
            first.and(second)?;
            factor = f64::min(factor, with_factor - without);
            width = f64::min(width, without);
            peak = f64::max(peak, plain_product());
        }
        let rate = rows as f64 * (channels as f64).powi(2) / width * 1e-9;
        println!(
            "| {rows} x {channels} | {factor:.3} | {width:.3} | {rate:.0} | {peak:.0} | {:.2} |",
            rate / peak
        );
    }

    let weight = noise([2048, 2048]) * 0.02;
    let inputs = inputs(2048, CHUNK);
    let all: Vec<_> = [2, 3, 4, 5, 6, 8].into_iter().filter_map(BitWidth::new).collect();
    println!("\n| 2048 x 2048, statistics of {TOKENS} tokens | s |");
    println!("|---|---:|");
    let mut seconds = [f64::INFINITY; 3];
    for _ in 0..REPEATS {
        for (seconds, widths) in seconds.iter_mut().zip([&[][..], &[BitWidth::B3], &all]) {
            let job = || quantize(&gptq, &weight, &statistics(&inputs, TOKENS / CHUNK)?, widths);
            let (result, elapsed) = time(job);
            result?;
            *seconds = seconds.min(elapsed);
        }
    }
    let [gathering, one, six] = seconds;
    println!("| statistics | {gathering:.3} |");
    println!("| statistics, factor, one width | {one:.3} |");
    println!("| statistics, factor, six widths | {six:.3} |");
    println!("\nsix widths take {:.2} times as long as one", six / one);
    Ok(())
}

fn time<T>(job: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = job();
    (result, start.elapsed().as_secs_f64())
}

fn quantize(
    gptq: &Gptq,
    weight: &Array2<f32>,
    stats: &CalibrationStats,
    widths: &[BitWidth],
) -> Result<(), Box<dyn std::error::Error>> {
    let name = ModuleName::new("bench");
    let view = WeightView::new(&name, weight.view())?;
    for &width in widths {
        gptq.quantize_at(&view, stats, width)?;
    }
    Ok(())
}

/// Adds the same chunk of activations `repeats` times.
fn statistics(chunk: &Array2<f32>, repeats: usize) -> Result<CalibrationStats, Box<dyn std::error::Error>> {
    let mut sums = HessianAccumulator::new(chunk.ncols());
    for _ in 0..repeats {
        sums.add(chunk.view())?;
    }
    Ok(sums.finish())
}

/// GFLOP/s of matrix products without anything around them.
fn plain_product() -> f64 {
    let side = 2048;
    let [left, right] =
        [1, 2].map(|seed| Mat::<f32>::from_fn(side, side, |i, j| ((i * 7 + j * 3) % 11 + seed) as f32));
    let mut products: Vec<Mat<f32>> =
        (0..rayon::current_num_threads()).map(|_| Mat::zeros(side, side)).collect();
    let operations = 2.0 * (side as f64).powi(3) * products.len() as f64;
    let product = |out: &mut Mat<f32>| matmul(out, Accum::Replace, &left, &right, 1.0, Par::Seq);
    let run = |_| time(|| products.par_iter_mut().for_each(product)).1;
    operations / (0..3).map(run).fold(f64::INFINITY, f64::min) * 1e-9
}

/// Activations in which neighbouring channels are alike, and a few channels are large.
fn inputs(channels: usize, tokens: usize) -> Array2<f32> {
    let mut x = noise([tokens, channels]);
    for channel in 1..channels {
        let (before, mut from) = x.view_mut().split_at(Axis(1), channel);
        from.column_mut(0).scaled_add(0.6, &before.column(channel - 1));
    }
    x.slice_mut(s![.., ..;channels / 8]).mapv_inplace(|x| 8.0 * x);
    x
}

/// Uniform numbers from -1 to 1 (splitmix64).
fn noise(shape: [usize; 2]) -> Array2<f32> {
    let mut state = 7_u64;
    Array2::from_shape_simple_fn(shape, || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    })
}
