//! The keys that describe a model, from its `config.json`.

use std::path::Path;

use gamma_ggml::Metadata;
use serde_json::{Map, Value as Json};

use crate::ExportError;

/// What an export must know of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Architecture {
    /// The name in GGUF files, which prefixes the keys.
    pub(super) name: &'static str,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) vocabulary: usize,
    /// Whether the head is the embedding.
    pub(super) tied: bool,
    /// Factors by which Llama 3 slows the rotations down, `[head_dim / 2]`.
    pub(super) rope_factors: Option<Vec<f32>>,
    /// The keys, in order.
    pub(super) metadata: Metadata,
}

/// The configuration with the path that errors name.
struct Config<'a> {
    path: &'a Path,
    json: &'a Map<String, Json>,
}

impl Config<'_> {
    fn missing(&self, key: &str) -> ExportError {
        ExportError::ConfigKey { path: self.path.to_owned(), key: key.to_owned() }
    }

    fn number(&self, key: &str) -> Result<u32, ExportError> {
        let number = self.json.get(key).and_then(Json::as_u64);
        number.and_then(|number| number.try_into().ok()).ok_or_else(|| self.missing(key))
    }

    /// A number that may be left out or null.
    fn optional(&self, key: &str) -> Result<Option<u32>, ExportError> {
        match self.json.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(_) => self.number(key).map(Some),
        }
    }

    fn float(&self, key: &str) -> Result<f64, ExportError> {
        self.json.get(key).and_then(Json::as_f64).ok_or_else(|| self.missing(key))
    }

    /// The parameters of the rotation, under the older or the newer key.
    fn rope(&self) -> Option<&Map<String, Json>> {
        let found = ["rope_parameters", "rope_scaling"].iter().find_map(|key| self.json.get(*key));
        found.and_then(Json::as_object)
    }
}

impl Architecture {
    /// Reads the configuration of a Llama, Mistral, Qwen2 or Qwen3.
    pub(super) fn read(path: &Path, json: &Map<String, Json>) -> Result<Self, ExportError> {
        let config = Config { path, json };
        let found = json.get("model_type").and_then(Json::as_str).unwrap_or_default();
        let name = match found {
            // Mistral is Llama with other sizes; a window that limits attention is not in these keys.
            "llama" => "llama",
            "mistral" if json.get("sliding_window").is_none_or(Json::is_null) => "llama",
            "qwen2" => "qwen2",
            "qwen3" => "qwen3",
            other => {
                return Err(ExportError::Architecture { path: path.to_owned(), found: other.to_owned() });
            }
        };
        let (hidden, heads) = (config.number("hidden_size")?, config.number("num_attention_heads")?);
        let kv_heads = config.optional("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match config.optional("head_dim")? {
            Some(head_dim) => head_dim,
            None if heads > 0 => hidden / heads,
            None => return Err(config.missing("num_attention_heads")),
        };
        let theta = match config.rope().and_then(|rope| rope.get("rope_theta")).and_then(Json::as_f64) {
            Some(theta) => theta,
            None if json.contains_key("rope_theta") => config.float("rope_theta")?,
            None => 10_000.0,
        };
        let vocabulary = config.number("vocab_size")?;
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", name);
        metadata.set("general.type", "model");
        let mut set = |key: &str, value: gamma_ggml::Value| metadata.set(format!("{name}.{key}"), value);
        set("block_count", config.number("num_hidden_layers")?.into());
        set("context_length", config.number("max_position_embeddings")?.into());
        set("embedding_length", hidden.into());
        set("feed_forward_length", config.number("intermediate_size")?.into());
        set("attention.head_count", heads.into());
        set("attention.head_count_kv", kv_heads.into());
        set("rope.freq_base", (theta as f32).into());
        set("attention.layer_norm_rms_epsilon", (config.float("rms_norm_eps")? as f32).into());
        set("attention.key_length", head_dim.into());
        set("attention.value_length", head_dim.into());
        set("vocab_size", vocabulary.into());
        set("rope.dimension_count", head_dim.into());
        let rope_factors = scaling(&config, name, (head_dim, theta), &mut set)?;
        let [heads, kv_heads, head_dim, vocabulary] =
            [heads, kv_heads, head_dim, vocabulary].map(|number| number as usize);
        let tied = json.get("tie_word_embeddings").and_then(Json::as_bool).unwrap_or(false);
        Ok(Self { name, heads, kv_heads, head_dim, vocabulary, tied, rope_factors, metadata })
    }

    /// Of the tensor with this GGUF name, the number of heads whose rows change places: Llama's files
    /// hold the two halves of a rotated head interleaved.
    pub(super) fn interleaved_heads(&self, tensor: &str) -> Option<usize> {
        let role = tensor.split('.').nth(2).filter(|_| self.name == "llama")?;
        match role {
            "attn_q" => Some(self.heads),
            "attn_k" => Some(self.kv_heads),
            _ => None,
        }
    }
}

/// Sets the keys of a stretched rotation; returns the factors of Llama 3, which are a tensor.
fn scaling(
    config: &Config<'_>,
    name: &str,
    (head_dim, theta): (u32, f64),
    set: &mut impl FnMut(&str, gamma_ggml::Value),
) -> Result<Option<Vec<f32>>, ExportError> {
    let Some(rope) = config.rope() else { return Ok(None) };
    let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Json::as_str).unwrap_or("default");
    let float = |key: &str| {
        let missing = || config.missing(&format!("rope_scaling.{key}"));
        rope.get(key).and_then(Json::as_f64).ok_or_else(missing)
    };
    match kind {
        "default" => Ok(None),
        "linear" | "yarn" => {
            set("rope.scaling.type", kind.into());
            set("rope.scaling.factor", (float("factor")? as f32).into());
            if kind == "yarn" {
                let original = float("original_max_position_embeddings")?;
                set("rope.scaling.original_context_length", (original as u32).into());
            }
            Ok(None)
        }
        "llama3" if name == "llama" => {
            let (factor, context) = (float("factor")?, float("original_max_position_embeddings")?);
            let (low, high) = (float("low_freq_factor")?, float("high_freq_factor")?);
            let of_pair = |pair: u32| {
                let frequency = theta.powf(-2.0 * f64::from(pair) / f64::from(head_dim));
                let rotations = context * frequency / std::f64::consts::TAU;
                // Fast rotations stay, slow ones are slowed down by `factor`, between them both mix.
                if rotations > high {
                    1.0
                } else if rotations < low {
                    factor as f32
                } else {
                    let smooth = (rotations - low) / (high - low);
                    (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
                }
            };
            Ok(Some((0..head_dim / 2).map(of_pair).collect()))
        }
        other => {
            let key = format!("rope_scaling.rope_type = {other:?}");
            Err(ExportError::ConfigKey { path: config.path.to_owned(), key })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut Map<String, Json>)) -> Result<Architecture, ExportError> {
        let text = r#"{"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
            "intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
            "num_key_value_heads": 2, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}}"#;
        let mut json: Map<String, Json> = serde_json::from_str(text).unwrap();
        change(&mut json);
        Architecture::read(Path::new("config.json"), &json)
    }

    #[test]
    fn llama_3_slows_slow_rotations_down() {
        let found = read(|_| {}).unwrap();
        let factors = found.rope_factors.unwrap();
        // Wavelengths 2π, 20π, 200π and 2000π within 128 tokens: 20 and 2 rotations, then fewer than 1.
        assert_eq!(factors.len(), 4);
        assert_eq!([0, 2, 3].map(|i| factors[i].to_string()), ["1", "8", "8"]);
        let smooth = (128.0 / (20.0 * std::f64::consts::PI) - 1.0) / 3.0;
        assert!((f64::from(factors[1]) - 1.0 / ((1.0 - smooth) / 8.0 + smooth)).abs() < 1e-5, "{factors:?}");
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let error = read(|json| drop(json.remove("rms_norm_eps"))).unwrap_err();
        assert!(error.to_string().contains("rms_norm_eps"), "{error}");
        let error = read(|json| drop(json.insert("model_type".into(), "gemma".into()))).unwrap_err();
        assert!(error.to_string().contains("gemma"), "{error}");
        let error = read(|json| {
            json["rope_scaling"]["rope_type"] = "longrope".into();
        });
        assert!(error.unwrap_err().to_string().contains("longrope"));
        let plain = read(|json| drop(json.remove("rope_scaling"))).unwrap();
        assert_eq!((plain.rope_factors, plain.head_dim), (None, 8));
    }
}
