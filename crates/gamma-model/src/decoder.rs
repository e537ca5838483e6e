//! A whole decoder: what stands before and after the blocks, and the blocks on demand.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{Block, Config, ModelError, Source, block::rms_norm, positions::Positions};

/// Embedding, final norm and head on a device. Blocks are loaded one at a time, so that a model
/// larger than memory can be run.
#[derive(Debug)]
pub struct Decoder {
    source: Arc<dyn Source>,
    device: Device,
    embedding: Tensor<2>, // [vocab_size, hidden_size]
    norm: Tensor<1>,      // [hidden_size]
    head: Tensor<2>,      // [vocab_size, hidden_size]
    positions: Arc<Positions>,
    context: usize,
}

impl Decoder {
    /// Loads everything but the blocks, for sequences of up to `context` tokens.
    ///
    /// # Errors
    /// [`ModelError`] if a tensor is missing or damaged, or `context` is longer than the model's.
    pub fn load(source: Arc<dyn Source>, context: usize, device: &Device) -> Result<Self, ModelError> {
        let config = source.config();
        if context < 2 || context > config.max_positions {
            let expected = format!("the model takes 2 to {} tokens", config.max_positions);
            return Err(ModelError::Length { length: context, expected });
        }
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let matrix = |name: &str| -> Result<Tensor<2>, ModelError> {
            let values = source.read(name, &[vocab, hidden])?;
            Ok(Tensor::from_data(TensorData::new(values, [vocab, hidden]), device))
        };
        let embedding = matrix("model.embed_tokens.weight")?;
        let head = if config.tied_head { embedding.clone() } else { matrix("lm_head.weight")? };
        let norm = TensorData::new(source.read("model.norm.weight", &[hidden])?, [hidden]);
        Ok(Self {
            embedding,
            head,
            norm: Tensor::from_data(norm, device),
            positions: Arc::new(Positions::new(config, context, device)),
            context,
            device: device.clone(),
            source,
        })
    }

    /// The model's sizes and constants.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.source.config()
    }

    /// The longest sequence that this decoder was loaded for.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// The device that the tensors live on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Loads block `number`.
    ///
    /// # Errors
    /// [`ModelError`] names the tensor that is missing, misshapen or not finite.
    pub fn block(&self, number: usize) -> Result<Block, ModelError> {
        Block::load(&*self.source, number, Arc::clone(&self.positions), &self.device)
    }

    /// The residual stream before the first block, `[batch, tokens, hidden_size]`.
    ///
    /// # Panics
    /// If the sequences differ in length, are longer than the context, or hold a token that is not
    /// below the vocabulary size.
    #[must_use]
    pub fn embed(&self, sequences: &[Vec<u32>]) -> Tensor<3> {
        let tokens = sequences.first().map_or(0, Vec::len);
        assert!(sequences.iter().all(|s| s.len() == tokens), "sequences of a batch share a length");
        assert!(tokens <= self.context, "sequences fit the context");
        let ids: Vec<i32> = sequences.iter().flatten().map(|&id| id.cast_signed()).collect();
        let count = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &self.device);
        let hidden = self.config().hidden_size;
        self.embedding.clone().select(0, ids).reshape([sequences.len(), tokens, hidden])
    }

    /// The logits for the residual stream after the last block, `[batch, tokens, vocab_size]`.
    #[must_use]
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = hidden.dims();
        let x = rms_norm(hidden, &self.norm, self.config().norm_eps);
        let logits = x.reshape([batch * tokens, width]).matmul(self.head.clone().transpose());
        logits.reshape([batch, tokens, self.config().vocab_size])
    }
}

/// The values of a tensor in row-major order.
pub(crate) fn values(tensor: Tensor<3>) -> Vec<f32> {
    tensor.into_data_as::<f32>().as_slice::<f32>().expect("converted to f32 above").to_vec()
}
