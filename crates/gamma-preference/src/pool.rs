//! What many modules have in common tells more about one of them than a noisy measurement does.

/// A measured value, or one that was drawn towards the others, and its variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) variance: f64,
}

/// Draws measurements of similar things towards their common mean, each as far as it is less certain
/// than the things differ (empirical Bayes for normal means, Efron & Morris 1973).
///
pub(crate) fn pool(measured: &[Measured]) -> Vec<Measured> {
    if measured.len() < 3 {
        return measured.to_vec(); // a common mean of two says little about either
    }
    let between = between(measured);
    let centre = mean(measured, between);
    let draw = |x: &Measured| {
        let own = between / (between + x.variance);
        Measured { value: centre + own * (x.value - centre), variance: own * x.variance }
    };
    measured.iter().map(draw).collect()
}

/// The variance between things of which each was measured: the one at which the weighted squares of
/// the deviations are as large as expected (Paule & Mandel 1982); nearly 0 if the noise alone
/// explains them, or of fewer than two.
pub(crate) fn between(measured: &[Measured]) -> f64 {
    let free = measured.len().saturating_sub(1) as f64;
    let excess = |between: f64| {
        let centre = mean(measured, between);
        let square = |x: &Measured| (x.value - centre).powi(2) / (x.variance + between);
        measured.iter().map(square).sum::<f64>() - free
    };
    let smallest = measured.iter().map(|x| x.value.abs()).fold(0.0, f64::max).powi(2) * 1e-12;
    let (mut low, mut high) = (smallest.max(f64::MIN_POSITIVE), smallest.max(f64::MIN_POSITIVE));
    if excess(low) > 0.0 {
        // The excess falls as the variance between things rises.
        while excess(high) > 0.0 && high < 1e300 {
            high *= 4.0;
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if excess(middle) > 0.0 { low = middle } else { high = middle }
        }
    }
    high
}

/// The mean with each measurement weighted by its certainty.
fn mean(measured: &[Measured], between: f64) -> f64 {
    let weights = measured.iter().map(|x| 1.0 / (x.variance + between));
    let (sum, total) = weights.zip(measured).fold((0.0, 0.0), |(s, t), (w, x)| (s + w * x.value, t + w));
    sum / total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[f64], variance: f64) -> Vec<Measured> {
        values.iter().map(|&value| Measured { value, variance }).collect()
    }

    #[test]
    fn certain_measurements_stay_and_mere_noise_goes() {
        let values = [0.1, 0.2, 0.4, 0.3];
        for (found, value) in pool(&measured(&values, 1e-9)).iter().zip(values) {
            assert!((found.value - value).abs() < 1e-6, "{found:?}");
        }
        for found in pool(&measured(&values, 1.0)) {
            assert!((found.value - 0.25).abs() < 1e-6, "{found:?}");
            assert!(found.variance < 1e-6);
        }
        assert_eq!(pool(&measured(&values[..2], 1.0)), measured(&values[..2], 1.0));
    }

    #[test]
    fn the_less_certain_of_two_moves_further() {
        let mut values = measured(&[0.0, 1.0, 0.2, 0.8, 0.5, 0.0, 1.0], 1e-3);
        values[0].variance = 0.2;
        let found = pool(&values);
        assert!(found[0].value > 0.2 && found[5].value < 0.05, "{found:?}");
    }
}
