//! The teacher-forced loss of one block, and its gradient in the choices.

use burn::tensor::{Tensor, TensorData};

use crate::{Bank, Block};

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
        let mask: Vec<f32> = squares.iter().enumerate().map(|pair| f32::from(u8::from(counts(pair)))).collect();
        let kept = squares.iter().zip(&mask);
        let energy = kept.map(|(&square, &mask)| f64::from(square) * f64::from(mask)).sum();
        let tokens_kept = mask.iter().map(|&m| f64::from(m)).sum();
        let mask = Tensor::from_data(TensorData::new(mask, [batch, tokens, 1]), &output.device());
        Self { output, mask, energy, tokens: tokens_kept }
    }

    pub(crate) fn output(&self) -> Tensor<3> {
        self.output.clone()
    }
}

/// `Z`, the mean squared norm of the residual stream over the tokens that count.
pub(crate) fn stream_energy(targets: &[Target]) -> f64 {
    let (energy, tokens) = targets.iter().fold((0.0, 0.0), |(e, t), x| (e + x.energy, t + x.tokens));
    (energy / f64::max(tokens, 1.0)).max(f64::MIN_POSITIVE)
}

/// Runs the block on `input` with the weights `W + Σ_k y_k (Q_k - W)` and compares with `target`:
/// `R = E_t ‖f(h; W̃) - f(h; W)‖² / Z`.
///
/// Autodiff sees the mixed weights as leaves and never the candidates: `∂R/∂y_k = ⟨G, Q_k⟩`, so
/// that one inner product per candidate is all that survives the step.
pub(crate) fn slopes<B: Block>(
    bank: &Bank<B>,
    input: Tensor<3>,
    target: &Target,
    energy: f64,
    choices: &[Vec<f32>],
) -> Slopes {
    let weights: Vec<Tensor<2>> =
        bank.originals.iter().zip(&bank.differences).zip(choices).map(|((w, d), y)| mix(w, d, y).autodiff().require_grad()).collect();
    let output = bank.block.forward(&weights, input);
    let error = (output - target.output.clone()) * target.mask.clone();
    let loss = error.square().sum() / (energy * target.tokens.max(1.0));
    let mut gradients = loss.backward();
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
    let mut answers = answers.as_slice::<f32>().expect("converted to f32 above").iter().map(|&x| f64::from(x));
    let loss = answers.next().unwrap_or(f64::NAN);
    let slopes = choices.iter().map(|y| answers.by_ref().take(y.len()).collect()).collect();
    Slopes { loss, slopes }
}

/// `W + Σ_k y_k (Q_k - W)`; a one-hot `y` touches one candidate only.
fn mix(original: &Tensor<2>, differences: &Tensor<2>, y: &[f32]) -> Tensor<2> {
    let shape = original.dims();
    let difference = match y.iter().position(|&share| share == 1.0) {
        Some(k) => differences.clone().narrow(0, k, 1),
        None => {
            let y = Tensor::<2>::from_data(TensorData::new(y.to_vec(), [1, y.len()]), &original.device());
            y.matmul(differences.clone())
        }
    };
    original.clone() + difference.reshape(shape)
}
