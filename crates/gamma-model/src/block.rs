//! One decoder block: attention with grouped queries, then a gated feed-forward layer or several, of
//! which each token takes a few.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData, activation::silu};

#[cfg(feature = "flex")]
use crate::fused;
use crate::{
    Config, FloatType, ModelError, Module, Products, Source, attention::Attention, config::ATTENTION,
    experts::Router, positions::Positions, sample::Past,
};

/// A decoder block with its weights on a device.
///
/// The linear weights can be replaced call by call, which is all that quantization changes. Those two
/// norms that can take up scales change only by [`rescale`](Self::rescale); other norms and biases
/// never change.
#[derive(Clone, Debug)]
pub struct Block {
    modules: Vec<Module>,
    weights: Vec<Tensor<2>>, // in the order of `modules`, each [out_features, in_features]
    biases: Vec<Option<Tensor<1>>>, // likewise
    attention_norm: Tensor<1>,
    mlp_norm: Tensor<1>,
    /// The types of both norms where they are stored.
    norm_types: [FloatType; 2],
    norm_eps: f64,
    attention: Attention,
    /// Where tokens go, in a block with experts.
    router: Option<Router>,
    products: Products,
}

/// What a tap is given: the position of a module in [`Block::modules`], its input, shape
/// `[batch, tokens, in_features]`, and its output with the bias added, shape
/// `[batch, tokens, out_features]`. It answers with the output to go on with, of the same shape.
///
/// Modules of an expert are shown the tokens that go to it alone, of all sequences one after the other:
/// `[1, tokens of this expert, in_features]`.
pub type Tap<'a> = &'a mut dyn FnMut(usize, &Tensor<3>, Tensor<3>) -> Tensor<3>;

impl Block {
    pub(crate) fn load(
        source: &dyn Source,
        number: usize,
        positions: Arc<Positions>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let config: &Config = source.config();
        let modules = config.modules(number);
        let vector = |name: &str, length: usize| -> Result<Tensor<1>, ModelError> {
            Ok(Tensor::from_data(TensorData::new(source.read(name, &[length])?, [length]), device))
        };
        let matrix = |name: &str, shape: [usize; 2]| -> Result<Tensor<2>, ModelError> {
            Ok(Tensor::from_data(TensorData::new(source.read(name, &shape)?, shape), device))
        };
        let mut weights = Vec::with_capacity(modules.len());
        let mut biases = Vec::with_capacity(modules.len());
        for module in &modules {
            weights.push(matrix(&module.name.weight(), module.shape)?);
            let bias = format!("{}.bias", module.name);
            biases.push(module.bias.then(|| vector(&bias, module.shape[0])).transpose()?);
        }
        let router = config.experts(number);
        let router =
            router.map(|experts| Router::load(experts, config.hidden_size, number, &matrix)).transpose()?;
        let names = norm_names(number);
        let norm = |name: &str| vector(name, config.hidden_size);
        Ok(Self {
            weights,
            biases,
            norm_types: [source.float_type(&names[0])?, source.float_type(&names[1])?],
            attention_norm: norm(&names[0])?,
            mlp_norm: norm(&names[1])?,
            norm_eps: config.norm_eps,
            attention: Attention::load(config, number, positions, &vector)?,
            router,
            products: Products::F32,
            modules,
        })
    }

    /// The same block with the products of its modules in another type, which its device must have.
    ///
    /// # Errors
    /// [`ModelError::Products`] if it does not.
    pub fn with_products(self, products: Products) -> Result<Self, ModelError> {
        products.check(&self.attention_norm.device())?;
        Ok(Self { products, ..self })
    }

    /// Names and shapes of the linear modules, in the order of [`Config::modules`].
    #[must_use]
    pub fn modules(&self) -> &[Module] {
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
    /// If there is no module `slot`.
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

    pub(crate) fn norm_type(&self, attention: bool) -> FloatType {
        self.norm_types[usize::from(!attention)]
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
        self.attention.keys_are_queries()
    }

    /// The block's output for `hidden`, shape `[batch, tokens, hidden_size]`.
    ///
    /// # Panics
    /// If there are more tokens than the context that the decoder was loaded for.
    #[must_use]
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.forward_with(&self.weights, hidden)
    }

    /// The same with other linear weights, in the order of [`modules`](Self::modules).
    ///
    /// # Panics
    /// If there is not one weight per module, or more tokens than the context that the decoder was
    /// loaded for.
    #[must_use]
    pub fn forward_with(&self, weights: &[Tensor<2>], hidden: Tensor<3>) -> Tensor<3> {
        self.run(weights, hidden, None, &mut |_, _, y| y)
    }

    /// The same, showing the input of each module (`[batch, tokens, in_features]`) to `see`.
    ///
    /// # Panics
    /// Where [`forward_with`](Self::forward_with) does.
    pub fn observe(
        &self,
        weights: &[Tensor<2>],
        hidden: Tensor<3>,
        mut see: impl FnMut(usize, &Tensor<3>),
    ) -> Tensor<3> {
        self.forward_tapped(weights, hidden, &mut |slot, x, y| {
            see(slot, x);
            y
        })
    }

    /// The same, with every module's output as `tap` returns it, who is called once per module; not at
    /// all for experts that no token goes to.
    ///
    /// Whoever adds a tensor of zeros that requires its gradient learns the gradient in a module's
    /// output, and with the input that in its weight, from one backward pass.
    ///
    /// # Panics
    /// Where [`forward_with`](Self::forward_with) does, and if `tap` changes a shape.
    pub fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
        self.run(weights, hidden, None, tap)
    }

    /// Shows to `see` what the modules of `experts` would be given if every token went to each of them:
    /// `[batch, tokens, in_features]`.
    ///
    /// # Panics
    /// Where [`forward_with`](Self::forward_with) does, and if there is no such expert.
    pub fn observe_unrouted(
        &self,
        hidden: Tensor<3>,
        experts: &[usize],
        mut see: impl FnMut(usize, &Tensor<3>),
    ) {
        let plain = |slot: usize, x: &Tensor<3>| self.linear(x.clone(), &self.weights[slot], slot);
        let hidden = self.attended(hidden, None, &mut { plain });
        let x = rms_norm(hidden, &self.mlp_norm, self.norm_eps);
        for &expert in experts {
            feed_forward(ATTENTION + FEED_FORWARD * expert, &x, &mut |slot, x| {
                see(slot, x);
                plain(slot, x)
            });
        }
    }

    /// The output for tokens that follow those in `past`, which they join.
    pub(crate) fn continue_from(&self, past: &mut Past, hidden: Tensor<3>) -> Tensor<3> {
        self.run(&self.weights, hidden, Some(past), &mut |_, _, y| y)
    }

    fn run(
        &self,
        weights: &[Tensor<2>],
        hidden: Tensor<3>,
        past: Option<&mut Past>,
        tap: Tap<'_>,
    ) -> Tensor<3> {
        assert_eq!(weights.len(), self.modules.len(), "one weight per module");
        let mut linear = |slot: usize, x: &Tensor<3>| {
            let y = self.linear(x.clone(), &weights[slot], slot);
            let shape = y.dims();
            let y = tap(slot, x, y);
            assert_eq!(y.dims(), shape, "a tap keeps the shape of `{}`", self.modules[slot].name);
            y
        };
        let hidden = self.attended(hidden, past, &mut linear);
        let x = rms_norm(hidden.clone(), &self.mlp_norm, self.norm_eps);
        hidden
            + match &self.router {
                None => feed_forward(ATTENTION, &x, &mut linear),
                Some(router) => router.mix(&x, &mut |expert, x| {
                    feed_forward(ATTENTION + FEED_FORWARD * expert, &x, &mut linear)
                }),
            }
    }

    /// `x Wᵀ + b` with the bias of module `slot`, and `w` of shape `[out_features, in_features]`.
    fn linear(&self, x: Tensor<3>, w: &Tensor<2>, slot: usize) -> Tensor<3> {
        let [batch, tokens, in_features] = x.dims();
        let [out_features, _] = w.dims();
        let y = self.products.multiply(x.reshape([batch * tokens, in_features]), w.clone());
        let y = y.reshape([batch, tokens, out_features]);
        match &self.biases[slot] {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }

    /// The residual stream between attention and what follows.
    fn attended(&self, hidden: Tensor<3>, past: Option<&mut Past>, linear: Linear<'_>) -> Tensor<3> {
        let x = rms_norm(hidden.clone(), &self.attention_norm, self.norm_eps);
        let (q, k, v) = (linear(0, &x), linear(1, &x), linear(2, &x));
        hidden + linear(3, &self.attention.attend(q, k, v, past))
    }
}

/// A module's output for its input; the module is given by its position.
type Linear<'a> = &'a mut dyn FnMut(usize, &Tensor<3>) -> Tensor<3>;

/// Modules of a feed-forward layer: gate, up, down.
pub(crate) const FEED_FORWARD: usize = 3;

/// The feed-forward layer whose modules begin at position `first`.
fn feed_forward(first: usize, x: &Tensor<3>, linear: Linear<'_>) -> Tensor<3> {
    let gated = gated(linear(first, x), linear(first + 1, x));
    linear(first + 2, &gated)
}

/// `silu(gate) · up`.
fn gated(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if fused::takes(&[&gate, &up]) {
        return fused::apply(fused::Gate, [gate, up]);
    }
    silu(gate) * up
}

fn norm_names(number: usize) -> [String; 2] {
    ["input_layernorm", "post_attention_layernorm"].map(|norm| format!("model.layers.{number}.{norm}.weight"))
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension, which `weight` has the length of.
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, eps: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if fused::takes(&[&x]) {
        return fused::apply(fused::Norm::new(weight, eps), [x]);
    }
    let scale = (x.clone().square().mean_dim(D - 1) + eps).sqrt().recip();
    x * scale * weight.clone().unsqueeze()
}
