//! From sums to a score table.

use std::ops::ControlFlow;

use gamma_core::{ModuleScores, ScoreTable, ScoredOption, non_increasing};
use gamma_preference::{Bank, Competitor, Network};

use crate::{ProxyError, Tick};

/// Costs of all modules of one block, candidate by candidate.
pub(crate) type Costs = Vec<Vec<f64>>;

/// No costs yet.
pub(crate) fn zeros(modules: &[Competitor]) -> Costs {
    modules.iter().map(|module| vec![0.0; module.candidates.len()]).collect()
}

/// The table of `costs`, block by block, made non-increasing in stored bits.
pub(crate) fn table<E: std::error::Error + 'static>(
    blocks: &[Vec<Competitor>],
    costs: Vec<Costs>,
) -> Result<ScoreTable, ProxyError<E>> {
    let modules = blocks.iter().flatten().zip(costs.into_iter().flatten());
    let scores = modules.map(|(module, costs)| {
        let options = module.candidates.iter().zip(costs);
        let mut options: Vec<ScoredOption> = options
            .map(|(candidate, cost)| ScoredOption::new(candidate.format.clone(), candidate.stored_bits, cost))
            .collect();
        options.sort_by_key(|option| option.stored_bits);
        let mut repaired: Vec<f64> = options.iter().map(|option| option.cost).collect();
        // A cost that is not finite is left for the table to refuse.
        if repaired.iter().all(|cost| cost.is_finite()) {
            non_increasing(&mut repaired, &vec![1.0; options.len()]);
        }
        options.iter_mut().zip(repaired).for_each(|(option, cost)| option.cost = cost);
        ModuleScores { name: module.name.clone(), shape: module.shape, options }
    });
    Ok(ScoreTable::new(scores.collect())?)
}

/// Loads a block.
pub(crate) fn load<N: Network>(
    network: &mut N,
    block: usize,
) -> Result<Bank<N::Block>, ProxyError<N::Error>> {
    network.load(block).map_err(|source| ProxyError::Load { block, source })
}

/// Reports a step.
pub(crate) fn step<E: std::error::Error + 'static>(
    tick: &mut Tick<'_>,
    done: usize,
    total: usize,
) -> Result<(), ProxyError<E>> {
    match tick(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ProxyError::Interrupted),
    }
}
