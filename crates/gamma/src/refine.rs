//! From the plan that scores suggest to the one that measurements bear out.

use std::time::{Duration, Instant};

use gamma_core::BitWidth;
use gamma_ilp::{Limits, Problem};
use gamma_refine::{
    Candidate, Choice, Method, Outcome, PolishSettings, RecentreSettings, Recentred, RefineError, Split,
    Status, Step, Within, choose, polish, recentre,
};

use crate::{Error, Event, Plan, Progress, Run, Scores, examine::Bench, experts::held};

/// How a plan is improved by measuring.
///
/// | field | default | purpose |
/// |---|---|---|
/// | `rounds` | 3 | rounds of re-centring; 0 for none |
/// | `proposals` | 200 | swaps that polishing tries at most; 0 for none |
/// | `patience` | 24 | swaps refused in a row before it stops |
/// | `probe` | 32 | calibration sequences on which moves are measured, at most |
/// | `time` | none | after which the best plan so far is taken |
#[derive(Clone, Debug, PartialEq)]
pub struct Refinement {
    /// Rounds of re-centring: every single move around the plan is measured, then the program is
    /// solved again; 0 to 3.
    pub rounds: usize,
    /// Swaps that polishing tries at most.
    pub proposals: usize,
    /// Swaps refused in a row before polishing stops.
    pub patience: usize,
    /// Calibration sequences on which moves are measured, at most.
    pub probe: usize,
    /// After which the best plan so far is taken.
    pub time: Option<Duration>,
}

impl Default for Refinement {
    fn default() -> Self {
        Self { rounds: 3, proposals: 200, patience: 24, probe: 32, time: None }
    }
}

impl Refinement {
    /// No measuring but that of the finished plan against its rivals.
    #[must_use]
    pub fn none() -> Self {
        Self { rounds: 0, proposals: 0, ..Self::default() }
    }
}

/// A plan that was measured against its rivals. Made by [`Run::refine`].
#[derive(Clone, Debug)]
pub struct Refined {
    /// The plan of the lowest divergence on the gate.
    pub plan: Plan,
    /// Its name among the rivals: `planned`, `refined`, or that of a rival.
    pub name: String,
    /// Every plan that was measured, in the order `planned`, `refined`, rivals.
    pub candidates: Vec<Candidate>,
    /// The divergence that was expected of the plan, in nats per token: as measured on the probe,
    /// where it was chosen, so somewhat too low.
    pub predicted: Option<gamma_refine::Estimate>,
    /// What re-centring did.
    pub recentred: Option<Recentred>,
    /// What polishing did: before re-centring, and again where that led to another plan.
    pub polished: Vec<Outcome>,
    /// The scores, and with them what was measured around the plan: neighbouring budgets profit.
    pub scores: Scores,
}

impl Run {
    /// Improves the plan that `problem` leads to by measuring its divergence from full precision, and
    /// measures the result against `rivals` and the uniform plans that `problem` allows. The best one
    /// is returned: on the gate, whatever the scores are worth, it is never worse than uniform.
    ///
    /// Moves are measured on the *probe*, some of the calibration sequences. What is accepted is
    /// decided on the *gate*, sequences of the calibration text that nothing was learned from (where
    /// the text is too short for both, a quarter of the learned ones). Neither is the text that plans
    /// are finally judged on.
    ///
    /// Modules of experts that hardly any calibration token went to are not narrowed: nothing would be
    /// measured of it.
    ///
    /// Stopped by `progress` it returns the best plan so far.
    ///
    /// # Errors
    /// [`Error`] if the problem has no plan or a measurement fails.
    pub fn refine(
        &self,
        scores: &Scores,
        problem: &Problem<'_>,
        rivals: &[(String, Plan)],
        settings: &Refinement,
        progress: &mut dyn Progress,
    ) -> Result<Refined, Error> {
        // The costs of this budget lead the search, as they led to the plan.
        let costs = scores.in_context(problem, &Limits::default())?;
        let problem = &problem.clone().scores(&costs);
        let planned = scores.found(problem, problem.solve(&Limits::default())?);
        // What the text says nothing about must not be narrowed because of what it says.
        let held = match &scores.routing {
            Some(routing) if !routing.is_sufficient() => held(routing, problem, &planned)?,
            _ => Vec::new(),
        };
        let searched = problem.clone().rules(held);
        let mut plans = vec![("planned".to_owned(), planned.clone())];
        let (mut bench, split) = self.bench(settings.probe, progress)?;

        let start = Instant::now();
        let limit = settings.time.unwrap_or(Duration::MAX);
        let total = settings.proposals;
        let mut watch =
            Within::new(limit, || start.elapsed(), |step: &Step| progress.event(event(step, total)));
        let mut scores = scores.clone();
        let mut refined = planned.clone();
        let mut predicted = None;
        let (mut recentred, mut polished) = (None, Vec::new());
        let mut stopped = false;
        // Swaps go first: each one kept is a gain at once, while a round of re-centring measures every
        // single move before the first gain, and is worth nothing if the time ends before it does.
        if settings.proposals > 0 {
            let found = polish(&mut bench, &split, &searched, &refined, &swaps(settings), &mut watch)?;
            refined = scores.found(problem, found.plan.clone());
            predicted = found.report.after.probe.or(found.report.before.probe);
            stopped = found.report.status == Status::Stopped;
            polished.push(found);
        }
        if settings.rounds > 0 && !stopped {
            let own = RecentreSettings { rounds: settings.rounds.min(3), ..RecentreSettings::default() };
            let found = recentre(&mut bench, &split, &searched, &refined, &own, &mut watch)?;
            stopped = found.report.status == Status::Stopped;
            predicted = found.report.after.probe.or(found.report.before.probe).or(predicted);
            if let Some(context) = &found.context {
                scores.add_context(context.clone());
            }
            let moved = found.plan.choices() != refined.choices();
            refined = scores.found(problem, found.plan.clone());
            // The costs around the new plan propose other swaps.
            if let Some(context) =
                found.context.as_ref().filter(|_| moved && !stopped && settings.proposals > 0)
            {
                let guide = searched.clone().scores(&context.table);
                let found = polish(&mut bench, &split, &guide, &refined, &swaps(settings), &mut watch)?;
                refined = scores.found(problem, found.plan.clone());
                predicted = found.report.after.probe.or(predicted);
                polished.push(found);
            }
            recentred = Some(found);
        }
        if refined.choices() != planned.choices() {
            plans.push(("refined".to_owned(), refined));
        }
        let uniform = self.widest_uniform(&scores, problem)?;
        plans.extend(uniform.map(|(bits, plan)| (format!("uniform {bits}"), plan)));
        plans.extend(rivals.iter().cloned());
        let named: Vec<(&str, &gamma_core::Plan)> =
            plans.iter().map(|(name, plan)| (name.as_str(), &**plan)).collect();
        // The promise is kept even if the time is over: only Ctrl-C cuts it short.
        let mut watch = |step: &Step| progress.event(event(step, named.len()));
        let Choice { position, candidates, .. } = choose(&mut bench, &split, &named, &mut watch)?;
        let (name, plan) = plans.swap_remove(position);
        Ok(Refined { plan, name, candidates, predicted, recentred, polished, scores })
    }

    /// Whether there is calibration text enough to refine plans, which [`refine`](Self::refine) finds out
    /// only after all the learning.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are fewer than two sequences to decide on.
    pub fn check_gate(&self) -> Result<(), Error> {
        match self.gate_size() {
            0 | 1 => Err(Error::Setting {
                setting: "calibration.sequences",
                found: "too few to decide on".into(),
                expected: "two or more sequences that plans are accepted on: more text, or shorter sequences",
            }),
            _ => Ok(()),
        }
    }

    /// A bench for the calibration text, and which part of it leads and which decides.
    pub(crate) fn bench(
        &self,
        probe: usize,
        progress: &mut dyn Progress,
    ) -> Result<(Bench<'_>, Split), Error> {
        self.fill(progress)?;
        let probe = spread(self.sequences(progress)?, probe);
        let gate = self.gate(progress)?;
        let split = Split::new(0..probe.len(), probe.len()..probe.len() + gate.len());
        let bench = Bench::new(self, [&probe, gate].concat())?;
        Ok((bench, split.map_err(RefineError::from)?))
    }

    /// The widest uniform plan that obeys `problem`; a narrower one is hardly ever better.
    pub(crate) fn widest_uniform(
        &self,
        scores: &Scores,
        problem: &Problem<'_>,
    ) -> Result<Option<(BitWidth, Plan)>, Error> {
        for &bits in self.candidates.iter().rev() {
            let rule = format!("pin * {bits}").parse().expect("a rule of the language of rules");
            match scores.solve(&problem.clone().rule(rule), &Limits::default()) {
                Ok(plan) => return Ok(Some((bits, plan))),
                // Too large, or against a rule.
                Err(Error::Project(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn swaps(settings: &Refinement) -> PolishSettings {
    let (proposals, patience) = (settings.proposals, settings.patience.max(1));
    PolishSettings { proposals, patience, ..PolishSettings::default() }
}

/// At most `count` of the sequences, spread evenly.
pub(crate) fn spread(sequences: &[Vec<u32>], count: usize) -> Vec<Vec<u32>> {
    let all = sequences.len();
    let count = count.clamp(1, all.max(1));
    (0..count.min(all)).map(|i| sequences[i * all / count].clone()).collect()
}

fn event(step: &Step, total: usize) -> Event {
    let stage = match step.method {
        Method::Recentre => "re-centring",
        Method::Polish => "polishing",
        Method::Evolve | Method::Random => "searching",
        _ => "comparing",
    };
    Event::Refining { stage, step: *step, total }
}
