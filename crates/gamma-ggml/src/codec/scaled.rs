//! Blocks of 256 weights in 16 runs with an integer scale each: `Q3_K` and `Q6_K`.
#![expect(clippy::inline_always, reason = "what a wider instruction set compiles must be inlined into it")]
#![expect(clippy::needless_bitwise_bool, reason = "a branch would keep a loop from being vectorized")]

use half::f16;

use super::fit::{Runs, Scales, code, inverse, scales};

/// Runs of a block, and weights of a run.
pub(super) const RUNS: usize = 16;
const RUN: usize = 16;

/// `x ≈ d * scales[run] * codes`.
#[derive(Clone, Debug)]
pub(super) struct Scaled {
    pub(super) d: f16,
    pub(super) scales: [i8; RUNS],
    pub(super) codes: [i8; RUNS * RUN],
}

/// The ranges of codes and of scales.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    pub(super) codes: (f32, f32),
    pub(super) scales: (f32, f32),
}

/// The block with the least error that the search finds; `None` if its scale would be beyond 16 bits.
///
/// Every run first gets the real scale that suits it best. Near these, the error is a parabola in
/// every run's scale, so that many values of `d` can be compared without looking at the weights; the
/// best few are then worked out with real codes, and `d` is fitted again to these.
#[inline(always)]
pub(super) fn search(x: &[f32], h: &[f32], ranges: Ranges) -> Option<Scaled> {
    let runs = Runs::<RUN, RUNS>::new(x, h);
    let fits = scales(&runs, ranges.codes.0, ranges.codes.1);
    let largest = fits.scale.iter().fold(0.0, |a: f32, &b| if b.abs() > a.abs() { b } else { a });
    if largest == 0.0 {
        let finite = x.iter().all(|x| (x * x).is_finite());
        return finite.then_some(Scaled { d: f16::ZERO, scales: [0; RUNS], codes: [0; RUNS * RUN] });
    }
    let starts = starts(&fits, largest, ranges.scales);
    if starts.iter().all(|&start| !f16::from_f32(start).is_finite()) {
        return None;
    }
    // Weights too small for any scale are zeros.
    let nothing: f64 = runs.errors(&[0.0; RUNS], &[0.0; RUNS], 0.0, 0.0).into_iter().map(f64::from).sum();
    let mut best = nothing.is_finite().then_some((nothing, f16::ZERO, [0.0; RUNS]));
    for start in starts {
        refine(&runs, &fits, ranges, start, &mut best);
    }
    let (_, d, scales) = best?;
    let mut codes = [0; RUNS * RUN];
    let inverses = scales.map(|scale| inverse(d.to_f32() * scale));
    for (at, (place, &x)) in codes.iter_mut().zip(x).enumerate() {
        *place = code(x * inverses[at / RUN], ranges.codes.0, ranges.codes.1) as i8;
    }
    Some(Scaled { d, scales: scales.map(|scale| scale as i8), codes })
}

/// Values of `d` to begin with, from the parabolas: the best for either sign.
#[inline(always)]
fn starts(fits: &Scales<RUNS>, largest: f32, (lo, hi): (f32, f32)) -> [f32; 2] {
    [lo, hi].map(|end| {
        let mut best = (f64::INFINITY, largest / end);
        for step in 0_u8..=40 {
            let d = largest / (end * (1.1 - 0.0125 * f32::from(step)));
            let inverse = 1.0 / d;
            let costs: [f32; RUNS] = std::array::from_fn(|r| {
                let rest = fits.scale[r] - d * code(fits.scale[r] * inverse, lo, hi);
                fits.curvature[r] * rest * rest
            });
            let cost = costs.into_iter().map(f64::from).sum();
            if cost < best.0 {
                best = (cost, d);
            }
        }
        best.1
    })
}

/// Works out `d` with real codes, as long as that helps.
#[inline(always)]
fn refine(
    runs: &Runs<RUN, RUNS>,
    fits: &Scales<RUNS>,
    ranges: Ranges,
    start: f32,
    best: &mut Option<(f64, f16, [f32; RUNS])>,
) {
    let (lo, hi) = ranges.codes;
    let mut d = start;
    let mut former = f16::ZERO;
    for _ in 0..4 {
        let stored = f16::from_f32(d);
        // With the same `d`, everything would be the same again.
        if !stored.is_finite() || stored == f16::ZERO || stored == former {
            return;
        }
        former = stored;
        let d16 = stored.to_f32();
        let (mut least, mut scales) = ([f32::INFINITY; RUNS], [0.0_f32; RUNS]);
        let (mut hxu, mut huu) = ([0.0_f32; RUNS], [0.0_f32; RUNS]);
        for step in [0.0, -1.0, 1.0] {
            let tried: [f32; RUNS] =
                std::array::from_fn(|r| code(fits.scale[r] / d16, ranges.scales.0, ranges.scales.1) + step);
            let s = tried.map(|scale| d16 * scale);
            let inverse = s.map(inverse);
            let (mut errors, mut hxq, mut hqq) = ([0.0_f32; RUNS], [0.0_f32; RUNS], [0.0_f32; RUNS]);
            for (x, h) in runs.iter() {
                for r in 0..RUNS {
                    let q = code(x[r] * inverse[r], lo, hi);
                    let rest = x[r] - s[r] * q;
                    let hq = h[r] * q;
                    errors[r] += h[r] * rest * rest;
                    hxq[r] += hq * x[r];
                    hqq[r] += hq * q;
                }
            }
            for r in 0..RUNS {
                let allowed = (tried[r] >= ranges.scales.0) & (tried[r] <= ranges.scales.1);
                let better = allowed & (errors[r] < least[r]);
                least[r] = if better { errors[r] } else { least[r] };
                scales[r] = if better { tried[r] } else { scales[r] };
                hxu[r] = if better { hxq[r] * tried[r] } else { hxu[r] };
                huu[r] = if better { hqq[r] * tried[r] * tried[r] } else { huu[r] };
            }
        }
        let sum = |places: [f32; RUNS]| places.into_iter().map(f64::from).sum::<f64>();
        let error = sum(least);
        if !error.is_finite() || best.is_some_and(|(least, ..)| error >= least) {
            return;
        }
        *best = Some((error, stored, scales));
        d = (sum(hxu) / sum(huu)) as f32;
    }
}
