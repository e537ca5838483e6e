//! The range of sizes that a plan may take.

/// Sizes of a plan that are allowed, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) floor: u64,
    pub(crate) ceiling: u64,
}

impl Window {
    /// Everything up to `ceiling`.
    pub(crate) fn up_to(ceiling: u64) -> Self {
        Self { floor: 0, ceiling }
    }

    pub(crate) fn contains(self, size: u64) -> bool {
        (self.floor..=self.ceiling).contains(&size)
    }
}
