//! Llama 2 and 3, and what was trained in their form.

use serde::Deserialize;

use super::{Architecture, Layout};

pub(super) const FAMILY: Architecture = Architecture {
    name: "LlamaForCausalLM",
    layout: |file| {
        let keys: Keys = file.keys()?;
        Ok(Layout {
            qkv_bias: keys.attention_bias,
            output_bias: keys.attention_bias,
            mlp_bias: keys.mlp_bias,
            ..Layout::PLAIN
        })
    },
};

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}
