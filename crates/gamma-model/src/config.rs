//! `config.json` of a Hugging Face folder, reduced to what the arithmetic needs.

use std::{fs, path::Path};

use gamma_core::ModuleName;
use serde::Deserialize;
use serde_json::Value;

use crate::ModelError;

/// The supported families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// `LlamaForCausalLM`.
    Llama,
    /// `Qwen2ForCausalLM`: biases on query, key and value.
    Qwen2,
}

const SUPPORTED: &[&str] = &["LlamaForCausalLM", "Qwen2ForCausalLM"];

impl Architecture {
    /// The class name in `config.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => SUPPORTED[0],
            Self::Qwen2 => SUPPORTED[1],
        }
    }
}

/// The frequency correction of Llama 3 (`rope_type: llama3`).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct RopeScaling {
    /// Long wavelengths are stretched by this factor.
    pub factor: f64,
    /// Wavelengths above `context / low_freq_factor` are stretched in full.
    pub low_freq_factor: f64,
    /// Wavelengths below `context / high_freq_factor` are left alone.
    pub high_freq_factor: f64,
    /// The context length of the first training.
    pub original_max_position_embeddings: f64,
}

/// A decoder's sizes and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub blocks: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest context the model was made for.
    pub max_positions: usize,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Their correction, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Biases on query, key and value.
    pub qkv_bias: bool,
    /// Bias on the attention output.
    pub output_bias: bool,
    /// Biases on the feed-forward layers.
    pub mlp_bias: bool,
    /// The head is the embedding.
    pub tied_head: bool,
    /// The token that starts a text, or else the one that ends it.
    pub start_token: Option<u32>,
}

/// The seven linear modules of a block, in the order used everywhere.
pub const ROLES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// A linear module: a matrix that competes for bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Its exact name.
    pub name: ModuleName,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Whether it adds a bias.
    pub bias: bool,
}

impl Config {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`ModelError`] if the file is missing, malformed, or describes arithmetic that gamma does
    /// not implement.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let raw: Raw = serde_json::from_str(&text)
            .map_err(|source| ModelError::Json { path: path.clone(), what: "model configuration", source })?;
        raw.check(&path)
    }

    /// The linear modules of block `block`, in the order of [`ROLES`].
    #[must_use]
    pub fn modules(&self, block: usize) -> [Module; 7] {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let shapes =
            [[queries, hidden], [keys, hidden], [keys, hidden], [hidden, queries], [ffn, hidden], [ffn, hidden], [hidden, ffn]];
        let (qkv, out, mlp) = (self.qkv_bias, self.output_bias, self.mlp_bias);
        let biases = [qkv, qkv, qkv, out, mlp, mlp, mlp];
        std::array::from_fn(|slot| Module {
            name: ModuleName::new(format!("model.layers.{block}.{}", ROLES[slot])),
            shape: shapes[slot],
            bias: biases[slot],
        })
    }
}

/// The keys as they stand in the file. Older files spell rotary settings `rope_theta` and
/// `rope_scaling`, newer ones gather them under `rope_parameters`.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    use_sliding_window: bool,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    quantization_config: Option<Value>,
}

impl Raw {
    fn check(self, path: &Path) -> Result<Config, ModelError> {
        let refuse = |key, found: String, expected| {
            Err(ModelError::Setting { path: path.to_owned(), key, found, expected })
        };
        let architecture = match self.architectures.first().map(String::as_str) {
            Some("LlamaForCausalLM") => Architecture::Llama,
            Some("Qwen2ForCausalLM") => Architecture::Qwen2,
            _ => {
                return Err(ModelError::Architecture {
                    path: path.to_owned(),
                    found: self.architectures,
                    supported: SUPPORTED,
                });
            }
        };
        if let Some(activation) = self.hidden_act.as_deref().filter(|&name| name != "silu") {
            return refuse("hidden_act", format!("`{activation}`"), "only `silu` is implemented");
        }
        if self.use_sliding_window {
            return refuse("use_sliding_window", "true".into(), "sliding windows are not implemented");
        }
        if let Some(quantized) = &self.quantization_config {
            return refuse("quantization_config", quantized.to_string(), "the model must not be quantized already");
        }
        for (key, size) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("vocab_size", self.vocab_size),
        ] {
            if size == 0 {
                return refuse(key, "0".into(), "it must be positive");
            }
        }
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if kv_heads == 0 || heads % kv_heads != 0 {
            return refuse("num_key_value_heads", kv_heads.to_string(), "it must divide num_attention_heads");
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads);
        if head_dim == 0 || head_dim % 2 != 0 {
            return refuse("head_dim", head_dim.to_string(), "rotary positions need an even number of channels");
        }
        let rope = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()).filter(|value| !value.is_null());
        let theta = rope.and_then(|value| value.get("rope_theta")).and_then(Value::as_f64);
        let qwen2 = architecture == Architecture::Qwen2;
        Ok(Config {
            architecture,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            blocks: self.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            vocab_size: self.vocab_size,
            max_positions: self.max_position_embeddings,
            norm_eps: self.rms_norm_eps,
            rope_theta: theta.or(self.rope_theta).unwrap_or(10_000.0),
            rope_scaling: rope.map_or(Ok(None), |value| rope_scaling(value, path))?,
            qkv_bias: qwen2 || self.attention_bias,
            output_bias: !qwen2 && self.attention_bias,
            mlp_bias: !qwen2 && self.mlp_bias,
            tied_head: self.tie_word_embeddings,
            start_token: token(self.bos_token_id.as_ref()).or(token(self.eos_token_id.as_ref())),
        })
    }
}

fn rope_scaling(value: &Value, path: &Path) -> Result<Option<RopeScaling>, ModelError> {
    let kind = value.get("rope_type").or(value.get("type")).and_then(Value::as_str);
    match kind {
        None | Some("default") => Ok(None),
        Some("llama3") => serde_json::from_value(value.clone()).map(Some).map_err(|source| ModelError::Json {
            path: path.to_owned(),
            what: "rotary scaling of type `llama3`",
            source,
        }),
        Some(other) => Err(ModelError::Setting {
            path: path.to_owned(),
            key: "rope_scaling",
            found: format!("of type `{other}`"),
            expected: "only `default` and `llama3` are implemented",
        }),
    }
}

/// A token id, or the first of a list of them.
fn token(value: Option<&Value>) -> Option<u32> {
    let value = value?;
    let id = value.as_u64().or_else(|| value.as_array()?.first()?.as_u64())?;
    u32::try_from(id).ok()
}
