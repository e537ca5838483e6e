//! What a search did and what came of it.

use gamma_core::Plan;

use crate::Estimate;

/// What measuring has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls of [`Examiner::divergence`](crate::Examiner::divergence).
    pub evaluations: u64,
    /// Windows that these calls measured, one after the other.
    pub windows: u64,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It did all that its settings ask for.
    Done,
    /// Nothing that it could still try promises anything, or all has been tried.
    Exhausted,
    /// Too many proposals in a row were rejected.
    OutOfPatience,
    /// [`Progress`](crate::Progress) stopped it.
    Stopped,
}

/// The divergence of a plan on both parts of the text; `None` where the search ended before it was
/// measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// On the probe. What was chosen there looks better than it is.
    pub probe: Option<Estimate>,
    /// On the gate.
    pub gate: Option<Estimate>,
}

/// What a search did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Why it ended.
    pub status: Status,
    /// What it cost.
    pub spent: Spent,
    /// Plans that took the place of the one before.
    pub accepted: usize,
    /// Plans that were measured and did not.
    pub rejected: usize,
    /// The plan that the search began with.
    pub before: Measured,
    /// The plan that it returns.
    pub after: Measured,
}

/// A plan and how it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The plan. It has no certificate: no solver made it.
    pub plan: Plan,
    /// What the search did.
    pub report: Report,
}
