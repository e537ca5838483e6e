//! Checkpoint folders, on two small models: one file with shared embeddings, and shards.

#![allow(clippy::unwrap_used, reason = "also what tests call may assert")]

mod fixture;

use std::{collections::BTreeMap, fs, path::Path};

use fixture::{folder, list, quantize, read, shards, tiny_checkpoint, values};
use gamma_core::ModuleName;
use gamma_export::{Export, ExportError, Precision};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const MODELS: [&str; 3] = ["fixtures/fable", "golden/llama3-random", "golden/qwen2-random"];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// Exports `model` and compares every tensor of every file. `stored` says in which type a decoded
/// weight stands in the file, and as which number.
fn check(model: &str, precision: Precision, stored: impl Fn(Dtype, f32) -> (Dtype, f32)) {
    let source = folder(model);
    let (plan, weights) = quantize(&source);
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("out");
    let files = Export::new(&plan).dequantized(&source, precision).write(&target, &weights).unwrap();
    assert_eq!(files.iter().map(|file| file.name.clone()).collect::<Vec<_>>(), list(&target));
    assert_eq!(list(scratch.path()), ["out"], "nothing else may stay");

    let (mut total, mut decoded) = (0, 0);
    assert_eq!(shards(&source), shards(&target));
    for shard in shards(&source) {
        let (old, new) = (read(&source.join(&shard)), read(&target.join(&shard)));
        let metadata = |bytes| SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone().unwrap();
        assert_eq!(metadata(&new), metadata(&old));
        let (old, new) = (SafeTensors::deserialize(&old).unwrap(), SafeTensors::deserialize(&new).unwrap());
        assert_eq!(old.len(), new.len());
        for (name, old) in old.tensors() {
            let new = new.tensor(&name).unwrap();
            total += new.data().len();
            let module = ModuleName::new(name.strip_suffix(".weight").unwrap_or(&name));
            match weights.get(&module) {
                None => assert_eq!(old, new, "{name}"),
                Some(weight) => {
                    decoded += 1;
                    let dtype = stored(old.dtype(), 0.0).0;
                    assert_eq!((new.dtype(), new.shape()), (dtype, old.shape()), "{name}");
                    let expected = weight.dequantize().mapv(|w| stored(old.dtype(), w).1);
                    assert_eq!(values(&new), expected, "{name}");
                }
            }
        }
    }
    assert_eq!(decoded, weights.len());
    if let Some(index) = list(&target).iter().find(|name| name.ends_with("index.json")) {
        let (mut old, new) = (json(&source.join(index)), json(&target.join(index)));
        old["metadata"]["total_size"] = total.into();
        assert_eq!(old, new);
    }
    let (mut old, new) = (json(&source.join("config.json")), json(&target.join("config.json")));
    if precision == Precision::F32 {
        let key = if old.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        old[key] = "float32".into();
    }
    assert_eq!(old, new);
    for name in list(&source) {
        let copied = name.starts_with("tokenizer") || name == "generation_config.json";
        assert_eq!(target.join(&name).exists(), copied || list(&target).contains(&name));
        if copied {
            assert_eq!(read(&source.join(&name)), read(&target.join(&name)), "{name}");
        }
    }
    assert!(!target.join("train.py").exists() && !target.join("calibration.txt").exists());
}

#[test]
fn f32_checkpoints_hold_the_exact_decoded_weights_and_all_else_byte_for_byte() {
    for model in MODELS {
        check(model, Precision::F32, |_, w| (Dtype::F32, w));
    }
}

#[test]
fn checkpoints_in_the_source_type_hold_the_decoded_weights_rounded_to_nearest() {
    for model in MODELS {
        check(model, Precision::Source, |dtype, w| match dtype {
            Dtype::BF16 => (dtype, bf16::from_f32(w).to_f32()),
            Dtype::F16 => (dtype, f16::from_f32(w).to_f32()),
            other => panic!("{other}"),
        });
    }
}

#[test]
fn weights_beyond_f16_become_its_largest_value_in_an_f16_checkpoint() {
    use gamma_core::{BitWidth, GroupSize};
    use gamma_quant::IntWeight;

    let scratch = tempfile::tempdir().unwrap();
    let (source, target) = (scratch.path().join("in"), scratch.path().join("out"));
    tiny_checkpoint(&source);
    let bytes = [0_u8; 48];
    let tensor = safetensors::tensor::TensorView::new(Dtype::F16, vec![4, 6], &bytes).unwrap();
    let file = safetensors::serialize([("m.q_proj.weight", tensor)], None).unwrap();
    fs::write(source.join("model.safetensors"), file).unwrap();
    let name = ModuleName::new("m.q_proj");
    let layout = (BitWidth::B2, GroupSize::new(6).unwrap());
    let codes = [0, 1, 2, 3, 3, 3].repeat(4);
    let weight = IntWeight::from_codes(&name, [4, 6], layout, &codes, vec![f16::MAX; 4], None).unwrap();
    let weights = BTreeMap::from([(name, weight.into())]);
    let plan = fixture::plan(&weights);
    Export::new(&plan).dequantized(&source, Precision::Source).write(&target, &weights).unwrap();
    let file = read(&target.join("model.safetensors"));
    let file = SafeTensors::deserialize(&file).unwrap();
    let row: Vec<_> = file.tensor("m.q_proj.weight").unwrap().data()[..12]
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| f16::from_le_bytes(bytes))
        .collect();
    assert_eq!(row, [f16::MIN, f16::MIN, f16::ZERO, f16::MAX, f16::MAX, f16::MAX]);
    let (_, header) = SafeTensors::read_metadata(&read(&target.join("model.safetensors")))
        .map(|(n, metadata)| (n, metadata.metadata().clone()))
        .unwrap();
    assert_eq!(header.unwrap()["format"], "pt");
}

/// A source that cannot be used: `damage` is done to a good one, `expected` recognizes the error.
fn check_refusal(damage: impl FnOnce(&Path), expected: impl FnOnce(&ExportError) -> bool) {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("in");
    let (plan, weights) = tiny_checkpoint(&source);
    damage(&source);
    let target = scratch.path().join("new/out");
    let export = Export::new(&plan).dequantized(&source, Precision::F32);
    let error = export.write(&target, &weights).unwrap_err();
    assert!(expected(&error), "{error:?}");
    assert_eq!(list(scratch.path()), ["in"], "{error}: nothing may be written");
}

fn rewrite(folder: &Path, name: &str, dtype: Dtype, shape: [usize; 2]) {
    let bytes = vec![0; shape[0] * shape[1] * dtype.bitsize() / 8];
    let tensor = safetensors::tensor::TensorView::new(dtype, shape.to_vec(), &bytes).unwrap();
    fs::write(folder.join("model.safetensors"), safetensors::serialize([(name, tensor)], None).unwrap())
        .unwrap();
}

fn index(folder: &Path, content: &str) {
    fs::rename(folder.join("model.safetensors"), folder.join("part.safetensors")).unwrap();
    fs::write(folder.join("model.safetensors.index.json"), content).unwrap();
}

#[test]
fn sources_that_do_not_fit_are_refused_before_anything_is_written() {
    type Error = ExportError;
    let name = "m.q_proj.weight";
    check_refusal(
        |source| fs::remove_dir_all(source).and_then(|()| fs::create_dir(source)).unwrap(),
        |error| matches!(error, Error::NoCheckpoint { .. }),
    );
    check_refusal(
        |source| rewrite(source, "m.other.weight", Dtype::F32, [4, 6]),
        |error| matches!(error, Error::UnknownTensor { tensor, .. } if tensor == name),
    );
    check_refusal(
        |source| rewrite(source, name, Dtype::F32, [6, 4]),
        |error| matches!(error, Error::TensorShape { tensor, .. } if tensor == name),
    );
    check_refusal(
        |source| rewrite(source, name, Dtype::F8_E4M3, [4, 6]),
        |error| matches!(error, Error::TensorType { found, .. } if found == "F8_E4M3"),
    );
    for keep in [0, 4, 40, 200] {
        check_refusal(
            |source| {
                let path = source.join("model.safetensors");
                let bytes = read(&path);
                assert!(bytes.len() > keep);
                fs::write(&path, &bytes[..keep]).unwrap();
            },
            |error| matches!(error, Error::Safetensors { path, .. } if path.ends_with("model.safetensors")),
        );
    }
    check_refusal(
        |source| index(source, "{\"weight_map\": {\"m.q_proj.weight\": \"../in/part.safetensors\"}}"),
        |error| matches!(error, Error::ShardName { .. }),
    );
    check_refusal(
        |source| index(source, "{\"weight_map\": {\"m.k_proj.weight\": \"part.safetensors\"}}"),
        |error| matches!(error, Error::UnknownTensor { tensor, .. } if tensor == "m.k_proj.weight"),
    );
    check_refusal(
        |source| index(source, "{\"weight_map\": {\"m.q_proj.weight\": \"lost.safetensors\"}}"),
        |error| matches!(error, Error::Read { path, .. } if path.ends_with("lost.safetensors")),
    );
    for broken in ["", "[]", "{\"weight_map\": 3}", "{}"] {
        check_refusal(|source| index(source, broken), |error| matches!(error, Error::Json { .. }));
    }
    check_refusal(
        |source| fs::remove_file(source.join("config.json")).unwrap(),
        |error| matches!(error, Error::Read { path, .. } if path.ends_with("config.json")),
    );
    check_refusal(
        |source| fs::write(source.join("config.json"), "{").unwrap(),
        |error| matches!(error, Error::Json { path, .. } if path.ends_with("config.json")),
    );
}

#[test]
fn an_index_with_unusual_metadata_gets_its_total_size() {
    for metadata in ["", ", \"metadata\": null", ", \"metadata\": \"text\"", ", \"metadata\": {\"x\": 1}"] {
        let scratch = tempfile::tempdir().unwrap();
        let (source, target) = (scratch.path().join("in"), scratch.path().join("out"));
        let (plan, weights) = tiny_checkpoint(&source);
        index(
            &source,
            &format!("{{\"weight_map\": {{\"m.q_proj.weight\": \"part.safetensors\"}}{metadata}}}"),
        );
        Export::new(&plan).dequantized(&source, Precision::F32).write(&target, &weights).unwrap();
        let index = json(&target.join("model.safetensors.index.json"));
        assert_eq!(index["metadata"]["total_size"], 24 * 4 + 6 * 4, "{metadata}");
    }
}

#[test]
fn replaced_tensors_keep_their_type_where_that_is_exact() {
    let scratch = tempfile::tempdir().unwrap();
    let source = folder("fixtures/fable");
    let (plan, weights) = quantize(&source);
    let target = scratch.path().join("out");
    let (exact, inexact) = ("model.norm.weight", "model.layers.0.input_layernorm.weight");
    let export = Export::new(&plan).dequantized(&source, Precision::F32).packed_model(&source);
    let third = vec![1.0 / 3.0; 64];
    export
        .clone()
        .replace(exact, vec![0.5; 64])
        .replace(inexact, third.clone())
        .write(&target, &weights)
        .unwrap();
    let values = |file: &str, tensor: &str| {
        let bytes = read(&target.join(file));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let view = tensors.tensor(tensor).unwrap();
        (view.dtype(), view.data().to_vec())
    };
    let half = half::bf16::from_f32(0.5).to_le_bytes().repeat(64);
    assert_eq!(values("model.safetensors", exact), (Dtype::BF16, half.clone()));
    assert_eq!(values("packed.safetensors", exact), (Dtype::BF16, half));
    let exactly: Vec<u8> = third.iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(values("model.safetensors", inexact), (Dtype::F32, exactly));
    // The packed file keeps the size that was foretold.
    assert_eq!(values("packed.safetensors", inexact).0, Dtype::BF16);

    let refused = |export: Export<'_>| export.write(&scratch.path().join("never"), &weights).unwrap_err();
    let error = refused(export.clone().replace("model.nor.weight", vec![0.0]));
    assert!(
        matches!(&error, ExportError::UnknownTensor { tensor, .. } if tensor == "model.nor.weight"),
        "{error}"
    );
    let error = refused(export.replace(exact, vec![0.0]));
    assert!(matches!(error, ExportError::TensorShape { .. }), "{error}");
}
