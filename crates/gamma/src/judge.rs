//! Measuring what a plan does to a model.

use std::sync::Arc;

use gamma_model::{Decoder, Evaluation, Judge, ModelError, Tokens};

use crate::{Applied, Error, Event, Progress, Run};

/// A text that plans are judged on. Made by [`Run::jury`].
#[derive(Debug)]
pub struct Jury {
    decoder: Arc<Decoder>,
    judge: Judge,
}

impl Jury {
    pub(crate) fn new(
        run: &Run,
        windows: Vec<Vec<u32>>,
        length: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        // Embedding and head are held once where the run's context is long enough.
        let decoder = if length <= run.decoder.context() {
            Arc::clone(&run.decoder)
        } else {
            Arc::new(Decoder::load(Arc::clone(&run.checkpoint), length, run.decoder.device())?)
        };
        let total = decoder.config().blocks;
        let mut tick = |done| progress.event(Event::Evaluating { done, total });
        let judge = Judge::new(&decoder, windows, &mut tick)?.ok_or(Error::Interrupted)?;
        Ok(Self { decoder, judge })
    }

    /// The full-precision model's evaluation.
    #[must_use]
    pub fn full_precision(&self) -> Evaluation {
        self.judge.full_precision()
    }

    /// Perplexity of the quantized model and its divergence from full precision.
    ///
    /// # Errors
    /// [`Error`] if a block cannot be loaded or the loss is not finite; [`Error::Interrupted`] if
    /// `progress` broke.
    pub fn evaluate(&self, applied: &Applied<'_>, progress: &mut dyn Progress) -> Result<Evaluation, Error> {
        let total = self.decoder.config().blocks;
        let mut tick = |done| progress.event(Event::Evaluating { done, total });
        let mut load = |number| applied.block(&self.decoder, number);
        self.judge.evaluate(&self.decoder, &mut load, &mut tick)?.ok_or(Error::Interrupted)
    }
}

/// All windows of the text, or `limit` of them spread evenly over it.
pub(crate) fn evaluation_windows(
    tokens: &Tokens,
    length: usize,
    limit: Option<usize>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let all = tokens.ids().len() / length.max(1);
    match limit {
        Some(limit) if limit < all => tokens.spread(limit.max(1), length),
        _ => tokens.all(length),
    }
}
