//! Affine integer codes: packed streams and how they decode.

use gamma_core::{BitWidth, Format, GroupSize, ModuleName, Symmetry};
use half::f16;
use ndarray::Array2;
use rayon::prelude::*;

use crate::{QuantizeError, Stream, pack};

/// Weights that a thread checks or decodes at least before another one helps.
const WEIGHTS_PER_TASK: usize = 1 << 15;

/// A matrix as integer codes with one scale, and perhaps one zero point, per group of input
/// channels: `w ≈ scale * (code - zero)`, where a missing zero point stands for `2^(b-1)`.
///
/// Codes and zero points are dense bit streams over the whole matrix, row after row, lowest bit
/// first: code `i` of width `b` takes bits `i * b` to `i * b + b - 1`, bit 0 being the lowest bit
/// of byte 0. Rows do not start at a byte of their own; the last byte is filled with zero bits.
///
/// Two values are equal if and only if they are stored in the same bits.
#[derive(Clone, Debug, PartialEq)]
pub struct IntWeight {
    shape: [usize; 2],
    bits: BitWidth,
    group: GroupSize,
    codes: Vec<u8>,
    scales: Vec<f16>,
    zeros: Option<Vec<u8>>,
}

impl IntWeight {
    /// Packs codes.
    ///
    /// `codes` are one per weight, row after row; `scales` and `zeros` one per group, row after
    /// row. Without `zeros` the format is symmetric. `module` is what errors are about.
    ///
    /// # Errors
    /// [`QuantizeError`] if a code or zero point does not fit `bits`, a length does not fit
    /// `shape`, or a scale is not finite.
    pub fn from_codes(
        module: &ModuleName,
        shape: [usize; 2],
        (bits, group): (BitWidth, GroupSize),
        codes: &[u8],
        scales: Vec<f16>,
        zeros: Option<&[u8]>,
    ) -> Result<Self, QuantizeError> {
        let count = Counts::of(module, shape, bits, group)?;
        let check = |stream, values: &[u8], expected| {
            check_length(module, shape, (stream, "values"), expected, values.len())?;
            match first_above(values, bits.max_code()) {
                None => Ok(()),
                Some(value) => {
                    Err(QuantizeError::CodeTooWide { module: module.clone(), stream, value, width: bits })
                }
            }
        };
        check(Stream::Codes, codes, count.weights)?;
        if let Some(zeros) = zeros {
            check(Stream::Zeros, zeros, count.groups)?;
        }
        let codes = pack::pack(codes, bits);
        let zeros = zeros.map(|zeros| pack::pack(zeros, bits));
        Self::from_packed(module, shape, (bits, group), codes, scales, zeros)
    }

    /// Takes streams that are packed already, as [`codes`](Self::codes),
    /// [`scales`](Self::scales) and [`zeros`](Self::zeros) return them.
    ///
    /// # Errors
    /// [`QuantizeError`] if a length does not fit `shape`, a scale is not finite, or bits are set
    /// behind the last code.
    pub fn from_packed(
        module: &ModuleName,
        shape: [usize; 2],
        (bits, group): (BitWidth, GroupSize),
        codes: Vec<u8>,
        scales: Vec<f16>,
        zeros: Option<Vec<u8>>,
    ) -> Result<Self, QuantizeError> {
        let count = Counts::of(module, shape, bits, group)?;
        let streams =
            [(Stream::Codes, Some(&codes), count.weights), (Stream::Zeros, zeros.as_ref(), count.groups)];
        for (stream, bytes, n_codes) in streams {
            let Some(bytes) = bytes else { continue };
            check_length(module, shape, (stream, "bytes"), pack::packed_len(n_codes, bits), bytes.len())?;
            if !pack::is_padded_with_zeros(bytes, n_codes, bits) {
                return Err(QuantizeError::Padding { module: module.clone(), stream });
            }
        }
        check_length(module, shape, (Stream::Scales, "values"), count.groups, scales.len())?;
        if let Some(at) = scales.iter().position(|scale| !scale.is_finite()) {
            let per_row = group.groups_in(shape[1]);
            let (row, group, scale) = (at / per_row, at % per_row, scales[at].to_f32());
            return Err(QuantizeError::ScaleNotFinite { module: module.clone(), row, group, scale });
        }
        Ok(Self { shape, bits, group, codes, scales, zeros })
    }

    /// `[out_features, in_features]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bits per code.
    #[must_use]
    pub fn bits(&self) -> BitWidth {
        self.bits
    }

    /// Input channels per scale.
    #[must_use]
    pub fn group(&self) -> GroupSize {
        self.group
    }

    /// Whether groups have zero points.
    #[must_use]
    pub fn symmetry(&self) -> Symmetry {
        if self.zeros.is_some() { Symmetry::Asymmetric } else { Symmetry::Symmetric }
    }

    /// How the weights are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        Format::Int { bits: self.bits, group: self.group, symmetry: self.symmetry() }
    }

    /// Groups per row.
    #[must_use]
    pub fn groups_per_row(&self) -> usize {
        self.group.groups_in(self.shape[1])
    }

    /// The packed codes.
    #[must_use]
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// One scale per group, `[out_features, groups_per_row]`, row after row.
    #[must_use]
    pub fn scales(&self) -> &[f16] {
        &self.scales
    }

    /// The packed zero points, one per group; `None` in a symmetric format.
    #[must_use]
    pub fn zeros(&self) -> Option<&[u8]> {
        self.zeros.as_deref()
    }

    /// Unpacks the codes, one per weight.
    #[must_use]
    pub fn unpack_codes(&self) -> Vec<u8> {
        let mut codes = vec![0; self.shape[0] * self.shape[1]];
        codes.par_chunks_mut(WEIGHTS_PER_TASK).enumerate().for_each(|(task, codes)| {
            pack::unpack(&self.codes, self.bits, task * WEIGHTS_PER_TASK, codes);
        });
        codes
    }

    /// Unpacks the zero points, one per group; `None` in a symmetric format.
    #[must_use]
    pub fn unpack_zeros(&self) -> Option<Vec<u8>> {
        let mut zeros = vec![0; self.scales.len()];
        pack::unpack(self.zeros.as_deref()?, self.bits, 0, &mut zeros);
        Some(zeros)
    }

    /// Exact storage in bits: eight per byte of the three streams.
    #[must_use]
    pub fn stored_bits(&self) -> u64 {
        let zeros = self.zeros.as_ref().map_or(0, Vec::len);
        (self.codes.len() + size_of_val(self.scales.as_slice()) + zeros) as u64 * 8
    }

    /// The weights that the codes stand for.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a new array is stored row by row")]
    pub fn dequantize(&self) -> Array2<f32> {
        let mut values = Array2::zeros(self.shape);
        self.dequantize_into(values.as_slice_mut().expect("a new array is stored row by row"));
        values
    }

    /// Writes the weights that the codes stand for, row after row. `scale * (code - zero)` is exact
    /// in `f32`.
    ///
    /// # Panics
    /// If `values` does not have one place per weight.
    pub fn dequantize_into(&self, values: &mut [f32]) {
        let [out_features, in_features] = self.shape;
        assert_eq!(values.len(), out_features * in_features, "one value per weight");
        let rows_per_task = WEIGHTS_PER_TASK.div_ceil(in_features);
        let scratch = || (vec![0; in_features], vec![1 << (self.bits.bits() - 1); self.groups_per_row()]);
        values.par_chunks_exact_mut(in_features).enumerate().with_min_len(rows_per_task).for_each_init(
            scratch,
            |(codes, zeros), (row, values)| {
                pack::unpack(&self.codes, self.bits, row * in_features, codes);
                let first_group = row * zeros.len();
                if let Some(packed) = &self.zeros {
                    pack::unpack(packed, self.bits, first_group, zeros);
                }
                let scales = &self.scales[first_group..][..zeros.len()];
                decode_row(codes, self.group, scales, zeros, values);
            },
        );
    }
}

/// The first value above `most`.
fn first_above(values: &[u8], most: u8) -> Option<u8> {
    let chunk = values.par_chunks(WEIGHTS_PER_TASK).find_first(|chunk| {
        // The maximum of all of them: quicker than to stop at the first.
        chunk.iter().fold(0, |max, &value| max.max(value)) > most
    })?;
    chunk.iter().copied().find(|&value| value > most)
}

/// `codes`, `values`: `[in_features]`; `scales`, `zeros`: `[groups]`.
fn decode_row(codes: &[u8], group: GroupSize, scales: &[f16], zeros: &[u8], values: &mut [f32]) {
    let groups = codes.chunks(group.get()).zip(values.chunks_mut(group.get()));
    for ((codes, values), (scale, &zero)) in groups.zip(scales.iter().zip(zeros)) {
        let (scale, zero) = (scale.to_f32(), f32::from(zero));
        for (value, &code) in values.iter_mut().zip(codes) {
            *value = scale * (f32::from(code) - zero);
        }
    }
}

/// Number of weights and groups of a matrix that can exist.
struct Counts {
    weights: usize,
    groups: usize,
}

impl Counts {
    fn of(
        module: &ModuleName,
        shape: [usize; 2],
        bits: BitWidth,
        group: GroupSize,
    ) -> Result<Self, QuantizeError> {
        if shape.contains(&0) {
            return Err(QuantizeError::Empty { module: module.clone(), shape });
        }
        // All sizes are computed in bits somewhere; none may wrap around.
        let weights = shape[0].checked_mul(shape[1]);
        let small = weights.filter(|n| n.checked_mul(32 + usize::from(bits.bits())).is_some());
        match small {
            Some(weights) => Ok(Self { weights, groups: shape[0] * group.groups_in(shape[1]) }),
            None => Err(QuantizeError::TooLarge { module: module.clone(), shape }),
        }
    }
}

fn check_length(
    module: &ModuleName,
    shape: [usize; 2],
    (stream, unit): (Stream, &'static str),
    expected: usize,
    found: usize,
) -> Result<(), QuantizeError> {
    if expected == found {
        return Ok(());
    }
    Err(QuantizeError::StreamLength { module: module.clone(), shape, stream, unit, expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: (BitWidth, GroupSize) = (BitWidth::B3, GroupSize::G128);

    fn scales(n: usize) -> Vec<f16> {
        (1..=n).map(|i| f16::from_f32(i as f32)).collect()
    }

    #[test]
    fn codes_decode_with_the_scale_and_zero_point_of_their_group() {
        let module = ModuleName::new("m");
        let layout = (BitWidth::B2, GroupSize::new(2).unwrap());
        let codes = [0, 1, 2, 3, 3, 3];
        let weight =
            IntWeight::from_codes(&module, [2, 3], layout, &codes, scales(4), Some(&[0, 1, 2, 3])).unwrap();
        let expected = ndarray::array![[0.0, 1.0, 2.0], [3.0, 3.0, 0.0]];
        assert_eq!(weight.dequantize(), expected);
        assert_eq!(weight.unpack_codes(), codes);
        assert_eq!(weight.unpack_zeros().unwrap(), [0, 1, 2, 3]);
        assert_eq!(Some(weight.stored_bits()), weight.format().stored_bits([2, 3]));

        let symmetric = IntWeight::from_codes(&module, [2, 3], layout, &codes, scales(4), None).unwrap();
        assert_eq!(symmetric.dequantize(), ndarray::array![[-2.0, -1.0, 0.0], [3.0, 3.0, 4.0]]);
        assert_eq!(symmetric.stored_bits(), 16 + 4 * 16);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_by_name() {
        let module = ModuleName::new("model.layers.3.mlp.up_proj");
        let codes = |shape, codes: &[u8], n_scales, zeros| {
            IntWeight::from_codes(&module, shape, LAYOUT, codes, scales(n_scales), zeros).unwrap_err()
        };
        let packed = |shape, codes: &[u8], zeros: Option<Vec<u8>>| {
            IntWeight::from_packed(&module, shape, LAYOUT, codes.to_vec(), scales(1), zeros).unwrap_err()
        };
        let errors = [
            codes([1, 3], &[7, 8, 0], 1, None),
            codes([1, 3], &[7, 7], 1, None),
            codes([1, 3], &[7, 7, 0], 2, None),
            codes([1, 3], &[7, 7, 0], 1, Some(&[8])),
            codes([1, 3], &[7, 7, 0], 1, Some(&[0, 0])),
            codes([0, 3], &[], 0, None),
            packed([1, 3], &[0xFF], None),
            packed([1, 3], &[0xFF, 0x02], None),
            packed([1, 3], &[0xFF, 0x01], Some(vec![0x0F])),
            packed([usize::MAX, 2], &[], None),
            packed([usize::MAX / 16, 1], &[], None),
        ];
        for error in errors {
            assert_eq!(error.module(), &module);
            assert!(error.to_string().contains(module.as_str()), "{error}");
        }
    }

    #[test]
    fn scales_that_are_not_finite_are_refused_with_their_place() {
        let mut bad = scales(6);
        bad[5] = f16::INFINITY;
        let layout = (BitWidth::B8, GroupSize::new(1).unwrap());
        let error = IntWeight::from_codes(&ModuleName::new("m"), [2, 3], layout, &[0; 6], bad, None);
        assert!(matches!(error, Err(QuantizeError::ScaleNotFinite { row: 1, group: 2, .. })), "{error:?}");
    }
}
