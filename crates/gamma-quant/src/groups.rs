//! A matrix group by group: what all methods share whose groups do not depend on each other.

use std::fmt;

use gamma_core::{BitWidth, Format, GroupSize, Symmetry};
use half::f16;
use rayon::prelude::*;

use crate::{
    IntWeight, QuantizeError, QuantizedWeight, WeightView,
    grid::{Grid, ScaleOverflow},
};

/// How integer codes are stored, without their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    pub(crate) group: GroupSize,
    pub(crate) symmetry: Symmetry,
}

/// As descriptions of methods say it.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symmetry = match self.symmetry {
            Symmetry::Symmetric => "symmetric",
            Symmetry::Asymmetric => "asymmetric",
        };
        write!(f, "{symmetry} g{}", self.group)
    }
}

impl Layout {
    pub(crate) fn format(self, bits: BitWidth) -> Format {
        Format::Int { bits, group: self.group, symmetry: self.symmetry }
    }
}

/// Quantizes every group of every row to the grid that `rule` chooses for it, rows in parallel.
///
/// `rule` gets the group's weights and its first input channel. In a symmetric layout its grids
/// must have the zero point `2^(b-1)`, which is not stored.
pub(crate) fn quantize_groups(
    weight: &WeightView<'_>,
    width: BitWidth,
    layout: Layout,
    rule: impl Fn(&[f32], usize) -> Result<Grid, ScaleOverflow> + Sync,
) -> Result<QuantizedWeight, QuantizeError> {
    let [out_features, in_features] = weight.shape();
    let (size, groups) = (layout.group.get(), layout.group.groups_in(in_features));
    let mut codes = vec![0; out_features * in_features];
    let mut scales = vec![f16::ZERO; out_features * groups];
    let mut zeros = vec![0; out_features * groups];
    let rows = codes
        .par_chunks_exact_mut(in_features)
        .zip(scales.par_chunks_exact_mut(groups))
        .zip(zeros.par_chunks_exact_mut(groups))
        .enumerate();
    let overflow = rows.find_map_first(|(row, ((codes, scales), zeros))| {
        let w = weight.row(row);
        for (group, (w, codes)) in w.chunks(size).zip(codes.chunks_mut(size)).enumerate() {
            let grid = match rule(w, group * size) {
                Ok(grid) => grid,
                Err(ScaleOverflow(scale)) => return Some((row, group, scale)),
            };
            grid.encode(w, width, codes);
            (scales[group], zeros[group]) = (grid.scale, grid.zero);
        }
        None
    });
    if let Some((row, group, scale)) = overflow {
        return Err(QuantizeError::ScaleOverflow { module: weight.name().clone(), row, group, scale });
    }
    let zeros = (layout.symmetry == Symmetry::Asymmetric).then_some(zeros.as_slice());
    let layout = (width, layout.group);
    Ok(IntWeight::from_codes(weight.name(), weight.shape(), layout, &codes, scales, zeros)?.into())
}
