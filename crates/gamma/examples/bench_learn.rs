//! How fast a learning step is, beside the same step in `PyTorch` and the speed of plain matrix products,
//! as a Markdown table.
//!
//! ```text
//! cargo xtask bench learn [--threads N] [--dim N --heads N --kv-heads N --ffn N --batch N --steps N]
//! ```
//!
//! The model has random weights and one block; a step is one of the teacher-forced reading: every module
//! takes one of six candidates, the block runs forward and backward, and six inner products per module
//! are what remains. `tests/peers/learn_step.py` does the same in `PyTorch`, in the interpreter that
//! `--python` names; without one that has torch, there are only our rows. Times are medians.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is the result")]

use std::{
    collections::BTreeMap, error::Error, fs, ops::ControlFlow, path::Path, process::Command, time::Instant,
};

use burn::tensor::{Device, Distribution, Tensor};
use gamma::{Calibration, Event, Gamma, GroupSize, Objective, Reading, Rtn, Settings};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

/// That of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKENS: usize = 256;
const CANDIDATES: [u8; 6] = [2, 3, 4, 5, 6, 8];
/// Steps before the first that counts.
const WARM_UP: usize = 2;

struct Sizes {
    dim: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    batch: usize,
    steps: usize,
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("`{name}` has no value"))?;
        given.insert(name.trim_start_matches("--").to_owned(), value);
    }
    let python = given.remove("python");
    let mut number = |name: &str, or: usize| given.remove(name).map_or(Ok(or), |text| text.parse());
    let sizes = Sizes {
        dim: number("dim", 192)?,
        heads: number("heads", 6)?,
        kv_heads: number("kv-heads", 2)?,
        ffn: number("ffn", 512)?,
        batch: number("batch", 8)?,
        steps: number("steps", 20)?,
        threads: number("threads", 1)?,
    };
    if let Some(name) = given.keys().next() {
        return Err(format!("unknown option `--{name}`").into());
    }

    println!(
        "width {}, {} heads, {} key heads, inner width {}, {} sequences of {TOKENS} tokens, {} threads\n",
        sizes.dim, sizes.heads, sizes.kv_heads, sizes.ffn, sizes.batch, sizes.threads
    );
    println!("| | ms per step | tokens/s | GFLOP/s | peak memory, MiB |\n|---|---:|---:|---:|---:|");
    let flop = flop(&sizes);
    let seconds = ours(&sizes)?;
    row("gamma", seconds, &sizes, flop / seconds, memory());
    let peak = products(&sizes);
    match python.map(|python| torch(&python, &sizes)) {
        Some(Ok(found)) => {
            let number = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
            let seconds = number("seconds_median");
            row("PyTorch", seconds, &sizes, flop / seconds, number("peak_rss_mib"));
        }
        Some(Err(error)) => eprintln!("no row for PyTorch: {error}"),
        None => eprintln!("no row for PyTorch: `--python` names no interpreter"),
    }
    println!("| plain matrix products, same width | – | – | {:.1} | – |", 1e-9 * peak);
    println!(
        "\n{:.2} GFLOP per step; gamma runs at {:.2} of plain products",
        1e-9 * flop,
        flop / seconds / peak
    );
    Ok(())
}

fn row(name: &str, seconds: f64, sizes: &Sizes, speed: f64, mib: f64) {
    let tokens = (sizes.batch * TOKENS) as f64;
    println!("| {name} | {:.1} | {:.0} | {:.1} | {mib:.0} |", 1e3 * seconds, tokens / seconds, 1e-9 * speed);
}

/// Median time of a step.
fn ours(sizes: &Sizes) -> Result<f64, Box<dyn Error>> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable");
    let folder = tempfile::tempdir()?;
    write_model(folder.path(), sizes)?;
    fs::copy(fixture.join("tokenizer.json"), folder.path().join("tokenizer.json"))?;
    let settings = Settings {
        objective: Objective { reading: Reading::Teacher, ..Objective::default() },
        rounds: 1,
        steps: sizes.steps + WARM_UP,
        survey_draws: 1,
        ..Settings::default()
    };
    let calibration = Calibration::text_file(fixture.join("calibration.txt"));
    let run = Gamma::builder()
        .model(folder.path())
        .calibration(calibration.sequences(sizes.batch * 2).gate_sequences(1).length(TOKENS))
        .quantizer(Rtn::asymmetric(GroupSize::new(64)?))
        .candidates(CANDIDATES)
        .batch(sizes.batch)
        .learning(settings)
        .build()?;
    let mut ends: Vec<Instant> = Vec::new();
    let mut watch = |event: Event| {
        if matches!(event, Event::Learning(step) if step.round == 1) {
            ends.push(Instant::now());
        }
        ControlFlow::Continue(())
    };
    run.learn(&mut watch)?;
    let times = ends.windows(2).skip(WARM_UP - 1).map(|pair| (pair[1] - pair[0]).as_secs_f64());
    Ok(median(times.collect()))
}

/// Operations per second of the product of the tokens and a square matrix of the block's inner width.
fn products(sizes: &Sizes) -> f64 {
    let device = Device::flex();
    let random = |rows: usize, columns: usize| -> Tensor<2> {
        Tensor::random([rows, columns], Distribution::Normal(0.0, 1.0), &device)
    };
    let (rows, inner) = (sizes.batch * TOKENS, sizes.ffn);
    let (a, b) = (random(rows, sizes.dim), random(sizes.dim, inner));
    let one = || {
        let start = Instant::now();
        let sum = a.clone().matmul(b.clone()).narrow(0, 0, 1).sum().into_scalar::<f32>();
        assert!(sum.is_finite());
        start.elapsed().as_secs_f64()
    };
    one();
    2.0 * (rows * sizes.dim * inner) as f64 / median((0..30).map(|_| one()).collect())
}

/// The same step in `PyTorch`.
fn torch(python: &str, sizes: &Sizes) -> Result<Value, Box<dyn Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/learn_step.py");
    let options = [
        ("--dim", sizes.dim),
        ("--heads", sizes.heads),
        ("--kv-heads", sizes.kv_heads),
        ("--ffn", sizes.ffn),
        ("--batch", sizes.batch),
        ("--tokens", TOKENS),
        ("--threads", sizes.threads),
        ("--steps", sizes.steps),
        ("--candidates", CANDIDATES.len()),
    ];
    let mut command = Command::new(python);
    command.arg(script);
    for (name, value) in options {
        command.arg(name).arg(value.to_string());
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Two per multiplication of the matrix products that a step needs, of attention over the whole square,
/// and of the inner products, as `learn_step.py` counts.
fn flop(sizes: &Sizes) -> f64 {
    let &Sizes { dim, heads, kv_heads, ffn, batch, .. } = sizes;
    let head = dim / heads;
    let (q, kv) = (dim * dim, dim * head * kv_heads);
    let every = 2 * q + 2 * kv + 3 * dim * ffn;
    let to_inputs = q + 3 * dim * ffn; // queries, keys and values need no gradient of theirs
    let attention = 4 * batch * heads * TOKENS * TOKENS * head;
    let products = 2 * batch * TOKENS * (2 * every + to_inputs);
    (products + 3 * attention + 2 * (CANDIDATES.len() + 1) * every) as f64
}

/// The most memory that this process has held, in MiB; NaN where the system does not say.
fn memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A Llama-type checkpoint of one block with random weights.
fn write_model(folder: &Path, sizes: &Sizes) -> Result<(), Box<dyn Error>> {
    const VOCABULARY: usize = 512;
    let &Sizes { dim, heads, kv_heads, ffn, .. } = sizes;
    let kv = dim / heads * kv_heads;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": dim,
        "intermediate_size": ffn, "num_hidden_layers": 1, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "max_position_embeddings": TOKENS, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "vocab_size": VOCABULARY, "tie_word_embeddings": true, "hidden_act": "silu",
        "bos_token_id": 0,
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    let own = |name: &str, shape: &[usize]| (format!("model.layers.0.{name}.weight"), shape.to_vec());
    let shapes = [
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, dim]),
        ("model.norm.weight".to_owned(), vec![dim]),
        own("self_attn.q_proj", &[dim, dim]),
        own("self_attn.k_proj", &[kv, dim]),
        own("self_attn.v_proj", &[kv, dim]),
        own("self_attn.o_proj", &[dim, dim]),
        own("mlp.gate_proj", &[ffn, dim]),
        own("mlp.up_proj", &[ffn, dim]),
        own("mlp.down_proj", &[dim, ffn]),
        own("input_layernorm", &[dim]),
        own("post_attention_layernorm", &[dim]),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, shape) in shapes {
        let mut bytes = Vec::new();
        for _ in 0..shape.iter().product::<usize>() {
            let value = if shape.len() == 1 { 1.0 } else { rng.random_range(-0.08..0.08f32) };
            bytes.extend(value.to_le_bytes());
        }
        tensors.push((name, shape, bytes));
    }
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()?;
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))?;
    Ok(())
}
