//! How long GPTQ takes, here and elsewhere, as Markdown tables.
//!
//! ```text
//! cargo run --release -p gamma-quant --example bench_gptq [-- --threads N --repeats N]
//!     [--python PROGRAM tests/golden/bench_gptq.py]
//! ```
//!
//! Times are the best of the repeats, in each of which everyone has a turn with the same weights and
//! the same Hessian. The update of the weights behind is `out * in²` operations; its rate counts the
//! whole of one bit-width, rounding, grids and packing included, and is compared with a plain matrix
//! product by the same library, in the same run, on as many threads.

#![allow(clippy::print_stdout, reason = "the tables are the result")]

mod rivals;
#[path = "../workload/mod.rs"]
mod workload;

use std::error::Error;

use faer::{Accum, Mat, MatRef, Par, linalg::matmul::matmul, traits::ComplexField};
use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{CalibrationStats, Gptq, QuantizeError, QuantizedWeight, Quantizer, WeightView};
use ndarray::Array2;
use rayon::prelude::*;

use rivals::{Layer, Rivals};
use workload::{CHUNK, Settings, inputs, statistics, time, weights};

const TOKENS: usize = 32_768;
/// Repeats for a layer that takes others minutes.
const FEW: usize = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_args()?;
    let gptq = Gptq::asymmetric(GroupSize::G128);
    let mut rivals = Rivals::start(settings.python.as_ref())?;
    println!("{}, 3 bits, {} threads\n", gptq.describe(), rayon::current_num_threads());
    println!("| out x in | by | factor, s | one width, s | total, s | times ours | of its product | error |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut peaks = [0.0_f64; 2];
    for (shape, repeats) in [([2048, 2048], settings.repeats), ([2048, 8192], settings.repeats.min(FEW))] {
        compare(&gptq, shape, repeats, &mut rivals, &mut peaks)?;
    }
    println!("\nproduct of 2048 x 2048 matrices, GFLOP/s: here {:.0}, in double {:.0}", peaks[0], peaks[1]);
    for (name, peak) in rivals.peaks() {
        println!("{name}: {peak:.0}");
    }
    widths(&gptq, settings.repeats)
}

/// Prints the rows of one layer.
fn compare(
    gptq: &Gptq,
    shape @ [rows, channels]: [usize; 2],
    repeats: usize,
    rivals: &mut Rivals,
    peaks: &mut [f64; 2],
) -> Result<(), Box<dyn Error>> {
    let weight = weights(shape);
    let hessian = statistics(&inputs(channels, 2 * CHUNK), 1)?.hessian.ok_or("no Hessian")?;
    let layer = Layer::write(rivals.folder(), &weight, hessian.matrix())?;
    let mut ours = Times::NEVER;
    let mut theirs = vec![(Times::NEVER, 0.0); rivals.len()];
    let mut error = 0.0;
    for _ in 0..repeats {
        // A fresh copy has no factor yet: the first width computes it, the second does not.
        let stats = CalibrationStats::from_hessian(1, hessian.matrix().clone());
        let job = || quantize(gptq, &weight, &stats);
        let [(first, total), (second, rest)] = [time(job), time(job)];
        ours = ours.min(Times { rest, total });
        error = output_error(&(first?.dequantize() - &weight), hessian.matrix());
        second?;
        *peaks = [peaks[0].max(plain_product::<f32>()), peaks[1].max(plain_product::<f64>())];
        for (index, (times, error)) in theirs.iter_mut().enumerate() {
            let ([factor, rest], decoded) = rivals.run(index, &layer)?;
            *times = times.min(Times { rest, total: factor + rest });
            *error = output_error(&(decoded - &weight), hessian.matrix());
        }
    }
    let operations = rows as f64 * (channels as f64).powi(2) * 1e-9;
    let row = |name: &str, times: Times, peak: f64, error: f64| {
        let Times { rest, total } = times;
        let (factor, ratio, fraction) = (total - rest, total / ours.total, operations / rest / peak);
        println!(
            "| {rows} x {channels} | {name} | {factor:.3} | {rest:.3} | {total:.3} | {ratio:.1} | {fraction:.2} \
             | {error:.4} |"
        );
    };
    row("gamma", ours, peaks[0], error);
    for (index, (times, error)) in theirs.into_iter().enumerate() {
        row(rivals.name(index), times, rivals.peak(index), error);
    }
    Ok(())
}

/// Best times, in seconds.
#[derive(Clone, Copy)]
struct Times {
    /// With the factor known.
    rest: f64,
    total: f64,
}

impl Times {
    const NEVER: Self = Self { rest: f64::INFINITY, total: f64::INFINITY };

    fn min(self, other: Self) -> Self {
        Self { rest: self.rest.min(other.rest), total: self.total.min(other.total) }
    }
}

/// Prints how much further widths cost once the statistics are there.
fn widths(gptq: &Gptq, repeats: usize) -> Result<(), Box<dyn Error>> {
    let weight = weights([2048, 2048]);
    let inputs = inputs(2048, CHUNK);
    let all: Vec<_> = [2, 3, 4, 5, 6, 8].into_iter().filter_map(BitWidth::new).collect();
    let name = ModuleName::new("bench");
    let view = WeightView::new(&name, weight.view())?;
    let mut seconds = [f64::INFINITY; 3];
    for _ in 0..repeats {
        for (seconds, widths) in seconds.iter_mut().zip([&[][..], &[BitWidth::B3], &all]) {
            let job = || -> Result<(), Box<dyn Error>> {
                let stats = statistics(&inputs, TOKENS / CHUNK)?;
                widths.iter().try_for_each(|&width| Ok(gptq.quantize_at(&view, &stats, width).map(drop)?))
            };
            let (result, elapsed) = time(job);
            result?;
            *seconds = seconds.min(elapsed);
        }
    }
    let [gathering, one, six] = seconds;
    println!("\n| 2048 x 2048, statistics of {TOKENS} tokens | s |");
    println!("| --- | ---: |");
    println!("| statistics | {gathering:.3} |");
    println!("| statistics, factor, one width | {one:.3} |");
    println!("| statistics, factor, six widths | {six:.3} |");
    println!("\nsix widths take {:.2} times as long as one", six / one);
    Ok(())
}

fn quantize(
    gptq: &Gptq,
    weight: &Array2<f32>,
    stats: &CalibrationStats,
) -> Result<QuantizedWeight, QuantizeError> {
    let name = ModuleName::new("bench");
    gptq.quantize_at(&WeightView::new(&name, weight.view())?, stats, BitWidth::B3)
}

/// `tr(D H Dᵀ)`: the mean over tokens of the squared change of the output.
fn output_error(difference: &Array2<f32>, hessian: &Array2<f32>) -> f64 {
    let as_faer = |matrix: &Array2<f32>| {
        Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[[row, column]])
    };
    let (d, h) = (as_faer(difference), as_faer(hessian));
    let mut products = Mat::<f32>::zeros(d.nrows(), d.ncols());
    matmul(&mut products, Accum::Replace, &d, &h, 1.0, Par::Seq);
    let sum = |(d, p): (MatRef<'_, f32>, MatRef<'_, f32>)| -> f64 {
        (0..d.nrows()).map(|row| f64::from(d[(row, 0)]) * f64::from(p[(row, 0)])).sum()
    };
    (0..d.ncols()).map(|j| sum((d.subcols(j, 1), products.subcols(j, 1)))).sum()
}

/// GFLOP/s of matrix products without anything around them, one per thread.
fn plain_product<T: ComplexField + From<u8>>() -> f64 {
    let side = 2048;
    let entry = |seed: usize| move |i: usize, j: usize| T::from(((i * 7 + j * 3) % 11 + seed) as u8);
    let [left, right] = [1, 2].map(|seed| Mat::<T>::from_fn(side, side, entry(seed)));
    let mut products: Vec<Mat<T>> =
        (0..rayon::current_num_threads()).map(|_| Mat::zeros(side, side)).collect();
    let operations = 2.0 * (side as f64).powi(3) * products.len() as f64;
    let product = |out: &mut Mat<T>| matmul(out, Accum::Replace, &left, &right, T::from(1), Par::Seq);
    let run = |_| time(|| products.par_iter_mut().for_each(product)).1;
    operations / (0..3).map(run).fold(f64::INFINITY, f64::min) * 1e-9
}
