//! The result of a quantizer.

use gamma_core::{Format, ModuleName};
use ndarray::{Array2, CowArray, Ix2};

use crate::{IntWeight, QuantizeError};

/// A quantized matrix: its exact storage, and the weights that it decodes to.
#[derive(Clone, Debug, PartialEq)]
pub enum QuantizedWeight {
    /// Affine integer codes, which every exporter can write.
    Int(IntWeight),
    /// The code of one quantizer, known by its decoded values and its size. Exporters of packed
    /// files refuse it by name.
    Custom(CustomWeight),
}

/// A matrix in a code that only its quantizer can store.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomWeight {
    format: Format,
    values: Array2<f32>,
    stored_bits: u64,
}

impl CustomWeight {
    /// A matrix that decodes to `values` and takes exactly `stored_bits` bits, everything counted
    /// that decoding needs.
    ///
    /// # Errors
    /// [`QuantizeError`] if `format` is not [`Format::Custom`], or `values` is empty or not finite.
    pub fn new(
        module: &ModuleName,
        format: Format,
        values: Array2<f32>,
        stored_bits: u64,
    ) -> Result<Self, QuantizeError> {
        if !matches!(format, Format::Custom { .. }) {
            return Err(QuantizeError::NotCustom { module: module.clone(), format });
        }
        crate::WeightView::new(module, values.view())?;
        // Row by row, so that `dequantize_into` is a copy.
        let values = CowArray::<f32, Ix2>::from(values).as_standard_layout().into_owned();
        Ok(Self { format, values, stored_bits })
    }

    /// How the weights are stored, always [`Format::Custom`].
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The decoded weights, stored row by row.
    #[must_use]
    pub fn values(&self) -> &Array2<f32> {
        &self.values
    }
}

impl QuantizedWeight {
    /// `[out_features, in_features]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Int(weight) => weight.shape(),
            Self::Custom(weight) => [weight.values.nrows(), weight.values.ncols()],
        }
    }

    /// How the weights are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::Int(weight) => weight.format(),
            Self::Custom(weight) => weight.format.clone(),
        }
    }

    /// Exact storage in bits, scales and zero points counted.
    #[must_use]
    pub fn stored_bits(&self) -> u64 {
        match self {
            Self::Int(weight) => weight.stored_bits(),
            Self::Custom(weight) => weight.stored_bits,
        }
    }

    /// The weights that the codes stand for.
    #[must_use]
    pub fn dequantize(&self) -> Array2<f32> {
        match self {
            Self::Int(weight) => weight.dequantize(),
            Self::Custom(weight) => weight.values.clone(),
        }
    }

    /// Writes the weights that the codes stand for, row after row.
    ///
    /// # Panics
    /// If `values` does not have one place per weight.
    pub fn dequantize_into(&self, values: &mut [f32]) {
        match self {
            Self::Int(weight) => weight.dequantize_into(values),
            Self::Custom(weight) => {
                let stored = weight.values.as_slice().expect("custom weights are stored row by row");
                values.copy_from_slice(stored);
            }
        }
    }

    /// The integer codes, where there are any.
    #[must_use]
    pub fn as_int(&self) -> Option<&IntWeight> {
        match self {
            Self::Int(weight) => Some(weight),
            Self::Custom(_) => None,
        }
    }
}

impl From<IntWeight> for QuantizedWeight {
    fn from(weight: IntWeight) -> Self {
        Self::Int(weight)
    }
}

impl From<CustomWeight> for QuantizedWeight {
    fn from(weight: CustomWeight) -> Self {
        Self::Custom(weight)
    }
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, GroupSize};
    use ndarray::array;

    use super::*;

    #[test]
    fn custom_values_come_back_row_by_row_from_any_layout() {
        let module = ModuleName::new("m");
        let format = Format::Custom { bits: BitWidth::B2, name: "own".into() };
        let transposed = array![[1.0, 2.0], [3.0, 4.0]].reversed_axes();
        let weight: QuantizedWeight = CustomWeight::new(&module, format, transposed, 77).unwrap().into();
        let mut values = array![[0.0; 4]];
        weight.dequantize_into(values.as_slice_mut().unwrap());
        assert_eq!(values, array![[1.0, 3.0, 2.0, 4.0]]);
        assert_eq!((weight.stored_bits(), weight.shape()), (77, [2, 2]));
        assert!(weight.as_int().is_none());
    }

    #[test]
    fn custom_weights_under_an_integer_format_or_not_finite_are_refused() {
        let module = ModuleName::new("m");
        let int = Format::symmetric(BitWidth::B4, GroupSize::G128);
        let error = CustomWeight::new(&module, int, array![[1.0]], 4).unwrap_err();
        assert!(matches!(error, QuantizeError::NotCustom { .. }), "{error}");
        let own = Format::Custom { bits: BitWidth::B4, name: "own".into() };
        let error = CustomWeight::new(&module, own, array![[f32::NAN]], 4).unwrap_err();
        assert!(matches!(error, QuantizeError::NotFinite { .. }), "{error}");
    }
}
