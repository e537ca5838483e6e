//! How the error of a module's own output depends on the option: exact, free of noise, and nearly
//! in proportion to what the option costs the model.

use burn::tensor::Tensor;

use crate::{Bank, Block, ordered_sum, through::numbers};

/// For each module of the block the sums over all tokens of `‖W x‖²` and of `‖(Q_k - W) x‖²` for every
/// candidate, where `x` is what the full-precision weights feed the module. A module that no token goes
/// to, such as an expert, makes no error.
pub(crate) fn energies<B: Block>(bank: &Bank<B>, hidden: &Tensor<3>) -> Vec<Vec<f64>> {
    let (mut slots, mut sums) = (Vec::new(), Vec::new());
    bank.block.forward_tapped(&bank.originals, hidden.clone(), &mut |slot, x, y| {
        let x = x.clone().flatten::<2>(0, 1);
        let energy = |weight: Tensor<2>| ordered_sum(x.clone().matmul(weight.transpose()).square());
        let (original, differences) = (&bank.originals[slot], &bank.differences[slot]);
        let difference = |k: usize| differences.clone().narrow(0, k, 1).reshape(original.dims());
        slots.push(slot);
        sums.push(energy(original.clone()));
        sums.extend((0..differences.dims()[0]).map(|k| energy(difference(k))));
        y
    });
    let counts = bank.differences.iter().map(|differences| differences.dims()[0] + 1);
    let mut found: Vec<Vec<f64>> = counts.map(|count| vec![0.0; count]).collect();
    let sums = if sums.is_empty() { Vec::new() } else { numbers(sums) };
    let mut sums = sums.into_iter();
    for slot in slots {
        found[slot].iter_mut().zip(sums.by_ref()).for_each(|(own, sum)| *own = sum);
    }
    found
}
