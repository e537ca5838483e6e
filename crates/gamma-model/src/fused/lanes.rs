//! Loops over floats for all the lanes that the machine has.

/// Runs the body of `$name` compiled for AVX2 where the machine has it: the same operations in the same order,
/// so that results are the same everywhere.
macro_rules! wide {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn wide($($arg: $type),*) $(-> $result)? {
                plain($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[expect(unsafe_code, reason = "only the machine knows what it can do")]
                // SAFETY: the instructions were asked for in the line above.
                return unsafe { wide($($arg),*) };
            }
            plain($($arg),*)
        }
    };
}
pub(super) use wide;

/// Sums run over so many lanes side by side.
const LANES: usize = 16;

/// `e^x` to within 2 units in the last place from -87 on; below that `e^-87`, which is as good as nothing.
/// No branch and no call: loops over it become vector instructions.
///
/// `e^x = 2^n e^r` with `n = x / ln 2` rounded and `|r| <= ln 2 / 2`, and a polynomial for the second
/// factor (the minimax polynomial of Cephes' `expf`).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to whole numbers
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is compiled for every instruction set")]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of `f` over pairs of entries.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is compiled for every instruction set")]
pub(super) fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (mut left, mut right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in left.by_ref().zip(right.by_ref()) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    let rest = left.remainder().iter().zip(right.remainder()).map(|(&a, &b)| f(a, b));
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}

/// The largest entry; minus infinity of none.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is compiled for every instruction set")]
pub(super) fn highest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for x in chunks.by_ref() {
        lanes.iter_mut().zip(x).for_each(|(lane, &x)| *lane = if x > *lane { x } else { *lane });
    }
    lanes.iter().chain(chunks.remainder()).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_the_last_places() {
        for i in -86_000..88_000 {
            let x = i as f32 * 1e-3;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2.5e-7, "{x}: {found} instead of {expected}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(-1e9) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_hold_every_entry() {
        for length in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let expected: f32 = a.iter().map(|a| a * a).sum();
            assert!((sum(&a, &a, |a, b| a * b) - expected).abs() <= 1e-6 * expected);
            assert_eq!(highest(&a).to_bits(), a.last().copied().unwrap_or(f32::NEG_INFINITY).to_bits());
        }
    }
}
