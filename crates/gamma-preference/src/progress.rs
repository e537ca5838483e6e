//! Watching the work.

use std::ops::ControlFlow;

/// Where learning stands after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The round, counted from 0; round 0 is the survey.
    pub round: usize,
    /// The block.
    pub block: usize,
    /// Steps done, over all rounds and blocks.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// Sum of the latest losses of all blocks seen, relative to the residual stream.
    pub loss: f64,
    /// Expected code bits per weight at the present price.
    pub expected_bits: f64,
    /// The multiplier, or the price of a bit where budgets are drawn.
    pub multiplier: f64,
}

/// Watches learning; may stop it.
pub trait Progress {
    /// Called after every step.
    fn step(&mut self, step: &Step) -> ControlFlow<()>;
}

impl<F: FnMut(&Step) -> ControlFlow<()>> Progress for F {
    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        self(step)
    }
}
