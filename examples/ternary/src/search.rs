//! The best ternary grid of one group.

use half::f16;

/// The 16-bit scale `s` that minimises `Σ h (w - s t)²` over all `s` and all `t` in -1, 0, 1, with
/// `h` the `importance` of each weight, not negative. `Err` holds a scale beyond 65504.
///
/// For a given `s` the best `t` is the sign of `w` where `|w| > s / 2`, and 0 elsewhere, so that the
/// `k` largest weights are the ones to keep, for some `k`. For a given `k` the error is a parabola
/// in `s` around the weighted mean of the `k` magnitudes, and its least value on a grid is at the
/// point next to that mean. Trying every `k` therefore finds the optimum, the rounding of the scale
/// included. Ternary weight networks (Li et al. 2016, arXiv 1605.04711) approximate it with a
/// threshold of `0.7 mean|w|`.
///
/// # Errors
/// The scale itself, where 16 bits cannot hold it.
///
/// # Panics
/// If there is not one importance per weight.
pub fn best_scale(w: &[f32], importance: &[f32]) -> Result<f16, f32> {
    assert_eq!(w.len(), importance.len(), "one importance per weight");
    let pairs = w.iter().zip(importance).map(|(w, &h)| (w.abs(), f64::from(h)));
    let mut largest_first: Vec<(f32, f64)> = pairs.collect();
    largest_first.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: the same order on every run
    let (mut sum, mut total) = (0.0, 0.0);
    let (mut best, mut best_saved) = (0.0, 0.0);
    for (size, h) in largest_first {
        sum += h * f64::from(size);
        total += h;
        let mean = (sum / total) as f32; // NaN while nothing has mattered, and then saves nothing
        let s = f64::from(f16::from_f32(mean.min(f16::MAX.to_f32())));
        // Against the error without any code, Σ h w²; NaN compares as no gain.
        let saved = s * (2.0 * sum - s * total);
        if saved > best_saved {
            (best, best_saved) = (mean, saved);
        }
    }
    let scale = f16::from_f32(best);
    if scale.is_finite() { Ok(scale) } else { Err(best) }
}

/// The point of -s, 0, s that lies next to `w`.
#[must_use]
pub fn nearest(w: f32, scale: f16) -> f32 {
    let s = scale.to_f32();
    if w.abs() > 0.5 * s { s.copysign(w) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(w: &[f32], h: &[f32], decoded: impl Fn(usize) -> f64) -> f64 {
        let term = |i: usize| f64::from(h[i]) * (f64::from(w[i]) - decoded(i)).powi(2);
        (0..w.len()).map(term).sum()
    }

    fn found(w: &[f32], h: &[f32]) -> f64 {
        let scale = best_scale(w, h).unwrap();
        loss(w, h, |i| f64::from(nearest(w[i], scale)))
    }

    /// Uniform in -1 to 1, from the top bits of a linear congruential generator.
    fn noise(state: &mut u64) -> f32 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    #[test]
    fn search_finds_the_optimum_over_all_codes_and_all_16_bit_scales() {
        let mut state = 1;
        for round in 0..12 {
            let mut draw = || noise(&mut state);
            let w: [f32; 5] = std::array::from_fn(|_| draw().powi(3));
            let h: [f32; 5] = std::array::from_fn(|i| if round < 4 { 1.0 } else { draw().abs() + i as f32 });
            let mut least = f64::INFINITY;
            // Every finite scale that is not negative, and for each of them the best codes.
            for bits in 0..f16::INFINITY.to_bits() {
                let s = f64::from(f16::from_bits(bits).to_f32());
                if s > 1.0 {
                    break; // no weight is larger
                }
                // Once the scale is given, codes do not depend on each other.
                let best_of_three = |i: usize| {
                    let errors = [-s, 0.0, s].map(|point| (f64::from(w[i]) - point).powi(2));
                    f64::from(h[i]) * errors.into_iter().fold(f64::INFINITY, f64::min)
                };
                least = least.min((0..5).map(best_of_three).sum());
            }
            let found = found(&w, &h);
            assert!((found - least).abs() <= 1e-6 * least, "{w:?}, {h:?}: {found} against {least}");
        }
    }

    #[test]
    fn search_is_never_worse_than_the_threshold_of_the_paper() {
        let mut state = 2;
        let mut gains = Vec::new();
        for _ in 0..200 {
            let w: Vec<f32> = (0..64).map(|_| (0..4).map(|_| noise(&mut state)).sum()).collect();
            let h = vec![1.0; w.len()];
            let threshold = 0.7 * w.iter().map(|w| w.abs()).sum::<f32>() / w.len() as f32;
            let kept: Vec<f32> = w.iter().map(|w| w.abs()).filter(|&size| size > threshold).collect();
            let s = kept.iter().sum::<f32>() / kept.len() as f32;
            let paper =
                loss(&w, &h, |i| if w[i].abs() > threshold { f64::from(s.copysign(w[i])) } else { 0.0 });
            // The paper's scale has 32 bits: rounding to 16 may cost a relative 2^-22 of the weights.
            gains.push(1.0 - found(&w, &h) / paper);
        }
        assert!(gains.iter().all(|&gain| gain > -1e-6), "{gains:?}");
        assert!(gains.iter().sum::<f64>() > 0.2, "the search gains {gains:?}");
    }

    #[test]
    fn small_groups_by_hand() {
        let scale = |w: &[f32], h: &[f32]| best_scale(w, h).map(f16::to_f32);
        // 1 alone leaves 0.25 + 0.01; 1 and 0.5 with their mean leave 0.125 + 0.01.
        assert_eq!(scale(&[1.0, -0.5, 0.1], &[1.0; 3]), Ok(0.75));
        // 1 alone leaves 0.09 + 0.01; 1 and 0.3 with their mean would leave 0.245 + 0.01.
        assert_eq!(scale(&[1.0, -0.3, 0.1], &[1.0; 3]), Ok(1.0));
        // The same where only the small weights matter.
        assert_eq!(scale(&[1.0, -0.5, 0.5], &[0.0, 1.0, 1.0]), Ok(0.5));
        assert_eq!(scale(&[0.0, -0.0], &[1.0; 2]), Ok(0.0));
        assert_eq!(scale(&[1e-12, -1e-12], &[1.0; 2]), Ok(0.0));
        assert_eq!(scale(&[70_000.0, 1.0], &[1.0; 2]), Err(70_000.0));
    }
}
