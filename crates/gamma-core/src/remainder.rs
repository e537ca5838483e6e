//! What a model holds besides the modules that compete for bits.

use serde::{Deserialize, Serialize};

use crate::{ModuleName, Plan, ScoreTable};

/// What a tensor that no plan changes is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FixedRole {
    /// Token embeddings; also the output head where the two are one tensor.
    Embedding,
    /// The output head.
    Head,
    /// Weights of a normalisation.
    Norm,
    /// Biases of linear modules.
    Bias,
    /// What sends tokens to experts: rounding it would send them elsewhere.
    Router,
    /// A linear module that was left as it is.
    Module,
    /// Anything else.
    Other,
}

/// A tensor that no plan changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// What it is there for.
    pub role: FixedRole,
    /// Its size in the checkpoint, in bytes.
    pub bytes: u64,
}

/// What the key-value cache holds for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheShape {
    /// Decoder blocks.
    pub blocks: u64,
    /// Key-value heads of a block.
    pub kv_heads: u64,
    /// Channels of a head.
    pub head_dim: u64,
}

impl CacheShape {
    /// Bytes of the cache for `tokens` tokens (context length times batch), keys and values, each
    /// number in `bits` bits.
    ///
    /// ```
    /// use gamma_core::CacheShape;
    /// // Llama 3.1 8B: 128 KiB per token in 16 bits.
    /// let shape = CacheShape { blocks: 32, kv_heads: 8, head_dim: 128 };
    /// assert_eq!(shape.bytes(1, 16), 128 * 1024);
    /// ```
    #[must_use]
    pub fn bytes(&self, tokens: u64, bits: u32) -> u64 {
        let numbers = [2, self.blocks, self.kv_heads, self.head_dim, tokens];
        let numbers = numbers.into_iter().fold(1, u64::saturating_mul);
        numbers.saturating_mul(u64::from(bits)).div_ceil(8)
    }
}

/// What a model holds besides the modules that compete for bits, and what it needs to run.
///
/// Score files carry it, so that budgets for whole files and devices can be met without the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Remainder {
    /// The tensors that no plan changes.
    pub tensors: Vec<FixedTensor>,
    /// The key-value cache per token; `None` for a model without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheShape>,
    /// Bits of one weight of a linear module in the checkpoint: what a module takes that is
    /// excluded from allocation. The widest where they differ.
    pub weight_bits: u32,
    /// Most that the packed file adds to its tensors: header and names, in bytes.
    pub container: u64,
    /// The same for the GGUF file of the model; `None` where its modules cannot be stored in one, or
    /// not in the sizes of their options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gguf: Option<GgufRemainder>,
}

/// What the GGUF file of a model holds besides the modules that compete for bits. All sizes are those in
/// the file, padding included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GgufRemainder {
    /// Bytes in front of the first tensor: keys, tokenizer, names.
    pub header: u64,
    /// Bytes of norms, biases and other vectors.
    pub vectors: u64,
    /// Matrices outside of the plan, such as embedding and head, whose type is a matter of taste.
    pub matrices: Vec<GgufMatrix>,
}

/// A matrix of a GGUF file that is no module of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GgufMatrix {
    /// Its module.
    pub name: ModuleName,
    /// What it is there for.
    pub role: FixedRole,
    /// `[rows, columns]`.
    pub shape: [usize; 2],
    /// The type of ggml that it is stored in, where it is not the checkpoint's.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Bytes in the file.
    pub bytes: u64,
    /// Other types that it may get, and what they cost, as long as that is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<GgufOption>,
}

/// A type that a matrix outside of the plan may be stored in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GgufOption {
    /// The type of ggml.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes in the file.
    pub bytes: u64,
    /// What it costs, in the unit of the scores of modules; the checkpoint's own type costs nothing.
    pub cost: f64,
}

/// Tensors of a GGUF file begin at multiples of this many bytes.
const ALIGNMENT: u64 = 32;

impl GgufRemainder {
    /// Bytes of a tensor with its padding.
    #[must_use]
    pub fn padded(bytes: u64) -> u64 {
        bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX)
    }

    /// Bytes of the file without the modules of the plan.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let own = self.header.saturating_add(self.vectors);
        self.matrices.iter().fold(own, |sum, matrix| sum.saturating_add(matrix.bytes))
    }

    /// Bytes of the file that holds `plan`, exactly.
    #[must_use]
    pub fn file_bytes(&self, plan: &Plan) -> u64 {
        let sizes = plan.choices().iter().map(|choice| Self::padded(choice.stored_bits / 8));
        sizes.fold(self.bytes(), u64::saturating_add)
    }

    /// Most bytes of padding that the modules of `table` can need.
    pub(crate) fn padding(table: &ScoreTable) -> u64 {
        let padding = |bits: u64| Self::padded(bits / 8) - bits / 8;
        let most = table
            .modules()
            .iter()
            .map(|module| module.options.iter().map(|option| padding(option.stored_bits)).max().unwrap_or(0));
        most.sum()
    }
}

impl Remainder {
    /// The same without types that a matrix does not have: what a plan says.
    #[must_use]
    pub fn closed(mut self) -> Self {
        for matrix in self.gguf.iter_mut().flat_map(|gguf| &mut gguf.matrices) {
            matrix.options.clear();
        }
        self
    }

    /// Bytes of all tensors that no plan changes.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes))
    }
}
