//! Qwen 3 with experts, in every block or in some.

use serde::Deserialize;

use super::{Architecture, Layout};
use crate::config::{ExpertNames, Experts};

pub(super) const FAMILY: Architecture = Architecture {
    name: "Qwen3MoeForCausalLM",
    layout: |file| {
        let keys: Keys = file.keys()?;
        let step = keys.decoder_sparse_step;
        let expected = "1 gives every block experts, 2 every second one";
        file.check(&[("decoder_sparse_step", &step, step > 0, expected)])?;
        let exceptions = keys.mlp_only_layers.unwrap_or_default();
        // A damaged number of blocks is refused later, and must not make a long list here.
        let blocks = 0..keys.num_hidden_layers.min(1 << 16);
        let dense = blocks.filter(|block| (block + 1) % step != 0 || exceptions.contains(block));
        let experts = Experts {
            count: keys.num_experts.or(keys.num_local_experts).unwrap_or(EXPERTS),
            per_token: keys.num_experts_per_tok,
            intermediate_size: keys.moe_intermediate_size,
            normalized: keys.norm_topk_prob,
            dense: dense.collect(),
            names: ExpertNames { parent: "mlp", gate: "gate_proj", up: "up_proj", down: "down_proj" },
        };
        Ok(Layout {
            qkv_bias: keys.attention_bias,
            output_bias: keys.attention_bias,
            query_key_norm: true,
            experts: Some(experts),
            ..Layout::PLAIN
        })
    },
};

/// What a file means that does not give the number of experts.
const EXPERTS: usize = 128;

#[derive(Deserialize)]
struct Keys {
    num_hidden_layers: usize,
    #[serde(default)]
    attention_bias: bool,
    /// The older name.
    num_experts: Option<usize>,
    /// The newer one.
    num_local_experts: Option<usize>,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default = "one")]
    decoder_sparse_step: usize,
    mlp_only_layers: Option<Vec<usize>>,
}

fn one() -> usize {
    1
}
