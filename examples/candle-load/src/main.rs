//! A chat program's way into candle: the model lies on the disk in 16 bits, how many bits each matrix
//! gets is decided for the memory that is free now, and every tensor is encoded while it is loaded.

#[path = "../../load-time/src/memory.rs"]
mod memory;

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, File},
    io::{BufReader, Write},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::quantized::gguf_file::Content;
use candle_load::{Model, Recoder};
use clap::Parser;
use gamma_core::{Budget, Plan, ScoresFile};
use gamma_ggml::Gguf;
use gamma_ilp::{Limits, Problem, ProjectError};
use memory::Memory;
use tokenizers::Tokenizer;

/// Loads a GGUF file in the types that fit the free memory, and continues a text.
#[derive(Parser)]
struct Args {
    /// The model in 16 or 32 bits, as `gamma export --target gguf --model DIR` writes it
    model: PathBuf,
    /// What its options cost, as `gamma learn --quantizer ggml` wrote it
    scores: PathBuf,
    /// Its tokenizer.json
    tokenizer: PathBuf,
    /// The importance matrix that `gamma export --imatrix` wrote; without it, all input channels count alike
    #[arg(long)]
    imatrix: Option<PathBuf>,
    /// Bytes for the model, instead of what the system says is free
    #[arg(long)]
    free: Option<u64>,
    /// Per cent of it that stays unused
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..100))]
    reserve: u64,
    /// Tokens of the longest text
    #[arg(long, default_value_t = 256)]
    context: u64,
    /// The text to continue
    #[arg(long, default_value = "Once upon a time")]
    prompt: String,
    /// Tokens to add
    #[arg(long, default_value_t = 48)]
    tokens: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let source = Gguf::open(&args.model)?;
    let scores = fs::read_to_string(&args.scores).with_context(|| args.scores.display().to_string())?;
    let scores = ScoresFile::from_json(&scores)?;
    let imatrix = args.imatrix.as_deref().map(Gguf::open).transpose()?;

    let memory = Memory::find(args.free, args.reserve).map_err(|error| anyhow!("{error}"))?;
    let fixed = fixed_bytes(&source, &scores, args.context)?;
    println!(
        "memory: {} bytes free, {} to use; {fixed} for what no plan changes and the cache of {} tokens",
        memory.free,
        memory.usable(),
        args.context
    );
    let start = Instant::now();
    let plan = plan(&scores, &memory, fixed)?;
    println!(
        "plan: {:.3} stored bits per weight, {} bytes, {:.2} ms",
        plan.stored_bits_per_weight(),
        plan.stored_bits() / 8,
        start.elapsed().as_secs_f64() * 1e3
    );
    for (role, formats) in formats(&plan) {
        println!("  {role:<10} {formats}");
    }

    let start = Instant::now();
    let content = Content::read(&mut BufReader::new(File::open(&args.model)?))?;
    let (mut tensors, content) = Recoder::new(&source, content, &plan, imatrix.as_ref())?;
    let mut model = Model::load(content, &mut tensors)?;
    println!("encoded and loaded in {:.2} s", start.elapsed().as_secs_f64());
    generate(&mut model, &args)
}

/// Bytes of the running model that are none of the plan's: what candle makes of embedding, head and
/// norms, and keys and values of `tokens` tokens in 32 bits.
fn fixed_bytes(source: &Gguf, scores: &ScoresFile, tokens: u64) -> Result<u64> {
    let modules = scores.table.modules().iter();
    let planned: Vec<_> = modules.filter_map(|m| gamma_export::gguf_tensor_name(&m.name.weight())).collect();
    let mut bytes = 0;
    for tensor in source.tensors().iter().filter(|tensor| !planned.contains(&tensor.name)) {
        // Rows of the embedding are looked up, in 32 bits; as a head it is another copy.
        let values: u64 = tensor.dims.iter().product();
        let (embedding, tied) =
            (tensor.name == "token_embd.weight", source.tensor("output.weight").is_none());
        bytes += if embedding { 4 * values } else { 0 };
        bytes += if embedding && !tied { 0 } else { tensor.bytes()? };
    }
    let cache = scores.remainder.as_ref().and_then(|remainder| remainder.cache);
    let cache = cache.context("the scores do not say how large the key-value cache is")?;
    Ok(bytes + cache.bytes(tokens, 32))
}

/// The best plan for what the memory leaves beside `fixed`.
fn plan(scores: &ScoresFile, memory: &Memory, fixed: u64) -> Result<Plan> {
    let budget = Budget::bytes(memory.usable().saturating_sub(fixed));
    match Problem::new(&scores.table, scores.kind, budget).solve(&Limits::default()) {
        Err(ProjectError::BelowMinimum { missing_bytes, .. }) => {
            let least = memory.usable().max(fixed) + missing_bytes;
            let free = memory.needed_for(least);
            bail!(
                "the smallest plan takes {least} bytes with everything else: with a reserve of {} %, {free} bytes \
                 must be free",
                memory.reserve
            )
        }
        other => Ok(other?),
    }
}

/// How many modules of each role have which format.
fn formats(plan: &Plan) -> BTreeMap<&str, String> {
    let mut roles: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for choice in plan.choices() {
        *roles.entry(choice.name.role()).or_default().entry(choice.format.to_string()).or_default() += 1;
    }
    let line = |formats: BTreeMap<String, usize>| {
        let counts = formats.iter().map(|(format, count)| format!("{count} x {format}"));
        counts.collect::<Vec<_>>().join(", ")
    };
    roles.into_iter().map(|(role, formats)| (role, line(formats))).collect()
}

/// Continues the prompt with the most likely token each time.
fn generate(model: &mut Model, args: &Args) -> Result<()> {
    let other = |error: Box<dyn Error + Send + Sync>| anyhow!("{}: {error}", args.tokenizer.display());
    let tokenizer = Tokenizer::from_file(&args.tokenizer).map_err(other)?;
    let mut text = tokenizer.encode(args.prompt.as_str(), true).map_err(other)?.get_ids().to_vec();
    let (start, mut read) = (Instant::now(), 0);
    for _ in 0..args.tokens.min((args.context as usize).saturating_sub(text.len())) {
        let logits = model.read(&text[read..], read)?;
        read = text.len();
        let best = (0_u32..).zip(logits).max_by(|a, b| a.1.total_cmp(&b.1));
        text.push(best.context("the model has no vocabulary")?.0);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", tokenizer.decode(&text, true).map_err(other)?);
    writeln!(std::io::stderr(), "{} tokens in {seconds:.2} s", text.len())?;
    Ok(())
}
