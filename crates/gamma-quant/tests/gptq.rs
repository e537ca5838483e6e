//! GPTQ against the algorithm as published, in torch, on a trained matrix and the Hessian of its
//! real inputs: the output error must not be larger. `tests/golden/make_gptq.py` made the file.

#![cfg(feature = "gptq")]
#![allow(clippy::unwrap_used, reason = "also what tests call may assert")]

use std::{fs, path::Path};

use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{CalibrationStats, Gptq, Quantizer, WeightView};
use half::bf16;
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};

/// How much larger our error may be. Where two codes are almost equally near, the order of a sum
/// decides, and the weights behind follow.
const SLACK: f64 = 5e-3;

fn tensor<'a>(file: &'a SafeTensors<'_>, name: &str, dtype: Dtype) -> (&'a [u8], Vec<usize>) {
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), dtype, "{name}");
    (tensor.data(), tensor.shape().to_vec())
}

fn matrix(shape: &[usize], values: impl Iterator<Item = f32>) -> Array2<f32> {
    Array2::from_shape_vec([shape[0], shape[1]], values.collect()).unwrap()
}

#[test]
fn output_errors_are_those_of_the_published_algorithm() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gptq.safetensors");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (weight, shape) = tensor(&file, "weight", Dtype::BF16);
    let weight =
        matrix(&shape, weight.as_chunks().0.iter().map(|&value| bf16::from_le_bytes(value).to_f32()));
    let (hessian, shape) = tensor(&file, "hessian", Dtype::F32);
    let hessian = matrix(&shape, hessian.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)));

    let h = hessian.mapv(f64::from);
    let stats = CalibrationStats::from_hessian(64 * 256, hessian);
    let name = ModuleName::new("model.layers.2.mlp.down_proj");
    let view = WeightView::new(&name, weight.view()).unwrap();
    for scheme in ["asym", "sym"] {
        for (channels, order) in [(128, "stored"), (128, "act"), (64, "act")] {
            let group = GroupSize::new(channels).unwrap();
            let gptq = if scheme == "sym" { Gptq::symmetric(group) } else { Gptq::asymmetric(group) };
            let gptq = gptq.act_order(order == "act");
            for bits in [2, 3, 4, 8] {
                let case = format!("{scheme}.g{channels}.{order}.{bits}");
                let (expected, _) = tensor(&file, &case, Dtype::F64);
                let expected = f64::from_le_bytes(expected.try_into().unwrap());
                let quantized = gptq.quantize_at(&view, &stats, BitWidth::new(bits).unwrap()).unwrap();
                let d = (&weight - quantized.dequantize()).mapv(f64::from);
                let found = (d.dot(&h) * &d).sum();
                assert!(
                    found <= expected * (1.0 + SLACK),
                    "{case}: {found:e}, the reference has {expected:e}"
                );
            }
        }
    }
}
