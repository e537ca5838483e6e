//! Methods side by side: the same candidates, budgets, calibration tokens and judge for all.

mod row;
mod strategy;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use gamma_core::{Budget, Choice};
use gamma_ilp::{Limits, Rule};
use gamma_refine::{EvolveSettings, RandomSettings, Step, Within, best_of_random, evolve};

pub use self::{
    row::{Row, read_csv, to_csv},
    strategy::Strategy,
};
use crate::{Choices, Error, Evaluation, Event, Jury, Plan, Progress, Refinement, Run, Scores};

/// What to compare.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The methods.
    pub strategies: Vec<Strategy>,
    /// The budgets and what to call them.
    pub budgets: Vec<(String, Budget)>,
    /// Methods that draw at random are run once with each.
    pub seeds: Vec<u64>,
    /// What every plan has to obey.
    pub rules: Vec<Rule>,
    /// What other tools chose.
    pub choices: Vec<Choices>,
    /// How plans are refined.
    pub refinement: Refinement,
}

/// Scores and the time they took.
type Timed = (Scores, f64);

/// Methods often agree: each plan is judged once.
type Judged = Vec<(Vec<Choice>, Evaluation)>;

impl Run {
    /// Makes a plan by every method for every budget, and judges all of them. Rows for which `known`
    /// already has a measurement are taken from there; every new one is shown to `finished` together
    /// with all rows so far, so that nothing is lost if the work is stopped.
    ///
    /// # Errors
    /// [`Error`] if a method fails; [`Error::Interrupted`] if `progress` broke.
    pub fn compare(
        &self,
        jury: &Jury,
        comparison: &Comparison,
        known: &[Row],
        finished: &mut dyn FnMut(&[Row]) -> Result<(), Error>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Row>, Error> {
        let mut rows: Vec<Row> = Vec::new();
        // Learning is the same work whether its plans are refined or not.
        let mut learned: BTreeMap<u64, Timed> = BTreeMap::new();
        let mut judged = Judged::new();
        for &strategy in &comparison.strategies {
            let seeds =
                if strategy.is_random() { comparison.seeds.as_slice() } else { &comparison.seeds[..1] };
            for &seed in seeds {
                let mut scores: Option<Timed> = None;
                for (label, budget) in &comparison.budgets {
                    let name = strategy.name();
                    if let Some(row) = known.iter().find(|row| row.is(&name, label, seed)) {
                        rows.push(row.clone());
                        continue;
                    }
                    let (scores, scoring) = match &mut scores {
                        Some(made) => made,
                        none => {
                            let known = learned.get(&seed).filter(|_| strategy.learns());
                            let made = match known {
                                Some(made) => made.clone(),
                                None => self.scores_of(strategy, seed, progress)?,
                            };
                            if strategy.learns() {
                                learned.insert(seed, made.clone());
                            }
                            none.insert(made)
                        }
                    };
                    let start = Instant::now();
                    let plan = self.plan_of(strategy, scores, *budget, comparison, seed, progress)?;
                    let planning = start.elapsed().as_secs_f64();
                    let evaluation = self.judged(jury, &plan, &mut judged, progress)?;
                    rows.push(row((&name, label, seed), &plan, evaluation, (*scoring, planning)));
                    finished(&rows)?;
                }
            }
        }
        for choices in &comparison.choices {
            let scores = self.options()?.ok_or(Error::Missing {
                setting: "quantizer",
                expected: "one that says beforehand what its formats take",
            })?;
            for (label, chosen) in &choices.budgets {
                if !comparison.budgets.iter().any(|(known, _)| known == label) {
                    continue;
                }
                if let Some(row) = known.iter().find(|row| row.is(&choices.tool, label, 0)) {
                    rows.push(row.clone());
                    continue;
                }
                let plan = chosen.plan(&scores)?;
                let times = (chosen.seconds.unwrap_or(f64::NAN), 0.0);
                let evaluation = self.judged(jury, &plan, &mut judged, progress)?;
                rows.push(row((&choices.tool, label, 0), &plan, evaluation, times));
                finished(&rows)?;
            }
        }
        Ok(rows)
    }

    fn judged(
        &self,
        jury: &Jury,
        plan: &Plan,
        known: &mut Judged,
        progress: &mut dyn Progress,
    ) -> Result<Evaluation, Error> {
        if let Some((_, evaluation)) = known.iter().find(|(choices, _)| choices == plan.choices()) {
            return Ok(*evaluation);
        }
        let evaluation = jury.evaluate(&self.apply_watched(plan, progress)?, progress)?;
        known.push((plan.choices().to_vec(), evaluation));
        Ok(evaluation)
    }

    /// The scores that a method plans with.
    fn scores_of(&self, strategy: Strategy, seed: u64, progress: &mut dyn Progress) -> Result<Timed, Error> {
        // Making candidates is the same work for all and counts for none.
        self.fill(progress)?;
        let start = Instant::now();
        let scores = match strategy {
            Strategy::Scored(proxy) => self.score(strategy::seeded(proxy, seed), progress)?,
            Strategy::Learned | Strategy::Refined => self.learn_seeded(seed, progress)?,
            Strategy::Uniform | Strategy::Random | Strategy::Evolved => {
                self.score(gamma_proxy::Proxy::Weights, progress)?
            }
        };
        Ok((scores, start.elapsed().as_secs_f64()))
    }

    fn plan_of(
        &self,
        strategy: Strategy,
        scores: &mut Scores,
        budget: Budget,
        comparison: &Comparison,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<Plan, Error> {
        let before = scores.clone();
        let problem = before.problem(budget).rules(comparison.rules.iter().cloned());
        match strategy {
            Strategy::Scored(_) | Strategy::Learned => scores.solve(&problem, &Limits::default()),
            Strategy::Refined => {
                // What was measured for one budget is there for the next: that is how it is used.
                let refined = self.refine(scores, &problem, &[], &comparison.refinement, progress)?;
                *scores = refined.scores;
                Ok(refined.plan)
            }
            Strategy::Uniform => {
                let uniform = self.widest_uniform(scores, &problem)?;
                let (_, plan) = uniform.ok_or(Error::Missing {
                    setting: "candidates",
                    expected: "one that fits the budget everywhere",
                })?;
                Ok(plan)
            }
            Strategy::Random | Strategy::Evolved => {
                let (mut bench, split) = self.bench(comparison.refinement.probe, progress)?;
                // As much time as refinement has.
                let start = Instant::now();
                let limit = comparison.refinement.time.unwrap_or(Duration::MAX);
                let mut interrupted = false;
                let inner = |step: &Step| {
                    let answer =
                        progress.event(Event::Refining { stage: "searching", step: *step, total: 0 });
                    interrupted |= answer.is_break();
                    answer
                };
                let mut watch = Within::new(limit, || start.elapsed(), inner);
                let outcome = if strategy == Strategy::Random {
                    let settings = RandomSettings { seed, ..RandomSettings::default() };
                    best_of_random(&mut bench, &split, &problem, &settings, &mut watch)?
                } else {
                    let settings = EvolveSettings { seed, ..EvolveSettings::default() };
                    let start = scores.solve(&problem, &Limits::default())?;
                    evolve(&mut bench, &split, &problem, &start, &settings, &mut watch)?
                };
                if interrupted {
                    return Err(Error::Interrupted);
                }
                Ok(scores.found(&problem, outcome.plan))
            }
        }
    }
}

fn row(
    (method, budget, seed): (&str, &str, u64),
    plan: &Plan,
    evaluation: Evaluation,
    (scoring, planning): (f64, f64),
) -> Row {
    Row {
        method: method.to_owned(),
        budget: budget.to_owned(),
        seed,
        code_bits: plan.code_bits_per_weight(),
        stored_bits: plan.stored_bits_per_weight(),
        evaluation,
        scoring,
        planning,
    }
}
