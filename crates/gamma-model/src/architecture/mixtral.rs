//! Mixtral: Mistral with experts in every block, whose shares sum to one.

use serde::Deserialize;

use super::{Architecture, Layout, mistral};
use crate::config::{ExpertNames, Experts};

pub(super) const FAMILY: Architecture = Architecture {
    name: "MixtralForCausalLM",
    layout: |file| {
        let keys: Keys = file.keys()?;
        let experts = Experts {
            count: keys.num_local_experts,
            per_token: keys.num_experts_per_tok,
            intermediate_size: keys.intermediate_size,
            normalized: true,
            dense: Vec::new(),
            names: ExpertNames { parent: "block_sparse_moe", gate: "w1", up: "w3", down: "w2" },
        };
        Ok(Layout { window: mistral::window(file)?, experts: Some(experts), ..Layout::PLAIN })
    },
};

#[derive(Deserialize)]
struct Keys {
    intermediate_size: usize,
    #[serde(default = "local_experts")]
    num_local_experts: usize,
    #[serde(default = "per_token")]
    num_experts_per_tok: usize,
}

/// What a file means that does not give the number of experts.
fn local_experts() -> usize {
    8
}

/// What a file means that does not say how many of them a token takes.
fn per_token() -> usize {
    2
}
