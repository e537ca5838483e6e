//! Round-to-nearest: every weight to the nearest point of its group's grid.

mod clip;
mod objective;

use gamma_core::{BitWidth, Format, GroupSize, Symmetry};

pub use clip::Clip;
#[cfg(feature = "hqq")]
pub(crate) use objective::GroupObjective;
#[cfg(not(any(feature = "gptq", feature = "hqq")))]
use objective::Objective;
#[cfg(any(feature = "gptq", feature = "hqq"))]
pub(crate) use {clip::search, objective::Objective};

use crate::{
    CalibrationNeeds, CalibrationStats, QuantizeError, QuantizedWeight, Quantizer, WeightView, accept,
    grid::{Grid, Range},
    groups::{Layout, quantize_groups},
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
/// With [`clip`](Self::clip) the grid of every group spans the part of this range that suits its
/// weights best; what follows from the range stays the same.
///
/// ```
/// use gamma_core::{BitWidth, GroupSize, ModuleName};
/// use gamma_quant::{CalibrationStats, Quantizer, Rtn, WeightView};
///
/// let name = ModuleName::new("lm_head");
/// let weight = ndarray::array![[-0.5, 0.1, 0.9, 1.0]];
/// let view = WeightView::new(&name, weight.view())?;
/// let rtn = Rtn::asymmetric(GroupSize::G128);
/// let quantized = rtn.quantize_at(&view, &CalibrationStats::default(), BitWidth::B2)?;
/// assert_eq!(quantized.dequantize(), ndarray::array![[-0.5, 0.0, 1.0, 1.0]]);
/// # Ok::<(), gamma_quant::QuantizeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rtn {
    layout: Layout,
    clip: Option<Clip>,
}

impl Rtn {
    /// With a zero point per group: for weights that lean to one side, and for few bits.
    #[must_use]
    pub const fn asymmetric(group: GroupSize) -> Self {
        Self { layout: Layout { group, symmetry: Symmetry::Asymmetric }, clip: None }
    }

    /// Without zero points: `b` bits less per group.
    #[must_use]
    pub const fn symmetric(group: GroupSize) -> Self {
        Self { layout: Layout { group, symmetry: Symmetry::Symmetric }, clip: None }
    }

    /// Searches a narrower range for every group. By default the range is the full one.
    #[must_use]
    pub const fn clip(self, clip: Clip) -> Self {
        Self { clip: Some(clip), ..self }
    }
}

impl Quantizer for Rtn {
    fn name(&self) -> &'static str {
        "rtn"
    }

    fn describe(&self) -> String {
        let clip = self.clip.map_or("", Clip::described);
        format!("rtn {}{clip}", self.layout)
    }

    fn formats(&self, width: BitWidth) -> Vec<Format> {
        vec![self.layout.format(width)]
    }

    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        format: &Format,
    ) -> Result<QuantizedWeight, QuantizeError> {
        let width = accept(self, weight.name(), format)?;
        let in_features = weight.shape()[1];
        stats.check(weight.name(), in_features, self.needs())?;
        let symmetry = self.layout.symmetry;
        let Some(clip) = self.clip else {
            return quantize_groups(weight, width, self.layout, |w, _| {
                Grid::over(Range::of(w), symmetry, width)
            });
        };
        let objective = Objective::new(clip, stats, in_features, self.layout.group);
        quantize_groups(weight, width, self.layout, |w, first| {
            clip::search(w, objective.of_group(first, w.len()), width, symmetry)
        })
    }

    fn needs(&self) -> CalibrationNeeds {
        match self.clip {
            None | Some(Clip::Mse) => CalibrationNeeds::Nothing,
            Some(Clip::Weighted) => CalibrationNeeds::SecondMoment,
            Some(Clip::Correlated) => CalibrationNeeds::Hessian,
        }
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
            [Rtn::asymmetric(group), Rtn::symmetric(group)].into_iter().flat_map(|rtn| {
                let clipped = [Clip::Mse, Clip::Weighted, Clip::Correlated].map(|clip| rtn.clip(clip));
                [rtn].into_iter().chain(clipped)
            })
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
        assert_eq!(descriptions.len(), 32);
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
            let error = rtn.quantize_at(&view, &CalibrationStats::default(), BitWidth::B4).unwrap_err();
            assert!(
                matches!(error, QuantizeError::ScaleOverflow { row: 5, group: 2, .. }),
                "{rtn:?}: {error}"
            );
            assert!(error.to_string().starts_with("module `m`"), "{error}");
        }
    }
}
