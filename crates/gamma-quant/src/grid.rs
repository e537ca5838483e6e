//! The grid of one group: how its range becomes a scale and a zero point, and its weights codes.

use gamma_core::BitWidth;
use half::f16;

/// A scale beyond the largest 16-bit float.
#[derive(Debug)]
pub(crate) struct ScaleOverflow(pub(crate) f32);

/// The `2^b` values `scale * (code - zero)` of one group of consecutive input channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    /// Step, in the unit of the weights; at least `2^-24`.
    pub(crate) scale: f16,
    /// The code that decodes to zero, at most `2^b - 1`.
    pub(crate) zero: u8,
}

impl Grid {
    /// The grid from `lo <= 0` to `hi >= 0` with a zero point: zero is one of its values, so that a
    /// pruned weight decodes to exactly zero. Affine scheme of Jacob et al. 2018, eq. 1, with a
    /// 16-bit scale.
    pub(crate) fn asymmetric((lo, hi): (f32, f32), width: BitWidth) -> Result<Self, ScaleOverflow> {
        let q_max = f32::from(width.max_code()); // 2^b - 1
        let scale = stored_scale((hi - lo) / q_max)?;
        let zero = round(-lo / scale.to_f32()).clamp(0.0, q_max);
        Ok(Self { scale, zero: zero as u8 })
    }

    /// The grid from `-largest` to `largest` with the zero point `2^(b-1)`.
    pub(crate) fn symmetric(largest: f32, width: BitWidth) -> Result<Self, ScaleOverflow> {
        let scale = stored_scale(largest / (f32::from(width.max_code()) / 2.0))?;
        Ok(Self { scale, zero: 1 << (width.bits() - 1) })
    }

    /// Codes of the values next to `w`, half a step going away from zero.
    ///
    /// `w` is finite, as `WeightView::new` has checked, and at most `2^31` steps from zero.
    pub(crate) fn encode(self, w: &[f32], width: BitWidth, codes: &mut [u8]) {
        assert_eq!(w.len(), codes.len(), "one code per weight");
        let to_code = self.to_code(width);
        for (code, &x) in codes.iter_mut().zip(w) {
            *code = to_code(x) as u8;
        }
    }

    /// The code of one weight, as a number.
    pub(crate) fn to_code(self, width: BitWidth) -> impl Fn(f32) -> f32 {
        let (scale, zero) = (self.scale.to_f32(), f32::from(self.zero));
        let q_max = f32::from(width.max_code());
        move |x| (round(x / scale) + zero).clamp(0.0, q_max)
    }
}

/// The range of `w` and zero.
pub(crate) fn range(w: &[f32]) -> (f32, f32) {
    w.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &x| (lo.min(x), hi.max(x)))
}

/// The largest absolute value of `w`.
pub(crate) fn largest(w: &[f32]) -> f32 {
    w.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()))
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
pub(crate) fn round(x: f32) -> f32 {
    // The difference is exact, also where `x + 0.5` would not be (0.49999997).
    let whole = x as i32 as f32;
    if (x - whole).abs() >= 0.5 { whole + 1.0_f32.copysign(x) } else { whole }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = Result<(f16, u8), ScaleOverflow>;

    fn asymmetric(w: &[f32], width: BitWidth, codes: &mut [u8]) -> Parts {
        encode(Grid::asymmetric(range(w), width)?, w, width, codes)
    }

    fn symmetric(w: &[f32], width: BitWidth, codes: &mut [u8]) -> Parts {
        encode(Grid::symmetric(largest(w), width)?, w, width, codes)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the tail of two functions that can fail")]
    fn encode(grid: Grid, w: &[f32], width: BitWidth, codes: &mut [u8]) -> Parts {
        grid.encode(w, width, codes);
        Ok((grid.scale, grid.zero))
    }

    fn any_width() -> impl Strategy<Value = BitWidth> {
        (2_u8..=8).prop_map(|bits| BitWidth::new(bits).unwrap())
    }

    /// Groups of one magnitude each, from far below the smallest 16-bit float to far above one.
    fn any_group() -> impl Strategy<Value = Vec<f32>> {
        (-32_i32..10, prop::collection::vec(-8.0_f32..8.0, 1..=128))
            .prop_map(|(exponent, w)| w.into_iter().map(|x| x * 2.0_f32.powi(exponent)).collect())
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
            let mut codes = vec![0; w.len()];
            let Ok((scale, zero)) = asymmetric(&w, width, &mut codes) else { panic!("no overflow") };
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
            let mut codes = vec![0; w.len()];
            let Ok((scale, zero)) = symmetric(&w, width, &mut codes) else { panic!("no overflow") };
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
            for rule in [asymmetric, symmetric] {
                let mut codes = [9; 2];
                let Ok((scale, zero)) = rule(&w, BitWidth::B4, &mut codes) else { panic!("no overflow") };
                assert_eq!((scale, codes), (f16::MIN_POSITIVE_SUBNORMAL, [zero; 2]), "{w:?}");
            }
        }
    }

    #[test]
    fn the_rule_by_hand() {
        // 0.75 and -0.25 in 2 bits: steps of a third, zero point round(0.75) = 1.
        let mut codes = [0; 4];
        let Ok((scale, zero)) = asymmetric(&[0.75, -0.25, 0.0, 0.5], BitWidth::B2, &mut codes) else {
            panic!("no overflow")
        };
        assert_eq!((scale, zero, codes), (f16::from_f32(1.0 / 3.0), 1, [3, 0, 1, 3]));
        // 0.5 in steps of 0.5: 1.5 / (3 / 2) = 1, and 0.5 / 1 rounds away from zero.
        let Ok((scale, zero)) = symmetric(&[-1.5, 0.5, -0.5, 0.25], BitWidth::B2, &mut codes) else {
            panic!("no overflow")
        };
        assert_eq!((scale, zero, codes), (f16::ONE, 2, [0, 3, 1, 2]));
    }
}
