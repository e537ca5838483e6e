//! What candle makes of a GGUF file, for `tests/engines/perplexity.py`: its logits and its weights.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    path::PathBuf,
};

use anyhow::{Context, Result};
use candle_core::{Device, quantized::gguf_file::Content};
use candle_load::Model;
use clap::Parser;

/// Writes what candle computes with a GGUF file, as it is.
#[derive(Parser)]
#[command(version = candle_load::version(), name = "candle")]
struct Args {
    model: PathBuf,
    /// Texts as token numbers, one a line
    #[arg(long, requires = "logits")]
    tokens: Option<PathBuf>,
    /// Where the logits after every token of every text go: 32-bit floats
    #[arg(long, requires = "tokens")]
    logits: Option<PathBuf>,
    /// Where the decoded tensors go, in the order of the file: 32-bit floats
    #[arg(long)]
    weights: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut file = BufReader::new(File::open(&args.model)?);
    let content = Content::read(&mut file)?;
    if let Some(path) = &args.weights {
        let mut names: Vec<&String> = content.tensor_infos.keys().collect();
        names.sort_by_key(|&name| content.tensor_infos[name].offset);
        let mut out = BufWriter::new(File::create(path)?);
        for name in names {
            let tensor = content.tensor(&mut file, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
            write(&mut out, &tensor.flatten_all()?.to_vec1()?)?;
        }
        out.flush()?;
    }
    if let (Some(tokens), Some(logits)) = (&args.tokens, &args.logits) {
        let mut model = Model::load(content, &mut file)?;
        let mut out = BufWriter::new(File::create(logits)?);
        for line in fs::read_to_string(tokens)?.lines() {
            for (at, token) in line.split_whitespace().enumerate() {
                let token = token.parse().with_context(|| format!("`{token}` is no token"))?;
                write(&mut out, &model.read(&[token], at)?)?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

fn write(out: &mut impl Write, values: &[f32]) -> Result<()> {
    for value in values {
        out.write_all(&value.to_le_bytes())?;
    }
    Ok(())
}
