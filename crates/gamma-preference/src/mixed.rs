//! Between teacher forcing and running through: blocks are fed with a mixture of both streams.

use burn::tensor::Tensor;

use crate::{
    Block, Inputs, LearnError, Network, Progress,
    learn::load,
    learner::{Learner, choices, not_finite_in},
    reconstruction::{Slopes, Target},
    switched::charged,
};

/// One round: each block is loaded once and takes all passes; the student's part of its input is
/// `share`. Gradients end at the block's input.
pub(crate) fn round<N: Network>(
    learner: &mut Learner<'_>,
    network: &mut N,
    inputs: &dyn Inputs,
    round: usize,
    fisher: &[Tensor<3>],
    share: f64,
    progress: &mut dyn Progress,
) -> Result<(), LearnError<N::Error>> {
    let passes = learner.passes(round, inputs.count());
    let mut batches: Vec<usize> = passes.iter().map(|pass| pass.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let mut teacher: Vec<Tensor<3>> = batches.iter().map(|&batch| inputs.batch(batch)).collect();
    let mut student: Vec<Tensor<3>> = passes.iter().map(|pass| inputs.batch(pass.batch)).collect();
    let mut total = vec![0.0; passes.len()];
    let mut slopes: Vec<Vec<Vec<f64>>> = vec![Vec::new(); passes.len()];
    for block in 0..learner.blocks.len() {
        let bank = load(network, block)?;
        let (targets, scale) = learner.targets((round, block), &bank, &teacher, fisher);
        learner.losses[block] = 0.0;
        for (index, pass) in passes.iter().enumerate() {
            let number = batches.binary_search(&pass.batch).expect("made of these passes");
            let state = teacher[number].clone() * (1.0 - share) + student[index].clone() * share;
            let mut answered = None;
            let run = |weights: &[Tensor<2>]| {
                let output = bank.block.forward(weights, state.clone());
                answered.get_or_insert_with(|| output.clone().inner());
                targets[number].loss(output, &scale)
            };
            let chosen = choices(learner, block, pass);
            let Slopes { loss, slopes: own } = charged(learner.settings.sampling, &bank, &chosen, run);
            if let Some(error) = not_finite_in(learner, round, pass, (block, &bank), loss, &own) {
                return Err(error);
            }
            if let Some(output) = answered {
                student[index] = output;
            }
            total[index] += loss;
            slopes[index].extend(own);
            learner.losses[block] += (loss - learner.losses[block]) / (index + 1) as f64;
            learner.report((round, block), Some(pass), progress)?;
        }
        teacher = targets.iter().map(Target::output).collect();
    }
    for ((pass, slopes), loss) in passes.iter().zip(&slopes).zip(total) {
        learner.take((round, pass.batch), 0, &pass.draws, loss, slopes);
    }
    Ok(())
}
