//! Why a search fails.

use std::ops::Range;

use gamma_core::ScoreTableError;
use gamma_ilp::ProjectError;

use crate::SplitError;

/// Why a search fails; `E` is the examiner's own error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefineError<E: std::error::Error + 'static> {
    /// The examiner failed.
    #[error("a plan cannot be measured on windows {windows:?}")]
    Examine {
        /// The windows.
        windows: Range<usize>,
        /// The examiner's own error.
        #[source]
        source: E,
    },
    /// The examiner could not keep what comes before the modules that change.
    #[error("the examiner cannot settle on a plan")]
    Settle(#[source] E),
    /// The examiner did not answer for every window.
    #[error("the examiner gave {found} numbers for windows {windows:?}; expected {}", windows.len())]
    Answer {
        /// The windows.
        windows: Range<usize>,
        /// How many numbers came back.
        found: usize,
    },
    /// A plan that cannot be improved on, because nothing is known of it.
    #[error(
        "the plan to start from has a divergence that is not finite on windows {windows:?}; start from a wider plan"
    )]
    NotFinite {
        /// The windows.
        windows: Range<usize>,
    },
    /// The text cannot be split as asked.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A setting out of range.
    #[error("setting `{name}` is {found}; expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would work.
        expected: &'static str,
    },
    /// The problem is at fault, or the plan to start from does not belong to it.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The plan to start from breaks what it should be improved under.
    #[error(
        "the plan to start from takes {used_bits} of {limit_bits} bits and must obey {}; solve the problem for one \
         that does",
        if constraints.is_empty() { "nothing else".to_owned() } else { constraints.join(", ") }
    )]
    NotAdmitted {
        /// Size of the plan, as the budget counts it.
        used_bits: u64,
        /// The budget.
        limit_bits: u64,
        /// What else the plan must obey.
        constraints: Vec<String>,
    },
    /// No random plan is admitted.
    #[error("none of {tries} random plans obeys the budget and all constraints")]
    NoRandomPlan {
        /// How many were drawn.
        tries: usize,
    },
    /// Nothing to choose from.
    #[error("there is no plan to choose from")]
    NoCandidates,
    /// What was measured does not form a table.
    #[error(transparent)]
    Table(#[from] ScoreTableError),
}

/// Checks one setting.
pub(crate) fn setting<E: std::error::Error + 'static>(
    name: &'static str,
    value: impl std::fmt::Debug,
    holds: bool,
    expected: &'static str,
) -> Result<(), RefineError<E>> {
    if holds { Ok(()) } else { Err(RefineError::Setting { name, found: format!("{value:?}"), expected }) }
}
