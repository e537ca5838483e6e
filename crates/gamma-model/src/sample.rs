//! Text from the model itself, for users who have none.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Block, Decoder, ModelError, decoder::values};

/// Keys and values of the tokens seen so far, each `[batch, kv_heads, tokens, head_dim]`.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) seen: Option<(Tensor<4>, Tensor<4>)>,
}

/// At most this many sequences are sampled side by side.
const SEQUENCES: usize = 32;

/// Samples `count` sequences of `length` tokens at temperature 1, each from the model's start
/// token on. The same seed gives the same sequences on the same backend. `Ok(None)` if `tick`
/// broke; it is called before each token with the number of tokens drawn so far, on average over
/// all sequences.
///
/// All blocks are in memory at once, and the keys and values of 32 sequences:
/// 32 × `length` × blocks × key heads × head size × 2 × 4 bytes.
///
/// # Errors
/// [`ModelError`] if a block cannot be loaded, the model names no start token, or its logits are
/// not finite.
pub fn sample(
    decoder: &Decoder,
    count: usize,
    length: usize,
    seed: u64,
    tick: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Vec<u32>>>, ModelError> {
    let refuse = |expected: &str| ModelError::Length { length, expected: expected.to_owned() };
    let start = decoder.config().start_token.ok_or_else(|| {
        refuse("the configuration names neither a first nor a last token to start sampling from")
    })?;
    if length < 2 || length > decoder.context() {
        return Err(refuse(&format!("2 to {} can be sampled", decoder.context())));
    }
    let blocks = (0..decoder.config().blocks).map(|b| decoder.block(b)).collect::<Result<Vec<Block>, _>>()?;
    let mut sequences = vec![vec![start]; count];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (chunk, sequences) in sequences.chunks_mut(SEQUENCES).enumerate() {
        let before = chunk * SEQUENCES;
        let mut past: Vec<Past> = blocks.iter().map(|_| Past::default()).collect();
        for position in 0..length - 1 {
            if tick((before * (length - 1) + sequences.len() * position) / count).is_break() {
                return Ok(None);
            }
            let last: Vec<Vec<u32>> = sequences.iter().map(|s| s[position..].to_vec()).collect();
            let hidden = blocks
                .iter()
                .zip(&mut past)
                .fold(decoder.embed(&last), |hidden, (block, past)| block.continue_from(past, hidden));
            let logits = values(decoder.logits(hidden));
            let rows = logits.chunks_exact(decoder.config().vocab_size);
            for (number, (sequence, row)) in (before..).zip(sequences.iter_mut().zip(rows)) {
                let token = draw(row, rng.random::<f64>());
                sequence.push(token.ok_or(ModelError::Overflow { sequence: number, loss: f64::NAN })?);
            }
        }
    }
    Ok(Some(sequences))
}

/// The token at quantile `u` of `softmax(logits)`; `None` if the logits are not finite.
fn draw(logits: &[f32], u: f64) -> Option<u32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|&x| f64::from(x - highest).exp()).collect();
    let mut left = u * weights.iter().sum::<f64>();
    if !left.is_finite() {
        return None;
    }
    for (token, weight) in (0..).zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return Some(token);
        }
    }
    u32::try_from(logits.len() - 1).ok()
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use super::*;
    use crate::Checkpoint;

    #[test]
    fn tokens_one_by_one_give_what_they_give_together() {
        for folder in [
            "fixtures/fable",
            "golden/qwen2-random",
            "golden/llama3-random",
            "golden/qwen3-random",
            "golden/mistral-random",
            "golden/qwen3-moe-random",
            "golden/mixtral-random",
        ] {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(folder);
            let checkpoint = Arc::new(Checkpoint::open(path).expect("checkpoint"));
            let decoder = Decoder::load(checkpoint, 16, &gamma_device::tested()).expect("decoder");
            let block = decoder.block(1).expect("block");
            let sequences =
                [1, 11].map(|step| (0..16).map(|i| (5 + i * step * 7) % 64).collect::<Vec<u32>>());
            let together = values(block.forward(decoder.embed(&sequences)));

            let mut past = Past::default();
            let steps = (0..16).map(|position| {
                let tokens: Vec<Vec<u32>> = sequences.iter().map(|s| vec![s[position]]).collect();
                block.continue_from(&mut past, decoder.embed(&tokens))
            });
            let steps = values(Tensor::cat(steps.collect(), 1));
            let worst = together.iter().zip(&steps).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let largest = together.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            assert_eq!(together.len(), steps.len());
            assert!(worst <= 1e-5 * largest, "{folder}: off by {worst:e} of {largest}");
        }
    }
}
