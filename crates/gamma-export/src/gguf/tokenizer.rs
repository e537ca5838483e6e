//! The keys that describe a tokenizer, from `tokenizer.json`.
//!
//! llama.cpp tokenizes by itself: byte-level BPE (`gpt2`) with the pre-tokenizer that it knows under a
//! name, and SentencePiece (`llama`) with a score per token. Everything else is refused, because a
//! model that reads other tokens than it was trained with fails without a word.

use std::{collections::BTreeMap, path::Path};

use gamma_ggml::{Metadata, Value};
use serde_json::{Map, Value as Json};

use crate::ExportError;

/// Kinds of tokens, as llama.cpp numbers them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Expressions that split text before byte-level BPE, and what llama.cpp calls them.
const PRE_TOKENIZERS: [(&str, &str); 2] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
];

/// The files of a tokenizer.
pub(super) struct Files<'a> {
    /// Of `tokenizer.json`, for errors.
    pub(super) path: &'a Path,
    pub(super) tokenizer: &'a Map<String, Json>,
    /// `tokenizer_config.json`, if there is one.
    pub(super) config: &'a Map<String, Json>,
    /// `config.json`.
    pub(super) model: &'a Map<String, Json>,
    /// `chat_template.jinja`, if there is one.
    pub(super) chat_template: Option<&'a str>,
}

struct Token {
    text: String,
    kind: i32,
    score: f32,
}

impl Files<'_> {
    fn refused(&self, what: impl Into<String>) -> ExportError {
        ExportError::Tokenizer { path: self.path.to_owned(), what: what.into() }
    }

    /// Sets the keys for a model with `vocabulary` rows in its embedding.
    pub(super) fn describe(&self, vocabulary: usize, metadata: &mut Metadata) -> Result<(), ExportError> {
        let model = self.tokenizer.get("model").and_then(Json::as_object);
        let model = model.ok_or_else(|| self.refused("`model` is missing"))?;
        if model.get("type").and_then(Json::as_str).is_some_and(|kind| kind != "BPE") {
            return Err(self.refused("its model is not BPE"));
        }
        let merges = self.merges(model)?;
        let pre = self.pre_tokenizer()?;
        let tokens = self.tokens(model, vocabulary, pre.is_none().then_some(&merges))?;
        metadata.set("tokenizer.ggml.model", if pre.is_some() { "gpt2" } else { "llama" });
        metadata.set("tokenizer.ggml.pre", pre.unwrap_or("default"));
        metadata.set("tokenizer.ggml.tokens", Value::strings(tokens.iter().map(|token| token.text.as_str())));
        metadata.set("tokenizer.ggml.token_type", Value::integers(tokens.iter().map(|token| token.kind)));
        if pre.is_some() {
            let line = |[left, right]: &[String; 2]| format!("{left} {right}");
            metadata.set("tokenizer.ggml.merges", Value::strings(merges.iter().map(line)));
        } else {
            metadata.set("tokenizer.ggml.scores", Value::floats(tokens.iter().map(|token| token.score)));
            metadata.set("tokenizer.ggml.add_space_prefix", self.adds_space());
        }
        self.special_tokens(&tokens, metadata)?;
        let template = self.config.get("chat_template").and_then(Json::as_str).or(self.chat_template);
        if let Some(template) = template {
            metadata.set("tokenizer.chat_template", template);
        }
        Ok(())
    }

    fn merges(&self, model: &Map<String, Json>) -> Result<Vec<[String; 2]>, ExportError> {
        let bad = || self.refused("`model.merges` is not a list of pairs");
        let merges = model.get("merges").and_then(Json::as_array).ok_or_else(bad)?;
        let pair = |merge: &Json| match merge {
            Json::String(text) => text.split_once(' ').map(|(left, right)| [left.into(), right.into()]),
            Json::Array(pair) => match pair.as_slice() {
                [Json::String(left), Json::String(right)] => Some([left.clone(), right.clone()]),
                _ => None,
            },
            _ => None,
        };
        merges.iter().map(|merge| pair(merge).ok_or_else(bad)).collect()
    }

    /// What llama.cpp calls the pre-tokenizer of byte-level BPE; `None` for SentencePiece.
    fn pre_tokenizer(&self) -> Result<Option<&'static str>, ExportError> {
        let Some(pre) = self.tokenizer.get("pre_tokenizer").filter(|pre| !pre.is_null()) else {
            return Ok(None);
        };
        let kind = |step: &Json| step.get("type").and_then(Json::as_str).unwrap_or_default().to_owned();
        let steps = match pre.get("pretokenizers").and_then(Json::as_array) {
            Some(steps) => steps.clone(),
            None => vec![pre.clone()],
        };
        if steps.len() == 1 && kind(&steps[0]) == "Metaspace" {
            return Ok(None);
        }
        let bytes = steps.iter().find(|step| kind(step) == "ByteLevel");
        let Some(bytes) = bytes else {
            return Err(self.refused("its pre-tokenizer is neither byte-level nor that of SentencePiece"));
        };
        if bytes.get("add_prefix_space").and_then(Json::as_bool).unwrap_or(true) {
            return Err(self.refused("its byte-level pre-tokenizer puts a space in front of the text"));
        }
        let pattern = steps.iter().find_map(|step| step.get("pattern")?.get("Regex")?.as_str());
        match pattern {
            None if steps.len() == 1 => Ok(Some("gpt-2")),
            Some(pattern) if steps.len() == 2 => {
                let known = PRE_TOKENIZERS.iter().find(|(known, _)| *known == pattern);
                let unknown = || self.refused(format!("llama.cpp has no name for its pattern `{pattern}`"));
                Ok(Some(known.ok_or_else(unknown)?.1))
            }
            _ => Err(self.refused("its pre-tokenizer has other steps than one pattern and bytes")),
        }
    }

    /// All tokens in order, `vocabulary` of them. With `merges`, the kinds and scores of SentencePiece.
    fn tokens(
        &self,
        model: &Map<String, Json>,
        vocabulary: usize,
        merges: Option<&Vec<[String; 2]>>,
    ) -> Result<Vec<Token>, ExportError> {
        let bad = |what: &str| self.refused(format!("`{what}` does not fit {vocabulary} tokens"));
        let mut found: BTreeMap<usize, Token> = BTreeMap::new();
        let place = |id: &Json| id.as_u64().map(|id| id as usize).filter(|&id| id < vocabulary);
        let words = model.get("vocab").and_then(Json::as_object).ok_or_else(|| bad("model.vocab"))?;
        let mut rank: BTreeMap<String, usize> = BTreeMap::new();
        for (order, [left, right]) in merges.into_iter().flatten().enumerate() {
            rank.entry(format!("{left}{right}")).or_insert(order);
        }
        let unknown = model.get("unk_token").and_then(Json::as_str);
        for (text, id) in words {
            let id = place(id).ok_or_else(|| bad("model.vocab"))?;
            let kind = match merges {
                Some(_) if Some(text.as_str()) == unknown => UNKNOWN,
                Some(_) if is_byte(text) => BYTE,
                _ => NORMAL,
            };
            // SentencePiece merges the pair with the highest score first: the earliest one.
            let score = rank.get(text).map_or(0.0, |&order| 0.0 - order as f32);
            found.insert(id, Token { text: text.clone(), kind, score });
        }
        for added in self.tokenizer.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let id = added.get("id").and_then(place).ok_or_else(|| bad("added_tokens"))?;
            let text = added.get("content").and_then(Json::as_str).ok_or_else(|| bad("added_tokens"))?;
            let special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
            let kind = match (special, found.get(&id)) {
                (true, Some(Token { kind: UNKNOWN, .. })) => UNKNOWN,
                (true, _) => CONTROL,
                (false, _) => USER_DEFINED,
            };
            found.insert(id, Token { text: text.to_owned(), kind, score: 0.0 });
        }
        let unused = |id| Token { text: format!("[PAD{id}]"), kind: UNUSED, score: 0.0 };
        Ok((0..vocabulary).map(|id| found.remove(&id).unwrap_or_else(|| unused(id))).collect())
    }

    fn adds_space(&self) -> bool {
        let text = |key: &str| self.tokenizer.get(key).map(Json::to_string).unwrap_or_default();
        text("normalizer").contains(r#""type":"Prepend""#)
            || (text("pre_tokenizer").contains(r#""type":"Metaspace""#)
                && !text("pre_tokenizer").contains(r#""prepend_scheme":"never""#))
    }

    /// Start, end, unknown and padding: by the tokenizer's configuration, else by the model's.
    fn special_tokens(&self, tokens: &[Token], metadata: &mut Metadata) -> Result<(), ExportError> {
        for (name, key) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
            let written = self.config.get(&format!("{name}_token"));
            // Either text, or an object with the text as its content.
            let text = written.and_then(|token| token.get("content").unwrap_or(token).as_str());
            let by_text = text.map(|text| {
                let id = tokens.iter().position(|token| token.text == text);
                id.ok_or_else(|| self.refused(format!("`{name}_token`, `{text}`, is not among its tokens")))
            });
            let by_id = || {
                let id = self.model.get(&format!("{name}_token_id"))?;
                // Several ends of text: the first one, as `transformers` takes it for the tokenizer.
                let id = id.as_array().map_or(id, |ids| ids.first().unwrap_or(id));
                id.as_u64().map(|id| id as usize).filter(|&id| id < tokens.len())
            };
            if let Some(id) = by_text.transpose()?.or_else(by_id) {
                metadata.set(format!("tokenizer.ggml.{key}_token_id"), id as u32);
            }
        }
        let post = self.tokenizer.get("post_processor").map(Json::to_string).unwrap_or_default();
        let starts = post.contains(r#""single":[{"SpecialToken""#);
        for (key, default) in [("add_bos_token", starts), ("add_eos_token", false)] {
            let adds = self.config.get(key).and_then(Json::as_bool).unwrap_or(default);
            metadata.set(format!("tokenizer.ggml.{key}"), adds);
        }
        Ok(())
    }
}

/// Whether a token of SentencePiece stands for one byte, as `<0x0A>` does.
fn is_byte(text: &str) -> bool {
    let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn describe(tokenizer: Json, config: Json, vocabulary: usize) -> Result<Metadata, ExportError> {
        let map = |json: Json| json.as_object().unwrap().clone();
        let (tokenizer, config, model) = (map(tokenizer), map(config), map(json!({"eos_token_id": [2, 1]})));
        let path = Path::new("tokenizer.json");
        let files = Files {
            path,
            tokenizer: &tokenizer,
            config: &config,
            model: &model,
            chat_template: Some("{{ m }}"),
        };
        let mut metadata = Metadata::new();
        files.describe(vocabulary, &mut metadata).map(|()| metadata)
    }

    fn byte_level(pattern: &str) -> Json {
        json!({
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
            "added_tokens": [{"id": 2, "content": "<end>", "special": true},
                {"id": 3, "content": "<tool>", "special": false}],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]},
        })
    }

    #[test]
    fn byte_level_tokens_have_kinds_and_merges() {
        for (pattern, name) in PRE_TOKENIZERS {
            let found = describe(byte_level(pattern), json!({"bos_token": {"content": "<end>"}}), 5).unwrap();
            assert_eq!(found.text("tokenizer.ggml.model"), Some("gpt2"));
            assert_eq!(found.text("tokenizer.ggml.pre"), Some(name));
            let tokens = Value::strings(["a", "b", "<end>", "<tool>", "[PAD4]"]);
            assert_eq!(found.get("tokenizer.ggml.tokens"), Some(&tokens));
            let kinds = Value::integers([NORMAL, NORMAL, CONTROL, USER_DEFINED, UNUSED]);
            assert_eq!(found.get("tokenizer.ggml.token_type"), Some(&kinds));
            assert_eq!(found.get("tokenizer.ggml.merges"), Some(&Value::strings(["a b"])));
            for key in ["bos", "eos"] {
                let id = found.get(&format!("tokenizer.ggml.{key}_token_id"));
                assert_eq!(id, Some(&Value::U32(2)), "{key}");
            }
            assert_eq!(found.get("tokenizer.ggml.add_bos_token"), Some(&Value::Bool(false)));
            assert_eq!(found.text("tokenizer.chat_template"), Some("{{ m }}"));
        }
    }

    #[test]
    fn sentencepiece_tokens_have_scores_in_the_order_of_merges() {
        let tokenizer = json!({
            "normalizer": {"type": "Prepend", "prepend": "▁"},
            "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
            "added_tokens": [{"id": 0, "content": "<unk>", "special": true}],
            "model": {"type": "BPE", "unk_token": "<unk>", "merges": ["▁ t", "h e", "▁t he"],
                "vocab": {"<unk>": 0, "<0x0A>": 1, "▁t": 2, "he": 3, "▁the": 4, "t": 5}},
        });
        let found = describe(tokenizer, json!({}), 6).unwrap();
        assert_eq!(found.text("tokenizer.ggml.model"), Some("llama"));
        let kinds = Value::integers([UNKNOWN, BYTE, NORMAL, NORMAL, NORMAL, NORMAL]);
        assert_eq!(found.get("tokenizer.ggml.token_type"), Some(&kinds));
        let scores = Value::floats([0.0, 0.0, 0.0, -1.0, -2.0, 0.0]);
        assert_eq!(found.get("tokenizer.ggml.scores"), Some(&scores));
        for key in ["add_space_prefix", "add_bos_token"] {
            assert_eq!(found.get(&format!("tokenizer.ggml.{key}")), Some(&Value::Bool(true)), "{key}");
        }
    }

    #[test]
    fn tokenizers_that_llama_cpp_would_read_otherwise_are_refused() {
        let error = describe(byte_level(r"\w+"), json!({}), 5).unwrap_err();
        assert!(error.to_string().contains(r"\w+"), "{error}");
        let error = describe(byte_level(PRE_TOKENIZERS[0].0), json!({}), 3).unwrap_err();
        assert!(error.to_string().contains("added_tokens"), "{error}");
        let error = describe(byte_level(PRE_TOKENIZERS[0].0), json!({"pad_token": "<pad>"}), 5).unwrap_err();
        assert!(error.to_string().contains("<pad>"), "{error}");
        let unigram = json!({"model": {"type": "Unigram", "vocab": []}});
        assert!(describe(unigram, json!({}), 5).unwrap_err().to_string().contains("BPE"));
        let words = json!({"pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "BPE", "vocab": {}, "merges": []}});
        assert!(describe(words, json!({}), 5).is_err());
    }
}
