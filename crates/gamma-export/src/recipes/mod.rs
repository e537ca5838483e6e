//! A plan as the settings of tools that quantize by themselves.

mod auto_round;
mod exllamav3;
mod gptqmodel;
mod llama_quantize;
mod llm_compressor;
mod mistralrs;
mod mlx;
mod model_optimizer;
mod numbers;

use std::{collections::BTreeMap, fmt, str::FromStr};

use gamma_core::{ModuleName, Plan};

pub use llama_quantize::tensor_type_file;
pub use mistralrs::mistralrs_topology;

pub(crate) use gptqmodel::settings as gptq_settings;
pub(crate) use llm_compressor::config_groups;
pub(crate) use numbers::{Numbers, most_frequent};

use crate::ExportError;

/// A tool that quantizes by itself, and the file that makes it follow a plan.
///
/// | recipe | file | formats of the plan |
/// |---|---|---|
/// | [`LlamaQuantize`](Self::LlamaQuantize) | patterns for `llama-quantize --tensor-type-file` | what GGUF files hold |
/// | [`GptqModel`](Self::GptqModel) | JSON, the arguments of `QuantizeConfig` | integers of 2, 3, 4, 8 bits |
/// | [`LlmCompressor`](Self::LlmCompressor) | YAML, a recipe for `oneshot` | integers |
/// | [`AutoRound`](Self::AutoRound) | JSON, the argument `layer_config` | integers of 2, 3, 4, 8 bits |
/// | [`ModelOptimizer`](Self::ModelOptimizer) | YAML, the argument of `quantize` | symmetric integers |
/// | [`MistralRs`](Self::MistralRs) | YAML, a topology | block formats of ggml |
/// | [`Mlx`](Self::Mlx) | Python, the argument `quant_predicate` | what MLX folders hold |
/// | [`ExLlamaV3`](Self::ExLlamaV3) | YAML for `recompile.py --override` | all: of each its bit-width |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table above describes them")]
#[non_exhaustive]
pub enum Recipe {
    LlamaQuantize,
    GptqModel,
    LlmCompressor,
    AutoRound,
    ModelOptimizer,
    MistralRs,
    Mlx,
    ExLlamaV3,
}

/// Every recipe and its name.
const NAMES: [(Recipe, &str); 8] = [
    (Recipe::LlamaQuantize, "llama-quantize"),
    (Recipe::GptqModel, "gptqmodel"),
    (Recipe::LlmCompressor, "llm-compressor"),
    (Recipe::AutoRound, "auto-round"),
    (Recipe::ModelOptimizer, "model-optimizer"),
    (Recipe::MistralRs, "mistral.rs"),
    (Recipe::Mlx, "mlx"),
    (Recipe::ExLlamaV3, "exllamav3"),
];

/// A name that no recipe has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no recipe `{0}`; there are llama-quantize, gptqmodel, llm-compressor, auto-round, \
     model-optimizer, mistral.rs, mlx and exllamav3"
)]
pub struct UnknownRecipe(pub String);

impl Recipe {
    /// All recipes.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(recipe, _)| recipe)
    }

    /// The text of the file. `left` are linear modules that the plan leaves as they are, such as
    /// `lm_head` and those that were excluded from it.
    ///
    /// # Errors
    /// [`ExportError::Unserved`] names all modules whose format the tool does not make;
    /// [`ExportError::Experts`] and [`ExportError::NoGgufName`] a module of an expert, for tools that
    /// stack them.
    pub fn text(self, plan: &Plan, left: &[ModuleName]) -> Result<String, ExportError> {
        match self {
            Self::LlamaQuantize => tensor_type_file(plan, &BTreeMap::new()),
            Self::GptqModel => gptqmodel::recipe(plan, left),
            Self::LlmCompressor => llm_compressor::recipe(plan, left),
            Self::AutoRound => auto_round::recipe(plan, left),
            Self::ModelOptimizer => model_optimizer::recipe(plan),
            Self::MistralRs => mistralrs_topology(plan),
            Self::Mlx => mlx::recipe(plan),
            Self::ExLlamaV3 => Ok(exllamav3::recipe(plan)),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(recipe, _)| recipe == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Recipe {
    type Err = UnknownRecipe;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|&(recipe, _)| recipe).ok_or_else(|| UnknownRecipe(text.to_owned()))
    }
}
