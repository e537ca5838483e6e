//! What matrix products are computed in.

use burn::tensor::{Device, FloatDType, Tensor};

use crate::ModelError;

/// The type of the factors in the products of activations and module weights, on the way there and back.
/// Sums are in single precision either way, and so is everything else: residual stream, norms,
/// attention, predictions, and the weights that the factors are rounded from.
///
/// ```
/// use burn::tensor::Device;
/// use gamma_model::Products;
///
/// Products::Bf16.check(&Device::flex())?;
/// # Ok::<(), gamma_model::ModelError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Products {
    /// Single precision.
    #[default]
    F32,
    /// Brain floats of 16 bits, for which graphics cards have units of their own; every factor and every
    /// product has a relative error of up to 2⁻⁹. A CPU gains nothing by them.
    Bf16,
}

impl Products {
    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether `device` computes in this type.
    ///
    /// # Errors
    /// [`ModelError::Products`] if it does not.
    pub fn check(self, device: &Device) -> Result<(), ModelError> {
        if self == Self::Bf16 && !device.supports_dtype(FloatDType::BF16) {
            return Err(ModelError::Products { products: self, device: format!("{device:?}") });
        }
        Ok(())
    }

    /// `x wᵀ` for `x` of shape `[n, in_features]` and `w` of shape `[out_features, in_features]`.
    pub(crate) fn multiply(self, x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
        match self {
            Self::F32 => x.matmul(w.transpose()),
            Self::Bf16 => {
                let [x, w] = [x, w].map(|factor| factor.cast(FloatDType::BF16));
                x.matmul(w.transpose()).cast(FloatDType::F32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data_as::<f32>().as_slice::<f32>().expect("converted").to_vec()
    }

    /// From one brain float to the next, relative.
    const SPACING: f32 = 1.0 / 128.0;

    #[test]
    fn factors_are_rounded_and_sums_are_not() {
        let device = gamma_device::tested();
        if Products::Bf16.check(&device).is_err() {
            return;
        }
        // A long sum of equal parts: in brain floats it would stop growing at 256.
        let ones = Tensor::<2>::ones([1, 4096], &device);
        assert_eq!(values(Products::Bf16.multiply(ones.clone(), ones)), [4096.0]);
        // 1 + 2⁻⁹ is no brain float, and the nearest one is 1.
        let factor = Tensor::<2>::from_data(TensorData::new(vec![1.0_f32 + 1.0 / 512.0], [1, 1]), &device);
        assert_eq!(values(Products::Bf16.multiply(factor.clone(), factor.clone())), [1.0]);
        assert!(values(Products::F32.multiply(factor.clone(), factor))[0] > 1.003);
    }

    #[test]
    fn products_and_gradients_are_those_in_single_precision_but_for_rounding() {
        let device = gamma_device::tested();
        if Products::Bf16.check(&device).is_err() {
            return;
        }
        // Numbers of both signs between -1 and 1, the same in every run.
        let matrix = |shape: [usize; 2], seed: usize| {
            let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
            Tensor::<2>::from_data(TensorData::new(values, shape), &device)
        };
        let (x, w, upstream) = (matrix([7, 33], 1), matrix([5, 33], 2), matrix([7, 5], 3));
        let [exact, rounded] = [Products::F32, Products::Bf16].map(|products| {
            let [x, w] = [&x, &w].map(|leaf| leaf.clone().autodiff().require_grad());
            let y = products.multiply(x.clone(), w.clone());
            let mut gradients = (y.clone() * upstream.clone().autodiff()).sum().backward();
            let mut of = |leaf: &Tensor<2>| values(leaf.grad_remove(&mut gradients).expect("a leaf"));
            [values(y.inner()), of(&x), of(&w)]
        });
        for (exact, rounded) in exact.iter().zip(&rounded) {
            let size = (exact.iter().map(|x| x * x).sum::<f32>() / exact.len() as f32).sqrt();
            let worst = exact.iter().zip(rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Half of it for each factor and for the result, of which the largest is some times the usual one.
            assert!(worst > 0.0 && worst < 3.0 * SPACING * size, "off by {worst} of {size}");
        }
    }
}
