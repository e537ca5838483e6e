//! Which solver answers, and how long it may work.

use std::time::Duration;

/// Who solves the integer program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Solver {
    /// [`Solver::Knapsack`], and [`Solver::Highs`] where constraints join modules that the plan of
    /// the former breaks.
    #[default]
    Auto,
    /// The exact solver of this crate, pure Rust.
    Knapsack,
    /// HiGHS, a general solver for mixed-integer programs. Needs the feature `highs`.
    Highs,
}

/// How a projection is computed and when it stops.
///
/// | setter | default | purpose |
/// |---|---|---|
/// | [`solver`](Self::solver) | [`Solver::Auto`] | who solves |
/// | [`max_states`](Self::max_states) | 10 million | when [`Solver::Knapsack`] gives up proving |
/// | [`time_limit`](Self::time_limit) | 60 s | when [`Solver::Highs`] gives up proving |
///
/// Giving up is no error: the best plan found is returned, and the gap of its certificate says
/// how much better another plan could be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    pub(crate) solver: Solver,
    pub(crate) max_states: u64,
    pub(crate) time_limit: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { solver: Solver::Auto, max_states: 10_000_000, time_limit: Duration::from_mins(1) }
    }
}

impl Limits {
    /// Who solves; [`Solver::Auto`] by default.
    pub fn solver(mut self, solver: Solver) -> Self {
        self.solver = solver;
        self
    }

    /// How many partial plans [`Solver::Knapsack`] may look at, 10 million by default: about a
    /// second and 350 MB at worst, where a model of some hundred modules mostly needs some thousand.
    /// A count and not a time, so that a plan that was cut short is the same on every machine.
    ///
    /// After a sixteenth of them, cost differences below the rounding error of the plan's cost as an
    /// `f64` no longer count. On the way to the limit that ends most searches among plans such as
    /// `0.1 + 0.2` and `0.3`, which only binary fractions tell apart.
    pub fn max_states(mut self, states: u64) -> Self {
        self.max_states = states;
        self
    }

    /// How long [`Solver::Highs`] may run, 60 seconds by default. A plan that was cut short by this
    /// limit depends on the machine.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time_limit = time;
        self
    }
}
