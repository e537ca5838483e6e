//! Watching a search, and ending it.

use std::{ops::ControlFlow, time::Duration};

use crate::Spent;

/// Which search is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// [`recentre`](crate::recentre()).
    Recentre,
    /// [`polish`](crate::polish()).
    Polish,
    /// [`evolve`](crate::evolve()).
    Evolve,
    /// [`best_of_random`](crate::best_of_random()).
    Random,
    /// [`choose`](crate::choose()).
    Choose,
}

/// Where a search stands after a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The search.
    pub method: Method,
    /// The round, generation, proposal or plan, counted from 0.
    pub round: usize,
    /// How many there can be; most searches end earlier.
    pub rounds: usize,
    /// Single moves measured in this round, and how many the round measures; zeros but for
    /// [`recentre`](crate::recentre()).
    pub moves: (usize, usize),
    /// What has been spent so far.
    pub spent: Spent,
    /// Mean of the windows just measured, in nats per token.
    pub measured: f64,
    /// Whether these were windows of the gate.
    pub gated: bool,
    /// Lowest mean on the gate among the accepted plans, where one is measured.
    pub best: Option<f64>,
    /// Plans accepted so far.
    pub accepted: usize,
    /// Plans rejected so far.
    pub rejected: usize,
}

/// Watches a search; may stop it.
///
/// Every search can be stopped at any time, and returns the best plan so far. That is also how a
/// search is given a time: see [`Within`].
pub trait Progress {
    /// Called after every measurement. On [`ControlFlow::Break`] what was just measured still
    /// counts, but nothing more is measured.
    fn step(&mut self, step: &Step) -> ControlFlow<()>;
}

impl<F: FnMut(&Step) -> ControlFlow<()>> Progress for F {
    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        self(step)
    }
}

/// Stops a search after a time, by the caller's clock.
///
/// ```
/// use std::{ops::ControlFlow, time::{Duration, Instant}};
/// use gamma_refine::{Step, Within};
///
/// let start = Instant::now();
/// let watch = |_: &Step| ControlFlow::Continue(());
/// let progress = Within::new(Duration::from_mins(10), move || start.elapsed(), watch);
/// # let _ = progress;
/// ```
#[derive(Debug)]
pub struct Within<C, P> {
    limit: Duration,
    clock: C,
    inner: P,
}

impl<C: FnMut() -> Duration, P: Progress> Within<C, P> {
    /// Stops once `clock`, the time since the start, is at `limit` or `inner` says so.
    pub fn new(limit: Duration, clock: C, inner: P) -> Self {
        Self { limit, clock, inner }
    }
}

impl<C: FnMut() -> Duration, P: Progress> Progress for Within<C, P> {
    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        self.inner.step(step)?;
        if (self.clock)() >= self.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
