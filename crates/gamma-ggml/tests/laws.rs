//! What the quantizer promises, seen from outside.

use gamma_core::{BitWidth, Format, ModuleName};
use gamma_ggml::{Ggml, GgmlType, importance};
use gamma_quant::{CalibrationStats, QuantizeError, Quantizer, WeightView, laws};
use ndarray::{Array1, Array2};

const WIDTHS: [BitWidth; 6] =
    [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B5, BitWidth::B6, BitWidth::B8];

#[test]
fn every_type_keeps_the_laws() {
    for ggml in [Ggml::with_small_blocks(), Ggml::portable().weighted()] {
        assert_eq!(laws::check(&ggml, &WIDTHS).map_err(|v| laws::report(&v)), Ok(()), "{ggml:?}");
    }
}

#[test]
fn formats_read_back_as_types() {
    for kind in GgmlType::all() {
        if let Some(format) = kind.format() {
            let read: Format = format.to_string().parse().unwrap();
            assert_eq!(GgmlType::from_format(&read), Some(kind));
        }
    }
    for other in ["custom4:ggml-q5_K", "custom4:ggml-f16", "custom4:q4_K", "int4:g32:sym:f16"] {
        assert_eq!(GgmlType::from_format(&other.parse().unwrap()), None, "{other}");
    }
    assert!(Ggml::new([GgmlType::Q4K, GgmlType::F16]).is_err());
    assert!(Ggml::new([GgmlType::Iq4Xs]).is_err());
}

#[test]
fn the_bytes_are_those_of_the_codec_and_importance_matters() {
    let name = ModuleName::new("model.layers.0.mlp.up_proj");
    let weight = Array2::from_shape_fn((3, 512), |(i, j)| ((i * 512 + j) as f32 * 0.7).sin());
    let view = WeightView::new(&name, weight.view()).unwrap();
    let moments = Array1::from_shape_fn(512, |j| if j % 7 == 0 { 90.0 } else { 0.3 });
    let stats = CalibrationStats::from_second_moment(9, moments.clone());
    let format = GgmlType::Q3K.format().unwrap();
    let h = importance(&moments.to_vec()).unwrap();
    let mut found = Vec::new();
    for (ggml, h) in [(Ggml::portable(), None), (Ggml::portable().weighted(), Some(h.as_slice()))] {
        let quantized = ggml.quantize(&view, &stats, &format).unwrap();
        let mut bytes = vec![0; 3 * 2 * 110];
        for (row, bytes) in bytes.chunks_exact_mut(220).enumerate() {
            GgmlType::Q3K.encode(&view.row(row), h, bytes).unwrap();
        }
        assert_eq!(quantized.as_custom().unwrap().bytes(), Some(bytes.as_slice()));
        let rest = &weight - &quantized.dequantize();
        found.push((&rest * &rest * &moments).sum());
    }
    assert!(found[1] < 0.8 * found[0], "{found:?}");
}

#[test]
fn errors_name_the_module_and_the_block() {
    let name = ModuleName::new("model.layers.3.mlp.down_proj");
    let ggml = Ggml::portable().weighted();
    let quantize = |weight: &Array2<f32>, moment| {
        let view = WeightView::new(&name, weight.view()).unwrap();
        let stats = CalibrationStats::from_second_moment(1, Array1::from_elem(weight.ncols(), moment));
        ggml.quantize_at(&view, &stats, BitWidth::B4).unwrap_err()
    };
    let error = quantize(&Array2::ones((2, 192)), 1.0);
    for word in [name.as_str(), "custom4:ggml-q4_K", "192"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(matches!(quantize(&Array2::ones((2, 256)), 0.0), QuantizeError::NoSignal { .. }));
    let mut large = Array2::ones((3, 512));
    large[[1, 300]] = 1e12;
    large[[2, 0]] = 1e13;
    let error = quantize(&large, 1.0);
    assert!(matches!(error, QuantizeError::ScaleOverflow { row: 1, group: 1, .. }), "{error}");
}
