//! The best scales, or scales and offsets, of runs of weights: what all block formats are built from.
//!
//! `x` are weights and `h` how much each matters. Errors are `Σ h (x - x̂)²`. What can be done for several
//! runs, or several attempts at one, is done side by side: every number below is an array with a place
//! for each. Sums run in a fixed order, so that they are the same on every machine.
#![expect(clippy::inline_always, reason = "what a wider instruction set compiles must be inlined into it")]
#![expect(clippy::needless_bitwise_bool, reason = "a branch would keep a loop from being vectorized")]

/// The integer next to `value`, ties to even, within `lo` to `hi`, which lie within ±2^22.
#[inline(always)]
pub(super) fn code(value: f32, lo: f32, hi: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves no bits for a fraction. Comparisons and not `clamp`, which keeps NaN and
    // takes more instructions for it.
    const SHIFT: f32 = 12_582_912.0;
    let value = if value > lo { value } else { lo };
    let value = if value < hi { value } else { hi };
    (value + SHIFT) - SHIFT
}

/// `1 / s`, and zero for zero.
#[inline(always)]
pub(super) fn inverse(s: f32) -> f32 {
    if s == 0.0 { 0.0 } else { 1.0 / s }
}

/// The sum of all places, halves first.
#[inline(always)]
pub(super) fn total<const R: usize>(mut places: [f32; R]) -> f32 {
    let mut half = R / 2;
    while half > 0 {
        for r in 0..half {
            places[r] += places[r + half];
        }
        half /= 2;
    }
    places[0]
}

/// `R` runs of `N` weights: the weights of all runs at one position stand side by side.
pub(super) struct Runs<const N: usize, const R: usize> {
    pub(super) x: [[f32; R]; N],
    pub(super) h: [[f32; R]; N],
}

impl<const N: usize, const R: usize> Runs<N, R> {
    /// Runs that follow each other in `x`.
    #[inline(always)]
    pub(super) fn new(x: &[f32], h: &[f32]) -> Self {
        assert!(x.len() == N * R && h.len() == N * R, "a whole block");
        let turned = |values: &[f32]| {
            let mut out = [[0.0; R]; N];
            for (r, run) in values.chunks_exact(N).enumerate() {
                for (k, &value) in run.iter().enumerate() {
                    out[k][r] = value;
                }
            }
            out
        };
        Self { x: turned(x), h: turned(h) }
    }

    /// All positions.
    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[f32; R], &[f32; R])> {
        self.x.iter().zip(&self.h)
    }

    /// Of each run, `Σ h (x - s q + m)²` with the codes `q` that suit best.
    #[inline(always)]
    pub(super) fn errors(&self, s: &[f32; R], m: &[f32; R], lo: f32, hi: f32) -> [f32; R] {
        let inverse = s.map(inverse);
        let mut errors = [0.0; R];
        for (x, h) in self.iter() {
            for r in 0..R {
                let x = x[r] + m[r];
                let rest = x - s[r] * code(x * inverse[r], lo, hi);
                errors[r] += h[r] * rest * rest;
            }
        }
        errors
    }
}

/// Scales, and how much the error grows with the square of a deviation from each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales<const R: usize> {
    pub(super) scale: [f32; R],
    pub(super) curvature: [f32; R],
}

/// Attempts at one scale: how far the largest weight is mapped beyond an end of the codes.
const TENTHS: usize = 19;

/// The scale `s` of codes `lo..=hi` with the least `Σ h (x - s q)²` that the search finds, of each run;
/// of either sign, since `lo` and `hi` differ. Zero where nothing can be gained.
///
/// The largest weight is put at every tenth of a code around either end; the codes that follow have
/// a best scale in closed form. Then codes and scale are alternated. ggml tries one half of this
/// (`make_qx_quants`).
#[inline(always)]
pub(super) fn scales<const N: usize, const R: usize>(runs: &Runs<N, R>, lo: f32, hi: f32) -> Scales<R> {
    let mut largest = [0.0_f32; R];
    for x in &runs.x {
        for r in 0..R {
            largest[r] = if x[r].abs() > largest[r].abs() { x[r] } else { largest[r] };
        }
    }
    let mut saved = [0.0_f32; R];
    let mut best = Scales { scale: [0.0; R], curvature: [0.0; R] };
    // With these codes, the best scale saves (Σ h x q)² / Σ h q² of the error without any.
    let mut attempt = |inverse: [f32; R], best: &mut Scales<R>| {
        let (mut hxq, mut hqq) = ([0.0_f32; R], [0.0_f32; R]);
        for (x, h) in runs.iter() {
            for r in 0..R {
                let q = code(x[r] * inverse[r], lo, hi);
                let hq = h[r] * q;
                hxq[r] += hq * x[r];
                hqq[r] += hq * q;
            }
        }
        let mut gained = false;
        for r in 0..R {
            let scale = hxq[r] / hqq[r];
            let better = hxq[r] * scale > saved[r];
            saved[r] = if better { hxq[r] * scale } else { saved[r] };
            best.scale[r] = if better { scale } else { best.scale[r] };
            best.curvature[r] = if better { hqq[r] } else { best.curvature[r] };
            gained |= better;
        }
        gained
    };
    for end in [lo, hi] {
        for tenth in 0..TENTHS {
            let wished = end + 0.1 * (tenth as f32 - 9.0);
            attempt(largest.map(|largest| wished * inverse(largest)), &mut best);
        }
    }
    for _ in 0..3 {
        if !attempt(best.scale.map(inverse), &mut best) {
            break;
        }
    }
    best
}

/// The same for a single run, attempts side by side.
#[inline(always)]
pub(super) fn scale<const N: usize>(x: &[f32; N], h: &[f32; N], lo: f32, hi: f32) -> f32 {
    const SIDE: usize = 8;
    let largest = x.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest });
    if largest == 0.0 {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    let attempts = |inverses: [f32; SIDE], best: &mut (f32, f32)| {
        let (mut hxq, mut hqq) = ([0.0_f32; SIDE], [0.0_f32; SIDE]);
        for (&x, &h) in x.iter().zip(h) {
            for r in 0..SIDE {
                let q = code(x * inverses[r], lo, hi);
                let hq = h * q;
                hxq[r] += hq * x;
                hqq[r] += hq * q;
            }
        }
        let before = best.0;
        for r in 0..SIDE {
            let scale = hxq[r] / hqq[r];
            let saved = hxq[r] * scale;
            if saved > best.0 {
                *best = (saved, scale);
            }
        }
        best.0 > before
    };
    let wished = |place: usize| {
        let end = if place < TENTHS { lo } else { hi };
        (end + 0.1 * ((place % TENTHS) as f32 - 9.0)) / largest
    };
    let n_attempts: usize = 2 * TENTHS;
    for first in (0..n_attempts).step_by(SIDE) {
        attempts(std::array::from_fn(|r| wished((first + r).min(n_attempts - 1))), &mut best);
    }
    for _ in 0..3 {
        if best.1 == 0.0 || !attempts([1.0 / best.1; SIDE], &mut best) {
            break;
        }
    }
    best.1
}

/// `x ≈ scale * q - offset`, and the second derivatives of the error: `Σ h q²`, `Σ h q`, `Σ h`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affines<const R: usize> {
    pub(super) scale: [f32; R],
    pub(super) offset: [f32; R],
    pub(super) hqq: [f32; R],
    pub(super) hq: [f32; R],
    pub(super) h: [f32; R],
}

/// The scale and offset, neither negative, of codes `0..=top` with the least error that the search
/// finds, of each run.
///
/// The range of the weights is mapped to a little less and a little more than the codes; for the
/// codes that follow, scale and offset are a linear regression. Then both are alternated. As
/// ggml's `make_qkx3_quants`, which does not alternate.
#[inline(always)]
pub(super) fn affines<const N: usize, const R: usize>(runs: &Runs<N, R>, top: f32) -> Affines<R> {
    let (mut least, mut most) = ([0.0_f32; R], [f32::MIN; R]);
    let (mut sum_h, mut hx, mut hxx) = ([0.0_f32; R], [0.0_f32; R], [0.0_f32; R]);
    for (x, h) in runs.iter() {
        for r in 0..R {
            least[r] = if x[r] < least[r] { x[r] } else { least[r] };
            most[r] = if x[r] > most[r] { x[r] } else { most[r] };
            sum_h[r] += h[r];
            hx[r] += h[r] * x[r];
            hxx[r] += h[r] * x[r] * x[r];
        }
    }
    // Without codes: the weights are their mean, if it is negative, or zero.
    let flat: [f32; R] = std::array::from_fn(|r| (-hx[r] / sum_h[r]).max(0.0));
    let mut error: [f32; R] = std::array::from_fn(|r| hxx[r] - flat[r] * flat[r] * sum_h[r]);
    let mut best = Affines { scale: [0.0; R], offset: flat, hqq: [0.0; R], hq: [0.0; R], h: sum_h };
    let mut attempt = |inverse: [f32; R], shift: [f32; R], best: &mut Affines<R>| {
        let (mut hq, mut hqq, mut hxq) = ([0.0_f32; R], [0.0_f32; R], [0.0_f32; R]);
        for (x, h) in runs.iter() {
            for r in 0..R {
                let q = code((x[r] + shift[r]) * inverse[r], 0.0, top);
                let weighted = h[r] * q;
                hq[r] += weighted;
                hqq[r] += weighted * q;
                hxq[r] += weighted * x[r];
            }
        }
        let mut gained = false;
        for r in 0..R {
            let determinant = sum_h[r] * hqq[r] - hq[r] * hq[r];
            let joint = (hq[r] * hxq[r] - hqq[r] * hx[r]) / determinant;
            let sloped = (sum_h[r] * hxq[r] - hx[r] * hq[r]) / determinant;
            let offset = if joint < 0.0 { 0.0 } else { joint };
            let scale = if joint < 0.0 { hxq[r] / hqq[r] } else { sloped };
            let found = hxx[r] - 2.0 * (scale * hxq[r] - offset * hx[r])
                + scale * (scale * hqq[r] - 2.0 * offset * hq[r])
                + offset * offset * sum_h[r];
            let better = (determinant > 0.0) & (scale > 0.0) & (found < error[r]);
            error[r] = if better { found } else { error[r] };
            best.scale[r] = if better { scale } else { best.scale[r] };
            best.offset[r] = if better { offset } else { best.offset[r] };
            best.hqq[r] = if better { hqq[r] } else { best.hqq[r] };
            best.hq[r] = if better { hq[r] } else { best.hq[r] };
            gained |= better;
        }
        gained
    };
    let range: [f32; R] = std::array::from_fn(|r| inverse(most[r] - least[r]));
    let shift = least.map(|least| -least);
    for step in 0_u8..=36 {
        let wished = top - 0.9 + 0.05 * f32::from(step);
        attempt(range.map(|range| wished * range), shift, &mut best);
    }
    for _ in 0..3 {
        let (inverse, offset) = (best.scale.map(inverse), best.offset);
        if !attempt(inverse, offset, &mut best) {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_to_even_and_stay_in_range() {
        let cases = [(0.5, "0"), (1.5, "2"), (-7.6, "-8"), (-9.0, "-8"), (7.4, "7"), (1e30, "7")];
        for (value, expected) in cases {
            assert_eq!(code(value, -8.0, 7.0).to_string(), expected, "{value}");
        }
    }

    #[test]
    fn points_of_a_grid_are_found_again() {
        let q: [f32; 16] = std::array::from_fn(|i| ((i * 5) % 16) as f32 - 8.0);
        let h = [1.0; 16];
        for s in [0.37_f32, -0.37] {
            let x = q.map(|q| s * q);
            let found = scale(&x, &h, -8.0, 7.0);
            assert!((found - s).abs() < 1e-6, "{found}");
            let found = scales(&Runs::<16, 1>::new(&x, &h), -8.0, 7.0).scale[0];
            assert!((found - s).abs() < 1e-6, "{found}");
        }
        let x = q.map(|q| 0.2 * (q + 8.0) - 1.3);
        let found = affines(&Runs::<16, 1>::new(&x, &h), 15.0);
        assert!((found.scale[0] - 0.2).abs() < 1e-5 && (found.offset[0] - 1.3).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn runs_without_a_range_need_no_scale() {
        let h = [1.0; 16];
        assert!(scale(&[0.0; 16], &h, -8.0, 7.0) == 0.0);
        let found = affines(&Runs::<16, 1>::new(&[-0.5; 16], &h), 15.0);
        assert!((found.scale[0] * 0.0 - found.offset[0] + 0.5).abs() < 1e-6, "{found:?}");
        let found = affines(&Runs::<16, 1>::new(&[0.0; 16], &h), 3.0);
        assert!(found.scale[0] == 0.0 && found.offset[0] == 0.0);
    }
}
