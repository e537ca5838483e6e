//! Causal attention with grouped queries: what stands between the projections of a block.

use std::sync::Arc;

use burn::tensor::{Tensor, activation::softmax};

use crate::{Config, ModelError, block::rms_norm, positions::Positions, sample::Past};

/// The heads of a block, and the norms of its queries and keys where the family has them.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    queries: usize,
    keys: usize,
    head_dim: usize,
    /// Weights over the channels of a head, `[head_dim]`, of the norms of queries and keys.
    norms: Option<[Tensor<1>; 2]>,
    norm_eps: f64,
    positions: Arc<Positions>,
}

impl Attention {
    /// Attention in block `number`; `read` gives the vector of a name and a length.
    pub(crate) fn load(
        config: &Config,
        number: usize,
        positions: Arc<Positions>,
        read: &dyn Fn(&str, usize) -> Result<Tensor<1>, ModelError>,
    ) -> Result<Self, ModelError> {
        let norm =
            |name: &str| read(&format!("model.layers.{number}.self_attn.{name}.weight"), config.head_dim);
        let norms = if config.query_key_norm { Some([norm("q_norm")?, norm("k_norm")?]) } else { None };
        Ok(Self {
            queries: config.heads,
            keys: config.kv_heads,
            head_dim: config.head_dim,
            norms,
            norm_eps: config.norm_eps,
            positions,
        })
    }

    /// Whether every query head has a key head of its own.
    pub(crate) fn keys_are_queries(&self) -> bool {
        self.queries == self.keys
    }

    /// The values that each token gathers from those before it and itself. `q` and the result are
    /// `[batch, tokens, queries * head_dim]`, `k` and `v` likewise with `keys`. The tokens follow
    /// those in `past`, which they join.
    pub(crate) fn attend(
        &self,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        past: Option<&mut Past>,
    ) -> Tensor<3> {
        let Self { queries, keys, head_dim, .. } = *self;
        let [batch, tokens, _] = q.dims();
        let shared = queries / keys; // query heads per key head
        let before = past.as_ref().and_then(|past| past.seen.as_ref()).map_or(0, |(k, _)| k.dims()[2]);
        let split = |x: Tensor<3>, heads: usize| x.reshape([batch, tokens, heads, head_dim]).swap_dims(1, 2);
        let (mut q, mut k, mut v) = (split(q, queries), split(k, keys), split(v, keys));
        if let Some([q_norm, k_norm]) = &self.norms {
            q = rms_norm(q, q_norm, self.norm_eps);
            k = rms_norm(k, k_norm, self.norm_eps);
        }
        let q = self.positions.rotate(q, before) / (head_dim as f64).sqrt();
        k = self.positions.rotate(k, before);
        if let Some(past) = past {
            if let Some((old_k, old_v)) = past.seen.take() {
                k = Tensor::cat(vec![old_k, k], 2);
                v = Tensor::cat(vec![old_v, v], 2);
            }
            past.seen = Some((k.clone(), v.clone()));
        }
        // Query heads that share a key head are stacked as rows: keys need not be repeated.
        let q = q.reshape([batch, keys, shared * tokens, head_dim]);
        let scores = q.matmul(k.swap_dims(2, 3)) + self.positions.mask(shared, before, tokens);
        let mixed = softmax(scores, 3).matmul(v); // [batch, keys, shared * tokens, head_dim]
        let mixed = mixed.reshape([batch, queries, tokens, head_dim]).swap_dims(1, 2);
        mixed.reshape([batch, tokens, queries * head_dim])
    }
}
