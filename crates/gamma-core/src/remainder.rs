//! What a model holds besides the modules that compete for bits.

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Remainder {
    /// Bytes of all tensors that no plan changes.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes))
    }
}
