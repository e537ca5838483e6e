//! Blocks of 256 weights in runs with an integer scale and an integer offset each: `Q2_K`, `Q4_K` and
//! `Q5_K`.

use half::f16;

use super::fit::{Affine, affine, code, sums};

/// Weights of a block.
const BLOCK: usize = 256;
/// Most runs of a block.
pub(in crate::codec) const MAX_RUNS: usize = 16;

/// `x ≈ d * scales[run] * codes - dmin * offsets[run]`.
#[derive(Clone, Debug)]
pub(in crate::codec) struct Ranged {
    pub(in crate::codec) d: f16,
    pub(in crate::codec) dmin: f16,
    pub(in crate::codec) scales: [u8; MAX_RUNS],
    pub(in crate::codec) offsets: [u8; MAX_RUNS],
    pub(in crate::codec) codes: [u8; BLOCK],
}

/// How a block is cut and how far its numbers go, all from 0.
#[derive(Clone, Copy, Debug)]
pub(in crate::codec) struct Ranges {
    /// Weights of a run.
    pub(in crate::codec) run: usize,
    /// The largest code.
    pub(in crate::codec) code: f32,
    /// The largest scale and offset.
    pub(in crate::codec) scale: f32,
}

/// The integers of a block, and its two floats.
#[derive(Clone, Copy, Debug)]
struct State {
    d: f16,
    dmin: f16,
    scales: [f32; MAX_RUNS],
    offsets: [f32; MAX_RUNS],
}

struct Block<'a> {
    x: &'a [f32],
    h: &'a [f32],
    ranges: Ranges,
    fits: [Affine; MAX_RUNS],
    runs: usize,
}

/// The block with the least error that the search finds; `None` if a scale would be beyond 16 bits.
///
/// Every run first gets the real scale and offset that suit it best. Near these, the error is a
/// quadratic form of both, so that many pairs of `d` and `dmin` can be compared without looking at the
/// weights; the best is then worked out with real codes, and `d` and `dmin` are fitted again to these.
pub(in crate::codec) fn search(x: &[f32], h: &[f32], ranges: Ranges) -> Option<Ranged> {
    let runs = BLOCK / ranges.run;
    let mut fits = [Affine::default(); MAX_RUNS];
    for (fit, (x, h)) in fits.iter_mut().zip(x.chunks_exact(ranges.run).zip(h.chunks_exact(ranges.run))) {
        *fit = affine(x, h, ranges.code);
    }
    let block = Block { x, h, ranges, fits, runs };
    let mut best = None;
    for state in block.starts() {
        block.refine(state, &mut best);
    }
    let (_, state) = best?;
    Some(block.finish(&state))
}

impl Block<'_> {
    fn run(&self, i: usize) -> (&[f32], &[f32]) {
        let n = self.ranges.run;
        (&self.x[i * n..][..n], &self.h[i * n..][..n])
    }

    /// What to begin with: the plain choice, under which the largest scale and the largest offset get
    /// the largest integer, and the best pair by the quadratic forms.
    fn starts(&self) -> [State; 2] {
        let most = |number: fn(&Affine) -> f32| self.fits.iter().map(number).fold(0.0, f32::max);
        let (scale, offset) = (most(|fit| fit.scale), most(|fit| fit.offset));
        let top = self.ranges.scale;
        let plain = self.integers(scale / top, offset / top).1;
        let mut best = (f64::INFINITY, plain);
        for i in 0_u8..=24 {
            let d = scale / (top * (1.1 - 0.025 * f32::from(i)));
            for j in 0_u8..=12 {
                let dmin = offset / (top * (1.1 - 0.05 * f32::from(j)));
                let (cost, state) = self.integers(d, dmin);
                if cost < best.0 {
                    best = (cost, state);
                }
            }
        }
        [plain, best.1]
    }

    /// The best integers for `d` and `dmin` by the quadratic forms, and the error that they add.
    fn integers(&self, d: f32, dmin: f32) -> (f64, State) {
        let (d, dmin) = (f16::from_f32(d), f16::from_f32(dmin));
        let (d32, dmin32) = (d.to_f32(), dmin.to_f32());
        let (inverse, inverse_min, top) = (inverse(d32), inverse(dmin32), self.ranges.scale);
        let mut state = State { d, dmin, scales: [0.0; MAX_RUNS], offsets: [0.0; MAX_RUNS] };
        let mut total = 0.0;
        for (i, fit) in self.fits[..self.runs].iter().enumerate() {
            let near = fit.scale * inverse;
            let mut best = f32::INFINITY;
            for scale in [near.floor(), near.floor() + 1.0] {
                let scale = code(scale, 0.0, top);
                let ds = d32 * scale - fit.scale;
                // Codes that lie lower call for a smaller offset, in proportion to their mean.
                let wished = fit.offset + ds * fit.hq / fit.h;
                let offset = code(wished * inverse_min, 0.0, top);
                let dm = dmin32 * offset - fit.offset;
                let cost = ds * (ds * fit.hqq - 2.0 * dm * fit.hq) + dm * dm * fit.h;
                if cost < best {
                    best = cost;
                    (state.scales[i], state.offsets[i]) = (scale, offset);
                }
            }
            total += f64::from(best);
        }
        (total, state)
    }

    /// Works out the integers with real codes, and `d` and `dmin` for these, as long as that helps.
    fn refine(&self, start: State, best: &mut Option<(f64, State)>) {
        let mut state = start;
        for _ in 0..4 {
            if !state.d.is_finite() || !state.dmin.is_finite() {
                return;
            }
            let (error, [huu, huv, hvv, hxu, hxv]) = self.improve(&mut state);
            if !error.is_finite() || best.is_some_and(|(least, _)| error >= least) {
                return;
            }
            *best = Some((error, state));
            // x ≈ d u + dmin v with u = scale * code and v = -offset.
            let determinant = huu * hvv - huv * huv;
            let (d, dmin) = if determinant > 1e-9 * huu * hvv {
                ((hvv * hxu - huv * hxv) / determinant, (huu * hxv - huv * hxu) / determinant)
            } else if huu > 0.0 {
                (hxu / huu, f64::from(state.dmin.to_f32()))
            } else {
                return;
            };
            if d <= 0.0 || dmin < 0.0 {
                return;
            }
            (state.d, state.dmin) = (f16::from_f64(d), f16::from_f64(dmin));
        }
    }

    /// Moves every run to the best integers next to its own. Returns the error and the sums
    /// `Σ h u²`, `Σ h u v`, `Σ h v²`, `Σ h x u`, `Σ h x v` that fit `d` and `dmin`.
    fn improve(&self, state: &mut State) -> (f64, [f64; 5]) {
        let (d, dmin, top) = (state.d.to_f32(), state.dmin.to_f32(), self.ranges.scale);
        let (mut total, mut fit) = (0.0_f64, [0.0_f64; 5]);
        for i in 0..self.runs {
            let (x, h) = self.run(i);
            let (scale, offset) = (state.scales[i], state.offsets[i]);
            let mut least = (f32::INFINITY, [0.0; 5]);
            for scale in [scale, scale - 1.0, scale + 1.0] {
                for offset in [offset, offset - 1.0, offset + 1.0] {
                    if scale < 0.0 || offset < 0.0 || scale > top || offset > top {
                        continue;
                    }
                    let (s, m) = (d * scale, dmin * offset);
                    let inverse = inverse(s);
                    let [error] = sums(x, h, |x, h| {
                        let rest = x + m - s * code((x + m) * inverse, 0.0, self.ranges.code);
                        [h * rest * rest]
                    });
                    if error < least.0 {
                        (state.scales[i], state.offsets[i]) = (scale, offset);
                        least.0 = error;
                    }
                }
            }
            let (scale, offset) = (state.scales[i], state.offsets[i]);
            let (s, m) = (d * scale, dmin * offset);
            let inverse = inverse(s);
            least.1 = sums(x, h, |x, h| {
                let u = scale * code((x + m) * inverse, 0.0, self.ranges.code);
                [h * u * u, -h * u * offset, h * offset * offset, h * x * u, -h * x * offset]
            });
            total += f64::from(least.0);
            fit.iter_mut().zip(least.1).for_each(|(sum, term)| *sum += f64::from(term));
        }
        (total, fit)
    }

    fn finish(&self, state: &State) -> Ranged {
        let mut codes = [0; BLOCK];
        for (i, codes) in codes.chunks_exact_mut(self.ranges.run).enumerate() {
            let (s, m) = (state.d.to_f32() * state.scales[i], state.dmin.to_f32() * state.offsets[i]);
            let inverse = inverse(s);
            for (place, &x) in codes.iter_mut().zip(self.run(i).0) {
                *place = code((x + m) * inverse, 0.0, self.ranges.code) as u8;
            }
        }
        let [scales, offsets] = [state.scales, state.offsets].map(|numbers| numbers.map(|n| n as u8));
        Ranged { d: state.d, dmin: state.dmin, scales, offsets, codes }
    }
}

fn inverse(s: f32) -> f32 {
    if s == 0.0 { 0.0 } else { 1.0 / s }
}
