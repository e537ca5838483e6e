//! Blocks of 32 weights with one scale: `Q4_0`, `Q5_0` and `Q8_0`.

use half::f16;

use super::fit::{code, inverse, scale, total};

/// Weights of a block.
pub(super) const BLOCK: usize = 32;

/// The scale, a 16-bit float, and the codes `lo..=hi` of a block with the least error found; `None` if
/// the scale would be beyond 16 bits.
#[inline(always)]
#[expect(clippy::inline_always, reason = "what a wider instruction set compiles must be inlined into it")]
pub(super) fn search(x: &[f32], h: &[f32], lo: f32, hi: f32) -> Option<(f16, [f32; BLOCK])> {
    let (x, h): (&[f32; BLOCK], &[f32; BLOCK]) = (x.try_into().ok()?, h.try_into().ok()?);
    let fit = scale(x, h, lo, hi);
    let error = |d: f16| {
        let d = d.to_f32();
        let inverse = inverse(d);
        let errors: [f32; BLOCK] = std::array::from_fn(|i| {
            let rest = x[i] - d * code(x[i] * inverse, lo, hi);
            h[i] * rest * rest
        });
        total(errors)
    };
    // The scale that fits best need not round to the 16-bit scale that does: its codes change.
    let nearest = f16::from_f32(fit);
    let around =
        [nearest, f16::from_bits(nearest.to_bits() + 1), f16::from_bits(nearest.to_bits().max(1) - 1)];
    let mut best = None;
    for d in around.into_iter().chain([f16::ZERO]) {
        let error = error(d);
        if d.is_finite() && error.is_finite() && best.is_none_or(|(least, _)| error < least) {
            best = Some((error, d));
        }
    }
    let (_, d) = best.filter(|_| nearest.is_finite())?;
    let inverse = inverse(d.to_f32());
    Some((d, std::array::from_fn(|i| code(x[i] * inverse, lo, hi))))
}
