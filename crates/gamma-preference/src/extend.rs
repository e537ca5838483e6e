//! More options for modules that were learned already.

use burn::tensor::Tensor;

use crate::{
    Block, Inputs, LearnError, Learned, Network, Pressure, Progress, Reading, Settings, State, StateError,
    choices::{Shares, balanced, stream},
    fisher::fisher,
    learn::{learned, load},
    learner::{Learner, NOT_A_BLOCK, NOT_A_STEP, Pass, in_order},
    scores::floored,
    through,
};

/// Goes on from the end of a run for candidates that were added since.
///
/// `known` says for each module, in the order of the network, which of its candidates the run had: their
/// numbers now, in the order they had then. What was seen of them stays as it is and counts as before.
/// Further passes at drawn budgets visit the new ones on purpose: every module that has some takes one
/// in half of the passes, as often as an option of the run was visited on average. Costs are then
/// fitted to all that was seen, so that those of the old options move only as far as the new ones tell
/// about what modules have in common.
///
/// `state` may also be one that this very call gave to `progress` before it was interrupted. Its last one
/// is that of a run that ended with all candidates, and can be extended in turn.
///
/// # Errors
/// As [`resume`](crate::resume()); [`LearnError::Setting`] for a run whose student does not run through,
/// that held one budget, or that did not pool; [`LearnError::State`] for one that has not ended.
pub fn extend<N: Network>(
    network: &mut N,
    inputs: &dyn Inputs,
    settings: &Settings,
    (state, known): (State, &[Vec<usize>]),
    progress: &mut dyn Progress,
) -> Result<Learned, LearnError<N::Error>> {
    settings.check()?;
    let refuse = |name, expected| LearnError::Setting { name, found: settings.to_string(), expected };
    let Reading::Through { hidden, divergence } = settings.objective.reading else {
        return Err(refuse("objective", "only what a student that runs through was shown can be extended"));
    };
    if !matches!(settings.pressure, Pressure::DrawnBudgets { .. }) {
        return Err(refuse("pressure", "logits that hold one budget cannot be extended: drawn budgets"));
    }
    if !settings.pooled {
        return Err(refuse("pooled", "new options need what modules have in common"));
    }
    let mut learner = Learner::new(network.competitors().to_vec(), settings);
    let round = settings.rounds + 1;
    // Its own state already has the new candidates.
    let state = if state.is_within(round) { state } else { state.widened(known, &learner.logits)? };
    learner.restore(state, settings.rounds, inputs.count())?;
    if learner.resumed.round < round {
        return Err(StateError::Unfinished.into());
    }
    let fisher = match settings.objective.normaliser {
        crate::Normaliser::Fisher => fisher(network, inputs, settings)?,
        _ => Vec::new(),
    };
    let done = learner.resumed.units(round);
    let passes = if done > 0 {
        std::mem::take(&mut learner.resumed.passes)
    } else {
        see_shapes(&mut learner, network, inputs)?;
        learner.costs = in_order(&learner.blocks, &learner.table()?);
        visits(&mut learner, known, inputs.count())
    };
    learner.expect_steps(learner.done + (passes.len() - done) * learner.blocks.len());
    let weights = through::Weights { hidden, divergence };
    through::walk(&mut learner, network, inputs, round, (&passes, done), &fisher, weights, progress)?;
    learner.rest(round, 0, &[], progress)?;
    learned(learner)
}

/// Measures the errors of all options anew, on data that are the same for all.
fn see_shapes<N: Network>(
    learner: &mut Learner<'_>,
    network: &mut N,
    inputs: &dyn Inputs,
) -> Result<(), LearnError<N::Error>> {
    learner.shapes = Vec::new();
    let batches = learner.batches(0, inputs.count());
    let mut hidden: Vec<Tensor<3>> = batches.iter().map(|&batch| inputs.batch(batch)).collect();
    for block in 0..learner.blocks.len() {
        let bank = load(network, block)?;
        learner.see_shapes(block, &bank, &hidden);
        let run = |h: &Tensor<3>| bank.block.forward(&bank.originals, h.clone());
        hidden = hidden.iter().map(run).collect();
    }
    learner.shapes.iter_mut().for_each(|shapes| *shapes = floored(shapes.iter().copied()));
    Ok(())
}

/// Passes in half of which each module takes an option that is not `known`.
fn visits(learner: &mut Learner<'_>, known: &[Vec<usize>], available: usize) -> Vec<Pass> {
    let (settings, round) = (learner.settings, learner.settings.rounds + 1);
    let all = learner.logits.iter().map(Vec::len).max().unwrap_or(1);
    let times = settings.survey_draws + (settings.rounds * settings.steps).div_ceil(all);
    let mut rng = stream(settings.seed, round, NOT_A_BLOCK, NOT_A_STEP);
    // Of each module, what it takes in each pass; nothing where it draws as it would.
    let orders: Vec<Vec<Option<usize>>> = (learner.logits.iter().zip(known))
        .map(|(logits, known)| {
            let new: Vec<usize> = (0..logits.len()).filter(|k| !known.contains(k)).collect();
            let order = if new.is_empty() { Vec::new() } else { balanced(2 * new.len(), times, &mut rng) };
            order.into_iter().map(|number| new.get(number).copied()).collect()
        })
        .collect();
    let batches = learner.batches(round, available);
    let modules = learner.logits.len();
    let mut pass = |step: usize| {
        let mut rng = stream(settings.seed, round, NOT_A_BLOCK - 1, step);
        let mut draws = learner.draws(0..modules, round, &mut rng);
        for (draw, order) in draws.iter_mut().zip(&orders) {
            if let Some(&Some(candidate)) = order.get(step) {
                draw.used = Shares::Pure(candidate);
            }
        }
        Pass { step, batch: batches[step % batches.len()], draws, price: learner.price }
    };
    (0..orders.iter().map(Vec::len).max().unwrap_or(0)).map(&mut pass).collect()
}

#[cfg(test)]
mod tests;
