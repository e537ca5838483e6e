//! What the benchmarks share: inputs made from a formula, and the clock.

use std::time::Instant;

use gamma_quant::{CalibrationStats, HessianAccumulator, InvalidActivations};
use ndarray::{Array2, Axis, s};

/// Tokens that [`statistics`] adds at once.
pub const CHUNK: usize = 4096;

/// The arguments of both benchmarks.
pub struct Settings {
    /// Times that everything is repeated.
    pub repeats: usize,
    /// An interpreter, and the script that measures other implementations.
    pub python: Option<[String; 2]>,
}

impl Settings {
    /// Reads `[--threads N] [--repeats N] [--python PROGRAM SCRIPT]` and starts the threads.
    pub fn from_args() -> Result<Self, Box<dyn std::error::Error>> {
        let mut settings = Self { repeats: 5, python: None };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let mut value = || args.next().ok_or(format!("`{name}` needs a value"));
            match name.as_str() {
                "--threads" => {
                    rayon::ThreadPoolBuilder::new().num_threads(value()?.parse()?).build_global()?;
                }
                "--repeats" => settings.repeats = value()?.parse()?,
                "--python" => settings.python = Some([value()?, value()?]),
                _ => return Err(format!("unknown argument `{name}`").into()),
            }
        }
        Ok(settings)
    }
}

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
