//! From what was seen to tables of costs.

use gamma_core::{ModuleScores, ScoreTable, ScoreTableError, ScoredOption, non_increasing};

use crate::{
    Competitor, Learned, Observations,
    observe::Estimate,
    pool::{Measured, pool},
};

impl Learned {
    /// The losses as they might have come out with other calibration data: batches are drawn anew,
    /// with replacement, as many as there are. Plans from several such tables show which choices
    /// the data support.
    ///
    /// # Panics
    /// If the observations are not those of this run.
    #[must_use]
    pub fn resample(&self, seed: u64) -> ScoreTable {
        let counts = self.observations.redraw(seed);
        loss_table(&self.competitors, &self.observations, Some(&counts), self.pooled)
            .expect("names and sizes are those of a table, and means of finite numbers are finite")
    }
}

/// Mean costs, with a weight for each context if given. An option that has no weight at all keeps
/// its unweighted mean.
pub(crate) fn loss_table(
    competitors: &[Competitor],
    seen: &Observations,
    weights: Option<&[f64]>,
    pooled: bool,
) -> Result<ScoreTable, ScoreTableError> {
    let estimates = |(number, module): (usize, &Competitor)| -> Vec<Estimate> {
        let all = seen.means(number, module.candidates.len());
        let chosen = match weights {
            None => all.clone(),
            Some(weights) => seen.weighted(number, module.candidates.len(), |context| weights[context]),
        };
        let pairs = chosen.into_iter().zip(all);
        pairs.map(|(chosen, all)| chosen.or(all).expect("the survey draws every candidate")).collect()
    };
    let estimates: Vec<Vec<Estimate>> = competitors.iter().enumerate().map(estimates).collect();
    let measured: Vec<Vec<Measured>> = if pooled {
        shared_ratios(competitors, &estimates)
    } else {
        estimates.iter().map(|own| own.iter().map(measure).collect()).collect()
    };
    let modules = competitors.iter().zip(&estimates).zip(&measured);
    table(competitors, modules.map(|((module, estimates), measured)| repaired(module, estimates, measured)))
}

fn measure(estimate: &Estimate) -> Measured {
    // An option that was seen once is known no better than its size.
    let error = estimate.std_error().unwrap_or(estimate.mean.abs());
    Measured { value: estimate.mean, variance: error * error }
}

/// Candidates of a module in order of growing storage.
fn order(module: &Competitor) -> Vec<usize> {
    let mut order: Vec<usize> = (0..module.candidates.len()).collect();
    order.sort_by_key(|&k| module.candidates[k].stored_bits);
    order
}

/// Costs in which the step from one option to the next larger one takes from each module what its
/// own measurements support, and the rest from all modules that take the same step.
///
/// Where a quantizer halves its step size, every module's loss falls by nearly the same factor. The
/// loss of a wide option is small against the noise of whatever else is quantized in the same pass;
/// that of a narrow one is not, and the factor, over all modules, is known well.
fn shared_ratios(competitors: &[Competitor], estimates: &[Vec<Estimate>]) -> Vec<Vec<Measured>> {
    let mut costs: Vec<Vec<Measured>> =
        estimates.iter().map(|own| own.iter().map(measure).collect()).collect();
    let orders: Vec<Vec<usize>> = competitors.iter().map(order).collect();
    let longest = orders.iter().map(Vec::len).max().unwrap_or(0);
    for place in 1..longest {
        // Modules whose step at this place leads from the same format to the same format.
        let mut done = vec![false; competitors.len()];
        for first in 0..competitors.len() {
            let step = |module: usize| {
                let order = &orders[module];
                let format = |place: usize| &competitors[module].candidates[order[place]].format;
                (place < order.len()).then(|| (format(place - 1), format(place)))
            };
            let Some(wanted) = step(first).filter(|_| !done[first]) else { continue };
            let alike: Vec<usize> =
                (first..competitors.len()).filter(|&module| step(module) == Some(wanted)).collect();
            for &module in &alike {
                done[module] = true;
            }
            let before = |module: usize| costs[module][orders[module][place - 1]].value;
            // A cost that noise has driven below zero is no base for a ratio.
            let alike: Vec<usize> = alike.into_iter().filter(|&module| before(module) > 0.0).collect();
            let ratio = |&module: &usize| {
                let (own, base) = (costs[module][orders[module][place]], before(module));
                Measured { value: own.value / base, variance: own.variance / (base * base) }
            };
            let ratios = pool(&alike.iter().map(ratio).collect::<Vec<_>>());
            for (&module, ratio) in alike.iter().zip(ratios) {
                let base = costs[module][orders[module][place - 1]].value;
                costs[module][orders[module][place]] =
                    Measured { value: ratio.value * base, variance: ratio.variance * base * base };
            }
        }
    }
    costs
}

/// Negated logits as costs.
pub(crate) fn logit_table(
    competitors: &[Competitor],
    logits: &[Vec<f64>],
) -> Result<ScoreTable, ScoreTableError> {
    table(competitors, logits.iter().map(|theta| theta.iter().map(|theta| (-theta, None)).collect()))
}

/// One cost and its standard error for every candidate of every module.
fn table(
    competitors: &[Competitor],
    costs: impl Iterator<Item = Vec<(f64, Option<f64>)>>,
) -> Result<ScoreTable, ScoreTableError> {
    let scores = |(module, costs): (&Competitor, Vec<(f64, Option<f64>)>)| {
        let options = module.candidates.iter().zip(costs).map(|(candidate, (cost, std_error))| {
            let (format, stored_bits) = (candidate.format.clone(), candidate.stored_bits);
            ScoredOption { format, stored_bits, cost, std_error }
        });
        ModuleScores { name: module.name.clone(), shape: module.shape, options: options.collect() }
    };
    ScoreTable::new(competitors.iter().zip(costs).map(scores).collect())
}

/// The costs of a module's candidates, from the survey and the learning rounds together, made
/// non-increasing in stored bits.
fn repaired(module: &Competitor, estimates: &[Estimate], measured: &[Measured]) -> Vec<(f64, Option<f64>)> {
    let order = order(module);
    let mut costs: Vec<f64> = order.iter().map(|&k| measured[k].value).collect();
    let weights: Vec<f64> = order.iter().map(|&k| estimates[k].weight).collect();
    non_increasing(&mut costs, &weights);
    let mut answer = vec![(0.0, None); estimates.len()];
    for (&k, cost) in order.iter().zip(costs) {
        answer[k] = (cost, estimates[k].std_error().map(|_| measured[k].variance.sqrt()));
    }
    answer
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, Format, GroupSize, ModuleName};

    use super::*;
    use crate::{Candidate, Context, choices::Shares};

    fn competitors() -> Vec<Competitor> {
        let module = |number: usize| Competitor {
            name: ModuleName::new(format!("m{number}")),
            shape: [128, 128],
            candidates: [BitWidth::B4, BitWidth::B2]
                .map(|bits| {
                    let format = Format::symmetric(bits, GroupSize::G128);
                    Candidate { stored_bits: format.stored_bits([128, 128]).unwrap(), format }
                })
                .to_vec(),
        };
        (0..8).map(module).collect()
    }

    /// Module `m` loses `m + 1` at 2 bits and a tenth of it at 4, which the first module saw under
    /// `noise`.
    fn seen(noise: f64) -> Observations {
        let mut seen = Observations::new(8);
        for context in 0..8 {
            seen.contexts.push(Context { round: 0, batch: context, bits: 3.0, loss: 1.0 });
            let sign = if context % 2 == 0 { 1.0 } else { -1.0 };
            for module in 0..8 {
                let size = 2.0 * (module + 1) as f64; // a cost is half a slope
                seen.add(module, context, &Shares::Pure(1), &[0.0, size * (1.0 + 1e-3 * sign)]);
                let (own, offset) = if module == 0 { (noise, 0.5 * noise) } else { (1e-3, 0.0) };
                seen.add(module, context, &Shares::Pure(0), &[size * (0.1 + own * sign + offset), 0.0]);
            }
        }
        seen
    }

    #[test]
    fn a_noisy_wide_option_takes_its_cost_from_what_modules_have_in_common() {
        let wide = |noise, pooled| {
            let table = loss_table(&competitors(), &seen(noise), None, pooled).expect("a table");
            let options = &table.modules()[0].options;
            (options[1].cost, options[1].std_error.expect("seen often"))
        };
        let ((raw, raw_error), (pooled, pooled_error)) = (wide(0.2, false), wide(0.2, true));
        assert!((raw - 0.2).abs() < 1e-9 && (pooled - 0.1).abs() < 2e-3, "{raw} became {pooled}");
        assert!(pooled_error < 0.05 * raw_error, "{pooled_error} of {raw_error}");
    }
}
