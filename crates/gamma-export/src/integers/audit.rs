//! A written folder, read again: sizes, types, bytes, and the weights that it decodes to.

use std::collections::BTreeMap;

use gamma_core::ModuleName;
use gamma_quant::{IntWeight, QuantizedWeight};
use half::f16;
use rayon::prelude::*;

use super::{Tensor, layout::IntegerLayout, words};
use crate::source::Shard;

/// What differs between the file `shard` and what it should hold; `None` if nothing does.
pub(super) fn difference(
    layout: IntegerLayout,
    shard: &Shard,
    tensors: &BTreeMap<String, Tensor<'_>>,
    modules: &[(&ModuleName, &QuantizedWeight)],
) -> Option<String> {
    use safetensors::View;
    let found = shard.tensors();
    if !found.keys().eq(tensors.keys()) {
        return Some("its list of tensors".into());
    }
    for (name, expected) in tensors {
        let info = found[name];
        if info.dtype != expected.dtype() || info.shape != expected.shape() {
            return Some(format!("type or shape of tensor `{name}`"));
        }
        // Codes are not compared with themselves, but decoded.
        if !matches!(expected, Tensor::Part(..)) && *shard.bytes(info) != *expected.data() {
            return Some(format!("the bytes of tensor `{name}`"));
        }
    }
    for &(module, weight) in modules {
        let part = |part: &str| {
            let info = shard.info(&format!("{module}.{part}"));
            info.map_or(&[][..], |info| shard.bytes(info))
        };
        let same = weight.as_int().is_some_and(|int| holds(layout, int, weight, part));
        if !same {
            return Some(format!("the weights of module `{module}`"));
        }
    }
    None
}

/// Whether the tensors that `part` gives decode to `weight`: exactly, but for zero points of MLX, which
/// became biases of 16 bits.
fn holds<'a>(
    layout: IntegerLayout,
    int: &IntWeight,
    weight: &QuantizedWeight,
    part: impl Fn(&str) -> &'a [u8],
) -> bool {
    let [rows, columns] = int.shape();
    let (bits, group) = (usize::from(int.bits().bits()), int.group().get());
    let groups = columns / group;
    let mut expected = vec![0.0; rows * columns];
    weight.dequantize_into(&mut expected);

    let stream = |row: usize, codes: &[u8]| -> Vec<u8> {
        match layout {
            IntegerLayout::AutoRound | IntegerLayout::Gptq => {
                let words = words::bytes(columns, bits) / 4;
                let word = |word: usize| codes[4 * (word * rows + row)..][..4].to_vec();
                (0..words).flat_map(word).collect()
            }
            _ => codes[row * words::bytes(columns, bits)..][..words::bytes(columns, bits)].to_vec(),
        }
    };
    let half = |bytes: &[u8], at: usize| f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32();
    let size = words::bytes(columns, bits) * rows;
    let (codes, scales, zeros) = match layout {
        IntegerLayout::CompressedTensors => (part("weight_packed"), part("weight_scale"), &[][..]),
        IntegerLayout::Mlx => (part("weight"), part("scales"), part("biases")),
        IntegerLayout::AutoRound | IntegerLayout::Gptq => (part("qweight"), part("scales"), part("qzeros")),
    };
    let zero_bytes = match layout {
        IntegerLayout::CompressedTensors => 0,
        IntegerLayout::Mlx => 2 * rows * groups,
        IntegerLayout::AutoRound | IntegerLayout::Gptq => groups * words::bytes(rows, bits),
    };
    let turned = matches!(layout, IntegerLayout::AutoRound | IntegerLayout::Gptq);
    let listed = layout != IntegerLayout::Gptq
        || part("g_idx").chunks(4).enumerate().all(|(i, found)| *found == ((i / group) as u32).to_le_bytes());
    if codes.len() != size || scales.len() != 2 * rows * groups || zeros.len() != zero_bytes || !listed {
        return false;
    }
    let symmetric = int.zeros().is_none();
    let row_holds = |(row, expected): (usize, &[f32])| {
        let stream = stream(row, codes);
        expected.iter().enumerate().all(|(column, expected)| {
            let code = words::code(&stream, column, bits) as f32;
            let place = column / group;
            let scale = half(scales, if turned { place * rows + row } else { row * groups + place });
            let (found, slack) = match layout {
                IntegerLayout::CompressedTensors => ((code - (1 << (bits - 1)) as f32) * scale, 0.0),
                IntegerLayout::Mlx => {
                    let added = half(zeros, row * groups + place);
                    let half_a_step = added.abs().max(f32::from(f16::MIN_POSITIVE)) / 2048.0;
                    (scale * code + added, if symmetric { 0.0 } else { half_a_step })
                }
                IntegerLayout::AutoRound | IntegerLayout::Gptq => {
                    let line = &zeros[place * words::bytes(rows, bits)..][..words::bytes(rows, bits)];
                    // Stored less one.
                    ((code - (words::code(line, row, bits) + 1) as f32) * scale, 0.0)
                }
            };
            (found - expected).abs() <= slack
        })
    };
    expected.par_chunks(columns).enumerate().all(row_holds)
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, GroupSize};
    use gamma_quant::{CalibrationStats, Quantizer, Rtn, WeightView};
    use ndarray::Array2;

    use super::*;

    #[test]
    fn every_changed_bit_of_codes_scales_and_zero_points_is_noticed() {
        let name = ModuleName::new("m");
        let matrix = Array2::from_shape_fn((32, 64), |(i, j)| ((i * 64 + j) as f32 * 0.37).sin() + 1e-3);
        let view = WeightView::new(&name, matrix.view()).unwrap();
        let rtn = Rtn::symmetric(GroupSize::new(32).unwrap());
        for layout in [
            IntegerLayout::CompressedTensors,
            IntegerLayout::AutoRound,
            IntegerLayout::Gptq,
            IntegerLayout::Mlx,
        ] {
            for bits in [2, 3, 4, 8] {
                let width = BitWidth::new(bits).unwrap();
                let weight = rtn.quantize_at(&view, &CalibrationStats::default(), width).unwrap();
                let int = weight.as_int().unwrap();
                let parts = layout.parts(&name, &weight.format(), weight.shape());
                let mut made: BTreeMap<String, Vec<u8>> =
                    parts.iter().map(|part| (part.name.clone(), (part.make)(int))).collect();
                let same = |made: &BTreeMap<String, Vec<u8>>| {
                    holds(layout, int, &weight, |part| made.get(&format!("m.{part}")).map_or(&[][..], |b| b))
                };
                assert!(same(&made), "{layout:?} {bits}");
                for part in parts.iter().filter(|part| part.name != "m.weight_shape") {
                    for place in [0, part.bytes() / 2, part.bytes() - 1] {
                        let mut other = made.clone();
                        other.get_mut(&part.name).unwrap()[place] ^= 0x40;
                        assert!(!same(&other), "{layout:?} {bits} {} {place}", part.name);
                    }
                }
                made.remove(&parts[1].name);
                assert!(!same(&made), "{layout:?} {bits}");
            }
        }
    }
}
