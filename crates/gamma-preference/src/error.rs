//! Why learning fails.

use gamma_core::{ModuleName, ScoreTableError};

use crate::StateError;

/// Why [`learn`](crate::learn()) fails; `E` is the network's own error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnError<E: std::error::Error + 'static> {
    /// A setting out of range.
    #[error("setting `{name}` is out of range, {found}: {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would work.
        expected: &'static str,
    },
    /// The network has no blocks, a block no modules, or there is no calibration data.
    #[error("there is nothing to learn from: {0}")]
    Nothing(&'static str),
    /// A block cannot be loaded.
    #[error("block {block} cannot be loaded")]
    Load {
        /// The block.
        block: usize,
        /// The network's own error.
        #[source]
        source: E,
    },
    /// The loss or a gradient is NaN or infinite.
    #[error(
        "the loss of block {block} is not finite in round {round}, step {step}, batch {batch} (module `{module}`)"
    )]
    NotFinite {
        /// The block.
        block: usize,
        /// The round; 0 is the survey.
        round: usize,
        /// The step within the block.
        step: usize,
        /// The calibration batch.
        batch: usize,
        /// The first module whose gradient is not finite, or the block's first module.
        module: ModuleName,
    },
    /// The progress callback asked to stop.
    #[error("learning was interrupted")]
    Interrupted,
    /// The state to go on from is damaged or of another run.
    #[error(transparent)]
    State(#[from] StateError),
    /// The scores do not form a table.
    #[error(transparent)]
    Table(#[from] ScoreTableError),
}
