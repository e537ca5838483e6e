//! Inference engines, as what plans must fit.

use clap::ValueEnum;
use gamma::{IntegerLayout, Rule, Scores, Target};

/// An engine that shall run the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Symmetric integers, joined modules alike
    Vllm,
    /// As vllm
    Sglang,
    /// Symmetric integers
    Transformers,
    /// Block formats of ggml, symmetric integers that they can carry
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// As llama.cpp
    Candle,
    /// As llama.cpp
    #[value(name = "mistral.rs")]
    MistralRs,
    /// Integers in groups of 32, 64 or 128
    Mlx,
}

impl Engine {
    /// What is written for it.
    fn target(self) -> Target {
        match self {
            Self::Vllm | Self::Sglang | Self::Transformers => {
                Target::Integers(IntegerLayout::CompressedTensors)
            }
            Self::LlamaCpp | Self::Candle | Self::MistralRs => Target::Gguf,
            Self::Mlx => Target::Integers(IntegerLayout::Mlx),
        }
    }

    /// What it stores as one.
    pub fn tie(self) -> Option<Rule> {
        let engine = match self {
            Self::Vllm => gamma::Engine::Vllm,
            Self::Sglang => gamma::Engine::Sglang,
            Self::LlamaCpp | Self::Candle => gamma::Engine::LlamaCpp,
            Self::MistralRs => gamma::Engine::MistralRs,
            Self::Mlx => gamma::Engine::Mlx,
            Self::Transformers => return None,
        };
        Some(Rule::Tie(gamma::Ties::Engine(engine)))
    }

    /// The options that it can load.
    pub fn served(self, scores: &Scores) -> anyhow::Result<Scores> {
        let served = scores.served_by(self.target())?;
        let count = |scores: &Scores| scores.table.modules().iter().map(|m| m.options.len()).sum::<usize>();
        let (all, left) = (count(scores), count(&served));
        if left < all {
            note!("{} of {all} options can be loaded as {}", left, self.target());
        }
        Ok(served)
    }
}
