//! Sums that are the same on every run.

use burn::tensor::Tensor;

/// The sum of all elements of `tensor`, shape `[1]`, in an order that does not depend on the moment.
///
/// Instead of [`Tensor::sum`], whose parts a graphics card adds to one number as they get ready: its last
/// digits differ from run to run. Here one dimension after the other is summed, from the last on, so that
/// the parts stay small enough to add up in single precision.
#[must_use]
pub fn ordered_sum<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    (0..D).rev().fold(tensor, Tensor::sum_dim).reshape([1])
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn totals_are_sums_and_the_same_bit_for_bit_every_time() {
        let device = gamma_device::tested().autodiff();
        let shape = [7, 64, 96];
        let values: Vec<f32> =
            (0..7 * 64 * 96).map(|i| ((i * 7919) % 10_007) as f32 / 10_007.0 - 0.3).collect();
        let expected: f64 = values.iter().map(|&x| f64::from(x)).sum();
        let tensor = Tensor::<3>::from_data(TensorData::new(values, shape), &device).require_grad();
        let number = |tensor: &Tensor<3>| ordered_sum(tensor.clone()).into_scalar::<f32>();
        let first = number(&tensor);
        assert!((f64::from(first) / expected - 1.0).abs() < 1e-6, "{first} instead of {expected}");
        for _ in 0..50 {
            assert_eq!(number(&tensor).to_bits(), first.to_bits());
        }
        let gradient = tensor.grad(&ordered_sum(tensor.clone()).backward()).expect("it is asked for");
        let ones = gradient.into_data_as::<f32>();
        assert_eq!(ones.as_slice::<f32>().expect("floats"), vec![1.0; 7 * 64 * 96]);
    }
}
