//! Costs without gradients: every option of every module takes its turn, all others as drawn.

use burn::tensor::Tensor;

use crate::{
    Bank, Block, Sampling,
    choices::Shares,
    reconstruction::{Slopes, contract, mix, mixed},
    through::numbers,
};

/// The loss that `run` makes of the weights under `choices`, and what it charges every candidate with, in
/// the way that `sampling` asks for.
pub(crate) fn charged<B: Block>(
    sampling: Sampling,
    bank: &Bank<B>,
    choices: &[Shares],
    run: impl FnMut(&[Tensor<2>]) -> Tensor<1>,
) -> Slopes {
    match sampling {
        Sampling::Conditional => switched(bank, choices, run),
        _ => contract(bank, choices, run, |_| ()),
    }
}

/// The loss that `run` makes of the weights under `choices`, and for every candidate of every module twice
/// what the loss is with it, less what it is with the module's original weight: the same measure as
/// the slopes of a [`contract`](crate::reconstruction::contract)ion, of which a cost is half.
///
/// As many runs as all modules have candidates, one more for each module, and one.
fn switched<B: Block>(
    bank: &Bank<B>,
    choices: &[Shares],
    mut run: impl FnMut(&[Tensor<2>]) -> Tensor<1>,
) -> Slopes {
    let mut weights = mixed(bank, choices);
    let mut losses = vec![run(&weights)];
    for module in 0..weights.len() {
        let (original, differences) = (&bank.originals[module], &bank.differences[module]);
        let drawn = std::mem::replace(&mut weights[module], original.clone());
        losses.push(run(&weights));
        for candidate in 0..differences.dims()[0] {
            weights[module] = mix(original, differences, &Shares::Pure(candidate));
            losses.push(run(&weights));
        }
        weights[module] = drawn;
    }
    let mut losses = numbers(losses).into_iter();
    let mut next = || losses.next().unwrap_or(f64::NAN);
    let loss = next();
    let slopes = bank.differences.iter().map(|differences| {
        let without = next();
        (0..differences.dims()[0]).map(|_| 2.0 * (next() - without)).collect()
    });
    Slopes { loss, slopes: slopes.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconstruction::tests::{Linear, Mlp, bank, judged};

    #[test]
    fn of_a_linear_block_with_one_module_both_ways_find_the_same() {
        let bank = bank(Linear, &[[6, 6]], 3);
        for chosen in 0..3 {
            let choices = [Shares::Pure(chosen)];
            let by_gradient = judged(&bank, |run| contract(&bank, &choices, run, |_| ()));
            let by_turns = judged(&bank, |run| switched(&bank, &choices, run));
            let expected = by_gradient.slopes[0][chosen];
            assert!((by_turns.loss - by_gradient.loss).abs() < 1e-6);
            assert!((by_turns.slopes[0][chosen] - expected).abs() < 1e-5 * expected);
        }
    }

    #[test]
    fn differences_are_those_of_separate_runs() {
        let bank = bank(Mlp, &[[8, 6], [6, 8]], 3);
        let choices = [Shares::Pure(2), Shares::Pure(0)];
        let found = judged(&bank, |run| switched(&bank, &choices, run));
        let loss = |choices: &[Shares]| judged(&bank, |run| contract(&bank, choices, run, |_| ())).loss;
        let none = Shares::Mixed(vec![0.0; 3]);
        for candidate in 0..3 {
            let other = Shares::Pure(candidate);
            let first =
                loss(&[other.clone(), choices[1].clone()]) - loss(&[none.clone(), choices[1].clone()]);
            let second = loss(&[choices[0].clone(), other]) - loss(&[choices[0].clone(), none.clone()]);
            assert!((found.slopes[0][candidate] - 2.0 * first).abs() < 1e-5, "{found:?} {first}");
            assert!((found.slopes[1][candidate] - 2.0 * second).abs() < 1e-5, "{found:?} {second}");
        }
        assert!((found.loss - loss(&choices)).abs() < 1e-6);
    }
}
