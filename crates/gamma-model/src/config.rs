//! `config.json` of a Hugging Face folder, reduced to what the arithmetic needs.

use std::{fs, path::Path};

use gamma_core::ModuleName;
use serde::Deserialize;
use serde_json::Value;

use crate::{Architecture, ModelError, architecture::File};

/// The frequency correction of Llama 3 (`rope_type: llama3`).
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[expect(clippy::struct_excessive_bools, reason = "each says which tensors a checkpoint has")]
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
    /// RMS norms over the channels of each query and each key, before they are rotated.
    pub query_key_norm: bool,
    /// How many tokens a token sees, itself included; all before it where there is no window.
    pub window: Option<usize>,
    /// Experts that take the place of the feed-forward layer.
    pub experts: Option<Experts>,
    /// The head is the embedding.
    pub tied_head: bool,
    /// The token that starts a text, or else the one that ends it.
    pub start_token: Option<u32>,
}

/// Feed-forward layers side by side, of which each token takes a few.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// How many a block has.
    pub count: usize,
    /// How many each token goes to.
    pub per_token: usize,
    /// Width of each.
    pub intermediate_size: usize,
    /// Whether the shares of a token's experts are scaled to sum to one.
    pub normalized: bool,
    /// The blocks that have one feed-forward layer all the same, in rising order.
    pub dense: Vec<usize>,
    pub(crate) names: ExpertNames,
}

/// How a family calls what belongs to experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ExpertNames {
    /// What router and experts are parts of.
    pub(crate) parent: &'static str,
    /// The projection that the activation function follows.
    pub(crate) gate: &'static str,
    /// The projection that it is multiplied with.
    pub(crate) up: &'static str,
    /// The projection back to the residual stream.
    pub(crate) down: &'static str,
}

/// The linear modules of a block with one feed-forward layer, in the order used everywhere.
pub const ROLES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// How many of them belong to attention; those of feed-forward layers follow.
pub(crate) const ATTENTION: usize = 4;

/// A linear module: a matrix that competes for bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Its exact name.
    pub name: ModuleName,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// Whether it adds a bias.
    pub bias: bool,
    /// The number of the expert that it belongs to, if any.
    pub expert: Option<usize>,
}

impl Config {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`ModelError`] if the file is missing, malformed, or describes arithmetic that gamma does
    /// not implement.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text =
            fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let file = File { path: &path, text: &text };
        file.keys::<Raw>()?.check(&file)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        let file = File { path: Path::new("config.json"), text };
        file.keys::<Raw>()?.check(&file)
    }

    /// The experts of block `block`, if it has any.
    #[must_use]
    pub fn experts(&self, block: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| !experts.dense.contains(&block))
    }

    /// The linear modules of block `block`, in the order of [`ROLES`]; in a block with experts the last
    /// three come once for each expert. Routers are not among them.
    #[must_use]
    pub fn modules(&self, block: usize) -> Vec<Module> {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let shapes = [
            [queries, hidden],
            [keys, hidden],
            [keys, hidden],
            [hidden, queries],
            [ffn, hidden],
            [ffn, hidden],
            [hidden, ffn],
        ];
        let (qkv, out, mlp) = (self.qkv_bias, self.output_bias, self.mlp_bias);
        let biases = [qkv, qkv, qkv, out, mlp, mlp, mlp];
        let name = |role: &str| ModuleName::new(format!("model.layers.{block}.{role}"));
        let plain =
            |((role, shape), bias): ((&&str, _), _)| Module { name: name(role), shape, bias, expert: None };
        let parts = ROLES.iter().zip(shapes).zip(biases);
        let Some(experts) = self.experts(block) else { return parts.map(plain).collect() };
        let (ffn, names) = (experts.intermediate_size, experts.names);
        let parts = parts.take(ATTENTION).map(plain);
        let shapes = [(names.gate, [ffn, hidden]), (names.up, [ffn, hidden]), (names.down, [hidden, ffn])];
        let of_expert = |expert: usize| {
            shapes.map(|(role, shape)| Module {
                name: name(&format!("{}.experts.{expert}.{role}", names.parent)),
                shape,
                bias: false,
                expert: Some(expert),
            })
        };
        parts.chain((0..experts.count).flat_map(of_expert)).collect()
    }

    /// Weights of all matrices; `None` where a size overflows.
    fn checked_weights(&self) -> Option<usize> {
        let queries = self.heads.checked_mul(self.head_dim)?;
        let keys = self.kv_heads.checked_mul(self.head_dim)?;
        let attention = queries.checked_add(keys)?.checked_mul(2)?;
        let ffn = match &self.experts {
            None => self.intermediate_size.checked_mul(3)?,
            // One more row than the three matrices have, for the router; dense blocks count as well.
            Some(experts) => {
                let each = experts.intermediate_size.checked_mul(3)?.checked_add(1)?;
                experts.count.checked_mul(each)?.checked_add(self.intermediate_size.checked_mul(3)?)?
            }
        };
        let rows = attention.checked_add(ffn)?.checked_mul(self.blocks)?;
        rows.checked_add(self.vocab_size.checked_mul(2)?)?.checked_mul(self.hidden_size)
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
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    use_sliding_window: bool,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    quantization_config: Option<Value>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl Raw {
    fn check(self, file: &File<'_>) -> Result<Config, ModelError> {
        let architecture = Architecture::find(file, &self.architectures)?;
        let layout = architecture.layout(file)?;
        let activation = self.hidden_act.as_deref().unwrap_or("silu");
        let quantized = self.quantization_config.as_ref().unwrap_or(&Value::Null);
        let (hidden, ffn, vocab) = (self.hidden_size, self.intermediate_size, self.vocab_size);
        let (blocks, heads, positions) =
            (self.num_hidden_layers, self.num_attention_heads, self.max_position_embeddings);
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        let head_dim = self.head_dim.or(layout.head_dim).or(hidden.checked_div(heads)).unwrap_or(0);
        let rope = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = rope.and_then(|rope| rope.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let eps = self.rms_norm_eps;
        let start = token(self.bos_token_id.as_ref()).or(token(self.eos_token_id.as_ref()));
        let start_key =
            if token(self.bos_token_id.as_ref()).is_some() { "bos_token_id" } else { "eos_token_id" };
        let small = |size: usize| (1..1 << 31).contains(&size);
        let (size, shared) = ("1 to 2147483647 are possible", "it must divide num_attention_heads");
        file.check(&[
            ("hidden_act", &activation, activation == "silu", "only silu is implemented"),
            ("use_sliding_window", &true, !self.use_sliding_window, "sliding windows are not implemented"),
            (
                "quantization_config",
                quantized,
                quantized.is_null(),
                "the model must not be quantized already",
            ),
            ("hidden_size", &hidden, small(hidden), size),
            ("intermediate_size", &ffn, small(ffn), size),
            ("vocab_size", &vocab, small(vocab), size),
            ("num_hidden_layers", &blocks, (1..1 << 16).contains(&blocks), "1 to 65535 are possible"),
            ("num_attention_heads", &heads, small(heads), size),
            ("num_key_value_heads", &kv_heads, kv_heads > 0 && heads.is_multiple_of(kv_heads), shared),
            (
                "head_dim",
                &head_dim,
                small(head_dim) && head_dim.is_multiple_of(2),
                "rotary positions need an even, positive number of channels",
            ),
            ("max_position_embeddings", &positions, positions >= 2, "at least 2 are needed"),
            ("rms_norm_eps", &eps, eps.is_finite() && eps >= 0.0, "it must be finite and not negative"),
            ("rope_theta", &theta, positive(theta), "it must be positive and finite"),
            (
                start_key,
                &start.unwrap_or(0),
                start.is_none_or(|id| id < vocab as u64),
                "a token below vocab_size is needed to start sampling",
            ),
        ])?;
        let config = Config {
            architecture,
            hidden_size: hidden,
            intermediate_size: ffn,
            blocks,
            heads,
            kv_heads,
            head_dim,
            vocab_size: vocab,
            max_positions: positions,
            norm_eps: eps,
            rope_theta: theta,
            rope_scaling: rope.map_or(Ok(None), |rope| rope.scaling(file))?,
            qkv_bias: layout.qkv_bias,
            output_bias: layout.output_bias,
            mlp_bias: layout.mlp_bias,
            query_key_norm: layout.query_key_norm,
            window: layout.window,
            experts: layout.experts,
            tied_head: self.tie_word_embeddings,
            start_token: start.and_then(|id| u32::try_from(id).ok()),
        };
        if let Some(experts) = &config.experts {
            let Experts { count, per_token, intermediate_size, .. } = experts;
            file.check(&[
                ("num_experts", count, small(*count), size),
                (
                    "num_experts_per_tok",
                    per_token,
                    (1..=*count).contains(per_token),
                    "a token goes to one expert at least and to each once at most",
                ),
                ("moe_intermediate_size", intermediate_size, small(*intermediate_size), size),
            ])?;
        }
        let fits = config.checked_weights().is_some_and(|weights| weights < 1 << 52);
        let found = format!("{hidden}, with {blocks} blocks, {heads} heads of {head_dim} and {ffn} channels");
        file.check(&[(
            "hidden_size",
            &found,
            fits,
            "all matrices together must hold fewer than 2^52 weights",
        )])?;
        Ok(config)
    }
}

impl RawRope {
    fn scaling(&self, file: &File<'_>) -> Result<Option<RopeScaling>, ModelError> {
        let kind = self.rope_type.as_deref().or(self.old_type.as_deref());
        let known = matches!(kind, None | Some("default" | "llama3"));
        let found = format!("of type `{}`", kind.unwrap_or("default"));
        file.check(&[
            ("rope_scaling", &found, known, "only `default` and `llama3` are implemented"),
            (
                "rope_scaling",
                &"a factor without a type",
                kind.is_some() || self.factor.is_none(),
                "`rope_type` must say what the factor means: `default` and `llama3` are implemented",
            ),
        ])?;
        if kind != Some("llama3") {
            return Ok(None);
        }
        let settings =
            [self.factor, self.low_freq_factor, self.high_freq_factor, self.original_max_position_embeddings];
        let found = settings.map(|value| value.map_or("missing".to_owned(), |value| value.to_string()));
        let [factor, low, high, context] = settings.map(|value| value.unwrap_or(f64::NAN)); // refused below
        let expected = "`llama3` needs a positive number";
        file.check(&[
            ("rope_scaling.factor", &found[0], positive(factor), expected),
            ("rope_scaling.low_freq_factor", &found[1], positive(low), expected),
            (
                "rope_scaling.high_freq_factor",
                &found[2],
                positive(high) && high > low,
                "it must exceed low_freq_factor",
            ),
            ("rope_scaling.original_max_position_embeddings", &found[3], positive(context), expected),
        ])?;
        Ok(Some(RopeScaling {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: context,
        }))
    }
}

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// A token id, or the first of a list of them.
fn token(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| value.as_array()?.first()?.as_u64())
}
