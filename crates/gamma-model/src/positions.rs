//! Rotary position embedding and the causal mask, with a window where the model has one.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Config, config::RopeScaling};

/// Tables for sequences of up to `length` tokens.
#[derive(Clone, Debug)]
pub(crate) struct Positions {
    cos: Tensor<4>,  // [1, 1, length, head_dim / 2]
    sin: Tensor<4>,  // [1, 1, length, head_dim / 2]
    mask: Tensor<3>, // [1, length, length], 0, or minus infinity for what is not seen
    /// Both tables again, where they are computed with.
    turns: Arc<[Vec<f32>; 2]>,
    window: usize,
}

impl Positions {
    pub(crate) fn new(config: &Config, length: usize, device: &Device) -> Self {
        Self::turning(&frequencies(config), config.window, length, device)
    }

    /// With these angular frequencies, and with a window where a token does not see all before it.
    pub(crate) fn turning(
        frequencies: &[f64],
        window: Option<usize>,
        length: usize,
        device: &Device,
    ) -> Self {
        let angle = |position: usize, frequency: f64| position as f64 * frequency;
        let values = |value: fn(f64) -> f64| -> Vec<f32> {
            let row = |position| frequencies.iter().map(move |&f| value(angle(position, f)) as f32);
            (0..length).flat_map(row).collect()
        };
        let turns = [values(f64::cos), values(f64::sin)];
        let table = |values: &Vec<f32>| {
            Tensor::from_data(TensorData::new(values.clone(), [1, 1, length, frequencies.len()]), device)
        };
        let window = window.unwrap_or(length);
        let seen = |query: usize, key: usize| key <= query && query - key < window;
        let value = |query, key| if seen(query, key) { 0.0 } else { f32::NEG_INFINITY };
        let hidden: Vec<f32> =
            (0..length).flat_map(|query| (0..length).map(move |key| value(query, key))).collect();
        let mask = Tensor::from_data(TensorData::new(hidden, [1, length, length]), device);
        Self { cos: table(&turns[0]), sin: table(&turns[1]), mask, turns: Arc::new(turns), window }
    }

    /// Cosine and sine of all angles, `[length, head_dim / 2]`.
    pub(crate) fn turns(&self) -> Arc<[Vec<f32>; 2]> {
        self.turns.clone()
    }

    /// How many tokens a token sees, itself included.
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// Rotates `x`, shape `[batch, heads, tokens, head_dim]`, whose first token stands at position
    /// `before`: channel `i` of the first half pairs
    /// with channel `i` of the second (the layout of Hugging Face checkpoints).
    pub(crate) fn rotate(&self, x: Tensor<4>, before: usize) -> Tensor<4> {
        let [_, _, tokens, head_dim] = x.dims();
        let half = head_dim / 2;
        let cos = self.cos.clone().narrow(2, before, tokens);
        let sin = self.sin.clone().narrow(2, before, tokens);
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        Tensor::cat(
            vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin],
            3,
        )
    }

    /// The causal mask for `tokens` tokens after `before` others and `heads` query heads stacked
    /// along the rows: `[1, 1, heads * tokens, before + tokens]`.
    pub(crate) fn mask(&self, heads: usize, before: usize, tokens: usize) -> Tensor<4> {
        let mask = self.mask.clone().narrow(1, before, tokens).narrow(2, 0, before + tokens);
        mask.repeat_dim(1, heads).unsqueeze_dim(0)
    }
}

/// Angular frequencies, `theta^(-2i/d)`, corrected as Llama 3 prescribes where asked for.
fn frequencies(config: &Config) -> Vec<f64> {
    let half = config.head_dim / 2;
    let plain = (0..half).map(|i| config.rope_theta.powf(-(i as f64) / half as f64));
    match config.rope_scaling {
        None => plain.collect(),
        Some(scaling) => plain.map(|frequency| stretch(frequency, scaling)).collect(),
    }
}

/// Long wavelengths are stretched by the factor, short ones kept, those between interpolated.
fn stretch(frequency: f64, scaling: RopeScaling) -> f64 {
    let RopeScaling { factor, low_freq_factor: low, high_freq_factor: high, .. } = scaling;
    let turns = scaling.original_max_position_embeddings * frequency / std::f64::consts::TAU;
    if turns < low {
        frequency / factor
    } else if turns > high {
        frequency
    } else {
        let smooth = (turns - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
