//! Perplexity, and divergence from the full-precision model.

mod measure;
mod prefix;
mod windows;

use std::ops::{ControlFlow, Range};

use burn::tensor::Tensor;

use self::{
    measure::{Prediction, Scores, Teacher, log_probs, mean_divergence, prediction_bytes, scores},
    windows::Sequence,
};
pub use self::{prefix::Prefix, windows::Windows};
use crate::{Block, Decoder, ModelError, cpu::each};

/// What was measured on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean negative log-likelihood per predicted token, in nats.
    pub loss: f64,
    /// Its standard error over the windows; 0 from fewer than two.
    pub loss_std_error: f64,
    /// Mean Kullback-Leibler divergence of the model's next-token distribution from the
    /// full-precision one, `KL(full ‖ model)`, in nats per token.
    pub kl: f64,
    /// Its standard error over the windows; 0 from fewer than two.
    pub kl_std_error: f64,
    /// The divergence that 99 of 100 tokens stay at or below, in nats.
    pub kl_p99: f64,
    /// Share of tokens for which the most likely next token is the full-precision model's.
    pub agreement: f64,
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
/// What is predicted from what is the matter of [`Windows`]. Blocks are loaded one at a time; what
/// stays in memory is the residual stream of all windows, twice, 4 bytes times tokens times hidden
/// size each, and the full-precision model's predictions where they take at most [`PREDICTIONS`]
/// bytes: 8 bytes times tokens times vocabulary.
///
/// Windows are measured in parallel, each on its own, and summed in order: the numbers are the same
/// on any number of threads.
#[derive(Debug)]
pub struct Judge {
    windows: Windows,
    /// Windows per forward pass.
    batch: usize,
    teachers: Vec<Teacher>,
    full_precision: Evaluation,
}

/// Called before each block with its number; stops the work if it breaks.
pub type Tick<'a> = &'a mut dyn FnMut(usize) -> ControlFlow<()>;

/// Gives the blocks of the model to be measured.
pub type Load<'a, E> = &'a mut dyn FnMut(usize) -> Result<Block, E>;

/// Up to this many bytes of predictions of the full-precision model are kept, 1 GiB; beyond, they
/// are computed anew for each model.
pub const PREDICTIONS: u64 = 1 << 30;
/// At most this many tokens in one forward pass.
const TOKENS: usize = 1 << 11;

impl Judge {
    /// Runs the full-precision model over `windows`. `Ok(None)` if `tick` broke.
    ///
    /// # Errors
    /// [`ModelError`] if the windows differ in length or hold tokens unknown to the model, a block
    /// cannot be loaded, or the loss is not finite.
    pub fn new(
        decoder: &Decoder,
        windows: impl Into<Windows>,
        tick: Tick<'_>,
    ) -> Result<Option<Self>, ModelError> {
        let windows = windows.into();
        windows.check(decoder.context(), decoder.config().vocab_size)?;
        let batch = (TOKENS / windows.length()).max(1);
        let start = embed(decoder, windows.sequences(), batch);
        let load = &mut |number: usize| decoder.block(number);
        let Some(hidden) = run(start, 0..decoder.config().blocks, load, tick, &mut |_, _| ())? else {
            return Ok(None);
        };
        let keep =
            windows.sequences().iter().map(|s| prediction_bytes(s, decoder)).sum::<u64>() <= PREDICTIONS;
        let measured: Vec<(Scores, Teacher)> = each(decoder.device(), 0..windows.len(), |number| {
            let (sequence, hidden) = (&windows.sequences()[number], one(&hidden, number, batch));
            let scores = scores(decoder, sequence, &hidden, None);
            let teacher = if keep {
                let log_probs = log_probs(decoder, sequence, &hidden);
                Teacher::Predictions(log_probs.map(Prediction::new).collect())
            } else {
                Teacher::Hidden(Box::new(hidden))
            };
            (scores, teacher)
        });
        let (scores, teachers): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
        let full_precision = Evaluation { agreement: 1.0, ..summary(&scores)? };
        Ok(Some(Self { windows, batch, teachers, full_precision }))
    }

    /// The windows.
    #[must_use]
    pub fn windows(&self) -> &Windows {
        &self.windows
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
        load: Load<'_, E>,
        tick: Tick<'_>,
    ) -> Result<Option<Evaluation>, E> {
        let start = embed(decoder, self.windows.sequences(), self.batch);
        let Some(hidden) = run(start, 0..decoder.config().blocks, load, tick, &mut |_, _| ())? else {
            return Ok(None);
        };
        let measured: Vec<Scores> = each(decoder.device(), 0..self.windows.len(), |number| {
            let hidden = one(&hidden, number, self.batch);
            scores(decoder, &self.windows.sequences()[number], &hidden, Some(&self.teachers[number]))
        });
        Ok(Some(summary(&measured)?))
    }

    /// Runs the model whose blocks `load` gives and keeps its residual stream, in at most `bytes`
    /// bytes: before every block if they suffice, else before every second, third, and so on.
    /// `Ok(None)` if `tick` broke.
    ///
    /// # Errors
    /// What `load` answers.
    pub fn prefix<E: From<ModelError>>(
        &self,
        decoder: &Decoder,
        load: Load<'_, E>,
        bytes: u64,
        tick: Tick<'_>,
    ) -> Result<Option<Prefix>, E> {
        let blocks = decoder.config().blocks;
        let start = embed(decoder, self.windows.sequences(), self.batch);
        let tokens = (self.windows.len() * self.windows.length()) as u64;
        let each = 4 * tokens * decoder.config().hidden_size as u64;
        let mut prefix = Prefix::new(start.clone(), each, blocks, bytes);
        let done = run(start, 0..blocks, load, tick, &mut |block, states| prefix.offer(block, states))?;
        Ok(done.map(|_| prefix))
    }

    /// Brings `prefix` up to a model that differs from its own from block `first` on.
    /// `Ok(false)` if `tick` broke; it is then good for models that do not differ before `first`.
    ///
    /// # Errors
    /// What `load` answers.
    pub fn advance<E: From<ModelError>>(
        &self,
        decoder: &Decoder,
        prefix: &mut Prefix,
        first: usize,
        load: Load<'_, E>,
        tick: Tick<'_>,
    ) -> Result<bool, E> {
        prefix.forget_after(first);
        let (from, states) = prefix.before(first);
        let states = states.to_vec();
        let blocks = from..decoder.config().blocks;
        Ok(run(states, blocks, load, tick, &mut |block, states| prefix.offer(block, states))?.is_some())
    }

    /// Mean divergence from full precision, in nats per token, of each window in `windows`, for the
    /// model whose blocks `load` gives. It must be that of `prefix` up to block `first`, which is not
    /// computed again. `Ok(None)` if `tick` broke.
    ///
    /// # Errors
    /// What `load` answers, or [`ModelError::Overflow`].
    ///
    /// # Panics
    /// If `windows` goes beyond the judge's.
    pub fn divergence<E: From<ModelError>>(
        &self,
        decoder: &Decoder,
        (prefix, first): (&Prefix, usize),
        windows: Range<usize>,
        load: Load<'_, E>,
        tick: Tick<'_>,
    ) -> Result<Option<Vec<f64>>, E> {
        assert!(windows.end <= self.windows.len(), "windows {windows:?} of {}", self.windows.len());
        if windows.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let (from, states) = prefix.before(first);
        // Whole batches, so that a window's numbers do not depend on which others are asked for.
        let batches = windows.start / self.batch..windows.end.div_ceil(self.batch);
        let states = states[batches.clone()].to_vec();
        let blocks = from..decoder.config().blocks;
        let Some(hidden) = run(states, blocks, load, tick, &mut |_, _| ())? else { return Ok(None) };
        let skipped = batches.start * self.batch;
        let measured: Vec<f64> = each(decoder.device(), windows.clone(), |number| {
            let (sequence, teacher) = (&self.windows.sequences()[number], &self.teachers[number]);
            mean_divergence(decoder, sequence, &one(&hidden, number - skipped, self.batch), teacher)
        });
        match measured.iter().position(|kl| !kl.is_finite()) {
            None => Ok(Some(measured)),
            Some(at) => Err(ModelError::Overflow { sequence: windows.start + at, loss: measured[at] }.into()),
        }
    }
}

/// The residual stream before the first block, batch by batch.
fn embed(decoder: &Decoder, sequences: &[Sequence], batch: usize) -> Vec<Tensor<3>> {
    let tokens = |batch: &[Sequence]| batch.iter().map(|s| s.tokens.clone()).collect::<Vec<_>>();
    sequences.chunks(batch).map(|batch| decoder.embed(&tokens(batch))).collect()
}

/// The residual stream of window `number`, `[1, tokens, hidden_size]`.
fn one(batches: &[Tensor<3>], number: usize, batch: usize) -> Tensor<3> {
    batches[number / batch].clone().narrow(0, number % batch, 1)
}

/// Runs `blocks` on all batches and shows the stream before each of them, and after the last one, to
/// `see`. `Ok(None)` if `tick` broke.
fn run<E>(
    mut hidden: Vec<Tensor<3>>,
    blocks: Range<usize>,
    load: Load<'_, E>,
    tick: Tick<'_>,
    see: &mut dyn FnMut(usize, &[Tensor<3>]),
) -> Result<Option<Vec<Tensor<3>>>, E> {
    let end = blocks.end;
    for number in blocks {
        if tick(number).is_break() {
            return Ok(None);
        }
        see(number, &hidden);
        let block = load(number)?;
        let Some(device) = hidden.first().map(Tensor::device) else { break };
        hidden = each(&device, hidden, |states| block.forward(states));
    }
    see(end, &hidden);
    Ok(Some(hidden))
}

fn summary(windows: &[Scores]) -> Result<Evaluation, ModelError> {
    let mean = |values: &[f32]| {
        let sum: f64 = values.iter().copied().map(f64::from).sum();
        sum / values.len().max(1) as f64
    };
    let losses: Vec<f64> = windows.iter().map(|window| mean(&window.losses)).collect();
    if let Some(sequence) = losses.iter().position(|loss| !loss.is_finite()) {
        return Err(ModelError::Overflow { sequence, loss: losses[sequence] });
    }
    let kls: Vec<f64> = windows.iter().map(|window| mean(&window.divergences)).collect();
    let predicted: usize = windows.iter().map(|window| window.losses.len()).sum();
    let agreements: usize = windows.iter().map(|window| window.agreements).sum();
    let weights: Vec<f64> = windows.iter().map(|w| w.losses.len() as f64 / predicted.max(1) as f64).collect();
    let (loss, loss_std_error) = weighted(&losses, &weights);
    let (kl, kl_std_error) = weighted(&kls, &weights);
    let mut tokens: Vec<f32> = windows.iter().flat_map(|window| window.divergences.iter().copied()).collect();
    tokens.sort_by(f32::total_cmp);
    let rank = (tokens.len() * 99).div_ceil(100).max(1) - 1;
    Ok(Evaluation {
        loss,
        loss_std_error,
        kl,
        kl_std_error,
        kl_p99: tokens.get(rank).copied().map_or(0.0, f64::from),
        agreement: agreements as f64 / predicted.max(1) as f64,
        predicted,
    })
}

/// Weighted mean, and its standard error, of independent values; the weights add up to 1.
fn weighted(values: &[f64], weights: &[f64]) -> (f64, f64) {
    let mean: f64 = values.iter().zip(weights).map(|(value, weight)| value * weight).sum();
    let spread: f64 = values.iter().zip(weights).map(|(v, w)| (w * (v - mean)).powi(2)).sum();
    let count = values.len() as f64;
    let error = if values.len() < 2 { 0.0 } else { (spread * count / (count - 1.0)).sqrt() };
    (mean, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_weighs_windows_by_their_tokens() {
        let window = |losses: &[f32], divergences: &[f32]| Scores {
            losses: losses.to_vec(),
            divergences: divergences.to_vec(),
            agreements: 1,
        };
        let found = summary(&[window(&[1.0, 2.0, 3.0], &[0.0, 0.1, 0.5]), window(&[6.0], &[0.2])]).unwrap();
        assert!((found.loss - 3.0).abs() < 1e-12 && (found.kl - 0.2).abs() < 1e-7);
        assert!((found.agreement - 0.5).abs() < 1e-12 && found.predicted == 4);
        assert!((found.kl_p99 - 0.5).abs() < 1e-7);
        // Window means 2 and 6 with weights 3/4 and 1/4 about the mean 3: both deviate by 3/4.
        assert!((found.loss_std_error - 1.5).abs() < 1e-12, "{}", found.loss_std_error);
    }

    #[test]
    fn a_loss_that_is_not_finite_names_its_window() {
        let window = |loss: f32| Scores { losses: vec![loss], ..Scores::default() };
        let error = summary(&[window(1.0), window(f32::NAN)]).unwrap_err();
        assert!(matches!(error, ModelError::Overflow { sequence: 1, .. }), "{error}");
    }
}
