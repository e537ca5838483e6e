//! Blocks of 256 weights in runs with an integer scale and an integer offset each: `Q2_K`, `Q4_K` and
//! `Q5_K`.
#![expect(clippy::inline_always, reason = "what a wider instruction set compiles must be inlined into it")]
#![expect(clippy::needless_bitwise_bool, reason = "a branch would keep a loop from being vectorized")]

use half::f16;

use super::fit::{Affines, Runs, affines, code, inverse, total};

/// Weights of a block.
const BLOCK: usize = 256;
/// Most runs of a block.
pub(super) const MAX_RUNS: usize = 16;

/// `x ≈ d * scales[run] * codes - dmin * offsets[run]`.
#[derive(Clone, Debug)]
pub(super) struct Ranged {
    pub(super) d: f16,
    pub(super) dmin: f16,
    pub(super) scales: [u8; MAX_RUNS],
    pub(super) offsets: [u8; MAX_RUNS],
    pub(super) codes: [u8; BLOCK],
}

/// How a block is cut and how far its numbers go, all from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    /// The largest code.
    pub(super) code: f32,
    /// The largest scale and offset.
    pub(super) scale: f32,
}

/// The integers of a block, and its two floats.
#[derive(Clone, Copy, Debug)]
struct State<const R: usize> {
    d: f16,
    dmin: f16,
    scales: [f32; R],
    offsets: [f32; R],
}

struct Block<const N: usize, const R: usize> {
    runs: Runs<N, R>,
    ranges: Ranges,
    fits: Affines<R>,
}

/// The block of `R` runs of `N` weights with the least error that the search finds; `None` if a scale
/// would be beyond 16 bits.
///
/// Every run first gets the real scale and offset that suit it best. Near these, the error is a
/// quadratic form of both, so that many pairs of `d` and `dmin` can be compared without looking at the
/// weights; the best is then worked out with real codes, and `d` and `dmin` are fitted again to these.
#[inline(always)]
pub(super) fn search<const N: usize, const R: usize>(x: &[f32], h: &[f32], ranges: Ranges) -> Option<Ranged> {
    let runs = Runs::<N, R>::new(x, h);
    let fits = affines(&runs, ranges.code);
    let block = Block { runs, ranges, fits };
    let mut best = None;
    for state in block.starts() {
        block.refine(state, &mut best);
    }
    let (_, state): (f64, State<R>) = best?;
    let (d, dmin) = (state.d.to_f32(), state.dmin.to_f32());
    let inverses = state.scales.map(|scale| inverse(d * scale));
    let offsets = state.offsets.map(|offset| dmin * offset);
    let mut found = Ranged {
        d: state.d,
        dmin: state.dmin,
        scales: [0; MAX_RUNS],
        offsets: [0; MAX_RUNS],
        codes: [0; BLOCK],
    };
    for r in 0..R {
        (found.scales[r], found.offsets[r]) = (state.scales[r] as u8, state.offsets[r] as u8);
    }
    for (at, (place, &x)) in found.codes.iter_mut().zip(x).enumerate() {
        *place = code((x + offsets[at / N]) * inverses[at / N], 0.0, ranges.code) as u8;
    }
    Some(found)
}

/// Integer scales for a `d`, two for each run, and what the quadratic forms say of each.
struct Guess<const R: usize> {
    scale: [f32; R],
    /// The offset that goes with it.
    wished: [f32; R],
    /// The error is `square - 2 * joint * dm + h * dm²` at an offset that deviates by `dm`.
    square: [f32; R],
    joint: [f32; R],
}

impl<const N: usize, const R: usize> Block<N, R> {
    /// What to begin with: the plain choice, under which the largest scale and the largest offset get
    /// the largest integer, and the best pair by the quadratic forms.
    #[inline(always)]
    fn starts(&self) -> [State<R>; 2] {
        let most = |numbers: &[f32; R]| numbers.iter().copied().fold(0.0, f32::max);
        let (scale, offset) = (most(&self.fits.scale), most(&self.fits.offset));
        let top = self.ranges.scale;
        let plain = (f16::from_f32(scale / top), f16::from_f32(offset / top));
        let offsets: [f16; 13] =
            std::array::from_fn(|j| f16::from_f32(offset / (top * (1.1 - 0.05 * j as f32))));
        let mut best = (f32::INFINITY, plain);
        for i in 0_u8..=24 {
            let d = f16::from_f32(scale / (top * (1.1 - 0.025 * f32::from(i))));
            let guesses = self.guesses(d.to_f32());
            for dmin in offsets {
                let cost = self.cost(&guesses, dmin.to_f32());
                if cost < best.0 {
                    best = (cost, (d, dmin));
                }
            }
        }
        [plain, best.1].map(|(d, dmin)| self.integers(d, dmin))
    }

    /// The integers on either side of the scale that suits each run best.
    #[inline(always)]
    fn guesses(&self, d: f32) -> [Guess<R>; 2] {
        let (inverse, top, fits) = (inverse(d), self.ranges.scale, &self.fits);
        [0.0, 1.0].map(|above| {
            let mut guess = Guess { scale: [0.0; R], wished: [0.0; R], square: [0.0; R], joint: [0.0; R] };
            for r in 0..R {
                let near = fits.scale[r] * inverse;
                let rounded = code(near, 0.0, top + 1.0);
                let floor = if rounded > near { rounded - 1.0 } else { rounded };
                let scale = code(floor + above, 0.0, top);
                let ds = d * scale - fits.scale[r];
                guess.scale[r] = scale;
                // Codes that lie lower call for a smaller offset, in proportion to their mean.
                guess.wished[r] = fits.offset[r] + ds * fits.hq[r] / fits.h[r];
                guess.square[r] = ds * ds * fits.hqq[r];
                guess.joint[r] = ds * fits.hq[r];
            }
            guess
        })
    }

    /// The offset that goes with a guess, and the error that both add, in run `r`.
    #[inline(always)]
    fn offset(&self, guess: &Guess<R>, r: usize, dmin: f32, inverse: f32) -> (f32, f32) {
        let offset = code(guess.wished[r] * inverse, 0.0, self.ranges.scale);
        let dm = dmin * offset - self.fits.offset[r];
        (offset, guess.square[r] - 2.0 * guess.joint[r] * dm + dm * dm * self.fits.h[r])
    }

    /// The error that the better guess of each run adds.
    #[inline(always)]
    fn cost(&self, [below, above]: &[Guess<R>; 2], dmin: f32) -> f32 {
        let inverse = inverse(dmin);
        total(std::array::from_fn::<f32, R, _>(|r| {
            let (_, low) = self.offset(below, r, dmin, inverse);
            let (_, high) = self.offset(above, r, dmin, inverse);
            if high < low { high } else { low }
        }))
    }

    /// The best integers for `d` and `dmin` by the quadratic forms.
    #[inline(always)]
    fn integers(&self, d: f16, dmin: f16) -> State<R> {
        let [below, above] = self.guesses(d.to_f32());
        let (dmin32, inverse) = (dmin.to_f32(), inverse(dmin.to_f32()));
        let mut state = State { d, dmin, scales: [0.0; R], offsets: [0.0; R] };
        for r in 0..R {
            let (low, high) =
                (self.offset(&below, r, dmin32, inverse), self.offset(&above, r, dmin32, inverse));
            let better = high.1 < low.1;
            state.scales[r] = if better { above.scale[r] } else { below.scale[r] };
            state.offsets[r] = if better { high.0 } else { low.0 };
        }
        state
    }

    /// Works out the integers with real codes, and `d` and `dmin` for these, as long as that helps.
    #[inline(always)]
    fn refine(&self, start: State<R>, best: &mut Option<(f64, State<R>)>) {
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
    #[inline(always)]
    fn improve(&self, state: &mut State<R>) -> (f64, [f64; 5]) {
        let (d, dmin, top) = (state.d.to_f32(), state.dmin.to_f32(), self.ranges.scale);
        let (scales, offsets) = (state.scales, state.offsets);
        let mut least = [f32::INFINITY; R];
        for step in [0.0, -1.0, 1.0] {
            for shift in [0.0, -1.0, 1.0] {
                let s = scales.map(|scale| d * (scale + step));
                let m = offsets.map(|offset| dmin * (offset + shift));
                let errors = self.runs.errors(&s, &m, 0.0, self.ranges.code);
                for r in 0..R {
                    let (scale, offset) = (scales[r] + step, offsets[r] + shift);
                    let allowed = (scale >= 0.0) & (offset >= 0.0) & (scale <= top) & (offset <= top);
                    let better = allowed & (errors[r] < least[r]);
                    least[r] = if better { errors[r] } else { least[r] };
                    state.scales[r] = if better { scale } else { state.scales[r] };
                    state.offsets[r] = if better { offset } else { state.offsets[r] };
                }
            }
        }
        let inverse = state.scales.map(|scale| inverse(d * scale));
        let mut sums = [[0.0_f32; R]; 5];
        for (x, h) in self.runs.iter() {
            for r in 0..R {
                let (m, offset) = (dmin * state.offsets[r], state.offsets[r]);
                let u = state.scales[r] * code((x[r] + m) * inverse[r], 0.0, self.ranges.code);
                let hu = h[r] * u;
                sums[0][r] += hu * u;
                sums[1][r] -= hu * offset;
                sums[2][r] += h[r] * offset * offset;
                sums[3][r] += hu * x[r];
                sums[4][r] -= h[r] * x[r] * offset;
            }
        }
        let sum = |places: [f32; R]| places.into_iter().map(f64::from).sum::<f64>();
        (sum(least), sums.map(sum))
    }
}
