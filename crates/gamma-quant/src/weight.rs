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
///
/// It is kept either as the values that it decodes to, or [`encoded`](Self::encoded): as its bytes and
/// the way to decode them, which takes a fraction of the memory and lets an exporter that knows the
/// format write them.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomWeight {
    format: Format,
    content: Content,
    stored_bits: u64,
}

#[derive(Clone, Debug)]
enum Content {
    Values(Array2<f32>),
    Bytes { shape: [usize; 2], bytes: Vec<u8>, decode: Decode },
}

/// Writes the weights that bytes stand for, row after row. The slice has one place per weight.
pub type Decode = fn(bytes: &[u8], values: &mut [f32]);

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Values(a), Self::Values(b)) => a == b,
            // The format says how bytes are decoded; addresses of functions say nothing.
            (Self::Bytes { shape, bytes, .. }, Self::Bytes { shape: other, bytes: others, .. }) => {
                shape == other && bytes == others
            }
            _ => false,
        }
    }
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
        let format = custom(module, format)?;
        crate::WeightView::new(module, values.view())?;
        // Row by row, so that `dequantize_into` is a copy.
        let values = CowArray::<f32, Ix2>::from(values).as_standard_layout().into_owned();
        Ok(Self { format, content: Content::Values(values), stored_bits })
    }

    /// A matrix of `shape`, not empty, that is stored as `bytes`, which `decode` turns into finite
    /// weights.
    ///
    /// # Errors
    /// [`QuantizeError`] if `format` is not [`Format::Custom`] or `shape` is empty.
    pub fn encoded(
        module: &ModuleName,
        format: Format,
        shape: [usize; 2],
        bytes: Vec<u8>,
        decode: Decode,
    ) -> Result<Self, QuantizeError> {
        let format = custom(module, format)?;
        if shape.contains(&0) {
            return Err(QuantizeError::Empty { module: module.clone(), shape });
        }
        let stored_bits = 8 * bytes.len() as u64;
        Ok(Self { format, content: Content::Bytes { shape, bytes, decode }, stored_bits })
    }

    /// How the weights are stored, always [`Format::Custom`].
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The bytes in the quantizer's own code, where it has handed them over.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Values(_) => None,
            Content::Bytes { bytes, .. } => Some(bytes),
        }
    }

    /// How these bytes are decoded; `None` for a matrix of values.
    #[must_use]
    pub fn decode(&self) -> Option<Decode> {
        match &self.content {
            Content::Values(_) => None,
            Content::Bytes { decode, .. } => Some(*decode),
        }
    }

    fn shape(&self) -> [usize; 2] {
        match &self.content {
            Content::Values(values) => [values.nrows(), values.ncols()],
            Content::Bytes { shape, .. } => *shape,
        }
    }

    fn decode_into(&self, values: &mut [f32]) {
        match &self.content {
            Content::Values(stored) => {
                values.copy_from_slice(stored.as_slice().expect("custom weights are stored row by row"));
            }
            Content::Bytes { shape, bytes, decode } => {
                assert_eq!(values.len(), shape[0] * shape[1], "one value per weight");
                decode(bytes, values);
            }
        }
    }
}

/// `format`, if it is a custom one.
fn custom(module: &ModuleName, format: Format) -> Result<Format, QuantizeError> {
    match format {
        Format::Custom { .. } => Ok(format),
        _ => Err(QuantizeError::NotCustom { module: module.clone(), format }),
    }
}

impl QuantizedWeight {
    /// `[out_features, in_features]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Int(weight) => weight.shape(),
            Self::Custom(weight) => weight.shape(),
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
    #[expect(clippy::missing_panics_doc, reason = "a new array is stored row by row")]
    pub fn dequantize(&self) -> Array2<f32> {
        match self {
            Self::Int(weight) => weight.dequantize(),
            Self::Custom(weight) => {
                let mut values = Array2::zeros(weight.shape());
                weight.decode_into(values.as_slice_mut().expect("a new array is stored row by row"));
                values
            }
        }
    }

    /// Writes the weights that the codes stand for, row after row.
    ///
    /// # Panics
    /// If `values` does not have one place per weight.
    pub fn dequantize_into(&self, values: &mut [f32]) {
        match self {
            Self::Int(weight) => weight.dequantize_into(values),
            Self::Custom(weight) => weight.decode_into(values),
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

    /// The matrix in a code of its own, where it is one.
    #[must_use]
    pub fn as_custom(&self) -> Option<&CustomWeight> {
        match self {
            Self::Int(_) => None,
            Self::Custom(weight) => Some(weight),
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
    fn encoded_weights_decode_and_compare_by_their_bytes() {
        let module = ModuleName::new("m");
        let format = Format::Custom { bits: BitWidth::B8, name: "bytes".into() };
        let decode: Decode = |bytes, values| {
            for (value, &byte) in values.iter_mut().zip(bytes) {
                *value = f32::from(byte);
            }
        };
        let make =
            |shape, bytes: Vec<u8>| CustomWeight::encoded(&module, format.clone(), shape, bytes, decode);
        let weight: QuantizedWeight = make([2, 3], vec![1, 2, 3, 4, 5, 6]).unwrap().into();
        assert_eq!(weight.dequantize(), array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        assert_eq!((weight.stored_bits(), weight.shape()), (48, [2, 3]));
        assert_eq!(weight.as_custom().unwrap().bytes(), Some(&[1, 2, 3, 4, 5, 6][..]));
        assert_eq!(weight, make([2, 3], vec![1, 2, 3, 4, 5, 6]).unwrap().into());
        assert_ne!(weight, make([3, 2], vec![1, 2, 3, 4, 5, 6]).unwrap().into());
        assert_ne!(weight, make([2, 3], vec![1, 2, 3, 4, 5, 7]).unwrap().into());
        assert!(matches!(make([0, 3], Vec::new()), Err(QuantizeError::Empty { .. })));
        let values = CustomWeight::new(&module, format.clone(), weight.dequantize(), 48).unwrap();
        assert_eq!(values.bytes(), None);
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
