//! Gradients of the end loss in every block, one block at a time.

use burn::tensor::Tensor;
use gamma_preference::{Block, ordered_sum};

/// Gradients that one block hands out.
pub(crate) struct Pulled {
    /// In the block's input.
    pub(crate) hidden: Tensor<3>,
    /// In each weight that was asked for.
    pub(crate) weights: Vec<Tensor<2>>,
}

/// Carries the gradient `upstream` in a block's output back to its input and weights, by running the
/// block again: nothing but block inputs need be kept from the way forward.
pub(crate) fn pull_back<B: Block>(
    block: &B,
    weights: &[Tensor<2>],
    hidden: &Tensor<3>,
    upstream: &Tensor<3>,
) -> Pulled {
    let leaves: Vec<Tensor<2>> = weights.iter().map(|w| w.clone().autodiff().require_grad()).collect();
    let input = hidden.clone().autodiff().require_grad();
    let output = block.forward(&leaves, input.clone());
    let mut gradients = ordered_sum(output * Tensor::from_inner(upstream.clone())).backward();
    Pulled {
        hidden: input.grad_remove(&mut gradients).unwrap_or_else(|| hidden.zeros_like()),
        weights: leaves
            .iter()
            .map(|leaf| leaf.grad_remove(&mut gradients).unwrap_or_else(|| leaf.clone().inner().zeros_like()))
            .collect(),
    }
}
