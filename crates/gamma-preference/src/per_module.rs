//! Every module on its own: the error of its output, in closed form.

use burn::tensor::Tensor;

use crate::{
    Block, Context, Inputs, LearnError, Network, Observation, Progress, learn::load, learner::Learner,
    shape::energies,
};

/// Charges every option of every module with `E‖(Q - W) x‖² / E‖W x‖²`, where `x` is what the
/// full-precision model feeds the module. Every batch is one observation of every option.
pub(crate) fn survey<N: Network>(
    learner: &mut Learner<'_>,
    network: &mut N,
    inputs: &dyn Inputs,
    progress: &mut dyn Progress,
) -> Result<(), LearnError<N::Error>> {
    learner.expect_steps(inputs.count() * learner.blocks.len());
    let mut hidden: Vec<Tensor<3>> = (0..inputs.count()).map(|batch| inputs.batch(batch)).collect();
    for block in 0..learner.blocks.len() {
        let bank = load(network, block)?;
        if block < learner.resumed.units(0) {
            let run = |h: &Tensor<3>| bank.block.forward(&bank.originals, h.clone());
            hidden = hidden.iter().map(run).collect();
            continue;
        }
        let first = learner.first(block);
        let mut units = vec![0.0; learner.blocks[block].len()];
        let mut errors = Vec::with_capacity(hidden.len());
        for (batch, state) in hidden.iter_mut().enumerate() {
            let found = energies(&bank, state);
            if let Some(module) = found.iter().position(|own| own.iter().any(|sum| !sum.is_finite())) {
                let module = learner.blocks[block][module].name.clone();
                return Err(LearnError::NotFinite { block, round: 0, step: batch, batch, module });
            }
            units.iter_mut().zip(&found).for_each(|(unit, own)| *unit += own[0]);
            errors.push(found);
            *state = bank.block.forward(&bank.originals, state.clone());
            learner.report((0, block), None, progress)?;
        }
        for (batch, found) in errors.iter().enumerate() {
            let context = learner.seen.contexts.len();
            learner.seen.contexts.push(Context { round: 0, batch, bits: 0.0, loss: 0.0 });
            for (module, (own, unit)) in found.iter().zip(&units).enumerate() {
                let unit = f64::max(unit / errors.len() as f64, f64::MIN_POSITIVE);
                let observation = |(candidate, &error): (usize, &f64)| Observation {
                    context,
                    candidate,
                    share: 1.0,
                    value: error / unit,
                };
                learner.seen.modules[first + module].extend(own[1..].iter().enumerate().map(observation));
            }
        }
        if block + 1 < learner.blocks.len() {
            learner.rest(0, block + 1, &[], progress)?;
        }
    }
    Ok(())
}
