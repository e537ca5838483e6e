//! Watching the work.

use std::ops::ControlFlow;

use crate::State;

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

    /// Called wherever learning can be taken up again later by [`resume`](crate::resume()): after
    /// every round, between the blocks of a round where they learn apart, and between groups of passes
    /// where the student runs through. `state` makes a copy of all that is known.
    fn rest(&mut self, state: &dyn Fn() -> State) -> ControlFlow<()> {
        let _ = state;
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(&Step) -> ControlFlow<()>> Progress for F {
    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        self(step)
    }
}
