//! Modules that an engine stores as one, and which must therefore share a format.

use std::{collections::BTreeMap, fmt, str::FromStr};

use gamma_core::ModuleName;

use super::{Pattern, RuleError};

/// An inference engine, for what it ties.
///
/// | engine | tied |
/// |---|---|
/// | [`Vllm`](Self::Vllm), [`Sglang`](Self::Sglang), [`TensorRtLlm`](Self::TensorRtLlm) | `q`, `k`, `v`; `gate`, `up`; the other projections that they fuse (`in_proj_*` of gated linear attention, the down-projections of latent attention); all experts of a block with all their projections |
/// | [`LlamaCpp`](Self::LlamaCpp), [`MistralRs`](Self::MistralRs), [`Mlx`](Self::Mlx) | the experts of a block, each projection for itself: they are stacked in one tensor |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// `SGLang`.
    Sglang,
    /// TensorRT-LLM.
    TensorRtLlm,
    /// llama.cpp, and other readers of GGUF.
    LlamaCpp,
    /// mistral.rs.
    MistralRs,
    /// MLX.
    Mlx,
}

/// Every engine and its name.
const ENGINES: [(Engine, &str); 6] = [
    (Engine::Vllm, "vllm"),
    (Engine::Sglang, "sglang"),
    (Engine::TensorRtLlm, "tensorrt-llm"),
    (Engine::LlamaCpp, "llama.cpp"),
    (Engine::MistralRs, "mistral.rs"),
    (Engine::Mlx, "mlx"),
];

/// Which modules must share a format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ties {
    /// What an engine stores as one.
    Engine(Engine),
    /// All modules of one block that match.
    Pattern(Pattern),
}

/// Roles that engines with fused kernels read as one matrix, next to each other under one parent.
const FUSED: [&[&str]; 4] = [
    &["q_proj", "k_proj", "v_proj"],
    &["gate_proj", "up_proj"],
    &["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"],
    &["q_a_proj", "kv_a_proj_with_mqa"],
];

impl Engine {
    /// What `name` shares its format with: modules of equal keys are tied.
    fn key(self, name: &ModuleName) -> Option<String> {
        let text = name.as_str();
        let experts = text.split_once(".experts.").map(|(block, _)| block);
        let fused = || {
            let (parent, role) = text.rsplit_once('.')?;
            let kernel = FUSED.iter().position(|roles| roles.contains(&role))?;
            Some(format!("{parent} {kernel}"))
        };
        match (self, experts) {
            (Self::Vllm | Self::Sglang | Self::TensorRtLlm, Some(block)) => Some(block.to_owned()),
            (Self::Vllm | Self::Sglang | Self::TensorRtLlm, None) => fused(),
            (Self::LlamaCpp | Self::MistralRs | Self::Mlx, Some(block)) => {
                Some(format!("{block} {}", name.role()))
            }
            (Self::LlamaCpp | Self::MistralRs | Self::Mlx, None) => None,
        }
    }
}

impl Ties {
    /// Groups of two and more modules of `names` that share a format, as positions.
    pub(crate) fn groups(&self, names: &[&ModuleName]) -> Vec<Vec<usize>> {
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, name) in names.iter().enumerate() {
            let key = match self {
                Self::Engine(engine) => engine.key(name),
                Self::Pattern(pattern) => {
                    pattern.matches(name).then(|| name.block().map_or_else(String::new, |b| b.to_string()))
                }
            };
            if let Some(key) = key {
                groups.entry(key).or_default().push(at);
            }
        }
        groups.into_values().filter(|group| group.len() > 1).collect()
    }
}

impl fmt::Display for Ties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(engine) => engine.fmt(f),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ENGINES.iter().find(|(engine, _)| engine == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// The name of an engine, else a pattern.
impl FromStr for Ties {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(&(engine, _)) = ENGINES.iter().find(|(_, name)| *name == text) {
            return Ok(Self::Engine(engine));
        }
        if !text.contains(['*', '?', '[', ':']) {
            let known: Vec<_> = ENGINES.iter().map(|(_, name)| *name).collect();
            return Err(RuleError::Engine { found: text.to_owned(), known: known.join(", ") });
        }
        text.parse().map(Self::Pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tied(ties: &str, names: &[&str]) -> Vec<Vec<usize>> {
        let names: Vec<_> = names.iter().map(|&name| ModuleName::new(name)).collect();
        ties.parse::<Ties>().unwrap().groups(&names.iter().collect::<Vec<_>>())
    }

    #[test]
    fn fusing_engines_tie_what_they_fuse() {
        let names = [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.k_proj",
            "model.layers.0.self_attn.v_proj",
            "model.layers.0.self_attn.o_proj",
            "model.layers.0.mlp.gate_proj",
            "model.layers.0.mlp.up_proj",
            "model.layers.0.mlp.down_proj",
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.self_attn.k_proj",
        ];
        for engine in ["vllm", "sglang", "tensorrt-llm"] {
            assert_eq!(tied(engine, &names), [vec![4, 5], vec![0, 1, 2], vec![7, 8]], "{engine}");
        }
        for engine in ["llama.cpp", "mistral.rs", "mlx"] {
            assert!(tied(engine, &names).is_empty(), "{engine}");
        }
        assert_eq!(tied("re:.*[ko]_proj", &names), [vec![1, 3]]);
    }

    #[test]
    fn experts_of_a_block_are_tied_as_the_engine_stacks_them() {
        let names = [
            "model.layers.0.mlp.experts.0.gate_proj",
            "model.layers.0.mlp.experts.0.down_proj",
            "model.layers.0.mlp.experts.1.gate_proj",
            "model.layers.0.mlp.experts.1.down_proj",
            "model.layers.1.mlp.experts.0.gate_proj",
            "model.layers.1.mlp.experts.1.gate_proj",
            "model.layers.1.mlp.shared_expert.gate_proj",
            "model.layers.1.mlp.shared_expert.up_proj",
        ];
        assert_eq!(tied("vllm", &names), [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7]]);
        assert_eq!(tied("llama.cpp", &names), [vec![1, 3], vec![0, 2], vec![4, 5]]);
    }

    #[test]
    fn unknown_engines_are_refused_with_the_known_ones() {
        let error = "vlmm".parse::<Ties>().unwrap_err().to_string();
        assert!(error.contains("vlmm") && error.contains("vllm") && error.contains("llama.cpp"), "{error}");
    }
}
