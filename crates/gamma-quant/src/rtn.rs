//! Round-to-nearest: every weight to the nearest point of its group's grid.

use gamma_core::{BitWidth, Format, GroupSize, Symmetry};
use half::f16;
use rayon::prelude::*;

use crate::{
    CalibrationStats, IntWeight, QuantizeError, QuantizedWeight, Quantizer, WeightView,
    grid::{Grid, Range, ScaleOverflow},
};

/// Round-to-nearest with the range of every group as its grid.
///
/// Needs no calibration. With `b` bits, all arithmetic in `f32`, and rounding half away from zero:
///
/// - asymmetric: the grid spans `lo = min(0, min w)` to `hi = max(0, max w)`, so that a weight of
///   zero stays exactly zero; `scale = f16((hi - lo) / (2^b - 1))`,
///   `zero = clamp(round(-lo / scale), 0, 2^b - 1)`,
///   `code = clamp(round(w / scale) + zero, 0, 2^b - 1)`;
/// - symmetric: `scale = f16(max|w| / ((2^b - 1) / 2))`,
///   `code = clamp(round(w / scale) + 2^(b-1), 0, 2^b - 1)`, and no zero point is stored.
///
/// A scale that 16 bits round to zero becomes the smallest positive one, `2^-24`.
///
/// ```
/// use gamma_core::{BitWidth, GroupSize, ModuleName};
/// use gamma_quant::{CalibrationStats, Quantizer, Rtn, WeightView};
///
/// let name = ModuleName::new("lm_head");
/// let weight = ndarray::array![[-0.5, 0.1, 0.9, 1.0]];
/// let view = WeightView::new(&name, weight.view())?;
/// let rtn = Rtn::asymmetric(GroupSize::G128);
/// let quantized = rtn.quantize(&view, &CalibrationStats::default(), BitWidth::B2)?;
/// assert_eq!(quantized.dequantize(), ndarray::array![[-0.5, 0.0, 1.0, 1.0]]);
/// # Ok::<(), gamma_quant::QuantizeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rtn {
    group: GroupSize,
    symmetry: Symmetry,
}

impl Rtn {
    /// With a zero point per group: for weights that lean to one side, and for few bits.
    #[must_use]
    pub const fn asymmetric(group: GroupSize) -> Self {
        Self { group, symmetry: Symmetry::Asymmetric }
    }

    /// Without zero points: `b` bits less per group.
    #[must_use]
    pub const fn symmetric(group: GroupSize) -> Self {
        Self { group, symmetry: Symmetry::Symmetric }
    }

    /// Quantizes one row; `codes` are `[in_features]`, `scales` and `zeros` `[groups]`. An error is
    /// the group whose scale does not fit 16 bits, and that scale.
    fn quantize_row(
        self,
        w: &[f32],
        width: BitWidth,
        codes: &mut [u8],
        scales: &mut [f16],
        zeros: &mut [u8],
    ) -> Result<(), (usize, f32)> {
        let groups = w.chunks(self.group.get()).zip(codes.chunks_mut(self.group.get()));
        for (i, (w, codes)) in groups.enumerate() {
            let grid =
                Grid::over(Range::of(w), self.symmetry, width).map_err(|ScaleOverflow(scale)| (i, scale))?;
            grid.encode(w, width, codes);
            (scales[i], zeros[i]) = (grid.scale, grid.zero);
        }
        Ok(())
    }
}

impl Quantizer for Rtn {
    fn name(&self) -> &'static str {
        "rtn"
    }

    fn describe(&self) -> String {
        let symmetry = match self.symmetry {
            Symmetry::Symmetric => "symmetric",
            Symmetry::Asymmetric => "asymmetric",
        };
        format!("rtn {symmetry} g{}", self.group)
    }

    fn format(&self, width: BitWidth) -> Format {
        Format::Int { bits: width, group: self.group, symmetry: self.symmetry }
    }

    fn quantize(
        &self,
        weight: &WeightView<'_>,
        _stats: &CalibrationStats,
        width: BitWidth,
    ) -> Result<QuantizedWeight, QuantizeError> {
        let [out_features, in_features] = weight.shape();
        let groups = self.group.groups_in(in_features);
        let mut codes = vec![0; out_features * in_features];
        let mut scales = vec![f16::ZERO; out_features * groups];
        let mut zeros = vec![0; out_features * groups];
        let rows = codes
            .par_chunks_exact_mut(in_features)
            .zip(scales.par_chunks_exact_mut(groups))
            .zip(zeros.par_chunks_exact_mut(groups))
            .enumerate();
        let overflow = rows.find_map_first(|(row, ((codes, scales), zeros))| {
            let result = self.quantize_row(&weight.row(row), width, codes, scales, zeros);
            result.err().map(|(group, scale)| (row, group, scale))
        });
        if let Some((row, group, scale)) = overflow {
            return Err(QuantizeError::ScaleOverflow { module: weight.name().clone(), row, group, scale });
        }
        let zeros = (self.symmetry == Symmetry::Asymmetric).then_some(zeros.as_slice());
        let layout = (width, self.group);
        Ok(IntWeight::from_codes(weight.name(), weight.shape(), layout, &codes, scales, zeros)?.into())
    }
}

#[cfg(test)]
mod tests {
    use gamma_core::ModuleName;
    use ndarray::Array2;

    use super::*;
    use crate::laws;

    fn methods() -> impl Iterator<Item = Rtn> {
        [1, 3, 64, 128].into_iter().flat_map(|channels| {
            let group = GroupSize::new(channels).unwrap();
            [Rtn::asymmetric(group), Rtn::symmetric(group)]
        })
    }

    #[test]
    fn rtn_keeps_the_laws_at_every_width() {
        let widths: Vec<_> = (2..=8).filter_map(BitWidth::new).collect();
        for method in methods() {
            assert_eq!(laws::check(&method, &widths).map_err(|v| laws::report(&v)), Ok(()), "{method:?}");
        }
    }

    #[test]
    fn descriptions_differ_with_every_setting() {
        let descriptions: std::collections::BTreeSet<_> = methods().map(|rtn| rtn.describe()).collect();
        assert_eq!(descriptions.len(), 8);
    }

    #[test]
    fn a_scale_beyond_16_bits_names_module_row_and_group() {
        let name = ModuleName::new("m");
        let mut weight = Array2::from_elem((9, 10), 0.5);
        weight[[7, 2]] = 1e30;
        weight[[5, 9]] = -3e38;
        weight[[5, 8]] = 3e38;
        let view = WeightView::new(&name, weight.view()).unwrap();
        let group = GroupSize::new(4).unwrap();
        for rtn in [Rtn::asymmetric(group), Rtn::symmetric(group)] {
            let error = rtn.quantize(&view, &CalibrationStats::default(), BitWidth::B4).unwrap_err();
            assert!(
                matches!(error, QuantizeError::ScaleOverflow { row: 5, group: 2, .. }),
                "{rtn:?}: {error}"
            );
            assert!(error.to_string().starts_with("module `m`"), "{error}");
        }
    }
}
