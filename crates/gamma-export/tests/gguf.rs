//! GGUF files of the checkpoints in `tests/`, read back by themselves and against a public file.
#![allow(clippy::unwrap_used, reason = "called by tests alone")]

mod fixture;

use std::{collections::BTreeMap, fs, path::Path};

use fixture::{Weights, folder, plan, read, shards, values};
use gamma_core::{BitWidth, GroupSize, ModuleName, Plan};
use gamma_export::{
    ExportError, GgufExport, GgufRecode, Moments, gguf_tensor_name, mistralrs_topology, tensor_type_file,
    write_imatrix,
};
use gamma_ggml::{Ggml, GgmlType, Gguf, Value};
use gamma_quant::{CalibrationStats, CustomWeight, QuantizedWeight, Quantizer, Rtn, WeightView};
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors};

/// Every matrix of a checkpoint by its module.
fn matrices(folder: &Path) -> BTreeMap<ModuleName, Array2<f32>> {
    let mut found = BTreeMap::new();
    for shard in shards(folder) {
        let bytes = read(&folder.join(shard));
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            if let (Some(module), 2) = (name.strip_suffix(".weight"), tensor.shape().len()) {
                let matrix = match tensor.dtype() {
                    Dtype::F16 => {
                        let numbers = tensor.data().as_chunks().0.iter();
                        let numbers = numbers.map(|&b| half::f16::from_le_bytes(b).to_f32()).collect();
                        let shape: [usize; 2] = tensor.shape().try_into().unwrap();
                        Array2::from_shape_vec(shape, numbers).unwrap()
                    }
                    _ => values(&tensor),
                };
                found.insert(ModuleName::new(module), matrix);
            }
        }
    }
    found
}

/// Every projection in one of several formats that fit it.
fn quantize(folder: &Path) -> (Plan, Weights) {
    let group = GroupSize::new(64).unwrap();
    let mut weights = Weights::new();
    for (name, matrix) in matrices(folder) {
        if !name.as_str().ends_with("_proj") {
            continue;
        }
        let view = WeightView::new(&name, matrix.view()).unwrap();
        let (ggml, rtn) = (Ggml::with_small_blocks(), Rtn::symmetric(group));
        let n = weights.len();
        if !matrix.ncols().is_multiple_of(32) {
            // No block divides these rows: they stay as they are.
            continue;
        }
        let width = [BitWidth::B4, BitWidth::B5, BitWidth::B8][n % 3];
        let weight = if n % 4 == 3 {
            rtn.quantize_at(&view, &CalibrationStats::default(), width).unwrap()
        } else {
            let format = ggml.formats(width).into_iter().find(|f| ggml.fits(f, view.shape())).unwrap();
            ggml.quantize(&view, &CalibrationStats::default(), &format).unwrap()
        };
        weights.insert(name, weight);
    }
    (plan(&weights), weights)
}

fn decoded(file: &Gguf, tensor: &str) -> Vec<f32> {
    let info = file.tensor(tensor).unwrap_or_else(|| panic!("no {tensor}"));
    let mut values = vec![f32::NAN; info.shape().iter().product::<u64>() as usize];
    info.kind.decode(file.bytes(tensor).unwrap(), &mut values).unwrap();
    values
}

/// The rows of a Llama's q or k as GGUF orders them, written from the rotation and not from the
/// exporter: pair `i` of a head rotates rows `i` and `i + half`, which become neighbours.
fn neighbours(matrix: &Array2<f32>, heads: usize) -> Vec<f32> {
    let head_dim = matrix.nrows() / heads;
    let mut rows = Vec::new();
    for row in 0..matrix.nrows() {
        let (head, place) = (row / head_dim, row % head_dim);
        let from = head * head_dim + place / 2 + (place % 2) * (head_dim / 2);
        rows.extend(matrix.row(from).iter().copied());
    }
    rows
}

#[test]
fn a_checkpoint_becomes_a_file_of_the_promised_size_with_the_planned_weights() {
    let source = folder("fixtures/fable");
    let (plan, weights) = quantize(&source);
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("new/fable.gguf");
    let export = GgufExport::new(&source, &plan)
        .keep_as(&ModuleName::new("model.embed_tokens"), GgmlType::Q8_0)
        .replace("model.norm.weight", vec![0.5; 64])
        .provenance("budget", "3 bits");
    let promised = export.outline().unwrap();
    let report = export.write(&target, &weights).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().len(), promised.file_bytes());
    assert_eq!((report.file_bytes, report.data_offset), (promised.file_bytes(), promised.data_offset()));
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);

    let file = Gguf::open(&target).unwrap();
    // 6 blocks of 9 tensors, embedding and norm; the head is the embedding.
    assert_eq!(file.tensors().len(), 6 * 9 + 2);
    assert_eq!(file.tensor("token_embd.weight").unwrap().kind, GgmlType::Q8_0);
    assert_eq!(decoded(&file, "output_norm.weight"), [0.5; 64]);
    for (key, value) in [
        ("general.architecture", Value::from("llama")),
        ("llama.block_count", 6_u32.into()),
        ("llama.attention.head_count_kv", 2_u32.into()),
        ("llama.rope.dimension_count", 16_u32.into()),
        ("tokenizer.ggml.pre", "gpt-2".into()),
        ("tokenizer.ggml.eos_token_id", 0_u32.into()),
        ("gamma.budget", "3 bits".into()),
        ("gamma.plan.stored_bits", plan.stored_bits().into()),
    ] {
        assert_eq!(file.metadata().get(key), Some(&value), "{key}");
    }
    let mut kinds = BTreeMap::new();
    for (name, weight) in &weights {
        let tensor = gguf_tensor_name(&name.weight()).unwrap();
        *kinds.entry(file.tensor(&tensor).unwrap().kind).or_insert(0) += 1;
        let expected = match name.role() {
            "q_proj" => neighbours(&weight.dequantize(), 4),
            "k_proj" => neighbours(&weight.dequantize(), 2),
            _ => weight.dequantize().into_raw_vec_and_offset().0,
        };
        assert_eq!(decoded(&file, &tensor), expected, "{name}");
    }
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), [GgmlType::Q4_0, GgmlType::Q5_0, GgmlType::Q8_0]);

    let error = export.write(&target, &weights).unwrap_err();
    assert!(matches!(error, ExportError::Exists { .. }), "{error}");
    assert_eq!(export.overwrite(true).write(&target, &weights).unwrap(), report);
}

#[test]
fn shards_scaled_rotations_biases_and_heads_of_their_own_are_carried() {
    for (name, architecture) in [("golden/llama3-random", "llama"), ("golden/qwen2-random", "qwen2")] {
        let source = folder(name);
        let (plan, weights) = quantize(&source);
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("model.gguf");
        GgufExport::new(&source, &plan).without_tokenizer().write(&target, &weights).unwrap();
        let file = Gguf::open(&target).unwrap();
        assert_eq!(file.metadata().text("general.architecture"), Some(architecture));
        assert_eq!(file.metadata().text("tokenizer.ggml.model"), Some("none"));
        let all = matrices(&source);
        let head = &all[&ModuleName::new("lm_head")];
        assert_eq!(decoded(&file, "output.weight"), head.clone().into_raw_vec_and_offset().0);
        if architecture == "llama" {
            assert_eq!(file.tensor("output.weight").unwrap().kind, GgmlType::Bf16);
            let factors = decoded(&file, "rope_freqs.weight");
            assert_eq!(factors.len(), 12);
            assert!(factors.windows(2).all(|pair| pair[0] <= pair[1]), "{factors:?}");
            assert!(factors[0] < 1.001 && factors[11] > 2.0, "{factors:?}");
        } else {
            assert_eq!(file.tensor("output.weight").unwrap().kind, GgmlType::F16);
            assert_eq!(file.tensor("blk.1.attn_q.bias").unwrap().kind, GgmlType::F32);
            let name = ModuleName::new("model.layers.1.self_attn.q_proj");
            let expected = weights[&name].dequantize().into_raw_vec_and_offset().0;
            assert_eq!(decoded(&file, "blk.1.attn_q.weight"), expected, "Qwen's heads stay as they are");
        }
    }
}

#[test]
fn plans_that_no_block_holds_are_refused_before_anything_is_quantized() {
    let source = folder("fixtures/fable");
    let (plan, mut weights) = quantize(&source);
    let asymmetric = Rtn::asymmetric(GroupSize::new(64).unwrap());
    for (name, matrix) in matrices(&source) {
        if name.role() == "down_proj" {
            let view = WeightView::new(&name, matrix.view()).unwrap();
            let weight = asymmetric.quantize_at(&view, &CalibrationStats::default(), BitWidth::B4).unwrap();
            weights.insert(name, weight);
        }
    }
    let mixed = fixture::plan(&weights);
    let errors = [
        GgufExport::new(&source, &mixed).outline().unwrap_err(),
        tensor_type_file(&mixed, &BTreeMap::new()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, ExportError::Unserved { modules, .. } if modules.len() == 6), "{error}");
        for word in ["model.layers.5.mlp.down_proj", "int4:g64:asym:f16"] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    let embedding = ModuleName::new("model.embed_tokens");
    let uneven = GgufExport::new(&source, &plan).keep_as(&embedding, GgmlType::Q4K).outline();
    assert!(uneven.is_err(), "rows of 64 are no blocks of 256");
    let planned = plan.choices()[0].name.clone();
    let error = GgufExport::new(&source, &plan).keep_as(&planned, GgmlType::F16).outline().unwrap_err();
    assert!(matches!(error, ExportError::PlannedAndKept { .. }), "{error}");
    let error = GgufExport::new(&source, &plan)
        .keep_as(&ModuleName::new("absent"), GgmlType::F16)
        .outline()
        .unwrap_err();
    assert!(matches!(error, ExportError::UnknownTensor { .. }), "{error}");
}

#[test]
fn weights_without_their_bytes_leave_nothing_behind() {
    let source = folder("fixtures/fable");
    let (_, mut weights) = quantize(&source);
    let name = ModuleName::new("model.layers.2.mlp.up_proj");
    let old = &weights[&name];
    let format = GgmlType::Q8_0.format().unwrap();
    let bits = GgmlType::Q8_0.bytes(old.shape()).unwrap() * 8;
    let values = CustomWeight::new(&name, format, old.dequantize(), bits).unwrap();
    weights.insert(name, QuantizedWeight::from(values));
    let (plan, scratch) = (plan(&weights), tempfile::tempdir().unwrap());
    let target = scratch.path().join("fable.gguf");
    let error = GgufExport::new(&source, &plan).write(&target, &weights).unwrap_err();
    assert!(matches!(error, ExportError::NoBytes { .. }), "{error}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_file_is_recoded_with_every_key_and_every_other_tensor_as_it_was() {
    let source = folder("fixtures/fable");
    let (plan, weights) = quantize(&source);
    let scratch = tempfile::tempdir().unwrap();
    let [first, second] = ["first.gguf", "second.gguf"].map(|name| scratch.path().join(name));
    // The first file holds the embedding in floats and one module as the checkpoint has it.
    GgufExport::new(&source, &plan).write(&first, &weights).unwrap();
    let up = "blk.3.ffn_up.weight";
    let recode = GgufRecode::open(&first)
        .unwrap()
        .tensor("token_embd.weight", GgmlType::Q5_0)
        .unwrap()
        .tensor(up, GgmlType::F32)
        .unwrap()
        .second_moment(&ModuleName::new("model.embed_tokens"), &[1.0; 64])
        .unwrap()
        .provenance("note", "recoded");
    let promised = recode.outline().unwrap().file_bytes();
    let report = recode.write(&second).unwrap();
    assert_eq!((report.file_bytes, fs::metadata(&second).unwrap().len()), (promised, promised));
    let [old, new] = [&first, &second].map(|path| Gguf::open(path).unwrap());
    for (key, value) in old.metadata().iter() {
        assert_eq!(new.metadata().get(key), Some(value), "{key}");
    }
    assert_eq!(new.metadata().len(), old.metadata().len() + 1);
    for tensor in old.tensors() {
        let name = tensor.name.as_str();
        match name {
            "token_embd.weight" => assert_eq!(new.tensor(name).unwrap().kind, GgmlType::Q5_0),
            _ if name == up => assert_eq!(decoded(&new, name), decoded(&old, name)),
            _ => assert_eq!(new.bytes(name), old.bytes(name), "{name}"),
        }
    }
    // Back to what the plan says: blocks that were decoded are found again, all but.
    let third = scratch.path().join("third.gguf");
    GgufRecode::open(&second).unwrap().plan(&plan).unwrap().write(&third).unwrap();
    let third = Gguf::open(&third).unwrap();
    assert_eq!(third.tensor(up).unwrap().kind, old.tensor(up).unwrap().kind);
    let (a, b) = (decoded(&third, up), decoded(&old, up));
    let (rest, all): (f32, f32) =
        a.iter().zip(&b).fold((0.0, 0.0), |(rest, all), (a, b)| (rest + (a - b).powi(2), all + b * b));
    assert!(rest < 1e-4 * all, "{rest} of {all}");
}

#[test]
fn recoding_refuses_what_it_cannot_do_by_name() {
    let source = folder("fixtures/fable");
    let (plan, weights) = quantize(&source);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("fable.gguf");
    GgufExport::new(&source, &plan).write(&path, &weights).unwrap();
    let open = || GgufRecode::open(&path).unwrap();
    let message = |result: Result<GgufRecode, ExportError>| {
        let error = result.unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    };
    assert!(message(open().tensor("absent", GgmlType::F16)).contains("absent"));
    assert!(message(open().tensor("token_embd.weight", GgmlType::Q4K)).contains("token_embd.weight"));
    assert!(message(open().tensor("token_embd.weight", GgmlType::Q4_1)).contains("q4_1"));
    let head = ModuleName::new("model.layers.0.mlp.up_proj");
    for bad in [vec![1.0; 63], vec![0.0; 64], vec![-1.0; 64]] {
        assert!(message(open().second_moment(&head, &bad)).contains("64 second moments"));
    }
    let error = GgufRecode::open(&source.join("model.safetensors")).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}

#[test]
fn type_files_are_anchored_and_name_every_matrix() {
    let source = folder("fixtures/fable");
    let (plan, _) = quantize(&source);
    let others = BTreeMap::from([(ModuleName::new("model.embed_tokens"), GgmlType::Q6K)]);
    let text = tensor_type_file(&plan, &others).unwrap();
    assert_eq!(text.lines().count(), 43);
    assert!(text.contains("^blk\\.0\\.attn_q\\.weight$=q"), "{text}");
    assert!(text.ends_with("^token_embd\\.weight$=q6_K\n"), "{text}");
    for line in text.lines() {
        let (pattern, kind) = line.split_once('=').unwrap();
        assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{line}");
        assert!(kind.parse::<GgmlType>().is_ok() && !line.contains(' '), "{line}");
    }
}

#[test]
fn importance_is_written_as_sums_and_counts() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("imatrix.gguf");
    let name = ModuleName::new("model.layers.1.mlp.down_proj");
    let moments = |second_moment| BTreeMap::from([(name.clone(), Moments { tokens: 300, second_moment })]);
    write_imatrix(&path, &moments(&[0.5, 2.0, 0.0]), "calibration.txt", 128).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.metadata().text("general.type"), Some("imatrix"));
    assert_eq!(file.metadata().get("imatrix.chunk_count"), Some(&Value::U32(3)));
    assert_eq!(decoded(&file, "blk.1.ffn_down.weight.in_sum2"), [150.0, 600.0, 0.0]);
    assert_eq!(decoded(&file, "blk.1.ffn_down.weight.counts"), [300.0]);
    assert_eq!(file.tensor("blk.1.ffn_down.weight.in_sum2").unwrap().dims, [3, 1]);
    for bad in [&[0.0, 0.0][..], &[1.0, -1.0], &[f32::NAN]] {
        let error = write_imatrix(&path, &moments(bad), "calibration.txt", 128).unwrap_err();
        assert!(error.to_string().contains("model.layers.1.mlp.down_proj"), "{error}");
    }
}

#[test]
fn topologies_name_every_module_in_the_types_of_mistral_rs() {
    let source = folder("fixtures/fable");
    let (name, shape) = (ModuleName::new("model.layers.0.mlp.down_proj"), [4, 256]);
    let matrix = Array2::from_shape_fn(shape, |(i, j)| ((i * 256 + j) as f32).sin());
    let view = WeightView::new(&name, matrix.view()).unwrap();
    let weight = Ggml::portable().quantize_at(&view, &CalibrationStats::default(), BitWidth::B4).unwrap();
    let text = mistralrs_topology(&plan(&Weights::from([(name, weight)]))).unwrap();
    assert_eq!(text, "'/^model\\.layers\\.0\\.mlp\\.down_proj\\.weight$/':\n  isq: q4k\n");
    let error = mistralrs_topology(&quantize(&source).0).unwrap_err();
    assert!(error.to_string().contains(":g64:sym:f16"), "integers have no type there: {error}");
}

/// The public file of a model whose checkpoint is at hand, where it is: names, the order of rows and
/// the tokenizer, by another hand.
#[test]
fn a_public_file_holds_the_same_tensors_and_tokens() {
    let models = folder("../../../shared/models");
    let (source, public) = (models.join("stories260K"), models.join("stories260K-gguf/stories260K.gguf"));
    if !source.exists() || !public.exists() {
        return;
    }
    let name = ModuleName::new("model.layers.0.mlp.up_proj");
    let matrix = &matrices(&source)[&name];
    let rtn = Ggml::with_small_blocks();
    let view = WeightView::new(&name, matrix.view()).unwrap();
    let weight = rtn.quantize_at(&view, &CalibrationStats::default(), BitWidth::B8).unwrap();
    let weights = Weights::from([(name, weight)]);
    let plan = plan(&weights);
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("stories.gguf");
    GgufExport::new(&source, &plan).write(&target, &weights).unwrap();
    let [ours, theirs] = [&target, &public].map(|path| Gguf::open(path).unwrap());
    let mut compared = 0;
    for tensor in theirs.tensors() {
        // Theirs repeats the embedding as the head.
        if matches!(tensor.name.as_str(), "output.weight" | "blk.0.ffn_up.weight") {
            continue;
        }
        assert_eq!(decoded(&ours, &tensor.name), decoded(&theirs, &tensor.name), "{}", tensor.name);
        compared += 1;
    }
    assert_eq!(compared, 46);
    for key in ["tokens", "bos_token_id", "eos_token_id"] {
        let key = format!("tokenizer.ggml.{key}");
        assert_eq!(ours.metadata().get(&key), theirs.metadata().get(&key), "{key}");
    }
    for key in ["block_count", "embedding_length", "feed_forward_length", "attention.head_count_kv"] {
        let key = format!("llama.{key}");
        assert_eq!(ours.metadata().get(&key), theirs.metadata().get(&key), "{key}");
    }
}
