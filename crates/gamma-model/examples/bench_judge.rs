//! What a measurement costs where only some block differs from a model whose residual stream is kept,
//! as a Markdown table: block by block, relative to a full evaluation in the same run.
//!
//! ```text
//! cargo run --release -p gamma-model --example bench_judge [-- BLOCKS REPEATS]
//! ```
//!
//! The model has random weights: time does not depend on them. Times are medians of the repeats, in
//! each of which everything has a turn.

#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::{error::Error, fs, ops::ControlFlow, path::Path, sync::Arc, time::Instant};

use burn::tensor::{Device, Tensor};
use gamma_model::{Block, Checkpoint, Decoder, Judge, ModelError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

const HIDDEN: usize = 384;
const FFN: usize = 1024;
const VOCABULARY: usize = 512;
const HEADS: usize = 6;
const WINDOWS: usize = 16;
const LENGTH: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut number = |or: usize| args.next().map_or(Ok(or), |text| text.parse());
    let (blocks, repeats) = (number(12)?, number(7)?.max(1));
    let folder = tempfile::tempdir()?;
    write_model(folder.path(), blocks)?;
    let decoder = Decoder::load(Arc::new(Checkpoint::open(folder.path())?), LENGTH, &Device::flex())?;

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut token = || rng.random_range(0..VOCABULARY as u32);
    let windows: Vec<Vec<u32>> = (0..WINDOWS).map(|_| (0..LENGTH).map(|_| token()).collect()).collect();
    let mut go_on = |_: usize| ControlFlow::Continue(());
    let judge = Judge::new(&decoder, windows, &mut go_on)?.ok_or("interrupted")?;
    let originals: Vec<Block> = (0..blocks).map(|number| decoder.block(number)).collect::<Result<_, _>>()?;
    let mut whole = |number: usize| Ok::<_, ModelError>(originals[number].clone());
    let prefix = judge.prefix(&decoder, &mut whole, 1 << 30, &mut go_on)?.ok_or("interrupted")?;

    // The full evaluation, then a move in every block from the first to the last.
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); blocks + 1];
    for _ in 0..repeats {
        let start = Instant::now();
        judge.evaluate(&decoder, &mut whole, &mut go_on)?;
        times[0].push(start.elapsed().as_secs_f64());
        for moved in 0..blocks {
            let mut load = |number: usize| {
                let mut block = originals[number].clone();
                if number == moved {
                    let weight: Tensor<2> = block.weights()[0].clone() * 0.9;
                    block.replace(0, weight)?;
                }
                Ok::<_, ModelError>(block)
            };
            let start = Instant::now();
            let found = judge.divergence(&decoder, (&prefix, moved), 0..WINDOWS, &mut load, &mut go_on)?;
            times[moved + 1].push(start.elapsed().as_secs_f64());
            assert!(found.is_some_and(|values| values.iter().all(|kl| *kl > 0.0)), "the move shows");
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    println!("| measured | ms | share of a full evaluation |\n|---|---:|---:|");
    println!("| full evaluation, {blocks} blocks | {:.1} | 1 |", 1e3 * medians[0]);
    for (moved, time) in medians[1..].iter().enumerate() {
        println!("| a move in block {moved} | {:.1} | {:.3} |", 1e3 * time, time / medians[0]);
    }
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A Llama-type checkpoint with random weights.
fn write_model(folder: &Path, blocks: usize) -> Result<(), Box<dyn Error>> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": blocks, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "max_position_embeddings": LENGTH, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "vocab_size": VOCABULARY, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for block in 0..blocks {
        let own = [
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![FFN, HIDDEN]),
            ("mlp.up_proj", vec![FFN, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FFN]),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ];
        shapes.extend(own.map(|(name, shape)| (format!("model.layers.{block}.{name}.weight"), shape)));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, shape) in shapes {
        let count: usize = shape.iter().product();
        let mut bytes = Vec::with_capacity(4 * count);
        for _ in 0..count {
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
