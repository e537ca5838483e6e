//! What measures a plan.

use std::ops::Range;

use gamma_core::Plan;

/// Measures what plans do to a model, on one text that is cut into windows.
///
/// The same plan and window must give the same number, whatever was asked before: searches compare
/// plans window by window.
pub trait Examiner {
    /// Why a measurement fails.
    type Error: std::error::Error + 'static;

    /// Number of windows (sequences) of the text.
    fn windows(&self) -> usize;

    /// Mean divergence KL(full precision ‖ model) in nats per token, for each window of `windows`,
    /// of the model under `plan`. A number that is not finite counts as infinitely bad.
    ///
    /// # Errors
    /// Whatever keeps the model from running. It ends the search.
    fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Self::Error>;

    /// A hint: the plans that follow differ from `plan` in few modules, so what comes before these
    /// modules is worth keeping. Nothing by default.
    ///
    /// # Errors
    /// As [`divergence`](Self::divergence).
    fn settle(&mut self, plan: &Plan) -> Result<(), Self::Error> {
        let _ = plan;
        Ok(())
    }
}

impl<X: Examiner + ?Sized> Examiner for &mut X {
    type Error = X::Error;

    fn windows(&self) -> usize {
        (**self).windows()
    }

    fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Self::Error> {
        (**self).divergence(plan, windows)
    }

    fn settle(&mut self, plan: &Plan) -> Result<(), Self::Error> {
        (**self).settle(plan)
    }
}

impl<X: Examiner + ?Sized> Examiner for Box<X> {
    type Error = X::Error;

    fn windows(&self) -> usize {
        (**self).windows()
    }

    fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Self::Error> {
        (**self).divergence(plan, windows)
    }

    fn settle(&mut self, plan: &Plan) -> Result<(), Self::Error> {
        (**self).settle(plan)
    }
}
