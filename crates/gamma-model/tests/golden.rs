//! The forward pass against an outside implementation: values made by `tests/golden/make_logits.py`,
//! and those that lie beside the large test data.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::{Tensor, activation::log_softmax};
use gamma_model::{Checkpoint, Decoder, Evaluation, Judge, TextEncoder};
use safetensors::SafeTensors;

fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

struct Golden {
    ids: Vec<Vec<u32>>,
    logits: Vec<f32>,
    hidden: Vec<f32>,
}

fn golden(file: &str) -> Golden {
    let bytes = fs::read(tests_folder().join("golden").join(file)).expect("golden file");
    let tensors = SafeTensors::deserialize(&bytes).expect("golden file");
    let floats = |name: &str| -> Vec<f32> {
        let Ok(tensor) = tensors.tensor(name) else { return Vec::new() };
        tensor.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let ids = tensors.tensor("ids").expect("ids");
    let length = *ids.shape().last().expect("a shape");
    let flat: Vec<u32> = ids.data().as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect();
    Golden {
        ids: flat.chunks(length).map(<[u32]>::to_vec).collect(),
        logits: floats("logits"),
        hidden: floats("hidden_states"),
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_as::<f32>().as_slice::<f32>().expect("floats").to_vec()
}

fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: off by {worst:e}, more than {tolerance:e}");
}

fn check_logits(folder: &str, golden_file: &str) {
    let golden = golden(golden_file);
    let checkpoint = Arc::new(Checkpoint::open(tests_folder().join(folder)).expect("checkpoint"));
    let decoder = Decoder::load(checkpoint, golden.ids[0].len(), &gamma_device::tested()).expect("decoder");
    let mut hidden = decoder.embed(&golden.ids);
    for number in 0..decoder.config().blocks {
        hidden = decoder.block(number).expect("block").forward(hidden);
        let size = golden.hidden.len() / decoder.config().blocks;
        if size > 0 {
            let expected = &golden.hidden[number * size..(number + 1) * size];
            // The stream grows to beyond 100, where single precision itself steps by 1e-5.
            let largest = expected.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
            let name = format!("{folder}, block {number}");
            assert_close(&name, &values(hidden.clone()), expected, 16.0 * f32::EPSILON * largest);
        }
    }
    assert_close(folder, &values(decoder.logits(hidden)), &golden.logits, 1e-4);
}

#[test]
fn llama_logits_and_hidden_states_equal_the_reference() {
    check_logits("fixtures/fable", "fable_logits.safetensors");
}

#[test]
fn qwen2_logits_with_biases_and_an_untied_head_equal_the_reference() {
    check_logits("golden/qwen2-random", "qwen2-random/logits.safetensors");
}

#[test]
fn qwen3_logits_with_norms_after_the_biases_and_wide_heads_equal_the_reference() {
    check_logits("golden/qwen3-random", "qwen3-random/logits.safetensors");
}

#[test]
fn mistral_logits_with_a_window_shorter_than_the_text_equal_the_reference() {
    check_logits("golden/mistral-random", "mistral-random/logits.safetensors");
}

#[test]
fn qwen3_logits_with_experts_in_one_block_of_four_equal_the_reference() {
    check_logits("golden/qwen3-moe-random", "qwen3-moe-random/logits.safetensors");
}

#[test]
fn mixtral_logits_with_shares_that_sum_to_one_equal_the_reference() {
    check_logits("golden/mixtral-random", "mixtral-random/logits.safetensors");
}

#[test]
fn llama3_rope_scaling_with_an_odd_head_size_and_shards_equals_the_reference() {
    check_logits("golden/llama3-random", "llama3-random/logits.safetensors");
}

/// A judge of the first `most` windows of `text`, which holds the full-precision model's evaluation.
fn judge(folder: PathBuf, text: PathBuf, window: usize, most: usize) -> (Decoder, Judge) {
    let checkpoint = Arc::new(Checkpoint::open(folder).expect("checkpoint"));
    let encoder = TextEncoder::open(checkpoint.folder(), checkpoint.config()).expect("tokenizer");
    let mut windows = encoder.encode_files(&[text]).expect("text").all(window).expect("windows");
    windows.truncate(most);
    let decoder = Decoder::load(checkpoint, window, &gamma_device::tested()).expect("decoder");
    let judge = Judge::new(&decoder, windows, &mut |_| ControlFlow::Continue(()))
        .expect("finite")
        .expect("not stopped");
    (decoder, judge)
}

#[test]
fn perplexity_of_the_shipped_model_equals_the_reference() {
    let json = fs::read_to_string(tests_folder().join("golden/fable_perplexity.json")).expect("golden file");
    let expected: serde_json::Value = serde_json::from_str(&json).expect("json");
    let fable = tests_folder().join("fixtures/fable");
    let (_, whole) = judge(fable.clone(), fable.join("evaluation.txt"), 256, usize::MAX);
    let full = whole.full_precision();
    assert_eq!(full.predicted as u64, expected["predicted"].as_u64().expect("a count"));
    let reference = expected["mean_loss"].as_f64().expect("a number");
    assert!((full.loss - reference).abs() < 1e-4, "{} instead of {reference}", full.loss);
    // The same model judged as if it were changed: no divergence.
    let (decoder, judge) = judge(fable.clone(), fable.join("evaluation.txt"), 256, 16);
    let full = judge.full_precision();
    let same = judge.evaluate(&decoder, &mut |b| decoder.block(b), &mut |_| ControlFlow::Continue(()));
    let same = same.expect("finite").expect("not stopped");
    assert!(same.kl.abs() < 1e-7 && (same.loss - full.loss).abs() < 1e-9, "{same:?}");
}

#[test]
fn perplexities_with_a_window_and_with_experts_equal_the_reference() {
    for model in ["mistral-random", "qwen3-moe-random", "mixtral-random"] {
        let folder = tests_folder().join("golden").join(model);
        let json = fs::read_to_string(folder.join("perplexity.json")).expect("golden file");
        let expected: serde_json::Value = serde_json::from_str(&json).expect("json");
        let count = |key: &str| expected[key].as_u64().expect("a count") as usize;
        let text = tests_folder().join("fixtures/fable/evaluation.txt");
        let (_, judge) = judge(folder, text, count("window"), count("windows"));
        let full = judge.full_precision();
        assert_eq!(full.predicted, count("predicted"), "{model}");
        let reference = expected["perplexity"].as_f64().expect("a number");
        let error = full.perplexity() / reference - 1.0;
        assert!(error.abs() < 1e-4, "{model}: {} instead of {reference}", full.perplexity());
    }
}

/// Where the large test data lie; `None` where they may be missing and are.
fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("GAMMA_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    if folder.join("models").is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no test data at `{}`; set GAMMA_TEST_DATA", folder.display());
    eprintln!("skipped: no test data at `{}`; set GAMMA_TEST_DATA", folder.display());
    None
}

#[test]
fn perplexities_of_real_checkpoints_equal_the_reference() {
    let Some(shared) = shared() else { return };
    if gamma_device::describe(&gamma_device::tested()) != "cpu" {
        eprintln!(
            "skipped: minutes of software Vulkan, where the losses and logits of these models are compared"
        );
        return;
    }
    let json = fs::read_to_string(tests_folder().join("golden/real_perplexities.json")).expect("golden file");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).expect("json");
    assert_eq!(rows.len(), 4);
    for row in rows {
        let word = |key: &str| row[key].as_str().expect("a name");
        let count = |key: &str| row[key].as_u64().expect("a count") as usize;
        let text = fs::read_to_string(shared.join("corpora").join(word("file"))).expect("a text");
        let scratch = tempfile::tempdir().expect("a folder");
        let beginning = scratch.path().join("beginning.txt");
        fs::write(&beginning, &text[..count("bytes")]).expect("writes");
        let model = shared.join("models").join(word("model"));
        let (_, judge) = judge(model, beginning, count("window"), count("windows"));
        let Evaluation { loss, predicted, .. } = judge.full_precision();
        assert_eq!(predicted, count("predicted"), "{row}");
        let reference = row["mean_loss"].as_f64().expect("a number");
        assert!((loss - reference).abs() < 1e-4, "{row}: {loss}");
    }
}

/// Checks every row of the table in `expected.json` with windows of some length.
#[test]
#[ignore = "takes minutes: every window of every checkpoint"]
fn all_perplexities_equal_the_reference() {
    let Some(shared) = shared() else { return };
    let json = fs::read_to_string(shared.join("models/expected.json")).expect("expected.json");
    let table: Vec<serde_json::Value> = serde_json::from_str(&json).expect("json");
    let mut checked = 0;
    for row in table {
        let protocol = row["protocol"].as_str().expect("a protocol");
        let model = row["model"].as_str().expect("a name");
        let Some(window) = protocol.strip_prefix("window ") else { continue };
        let text = shared.join("corpora").join(row["file"].as_str().expect("a file"));
        let (_, judge) =
            judge(shared.join("models").join(model), text, window.parse().expect("a length"), usize::MAX);
        let Evaluation { loss, predicted, .. } = judge.full_precision();
        assert_eq!(predicted as u64, row["scored"].as_u64().expect("a count"), "{model}");
        let reference = row["loss"].as_f64().expect("a number");
        assert!((loss - reference).abs() < 1e-4, "{model}, {protocol}: {loss} instead of {reference}");
        checked += 1;
    }
    assert!(checked >= 8, "only {checked} perplexities were checked");
}

/// Logits of one sequence, `[tokens, vocab_size]`.
fn logits(decoder: &Decoder, ids: &[u32]) -> Tensor<2> {
    let run = |hidden, number| decoder.block(number).expect("block").forward(hidden);
    let hidden = (0..decoder.config().blocks).fold(decoder.embed(&[ids.to_vec()]), run);
    decoder.logits(hidden).squeeze_dim(0)
}

/// The encoded texts, losses, logits and greedy text in `reference.json`.
fn check_reference(folder: &Path) {
    let json = fs::read_to_string(folder.join("reference.json")).expect("reference.json");
    let reference: serde_json::Value = serde_json::from_str(&json).expect("json");
    let ids = |list: &serde_json::Value| -> Vec<u32> {
        serde_json::from_value(list.clone()).expect("a list of token ids")
    };
    let name = folder.display().to_string();
    let checkpoint = Arc::new(Checkpoint::open(folder).expect("checkpoint"));
    let encoder = TextEncoder::open(folder, checkpoint.config()).expect("tokenizer");
    for case in reference["encode"].as_array().expect("texts") {
        let (text, expected) = (case["text"].as_str().expect("a text"), ids(&case["ids"]));
        assert_eq!(encoder.encode("a text", text).expect("known tokens").ids(), expected, "{name}: {text}");
    }
    let decoder = Decoder::load(checkpoint, 128, &gamma_device::tested()).expect("decoder");

    let forward = &reference["forward"];
    let tokens = ids(&forward["ids"]);
    let found = logits(&decoder, &tokens);
    let vocabulary = decoder.config().vocab_size;
    let log_probs = values(log_softmax(found.clone(), 1));
    let rows = log_probs.chunks_exact(vocabulary).zip(&tokens[1..]);
    let losses: Vec<f32> = rows.map(|(row, &next)| -row[next as usize]).collect();
    let expected: Vec<f32> = serde_json::from_value(forward["nll"].clone()).expect("losses");
    assert_close(&format!("{name}: losses"), &losses, &expected, 1e-4);

    let top: Vec<(usize, f32)> = serde_json::from_value(forward["last_logits_top8"].clone()).expect("pairs");
    let found = values(found);
    let last = &found[found.len() - vocabulary..];
    let (at, expected): (Vec<usize>, Vec<f32>) = top.into_iter().unzip();
    let picked: Vec<f32> = at.iter().map(|&id| last[id]).collect();
    assert_close(&format!("{name}: last logits"), &picked, &expected, 1e-4);

    let (prompt, text) =
        (ids(&reference["greedy"]["prompt_ids"]), ids(&reference["greedy"]["continuation_ids"]));
    let whole = [prompt.as_slice(), text.as_slice()].concat();
    let found = values(logits(&decoder, &whole[..whole.len() - 1]));
    let likeliest = |row: &[f32]| (0_u32..).zip(row).max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id);
    let found: Vec<u32> =
        found.chunks_exact(vocabulary).skip(prompt.len() - 1).filter_map(likeliest).collect();
    assert_eq!(found, text, "{name}: greedy text");
}

#[test]
fn tokens_losses_logits_and_greedy_text_of_real_checkpoints_equal_the_reference() {
    let Some(shared) = shared() else { return };
    let models = ["stories260K", "stories3M-sharded", "qwen2-3M", "qwen2-tiny", "qwen3-3M", "qwen3-tiny"];
    for model in models {
        check_reference(&shared.join("models").join(model));
    }
}

#[test]
fn a_sharded_checkpoint_has_the_hashes_of_the_whole_one() {
    let Some(shared) = shared() else { return };
    let digest = |name: &str| {
        Checkpoint::open(shared.join("models").join(name)).expect("opens").digests().expect("reads")
    };
    assert_eq!(digest("stories3M"), digest("stories3M-sharded"));
    assert_ne!(digest("stories3M"), digest("stories260K"));
}
