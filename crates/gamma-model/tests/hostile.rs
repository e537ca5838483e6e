//! Damaged and foreign files: each is refused with an error that names the culprit, none panics.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use gamma_model::{Checkpoint, Config, Decoder, Judge, ModelError, TextEncoder, sample};
use serde_json::{Value, json};
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";
const NORM: &str = "model.norm.weight";
/// The last tensor of the file that is read before any block.
const HEAD: &str = "lm_head.weight";

fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

/// A copy of the golden Qwen2 checkpoint.
fn copy() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for file in ["config.json", WEIGHTS] {
        fs::copy(tests_folder().join("golden/qwen2-random").join(file), folder.path().join(file))
            .expect("copies");
    }
    folder
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("file")).expect("json");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("writes");
}

/// Changes header and bytes of a safetensors file.
fn edit_weights(path: &Path, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let file = fs::read(path).expect("file");
    let (length, rest) = file.split_first_chunk().expect("a header length");
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("a size"));
    let (mut header, mut data) = (serde_json::from_slice(header).expect("a header"), data.to_vec());
    edit(&mut header, &mut data);
    let header = header.to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat())
        .expect("writes");
}

/// Opens the checkpoint and reads every tensor.
fn load(folder: &Path) -> Result<(), ModelError> {
    let decoder = Decoder::load(Arc::new(Checkpoint::open(folder)?), 16, &gamma_device::tested())?;
    (0..decoder.config().blocks).try_for_each(|number| decoder.block(number).map(drop))
}

/// The error of a checkpoint, which must name `culprit`.
fn refused(folder: &Path, culprit: &str) -> ModelError {
    let error = load(folder).expect_err("refused");
    assert!(error.to_string().contains(culprit), "`{error}` does not name `{culprit}`");
    error
}

#[test]
fn the_copy_itself_is_accepted() {
    load(copy().path()).expect("the checkpoint that the other tests damage");
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let whole = fs::read(copy().path().join(WEIGHTS)).expect("file");
    let beyond = [&(whole.len() as u64).to_le_bytes()[..], &whole[8..]].concat();
    let huge = [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat();
    for bytes in [&[][..], &whole[..4], &whole[..100], &whole[..whole.len() - 1], &beyond, &huge] {
        let folder = copy();
        fs::write(folder.path().join(WEIGHTS), bytes).expect("writes");
        assert!(matches!(refused(folder.path(), WEIGHTS), ModelError::Safetensors { .. }));
    }
}

#[test]
fn headers_that_disagree_with_the_bytes_are_refused() {
    let edits: [fn(&mut Value, &mut Vec<u8>); 4] = [
        |header, _| header[NORM]["shape"] = json!([33]),
        |header, _| header[NORM]["shape"] = json!([u64::MAX, u64::MAX]),
        |header, _| header[NORM]["data_offsets"] = json!([0, u64::MAX]),
        |_, data| data.push(0),
    ];
    for edit in edits {
        let folder = copy();
        edit_weights(&folder.path().join(WEIGHTS), edit);
        assert!(matches!(refused(folder.path(), WEIGHTS), ModelError::Safetensors { .. }));
    }
}

#[test]
fn tensors_that_are_missing_misshapen_or_of_another_type_are_refused_by_name() {
    let folder = copy();
    edit_weights(&folder.path().join(WEIGHTS), |header, _| {
        let tensor = header.as_object_mut().expect("an object").remove(NORM).expect("the norm");
        header["another"] = tensor;
    });
    assert!(matches!(refused(folder.path(), NORM), ModelError::MissingTensor { .. }));

    let folder = copy();
    edit_weights(&folder.path().join(WEIGHTS), |header, _| header[HEAD]["shape"] = json!([32, 64]));
    assert!(matches!(refused(folder.path(), HEAD), ModelError::Shape { .. }));

    let folder = copy(); // 64 * 32 halves are as many bytes as 32 * 32 integers
    edit_weights(&folder.path().join(WEIGHTS), |header, _| {
        header[HEAD]["dtype"] = json!("I32");
        header[HEAD]["shape"] = json!([32, 32]);
        shrink_embedding(header);
    });
    edit_json(&folder.path().join("config.json"), |config| config["vocab_size"] = json!(32));
    assert!(matches!(refused(folder.path(), HEAD), ModelError::Dtype { .. }));
}

/// Keeps 32 rows of the embedding; the others become a tensor of their own.
fn shrink_embedding(header: &mut Value) {
    let embedding = &mut header["model.embed_tokens.weight"];
    let (from, to) = (embedding["data_offsets"][0].as_u64(), embedding["data_offsets"][1].as_u64());
    let (from, to) = (from.expect("an offset"), to.expect("an offset"));
    let middle = u64::midpoint(from, to);
    embedding["shape"] = json!([32, 32]);
    embedding["data_offsets"] = json!([from, middle]);
    header["rest"] = json!({"dtype": "F16", "shape": [32, 32], "data_offsets": [middle, to]});
}

#[test]
fn a_weight_that_is_not_a_number_is_refused_by_name_and_position() {
    let folder = copy();
    edit_weights(&folder.path().join(WEIGHTS), |header, data| {
        let from = header[NORM]["data_offsets"][0].as_u64().expect("an offset");
        let at = usize::try_from(from).expect("a size") + 2 * 5;
        data[at..at + 2].copy_from_slice(&[0xff, 0x7f]);
    });
    assert!(matches!(refused(folder.path(), NORM), ModelError::NotFinite { index: 5, .. }));
}

#[test]
fn settings_without_meaning_are_refused_by_key() {
    let rope = |key: &str, value: Value| {
        let mut rope = json!({
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        });
        rope[key] = value;
        rope
    };
    let cases = [
        ("quantization_config", json!({"bits": 4}), "quantization_config"),
        ("hidden_act", json!("gelu"), "hidden_act"),
        ("use_sliding_window", json!(true), "use_sliding_window"),
        ("hidden_size", json!(0), "hidden_size"),
        ("intermediate_size", json!(u64::MAX), "intermediate_size"),
        ("vocab_size", json!(1_u64 << 40), "vocab_size"),
        ("num_hidden_layers", json!(1_u64 << 40), "num_hidden_layers"),
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("num_attention_heads", json!(1 << 30), "head_dim"),
        ("num_key_value_heads", json!(0), "num_key_value_heads"),
        ("num_key_value_heads", json!(3), "num_key_value_heads"),
        ("head_dim", json!(7), "head_dim"),
        ("head_dim", json!(u64::MAX - 1), "head_dim"),
        ("max_position_embeddings", json!(1), "max_position_embeddings"),
        ("rms_norm_eps", json!(-1e-6), "rms_norm_eps"),
        ("bos_token_id", json!(64), "bos_token_id"),
        ("bos_token_id", json!(u64::MAX), "bos_token_id"),
        ("rope_parameters", json!({"rope_theta": 0.0}), "rope_theta"),
        ("rope_parameters", json!({"rope_theta": -1.0}), "rope_theta"),
        ("rope_parameters", json!({"factor": 2.0}), "rope_scaling"),
        ("rope_parameters", rope("rope_type", json!("yarn")), "yarn"),
        ("rope_parameters", rope("factor", json!(0.0)), "factor"),
        ("rope_parameters", rope("factor", Value::Null), "factor` is missing"),
        ("rope_parameters", rope("low_freq_factor", json!(-1.0)), "low_freq_factor"),
        ("rope_parameters", rope("low_freq_factor", json!(4.0)), "high_freq_factor"),
        (
            "rope_parameters",
            rope("original_max_position_embeddings", json!(0)),
            "original_max_position_embeddings",
        ),
    ];
    for (key, value, culprit) in cases {
        let folder = copy();
        edit_json(&folder.path().join("config.json"), |config| config[key] = value.clone());
        assert!(matches!(refused(folder.path(), culprit), ModelError::Setting { .. }), "{key} = {value}");
    }
}

#[test]
fn sizes_whose_product_overflows_are_refused() {
    let folder = copy();
    edit_json(&folder.path().join("config.json"), |config| {
        for key in
            ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"]
        {
            config[key] = json!(1 << 30);
        }
    });
    assert!(matches!(refused(folder.path(), "2^52"), ModelError::Setting { .. }));
}

#[test]
fn configurations_of_other_models_or_no_json_are_refused() {
    let folder = copy();
    let config = folder.path().join("config.json");
    edit_json(&config, |config| config["architectures"] = json!(["MambaForCausalLM"]));
    assert!(matches!(refused(folder.path(), "MambaForCausalLM"), ModelError::Architecture { .. }));
    for text in ["", "hidden_size: 32", "[]", "{}", "{\"hidden_size\": -1}"] {
        fs::write(&config, text).expect("writes");
        assert!(matches!(refused(folder.path(), "config.json"), ModelError::Json { .. }), "{text}");
    }
    fs::remove_file(&config).expect("removes");
    assert!(matches!(refused(folder.path(), "config.json"), ModelError::Read { .. }));
}

#[test]
fn a_family_asks_for_its_own_heads_and_norms() {
    let folder = copy();
    let config = folder.path().join("config.json");
    edit_json(&config, |config| config["architectures"] = json!(["Qwen3ForCausalLM"]));
    let ModelError::Shape { expected, found, .. } = refused(folder.path(), "self_attn.q_proj.weight") else {
        panic!("4 heads of 128 channels, which Qwen3 means without head_dim, are not 32 rows");
    };
    assert_eq!((expected, found), (vec![4 * 128, 32], vec![32, 32]));
    edit_json(&config, |config| config["head_dim"] = json!(8));
    let error = refused(folder.path(), "model.layers.0.self_attn.q_norm.weight");
    assert!(matches!(error, ModelError::MissingTensor { .. }));
}

#[test]
fn shards_that_are_missing_elsewhere_or_overlapping_are_refused() {
    let sharded = |index: &Value| {
        let folder = copy();
        fs::rename(folder.path().join(WEIGHTS), folder.path().join("a.safetensors")).expect("renames");
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).expect("writes");
        folder
    };
    load(sharded(&json!({"weight_map": {NORM: "a.safetensors"}})).path()).expect("one shard");

    let missing = sharded(&json!({"weight_map": {NORM: "b.safetensors"}}));
    assert!(matches!(refused(missing.path(), "b.safetensors"), ModelError::Read { .. }));
    for name in ["../a.safetensors", "x/a.safetensors", "/a.safetensors", "..", ""] {
        let outside = sharded(&json!({"weight_map": {NORM: name}}));
        assert!(matches!(refused(outside.path(), "weight_map"), ModelError::Setting { .. }), "{name}");
    }
    let twice = sharded(&json!({"weight_map": {NORM: "a.safetensors", HEAD: "b.safetensors"}}));
    fs::copy(twice.path().join("a.safetensors"), twice.path().join("b.safetensors")).expect("copies");
    assert!(matches!(refused(twice.path(), "b.safetensors"), ModelError::DuplicateTensor { .. }));
    let malformed = sharded(&json!({"weights": []}));
    assert!(matches!(refused(malformed.path(), "index.json"), ModelError::Json { .. }));
    let empty = copy();
    fs::remove_file(empty.path().join(WEIGHTS)).expect("removes");
    assert!(matches!(refused(empty.path(), "holds no weights"), ModelError::NoWeights { .. }));
}

#[test]
fn windows_that_differ_in_length_or_vocabulary_are_refused() {
    let checkpoint = Arc::new(Checkpoint::open(copy().path()).expect("checkpoint"));
    let decoder = Decoder::load(checkpoint, 16, &gamma_device::tested()).expect("decoder");
    let judge =
        |windows| Judge::new(&decoder, windows, &mut |_| ControlFlow::Continue(())).expect_err("refused");
    assert!(matches!(judge(vec![vec![1; 8], vec![1; 7]]), ModelError::Length { length: 7, .. }));
    assert!(matches!(judge(vec![vec![1; 17]]), ModelError::Length { length: 17, .. }));
    assert!(matches!(judge(vec![vec![1, 64]]), ModelError::Token { token: 64, vocabulary: 64, .. }));
    assert!(matches!(judge(Vec::new()), ModelError::Length { length: 0, .. }));
}

#[test]
fn more_sequences_than_fit_side_by_side_are_sampled_in_turn() {
    let checkpoint = Arc::new(Checkpoint::open(copy().path()).expect("checkpoint"));
    let decoder = Decoder::load(checkpoint, 16, &gamma_device::tested()).expect("decoder");
    let draw = |count| {
        let mut ticks = Vec::new();
        let mut tick = |done| {
            ticks.push(done);
            ControlFlow::Continue(())
        };
        let sequences = sample(&decoder, count, 5, 7, &mut tick).expect("finite").expect("not stopped");
        assert!(ticks.is_sorted() && ticks.iter().all(|&done| done < 4), "{ticks:?}");
        sequences
    };
    let sequences = draw(40);
    assert!(sequences.len() == 40 && sequences.iter().all(|s| s.len() == 5));
    assert_eq!(sequences[..32], draw(32));
    assert!(draw(0).is_empty());
}

#[test]
fn truncation_and_padding_of_the_tokenizer_file_do_not_cut_texts() {
    let fable = tests_folder().join("fixtures/fable");
    let folder = TempDir::new().expect("a temporary folder");
    let tokenizer = folder.path().join("tokenizer.json");
    fs::copy(fable.join("tokenizer.json"), &tokenizer).expect("copies");
    edit_json(&tokenizer, |tokenizer| {
        tokenizer["truncation"] =
            json!({"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0});
        tokenizer["padding"] = json!({
            "strategy": {"Fixed": 1 << 20}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
        });
    });
    let config = Config::read(&fable).expect("config");
    let text = [fable.join("evaluation.txt")];
    let encode = |folder: &Path| {
        TextEncoder::open(folder, &config).expect("tokenizer").encode_files(&text).expect("text")
    };
    assert_eq!(encode(folder.path()), encode(&fable));
}

#[test]
fn texts_that_are_absent_or_too_short_are_refused() {
    let fable = tests_folder().join("fixtures/fable");
    let encoder = TextEncoder::open(&fable, &Config::read(&fable).expect("config")).expect("tokenizer");
    assert!(matches!(encoder.encode_files(&[]), Err(ModelError::NoText)));
    let tokens = encoder.encode("a word", "fox").expect("known tokens");
    let error = tokens.spread(usize::MAX, 16).expect_err("too little");
    assert!(
        matches!(error, ModelError::TooLittleText { .. }) && error.to_string().contains("a word"),
        "{error}"
    );
}
