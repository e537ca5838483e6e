//! Scores that look at names and sizes alone.

use gamma_core::ScoreTable;
use gamma_preference::{Competitor, Network};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    ProxyError,
    table::{Costs, table},
};

/// Sensitivities spread over a factor of ten, evenly on a logarithmic scale.
pub(crate) fn random<N: Network>(network: &N, seed: u64) -> Result<ScoreTable, ProxyError<N::Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    by_sensitivity(network, &mut |_, _| 10_f64.powf(rng.random::<f64>()))
}

/// The first and the last eighth of the blocks count double, and so do value and down projections
/// everywhere; Mixtral calls the latter `w2`.
pub(crate) fn depth<N: Network>(network: &N) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors().len();
    let edge = blocks.div_ceil(8);
    by_sensitivity(network, &mut |block, module| {
        let at_an_end = block < edge || block + edge >= blocks;
        let doubled = |yes: bool| if yes { 2.0 } else { 1.0 };
        doubled(at_an_end) * doubled(matches!(module.name.role(), "v_proj" | "down_proj" | "w2"))
    })
}

/// Sensitivity times number of weights times `4^-bits`: the error of a uniform quantizer falls by
/// four with each bit.
fn by_sensitivity<N: Network>(
    network: &N,
    sensitivity: &mut dyn FnMut(usize, &Competitor) -> f64,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    let blocks = network.competitors();
    let mut costs: Vec<Costs> = Vec::with_capacity(blocks.len());
    for (number, modules) in blocks.iter().enumerate() {
        let mut of_block = Vec::with_capacity(modules.len());
        for module in modules {
            let weights = (module.shape[0] * module.shape[1]) as f64;
            let scale = sensitivity(number, module) * weights;
            let bits = module.candidates.iter().map(|c| f64::from(c.format.bits().bits()));
            of_block.push(bits.map(|bits| scale * 4_f64.powf(-bits)).collect());
        }
        costs.push(of_block);
    }
    table(blocks, costs)
}
