//! The best scale, or scale and offset, of one run of weights.
//!
//! `x` are weights and `h` how much each matters, both of a length that `LANES` divides. Errors are
//! `Σ h (x - x̂)²`. Sums run over fixed lanes, so that they are the same on every machine.

/// Partial sums that run side by side.
pub(super) const LANES: usize = 8;

/// `Σ term(x, h)` for several terms at once.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the closure must become part of the loop to be vectorized")]
pub(super) fn sums<const K: usize>(x: &[f32], h: &[f32], term: impl Fn(f32, f32) -> [f32; K]) -> [f32; K] {
    let mut lanes = [[0.0_f32; LANES]; K];
    for (x, h) in x.as_chunks::<LANES>().0.iter().zip(h.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            let terms = term(x[lane], h[lane]);
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[lane] += term;
            }
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}

/// The integer next to `value`, ties to even, within `lo` to `hi`, which lie within ±2^22.
#[inline]
pub(super) fn code(value: f32, lo: f32, hi: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves no bits for a fraction. Comparisons and not `clamp`, which keeps NaN and
    // takes more instructions for it.
    const SHIFT: f32 = 12_582_912.0;
    let value = if value > lo { value } else { lo };
    let value = if value < hi { value } else { hi };
    (value + SHIFT) - SHIFT
}

/// A scale, and how much the error grows with the square of a deviation from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scale {
    pub(super) scale: f32,
    pub(super) curvature: f32,
}

/// The scale `s` of codes `lo..=hi` with the least `Σ h (x - s q)²` that the search finds; of either
/// sign, since `lo` and `hi` differ. Zero where nothing can be gained.
///
/// The largest weight is put at every tenth of a code around either end; the codes that follow have
/// a best scale in closed form. Then codes and scale are alternated. ggml tries one half of this
/// (`make_qx_quants`).
pub(super) fn scale(x: &[f32], h: &[f32], lo: f32, hi: f32) -> Scale {
    let largest = x.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest });
    let mut best = (0.0, Scale::default());
    if largest == 0.0 {
        return best.1;
    }
    // With these codes, the best scale saves (Σ h x q)² / Σ h q² of the error without any.
    let attempt = |inverse: f32, best: &mut (f32, Scale)| {
        let [hxq, hqq] = sums(x, h, |x, h| {
            let q = code(x * inverse, lo, hi);
            [h * x * q, h * q * q]
        });
        let saved = hxq * (hxq / hqq);
        let better = saved > best.0;
        if better {
            *best = (saved, Scale { scale: hxq / hqq, curvature: hqq });
        }
        better
    };
    for end in [lo, hi] {
        for tenth in -9_i8..=9 {
            attempt((end + 0.1 * f32::from(tenth)) / largest, &mut best);
        }
    }
    for _ in 0..3 {
        let inverse = 1.0 / best.1.scale;
        if !attempt(inverse, &mut best) {
            break;
        }
    }
    best.1
}

/// `x ≈ scale * q - offset`, and the second derivatives of the error: `Σ h q²`, `Σ h q`, `Σ h`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) offset: f32,
    pub(super) hqq: f32,
    pub(super) hq: f32,
    pub(super) h: f32,
}

/// The scale and offset, neither negative, of codes `0..=top` with the least error that the search
/// finds.
///
/// The range of the weights is mapped to a little less and a little more than the codes; for the
/// codes that follow, scale and offset are a linear regression. Then both are alternated. As
/// ggml's `make_qkx3_quants`, which does not alternate.
pub(super) fn affine(x: &[f32], h: &[f32], top: f32) -> Affine {
    let (least, most) = x.iter().fold((0.0_f32, f32::MIN), |(lo, hi), &x| (lo.min(x), hi.max(x)));
    let [sum_h, hx, hxx] = sums(x, h, |x, h| [h, h * x, h * x * x]);
    // Without codes: the weights are their mean, if it is negative, or zero.
    let offset = (-hx / sum_h).max(0.0);
    let flat = Affine { scale: 0.0, offset, hqq: 0.0, hq: 0.0, h: sum_h };
    let mut best = (hxx - offset * offset * sum_h, flat);
    if most <= least {
        return best.1;
    }
    let attempt = |inverse: f32, offset: f32, best: &mut (f32, Affine)| {
        let [hq, hqq, hxq] = sums(x, h, |x, h| {
            let q = code((x + offset) * inverse, 0.0, top);
            [h * q, h * q * q, h * x * q]
        });
        let determinant = sum_h * hqq - hq * hq;
        if determinant <= 0.0 {
            return false;
        }
        let mut scale = (sum_h * hxq - hx * hq) / determinant;
        let mut offset = (hq * hxq - hqq * hx) / determinant;
        if offset < 0.0 {
            (scale, offset) = (hxq / hqq, 0.0);
        }
        let error = hxx - 2.0 * (scale * hxq - offset * hx)
            + scale * (scale * hqq - 2.0 * offset * hq)
            + offset * offset * sum_h;
        let better = scale > 0.0 && error < best.0;
        if better {
            *best = (error, Affine { scale, offset, hqq, hq, h: sum_h });
        }
        better
    };
    for step in 0_u8..=36 {
        attempt((top - 0.9 + 0.05 * f32::from(step)) / (most - least), -least, &mut best);
    }
    for _ in 0..3 {
        let Affine { scale, offset, .. } = best.1;
        if scale == 0.0 || !attempt(1.0 / scale, offset, &mut best) {
            break;
        }
    }
    best.1
}
