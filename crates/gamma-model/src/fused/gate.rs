//! `silu(gate) · up`: what a feed-forward layer makes of its two inner products.

use rayon::prelude::*;

use super::{Fused, lanes};

/// Entries that one thread takes at a time.
const CHUNK: usize = 1 << 14;

/// `silu(g) u` of `[g, u]`, tensors of one shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate;

lanes::wide! {
    fn forward(gate: &[f32], up: &[f32], output: &mut [f32]) {
        for ((output, &g), &u) in output.iter_mut().zip(gate).zip(up) {
            *output = g * lanes::sigmoid(g) * u;
        }
    }
}

lanes::wide! {
    /// `∂/∂g = u s (1 + g (1 - s))` and `∂/∂u = g s`, with `s` the sigmoid of `g`.
    fn backward(inputs: [&[f32]; 2], arriving: &[f32], leaving: [&mut [f32]; 2]) {
        let ([gate, up], [to_gate, to_up]) = (inputs, leaving);
        let inputs = gate.iter().zip(up).zip(arriving);
        for ((to_gate, to_up), ((&g, &u), &arriving)) in to_gate.iter_mut().zip(to_up).zip(inputs) {
            let s = lanes::sigmoid(g);
            *to_gate = arriving * u * s * (1.0 + g * (1.0 - s));
            *to_up = arriving * g * s;
        }
    }
}

impl Fused<2> for Gate {
    fn forward(&self, [gate, up]: [&[f32]; 2]) -> Vec<f32> {
        let mut output = vec![0.0; gate.len()];
        let chunks = output.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK)).zip(up.par_chunks(CHUNK));
        chunks.for_each(|((output, gate), up)| forward(gate, up, output));
        output
    }

    fn backward(&self, [gate, up]: [&[f32]; 2], gradient: &[f32]) -> [Vec<f32>; 2] {
        let mut leaving = [vec![0.0; gate.len()], vec![0.0; gate.len()]];
        let [to_gate, to_up] = &mut leaving;
        let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)).zip(gradient.par_chunks(CHUNK));
        let outputs = to_gate.par_chunks_mut(CHUNK).zip(to_up.par_chunks_mut(CHUNK));
        outputs.zip(inputs).for_each(|((to_gate, to_up), ((gate, up), gradient))| {
            backward([gate, up], gradient, [to_gate, to_up]);
        });
        leaving
    }
}
