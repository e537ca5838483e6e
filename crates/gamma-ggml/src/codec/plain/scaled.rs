//! Blocks of 256 weights in 16 runs with an integer scale each: `Q3_K` and `Q6_K`.

use half::f16;

use super::fit::{Scale, code, scale, sums};

/// Runs of a block, and weights of a run.
pub(in crate::codec) const RUNS: usize = 16;
const RUN: usize = 16;

/// `x ≈ d * scales[run] * codes`.
#[derive(Clone, Debug)]
pub(in crate::codec) struct Scaled {
    pub(in crate::codec) d: f16,
    pub(in crate::codec) scales: [i8; RUNS],
    pub(in crate::codec) codes: [i8; RUNS * RUN],
}

/// The ranges of codes and of scales.
#[derive(Clone, Copy, Debug)]
pub(in crate::codec) struct Ranges {
    pub(in crate::codec) codes: (f32, f32),
    pub(in crate::codec) scales: (f32, f32),
}

/// The block with the least error that the search finds; `None` if its scale would be beyond 16 bits.
///
/// Every run first gets the real scale that suits it best. Near these, the error is a parabola in
/// every run's scale, so that many values of `d` can be compared without looking at the weights; the
/// best few are then worked out with real codes, and `d` is fitted again to these.
pub(in crate::codec) fn search(x: &[f32], h: &[f32], ranges: Ranges) -> Option<Scaled> {
    let run = |i: usize| (&x[i * RUN..][..RUN], &h[i * RUN..][..RUN]);
    let fits: [Scale; RUNS] = std::array::from_fn(|i| {
        let (x, h) = run(i);
        scale(x, h, ranges.codes.0, ranges.codes.1)
    });
    let largest =
        fits.iter().map(|fit| fit.scale).fold(0.0, |a: f32, b| if b.abs() > a.abs() { b } else { a });
    if largest == 0.0 {
        let finite = x.iter().all(|x| (x * x).is_finite());
        return finite.then_some(Scaled { d: f16::ZERO, scales: [0; RUNS], codes: [0; RUNS * RUN] });
    }
    let starts = starts(&fits, largest, ranges.scales);
    if starts.iter().all(|&start| !f16::from_f32(start).is_finite()) {
        return None;
    }
    // Weights too small for any scale are zeros.
    let [nothing] = sums(x, h, |x, h| [h * x * x]);
    let mut best = nothing.is_finite().then_some((f64::from(nothing), f16::ZERO, [0.0; RUNS]));
    for start in starts {
        refine(&run, &fits, ranges, start, &mut best);
    }
    let (_, d, scales) = best?;
    let mut codes = [0; RUNS * RUN];
    for (i, codes) in codes.chunks_exact_mut(RUN).enumerate() {
        let inverse = inverse(d.to_f32() * scales[i]);
        for (place, &x) in codes.iter_mut().zip(run(i).0) {
            *place = code(x * inverse, ranges.codes.0, ranges.codes.1) as i8;
        }
    }
    Some(Scaled { d, scales: scales.map(|scale| scale as i8), codes })
}

/// Values of `d` to begin with, from the parabolas: the best for either sign.
fn starts(fits: &[Scale; RUNS], largest: f32, (lo, hi): (f32, f32)) -> [f32; 2] {
    [lo, hi].map(|end| {
        let mut best = (f64::INFINITY, largest / end);
        for step in 0_u8..=40 {
            let d = largest / (end * (1.1 - 0.0125 * f32::from(step)));
            let cost = fits.iter().map(|fit| {
                let rest = fit.scale - d * code(fit.scale / d, lo, hi);
                f64::from(fit.curvature) * f64::from(rest) * f64::from(rest)
            });
            let cost = cost.sum();
            if cost < best.0 {
                best = (cost, d);
            }
        }
        best.1
    })
}

/// Works out `d` with real codes, as long as that helps.
fn refine<'a>(
    run: &impl Fn(usize) -> (&'a [f32], &'a [f32]),
    fits: &[Scale; RUNS],
    ranges: Ranges,
    start: f32,
    best: &mut Option<(f64, f16, [f32; RUNS])>,
) {
    let (lo, hi) = ranges.codes;
    let mut d = start;
    for _ in 0..4 {
        let stored = f16::from_f32(d);
        if !stored.is_finite() || stored == f16::ZERO {
            return;
        }
        let d16 = stored.to_f32();
        let (mut error, mut hxu, mut huu) = (0.0_f64, 0.0_f64, 0.0_f64);
        let mut scales = [0.0; RUNS];
        for (i, place) in scales.iter_mut().enumerate() {
            let (x, h) = run(i);
            let middle = code(fits[i].scale / d16, ranges.scales.0, ranges.scales.1);
            let mut least = (f32::INFINITY, middle, [0.0; 2]);
            for scale in [middle, middle - 1.0, middle + 1.0] {
                if scale < ranges.scales.0 || scale > ranges.scales.1 {
                    continue;
                }
                let s = d16 * scale;
                let inverse = inverse(s);
                let [error, hxq, hqq] = sums(x, h, |x, h| {
                    let q = code(x * inverse, lo, hi);
                    let rest = x - s * q;
                    [h * rest * rest, h * x * q, h * q * q]
                });
                if error < least.0 {
                    least = (error, scale, [hxq * scale, hqq * scale * scale]);
                }
            }
            *place = least.1;
            error += f64::from(least.0);
            hxu += f64::from(least.2[0]);
            huu += f64::from(least.2[1]);
        }
        if !error.is_finite() || best.is_some_and(|(least, ..)| error >= least) {
            return;
        }
        *best = Some((error, stored, scales));
        d = (hxu / huu) as f32;
    }
}

fn inverse(s: f32) -> f32 {
    if s == 0.0 { 0.0 } else { 1.0 / s }
}
