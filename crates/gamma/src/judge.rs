//! Measuring what a plan does to a model.

use std::{path::Path, sync::Arc};

use gamma_model::{Checkpoint, Decoder, Evaluation, Judge, Windows};

use crate::{Applied, Error, Event, Progress, Run};

/// How a text is cut into windows, and what is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Tokens per window: the longest context that a prediction has.
    pub length: usize,
    /// Tokens from one window to the next. Below `length`, the tokens that a window shares with the
    /// one before are context only.
    pub stride: usize,
    /// At most this many windows, spread evenly over the text.
    pub limit: Option<usize>,
}

/// A text that plans are judged on. Made by [`Run::jury`].
#[derive(Debug)]
pub struct Jury {
    decoder: Arc<Decoder>,
    judge: Judge,
}

impl Jury {
    pub(crate) fn new(
        run: &Run,
        windows: Windows,
        length: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        // Embedding and head are held once where the run's context is long enough.
        let decoder = if length <= run.decoder.context() {
            Arc::clone(&run.decoder)
        } else {
            Arc::new(Decoder::load(Arc::clone(&run.source), length, run.decoder.device())?)
        };
        let total = decoder.config().blocks;
        let mut tick = |done| progress.event(Event::Evaluating { done, total });
        let judge = Judge::new(&decoder, windows, &mut tick)?.ok_or(Error::Interrupted)?;
        Ok(Self { decoder, judge })
    }

    /// What is predicted from what.
    #[must_use]
    pub fn windows(&self) -> &Windows {
        self.judge.windows()
    }

    /// The full-precision model's evaluation.
    #[must_use]
    pub fn full_precision(&self) -> Evaluation {
        self.judge.full_precision()
    }

    /// Perplexity of another checkpoint in the layout of Hugging Face, such as one that was exported,
    /// and its divergence from full precision.
    ///
    /// # Errors
    /// [`Error`] if it cannot be read or has another vocabulary; [`Error::Interrupted`] if `progress`
    /// broke.
    pub fn evaluate_folder(
        &self,
        folder: impl AsRef<Path>,
        progress: &mut dyn Progress,
    ) -> Result<Evaluation, Error> {
        let checkpoint = Arc::new(Checkpoint::open(folder)?);
        let (own, other) = (self.decoder.config().vocab_size, checkpoint.config().vocab_size);
        if own != other {
            return Err(Error::Vocabulary {
                path: checkpoint.folder().to_owned(),
                expected: own,
                found: other,
            });
        }
        let decoder = Decoder::load(checkpoint, self.decoder.context(), self.decoder.device())?;
        let total = decoder.config().blocks;
        let mut tick = |done| progress.event(Event::Evaluating { done, total });
        let mut load = |number| Ok::<_, Error>(decoder.block(number)?);
        self.judge.evaluate(&decoder, &mut load, &mut tick)?.ok_or(Error::Interrupted)
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
