//! What stands between the matrix products of a block, on the CPU in one pass over memory each.
//!
//! Composed of single tensor operations, norms, gates and attention write every intermediate result to
//! memory, and autodiff keeps them all. Here each is one operation with a gradient of its own that keeps
//! its inputs and nothing else. They run on 32-bit tensors of the backend `flex`; on all others, and as
//! the reference in tests, the composed form runs.

mod attention;
mod gate;
mod lanes;
mod norm;

use std::marker::PhantomData;

use burn::{
    backend::{
        Autodiff, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{DType, Tensor, TensorData},
};

use crate::cpu::is_cpu;

pub(crate) use attention::{Attend, Heads};
pub(crate) use gate::Gate;
pub(crate) use norm::Norm;

/// A differentiable operation on `N` tensors whose result has the shape of the first one.
pub(crate) trait Fused<const N: usize>: Clone + std::fmt::Debug + Send + 'static {
    /// The result. Inputs and result are row-major.
    fn forward(&self, inputs: [&[f32]; N]) -> Vec<f32>;

    /// From the gradient in the result that in each input, of its length.
    fn backward(&self, inputs: [&[f32]; N], gradient: &[f32]) -> [Vec<f32>; N];
}

/// Whether fused operations can take `tensors`.
pub(crate) fn takes<const D: usize>(tensors: &[&Tensor<D>]) -> bool {
    tensors.iter().all(|x| x.dtype() == DType::F32 && is_cpu(&x.device()))
}

/// The result of `op`, differentiable if one of `inputs` is.
///
/// # Panics
/// Unless it [`takes`] them.
pub(crate) fn apply<Op: Fused<N>, const N: usize, const D: usize>(
    op: Op,
    inputs: [Tensor<D>; N],
) -> Tensor<D> {
    if inputs.iter().any(|x| x.device().is_autodiff()) {
        let inputs = inputs.map(|x| {
            let x = if x.device().is_autodiff() { x } else { x.autodiff() };
            x.try_into_primitive::<Autodiff<Flex>>().expect("on the CPU, with a graph")
        });
        let guards = inputs.each_ref().map(Tracked::node);
        let inputs = inputs.map(|x| Input::of(x.into_parts().0));
        let output = inputs[0].like(op.forward(inputs.each_ref().map(Input::values)));
        let output =
            match Step::<Op>(PhantomData).prepare::<NoCheckpointing>(guards).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish((op, inputs), output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            };
        Tensor::from_primitive::<Autodiff<Flex>>(output)
    } else {
        let inputs = inputs.map(|x| Input::of(x.try_into_primitive::<Flex>().expect("on the CPU")));
        let output = op.forward(inputs.each_ref().map(Input::values));
        Tensor::from_primitive::<Flex>(inputs[0].like(output))
    }
}

type Tracked = <Autodiff<Flex> as burn::backend::BackendTypes>::FloatTensorPrimitive;
type Primitive = <Flex as burn::backend::BackendTypes>::FloatTensorPrimitive;

/// A row-major tensor.
#[derive(Clone, Debug)]
struct Input(Primitive);

impl Input {
    fn of(tensor: Primitive) -> Self {
        Self(if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() })
    }

    fn values(&self) -> &[f32] {
        self.0.as_slice().expect("made row-major")
    }

    /// A tensor of the same shape.
    fn like(&self, values: Vec<f32>) -> Primitive {
        Primitive::from_data(TensorData::new(values, self.0.layout().shape().clone()))
    }
}

/// The way back through an operation.
#[derive(Debug)]
struct Step<Op>(PhantomData<Op>);

impl<Op: Fused<N>, const N: usize> Backward<Flex, N> for Step<Op> {
    type State = (Op, [Input; N]);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (op, inputs) = ops.state;
        let arriving = Input::of(gradients.consume::<Flex>(&ops.node));
        let found = op.backward(inputs.each_ref().map(Input::values), arriving.values());
        for ((parent, input), found) in ops.parents.into_iter().zip(&inputs).zip(found) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, input.like(found));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::tensor::{Device, Distribution, activation::silu};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.5), &Device::flex())
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data_as::<f32>().as_slice::<f32>().expect("f32").to_vec()
    }

    fn near(found: &[f32], expected: &[f32], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() < 2e-5 * expected.abs().max(1.0),
                "{what}, {i}: {found}, {expected}"
            );
        }
    }

    /// Both ways find the same, and so do their gradients, in all inputs that ask for one.
    pub(crate) fn agree<const N: usize, const D: usize>(
        inputs: &[Tensor<D>; N],
        fused: impl Fn([Tensor<D>; N]) -> Tensor<D>,
        composed: impl Fn([Tensor<D>; N]) -> Tensor<D>,
    ) {
        near(&values(fused(inputs.clone())), &values(composed(inputs.clone())), "without a graph");
        for asked in 1..1 << N {
            let run = |op: &dyn Fn([Tensor<D>; N]) -> Tensor<D>| {
                let mut leaves: Vec<Option<Tensor<D>>> = vec![None; N];
                let inputs: Vec<Tensor<D>> = (inputs.iter().enumerate())
                    .map(|(i, x)| match asked >> i & 1 {
                        0 => x.clone(),
                        _ => leaves[i].insert(x.clone().autodiff().require_grad()).clone(),
                    })
                    .collect();
                let output = op(inputs.try_into().expect("as many as there were"));
                let weights =
                    (0..output.shape().num_elements()).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
                let weights = Tensor::from_data(TensorData::new(weights, output.dims()), &Device::flex());
                let mut gradients = (output.clone() * weights).sum().backward();
                let slopes =
                    leaves.iter().flatten().map(|x| values(x.grad_remove(&mut gradients).expect("one")));
                (values(output.inner()), slopes.collect::<Vec<_>>())
            };
            let ((found, own), (expected, reference)) = (run(&fused), run(&composed));
            near(&found, &expected, "with a graph");
            for (own, reference) in own.iter().zip(&reference) {
                near(own, reference, "gradient");
            }
        }
    }

    #[test]
    fn norms_are_those_of_single_operations() {
        let (x, weight) = (random([3, 37, 21]), random([21]));
        let norm = |[x]: [Tensor<3>; 1]| apply(Norm::new(&weight, 1e-5), [x]);
        agree(&[x], norm, |[x]| {
            let scale = (x.clone().square().mean_dim(2) + 1e-5).sqrt().recip();
            x * scale * weight.clone().unsqueeze()
        });
    }

    #[test]
    fn gates_are_those_of_single_operations() {
        let inputs = [random([2, 100, 131]), random([2, 100, 131])];
        agree(&inputs, |inputs| apply(Gate, inputs), |[gate, up]| silu(gate) * up);
        // Far out nothing overflows.
        let far = Tensor::<1>::from_floats([-1e4, -90.0, 90.0, 1e4], &Device::flex());
        assert_eq!(
            values(apply(Gate, [far, Tensor::from_floats([1.0; 4], &Device::flex())]))[2..],
            [90.0, 1e4]
        );
    }
}
