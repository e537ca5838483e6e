//! Watching a run.

use std::ops::ControlFlow;

use gamma_preference::Step;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Calibration text is being sampled from the model.
    Sampling {
        /// Tokens per sequence so far.
        done: usize,
        /// Tokens per sequence in all.
        total: usize,
    },
    /// A block's candidates are being quantized.
    Quantizing {
        /// Blocks done.
        done: usize,
        /// Blocks in all.
        total: usize,
    },
    /// Learning goes on from the state of an interrupted run.
    Resuming {
        /// Steps that were done then.
        steps: usize,
    },
    /// A learning step is done.
    Learning(Step),
    /// A request to stop was heard; the work goes on to the next place that it can be taken up from.
    Stopping,
    /// Options are being scored by a proxy.
    Scoring {
        /// Steps done.
        done: usize,
        /// Steps in all.
        total: usize,
    },
    /// A plan was measured while plans are being improved or compared.
    Refining {
        /// `re-centring`, `polishing`, `searching` or `comparing`.
        stage: &'static str,
        /// Where the search stands.
        step: gamma_refine::Step,
        /// Plans that this stage tries at most; 0 where that is not known.
        total: usize,
    },
    /// The model is being evaluated, block by block.
    Evaluating {
        /// Blocks done.
        done: usize,
        /// Blocks in all.
        total: usize,
    },
}

/// Watches a run; answers [`ControlFlow::Break`] to stop it, which ends in
/// [`Error::Interrupted`](crate::Error::Interrupted).
pub trait Progress {
    /// Called after every step of the work.
    fn event(&mut self, event: Event) -> ControlFlow<()>;
}

impl<F: FnMut(Event) -> ControlFlow<()>> Progress for F {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        self(event)
    }
}

/// Watches nothing and stops nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&mut self, _: Event) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
