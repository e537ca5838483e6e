//! Packed files: their bits, their way back, and damaged ones.

#![allow(clippy::unwrap_used, reason = "also what tests call may assert")]

mod fixture;

use std::{collections::HashMap, fs, path::Path};

use fixture::{Weights, folder, list, quantize, read};
use gamma_core::{BitWidth, Footprint, Format, ModuleName};
use gamma_export::{Export, ExportError, read_packed, remainder};
use gamma_quant::{CustomWeight, QuantizeError};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{TensorView, View},
};

#[test]
fn the_bytes_of_the_file_are_the_bits_of_the_plan() {
    let (plan, weights) = quantize(&folder("fixtures/fable"));
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("out");
    let files = Export::new(&plan).packed().write(&target, &weights).unwrap();
    let path = target.join("packed.safetensors");
    let bytes = read(&path);
    assert_eq!((files[0].bytes, list(&target).len()), (bytes.len() as u64, 1));

    let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut widths = std::collections::BTreeSet::new();
    for choice in plan.choices() {
        let part = |part| tensors.tensor(&format!("{}.{part}", choice.name));
        let (codes, scales) = (part("codes").unwrap(), part("scales").unwrap());
        let zeros = part("zeros").map_or(0, |zeros| zeros.data().len());
        let stored = codes.data().len() + scales.data().len() + zeros;
        assert_eq!(stored as u64 * 8, choice.stored_bits, "{}", choice.name);
        let Format::Int { bits, group, .. } = choice.format else { panic!("{}", choice.format) };
        assert_eq!(
            codes.data().len(),
            (choice.shape[0] * choice.shape[1] * usize::from(bits.bits())).div_ceil(8)
        );
        assert_eq!(scales.shape(), [choice.shape[0], group.groups_in(choice.shape[1])]);
        widths.insert(bits);
    }
    assert!(widths.len() >= 3, "the plan mixes widths");
    assert_eq!((bytes.len() - header - 8) as u64 * 8, plan.stored_bits());
    assert_eq!(read_packed(&path).unwrap(), weights);
}

#[test]
fn a_packed_model_holds_every_other_tensor_and_is_as_large_as_foretold() {
    for source in ["fixtures/fable", "golden/qwen2-random"].map(folder) {
        let (mut plan, mut weights) = quantize(&source);
        let scratch = tempfile::tempdir().unwrap();
        // With all modules, and with two of them left as they are.
        for (round, left) in [0, 2].into_iter().enumerate() {
            for _ in 0..left {
                weights.pop_first();
            }
            plan = if left > 0 { fixture::plan(&weights) } else { plan };
            let target = scratch.path().join(round.to_string());
            let files = Export::new(&plan).packed_model(&source).write(&target, &weights).unwrap();
            let path = target.join("packed.safetensors");
            assert_eq!(read_packed(&path).unwrap(), weights);

            let remainder = remainder(&source, &fixture::table(&weights)).unwrap();
            let parts = Footprint::of_modules(&plan).with_tensors(&remainder);
            let container = files[0].bytes - parts.total();
            assert_eq!(parts.with_container(container).total(), fs::metadata(&path).unwrap().len());
            assert!(container <= remainder.container, "{container} and {}", remainder.container);
            assert!(remainder.container < container + container / 4, "{container}, {}", remainder.container);

            let bytes = read(&path);
            let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
            assert_eq!(container, header as u64 + 8);
            let packed = SafeTensors::deserialize(&bytes).unwrap();
            for shard in fixture::shards(&source) {
                let original = read(&source.join(shard));
                for (name, tensor) in SafeTensors::deserialize(&original).unwrap().tensors() {
                    let module = ModuleName::new(name.trim_end_matches(".weight"));
                    match packed.tensor(&name) {
                        Ok(copy) => assert_eq!(copy, tensor, "{name}"),
                        Err(_) => assert!(weights.contains_key(&module), "{name} is lost"),
                    }
                }
            }
        }
    }
}

#[test]
fn the_same_weights_give_the_same_file() {
    let (plan, weights) = quantize(&folder("golden/qwen2-random"));
    let scratch = tempfile::tempdir().unwrap();
    let files = ["a", "b"].map(|name| {
        let target = scratch.path().join(name);
        Export::new(&plan).packed().write(&target, &weights).unwrap();
        read(&target.join("packed.safetensors"))
    });
    assert_eq!(files[0], files[1]);
}

#[test]
fn custom_codes_are_refused_by_name_before_anything_is_written() {
    let (_, mut weights) = quantize(&folder("fixtures/fable"));
    let name = ModuleName::new("model.layers.1.mlp.up_proj");
    let format = Format::Custom { bits: BitWidth::B2, name: "own".into() };
    let values = weights[&name].dequantize();
    let custom = CustomWeight::new(&name, format, values, 12_345).unwrap();
    weights.insert(name.clone(), custom.into());
    let scratch = tempfile::tempdir().unwrap();
    let error = Export::new(&fixture::plan(&weights))
        .packed()
        .file("plan.json", "{}")
        .write(&scratch.path().join("out"), &weights)
        .unwrap_err();
    assert!(matches!(&error, ExportError::CustomFormat { module, .. } if *module == name), "{error}");
    assert!(list(scratch.path()).is_empty());
}

/// Tensors of one packed module of shape `[1, 3]` in `int3:g2:asym:f16`, and its header.
struct Parts {
    header: String,
    tensors: Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    fn new() -> Self {
        Self {
            header: r#"{"format": "gamma.packed/1", "modules": {"m": {"format": "int3:g2:asym:f16", "shape": [1, 3]}}}"#
                .into(),
            tensors: vec![
                ("m.codes", Dtype::U8, vec![2], vec![0b1001_1101, 1]),
                ("m.scales", Dtype::F16, vec![1, 2], vec![0, 0x3C, 0, 0x40]),
                ("m.zeros", Dtype::U8, vec![1], vec![0b001_010]),
            ],
        }
    }

    fn read(&self, path: &Path) -> Result<Weights, ExportError> {
        let views = self
            .tensors
            .iter()
            .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        let metadata = HashMap::from([("gamma".to_owned(), self.header.clone())]);
        fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
        read_packed(path)
    }
}

#[test]
fn a_file_written_by_hand_decodes() {
    let scratch = tempfile::tempdir().unwrap();
    let weights = Parts::new().read(&scratch.path().join("packed.safetensors")).unwrap();
    // Codes 5, 3 | 6, scales 1 | 2, zero points 2 | 1.
    assert_eq!(weights[&ModuleName::new("m")].dequantize(), ndarray::array![[3.0, 1.0, 10.0]]);
}

#[test]
fn contradictory_files_are_refused() {
    type Expected = fn(&ExportError) -> bool;
    type Damage = fn(&mut Parts);
    type Error = ExportError;
    let cases: [(Damage, Expected); 14] = [
        (|p| p.header = "{}".into(), |e| matches!(e, Error::Json { .. })),
        (
            |p| p.header = p.header.replace("packed/1", "packed/2"),
            |e| matches!(e, Error::PackedVersion { found, .. } if found == "gamma.packed/2"),
        ),
        (
            |p| p.header = p.header.replace("int3:g2:asym:f16", "custom3:own"),
            |e| matches!(e, Error::PackedFormat { .. }),
        ),
        (|p| p.header = p.header.replace("int3:", "int9:"), |e| matches!(e, Error::Json { .. })),
        (|p| p.header = p.header.replace("[1, 3]", "[1, -3]"), |e| matches!(e, Error::Json { .. })),
        (
            |p| p.header = p.header.replace("asym", "sym"),
            |e| matches!(e, Error::StrayTensor { tensor, .. } if tensor == "m.zeros"),
        ),
        (
            |p| p.header = p.header.replace("\"m\"", "\"k\""),
            |e| matches!(e, Error::UnknownTensor { tensor, .. } if tensor == "k.codes"),
        ),
        (
            |p| p.header = p.header.replace("[1, 3]", "[18446744073709551615, 3]"),
            |e| matches!(e, Error::TensorShape { .. }),
        ),
        (
            |p| {
                p.header = p.header.replace("[1, 3]", "[1, 18446744073709551615]").replace("g2", "g65536");
                p.tensors[1].3 = Vec::new();
                p.tensors[1].2 = vec![1, 0];
            },
            |e| matches!(e, Error::TensorShape { .. }),
        ),
        (|p| p.tensors[0].1 = Dtype::I8, |e| matches!(e, Error::TensorType { found, .. } if found == "I8")),
        (
            |p| (p.tensors[0].2, p.tensors[0].3) = (vec![3], vec![0, 0, 0]),
            |e| matches!(e, Error::PackedModule { source: QuantizeError::StreamLength { .. }, .. }),
        ),
        (
            |p| p.tensors[0].3[1] = 0b10,
            |e| matches!(e, Error::PackedModule { source: QuantizeError::Padding { .. }, .. }),
        ),
        (
            |p| p.tensors[1].3[1] = 0x7C,
            |e| matches!(e, Error::PackedModule { source: QuantizeError::ScaleNotFinite { .. }, .. }),
        ),
        (
            |p| p.tensors.push(("n.codes", Dtype::U8, vec![0], vec![])),
            |e| matches!(e, Error::StrayTensor { tensor, .. } if tensor == "n.codes"),
        ),
    ];
    let scratch = tempfile::tempdir().unwrap();
    for (i, (damage, expected)) in cases.into_iter().enumerate() {
        let path = scratch.path().join(format!("{i}.safetensors"));
        let mut parts = Parts::new();
        damage(&mut parts);
        let error = parts.read(&path).unwrap_err();
        assert!(expected(&error), "{i}: {error:?}");
        assert!(error.to_string().contains(&format!("{i}.safetensors")), "{error}");
    }
}

#[test]
fn every_truncation_and_other_safetensors_files_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("packed.safetensors");
    Parts::new().read(&path).unwrap();
    let bytes = read(&path);
    for len in 0..bytes.len() {
        // A new file each time: a mapped one must not shrink.
        let path = scratch.path().join(format!("{len}"));
        fs::write(&path, &bytes[..len]).unwrap();
        let error = read_packed(&path).unwrap_err();
        assert!(matches!(error, ExportError::Safetensors { .. }), "{len}: {error:?}");
    }
    let error = read_packed(&folder("fixtures/fable/model.safetensors")).unwrap_err();
    assert!(matches!(error, ExportError::NotPacked { .. }), "{error:?}");
    let error = read_packed(&scratch.path().join("missing")).unwrap_err();
    assert!(matches!(error, ExportError::Read { .. }), "{error:?}");
}

#[test]
fn views_of_a_packed_file_cover_it() {
    // `data_len` is what offsets are computed from; a wrong one would shift all that follows.
    let (plan, weights) = quantize(&folder("golden/llama3-random"));
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("out");
    Export::new(&plan).packed().write(&target, &weights).unwrap();
    let bytes = read(&target.join("packed.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let covered: usize = tensors.iter().map(|(_, view)| view.data_len()).sum();
    let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(covered + header + 8, bytes.len());
}
