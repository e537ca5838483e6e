//! Round-to-nearest against values that numpy computed: every code, scale and zero point of two
//! trained matrices. `tests/golden/make_rtn.py` made the file.

#![cfg(feature = "rtn")]
#![allow(clippy::unwrap_used, reason = "also what tests call may assert")]

use std::{fs, path::Path};

use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{CalibrationStats, Quantizer, Rtn, WeightView};
use half::f16;
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};

const GROUP: usize = 64;

fn tensor<'a>(file: &'a SafeTensors<'_>, name: &str, dtype: Dtype) -> (&'a [u8], [usize; 2]) {
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), dtype, "{name}");
    (tensor.data(), tensor.shape().try_into().unwrap())
}

#[test]
fn codes_scales_and_zeros_are_those_of_numpy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/rtn.safetensors");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let group = GroupSize::new(GROUP).unwrap();
    for matrix in ["down_proj", "q_proj"] {
        let (weight, shape) = tensor(&file, &format!("{matrix}.weight"), Dtype::F32);
        let weight = weight.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        let weight = Array2::from_shape_vec(shape, weight).unwrap();
        let name = ModuleName::new(matrix);
        let view = WeightView::new(&name, weight.view()).unwrap();
        for (scheme, rtn) in [("asym", Rtn::asymmetric(group)), ("sym", Rtn::symmetric(group))] {
            for bits in [2, 3, 4, 5, 6, 8] {
                let case = format!("{matrix}.{scheme}.{bits}");
                let width = BitWidth::new(bits).unwrap();
                let quantized = rtn.quantize_at(&view, &CalibrationStats::default(), width).unwrap();
                let found = quantized.as_int().unwrap();

                let (scales, scales_shape) = tensor(&file, &format!("{case}.scales"), Dtype::F16);
                assert_eq!(scales_shape, [shape[0], found.groups_per_row()], "{case}");
                let scales: Vec<_> =
                    scales.as_chunks().0.iter().map(|&value| f16::from_le_bytes(value)).collect();
                assert_eq!(found.scales(), scales, "{case}: scales");
                let (codes, codes_shape) = tensor(&file, &format!("{case}.codes"), Dtype::U8);
                assert_eq!((found.unpack_codes().as_slice(), shape), (codes, codes_shape), "{case}: codes");
                if scheme == "asym" {
                    let (zeros, zeros_shape) = tensor(&file, &format!("{case}.zeros"), Dtype::U8);
                    assert_eq!(found.unpack_zeros().as_deref(), Some(zeros), "{case}: zeros");
                    assert_eq!(zeros_shape, scales_shape, "{case}");
                } else {
                    assert_eq!(found.zeros(), None, "{case}: zeros");
                }
            }
        }
    }
}
