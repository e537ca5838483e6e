//! AWQ and HQQ against implementations outside of this project, on block 2 of the fable fixture:
//! `tests/golden/make_scaling.py` made the values and says how.

#![cfg(all(feature = "rtn", feature = "hqq", feature = "awq"))]
#![allow(clippy::unwrap_used, reason = "also what tests call may assert")]

use std::{fs, path::Path};

use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{
    Awq, CalibrationStats, Clip, Hqq, Quantizer, Rescale, Rtn, WeightView, rescale::scale_columns,
};
use half::bf16;
use ndarray::{Array1, Array2};
use safetensors::{Dtype, SafeTensors};

const WIDTHS: [BitWidth; 3] = [BitWidth::B2, BitWidth::B3, BitWidth::B4];
const INPUTS: [(&str, &[&str]); 3] = [
    ("attn", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("mlp", &["mlp.gate_proj", "mlp.up_proj"]),
    ("down", &["mlp.down_proj"]),
];

fn group() -> GroupSize {
    GroupSize::new(64).unwrap()
}

fn read(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One input of the block: who reads it, and its statistics.
struct Input {
    name: &'static str,
    readers: Vec<(ModuleName, Array2<f32>)>,
    stats: CalibrationStats,
}

/// The golden file.
struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        Self(read("golden/scaling.safetensors"))
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name, Dtype::F32);
        bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        let bytes = self.bytes(name, Dtype::F64);
        bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value)).collect()
    }

    fn bytes(&self, name: &str, dtype: Dtype) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor.data().to_vec()
    }

    fn inputs(&self) -> Vec<Input> {
        let model = read("fixtures/fable/model.safetensors");
        let model = SafeTensors::deserialize(&model).unwrap();
        let weight = |path: &&str| {
            let tensor = model.tensor(&format!("model.layers.2.{path}.weight")).unwrap();
            assert_eq!(tensor.dtype(), Dtype::BF16, "{path}");
            let values = tensor.data().as_chunks().0.iter();
            let values = values.map(|&value| bf16::from_le_bytes(value).to_f32()).collect();
            let shape: [usize; 2] = tensor.shape().try_into().unwrap();
            let name = ModuleName::new(path.rsplit('.').next().unwrap());
            (name, Array2::from_shape_vec(shape, values).unwrap())
        };
        let input = |(name, readers): (&'static str, &[&str])| {
            let readers: Vec<_> = readers.iter().map(weight).collect();
            let stats = self.stats(name, readers[0].1.ncols());
            Input { name, readers, stats }
        };
        INPUTS.into_iter().map(input).collect()
    }

    fn stats(&self, input: &str, in_features: usize) -> CalibrationStats {
        let mut upper = self.f32(&format!("{input}.hessian")).into_iter();
        let mut hessian = Array2::zeros((in_features, in_features));
        for row in 0..in_features {
            for column in row..in_features {
                let value = upper.next().unwrap();
                hessian[[row, column]] = value;
                hessian[[column, row]] = value;
            }
        }
        assert_eq!(upper.next(), None, "{input}");
        CalibrationStats::from_hessian(64 * 256, hessian)
    }
}

impl Input {
    fn views(&self) -> Vec<WeightView<'_>> {
        self.readers.iter().map(|(name, weight)| WeightView::new(name, weight.view()).unwrap()).collect()
    }

    /// Squared error of the outputs of all readers over their squares.
    fn error(&self, decode: impl Fn(&ModuleName, &Array2<f32>) -> Array2<f32>) -> f64 {
        let hessian = self.stats.hessian.as_ref().unwrap().matrix().mapv(f64::from);
        let square = |change: Array2<f32>| {
            let change = change.mapv(f64::from);
            (change.dot(&hessian) * &change).sum()
        };
        let errors: f64 = self.readers.iter().map(|(name, w)| square(decode(name, w) - w)).sum();
        let outputs: f64 = self.readers.iter().map(|(_, w)| square(w.clone())).sum();
        errors / outputs
    }

    /// The error of `quantizer` on weights multiplied by `scales`.
    fn scaled_error(&self, quantizer: &dyn Quantizer, scales: &Array1<f32>, width: BitWidth) -> f64 {
        let stats = self.stats.rescaled(scales);
        self.error(|name, weight| {
            let weight = scale_columns(weight.view(), scales);
            let view = WeightView::new(name, weight.view()).unwrap();
            quantizer.quantize_at(&view, &stats, width).unwrap().dequantize() / scales
        })
    }
}

/// A method of this project, its scales included.
fn awq_error(input: &Input, quantizer: Rtn, width: BitWidth) -> f64 {
    let scales = Awq::new(quantizer, &[width]).scales(&input.views(), &input.stats).unwrap();
    let scales = scales.unwrap_or_else(|| Array1::ones(input.readers[0].1.ncols()));
    input.scaled_error(&quantizer, &scales, width)
}

#[test]
fn awq_scales_lose_as_little_as_those_of_the_reference() {
    let (golden, rtn) = (Golden::read(), Rtn::asymmetric(group()));
    let mut ratios = Vec::new();
    for input in golden.inputs() {
        for width in WIDTHS {
            let case = format!("{}.awq.{width}", input.name);
            let scales = Array1::from(golden.f32(&format!("{case}.scales")));
            let (plain, ones) = (golden.f64(&format!("{case}.errors"))[0], Array1::ones(scales.len()));
            // Both sides mean the same by the error; the reference does not round its steps.
            let ratio = input.scaled_error(&rtn, &ones, width) / plain;
            assert!((ratio - 1.0).abs() < 0.01, "{case}: {ratio}");

            let ratio = awq_error(&input, rtn, width) / input.scaled_error(&rtn, &scales, width);
            // The candidates are roots of mean squares instead of means, and so not the same.
            assert!(ratio < 1.02, "{case}: {ratio}");
            ratios.push(ratio);
        }
    }
    assert!(ratios.iter().sum::<f64>() / ratios.len() as f64 <= 1.0, "{ratios:.4?}");
}

#[test]
fn awq_with_ranges_loses_less_than_the_reference() {
    let (golden, rtn) = (Golden::read(), Rtn::asymmetric(group()));
    for input in golden.inputs() {
        for width in WIDTHS {
            let case = format!("{}.awq.{width}", input.name);
            let reference = golden.f64(&format!("{case}.errors"))[2];
            let found = awq_error(&input, rtn.clip(Clip::Correlated), width);
            assert!(found < reference, "{case}: {found} {reference}");
        }
    }
}

#[test]
fn hqq_loses_less_than_the_reference_with_integer_zero_points() {
    let (golden, hqq) = (Golden::read(), Hqq::new(group()));
    let inputs = golden.inputs();
    for width in WIDTHS {
        // Output errors, summed over modules.
        let (mut found, mut integer, mut floating) = (0.0, 0.0, 0.0);
        for input in &inputs {
            for (name, weight) in &input.readers {
                let reference = |kind: &str| -> [f64; 2] {
                    golden.f64(&format!("{name}.hqq.{width}.{kind}")).try_into().unwrap()
                };
                let view = WeightView::new(name, weight.view()).unwrap();
                let decoded =
                    hqq.quantize_at(&view, &CalibrationStats::default(), width).unwrap().dequantize();
                let objective: f64 = (&decoded - weight).iter().map(|&d| f64::from(d).abs().powf(0.7)).sum();
                let ([integer_output, integer_objective], [floating_output, floating_objective]) =
                    (reference("int"), reference("float"));
                assert!(objective < integer_objective, "{name} {width}: {objective}");
                assert!(objective < floating_objective, "{name} {width}: {objective}");

                let readers = vec![(name.clone(), weight.clone())];
                let one = Input { name: input.name, readers, stats: input.stats.clone() };
                found += one.error(|_, _| decoded.clone());
                integer += integer_output;
                floating += floating_output;
            }
        }
        assert!(found < integer, "{width}: {found} {integer}");
        // Against 16-bit zero points, which take more storage.
        assert!(found < 1.04 * floating, "{width}: {found} {floating}");
    }
}
