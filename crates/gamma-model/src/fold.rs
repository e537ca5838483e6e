//! Scales per input channel, folded into what produces the input.

use burn::tensor::{Tensor, TensorData};
use half::{bf16, f16};

use crate::{Block, FloatType, block::FEED_FORWARD, config::ATTENTION};

/// An input that one or more modules of a block read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Positions of its readers in [`Block::modules`], at least one.
    pub readers: Vec<usize>,
    /// What scales can be folded into; `None` if nothing that is linear per channel produces it.
    pub producer: Option<Producer>,
}

/// What produces an input, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// The norm before attention.
    AttentionNorm,
    /// The norm before the feed-forward layer.
    MlpNorm,
    /// The output rows of the module at this position.
    Rows(usize),
}

impl Block {
    /// The inputs of the block's modules. Each module reads one of them.
    ///
    /// The output projection reads what attention mixes: channels of value heads, which can carry a
    /// scale only where every query head has its own. Modules with a bias produce no scaled input,
    /// as the bias would have to be stored anew. Queries and keys, which a norm may follow, produce none
    /// in any case. The norm before experts produces none either: their router reads it as well, whose
    /// weights stay as they are, and all experts would have to agree on the scales.
    #[must_use]
    pub fn inputs(&self) -> Vec<Input> {
        let rows = |slot: usize, free: bool| (free && !self.has_bias(slot)).then_some(Producer::Rows(slot));
        let input = |readers: &[usize], producer| Input { readers: readers.to_vec(), producer };
        let mut inputs = vec![
            input(&[0, 1, 2], Some(Producer::AttentionNorm)),
            input(&[3], rows(2, self.keys_are_queries())),
        ];
        for gate in (ATTENTION..self.modules().len()).step_by(FEED_FORWARD) {
            let (up, down) = (gate + 1, gate + 2);
            let norm = self.modules()[gate].expert.is_none().then_some(Producer::MlpNorm);
            inputs.extend([input(&[gate, up], norm), input(&[down], rows(up, true))]);
        }
        inputs
    }

    /// Divides the input's producer by `scales`, one per channel, and multiplies its readers by
    /// them: the block computes what it did before. Returns the scales that were used.
    ///
    /// A norm keeps the type it has in the checkpoint, so its scales are adjusted to make the
    /// quotient a number of this type. An input without a producer is left alone and gives `None`.
    ///
    /// # Panics
    /// If there is not one scale per channel.
    pub fn rescale(&mut self, input: &Input, scales: &[f32]) -> Option<Vec<f32>> {
        let device = self.weights()[0].device();
        let vector = |values: &[f32]| Tensor::<1>::from_data(TensorData::from(values), &device);
        let used = match input.producer? {
            Producer::Rows(slot) => {
                let weight = self.weights()[slot].clone();
                assert_eq!(weight.dims()[0], scales.len(), "one scale per channel");
                self.set_weight(slot, weight / vector(scales).unsqueeze_dim(1));
                scales.to_vec()
            }
            Producer::AttentionNorm | Producer::MlpNorm => {
                let attention = input.producer == Some(Producer::AttentionNorm);
                let dtype = self.norm_type(attention);
                let norm = self.norm_mut(attention);
                let data = norm.to_data();
                let weight = data.as_slice::<f32>().expect("norms are loaded as f32");
                assert_eq!(weight.len(), scales.len(), "one scale per channel");
                // A channel that the norm switches off, or that its type cannot hold, keeps its weight.
                let quotient = |(&w, &s): (&f32, &f32)| match rounded(w / s, dtype) {
                    q if q == 0.0 || !q.is_finite() => w,
                    q => q,
                };
                let quotients: Vec<f32> = weight.iter().zip(scales).map(quotient).collect();
                let used = weight.iter().zip(&quotients);
                let used: Vec<f32> = used.map(|(&w, &q)| if q == 0.0 { 1.0 } else { w / q }).collect();
                *norm = vector(&quotients);
                used
            }
        };
        for &slot in &input.readers {
            let weight = self.weights()[slot].clone();
            self.set_weight(slot, weight * vector(&used).unsqueeze());
        }
        Some(used)
    }
}

/// `value` as the nearest number of a type.
fn rounded(value: f32, dtype: FloatType) -> f32 {
    match dtype {
        FloatType::Bf16 => bf16::from_f32(value).to_f32(),
        FloatType::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}
