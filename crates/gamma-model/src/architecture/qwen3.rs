//! Qwen 3, dense: a norm on every query and key; the width of a head does not follow from the
//! hidden size.

use serde::Deserialize;

use super::{Architecture, Layout};

pub(super) const FAMILY: Architecture = Architecture {
    name: "Qwen3ForCausalLM",
    layout: |file| {
        let keys: Keys = file.keys()?;
        Ok(Layout {
            head_dim: Some(HEAD_DIM),
            qkv_bias: keys.attention_bias,
            output_bias: keys.attention_bias,
            query_key_norm: true,
            ..Layout::PLAIN
        })
    },
};

/// What a file means that does not give `head_dim`.
const HEAD_DIM: usize = 128;

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    attention_bias: bool,
}
