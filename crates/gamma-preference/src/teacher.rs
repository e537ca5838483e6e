//! Teacher forcing: every block on its own, fed with what the full-precision model feeds it.

use burn::tensor::Tensor;

use crate::{
    Bank, Block, Inputs, LearnError, Network, Progress,
    choices::{Shares, stream},
    learn::load,
    learner::{Learner, not_finite},
    reconstruction::{Scale, Slopes, Target},
    switched::charged,
};

/// One round: each block is loaded once, takes all its steps, and hands its full-precision outputs on.
pub(crate) fn round<N: Network>(
    learner: &mut Learner<'_>,
    network: &mut N,
    inputs: &dyn Inputs,
    round: usize,
    fisher: &[Tensor<3>],
    progress: &mut dyn Progress,
) -> Result<(), LearnError<N::Error>> {
    let batches = learner.batches(round, inputs.count());
    let mut hidden: Vec<Tensor<3>> = batches.iter().map(|&batch| inputs.batch(batch)).collect();
    for block in 0..learner.blocks.len() {
        let bank = load(network, block)?;
        if block < learner.resumed.units(round) {
            let run = |h: &Tensor<3>| bank.block.forward(&bank.originals, h.clone());
            hidden = hidden.iter().map(run).collect();
            continue;
        }
        let (targets, scale) = learner.targets((round, block), &bank, &hidden, fisher);
        let calibration = Calibration { batches: &batches, inputs: &hidden, targets: &targets, scale };
        visit(learner, round, block, &bank, &calibration, progress)?;
        hidden = targets.iter().map(Target::output).collect();
        if block + 1 < learner.blocks.len() {
            learner.rest(round, block + 1, &[], progress)?;
        }
    }
    Ok(())
}

/// What a block is fed with in a round, and what is asked of it.
struct Calibration<'a> {
    batches: &'a [usize],
    inputs: &'a [Tensor<3>],
    targets: &'a [Target],
    scale: Scale,
}

/// All steps of one block in one round.
fn visit<B: Block, E: std::error::Error>(
    learner: &mut Learner<'_>,
    round: usize,
    block: usize,
    bank: &Bank<B>,
    calibration: &Calibration<'_>,
    progress: &mut dyn Progress,
) -> Result<(), LearnError<E>> {
    let Calibration { batches, inputs, targets, scale } = calibration;
    let first = learner.first(block);
    let modules = first..first + learner.blocks[block].len();
    let surveyed = (round == 0).then(|| learner.survey(block));
    let steps = surveyed.as_ref().map_or(learner.settings.steps, Vec::len);
    let mut sum = 0.0;
    for step in 0..steps {
        let mut rng = stream(learner.settings.seed, round, block, step);
        let number = step % inputs.len();
        let draws = match &surveyed {
            Some(choices) => choices[step].clone(),
            None => learner.draws(modules.clone(), round, &mut rng),
        };
        let used: Vec<Shares> = draws.iter().map(|draw| draw.used.clone()).collect();
        let run = |weights: &[Tensor<2>]| {
            targets[number].loss(bank.block.forward(weights, inputs[number].clone()), scale)
        };
        let Slopes { loss, slopes } = charged(learner.settings.sampling, bank, &used, run);
        if let Some(module) = not_finite(bank, &used, loss, &slopes) {
            let (batch, module) = (batches[number], learner.blocks[block][module].name.clone());
            return Err(LearnError::NotFinite { block, round, step, batch, module });
        }
        learner.take((round, batches[number]), first, &draws, loss, &slopes);
        sum += loss;
        learner.losses[block] = sum / (step + 1) as f64;
        learner.report((round, block), None, progress)?;
    }
    Ok(())
}
