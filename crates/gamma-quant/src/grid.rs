//! The grid of one group: which points the codes of a bit-width stand for, and the nearest of them.

use gamma_core::{BitWidth, Symmetry};
use half::f16;

/// A scale beyond the largest 16-bit float.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaleOverflow(pub(crate) f32);

/// What a group of weights spans. It always contains zero, so that a pruned weight decodes to
/// exactly zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) lo: f32,
    pub(crate) hi: f32,
}

impl Range {
    /// The range of no weights.
    pub(crate) const ZERO: Self = Self { lo: 0.0, hi: 0.0 };

    #[cfg(any(feature = "rtn", test))]
    pub(crate) fn of(w: &[f32]) -> Self {
        w.iter().fold(Self::ZERO, |range, &x| range.with(x))
    }

    pub(crate) fn with(self, x: f32) -> Self {
        Self { lo: self.lo.min(x), hi: self.hi.max(x) }
    }
}

/// The points `scale * (code - zero)` for the codes of a bit-width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    /// In the unit of the weights.
    pub(crate) scale: f16,
    /// `2^(b-1)` in a symmetric grid.
    pub(crate) zero: u8,
}

impl Grid {
    /// The grid over `range`: affine scheme of Jacob et al. 2018, eq. 1, with a 16-bit scale.
    pub(crate) fn over(range: Range, symmetry: Symmetry, width: BitWidth) -> Result<Self, ScaleOverflow> {
        let Range { lo, hi } = range;
        let q_max = f32::from(width.max_code()); // 2^b - 1
        match symmetry {
            Symmetry::Asymmetric => {
                let scale = stored_scale((hi - lo) / q_max)?;
                let zero = round(-lo / scale.to_f32()).clamp(0.0, q_max) as u8;
                Ok(Self { scale, zero })
            }
            Symmetry::Symmetric => {
                let scale = stored_scale(hi.max(-lo) / (q_max / 2.0))?;
                Ok(Self { scale, zero: 1 << (width.bits() - 1) })
            }
        }
    }

    /// The codes of the points nearest to `w`, which is finite.
    #[cfg(any(feature = "rtn", test))]
    pub(crate) fn encode(self, w: &[f32], width: BitWidth, codes: &mut [u8]) {
        assert_eq!(w.len(), codes.len(), "one code per weight");
        let (scale, zero, q_max) = (self.scale.to_f32(), f32::from(self.zero), f32::from(width.max_code()));
        for (code, &x) in codes.iter_mut().zip(w) {
            *code = nearest(x, scale, zero, q_max) as u8;
        }
    }
}

/// The code of the point nearest to `x`, as a number: from 0 to `q_max`, or NaN.
#[expect(clippy::inline_always, reason = "to be compiled with the vector instructions of the caller")]
#[inline(always)]
pub(crate) fn nearest(x: f32, scale: f32, zero: f32, q_max: f32) -> f32 {
    (round(x / scale) + zero).clamp(0.0, q_max)
}

/// `scale` as it is stored. Codes are computed from this value, not from the one before rounding.
pub(crate) fn stored_scale(scale: f32) -> Result<f16, ScaleOverflow> {
    let stored = f16::from_f32(scale);
    if !stored.is_finite() {
        return Err(ScaleOverflow(scale));
    }
    Ok(if stored == f16::ZERO { f16::MIN_POSITIVE_SUBNORMAL } else { stored })
}

/// `x.round()`, half away from zero, for `|x|` below 2^31: a vector instruction where the standard
/// function is a call per value on baseline `x86_64`.
#[expect(clippy::inline_always, reason = "to be compiled with the vector instructions of the caller")]
#[inline(always)]
fn round(x: f32) -> f32 {
    // The difference is exact, also where `x + 0.5` would not be (0.49999997).
    let whole = x as i32 as f32;
    if (x - whole).abs() >= 0.5 { whole + 1.0_f32.copysign(x) } else { whole }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_width() -> impl Strategy<Value = BitWidth> {
        (2_u8..=8).prop_map(|bits| BitWidth::new(bits).unwrap())
    }

    /// Groups of one magnitude each, from far below the smallest 16-bit float to far above one.
    fn any_group() -> impl Strategy<Value = Vec<f32>> {
        (-32_i32..10, prop::collection::vec(-8.0_f32..8.0, 1..=128))
            .prop_map(|(exponent, w)| w.into_iter().map(|x| x * 2.0_f32.powi(exponent)).collect())
    }

    fn quantize(w: &[f32], symmetry: Symmetry, width: BitWidth) -> (f16, u8, Vec<u8>) {
        let grid = Grid::over(Range::of(w), symmetry, width).expect("the scale fits 16 bits");
        let mut codes = vec![9; w.len()];
        grid.encode(w, width, &mut codes);
        (grid.scale, grid.zero, codes)
    }

    /// Every weight within the grid is at most half a step from its decoded value, every weight
    /// beyond its ends decodes to the end.
    fn check(w: &[f32], width: BitWidth, scale: f16, zero: u8, codes: &[u8]) -> Result<(), TestCaseError> {
        let (scale, zero) = (scale.to_f32(), f32::from(zero));
        let decode = |code: f32| scale * (code - zero);
        let (lowest, highest) = (decode(0.0), decode(f32::from(width.max_code())));
        for (&x, &code) in w.iter().zip(codes) {
            prop_assert!(code <= width.max_code());
            let error = (x.clamp(lowest, highest) - decode(f32::from(code))).abs();
            // The quotient, of at most 2^8, and the difference are rounded once each.
            prop_assert!(error <= scale * (0.5 + 1.0e-4), "{x} became {code}, {error} in steps of {scale}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn asymmetric_error_is_at_most_half_a_step(w in any_group(), width in any_width()) {
            let (scale, zero, codes) = quantize(&w, Symmetry::Asymmetric, width);
            check(&w, width, scale, zero, &codes)?;
            // The grid reaches both ends of the range, up to the rounding of the scale to 11 bits
            // (or to a multiple of 2^-24) and of the zero point to half a step.
            let (lo, hi) = w.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
            let q_max = f32::from(width.max_code());
            let slack = q_max * (scale.to_f32() / 2048.0 + 2.0_f32.powi(-25)) + 0.501 * scale.to_f32();
            prop_assert!(scale.to_f32() * (0.0 - f32::from(zero)) <= lo + slack);
            prop_assert!(scale.to_f32() * (q_max - f32::from(zero)) >= hi - slack);
        }

        #[test]
        fn symmetric_error_is_at_most_half_a_step(w in any_group(), width in any_width()) {
            let (scale, zero, codes) = quantize(&w, Symmetry::Symmetric, width);
            prop_assert_eq!(u32::from(zero), 1 << (width.bits() - 1));
            check(&w, width, scale, zero, &codes)?;
        }

        #[test]
        fn rounding_is_that_of_the_standard_library(x in -70_000.0_f32..70_000.0, halves in -600_i32..600) {
            prop_assert_eq!(round(x) as i32, x.round() as i32);
            let tie = halves as f32 / 2.0;
            for x in [tie, tie.next_up(), tie.next_down()] {
                prop_assert_eq!(round(x) as i32, x.round() as i32, "{}", x);
            }
        }
    }

    #[test]
    fn groups_of_zeros_or_of_less_than_16_bits_hold_use_the_smallest_scale() {
        for w in [[0.0, 0.0], [-0.0, 0.0], [1e-30, -1e-30], [1e-40, 0.0]] {
            for symmetry in [Symmetry::Asymmetric, Symmetry::Symmetric] {
                let (scale, zero, codes) = quantize(&w, symmetry, BitWidth::B4);
                assert_eq!((scale, codes), (f16::MIN_POSITIVE_SUBNORMAL, vec![zero; 2]), "{w:?}");
            }
        }
    }

    #[test]
    fn the_rule_by_hand() {
        // 0.75 and -0.25 in 2 bits: steps of a third, zero point round(0.75) = 1.
        let result = quantize(&[0.75, -0.25, 0.0, 0.5], Symmetry::Asymmetric, BitWidth::B2);
        assert_eq!(result, (f16::from_f32(1.0 / 3.0), 1, vec![3, 0, 1, 3]));
        // 0.5 in steps of 0.5: 1.5 / (3 / 2) = 1, and 0.5 / 1 rounds away from zero.
        let result = quantize(&[-1.5, 0.5, -0.5, 0.25], Symmetry::Symmetric, BitWidth::B2);
        assert_eq!(result, (f16::ONE, 2, vec![0, 3, 1, 2]));
    }
}
