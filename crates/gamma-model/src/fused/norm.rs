//! The root-mean-square norm.

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::{Fused, lanes};

/// Rows that one thread takes at a time.
const ROWS: usize = 32;

/// `x / sqrt(mean(x²) + eps) * weight` over rows as long as `weight` (Zhang & Sennrich 2019). The weight
/// counts as a constant.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    weight: Arc<[f32]>,
    eps: f32,
}

impl Norm {
    pub(crate) fn new(weight: &Tensor<1>, eps: f64) -> Self {
        let weight = weight.clone().into_data_as::<f32>();
        Self { weight: weight.as_slice::<f32>().expect("converted to f32 above").into(), eps: eps as f32 }
    }
}

lanes::wide! {
    fn forward(x: &[f32], weight: &[f32], eps: f32, output: &mut [f32]) {
        for (x, output) in x.chunks_exact(weight.len()).zip(output.chunks_exact_mut(weight.len())) {
            let scale = scale(x, eps);
            for ((output, x), weight) in output.iter_mut().zip(x).zip(weight) {
                *output = x * scale * weight;
            }
        }
    }
}

lanes::wide! {
    /// With `s = 1 / sqrt(mean(x²) + eps)` and `a` what arrives, times the weight:
    /// `∂/∂x = s a - x s³ mean(a x)`.
    fn backward(x: &[f32], weight: &[f32], eps: f32, arriving: &[f32], leaving: &mut [f32]) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(arriving.chunks_exact(width));
        for ((x, arriving), leaving) in rows.zip(leaving.chunks_exact_mut(width)) {
            for ((leaving, arriving), weight) in leaving.iter_mut().zip(arriving).zip(weight) {
                *leaving = arriving * weight;
            }
            let scale = scale(x, eps);
            let along = lanes::sum(x, leaving, |x, a| x * a) / width as f32 * scale * scale * scale;
            for (leaving, x) in leaving.iter_mut().zip(x) {
                *leaving = scale * *leaving - along * x;
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "it is compiled for every instruction set")]
fn scale(x: &[f32], eps: f32) -> f32 {
    1.0 / (lanes::sum(x, x, |a, b| a * b) / x.len() as f32 + eps).sqrt()
}

impl Fused<1> for Norm {
    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let (chunk, mut output) = (ROWS * self.weight.len(), vec![0.0; x.len()]);
        let chunks = output.par_chunks_mut(chunk).zip(x.par_chunks(chunk));
        chunks.for_each(|(output, x)| forward(x, &self.weight, self.eps, output));
        output
    }

    fn backward(&self, [x]: [&[f32]; 1], gradient: &[f32]) -> [Vec<f32>; 1] {
        let (chunk, mut leaving) = (ROWS * self.weight.len(), vec![0.0; x.len()]);
        let chunks = leaving.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).zip(gradient.par_chunks(chunk));
        chunks.for_each(|((leaving, x), gradient)| {
            backward(x, &self.weight, self.eps, gradient, leaving);
        });
        [leaving]
    }
}
