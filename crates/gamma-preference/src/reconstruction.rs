//! The loss of one block, and the gradient of a loss in its choices.

use burn::tensor::{Gradients, Tensor, TensorData};

use crate::{Bank, Block, Normaliser, choices::Shares, ordered_sum};

/// What a block should answer to a batch: its own full-precision output.
pub(crate) struct Target {
    output: Tensor<3>,
    /// 1 for the tokens that count, 0 for the masked ones; `[batch, tokens, 1]`.
    mask: Tensor<3>,
    /// Squared norm of the output, summed over the tokens that count.
    energy: f64,
    tokens: f64,
}

/// The loss of a batch and, for each module, `⟨G, Q_k - W⟩` for every candidate `k`, where `G` is
/// the gradient of the loss in the module's weight.
#[derive(Debug)]
pub(crate) struct Slopes {
    pub(crate) loss: f64,
    pub(crate) slopes: Vec<Vec<f64>>,
}

/// Tokens whose norm is above this many times the median are left out of the loss: a few massive
/// activations would otherwise own it.
const MASSIVE: f32 = 50.0;

impl Target {
    /// The full-precision output of the block; the first token of each sequence is masked.
    pub(crate) fn new(output: Tensor<3>) -> Self {
        let [batch, tokens, _] = output.dims();
        let squares = output.clone().square().sum_dim(2).into_data_as::<f32>();
        let squares = squares.as_slice::<f32>().expect("converted to f32 above");
        let mut sorted = squares.to_vec();
        sorted.sort_by(f32::total_cmp);
        let limit = sorted[sorted.len() / 2] * MASSIVE * MASSIVE;
        let counts = |(i, &square): (usize, &f32)| (tokens == 1 || i % tokens != 0) && square <= limit;
        let mask: Vec<f32> =
            squares.iter().enumerate().map(|pair| f32::from(u8::from(counts(pair)))).collect();
        let kept = squares.iter().zip(&mask);
        let energy = kept.map(|(&square, &mask)| f64::from(square) * f64::from(mask)).sum();
        let tokens_kept = mask.iter().map(|&m| f64::from(m)).sum();
        let mask = Tensor::from_data(TensorData::new(mask, [batch, tokens, 1]), &output.device());
        Self { output, mask, energy, tokens: tokens_kept }
    }

    pub(crate) fn output(&self) -> Tensor<3> {
        self.output.clone()
    }

    /// The error of `output` in the measure of `scale`, averaged over the tokens that count.
    pub(crate) fn loss(&self, output: Tensor<3>, scale: &Scale) -> Tensor<1> {
        let error = (output - self.output.clone()) * self.mask.clone();
        match scale {
            Scale::Energy(energy) => ordered_sum(error.square()) / (energy * self.tokens.max(1.0)),
            Scale::Fisher(fisher) => {
                ordered_sum(error.square() * (**fisher).clone()) / (2.0 * self.tokens.max(1.0))
            }
        }
    }

    /// Sums over the tokens that count: of the squares of `x`, channel by channel, shape
    /// `[1, 1, width]`, and of the tokens themselves.
    pub(crate) fn squares(&self, x: &Tensor<3>) -> (Tensor<3>, f64) {
        ((x.clone() * self.mask.clone()).square().sum_dim(0).sum_dim(1), self.tokens)
    }

    /// Squared norm of what the block adds to its input, summed over the tokens that count.
    fn update_energy(&self, input: &Tensor<3>) -> f64 {
        let update = (self.output.clone() - input.clone()) * self.mask.clone();
        f64::from(ordered_sum(update.square()).into_scalar::<f32>())
    }
}

/// How an error of a block's output is measured.
pub(crate) enum Scale {
    /// `‖e‖² / Z`.
    Energy(f64),
    /// `½ Σ_c F_c e_c²` with one `F` per channel, `[1, 1, width]`: nats per token.
    Fisher(Box<Tensor<3>>),
}

impl Scale {
    /// The measure at one block, from its full-precision inputs and outputs.
    pub(crate) fn new<'a>(
        normaliser: Normaliser,
        batches: impl Iterator<Item = (&'a Tensor<3>, &'a Target)>,
        fisher: Option<&Tensor<3>>,
    ) -> Self {
        match (normaliser, fisher) {
            (Normaliser::Fisher, Some(fisher)) => Self::Fisher(Box::new(fisher.clone())),
            (Normaliser::Update, _) => {
                let sums = batches.map(|(input, target)| (target.update_energy(input), target.tokens));
                Self::Energy(mean_energy(sums))
            }
            _ => Self::Energy(mean_energy(batches.map(|(_, target)| (target.energy, target.tokens)))),
        }
    }
}

/// `Z`: a mean squared norm per token, from sums over batches.
fn mean_energy(sums: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (energy, tokens) = sums.fold((0.0, 0.0), |(e, t), (energy, tokens)| (e + energy, t + tokens));
    (energy / f64::max(tokens, 1.0)).max(f64::MIN_POSITIVE)
}

/// Differentiates the loss that `run` makes of the mixed weights, and answers its value and slopes.
///
/// Autodiff sees the mixed weights as leaves and never the candidates: `∂R/∂y_k = ⟨G, Q_k⟩`, so
/// that one inner product per candidate is all that survives the step. `rest` is shown the other
/// gradients.
pub(crate) fn contract<B: Block>(
    bank: &Bank<B>,
    choices: &[Shares],
    run: impl FnOnce(&[Tensor<2>]) -> Tensor<1>,
    rest: impl FnOnce(&mut Gradients),
) -> Slopes {
    let leaf = |weight: Tensor<2>| weight.autodiff().require_grad();
    let weights: Vec<Tensor<2>> = mixed(bank, choices).into_iter().map(leaf).collect();
    let loss = run(&weights);
    let mut gradients = loss.backward();
    rest(&mut gradients);
    let mut answers = vec![loss.inner()];
    for (weight, difference) in weights.iter().zip(&bank.differences) {
        let [candidates, size] = difference.dims();
        answers.push(match weight.grad_remove(&mut gradients) {
            Some(gradient) => difference.clone().matmul(gradient.reshape([size, 1])).reshape([candidates]),
            // A weight that the output does not depend on.
            None => Tensor::zeros([candidates], &difference.device()),
        });
    }
    // One transfer from the device per step.
    let answers = Tensor::cat(answers, 0).into_data_as::<f32>();
    let mut answers =
        answers.as_slice::<f32>().expect("converted to f32 above").iter().map(|&x| f64::from(x));
    let loss = answers.next().unwrap_or(f64::NAN);
    let counts = bank.differences.iter().map(|differences| differences.dims()[0]);
    let slopes = counts.map(|count| answers.by_ref().take(count).collect()).collect();
    Slopes { loss, slopes }
}

/// The weights of a block under `choices`, one per module.
pub(crate) fn mixed<B>(bank: &Bank<B>, choices: &[Shares]) -> Vec<Tensor<2>> {
    let modules = bank.originals.iter().zip(&bank.differences).zip(choices);
    modules.map(|((original, differences), choice)| mix(original, differences, choice)).collect()
}

/// `W + Σ_k y_k (Q_k - W)`; a pure choice touches one candidate only.
pub(crate) fn mix(original: &Tensor<2>, differences: &Tensor<2>, choice: &Shares) -> Tensor<2> {
    let difference = match choice {
        Shares::Pure(k) => differences.clone().narrow(0, *k, 1),
        Shares::Mixed(y) => {
            let y: Vec<f32> = y.iter().map(|&share| share as f32).collect();
            let shape = [1, y.len()];
            Tensor::<2>::from_data(TensorData::new(y, shape), &original.device()).matmul(differences.clone())
        }
    };
    original.clone() + difference.reshape(original.dims())
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::tensor::activation::silu;

    use super::*;
    use crate::Tap;

    /// `x + silu(x W₁ᵀ) W₂ᵀ`.
    pub(crate) struct Mlp;

    impl Block for Mlp {
        fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
            let linear = |x: &Tensor<3>, w: &Tensor<2>| x.clone().matmul(w.clone().transpose().unsqueeze());
            let inner = silu(tap(0, &hidden, linear(&hidden, &weights[0])));
            let output = tap(1, &inner, linear(&inner, &weights[1]));
            hidden + output
        }
    }

    /// `x Wᵀ`.
    pub(crate) struct Linear;

    impl Block for Linear {
        fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
            let output = hidden.clone().matmul(weights[0].clone().transpose().unsqueeze());
            tap(0, &hidden, output)
        }
    }

    fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
        // Drawn on the host: the device's own generator is shared by all tests of the process.
        let mut rng = crate::choices::stream(seed, 0, 0, 0);
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| rand::RngExt::random::<f32>(&mut rng) * 2.0 - 1.0).collect();
        Tensor::from_data(TensorData::new(values, shape), &gamma_device::tested())
    }

    pub(crate) fn bank<B: Block>(block: B, shapes: &[[usize; 2]], candidates: usize) -> Bank<B> {
        let originals = (10..).zip(shapes).map(|(seed, &shape)| random(shape, seed)).collect();
        let differences =
            (20..).zip(shapes).map(|(seed, [o, i])| random([candidates, o * i], seed) * 0.3).collect();
        Bank { block, originals, differences }
    }

    /// The mean squared norm of the stream.
    fn energy(target: &Target) -> f64 {
        target.energy / target.tokens
    }

    /// What `find` finds of the loss `R = E_t ‖f(h; W̃) - f(h; W)‖² / Z` on some input.
    pub(crate) fn judged<B: Block, T>(
        bank: &Bank<B>,
        find: impl FnOnce(&dyn Fn(&[Tensor<2>]) -> Tensor<1>) -> T,
    ) -> T {
        let input = random([2, 9, 6], 1);
        let target = Target::new(bank.block.forward(&bank.originals, input.clone()));
        let scale = Scale::Energy(energy(&target));
        find(&|weights| target.loss(bank.block.forward(weights, input.clone()), &scale))
    }

    fn loss_and_slopes<B: Block>(bank: &Bank<B>, choices: &[Shares]) -> Slopes {
        judged(bank, |run| contract(bank, choices, run, |_| ()))
    }

    #[test]
    fn slopes_equal_central_differences_of_the_loss() {
        let bank = bank(Mlp, &[[8, 6], [6, 8]], 3);
        let choices = [vec![0.2, 0.5, 0.3], vec![0.7, 0.2, 0.1]];
        let found = loss_and_slopes(&bank, &choices.clone().map(Shares::Mixed)).slopes;
        let step = 1e-2;
        for (module, candidate) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let shifted = |by: f64| {
                let mut choices = choices.clone();
                choices[module][candidate] += by;
                loss_and_slopes(&bank, &choices.map(Shares::Mixed)).loss
            };
            let expected = (shifted(step) - shifted(-step)) / (2.0 * step);
            let found = found[module][candidate];
            assert!(
                (found - expected).abs() < 2e-3 * expected.abs().max(0.1),
                "{found} instead of {expected}"
            );
        }
    }

    #[test]
    fn slopes_equal_those_of_autodiff_through_the_mixture() {
        let bank = bank(Mlp, &[[8, 6], [6, 8]], 4);
        let choices = [vec![0.1_f32, 0.2, 0.3, 0.4], vec![0.0, 1.0, 0.0, 0.0]];
        let mixed = Shares::Mixed(choices[0].iter().map(|&y| f64::from(y)).collect());
        let found = loss_and_slopes(&bank, &[mixed, Shares::Pure(1)]);

        // The plain version: the shares are leaves and the graph holds every candidate.
        let input = random([2, 9, 6], 1);
        let target = Target::new(bank.block.forward(&bank.originals, input.clone()));
        let device = gamma_device::tested();
        let leaves: Vec<Tensor<2>> = choices
            .iter()
            .map(|y| {
                Tensor::<2>::from_data(TensorData::new(y.clone(), [1, 4]), &device).autodiff().require_grad()
            })
            .collect();
        let mixed: Vec<Tensor<2>> = (bank.originals.iter().zip(&bank.differences).zip(&leaves))
            .map(|((w, d), y)| w.clone() + y.clone().matmul(d.clone()).reshape(w.dims()))
            .collect();
        let error = (bank.block.forward(&mixed, input) - target.output()) * target.mask.clone();
        let loss = error.square().sum() / (energy(&target) * target.tokens);
        let gradients = loss.backward();
        for (leaf, found) in leaves.iter().zip(&found.slopes) {
            let expected = leaf.grad(&gradients).expect("a leaf").into_data_as::<f32>();
            for (expected, found) in expected.as_slice::<f32>().expect("f32").iter().zip(found) {
                assert!((f64::from(*expected) - found).abs() < 1e-5, "{found} instead of {expected}");
            }
        }
        assert!((f64::from(loss.into_scalar::<f32>()) - found.loss).abs() < 1e-6);
    }

    #[test]
    fn the_parts_of_a_linear_block_add_up_to_its_loss() {
        let bank = bank(Linear, &[[6, 6]], 3);
        for choice in [Shares::Mixed(vec![0.2, 0.5, 0.3]), Shares::Pure(1)] {
            let Slopes { loss, slopes } = loss_and_slopes(&bank, std::slice::from_ref(&choice));
            let parts: f64 = (0..3).map(|k| 0.5 * slopes[0][k] * choice.of(k)).sum();
            assert!((parts - loss).abs() < 1e-5 * loss, "{parts} instead of {loss}");
        }
    }

    #[test]
    fn first_tokens_and_massive_activations_are_masked() {
        let mut values = vec![1.0_f32; 2 * 8 * 4];
        values[5 * 4] = 1e4; // token 5 of the first sequence
        let output = Tensor::<3>::from_data(TensorData::new(values, [2, 8, 4]), &gamma_device::tested());
        let target = Target::new(output);
        assert!((target.tokens - 13.0).abs() < 1e-12);
        assert!((energy(&target) - 4.0).abs() < 1e-12);
    }
}
