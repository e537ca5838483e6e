//! Qwen 1.5 to 2.5: biases on query, key and value, always.

use super::{Architecture, Layout};

pub(super) const FAMILY: Architecture =
    Architecture { name: "Qwen2ForCausalLM", layout: |_| Ok(Layout { qkv_bias: true, ..Layout::PLAIN }) };
