//! Blocks of 32 weights with one scale: `Q4_0`, `Q5_0` and `Q8_0`.

use half::f16;

use super::fit::{code, scale, sums};

/// Weights of a block.
pub(in crate::codec) const BLOCK: usize = 32;

/// The scale, a 16-bit float, and the codes `lo..=hi` of a block with the least error found; `None` if
/// the scale would be beyond 16 bits.
pub(in crate::codec) fn search(x: &[f32], h: &[f32], lo: f32, hi: f32) -> Option<(f16, [f32; BLOCK])> {
    let fit = scale(x, h, lo, hi).scale;
    let error = |d: f16| {
        let d = d.to_f32();
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let [error] = sums(x, h, |x, h| {
            let rest = x - d * code(x * inverse, lo, hi);
            [h * rest * rest]
        });
        error
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
    let inverse = if d == f16::ZERO { 0.0 } else { 1.0 / d.to_f32() };
    Some((d, std::array::from_fn(|i| code(x[i] * inverse, lo, hi))))
}
