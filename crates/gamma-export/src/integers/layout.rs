//! How each engine lays out integer codes: which formats it takes, and the tensors of a module.

use gamma_core::{Format, ModuleName, Symmetry};
use gamma_quant::IntWeight;
use half::f16;
use safetensors::Dtype;

use super::words;

/// A layout of integer codes.
///
/// `b` are the bits of a code, `g` the input channels of a group, `[out, in]` the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IntegerLayout {
    /// `pack-quantized` of compressed-tensors, for transformers and vLLM: symmetric, 2 to 8 bits,
    /// `g` divides `in`. Widths 3, 5, 6 and 7 need compressed-tensors 0.18 or vLLM 0.32: earlier
    /// versions packed them differently.
    CompressedTensors,
    /// AutoRound, in the packing of `auto_gptq`: symmetric, 2, 3, 4 and 8 bits, `g` divides `in`, and
    /// 32 divides `in` and `out`: for other shapes its kernels have nothing. For transformers, and at 4 and 8 bits for vLLM.
    AutoRound,
    /// GPTQ, in the first version of its format (`"checkpoint_format": "gptq"`): the same tensors as
    /// [`AutoRound`](Self::AutoRound)'s and what fits there, and besides the group of every input
    /// channel. For `GPTQModel`; for vLLM at 4 and 8 bits.
    Gptq,
    /// MLX: `scale * code + bias` in 2, 3, 4, 5, 6 and 8 bits, groups of 32, 64 or 128 that divide
    /// `in`. Zero points become biases that are rounded to 16 bits; symmetric ones are exact.
    Mlx,
}

/// A tensor of a module: what can be said before there are codes, and how to make it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) make: fn(&IntWeight) -> Vec<u8>,
}

impl Part {
    pub(super) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

impl IntegerLayout {
    /// What stands in errors.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::CompressedTensors => "a compressed-tensors checkpoint",
            Self::AutoRound => "an AutoRound checkpoint",
            Self::Gptq => "a GPTQ checkpoint",
            Self::Mlx => "an MLX checkpoint",
        }
    }

    /// What it holds, in words.
    #[must_use]
    pub fn served(self) -> &'static str {
        match self {
            Self::CompressedTensors => "symmetric integers of 2 to 8 bits in groups that divide a row",
            Self::AutoRound | Self::Gptq => {
                "symmetric integers of 2, 3, 4 or 8 bits in groups that divide a row, in matrices of a multiple of \
                 32 rows and columns"
            }
            Self::Mlx => "integers of 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128 that divide a row",
        }
    }

    /// Whether a matrix of `shape` can be stored in `format`.
    #[must_use]
    pub fn fits(self, format: &Format, shape: [usize; 2]) -> bool {
        let Format::Int { bits, group, symmetry } = format else { return false };
        let (bits, group) = (usize::from(bits.bits()), group.get());
        let symmetric = *symmetry == Symmetry::Symmetric;
        shape[1].is_multiple_of(group)
            && match self {
                Self::CompressedTensors => symmetric,
                Self::AutoRound | Self::Gptq => {
                    symmetric
                        && matches!(bits, 2 | 3 | 4 | 8)
                        && shape.iter().all(|side| side.is_multiple_of(32))
                }
                Self::Mlx => bits != 7 && matches!(group, 32 | 64 | 128),
            }
    }

    /// The tensors of a module whose format [`fits`](Self::fits).
    pub(super) fn parts(self, module: &ModuleName, format: &Format, shape: [usize; 2]) -> Vec<Part> {
        let Format::Int { bits, group, .. } = format else { return Vec::new() };
        let [rows, columns] = shape;
        let (bits, groups) = (usize::from(bits.bits()), columns / group.get());
        let words = |count: usize| words::bytes(count, bits) / 4;
        let part =
            |name: &str, dtype, shape, make| Part { name: format!("{module}.{name}"), dtype, shape, make };
        match self {
            Self::CompressedTensors => vec![
                part("weight_packed", Dtype::I32, vec![rows, words(columns)], row_codes),
                part("weight_scale", Dtype::F16, vec![rows, groups], scales),
                part("weight_shape", Dtype::I64, vec![2], shape_numbers),
            ],
            Self::AutoRound | Self::Gptq => {
                let mut parts = vec![
                    part("qweight", Dtype::I32, vec![words(columns), rows], column_codes),
                    part("qzeros", Dtype::I32, vec![groups, words(rows)], zeros_less_one),
                    part("scales", Dtype::F16, vec![groups, rows], turned_scales),
                ];
                if self == Self::Gptq {
                    parts.push(part("g_idx", Dtype::I32, vec![columns], group_of_channels));
                }
                parts
            }
            Self::Mlx => vec![
                part("weight", Dtype::U32, vec![rows, words(columns)], row_codes),
                part("scales", Dtype::F16, vec![rows, groups], scales),
                part("biases", Dtype::F16, vec![rows, groups], biases),
            ],
        }
    }

    /// Bytes of a module's tensors; `None` for a format that does not [`fit`](Self::fits).
    #[must_use]
    pub fn bytes(self, format: &Format, shape: [usize; 2]) -> Option<u64> {
        let parts = self.fits(format, shape).then(|| self.parts(&ModuleName::new(""), format, shape))?;
        Some(parts.iter().map(|part| part.bytes() as u64).sum())
    }
}

fn width(weight: &IntWeight) -> usize {
    weight.bits().bits().into()
}

/// Codes of a row as a stream. A symmetric code is `q + 2^(b-1)` everywhere.
fn row_codes(weight: &IntWeight) -> Vec<u8> {
    words::along_rows(&weight.unpack_codes(), weight.shape()[1], width(weight))
}

/// Codes of a row as a stream, rows side by side.
fn column_codes(weight: &IntWeight) -> Vec<u8> {
    let turned = words::transposed(&weight.unpack_codes(), weight.shape()[1]);
    words::along_columns(&turned, weight.shape()[0], width(weight))
}

fn floats(values: impl Iterator<Item = f16>) -> Vec<u8> {
    values.flat_map(f16::to_le_bytes).collect()
}

fn scales(weight: &IntWeight) -> Vec<u8> {
    floats(weight.scales().iter().copied())
}

fn turned_scales(weight: &IntWeight) -> Vec<u8> {
    floats(words::transposed(weight.scales(), weight.groups_per_row()).into_iter())
}

fn shape_numbers(weight: &IntWeight) -> Vec<u8> {
    weight.shape().into_iter().flat_map(|side| (side as u64).to_le_bytes()).collect()
}

/// The zero points of a group for all rows as a stream, each less one, as GPTQ's first version has it.
fn zeros_less_one(weight: &IntWeight) -> Vec<u8> {
    let zero = (1_u8 << (width(weight) - 1)) - 1;
    let [rows, _] = weight.shape();
    words::along_rows(&vec![zero; rows * weight.groups_per_row()], rows, width(weight))
}

/// Of every input channel.
fn group_of_channels(weight: &IntWeight) -> Vec<u8> {
    let groups = (0..weight.shape()[1]).map(|channel| (channel / weight.group().get()) as u32);
    groups.flat_map(u32::to_le_bytes).collect()
}

/// `-scale * zero`.
fn biases(weight: &IntWeight) -> Vec<u8> {
    let middle = 1 << (width(weight) - 1);
    let zeros = weight.unpack_zeros().unwrap_or_else(|| vec![middle; weight.scales().len()]);
    floats(weight.scales().iter().zip(zeros).map(|(scale, zero)| {
        let limit = f16::MAX.to_f32();
        f16::from_f32((-scale.to_f32() * f32::from(zero)).clamp(-limit, limit))
    }))
}
