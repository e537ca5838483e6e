//! Why there is no plan.

use gamma_core::BudgetError;

/// Why a projection fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// No plan fits the budget, or the budget is no number; the text states the minimum.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// [`Solver::Highs`](crate::Solver::Highs) was asked for in a build without it.
    #[error("this build has no HiGHS; turn on the feature `highs`, or let `Solver::Knapsack` solve")]
    NoHighs,
    /// Sizes that HiGHS, which computes in `f64`, cannot tell apart.
    #[error(
        "the plans differ by up to {units} units of storage, HiGHS tells {most} apart; \
         let `Solver::Knapsack` solve"
    )]
    TooFine {
        /// Difference of the widest and the narrowest plan in units of the greatest common divisor.
        units: u64,
        /// The most that HiGHS can handle.
        most: u64,
    },
    /// HiGHS ended without a usable plan, and not for want of time.
    #[error("HiGHS gave no usable plan: {status}")]
    Highs {
        /// HiGHS's own word for what happened, or what is wrong with its plan.
        status: String,
    },
}
