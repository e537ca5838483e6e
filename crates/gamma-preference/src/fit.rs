//! From noisy measurements of many options to a cost for each: what is known exactly of their shape,
//! what modules have in common, and of each option what its own measurements support.

use crate::{
    observe::Estimate,
    pool::{Measured, between},
};

/// What the options of all modules have in common, and what is measured of them.
pub(crate) struct Evidence<'a> {
    /// Module by module and option by option, what costs are thought to be in proportion to.
    pub(crate) shapes: &'a [Vec<f64>],
    /// Which options are of one kind: the same number, from 0 on, for the same format.
    pub(crate) kinds: &'a [Vec<usize>],
    /// Likewise, what was measured.
    pub(crate) seen: &'a [Vec<Option<Estimate>>],
}

/// Standard deviation of the factor of a kind relative to that of the next narrower one: both are the
/// same where costs are in proportion to squared errors, and they nearly are.
const KIND: f64 = 0.3;

/// Variance, relative to their size, by which the options of one kind differ between modules at the least:
/// around their shapes, and around a table of costs already. Where the noise of single measurements is
/// large, an estimate of this variance is often 0, and would take away what modules clearly say
/// (Chung, Rabe-Hesketh, Dorie, Gelman & Liu 2013).
const APART: f64 = 0.01;
const APART_SHARED: f64 = 0.02;

/// What is usual for a kind counts for the variance of an observation like so many observations.
const COMMON: f64 = 3.0;

/// The smallest level of a module, and the smallest cost of an option, relative to what others and the
/// shape suggest. Noise can make them negative; no module is that unimportant.
const LEAST: f64 = 1e-3;
const LEAST_OPTION: f64 = 0.1;

/// Sweeps over levels, kinds and their spreads. They settle within ten.
const SWEEPS: usize = 20;

/// Fits `cost = a_m s_mk g_f (1 + d_mk)` to measurements of every option `k` of every module `m`: `s` is
/// the shape, `a_m` the level of the module, `g_f` a factor of the kind `f` of the option, and `d_mk` what
/// remains.
///
/// Everything but the shape is estimated, and drawn towards what is common as far as the
/// measurements are less certain than the things differ (empirical Bayes, Efron & Morris 1973): `g`
/// towards that of the kind with the next larger errors, `d` towards 0, and `a`, where the shape is a table of costs already (`shared`),
/// towards its mean.
pub(crate) fn fit(evidence: &Evidence<'_>, shared: bool) -> Vec<Vec<Measured>> {
    let Evidence { shapes, kinds, seen } = *evidence;
    let kinds_of = kinds.iter().flatten().map(|&kind| kind + 1).max().unwrap_or(0);
    let mut model = Model { levels: first_levels(shapes, seen), factors: vec![1.0; kinds_of] };
    let order = by_shape(evidence, kinds_of);
    let mut spreads = vec![0.1; kinds_of];
    let mut level_variances = vec![0.0; shapes.len()];
    for _ in 0..SWEEPS {
        let variances = model.variances(evidence);
        let ratio = |m: usize, k: usize| {
            seen[m][k].map(|e| (e.mean / (shapes[m][k] * model.factors[kinds[m][k]]), variances[m][k]))
        };
        let mut levels: Vec<Measured> = (0..shapes.len())
            .map(|m| {
                let own = (0..shapes[m].len()).filter_map(|k| ratio(m, k).map(|found| (k, found)));
                let (mut sum, mut total) = (0.0, 0.0);
                for (k, (value, variance)) in own {
                    let weight = 1.0 / (variance + spreads[kinds[m][k]]);
                    (sum, total) = (sum + weight * value, total + weight);
                }
                let level = model.levels[m];
                if total > 0.0 {
                    Measured { value: sum / total, variance: level * level / total }
                } else {
                    Measured { value: level, variance: level * level }
                }
            })
            .collect();
        if shared {
            levels = crate::pool::pool(&levels);
        }
        let least = LEAST * median(levels.iter().map(|level| level.value.abs()));
        level_variances =
            levels.iter().map(|l| l.variance / (l.value * l.value).max(f64::MIN_POSITIVE)).collect();
        model.levels = levels.iter().map(|level| level.value.max(least).max(f64::MIN_POSITIVE)).collect();
        let variances = model.variances(evidence);
        let mut before: Option<f64> = None;
        for &kind in &order {
            let factor = model.factors[kind];
            let mut ratios: Vec<Measured> = Vec::new();
            for m in 0..shapes.len() {
                for k in (0..shapes[m].len()).filter(|&k| kinds[m][k] == kind) {
                    if let Some(estimate) = seen[m][k] {
                        let value = estimate.mean / (model.levels[m] * shapes[m][k] * factor);
                        ratios.push(Measured { value, variance: variances[m][k] });
                    }
                }
            }
            spreads[kind] = between(&ratios).max(if shared { APART_SHARED } else { APART });
            let (sum, total) = ratios.iter().fold((0.0, 0.0), |(sum, total), ratio| {
                let weight = 1.0 / (ratio.variance + spreads[kind]);
                (sum + weight * ratio.value, total + weight)
            });
            let expected = before.unwrap_or(factor);
            let prior = if before.is_some() { (factor / (KIND * expected)).powi(2) } else { 0.0 };
            if total + prior > 0.0 {
                let moved = (sum + prior * expected / factor) / (total + prior);
                model.factors[kind] = factor * moved.clamp(0.2, 5.0);
            }
            before = Some(model.factors[kind]);
        }
    }
    let variances = model.variances(evidence);
    let cost = |m: usize, k: usize| {
        let expected = model.levels[m] * shapes[m][k] * model.factors[kinds[m][k]];
        let (spread, variance) = (spreads[kinds[m][k]], variances[m][k]);
        let (share, own) = match seen[m][k] {
            Some(estimate) => (spread / (spread + variance), estimate.mean / expected - 1.0),
            None => (0.0, 0.0),
        };
        let remains = if share > 0.0 { share * variance } else { spread };
        Measured {
            value: expected * (1.0 + share * own).max(LEAST_OPTION),
            variance: expected * expected * (remains + level_variances[m]),
        }
    };
    (0..shapes.len()).map(|m| (0..shapes[m].len()).map(|k| cost(m, k)).collect()).collect()
}

struct Model {
    levels: Vec<f64>,
    factors: Vec<f64>,
}

impl Model {
    /// Variances of the measurements relative to the squares of what is expected. Few observations
    /// tell little about their own variance: the fewer, the more of it is that of the kind.
    fn variances(&self, evidence: &Evidence<'_>) -> Vec<Vec<f64>> {
        let Evidence { shapes, kinds, seen } = *evidence;
        let own = |m: usize, k: usize| {
            let estimate = seen[m][k]?;
            let expected = self.levels[m] * shapes[m][k] * self.factors[kinds[m][k]];
            let error = estimate.std_error()? / expected;
            Some((error * error, estimate.count))
        };
        let own: Vec<Vec<Option<(f64, f64)>>> =
            (0..shapes.len()).map(|m| (0..shapes[m].len()).map(|k| own(m, k)).collect()).collect();
        // Of a single observation.
        let common: Vec<f64> = (0..self.factors.len())
            .map(|kind| {
                let pairs = own.iter().flatten().zip(kinds.iter().flatten());
                let found = pairs.filter(|(_, own)| **own == kind).filter_map(|(own, _)| *own);
                median(found.map(|(variance, count)| variance * count))
            })
            .collect();
        let mix = |(own, &kind): (Option<(f64, f64)>, &usize)| match own {
            Some((own, count)) => {
                let free = count - 1.0;
                (free * own + COMMON * common[kind] / count) / (free + COMMON)
            }
            // Seen once: known no better than its size.
            None => common[kind].max(1.0),
        };
        let rows = own.into_iter().zip(kinds);
        rows.map(|(own, kinds)| own.into_iter().zip(kinds).map(mix).collect()).collect()
    }
}

/// The kinds from the largest shapes to the smallest: those that are measured best come first.
fn by_shape(evidence: &Evidence<'_>, kinds: usize) -> Vec<usize> {
    let mut sums = vec![(0.0, 0.0); kinds];
    for (shapes, kinds) in evidence.shapes.iter().zip(evidence.kinds) {
        let largest = shapes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        for (shape, &kind) in shapes.iter().zip(kinds) {
            sums[kind] = (sums[kind].0 + (shape / largest).ln(), sums[kind].1 + 1.0);
        }
    }
    let mean = |kind: &usize| sums[*kind].0 / f64::max(sums[*kind].1, 1.0);
    let mut order: Vec<usize> = (0..kinds).collect();
    order.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    order
}

/// The ratio of all that was measured of a module to all that its shape says.
fn first_levels(shapes: &[Vec<f64>], seen: &[Vec<Option<Estimate>>]) -> Vec<f64> {
    let level = |(shapes, seen): (&Vec<f64>, &Vec<Option<Estimate>>)| {
        let pairs = shapes.iter().zip(seen).filter_map(|(shape, seen)| Some((shape, (*seen)?)));
        let (sum, total) = pairs.fold((0.0, 0.0), |(sum, total), (shape, estimate)| {
            (sum + estimate.weight * estimate.mean, total + estimate.weight * shape)
        });
        if total > 0.0 { sum / total } else { 0.0 }
    };
    let levels: Vec<f64> = shapes.iter().zip(seen).map(level).collect();
    let least = LEAST * median(levels.iter().map(|level| level.abs()));
    levels.into_iter().map(|level| level.max(least).max(f64::MIN_POSITIVE)).collect()
}

/// The upper median; 0 of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Observations, choices::Shares};

    /// Measurements `truth * (1 + noise)`, eight of each option, of which the mean is off by as much
    /// as it must be by chance.
    fn measured(truth: &[Vec<f64>], noise: &[f64]) -> Vec<Vec<Option<Estimate>>> {
        measured_often(8, truth, noise)
    }

    fn measured_often(steps: usize, truth: &[Vec<f64>], noise: &[f64]) -> Vec<Vec<Option<Estimate>>> {
        let mut seen = Observations::new(truth.len());
        for step in 0..steps {
            seen.contexts.push(crate::Context { round: 1, batch: step, bits: 3.0, loss: 1.0 });
            for (module, costs) in truth.iter().enumerate() {
                for (k, cost) in costs.iter().enumerate() {
                    // Values of mean 0 and variance 1, shifted by a standard error to and fro.
                    let own = if step % 2 == 0 { 1.0 } else { -1.0 };
                    let error = 1.0 / (steps as f64).sqrt();
                    let off = if (module + k) % 2 == 0 { error } else { -error };
                    let mut slopes = vec![0.0; costs.len()];
                    slopes[k] = 2.0 * cost * (1.0 + noise[k] * (own + off));
                    seen.add(module, step, &Shares::Pure(k), &slopes);
                }
            }
        }
        truth.iter().enumerate().map(|(module, costs)| seen.means(module, costs.len())).collect()
    }

    fn errors(found: &[Vec<Measured>], truth: &[Vec<f64>], k: usize) -> f64 {
        let own = |(found, truth): (&Vec<Measured>, &Vec<f64>)| (found[k].value / truth[k]).ln().powi(2);
        (found.iter().zip(truth).map(own).sum::<f64>() / truth.len() as f64).sqrt()
    }

    type Rows<T> = Vec<Vec<T>>;

    /// Shapes, costs and kinds of options of three kinds; the narrowest costs twice what its shape says.
    fn case() -> (Rows<f64>, Rows<f64>, Rows<usize>) {
        let shape = |m: usize| [1.0, 0.25, 0.01].map(|s| s * (1.0 + m as f64 * 0.37 % 1.0)).to_vec();
        let shapes: Vec<Vec<f64>> = (0..20).map(shape).collect();
        let level = |m: usize| 0.1 * f64::exp((m * 7 % 20) as f64 / 5.0);
        let truth = |(m, shape): (usize, &Vec<f64>)| {
            shape.iter().zip([2.0, 1.0, 1.0]).map(|(s, g)| level(m) * s * g).collect()
        };
        let truth = shapes.iter().enumerate().map(truth).collect();
        (shapes, truth, vec![vec![0, 1, 2]; 20])
    }

    #[test]
    fn levels_come_from_what_is_well_measured_and_the_rest_from_the_shape() {
        let (shapes, truth, kinds) = case();
        // The widest option drowns in noise.
        let seen = measured(&truth, &[0.1, 0.1, 20.0]);
        let found = fit(&Evidence { shapes: &shapes, kinds: &kinds, seen: &seen }, false);
        for (k, most) in [(0, 0.05), (1, 0.05), (2, 0.1)] {
            assert!(errors(&found, &truth, k) < most, "option {k}: {}", errors(&found, &truth, k));
        }
        // In the same units for all: modules compare as they should.
        let ratio = |m: usize| found[m][2].value / truth[m][2];
        assert!((0..20).all(|m| (ratio(m) / ratio(0) - 1.0).abs() < 0.1));
    }

    #[test]
    fn what_departs_from_the_shape_clearly_is_kept() {
        let (shapes, mut truth, kinds) = case();
        truth[3][0] *= 3.0;
        let seen = measured(&truth, &[0.05, 0.05, 0.05]);
        let found = fit(&Evidence { shapes: &shapes, kinds: &kinds, seen: &seen }, false);
        assert!((found[3][0].value / truth[3][0] - 1.0).abs() < 0.15, "{:?}", found[3][0]);
    }

    #[test]
    fn what_one_module_says_clearly_is_kept_where_all_others_are_noisy() {
        let (shapes, mut truth, kinds) = case();
        let mut seen = measured_often(32, &truth, &[0.05, 1.0, 1.0]);
        truth[3][1] *= 1.4;
        seen[3] = measured_often(32, &truth, &[0.05, 0.1, 1.0])[3].clone();
        let found = fit(&Evidence { shapes: &shapes, kinds: &kinds, seen: &seen }, false);
        assert!((found[3][1].value / truth[3][1] - 1.0).abs() < 0.1, "{:?} {}", found[3][1], truth[3][1]);
        assert!((found[4][1].value / truth[4][1] - 1.0).abs() < 0.1, "{:?} {}", found[4][1], truth[4][1]);
    }

    #[test]
    fn shared_levels_keep_a_table_that_noise_does_not_speak_against() {
        let (_, truth, kinds) = case();
        let seen = measured(&truth, &[2.0, 2.0, 2.0]);
        let found = fit(&Evidence { shapes: &truth, kinds: &kinds, seen: &seen }, true);
        for k in 0..3 {
            assert!(errors(&found, &truth, k) < 0.25, "option {k}: {}", errors(&found, &truth, k));
        }
        let free = fit(&Evidence { shapes: &truth, kinds: &kinds, seen: &seen }, false);
        assert!(errors(&found, &truth, 0) < errors(&free, &truth, 0));
    }

    #[test]
    fn an_option_that_was_never_seen_costs_what_its_shape_says() {
        let (shapes, truth, kinds) = case();
        let mut seen = measured(&truth, &[0.05, 0.05, 0.05]);
        seen[5][1] = None;
        let found = fit(&Evidence { shapes: &shapes, kinds: &kinds, seen: &seen }, false);
        assert!((found[5][1].value / truth[5][1] - 1.0).abs() < 0.1, "{:?}", found[5][1]);
    }
}
