//! The end of a decoder: from the last residual stream to the loss.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use gamma_model::Decoder;
use gamma_preference::ordered_sum;
use gamma_proxy::{Ending, Labels};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::observe::floats;

/// The head of a decoder, and the sequences whose tokens are to be predicted.
pub(crate) struct NextTokens<'a> {
    decoder: &'a Decoder,
    batches: Vec<&'a [Vec<u32>]>,
}

/// At most this many logits at once, 64 MiB.
const LOGITS: usize = 1 << 24;

impl<'a> NextTokens<'a> {
    pub(crate) fn new(decoder: &'a Decoder, sequences: &'a [Vec<u32>], batch: usize) -> Self {
        Self { decoder, batches: sequences.chunks(batch).collect() }
    }

    /// The tokens that follow those at `from..from + count` of every sequence: `[batch, count, 1]`.
    fn following(&self, batch: usize, from: usize, count: usize) -> Tensor<3, Int> {
        let sequences = self.batches[batch];
        let ids: Vec<i32> = sequences
            .iter()
            .flat_map(|tokens| &tokens[from + 1..from + 1 + count])
            .map(|id| id.cast_signed())
            .collect();
        let shape = [sequences.len(), count, 1];
        Tensor::from_data(TensorData::new(ids, shape), self.decoder.device())
    }
}

impl Ending for NextTokens<'_> {
    fn gradient(&self, batch: usize, hidden: &Tensor<3>, labels: Labels) -> Tensor<3> {
        let [sequences, tokens, width] = hidden.dims();
        let rows = (LOGITS / (sequences * self.decoder.config().vocab_size)).max(1);
        let predicted = tokens - 1;
        let mut gradients = Vec::new();
        for from in (0..predicted).step_by(rows) {
            let count = rows.min(predicted - from);
            let leaf = hidden.clone().narrow(1, from, count).autodiff().require_grad();
            let log_probs = log_softmax(self.decoder.logits(leaf.clone()), 2);
            let (targets, unit) = match labels {
                Labels::Text => (self.following(batch, from, count), (sequences * predicted) as f64),
                Labels::Drawn { seed } => {
                    let stream = (batch as u64) << 32 | from as u64;
                    (drawn(&log_probs.clone().inner(), seed, stream), 1.0)
                }
            };
            let loss = ordered_sum(log_probs.gather(2, Tensor::from_inner(targets))) / -unit;
            let mut found = loss.backward();
            gradients.push(leaf.grad_remove(&mut found).unwrap_or_else(|| leaf.inner().zeros_like()));
        }
        // Nothing is predicted from the last token.
        gradients.push(Tensor::zeros([sequences, 1, width], &hidden.device()));
        Tensor::cat(gradients, 1)
    }
}

/// One token for each distribution, `[batch, tokens, 1]`.
fn drawn(log_probs: &Tensor<3>, seed: u64, stream: u64) -> Tensor<3, Int> {
    let [sequences, tokens, vocabulary] = log_probs.dims();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let probabilities = floats(log_probs.clone().exp());
    let one = |row: &[f32]| {
        let mut left = rng.random::<f32>() * row.iter().sum::<f32>();
        let found = row.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        i32::try_from(found.unwrap_or(vocabulary - 1)).unwrap_or(i32::MAX)
    };
    let ids: Vec<i32> = probabilities.chunks(vocabulary).map(one).collect();
    Tensor::from_data(TensorData::new(ids, [sequences, tokens, 1]), &log_probs.device())
}
