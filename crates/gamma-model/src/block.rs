//! One decoder block: attention with grouped queries, then a gated feed-forward layer.

use std::sync::Arc;

use burn::tensor::{
    Device, Tensor, TensorData,
    activation::{silu, softmax},
};
use safetensors::Dtype;

use crate::{Checkpoint, Config, ModelError, Module, positions::Positions, sample::Past};

/// A decoder block with its weights on a device.
///
/// The seven linear weights can be replaced call by call, which is all that quantization changes.
/// Norms change only by [`rescale`](Self::rescale), biases never.
#[derive(Clone, Debug)]
pub struct Block {
    modules: [Module; 7],
    weights: Vec<Tensor<2>>, // in the order of `ROLES`, each [out_features, in_features]
    biases: Vec<Option<Tensor<1>>>, // likewise
    attention_norm: Tensor<1>,
    mlp_norm: Tensor<1>,
    /// The types of both norms in the checkpoint.
    norm_dtypes: [Dtype; 2],
    positions: Arc<Positions>,
    shape: Heads,
}

#[derive(Clone, Copy, Debug)]
struct Heads {
    queries: usize,
    keys: usize,
    dim: usize,
    norm_eps: f64,
}

impl Block {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        number: usize,
        positions: Arc<Positions>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let config: &Config = checkpoint.config();
        let modules = config.modules(number);
        let vector = |name: &str, length: usize| -> Result<Tensor<1>, ModelError> {
            Ok(Tensor::from_data(TensorData::new(checkpoint.read(name, &[length])?, [length]), device))
        };
        let mut weights = Vec::with_capacity(modules.len());
        let mut biases = Vec::with_capacity(modules.len());
        for module in &modules {
            let values = checkpoint.read(&module.name.weight(), &module.shape)?;
            weights.push(Tensor::from_data(TensorData::new(values, module.shape), device));
            let bias = format!("{}.bias", module.name);
            biases.push(module.bias.then(|| vector(&bias, module.shape[0])).transpose()?);
        }
        let names = norm_names(number);
        let norm = |name: &str| vector(name, config.hidden_size);
        Ok(Self {
            weights,
            biases,
            norm_dtypes: [checkpoint.dtype(&names[0])?, checkpoint.dtype(&names[1])?],
            attention_norm: norm(&names[0])?,
            mlp_norm: norm(&names[1])?,
            positions,
            shape: Heads {
                queries: config.heads,
                keys: config.kv_heads,
                dim: config.head_dim,
                norm_eps: config.norm_eps,
            },
            modules,
        })
    }

    /// Names and shapes of the seven linear modules.
    #[must_use]
    pub fn modules(&self) -> &[Module; 7] {
        &self.modules
    }

    /// Their weights, each `[out_features, in_features]`.
    #[must_use]
    pub fn weights(&self) -> &[Tensor<2>] {
        &self.weights
    }

    /// Replaces the weight of module `slot`.
    ///
    /// # Errors
    /// [`ModelError::ModuleShape`] if the shape differs.
    ///
    /// # Panics
    /// If `slot` is not below seven.
    pub fn replace(&mut self, slot: usize, weight: Tensor<2>) -> Result<(), ModelError> {
        let module = &self.modules[slot];
        if weight.dims() != module.shape {
            let (module, expected) = (module.name.clone(), module.shape);
            return Err(ModelError::ModuleShape { module, expected, found: weight.dims() });
        }
        self.weights[slot] = weight;
        Ok(())
    }

    /// Names and values of the two norms, before attention and before the feed-forward layer. They
    /// differ from the checkpoint's after [`rescale`](Self::rescale).
    #[must_use]
    pub fn norms(&self) -> [(String, &Tensor<1>); 2] {
        let [attention, mlp] = norm_names(self.modules[0].name.block().unwrap_or(0));
        [(attention, &self.attention_norm), (mlp, &self.mlp_norm)]
    }

    pub(crate) fn norm_dtype(&self, attention: bool) -> Dtype {
        self.norm_dtypes[usize::from(!attention)]
    }

    pub(crate) fn norm_mut(&mut self, attention: bool) -> &mut Tensor<1> {
        if attention { &mut self.attention_norm } else { &mut self.mlp_norm }
    }

    pub(crate) fn set_weight(&mut self, slot: usize, weight: Tensor<2>) {
        self.weights[slot] = weight;
    }

    pub(crate) fn has_bias(&self, slot: usize) -> bool {
        self.biases[slot].is_some()
    }

    /// Whether every query head has a key head of its own.
    pub(crate) fn keys_are_queries(&self) -> bool {
        self.shape.queries == self.shape.keys
    }

    /// The block's output for `hidden`, shape `[batch, tokens, hidden_size]`.
    ///
    /// # Panics
    /// If there are more tokens than the context that the decoder was loaded for.
    #[must_use]
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.forward_with(&self.weights, hidden)
    }

    /// The same with other linear weights, in the order of [`ROLES`](crate::ROLES).
    ///
    /// # Panics
    /// If there are not seven weights, or more tokens than the context that the decoder was loaded for.
    #[must_use]
    pub fn forward_with(&self, weights: &[Tensor<2>], hidden: Tensor<3>) -> Tensor<3> {
        self.observe(weights, hidden, |_, _| ())
    }

    /// The same, showing the input of each module (`[batch, tokens, in_features]`) to `see`.
    ///
    /// # Panics
    /// If there are not seven weights, or more tokens than the context that the decoder was loaded for.
    pub fn observe(
        &self,
        weights: &[Tensor<2>],
        hidden: Tensor<3>,
        see: impl FnMut(usize, &Tensor<3>),
    ) -> Tensor<3> {
        self.run(weights, hidden, None, see)
    }

    /// The output for tokens that follow those in `past`, which they join.
    pub(crate) fn continue_from(&self, past: &mut Past, hidden: Tensor<3>) -> Tensor<3> {
        self.run(&self.weights, hidden, Some(past), |_, _| ())
    }

    fn run(
        &self,
        weights: &[Tensor<2>],
        hidden: Tensor<3>,
        past: Option<&mut Past>,
        mut see: impl FnMut(usize, &Tensor<3>),
    ) -> Tensor<3> {
        assert_eq!(weights.len(), self.modules.len(), "one weight per module");
        let mut linear = |slot: usize, x: &Tensor<3>| {
            see(slot, x);
            linear(x.clone(), &weights[slot], self.biases[slot].as_ref())
        };
        let x = rms_norm(hidden.clone(), &self.attention_norm, self.shape.norm_eps);
        let (q, k, v) = (linear(0, &x), linear(1, &x), linear(2, &x));
        let hidden = hidden + linear(3, &self.attend(q, k, v, past));
        let x = rms_norm(hidden.clone(), &self.mlp_norm, self.shape.norm_eps);
        let gated = silu(linear(4, &x)) * linear(5, &x);
        hidden + linear(6, &gated)
    }

    /// Causal attention; `q` is `[batch, tokens, queries * dim]`, `k` and `v` likewise with `keys`.
    fn attend(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, past: Option<&mut Past>) -> Tensor<3> {
        let Heads { queries, keys, dim, .. } = self.shape;
        let [batch, tokens, _] = q.dims();
        let shared = queries / keys; // query heads per key head
        let before = past.as_ref().and_then(|past| past.seen.as_ref()).map_or(0, |(k, _)| k.dims()[2]);
        let split = |x: Tensor<3>, heads: usize| x.reshape([batch, tokens, heads, dim]).swap_dims(1, 2);
        let q = self.positions.rotate(split(q, queries), before) / (dim as f64).sqrt();
        let mut k = self.positions.rotate(split(k, keys), before);
        let mut v = split(v, keys);
        if let Some(past) = past {
            if let Some((old_k, old_v)) = past.seen.take() {
                k = Tensor::cat(vec![old_k, k], 2);
                v = Tensor::cat(vec![old_v, v], 2);
            }
            past.seen = Some((k.clone(), v.clone()));
        }
        // Query heads that share a key head are stacked as rows: keys need not be repeated.
        let q = q.reshape([batch, keys, shared * tokens, dim]);
        let scores = q.matmul(k.swap_dims(2, 3)) + self.positions.mask(shared, before, tokens);
        let mixed = softmax(scores, 3).matmul(v); // [batch, keys, shared * tokens, dim]
        mixed.reshape([batch, queries, tokens, dim]).swap_dims(1, 2).reshape([batch, tokens, queries * dim])
    }
}

fn norm_names(number: usize) -> [String; 2] {
    ["input_layernorm", "post_attention_layernorm"].map(|norm| format!("model.layers.{number}.{norm}.weight"))
}

/// `x Wᵀ + b`, with `w` of shape `[out_features, in_features]`.
fn linear(x: Tensor<3>, w: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<3> {
    let [batch, tokens, in_features] = x.dims();
    let [out_features, _] = w.dims();
    let y = x.reshape([batch * tokens, in_features]).matmul(w.clone().transpose());
    let y = y.reshape([batch, tokens, out_features]);
    match bias {
        Some(bias) => y + bias.clone().unsqueeze(),
        None => y,
    }
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension.
pub(crate) fn rms_norm(x: Tensor<3>, weight: &Tensor<1>, eps: f64) -> Tensor<3> {
    let scale = (x.clone().square().mean_dim(2) + eps).sqrt().recip();
    x * scale * weight.clone().unsqueeze()
}
