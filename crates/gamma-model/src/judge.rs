//! Perplexity, and divergence from the full-precision model.

use std::ops::ControlFlow;

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

use crate::{Block, Decoder, ModelError, decoder::values};

/// What was measured on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean negative log-likelihood per predicted token, in nats.
    pub loss: f64,
    /// Mean Kullback-Leibler divergence of the model's next-token distribution from the
    /// full-precision one, `KL(full ‖ model)`, in nats per token.
    pub kl: f64,
    /// Number of predicted tokens.
    pub predicted: usize,
}

impl Evaluation {
    /// `exp(loss)`.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Measures models against the full-precision one on a fixed set of windows.
///
/// The protocol is *window C*: consecutive, non-overlapping windows of C tokens, nothing put in
/// front; the first token of a window is not predicted, each other is, from those before it in
/// its window. Blocks are loaded one at a time; what stays in memory are the residual streams of
/// all windows, twice, 4 bytes times tokens times hidden size each.
#[derive(Debug)]
pub struct Judge {
    windows: Vec<Vec<u32>>,
    batch: usize,
    reference: Vec<Tensor<3>>,
    full_precision: Evaluation,
}

/// Called before each block with its number; stops the work if it breaks.
pub type Tick<'a> = &'a mut dyn FnMut(usize) -> ControlFlow<()>;

/// At most this many logits in one tensor, or else those of one token: 8 MiB, which stays near the
/// cache.
const LOGITS: usize = 1 << 21;
/// At most this many tokens in one forward pass.
const TOKENS: usize = 1 << 11;

impl Judge {
    /// Runs the full-precision model over `windows`, all of one length. `Ok(None)` if `tick` broke.
    ///
    /// # Errors
    /// [`ModelError`] if the windows differ in length or hold tokens unknown to the model, a block
    /// cannot be loaded, or the loss is not finite.
    pub fn new(
        decoder: &Decoder,
        windows: Vec<Vec<u32>>,
        tick: Tick<'_>,
    ) -> Result<Option<Self>, ModelError> {
        let length = windows.first().map_or(0, Vec::len);
        if length < 2 || length > decoder.context() {
            let expected = format!("windows of 2 to {} tokens", decoder.context());
            return Err(ModelError::Length { length, expected });
        }
        let vocabulary = decoder.config().vocab_size;
        for (number, window) in windows.iter().enumerate() {
            if window.len() != length {
                let expected = format!("window 0 has {length} and window {number} must have as many");
                return Err(ModelError::Length { length: window.len(), expected });
            }
            if let Some(&token) = window.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(ModelError::Token { text: format!("window {number}"), token, vocabulary });
            }
        }
        let batch = (TOKENS / length).max(1);
        let load = &mut |number: usize| decoder.block(number);
        let Some(reference) = stream(decoder, &windows, batch, load, tick)? else {
            return Ok(None);
        };
        let full_precision = measure(decoder, &windows, batch, &reference, None)?;
        Ok(Some(Self { windows, batch, reference, full_precision }))
    }

    /// The full-precision model's own evaluation; its divergence is zero.
    #[must_use]
    pub fn full_precision(&self) -> Evaluation {
        self.full_precision
    }

    /// Evaluates the model whose blocks `load` gives. `Ok(None)` if `tick` broke.
    ///
    /// # Errors
    /// What `load` answers, or [`ModelError::Overflow`].
    pub fn evaluate<E: From<ModelError>>(
        &self,
        decoder: &Decoder,
        load: &mut dyn FnMut(usize) -> Result<Block, E>,
        tick: Tick<'_>,
    ) -> Result<Option<Evaluation>, E> {
        let Some(hidden) = stream(decoder, &self.windows, self.batch, load, tick)? else {
            return Ok(None);
        };
        Ok(Some(measure(decoder, &self.windows, self.batch, &hidden, Some(&self.reference))?))
    }
}

/// The residual stream after the last block, batch by batch.
fn stream<E: From<ModelError>>(
    decoder: &Decoder,
    windows: &[Vec<u32>],
    batch: usize,
    load: &mut dyn FnMut(usize) -> Result<Block, E>,
    tick: Tick<'_>,
) -> Result<Option<Vec<Tensor<3>>>, E> {
    let mut hidden: Vec<_> = windows.chunks(batch).map(|batch| decoder.embed(batch)).collect();
    for number in 0..decoder.config().blocks {
        if tick(number).is_break() {
            return Ok(None);
        }
        let block = load(number)?;
        for states in &mut hidden {
            *states = block.forward(states.clone());
        }
    }
    Ok(Some(hidden))
}

fn measure(
    decoder: &Decoder,
    windows: &[Vec<u32>],
    batch: usize,
    hidden: &[Tensor<3>],
    reference: Option<&[Tensor<3>]>,
) -> Result<Evaluation, ModelError> {
    let (mut loss, mut kl) = (0.0, 0.0);
    let predicted = windows[0].len() - 1; // per window
    let rows = (LOGITS / decoder.config().vocab_size).max(1);
    for (number, windows) in windows.chunks(batch).enumerate() {
        let tokens = windows.len() * predicted;
        let flat = |states: &Tensor<3>| {
            let [_, _, width] = states.dims();
            states.clone().narrow(1, 0, predicted).reshape([1, tokens, width])
        };
        let (student, teacher) = (flat(&hidden[number]), reference.map(|reference| flat(&reference[number])));
        let targets = targets(windows, decoder);
        let mut losses = vec![0.0; windows.len()];
        for from in (0..tokens).step_by(rows) {
            let count = rows.min(tokens - from);
            let log_probs = |states: &Tensor<3>| {
                log_softmax(decoder.logits(states.clone().narrow(1, from, count)), 2) // [1, count, vocab_size]
            };
            let student = log_probs(&student);
            let likelihoods = values(student.clone().gather(2, targets.clone().narrow(1, from, count)));
            for (token, likelihood) in (from..).zip(likelihoods) {
                losses[token / predicted] -= f64::from(likelihood);
            }
            if let Some(teacher) = &teacher {
                let teacher = log_probs(teacher);
                let per_token = (teacher.clone().exp() * (teacher - student)).sum_dim(2);
                kl += values(per_token).into_iter().map(f64::from).sum::<f64>();
            }
        }
        if let Some(window) = losses.iter().position(|sum| !sum.is_finite()) {
            return Err(ModelError::Overflow { sequence: number * batch + window, loss: losses[window] });
        }
        loss += losses.iter().sum::<f64>();
    }
    let predicted = windows.len() * predicted;
    let count = predicted as f64;
    Ok(Evaluation { loss: loss / count, kl: kl / count, predicted })
}

/// The tokens to predict, one window after the other: `[1, windows * (length - 1), 1]`.
fn targets(windows: &[Vec<u32>], decoder: &Decoder) -> Tensor<3, Int> {
    let ids: Vec<i32> = windows.iter().flat_map(|w| w[1..].iter().map(|&id| id.cast_signed())).collect();
    let shape = [1, ids.len(), 1];
    Tensor::from_data(TensorData::new(ids, shape), decoder.device())
}
