//! What the quantizer promises, seen from outside.

use gamma_core::{BitWidth, GroupSize, ModuleName};
use gamma_quant::{CalibrationStats, QuantizeError, Quantizer, WeightView, laws};
use ndarray::{Array2, array};
use ternary::{Packed, Ternary, TernaryError};

fn methods() -> impl Iterator<Item = Ternary> {
    [1, 5, 64, 128].into_iter().flat_map(|channels| {
        let plain = Ternary::new(GroupSize::new(channels).expect("valid"));
        [plain, plain.weighted()]
    })
}

#[test]
fn ternary_keeps_the_laws() {
    for method in methods() {
        assert_eq!(laws::check(&method, &[BitWidth::B2]).map_err(|v| laws::report(&v)), Ok(()), "{method:?}");
    }
}

#[test]
fn importance_moves_the_scale_towards_the_weights_that_matter() {
    let name = ModuleName::new("model.layers.0.mlp.up_proj");
    let weight = array![[1.0, -0.5, 0.125, 0.0], [0.0, 0.0, -3.0, 3.0]];
    let view = WeightView::new(&name, weight.view()).unwrap();
    let ternary = Ternary::new(GroupSize::new(4).unwrap());
    let plain = ternary.quantize_at(&view, &CalibrationStats::default(), BitWidth::B2).unwrap();
    assert_eq!(plain.dequantize(), array![[0.75, -0.75, 0.0, 0.0], [0.0, 0.0, -3.0, 3.0]]);
    // A row: four codes in a byte and a scale.
    assert_eq!(plain.stored_bits(), 2 * (8 + 16));

    // Importances 0.01, 2.01, 0.01 and 2.01: the first weight does not pull the scale to its size.
    let stats = CalibrationStats::from_second_moment(9, array![0.0, 8.0, 0.0, 8.0]);
    let weighted = ternary.weighted().quantize_at(&view, &stats, BitWidth::B2).unwrap().dequantize();
    assert_eq!(weighted[[0, 0]].to_bits(), (-weighted[[0, 1]]).to_bits());
    assert!((weighted[[0, 0]] - 0.5025).abs() < 3e-4, "{weighted}");
}

#[test]
fn the_size_is_that_of_the_bytes_and_the_bytes_decode_to_the_weights() {
    let name = ModuleName::new("m");
    for shape in [[1, 1], [3, 64], [5, 172], [2, 133]] {
        let weight = Array2::from_shape_fn(shape, |(i, j)| ((i * 191 + j * 7) as f32 * 0.37).sin());
        let view = WeightView::new(&name, weight.view()).unwrap();
        for (channels, method) in [1, 5, 64, 128].into_iter().zip(methods().step_by(2)) {
            let quantized = method.quantize_at(&view, &CalibrationStats::default(), BitWidth::B2).unwrap();
            let values = quantized.dequantize();
            let packed = Packed::new(values.view(), GroupSize::new(channels).unwrap()).expect("ternary");
            assert_eq!(packed.bits(), quantized.stored_bits(), "{method:?}, {shape:?}");
            assert_eq!(packed.decode(), values, "{method:?}, {shape:?}");
        }
    }
}

#[test]
fn errors_name_the_module_and_carry_what_only_this_method_knows() {
    let name = ModuleName::new("model.layers.3.mlp.down_proj");
    let mut weight = Array2::from_elem((4, 6), 0.5);
    let ternary = Ternary::new(GroupSize::new(2).unwrap()).weighted();
    let refused = |weight: &Array2<f32>, moments| {
        let view = WeightView::new(&name, weight.view()).unwrap();
        let stats = CalibrationStats::from_second_moment(1, moments);
        ternary.quantize_at(&view, &stats, BitWidth::B2).unwrap_err()
    };
    let error = refused(&weight, array![1.0, 1.0, 1.0, 1.0, -2.0, 1.0]);
    assert_eq!(error.to_string(), format!("module `{name}`: the quantizer `ternary` failed"));
    let QuantizeError::Method { source, .. } = error else { panic!("{error}") };
    let expected = TernaryError::NegativeMoment { channel: 4, value: -2.0 };
    assert_eq!(source.downcast_ref(), Some(&expected));

    let error = refused(&weight, array![0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(matches!(error, QuantizeError::NoSignal { .. }), "{error}");

    weight[[2, 3]] = 1e6;
    weight[[3, 0]] = 1e7;
    let error = refused(&weight, array![1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert!(matches!(error, QuantizeError::ScaleOverflow { row: 2, group: 1, .. }), "{error}");
}
