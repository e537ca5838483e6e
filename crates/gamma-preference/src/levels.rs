//! Costs at a level of damage: what an option costs depends on how much else is lost.
//!
//! The divergence is not a sum over modules. Where much is lost already, an option costs another
//! share of it than where little is, and not the same for early and late modules. So steps are
//! grouped by the loss that steps of their size have, and each level has costs of its own. A plan
//! belongs to the level whose costs say of it what the level itself loses.

use gamma_core::{Context, Origin, ScoreTable};

use crate::Observations;

/// Distance of neighbouring levels, and the width of the window around each, in logarithms of the
/// loss.
const DISTANCE: f64 = 0.5;
const WIDTH: f64 = 0.35;

/// Steps within so many bits of each other are of one size.
const SIZE: f64 = 0.12;

/// At most so many levels.
const MOST: usize = 12;

/// The share of steps beyond the first and the last level.
const TAIL: f64 = 0.05;

/// Fewer steps, counted by their weights, are no level.
const LEAST: f64 = 8.0;

/// A level of damage.
pub(crate) struct Level {
    /// A weight for each step.
    pub(crate) weights: Vec<f64>,
    /// What steps of this level charge all modules together, in the mean.
    charged: f64,
}

/// The levels that the steps reach, from the highest loss to the lowest; none where there are too few
/// steps to tell levels apart. `counts` says how often each step counts.
pub(crate) fn levels(seen: &Observations, counts: Option<&[f64]>) -> Vec<Level> {
    let count = |step: usize| counts.map_or(1.0, |counts| counts[step]);
    let expected = expected(&seen.contexts, &count);
    let steps = seen.contexts.iter().enumerate();
    let counted = steps.filter(|&(step, context)| context.loss > 0.0 && count(step) > 0.0);
    let mut logs: Vec<f64> = counted.map(|(step, _)| expected[step]).collect();
    logs.sort_by(f64::total_cmp);
    let tail = (logs.len() as f64 * TAIL) as usize;
    let (Some(&low), Some(&high)) = (logs.get(tail), logs.iter().rev().nth(tail)) else { return Vec::new() };
    let intervals = (((high - low) / DISTANCE).ceil() as usize).min(MOST - 1);
    if intervals == 0 {
        return Vec::new();
    }
    let mut sums = vec![0.0; seen.contexts.len()];
    for observation in seen.modules.iter().flatten() {
        sums[observation.context] += observation.share * observation.value;
    }
    let level = |number: usize| {
        let centre = high + (low - high) * number as f64 / intervals as f64;
        let weight = |(step, loss): (usize, &f64)| {
            let distance = (loss - centre) / WIDTH;
            count(step) * (-0.5 * distance * distance).exp()
        };
        let weights: Vec<f64> = expected.iter().enumerate().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let charged = weights.iter().zip(&sums).map(|(weight, sum)| weight * sum).sum::<f64>() / total;
        (total >= LEAST && charged > 0.0).then_some(Level { weights, charged })
    };
    (0..=intervals).filter_map(level).collect()
}

/// The logarithm of the loss that steps of the size of each have in the mean.
///
/// A step that lost much by chance, because its batch is hard or its draw a bad one, does not belong
/// where all lose as much: steps picked by their own losses charge what was unlucky in them too much.
/// The survey draws worse plans of the same size than all rounds after it, and is compared with itself.
fn expected(contexts: &[crate::Context], count: &dyn Fn(usize) -> f64) -> Vec<f64> {
    let log = |context: &crate::Context| context.loss.max(f64::MIN_POSITIVE).ln();
    let own = |step: &crate::Context| {
        let (mut sum, mut total) = (0.0, 0.0);
        for (number, other) in contexts.iter().enumerate().filter(|(_, other)| other.loss > 0.0) {
            let distance = match (step.round, other.round) {
                (0, 0) => 0.0,
                (0, _) | (_, 0) => continue,
                _ => (other.bits - step.bits) / SIZE,
            };
            let weight = count(number) * (-0.5 * distance * distance).exp();
            (sum, total) = (sum + weight * log(other), total + weight);
        }
        if total > 0.0 { sum / total } else { log(step) }
    };
    contexts.iter().map(own).collect()
}

/// The size of the plans that belong to a level, with its costs: from few bits to many, the first
/// cheapest plan that costs no more than the level loses. `None` where even the largest plan costs more.
pub(crate) fn placed(level: &Level, table: ScoreTable) -> Option<Context> {
    let mut price = steepest(&table);
    let mut before: Option<(u64, f64)> = None;
    // At prices that fall by a tenth each time, from where all choose the narrowest option on.
    for _ in 0..400 {
        let (stored_bits, cost) = cheapest(&table, price);
        if cost <= level.charged {
            let stored_bits = match before {
                Some((fewer, more)) if more > cost => {
                    let share = (more - level.charged) / (more - cost);
                    fewer + (share * (stored_bits - fewer) as f64) as u64
                }
                _ => stored_bits,
            };
            return Some(Context { stored_bits, origin: Origin::Learned, table });
        }
        before = Some((stored_bits, cost));
        price *= 0.9;
    }
    None
}

/// The price of a bit at which no step to a wider option pays.
fn steepest(table: &ScoreTable) -> f64 {
    let slopes = table.modules().iter().flat_map(|module| {
        module.options.iter().skip(1).map(|option| {
            let bits = option.stored_bits.saturating_sub(module.options[0].stored_bits).max(1);
            (module.options[0].cost - option.cost) / bits as f64
        })
    });
    slopes.fold(f64::MIN_POSITIVE, f64::max) * 1.01
}

/// Size and cost of the cheapest plan at a price of a stored bit.
fn cheapest(table: &ScoreTable, price: f64) -> (u64, f64) {
    table.modules().iter().fold((0, 0.0), |(bits, cost), module| {
        let total = |k: &usize| module.options[*k].cost + price * module.options[*k].stored_bits as f64;
        let best = (0..module.options.len()).min_by(|a, b| total(a).total_cmp(&total(b))).unwrap_or(0);
        (bits + module.options[best].stored_bits, cost + module.options[best].cost)
    })
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, ScoredOption};

    use super::*;
    use crate::choices::Shares;

    /// Losses from 0.1 to 10, evenly in logarithms and falling with the bits, all charged to one module.
    fn seen() -> Observations {
        let mut seen = Observations::new(1);
        for step in 0..200 {
            let loss = 0.1 * 100f64.powf(f64::from(step) / 199.0);
            let bits = 8.0 - 6.0 * f64::from(step) / 199.0;
            let step = step as usize;
            seen.contexts.push(crate::Context { round: 1, batch: step, bits, loss });
            seen.add(0, step, &Shares::Pure(0), &[2.0 * loss]);
        }
        seen
    }

    fn table() -> ScoreTable {
        let module = |number: usize| {
            let option = |bits: u8, cost: f64| {
                let format = Format::symmetric(BitWidth::new(bits).expect("a width"), GroupSize::G128);
                let size = format.stored_bits([128, 128]).expect("an integer format");
                ScoredOption::new(format, size, cost)
            };
            let cost = 0.1 * (number + 1) as f64;
            let options = [2, 3, 4, 6, 8].map(|bits| option(bits, cost * 4f64.powi(2 - i32::from(bits))));
            ModuleScores {
                name: ModuleName::new(format!("m{number}")),
                shape: [128, 128],
                options: options.to_vec(),
            }
        };
        ScoreTable::new((0..10).map(module).collect()).expect("a table")
    }

    #[test]
    fn levels_cover_the_losses_from_the_highest_on_and_charge_what_they_lose() {
        let levels = levels(&seen(), None);
        assert!((8..=MOST).contains(&levels.len()), "{}", levels.len());
        let charged: Vec<f64> = levels.iter().map(|level| level.charged).collect();
        assert!(charged.windows(2).all(|pair| pair[0] > pair[1]), "{charged:?}");
        // At the ends the window is cut off on one side.
        assert!(charged[0] > 6.0 && charged[levels.len() - 1] < 0.16, "{charged:?}");
        // What does not count, counts for no level.
        let counts: Vec<f64> = (0..200).map(|step| f64::from(u8::from(step < 100))).collect();
        let half = super::levels(&seen(), Some(&counts));
        assert!(half.len() < levels.len() && half.iter().all(|level| level.weights[150] == 0.0));
    }

    #[test]
    fn a_step_belongs_to_the_level_of_its_size_whatever_it_lost_by_chance() {
        let mut seen = seen();
        let regular = levels(&seen, None);
        seen.contexts[150].loss *= 2.0;
        let found = levels(&seen, None);
        assert_eq!(found.len(), regular.len());
        for (found, regular) in found.iter().zip(&regular) {
            assert!((found.weights[150] - regular.weights[150]).abs() < 0.2, "{}", found.weights[150]);
        }
        // Of a survey at the same sizes, all steps belong to one level.
        seen.contexts.iter_mut().take(20).for_each(|context| context.round = 0);
        let weights = &levels(&seen, None)[0].weights;
        assert!(weights[..20].windows(2).all(|pair| (pair[0] - pair[1]).abs() < 1e-12));
    }

    #[test]
    fn no_spread_of_losses_is_no_level() {
        let mut seen = seen();
        seen.contexts.iter_mut().for_each(|context| context.loss = 1.0);
        assert!(levels(&seen, None).is_empty());
        assert!(levels(&Observations::default(), None).is_empty());
    }

    #[test]
    fn a_level_is_placed_where_plans_lose_as_much() {
        let at = |charged: f64| placed(&Level { weights: Vec::new(), charged }, table());
        let sizes: Vec<u64> =
            [3.0, 1.0, 0.2, 0.05].iter().filter_map(|&c| Some(at(c)?.stored_bits)).collect();
        assert!(sizes.len() == 4 && sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
        // Between two plans next to each other on the frontier, one that loses more and one less.
        let frontier: Vec<(u64, f64)> =
            (0..2000).map(|i| cheapest(&table(), steepest(&table()) * 0.99f64.powi(i))).collect();
        let more = frontier.iter().filter(|(_, cost)| *cost > 0.2).map(|(bits, _)| *bits).max();
        let less = frontier.iter().filter(|(_, cost)| *cost <= 0.2).map(|(bits, _)| *bits).min();
        let slack = (less.unwrap() - more.unwrap()) + 128 * 128;
        assert!(sizes[2] + slack >= more.unwrap() && sizes[2] <= less.unwrap() + slack);
        // Nothing is as small as the smallest plan's loss, or as large as all that can be lost.
        assert!(at(1e-9).is_none());
        assert_eq!(at(1e9).unwrap().stored_bits, cheapest(&table(), 1e9).0);
    }
}
