//! Evolutionary search, the baseline of search-based methods.

use std::collections::{HashMap, HashSet};

use gamma_core::Plan;
use gamma_ilp::{Problem, Space};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    Estimate, Examiner, Method, Outcome, Progress, RefineError, Split, Status,
    error::setting,
    session::{Halt, Session, Stand, ended, stand_at},
    walk,
};

/// One stage of the selection within a generation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How many offspring go on.
    pub survivors: usize,
    /// The share of the probe that they are measured on.
    pub share: f64,
}

/// Settings of [`evolve`].
///
/// | setting | default | [paper](Self::paper) | range | purpose |
/// |---|---|---|---|---|
/// | `generations` | 20 | 150 | | how often offspring are drawn |
/// | `offspring` | 16 | 128 | positive | plans per generation |
/// | `patience` | none | none | positive | generations in a row without a better plan before it ends |
/// | `flips` | 3 | 3 | positive | most swaps between an offspring and its parent: the smaller one of two draws from 1 to this |
/// | `stages` | 4 on 1/8, 2 on 1/2, 1 on 1 | 16 on 1/64, 4 on 1/8, 1 on 1 | see [`Stage`] | who survives on which share of the probe |
/// | `seed` | 0 | | | of all draws |
///
/// Shares grow and survivors dwindle from stage to stage, to one on the whole probe. A generation of
/// the default costs `16/8 + 4 * 3/8 + 2 * 1/2 = 4.5` measurements of the probe.
#[derive(Clone, Debug, PartialEq)]
pub struct EvolveSettings {
    /// How often offspring are drawn.
    pub generations: usize,
    /// Plans per generation.
    pub offspring: usize,
    /// Generations in a row without a better plan before it ends; `None` for no such end.
    pub patience: Option<usize>,
    /// Most swaps between an offspring and its parent.
    pub flips: usize,
    /// Who survives on which share of the probe.
    pub stages: Vec<Stage>,
    /// Seed of all draws.
    pub seed: u64,
}

impl Default for EvolveSettings {
    fn default() -> Self {
        let stages = [(4, 0.125), (2, 0.5), (1, 1.0)];
        Self {
            generations: 20,
            offspring: 16,
            patience: None,
            flips: 3,
            stages: stages.map(Stage::from).to_vec(),
            seed: 0,
        }
    }
}

impl From<(usize, f64)> for Stage {
    fn from((survivors, share): (usize, f64)) -> Self {
        Self { survivors, share }
    }
}

impl EvolveSettings {
    /// Those of the paper, whose stages measure 2 048, 16 384 and 131 072 tokens: shares of a probe
    /// of the last size.
    #[must_use]
    pub fn paper() -> Self {
        let stages = [(16, 1.0 / 64.0), (4, 0.125), (1, 1.0)];
        Self { generations: 150, offspring: 128, stages: stages.map(Stage::from).to_vec(), ..Self::default() }
    }

    fn check<E: std::error::Error + 'static>(&self) -> Result<(), RefineError<E>> {
        setting("offspring", self.offspring, self.offspring > 0, "1 or more")?;
        setting("patience", self.patience, self.patience != Some(0), "1 or more, or none")?;
        setting("flips", self.flips, self.flips > 0, "1 or more")?;
        let pairs = || self.stages.windows(2);
        let grow =
            pairs().all(|pair| pair[0].share < pair[1].share && pair[0].survivors >= pair[1].survivors);
        let ends = self.stages.last() == Some(&Stage { survivors: 1, share: 1.0 });
        let begins = self.stages.first().is_some_and(|stage| stage.share > 0.0);
        let expected = "growing shares above 0 and dwindling survivors, 1 on a share of 1 in the end";
        setting("stages", &self.stages, grow && ends && begins, expected)
    }
}

/// The (1 + λ) search of `EvoPress` (Sieberling et al. 2024, arXiv 2410.14649), from `start` on.
///
/// Every generation draws offspring that differ from their parent by a few swaps, one module a
/// place up and one a place down. Stages of growing cost select among them; the parent competes in
/// the last one. Three things differ from the paper: modules of any sizes swap, and further random
/// moves then keep and use the budget, where the paper swaps between modules of equal size; every
/// stage measures the same windows in every generation, where the paper draws tokens anew, so that
/// what is measured once need not be measured again; and the plan that is returned is the best on
/// the gate among the parents, `start` included, so that it is never worse than `start` there. The
/// gate does not lead the search.
///
/// The scores of the problem play no part.
///
/// # Errors
/// [`RefineError`]: the examiner fails, `start` does not belong to `problem` or breaks its budget or
/// rules, or a setting is out of range.
pub fn evolve<X: Examiner>(
    examiner: &mut X,
    split: &Split,
    problem: &Problem<'_>,
    start: &Plan,
    settings: &EvolveSettings,
    progress: &mut dyn Progress,
) -> Result<Outcome, RefineError<X::Error>> {
    settings.check()?;
    let space = problem.space()?;
    let mut best = stand_at(problem, &space, start)?;
    let mut session = Session::new(Method::Evolve, examiner, split, progress, settings.generations)?;
    let status = ended(run(&mut session, &space, &mut best, settings))?;
    Ok(session.outcome(&space, status, &best))
}

fn run<X: Examiner>(
    session: &mut Session<'_, X>,
    space: &Space<'_>,
    best: &mut Stand,
    settings: &EvolveSettings,
) -> Result<Status, Halt<X::Error>> {
    session.open(space, best)?;
    let mut parent = best.clone();
    // What is measured of a plan: the probe up to some window.
    let mut known: HashMap<Vec<usize>, Vec<f64>> =
        HashMap::from([(parent.places.clone(), parent.probe.clone())]);
    let mut in_a_row = 0;
    for generation in 0..settings.generations {
        if settings.patience == Some(in_a_row) {
            return Ok(Status::OutOfPatience);
        }
        session.round = generation;
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        rng.set_stream(generation as u64);
        let mut offspring = draw(space, &parent.places, settings, &mut rng);
        if offspring.is_empty() {
            return Ok(Status::Exhausted);
        }
        for stage in &settings.stages {
            let windows = session.split().stage(stage.share);
            let mut scored = Vec::with_capacity(offspring.len());
            for places in offspring {
                let values = known.entry(places.clone()).or_default();
                if values.len() < windows {
                    values.extend(session.probe(&space.plan(&places), values.len()..windows)?);
                }
                scored.push((Estimate::of(&values[..windows]).mean, places));
            }
            scored.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: among equals the one drawn first
            session.rejected += scored.len().saturating_sub(stage.survivors);
            offspring = scored.into_iter().take(stage.survivors).map(|(_, places)| places).collect();
        }
        let Some(child) = offspring.pop() else { continue };
        let probe = known.get(&child).cloned().unwrap_or_default();
        if Estimate::of(&probe).mean >= Estimate::of(&parent.probe).mean {
            session.rejected += 1;
            in_a_row += 1;
            continue;
        }
        in_a_row = 0;
        parent = Stand { probe, ..Stand::new(child) };
        let plan = space.plan(&parent.places);
        parent.gate = session.gate(&plan)?;
        session.accepted += 1;
        let mean = Estimate::of(&parent.gate).mean;
        if session.best.is_none_or(|known| mean < known) {
            session.best = Some(mean);
            *best = parent.clone();
        }
        session.settle(&plan)?;
    }
    Ok(Status::Done)
}

/// Different plans near the parent; fewer than asked for where there are not enough.
fn draw(
    space: &Space<'_>,
    parent: &[usize],
    settings: &EvolveSettings,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut seen = HashSet::new();
    let mut offspring = Vec::with_capacity(settings.offspring);
    for _ in 0..settings.offspring {
        let flips = rng.random_range(1..=settings.flips).min(rng.random_range(1..=settings.flips));
        if let Some(places) = walk::swapped(space, parent, flips, rng)
            && seen.insert(places.clone())
        {
            offspring.push(places);
        }
    }
    offspring
}
