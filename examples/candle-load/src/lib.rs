//! What both programs share: a model that candle runs.

mod recoder;

use std::io::{Read, Seek};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, quantized::gguf_file::Content};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};

pub use recoder::Recoder;

/// The version of candle.
pub fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let package = lock.split("[[package]]").find(|package| package.contains("name = \"candle-core\""));
    let version = package.and_then(|package| package.split("version = \"").nth(1)?.split('"').next());
    version.unwrap_or("unknown")
}

/// A Llama, Qwen2 or Qwen3 model, and the keys and values of what it has read.
pub enum Model {
    Llama(quantized_llama::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

impl Model {
    /// Makes the model that `content` describes from tensors that `reader` gives.
    pub fn load<R: Read + Seek>(content: Content, reader: &mut R) -> Result<Self> {
        let architecture = content.metadata.get("general.architecture");
        let architecture =
            architecture.context("the file does not name its architecture")?.to_string()?.clone();
        Ok(match architecture.as_str() {
            "llama" => Self::Llama(quantized_llama::ModelWeights::from_gguf(content, reader, &Device::Cpu)?),
            "qwen2" => Self::Qwen2(quantized_qwen2::ModelWeights::from_gguf(content, reader, &Device::Cpu)?),
            "qwen3" => Self::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, reader, &Device::Cpu)?),
            other => bail!("`{other}` models are not part of this example, but llama, qwen2 and qwen3"),
        })
    }

    /// Reads `tokens` after `at` others; the logits for what follows them. With `at` 0 a new text begins.
    pub fn read(&mut self, tokens: &[u32], at: usize) -> Result<Vec<f32>> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Llama(model) => model.forward(&tokens, at)?,
            Self::Qwen2(model) => model.forward(&tokens, at)?,
            Self::Qwen3(model) => {
                if at == 0 {
                    model.clear_kv_cache();
                }
                model.forward(&tokens, at)?
            }
        };
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}
