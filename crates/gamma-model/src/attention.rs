//! Causal attention with grouped queries: what stands between the projections of a block.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, activation::softmax};

#[cfg(feature = "flex")]
use crate::fused;
use crate::{Config, ModelError, block::rms_norm, cpu::is_cpu, positions::Positions, sample::Past};

/// Whether attention on `device` writes the scores of all pairs of tokens to memory, and keeps them while
/// a gradient may be asked for. On the CPU it does not.
#[must_use]
pub fn keeps_scores(device: &Device) -> bool {
    !is_cpu(device)
}

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
        let (mut q, mut k) = (q, k);
        if let Some([q_norm, k_norm]) = &self.norms {
            q = self.normed(q, q_norm);
            k = self.normed(k, k_norm);
        }
        #[cfg(feature = "flex")]
        if past.is_none() && fused::takes(&[&q, &k, &v]) {
            let heads = fused::Heads { queries: self.queries, keys: self.keys, width: self.head_dim };
            let (tokens, window, turns) = (q.dims()[1], self.positions.window(), self.positions.turns());
            return fused::apply(fused::Attend { heads, tokens, window, turns }, [q, k, v]);
        }
        self.composed(q, k, v, past)
    }

    /// The norm of every head on its own.
    fn normed(&self, x: Tensor<3>, weight: &Tensor<1>) -> Tensor<3> {
        let [batch, tokens, channels] = x.dims();
        let heads = x.reshape([batch, tokens, channels / self.head_dim, self.head_dim]);
        rms_norm(heads, weight, self.norm_eps).reshape([batch, tokens, channels])
    }

    /// The same of normed queries and keys, operation by operation.
    fn composed(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, past: Option<&mut Past>) -> Tensor<3> {
        let Self { queries, keys, head_dim, .. } = *self;
        let [batch, tokens, _] = q.dims();
        let shared = queries / keys; // query heads per key head
        let before = past.as_ref().and_then(|past| past.seen.as_ref()).map_or(0, |(k, _)| k.dims()[2]);
        let split = |x: Tensor<3>, heads: usize| x.reshape([batch, tokens, heads, head_dim]).swap_dims(1, 2);
        let (q, mut k, mut v) = (split(q, queries), split(k, keys), split(v, keys));
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn fused_and_composed_attention_agree() {
        let device = Device::flex();
        for (queries, keys, head_dim, tokens, window) in [
            (4, 2, 8, 150, None),
            (3, 1, 16, 64, None),
            (2, 2, 4, 1, None),
            (6, 2, 8, 200, Some(70)),
            (2, 1, 8, 65, Some(1)),
        ] {
            let frequencies: Vec<f64> = (0..head_dim / 2).map(|i| 0.7_f64.powf(i as f64)).collect();
            let positions = Arc::new(Positions::turning(&frequencies, window, 256, &device));
            let attention = Attention { queries, keys, head_dim, norms: None, norm_eps: 1e-5, positions };
            let random = |heads: usize| {
                Tensor::<3>::random([2, tokens, heads * head_dim], Distribution::Normal(0.0, 1.5), &device)
            };
            fused::tests::agree(
                &[random(queries), random(keys), random(keys)],
                |[q, k, v]| attention.attend(q, k, v, None),
                |[q, k, v]| attention.composed(q, k, v, None),
            );
        }
    }
}
