//! The residual stream before the blocks, kept so that it need not be computed again.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

/// The residual stream of one model before some of its blocks, for all windows of a
/// [`Judge`](super::Judge).
///
/// A model that differs from it from some block on is measured from there
/// ([`Judge::divergence`](super::Judge::divergence)).
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Block number to batches, each `[windows, tokens, hidden_size]`. The number of blocks stands
    /// for the end.
    states: BTreeMap<usize, Vec<Tensor<3>>>,
    /// Every how many blocks the stream is kept.
    every: usize,
}

impl Prefix {
    /// Of at most `bytes` bytes, where one set of states takes `each` and there are `blocks`; the
    /// states before the first block are always kept.
    pub(super) fn new(start: Vec<Tensor<3>>, each: u64, blocks: usize, bytes: u64) -> Self {
        let sets = (bytes / each.max(1)).max(1);
        let every = (blocks as u64).div_ceil(sets).max(1) as usize;
        Self { states: BTreeMap::from([(0, start)]), every }
    }

    /// Keeps the states before `block` if it is one of those that are kept.
    pub(super) fn offer(&mut self, block: usize, states: &[Tensor<3>]) {
        if block.is_multiple_of(self.every) {
            self.states.insert(block, states.to_vec());
        }
    }

    /// The last states kept at or before `block`.
    pub(super) fn before(&self, block: usize) -> (usize, &[Tensor<3>]) {
        let (&number, states) =
            self.states.range(..=block).next_back().expect("the states before the first block are kept");
        (number, states)
    }

    /// Forgets what depends on block `first`.
    pub(super) fn forget_after(&mut self, first: usize) {
        self.states.retain(|&block, _| block <= first);
    }
}
