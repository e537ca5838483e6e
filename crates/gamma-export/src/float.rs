//! Floats in the types of checkpoints.

use half::{bf16, f16};
use safetensors::Dtype;

/// The types that weights may have.
pub(crate) const FLOATS: &str = "F32, F16 or BF16";

pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// `values` as little-endian numbers of a float type, rounded to the nearest one. The largest finite
/// value stands for all larger ones.
pub(crate) fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    fn bytes<const N: usize>(values: &[f32], number: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
        let mut bytes = vec![0; N * values.len()];
        for (place, &value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
            *place = number(value);
        }
        bytes
    }
    match dtype {
        Dtype::F16 => bytes(values, |w| half(w).to_le_bytes()),
        Dtype::BF16 => bytes(values, |w| bf16::from_f32(w).to_le_bytes()),
        _ => bytes(values, f32::to_le_bytes),
    }
}

/// Whether every value is a number of this type.
pub(crate) fn is_exact(values: &[f32], dtype: Dtype) -> bool {
    match dtype {
        Dtype::F16 => values.iter().all(|&w| half(w).to_f32().to_bits() == w.to_bits()),
        Dtype::BF16 => values.iter().all(|&w| bf16::from_f32(w).to_f32().to_bits() == w.to_bits()),
        _ => true,
    }
}

fn half(value: f32) -> f16 {
    let limit = f16::MAX.to_f32();
    f16::from_f32(value.clamp(-limit, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_values_come_back() {
        let values = [1.0, -0.5, 3.0e4];
        assert_eq!(encode(&values, Dtype::BF16)[..2], [0x80, 0x3f]);
        for dtype in [Dtype::F16, Dtype::F32] {
            assert!(is_exact(&values, dtype), "{dtype}");
        }
        assert!(!is_exact(&values, Dtype::BF16));
        assert!(!is_exact(&[1.0 + f32::EPSILON], Dtype::F16));
        assert_eq!(encode(&[1e6], Dtype::F16), f16::MAX.to_le_bytes());
    }
}
