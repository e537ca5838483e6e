//! Quantized weights as the blocks of a GGUF file.

use gamma_core::{Format, ModuleName, Symmetry};
use gamma_ggml::GgmlType;
use gamma_quant::{IntWeight, QuantizedWeight};

use crate::{
    ExportError,
    unserved::{Unserved, check_served},
};

/// The type of ggml that holds a matrix of `shape` in `format` exactly: a block format, or symmetric
/// integers whose groups are whole blocks of 32.
///
/// A symmetric group of 64 or more repeats its scale in every block of 32, so that the file takes more
/// than the plan counts; [`GgufExport::outline`](crate::GgufExport::outline) tells how much.
#[must_use]
pub fn gguf_type(format: &Format, shape: [usize; 2]) -> Option<GgmlType> {
    let kind = match format {
        Format::Int { bits, group, symmetry: Symmetry::Symmetric } if group.get().is_multiple_of(32) => {
            match bits.bits() {
                4 => GgmlType::Q4_0,
                5 => GgmlType::Q5_0,
                8 => GgmlType::Q8_0,
                _ => return None,
            }
        }
        format => GgmlType::from_format(format)?,
    };
    kind.bytes(shape).is_some().then_some(kind)
}

/// The types of all modules of a plan, or an error that names every module that has none.
pub(crate) fn check_plan<'a>(
    modules: impl Iterator<Item = (&'a ModuleName, &'a Format, [usize; 2])>,
) -> Result<(), ExportError> {
    let bad = modules.filter(|&(_, format, shape)| gguf_type(format, shape).is_none());
    let unserved =
        bad.map(|(module, format, shape)| Unserved { module: module.clone(), format: format.clone(), shape });
    check_served(super::TARGET, super::SERVED, unserved.collect())
}

/// The blocks of a quantized matrix, row after row; `None` if it is of no format that
/// [`gguf_type`] knows, or came without its bytes.
pub(super) fn encode(weight: &QuantizedWeight) -> Option<Vec<u8>> {
    let kind = gguf_type(&weight.format(), weight.shape())?;
    match weight {
        QuantizedWeight::Custom(weight) => weight.bytes().map(<[u8]>::to_vec),
        QuantizedWeight::Int(weight) => Some(integers(weight, kind)),
    }
}

/// Symmetric codes as blocks of 32 with a scale each: the same numbers in another place.
fn integers(weight: &IntWeight, kind: GgmlType) -> Vec<u8> {
    let [rows, columns] = weight.shape();
    let codes = weight.unpack_codes();
    let per_row = weight.groups_per_row();
    let mut bytes = Vec::with_capacity(rows * columns / 32 * kind.block_bytes());
    for (block, codes) in codes.chunks_exact(32).enumerate() {
        let (row, column) = (block * 32 / columns, block * 32 % columns);
        bytes.extend(weight.scales()[row * per_row + column / weight.group().get()].to_le_bytes());
        if kind == GgmlType::Q8_0 {
            bytes.extend(codes.iter().map(|&code| code.wrapping_sub(128)));
            continue;
        }
        if kind == GgmlType::Q5_0 {
            let high = |byte: usize| (0..8).fold(0, |bits, i| bits | (codes[8 * byte + i] >> 4) << i);
            bytes.extend((0..4).map(high));
        }
        bytes.extend((0..16).map(|i| (codes[i] & 15) | (codes[i + 16] & 15) << 4));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, GroupSize};
    use gamma_quant::{CalibrationStats, Quantizer, Rtn, WeightView};
    use ndarray::Array2;

    use super::*;

    #[test]
    fn symmetric_integers_keep_every_weight() {
        let name = ModuleName::new("m");
        let matrix = Array2::from_shape_fn((3, 192), |(i, j)| ((i * 192 + j) as f32 * 0.37).sin());
        let view = WeightView::new(&name, matrix.view()).unwrap();
        for (width, kind) in
            [(BitWidth::B4, GgmlType::Q4_0), (BitWidth::B5, GgmlType::Q5_0), (BitWidth::B8, GgmlType::Q8_0)]
        {
            for group in [32, 64, 128] {
                let rtn = Rtn::symmetric(GroupSize::new(group).unwrap());
                let weight = rtn.quantize_at(&view, &CalibrationStats::default(), width).unwrap();
                let bytes = encode(&weight).unwrap();
                let mut values = vec![0.0; 3 * 192];
                kind.decode(&bytes, &mut values).unwrap();
                assert_eq!(values, weight.dequantize().into_raw_vec_and_offset().0, "{width} {group}");
            }
        }
    }

    #[test]
    fn formats_that_no_block_holds_are_named_with_their_modules() {
        let [a, b, c] = ["a.q_proj", "b.down_proj", "c.up_proj"].map(ModuleName::new);
        let [asymmetric, narrow, fits] =
            ["int4:g32:asym:f16", "custom4:ggml-q4_K", "custom8:ggml-q8_0"].map(|f| f.parse().unwrap());
        let plan = [(&a, &asymmetric, [2, 64]), (&b, &narrow, [2, 192]), (&c, &fits, [2, 192])];
        let error = check_plan(plan.into_iter()).unwrap_err().to_string();
        for word in ["a.q_proj", "int4:g32:asym:f16", "b.down_proj", "192"] {
            assert!(error.contains(word), "{error}");
        }
        assert!(!error.contains("c.up_proj"), "{error}");
    }
}
