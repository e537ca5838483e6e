//! GPTQ: rounding that lets the weights not yet rounded make up for the error of the others.

#[cfg(test)]
mod plain;
mod solve;

use std::num::NonZeroUsize;

use gamma_core::{BitWidth, Format, GroupSize, Symmetry};

use crate::{
    CalibrationNeeds, CalibrationStats, Clip, IntWeight, QuantizeError, QuantizedWeight, Quantizer,
    WeightView, accept,
    groups::Layout,
    hessian::factor::{NoFactor, Recipe},
    rtn::Objective,
};

/// How much is added to the diagonal of a Hessian, as a fraction of its mean: positive and finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Damping(f64);

impl Damping {
    /// One hundredth, as the paper has it.
    pub const DEFAULT: Self = Self(0.01);

    /// `None` unless `fraction` is positive and finite.
    #[must_use]
    pub fn new(fraction: f64) -> Option<Self> {
        (fraction > 0.0 && fraction.is_finite()).then_some(Self(fraction))
    }

    /// The fraction.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// GPTQ (Frantar et al. 2022, arXiv 2210.17323).
///
/// Rounds one input channel after the other, all rows at once. The rounding error of each is made
/// up for, as far as the inputs are correlated, by the channels that follow: with `H` the damped
/// Hessian and `U` the upper Cholesky factor of its inverse, `Uᵀ U = H⁻¹`, channel `j` leaves
/// `e = (w_j - q_j) / U_jj`, and channel `k` behind it becomes `w_k - e U_jk` (algorithm 1).
///
/// The grids are those of round-to-nearest, with 16-bit scales and integer zero points; the result
/// is an ordinary [`Format::Int`].
///
/// - With [`act_order`](Self::act_order), channels are taken in the order of falling second moment,
///   so that the important ones are rounded while many are left to make up for them. Groups stay
///   those of the stored order, and their grids come from the weights before any rounding: no
///   permutation has to be stored.
/// - Without, channels are taken as stored, and a group's grid comes from its weights as they are
///   when the first of them is reached, earlier errors made up for.
///
/// A channel that never carried a signal is quantized as zero. A Hessian that is not positive
/// definite is damped ten times as much, four times at most.
///
/// Needs the Hessian of the inputs. Its factor is computed once per input, damping and order, and
/// kept in [`CalibrationStats`]: further bit-widths, and modules with the same statistics, reuse it.
/// Scratch memory beyond the result is about `640 in_features` bytes per thread.
///
/// | setting | default | |
/// |---|---|---|
/// | [`damping`](Self::damping) | 0.01 | added to the Hessian, times its mean diagonal |
/// | [`act_order`](Self::act_order) | on | the important channels first |
/// | [`clip`](Self::clip) | off | a narrower range for every group, where that loses less |
/// | [`block`](Self::block) | 128 | channels that are rounded between two updates of those behind |
///
/// ```
/// use gamma_core::{BitWidth, GroupSize, ModuleName};
/// use gamma_quant::{Gptq, HessianAccumulator, Quantizer, WeightView};
/// use ndarray::array;
///
/// // Both channels carry nearly the same signal: what one loses, the other can give.
/// let mut inputs = HessianAccumulator::new(2);
/// inputs.add(array![[1.0, 0.9], [-2.0, -2.1], [0.5, 0.5]].view())?;
///
/// let name = ModuleName::new("model.layers.0.mlp.up_proj");
/// let weight = array![[1.5, 0.5]];
/// let view = WeightView::new(&name, weight.view())?;
/// let gptq = Gptq::symmetric(GroupSize::G128);
/// let quantized = gptq.quantize_at(&view, &inputs.finish(), BitWidth::B2)?;
/// // Steps of 1: 0.5 became 1 by rounding half away from zero, so that 1.5 must become 1.
/// assert_eq!(quantized.dequantize(), array![[1.0, 1.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gptq {
    layout: Layout,
    damping: Damping,
    act_order: bool,
    clip: Option<Clip>,
    block: NonZeroUsize,
}

impl Gptq {
    const fn new(group: GroupSize, symmetry: Symmetry) -> Self {
        let block = NonZeroUsize::new(128).expect("128 is not zero");
        Self {
            layout: Layout { group, symmetry },
            damping: Damping::DEFAULT,
            act_order: true,
            clip: None,
            block,
        }
    }

    /// With a zero point per group: for weights that lean to one side, and for few bits.
    #[must_use]
    pub const fn asymmetric(group: GroupSize) -> Self {
        Self::new(group, Symmetry::Asymmetric)
    }

    /// Without zero points: `b` bits less per group.
    #[must_use]
    pub const fn symmetric(group: GroupSize) -> Self {
        Self::new(group, Symmetry::Symmetric)
    }

    /// What is added to the Hessian's diagonal, as a fraction of its mean over channels with a
    /// signal. Default: 0.01.
    #[must_use]
    pub const fn damping(self, damping: Damping) -> Self {
        Self { damping, ..self }
    }

    /// Whether channels are taken in the order of falling second moment. Default: yes.
    #[must_use]
    pub const fn act_order(self, act_order: bool) -> Self {
        Self { act_order, ..self }
    }

    /// Searches a narrower range for every group, as [`Rtn`](crate::Rtn) does; the paper's is the
    /// full one, which is the default here. What matters most with two and three bits.
    #[must_use]
    pub const fn clip(self, clip: Clip) -> Self {
        Self { clip: Some(clip), ..self }
    }

    /// Channels that are rounded before all those behind are updated at once. Default: 128. Of
    /// influence on the speed, and on the result only through the rounding of sums.
    #[must_use]
    pub const fn block(self, block: NonZeroUsize) -> Self {
        Self { block, ..self }
    }
}

impl Quantizer for Gptq {
    fn name(&self) -> &'static str {
        "gptq"
    }

    fn describe(&self) -> String {
        let order = if self.act_order { "act-order" } else { "stored order" };
        let (damping, block) = (self.damping.get(), self.block);
        let clip = self.clip.map_or("", Clip::described);
        format!("gptq {}{clip}, damping {damping}, {order}, block {block}", self.layout)
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
        let module = || weight.name().clone();
        stats.check(weight.name(), weight.shape()[1], self.needs())?;
        let Some(hessian) = &stats.hessian else { unreachable!("checked") };
        let recipe = Recipe { damping: self.damping.get(), act_order: self.act_order };
        let factor = hessian.factor(recipe).map_err(|none| match none {
            NoFactor::NoSignal => QuantizeError::NoSignal { module: module() },
            NoFactor::Singular { channel, damping } => {
                QuantizeError::SingularHessian { module: module(), channel, damping }
            }
        })?;
        let objective =
            self.clip.map(|clip| Objective::new(clip, stats, weight.shape()[1], self.layout.group));
        let solution =
            solve::solve(self, weight, &factor, width, objective.as_ref()).map_err(|overflow| {
                let solve::Overflow { row, group, scale } = overflow;
                QuantizeError::ScaleOverflow { module: module(), row, group, scale }
            })?;
        let solve::Solution { codes, scales, zeros } = solution;
        let zeros = (self.layout.symmetry == Symmetry::Asymmetric).then_some(zeros.as_slice());
        let layout = (width, self.layout.group);
        Ok(IntWeight::from_codes(weight.name(), weight.shape(), layout, &codes, scales, zeros)?.into())
    }

    fn needs(&self) -> CalibrationNeeds {
        CalibrationNeeds::Hessian
    }
}

#[cfg(test)]
mod tests;
