//! How much an error in each weight matters.

use gamma_core::{BitWidth, GroupSize};
use ndarray::{Array2, s};

use crate::{
    CalibrationStats,
    grid::{Grid, nearest},
};

use super::Clip;

/// Numbers that are summed side by side, so that the loops become vector instructions.
const LANES: usize = 8;

/// What the search minimises, for all groups of a matrix.
#[derive(Debug)]
pub(crate) enum Objective {
    /// A factor per input channel, `[in_features]`.
    Diagonal(Vec<f32>),
    /// The blocks on the diagonal of the Hessian, each `[group, group]`, row after row.
    Blocks(Vec<Vec<f32>>, GroupSize),
}

/// What the search minimises in one group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GroupObjective<'a> {
    /// A factor per weight, `[group]`.
    Diagonal(&'a [f32]),
    /// A factor per pair of weights, `[group, group]`, row after row.
    Block(&'a [f32]),
}

impl Objective {
    /// Every weight matters alike.
    pub(super) fn plain(in_features: usize) -> Self {
        Self::Diagonal(vec![1.0; in_features])
    }

    /// What `clip` minimises, where `stats` hold what it needs.
    pub(crate) fn new(clip: Clip, stats: &CalibrationStats, in_features: usize, group: GroupSize) -> Self {
        match (clip, &stats.second_moment, &stats.hessian) {
            (Clip::Weighted, Some(moment), _) => Self::Diagonal(moment.to_vec()),
            (Clip::Correlated, _, Some(hessian)) => Self::Blocks(blocks(hessian.matrix(), group), group),
            _ => Self::plain(in_features),
        }
    }

    /// That of the `n` channels from `first` on, which are a whole group.
    pub(crate) fn of_group(&self, first: usize, n: usize) -> GroupObjective<'_> {
        match self {
            Self::Diagonal(factors) => GroupObjective::Diagonal(&factors[first..][..n]),
            Self::Blocks(blocks, group) => GroupObjective::Block(&blocks[first / group.get()]),
        }
    }
}

fn blocks(hessian: &Array2<f32>, group: GroupSize) -> Vec<Vec<f32>> {
    let n = hessian.nrows();
    let block = |first: usize| {
        let channels = first..n.min(first + group.get());
        hessian.slice(s![channels.clone(), channels]).iter().copied().collect()
    };
    (0..n).step_by(group.get()).map(block).collect()
}

impl GroupObjective<'_> {
    /// The error of `grid` on `w`, with `differences` as scratch space; both are `[group]`.
    pub(super) fn error(self, grid: Grid, w: &[f32], width: BitWidth, differences: &mut [f32]) -> f32 {
        let (scale, zero, q_max) = (grid.scale.to_f32(), f32::from(grid.zero), f32::from(width.max_code()));
        for (difference, &w) in differences.iter_mut().zip(w) {
            *difference = w - scale * (nearest(w, scale, zero, q_max) - zero);
        }
        let d = &*differences;
        match self {
            Self::Diagonal(factors) => sum(d, factors, |d, factor| factor * d * d),
            Self::Block(block) => {
                assert_eq!(block.len(), d.len() * d.len(), "one factor per pair of weights");
                let rows = d.iter().zip(block.chunks_exact(d.len()));
                rows.map(|(&weight, row)| weight * sum(d, row, |d, factor| d * factor)).sum()
            }
        }
    }
}

/// Sum of `term(a[i], b[i])`.
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    assert_eq!(a.len(), b.len(), "pairs of numbers");
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, b)).sum();
    sums.iter().sum::<f32>() + rest
}
