//! From what was seen to tables of costs.

use gamma_core::{Context, Format, ModuleScores, ScoreTable, ScoreTableError, ScoredOption, non_increasing};

use crate::{
    Candidate, Competitor, Learned, Observations,
    fit::{Evidence, fit},
    levels::{levels, placed},
    observe::Estimate,
    pool::Measured,
};

impl Learned {
    /// The losses as they might have come out with other calibration data: batches are drawn anew,
    /// with replacement, as many as there are. Plans from several such tables show which choices
    /// the data support.
    ///
    /// # Panics
    /// If the observations are not those of this run.
    #[must_use]
    pub fn resample(&self, seed: u64) -> (ScoreTable, Vec<Context>) {
        let counts = self.observations.redraw(seed);
        loss_tables(
            &self.competitors.iter().collect::<Vec<_>>(),
            &self.observations,
            &self.shapes,
            Some(&counts),
        )
        .expect("names and sizes are those of a table, and means of finite numbers are finite")
    }
}

/// Costs over all steps; without `shapes` the mere means of what was measured.
pub(crate) fn loss_table(
    competitors: &[&Competitor],
    seen: &Observations,
    shapes: &[Vec<f64>],
    counts: Option<&[f64]>,
) -> Result<ScoreTable, ScoreTableError> {
    if shapes.is_empty() {
        return mean_table(competitors, seen, counts);
    }
    table(competitors, Fitting::new(competitors, seen).costs(shapes, counts, false))
}

/// Costs over all steps, and at every level of loss that they reach, of which there are none without
/// `shapes`.
pub(crate) fn loss_tables(
    competitors: &[&Competitor],
    seen: &Observations,
    shapes: &[Vec<f64>],
    counts: Option<&[f64]>,
) -> Result<(ScoreTable, Vec<Context>), ScoreTableError> {
    if shapes.is_empty() {
        return Ok((mean_table(competitors, seen, counts)?, Vec::new()));
    }
    let fitting = Fitting::new(competitors, seen);
    let overall = fitting.costs(shapes, counts, false);
    let base: Vec<Vec<f64>> = overall.iter().map(|own| floored(own.iter().map(|cost| cost.value))).collect();
    let mut contexts: Vec<Context> = Vec::new();
    // Where blocks learn apart, a step knows nothing of what all others lose.
    let levels = if seen.whole() { levels(seen, counts) } else { Vec::new() };
    for level in levels {
        let costs = fitting.costs(&base, Some(&level.weights), true);
        // Less loss takes more bits; a level that says otherwise is noise.
        let found = placed(&level, table(competitors, costs)?);
        let grows =
            |context: &Context| contexts.last().is_none_or(|last| last.stored_bits < context.stored_bits);
        contexts.extend(found.filter(grows));
    }
    Ok((table(competitors, overall)?, contexts))
}

/// What all fits to the same observations share.
struct Fitting<'a> {
    competitors: &'a [&'a Competitor],
    seen: &'a Observations,
    kinds: Vec<Vec<usize>>,
    /// Of a module that no token went to, such as an expert, nothing was measured: its zeros say nothing
    /// about what modules have in common. These are the others.
    reached: Vec<usize>,
}

impl<'a> Fitting<'a> {
    fn new(competitors: &'a [&'a Competitor], seen: &'a Observations) -> Self {
        let reached = |&module: &usize| seen.modules[module].iter().any(|one| one.value.abs() > 0.0);
        let reached = (0..competitors.len()).filter(reached).collect();
        Self { competitors, seen, kinds: kinds(competitors), reached }
    }

    /// A cost for every candidate, non-increasing in stored bits; see [`fit`].
    fn costs(&self, shapes: &[Vec<f64>], weights: Option<&[f64]>, shared: bool) -> Vec<Vec<Measured>> {
        let Self { competitors, seen, kinds, reached } = self;
        let estimates = estimates(competitors, seen, weights);
        let found = fit(
            &Evidence {
                shapes: &picked(shapes, reached),
                kinds: &picked(kinds, reached),
                seen: &picked(&estimates, reached),
            },
            shared,
        );
        let nothing = Measured { value: 0.0, variance: f64::NAN };
        let mut costs: Vec<Vec<Measured>> = kinds.iter().map(|own| vec![nothing; own.len()]).collect();
        reached.iter().zip(found).for_each(|(&module, found)| costs[module] = found);
        let modules = competitors.iter().zip(&estimates).zip(costs);
        let rows = modules.map(|((module, estimates), costs)| {
            let weight = |estimate: &Option<Estimate>| estimate.map_or(0.0, |e| e.weight) + 1.0;
            repaired(module, &costs, &estimates.iter().map(weight).collect::<Vec<_>>())
        });
        rows.collect()
    }
}

fn picked<T: Clone>(rows: &[T], numbers: &[usize]) -> Vec<T> {
    numbers.iter().map(|&number| rows[number].clone()).collect()
}

/// Positive numbers, in proportion to which costs can be.
pub(crate) fn floored(values: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let largest = values.clone().fold(0.0, f64::max);
    if largest > 0.0 {
        values.map(|value| value.max(1e-9 * largest)).collect()
    } else {
        values.map(|_| 1.0).collect()
    }
}

/// The same number for the same format.
fn kinds(competitors: &[&Competitor]) -> Vec<Vec<usize>> {
    let mut formats: Vec<&Format> = Vec::new();
    let mut rows = Vec::new();
    for module in competitors {
        let mut row = Vec::new();
        for Candidate { format, .. } in &module.candidates {
            row.push(formats.iter().position(|known| *known == format).unwrap_or_else(|| {
                formats.push(format);
                formats.len() - 1
            }));
        }
        rows.push(row);
    }
    rows
}

/// Costs over all steps, measured option by option.
fn mean_table(
    competitors: &[&Competitor],
    seen: &Observations,
    counts: Option<&[f64]>,
) -> Result<ScoreTable, ScoreTableError> {
    let all = estimates(competitors, seen, None);
    let chosen = estimates(competitors, seen, counts);
    let modules = competitors.iter().zip(all).zip(chosen).map(|((module, all), chosen)| {
        let pairs = chosen.into_iter().zip(all);
        let own: Vec<Estimate> =
            pairs.map(|(chosen, all)| chosen.or(all).expect("the survey draws every candidate")).collect();
        let costs: Vec<Measured> = own.iter().map(measure).collect();
        repaired(module, &costs, &own.iter().map(|estimate| estimate.weight).collect::<Vec<_>>())
    });
    table(competitors, modules.collect())
}

fn estimates(
    competitors: &[&Competitor],
    seen: &Observations,
    weights: Option<&[f64]>,
) -> Vec<Vec<Option<Estimate>>> {
    let estimates = |(number, module): (usize, &&Competitor)| match weights {
        None => seen.means(number, module.candidates.len()),
        Some(weights) => seen.weighted(number, module.candidates.len(), |step| weights[step]),
    };
    competitors.iter().enumerate().map(estimates).collect()
}

fn measure(estimate: &Estimate) -> Measured {
    // An option that was seen once is known no better than its size.
    let error = estimate.std_error().unwrap_or(estimate.mean.abs());
    Measured { value: estimate.mean, variance: error * error }
}

/// Negated logits as costs.
pub(crate) fn logit_table(
    competitors: &[&Competitor],
    logits: &[Vec<f64>],
) -> Result<ScoreTable, ScoreTableError> {
    let exact = |theta: &f64| Measured { value: -theta, variance: f64::NAN };
    table(competitors, logits.iter().map(|theta| theta.iter().map(exact).collect()).collect())
}

/// One cost and its standard error, where it has one, for every candidate of every module.
fn table(competitors: &[&Competitor], costs: Vec<Vec<Measured>>) -> Result<ScoreTable, ScoreTableError> {
    let scores = |(module, costs): (&&Competitor, Vec<Measured>)| {
        let options = module.candidates.iter().zip(costs).map(|(candidate, cost)| {
            let (format, stored_bits) = (candidate.format.clone(), candidate.stored_bits);
            let std_error = (!cost.variance.is_nan()).then(|| cost.variance.sqrt());
            ScoredOption { format, stored_bits, cost: cost.value, std_error }
        });
        ModuleScores { name: module.name.clone(), shape: module.shape, options: options.collect() }
    };
    ScoreTable::new(competitors.iter().zip(costs).map(scores).collect())
}

/// The costs of a module's candidates made non-increasing in stored bits, where each gives way the
/// less the more it weighs.
fn repaired(module: &Competitor, costs: &[Measured], weights: &[f64]) -> Vec<Measured> {
    let mut order: Vec<usize> = (0..module.candidates.len()).collect();
    order.sort_by_key(|&k| module.candidates[k].stored_bits);
    let mut sorted: Vec<f64> = order.iter().map(|&k| costs[k].value).collect();
    non_increasing(&mut sorted, &order.iter().map(|&k| weights[k]).collect::<Vec<_>>());
    let mut answer = costs.to_vec();
    for (&k, value) in order.iter().zip(sorted) {
        answer[k].value = value;
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

    fn shapes() -> Vec<Vec<f64>> {
        (0..8).map(|module| [0.1, 1.0].map(|own| own * 7.0 / f64::from(module + 1)).to_vec()).collect()
    }

    #[test]
    fn a_noisy_wide_option_takes_its_cost_from_the_shape_and_what_modules_have_in_common() {
        let (competitors, shapes) = (competitors(), shapes());
        let wide = |noise, shapes: &[Vec<f64>]| {
            let competitors: Vec<&Competitor> = competitors.iter().collect();
            let (table, _) = loss_tables(&competitors, &seen(noise), shapes, None).expect("a table");
            let options = &table.modules()[0].options;
            (options[1].cost, options[1].std_error.expect("seen often"))
        };
        let ((raw, raw_error), (fitted, fitted_error)) = (wide(0.2, &[]), wide(0.2, &shapes));
        assert!((raw - 0.2).abs() < 1e-9 && (fitted - 0.1).abs() < 6e-3, "{raw} became {fitted}");
        assert!(fitted_error < 0.2 * raw_error, "{fitted_error} of {raw_error}");
    }

    #[test]
    fn a_module_that_no_token_went_to_changes_nothing_about_the_others() {
        let (mut competitors, mut shapes, mut seen) = (competitors(), shapes(), seen(0.1));
        let costs = |competitors: &[Competitor], seen: &Observations, shapes: &[Vec<f64>]| {
            let competitors: Vec<&Competitor> = competitors.iter().collect();
            loss_tables(&competitors, seen, shapes, None).expect("a table").0
        };
        let without = costs(&competitors, &seen, &shapes);
        competitors.push(Competitor { name: ModuleName::new("expert"), ..competitors[0].clone() });
        shapes.push(vec![1.0, 1.0]); // what errors of nothing become
        seen.modules.push(Vec::new());
        for context in 0..8 {
            seen.add(8, context, &Shares::Pure(context % 2), &[0.0, 0.0]);
        }
        let with = costs(&competitors, &seen, &shapes);
        assert_eq!(with.modules()[..8], without.modules()[..]);
        assert!(with.modules()[8].options.iter().all(|option| option.cost.abs() < 1e-300));
    }
}
