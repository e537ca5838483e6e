//! Where a decoder's weights come from.

use std::{collections::BTreeMap, fmt};

use gamma_core::Digest;
use sha2::{Digest as _, Sha256};

use crate::{Checkpoint, Config, ModelError};

/// Where a decoder's weights come from: a [`Checkpoint`], or whatever holds them already, such as an
/// engine that wants to know what they are worth.
///
/// Tensors go by the names that they have in a Hugging Face checkpoint of the same architecture:
/// `model.embed_tokens.weight`, `model.norm.weight`, `lm_head.weight` unless the embedding takes its
/// place, and for each block the modules that [`Config::modules`] names and its norms. Each is asked
/// for whenever its block is loaded, often several times, and by one thread.
///
/// ```
/// use gamma_model::{Config, Decoder, ModelError, Source};
///
/// /// Weights that are made up when they are asked for.
/// #[derive(Debug)]
/// struct Noise(Config);
///
/// impl Source for Noise {
///     fn config(&self) -> &Config { &self.0 }
///     fn read(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
///         let size = shape.iter().product();
///         let value = |i: usize| ((i * 7919 + tensor.len()) % 13) as f32 * 0.02 - 0.12;
///         Ok(if tensor.contains("norm") { vec![1.0; size] } else { (0..size).map(value).collect() })
///     }
/// }
///
/// let config = Config::from_json(r#"{
///     "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 32,
///     "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 11,
///     "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": true
/// }"#)?;
/// let decoder = Decoder::load(std::sync::Arc::new(Noise(config)), 8, &burn::tensor::Device::flex())?;
/// let mut hidden = decoder.embed(&[vec![1, 2, 3]]);
/// for block in 0..2 {
///     hidden = decoder.block(block)?.forward(hidden);
/// }
/// assert_eq!(decoder.logits(hidden).dims(), [1, 3, 11]);
/// # Ok::<(), ModelError>(())
/// ```
pub trait Source: fmt::Debug + Send + Sync {
    /// The model's sizes and constants; see [`Config::from_json`].
    fn config(&self) -> &Config;

    /// The values of one tensor of `shape`, in row-major order.
    ///
    /// # Errors
    /// [`ModelError`] if the tensor is missing, misshapen or not finite; [`ModelError::Source`] takes any
    /// other reason.
    fn read(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError>;

    /// The type that a tensor is stored in; scales that are folded into it are rounded to this type.
    /// [`FloatType::F32`] unless it is said otherwise.
    ///
    /// # Errors
    /// [`ModelError`] if there is no such tensor.
    fn float_type(&self, _tensor: &str) -> Result<FloatType, ModelError> {
        Ok(FloatType::F32)
    }

    /// A hash for each tensor, by which scores of other weights are recognised. The default reads all
    /// linear modules and hashes their values.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn digests(&self) -> Result<BTreeMap<String, Digest>, ModelError> {
        let config = self.config();
        let modules = (0..config.blocks).flat_map(|block| config.modules(block));
        let digest = |module: crate::Module| {
            let name = module.name.weight();
            let mut hash = Sha256::new();
            hash.update(format!("{:?}\0", module.shape));
            self.read(&name, &module.shape)?.iter().for_each(|value| hash.update(value.to_le_bytes()));
            Ok((name, Digest::sha256(hash.finalize().into())))
        };
        modules.map(digest).collect()
    }
}

/// One hash of all the hashes that [`Source::digests`] gives.
#[must_use]
pub fn whole(digests: &BTreeMap<String, Digest>) -> Digest {
    let mut hash = Sha256::new();
    for (name, digest) in digests {
        hash.update(format!("{name}\0{digest}\0"));
    }
    Digest::sha256(hash.finalize().into())
}

/// A type that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FloatType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl Source for Checkpoint {
    fn config(&self) -> &Config {
        self.config()
    }

    fn read(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.read(tensor, shape)
    }

    fn float_type(&self, tensor: &str) -> Result<FloatType, ModelError> {
        self.float_type(tensor)
    }

    fn digests(&self) -> Result<BTreeMap<String, Digest>, ModelError> {
        self.digests()
    }
}
