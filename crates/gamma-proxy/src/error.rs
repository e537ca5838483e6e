//! Why scores could not be computed.

use gamma_core::{ModuleName, ScoreTableError};

/// Why scores could not be computed; `E` is the network's own error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError<E: std::error::Error + 'static> {
    /// A block cannot be had.
    #[error("block {block} could not be loaded")]
    Load {
        /// The block.
        block: usize,
        /// Why.
        #[source]
        source: E,
    },
    /// A trial failed.
    #[error("a trial with another weight for `{module}` failed")]
    Trial {
        /// The module.
        module: ModuleName,
        /// Why.
        #[source]
        source: E,
    },
    /// There is nothing to learn from.
    #[error("the score needs calibration sequences and got none")]
    NoData,
    /// A score is NaN or infinite, or the network is empty.
    #[error(transparent)]
    Table(#[from] ScoreTableError),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}
