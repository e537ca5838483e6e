//! From what was seen to tables of costs.

use gamma_core::{ModuleScores, ScoreTable, ScoreTableError, ScoredOption, non_increasing};

use crate::{Competitor, Learned, Observations, observe::Estimate};

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
        loss_table(&self.competitors, &self.observations, Some(&counts))
            .expect("names and sizes are those of a table, and means of finite numbers are finite")
    }
}

/// Mean costs, with a weight for each context if given. An option that has no weight at all keeps
/// its unweighted mean.
pub(crate) fn loss_table(
    competitors: &[Competitor],
    seen: &Observations,
    weights: Option<&[f64]>,
) -> Result<ScoreTable, ScoreTableError> {
    let costs = |(number, module): (usize, &Competitor)| {
        let all = seen.means(number, module.candidates.len());
        let chosen = match weights {
            None => all.clone(),
            Some(weights) => seen.weighted(number, module.candidates.len(), |context| weights[context]),
        };
        let estimates: Vec<Estimate> = chosen
            .into_iter()
            .zip(all)
            .map(|(chosen, all)| chosen.or(all).expect("the survey draws every candidate"))
            .collect();
        repaired(module, &estimates)
    };
    table(competitors, competitors.iter().enumerate().map(costs))
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
fn repaired(module: &Competitor, estimates: &[Estimate]) -> Vec<(f64, Option<f64>)> {
    let mut order: Vec<usize> = (0..estimates.len()).collect();
    order.sort_by_key(|&k| module.candidates[k].stored_bits);
    let mut costs: Vec<f64> = order.iter().map(|&k| estimates[k].mean).collect();
    let weights: Vec<f64> = order.iter().map(|&k| estimates[k].weight).collect();
    non_increasing(&mut costs, &weights);
    let mut answer = vec![(0.0, None); estimates.len()];
    for (&k, cost) in order.iter().zip(costs) {
        answer[k] = (cost, estimates[k].std_error());
    }
    answer
}
