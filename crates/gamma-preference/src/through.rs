//! The student runs through: every block is fed with what the quantized blocks before it made.

use burn::tensor::Tensor;

use crate::{
    Aside, Bank, Block, Inputs, LearnError, Network, Progress,
    divergence::divergence,
    learn::load,
    learner::{Learner, Pass, choices, not_finite_in},
    ordered_sum,
    reconstruction::{Scale, Slopes, Target, contract, mixed},
};

/// Weights of the two terms of the loss.
#[derive(Clone, Copy)]
pub(crate) struct Weights {
    pub(crate) hidden: f64,
    pub(crate) divergence: f64,
}

/// One round, in groups of at most as many passes as a round of learning has steps, which bounds
/// what has to be kept.
pub(crate) fn round<N: Network>(
    learner: &mut Learner<'_>,
    network: &mut N,
    inputs: &dyn Inputs,
    round: usize,
    fisher: &[Tensor<3>],
    weights: Weights,
    progress: &mut dyn Progress,
) -> Result<(), LearnError<N::Error>> {
    let passes = learner.passes(round, inputs.count());
    let done = learner.resumed.units(round);
    walk(learner, network, inputs, round, (&passes, done), fisher, weights, progress)
}

/// All `passes` of a round from the one numbered `done` on.
#[expect(clippy::too_many_arguments, reason = "those of a round, and its passes")]
pub(crate) fn walk<N: Network>(
    learner: &mut Learner<'_>,
    network: &mut N,
    inputs: &dyn Inputs,
    round: usize,
    (passes, mut done): (&[Pass], usize),
    fisher: &[Tensor<3>],
    weights: Weights,
    progress: &mut dyn Progress,
) -> Result<(), LearnError<N::Error>> {
    for group in passes[done..].chunks(learner.settings.steps) {
        let forward = Forward::run(network, learner, round, group, inputs, fisher, weights)?;
        let Found { total, slopes } =
            backward(network, learner, (round, group), forward, weights, done, progress)?;
        // The logits move after the whole group, pass by pass in order: all of its draws come from the
        // same logits, so that passes are independent of each other.
        for ((pass, slopes), loss) in group.iter().zip(&slopes).zip(total) {
            learner.take((round, pass.batch), 0, &pass.draws, loss, slopes);
        }
        done += group.len();
        if done < passes.len() {
            learner.rest(round, done, passes, progress)?;
        }
    }
    Ok(())
}

/// What the way back needs of the way there.
struct Forward<B> {
    /// The last block's bank, which is the first one needed on the way back.
    last: Option<Bank<B>>,
    /// The batches in use, each once.
    batches: Vec<usize>,
    /// The student's input of every block, pass by pass.
    inputs: Vec<Vec<Aside>>,
    /// What every block should have answered, batch by batch, and how errors are measured there;
    /// nothing where hidden states have no weight.
    targets: Vec<Option<(Vec<Target>, Scale)>>,
    /// What the last block should have answered, batch by batch.
    teacher: Vec<Tensor<3>>,
    /// The loss of every block's output, pass by pass.
    losses: Vec<Vec<f64>>,
    /// The student's residual stream after the last block, pass by pass.
    student: Vec<Tensor<3>>,
}

impl<B: Block> Forward<B> {
    /// Runs teacher and student side by side through all blocks, each loaded once.
    fn run<N: Network<Block = B>>(
        network: &mut N,
        learner: &mut Learner<'_>,
        round: usize,
        passes: &[Pass],
        inputs: &dyn Inputs,
        fisher: &[Tensor<3>],
        weights: Weights,
    ) -> Result<Self, LearnError<N::Error>> {
        let mut batches: Vec<usize> = passes.iter().map(|pass| pass.batch).collect();
        batches.sort_unstable();
        batches.dedup();
        let mut teacher: Vec<Tensor<3>> = batches.iter().map(|&batch| inputs.batch(batch)).collect();
        let mut forward = Self {
            last: None,
            batches,
            inputs: Vec::new(),
            targets: Vec::new(),
            teacher: Vec::new(),
            losses: Vec::new(),
            student: passes.iter().map(|pass| inputs.batch(pass.batch)).collect(),
        };
        for block in 0..learner.blocks.len() {
            forward.last = None; // one bank in memory at a time
            let bank = load(network, block)?;
            let (targets, scale) = learner.targets((round, block), &bank, &teacher, fisher);
            let aside = |state: &Tensor<3>| network.set_aside(state.clone());
            let kept = forward.student.iter().map(aside).collect::<Result<_, _>>();
            forward.inputs.push(kept.map_err(|source| LearnError::Load { block, source })?);
            let mut losses = Vec::new();
            for (state, pass) in forward.student.iter_mut().zip(passes) {
                let candidates = mixed(&bank, &choices(learner, block, pass));
                *state = bank.block.forward(&candidates, state.clone());
                let number = forward.batches.binary_search(&pass.batch).expect("made of these passes");
                losses.push(targets[number].loss(state.clone(), &scale));
            }
            let losses = numbers(losses);
            let mut checked = passes.iter().zip(&losses);
            let check =
                |(pass, &loss): (&Pass, &f64)| not_finite_in(learner, round, pass, (block, &bank), loss, &[]);
            if let Some(error) = checked.find_map(check) {
                return Err(error);
            }
            forward.losses.push(losses);
            teacher = targets.iter().map(Target::output).collect();
            forward.targets.push((weights.hidden > 0.0).then_some((targets, scale)));
            forward.last = Some(bank);
        }
        forward.teacher = teacher;
        Ok(forward)
    }
}

/// What a group of passes found.
struct Found {
    /// All terms together, pass by pass.
    total: Vec<f64>,
    /// Pass by pass, for every module of the network.
    slopes: Vec<Vec<Vec<f64>>>,
}

/// The end loss, and its gradient and that of every block's own loss, block by block from the last
/// one; each block's forward pass is repeated for the sake of the graph.
fn backward<N: Network>(
    network: &mut N,
    learner: &mut Learner<'_>,
    (round, passes): (usize, &[Pass]),
    forward: Forward<N::Block>,
    Weights { hidden, divergence: ending }: Weights,
    done: usize,
    progress: &mut dyn Progress,
) -> Result<Found, LearnError<N::Error>> {
    let Forward { mut last, batches, mut inputs, mut targets, teacher, losses, student } = forward;
    let number = |pass: &Pass| batches.binary_search(&pass.batch).expect("made of these passes");
    let mut total = vec![0.0; passes.len()];
    let mut upstream = Vec::with_capacity(passes.len());
    let mut sum = 0.0;
    for ((pass, student), total) in passes.iter().zip(student).zip(&mut total) {
        if ending > 0.0 {
            let (loss, gradient) = divergence(network.head(), &teacher[number(pass)], &student, ending);
            upstream.push(gradient);
            *total += loss;
            sum += loss;
        } else {
            upstream.push(student.zeros_like());
        }
    }
    let mean = |own: f64, before: f64| (before * done as f64 + own) / (done + passes.len()) as f64;
    learner.ending = mean(sum, if done == 0 { 0.0 } else { learner.ending });
    for (block, losses) in losses.iter().enumerate() {
        let before = if done == 0 { 0.0 } else { learner.losses[block] };
        learner.losses[block] = mean(losses.iter().sum::<f64>() * hidden, before);
        for (total, loss) in total.iter_mut().zip(losses) {
            *total += loss * hidden;
        }
    }
    let modules = learner.logits.len();
    let mut slopes: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); modules]; passes.len()];
    for block in (0..learner.blocks.len()).rev() {
        let bank = match last.take() {
            Some(bank) => bank,
            None => load(network, block)?,
        };
        let (states, targets) = (inputs.pop().unwrap_or_default(), targets.pop());
        let targets = targets.expect("one for each block");
        let first = learner.first(block);
        for (index, (pass, state)) in passes.iter().zip(states).enumerate() {
            let state = network.fetch(state).map_err(|source| LearnError::Load { block, source })?;
            // Nothing precedes the first block that a gradient could be of use to.
            let leaf = if block == 0 { state } else { state.autodiff().require_grad() };
            let arriving = upstream[index].clone();
            let mut leaving = None;
            let run = |weights: &[Tensor<2>]| {
                let output = bank.block.forward(weights, leaf.clone());
                let through = ordered_sum(output.clone() * arriving);
                match &targets {
                    Some((targets, scale)) => through + targets[number(pass)].loss(output, scale) * hidden,
                    None => through,
                }
            };
            let found = contract(&bank, &choices(learner, block, pass), run, |gradients| {
                leaving = (block > 0).then(|| leaf.grad_remove(gradients)).flatten();
            });
            let Slopes { loss, slopes: own } = found;
            if let Some(error) = not_finite_in(learner, round, pass, (block, &bank), loss, &own) {
                return Err(error);
            }
            if let Some(gradient) = leaving {
                upstream[index] = gradient;
            }
            for (slot, own) in slopes[index][first..].iter_mut().zip(own) {
                *slot = own;
            }
            learner.report((round, block), Some(pass), progress)?;
        }
    }
    Ok(Found { total, slopes })
}

/// The values of one-element tensors, in one transfer from the device.
pub(crate) fn numbers(tensors: Vec<Tensor<1>>) -> Vec<f64> {
    let data = Tensor::cat(tensors, 0).into_data_as::<f32>();
    data.as_slice::<f32>().expect("converted to f32 above").iter().map(|&x| f64::from(x)).collect()
}

#[cfg(test)]
mod tests;
