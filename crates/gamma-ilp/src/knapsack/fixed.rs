//! Sums and comparisons of costs without rounding.
//!
//! Costs are whole multiples of a quantum, in 128 bits. The quantum is a power of two, at least
//! 2^100 times finer than the largest number that still matters. A cost difference is thus exact
//! unless it has bits beyond the thirtieth decimal place of that number; then it is off by half a
//! quantum, far below what adding the costs as `f64` would lose.

/// Whole multiples of `2^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    exponent: i32,
}

impl Scale {
    /// Puts `largest` just below `2^bits`.
    pub(super) fn new(largest: f64, bits: u32) -> Self {
        let (_, exponent) = split(largest);
        // split() leaves 53 bits before the binary point.
        Self { exponent: exponent + 53 - bits.cast_signed() }
    }

    /// `a - b`, exactly if neither has bits below the quantum.
    pub(super) fn difference(self, a: f64, b: f64) -> i128 {
        // The rounding error of a floating-point difference is itself a floating-point number
        // (Knuth, TAOCP 2, 4.2.2, theorem B).
        let high = a - b;
        let b_seen = a - high;
        let a_seen = high + b_seen;
        let low = (a - a_seen) + (b_seen - b);
        self.round(high) + self.round(low)
    }

    /// The nearest multiple; halves away from zero.
    pub(super) fn round(self, x: f64) -> i128 {
        let (mantissa, exponent) = split(x);
        let shift = exponent - self.exponent;
        let mantissa = i128::from(mantissa);
        let magnitude = match shift {
            0.. => mantissa << shift.min(73),
            -60..0 => (mantissa + (1 << (-shift - 1))) >> -shift,
            _ => 0,
        };
        if x < 0.0 { -magnitude } else { magnitude }
    }

    /// The real value, rounded to nearest.
    pub(super) fn value(self, x: i128) -> f64 {
        // In two factors, because 2^exponent alone may be too small for an f64.
        let half = self.exponent / 2;
        x as f64 * 2_f64.powi(half) * 2_f64.powi(self.exponent - half)
    }
}

/// `|x|` as an integer of at most 53 bits times a power of two; the integer has exactly 53 bits
/// unless `x` is subnormal or zero.
fn split(x: f64) -> (i64, i32) {
    let bits = x.to_bits();
    let fraction = (bits & ((1 << 52) - 1)).cast_signed();
    match (bits >> 52 & 0x7ff) as i32 {
        0 => (fraction, -1074),
        exponent => (fraction | 1 << 52, exponent - 1075),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_keep_every_bit() {
        let scale = Scale::new(1.0, 100);
        let ulp = 2_f64.powi(-52);
        assert_eq!(scale.difference(1.0 + ulp, 1.0), scale.round(ulp));
        // 1 - 2^-60 does not fit an f64.
        assert_eq!(scale.difference(1.0, 2_f64.powi(-60)), scale.round(1.0) - scale.round(2_f64.powi(-60)));
        assert_eq!(scale.difference(-0.1, 0.2), -scale.difference(0.2, -0.1));
        assert!(scale.difference(0.1 + 0.2, 0.3) > 0);
    }

    #[test]
    fn numbers_below_half_a_quantum_vanish_and_values_come_back() {
        let scale = Scale::new(1e300, 110);
        assert_eq!(scale.round(1e-300), 0);
        let returns = |scale: Scale, x: f64| scale.value(scale.round(x)).total_cmp(&x).is_eq();
        assert!([0.75e300, 1e290, -3.5e285].into_iter().all(|x| returns(scale, x)));
        assert!(returns(Scale::new(1e-308, 100), 1e-310));
    }
}
