//! The end loss: how far the student's predictions are from the teacher's.

use burn::tensor::{Tensor, activation::log_softmax};

use crate::{Head, ordered_sum};

/// Logits in memory at once, of the student and of the teacher each: 16 MiB.
const LOGITS: usize = 1 << 22;

/// `weight` times the mean over all tokens of `KL(teacher ‖ student)`, in nats, and its gradient in
/// the student's residual stream after the last block.
///
/// Taken in pieces, so that memory does not grow with tokens times vocabulary.
pub(crate) fn divergence<H: Head>(
    head: &H,
    teacher: &Tensor<3>,
    student: &Tensor<3>,
    weight: f64,
) -> (f64, Tensor<3>) {
    let [batch, length, width] = student.dims();
    let tokens = batch * length;
    let flat = |states: &Tensor<3>| states.clone().reshape([1, tokens, width]);
    let (teacher, student) = (flat(teacher), flat(student));
    let [_, _, vocabulary] = head.logits(teacher.clone().narrow(1, 0, 1)).dims();
    let rows = (LOGITS / vocabulary).max(1);
    let (mut losses, mut gradients) = (Vec::new(), Vec::new());
    for from in (0..tokens).step_by(rows) {
        let count = rows.min(tokens - from);
        let leaf = student.clone().narrow(1, from, count).autodiff().require_grad();
        let expected = log_softmax(head.logits(teacher.clone().narrow(1, from, count)), 2);
        let found = log_softmax(head.logits(leaf.clone()), 2); // [1, count, vocabulary]
        let loss = ordered_sum(expected.clone().exp() * (expected - found)) * (weight / tokens as f64);
        let mut all = loss.backward();
        gradients.push(leaf.grad_remove(&mut all).unwrap_or_else(|| leaf.inner().zeros_like()));
        losses.push(loss.inner());
    }
    let losses = Tensor::cat(losses, 0).into_data_as::<f32>();
    let loss = losses.as_slice::<f32>().expect("converted to f32 above").iter().map(|&x| f64::from(x)).sum();
    (loss, Tensor::cat(gradients, 1).reshape([batch, length, width]))
}
