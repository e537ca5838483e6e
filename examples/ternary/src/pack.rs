//! The bytes of a ternary matrix: what its size counts, and what a file of one's own would hold.

use gamma_core::GroupSize;
use half::f16;
use ndarray::{Array2, ArrayView2};

/// Codes in a byte: 3^5 = 243 of its 256 values are used, 1.6 bits per code.
pub(crate) const CODES_PER_BYTE: usize = 5;

/// A ternary matrix as it would be stored.
///
/// Decoded weights say all there is to know about it: the size of a group's nonzero weights is its
/// scale, and their signs are the codes. Whoever writes files can therefore pack what
/// [`dequantize`](gamma_quant::QuantizedWeight::dequantize) gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Input channels per scale.
    pub group: GroupSize,
    /// Five codes per byte, the first in the lowest digit: 0 for 0, 1 for the scale, 2 for minus the
    /// scale. Every row starts with a new byte; digits behind its end are 0.
    pub codes: Vec<u8>,
    /// One per group, row after row; 0 for a group of zeros.
    pub scales: Vec<f16>,
}

impl Packed {
    /// Packs decoded weights, without loss. `None` if a group holds more than one size, or one that
    /// is no 16-bit float.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a view is a reference, and callers write `.view()`")]
    pub fn new(values: ArrayView2<'_, f32>, group: GroupSize) -> Option<Self> {
        let shape = [values.nrows(), values.ncols()];
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for row in values.rows() {
            let row = row.to_vec();
            for channels in row.chunks(group.get()) {
                let scale = channels.iter().fold(0.0, |scale: f32, w| scale.max(w.abs()));
                let stored = f16::from_f32(scale);
                let is_scale = |size: f32| size.to_bits() == scale.to_bits();
                let fits = |w: &f32| *w == 0.0 || is_scale(w.abs());
                if !is_scale(stored.to_f32()) || !channels.iter().all(fits) {
                    return None;
                }
                scales.push(stored);
            }
            let digit = |w: &f32| if *w == 0.0 { 0 } else { 1 + u8::from(*w < 0.0) };
            let byte = |five: &[f32]| five.iter().rev().fold(0, |byte, w| 3 * byte + digit(w));
            codes.extend(row.chunks(CODES_PER_BYTE).map(byte));
        }
        Some(Self { shape, group, codes, scales })
    }

    /// Size in bits.
    #[must_use]
    pub fn bits(&self) -> u64 {
        8 * (self.codes.len() + 2 * self.scales.len()) as u64
    }

    /// The weights, `[out_features, in_features]`.
    #[must_use]
    pub fn decode(&self) -> Array2<f32> {
        let [_, columns] = self.shape;
        Array2::from_shape_fn(self.shape, |(row, column)| {
            let byte = self.codes[row * columns.div_ceil(CODES_PER_BYTE) + column / CODES_PER_BYTE];
            let digit = byte / 3_u8.pow((column % CODES_PER_BYTE) as u32) % 3;
            let scale = self.scales[row * self.group.groups_in(columns) + column / self.group.get()];
            [0.0, scale.to_f32(), -scale.to_f32()][usize::from(digit)]
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn codes_are_digits_and_rows_start_with_a_byte() {
        let group = GroupSize::new(4).unwrap();
        let values = array![[0.5, 0.0, -0.5, 0.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, -1.5, 1.5]];
        let packed = Packed::new(values.view(), group).unwrap();
        assert_eq!(packed.codes, [1 + 2 * 9 + 27, 1, 2 * 81, 1]);
        assert_eq!(packed.scales, [0.5, 2.0, 0.0, 1.5].map(f16::from_f32));
        assert_eq!((packed.bits(), packed.decode()), (4 * 8 + 4 * 16, values));
    }

    #[test]
    fn what_is_not_ternary_is_not_packed() {
        let group = GroupSize::new(3).unwrap();
        assert!(Packed::new(array![[1.0, 2.0, 0.0]].view(), group).is_none());
        assert!(Packed::new(array![[0.1, -0.1, 0.0]].view(), group).is_none(), "0.1 takes 32 bits");
    }
}
