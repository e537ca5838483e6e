//! How the error of a module's own output depends on the option: exact, free of noise, and nearly
//! in proportion to what the option costs the model.

use burn::tensor::Tensor;

use crate::{Bank, Block, through::numbers};

/// For each module of the block the sums over all tokens of `‖W x‖²` and of `‖(Q_k - W) x‖²` for every
/// candidate, where `x` is what the full-precision weights feed the module.
pub(crate) fn energies<B: Block>(bank: &Bank<B>, hidden: &Tensor<3>) -> Vec<Vec<f64>> {
    let inputs = bank.block.inputs(&bank.originals, hidden.clone());
    assert_eq!(inputs.len(), bank.originals.len(), "one input per module");
    let mut sums = Vec::new();
    for ((x, original), differences) in inputs.into_iter().zip(&bank.originals).zip(&bank.differences) {
        let x = x.flatten::<2>(0, 1);
        let energy = |weight: Tensor<2>| x.clone().matmul(weight.transpose()).square().sum();
        sums.push(energy(original.clone()));
        let difference = |k: usize| differences.clone().narrow(0, k, 1).reshape(original.dims());
        sums.extend((0..differences.dims()[0]).map(|k| energy(difference(k))));
    }
    let mut sums = numbers(sums).into_iter();
    let counts = bank.differences.iter().map(|differences| differences.dims()[0] + 1);
    counts.map(|count| sums.by_ref().take(count).collect()).collect()
}
