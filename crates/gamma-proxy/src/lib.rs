//! Published ways to score what each quantized candidate does to its module.
//!
//! Use this crate to compare a learned score table with what others would have used on the very same
//! candidates, or because one of them is all you have time for. Every [`Proxy`] gives a table of
//! costs that an allocator takes; what they look at differs, and so does what they cost:
//!
//! | proxy | looks at | passes over the data |
//! |---|---|---|
//! | [`Random`](Proxy::Random), [`Depth`](Proxy::Depth) | names and sizes | none |
//! | [`Weights`](Proxy::Weights) | `‖Q - W‖²` | none |
//! | [`Moments`](Proxy::Moments) | the same, weighted by `E[x²]` of each input channel | 1 forward |
//! | [`Hessian`](Proxy::Hessian) | `E‖(Q - W) x‖²` | 1 forward |
//! | [`Trace`](Proxy::Trace) | `tr(F)/n ‖Q - W‖²`, with the Fisher information `F` of the weights | 1 forward, 1 backward |
//! | [`Fisher`](Proxy::Fisher) | `Σ (∂L/∂y)² ((Q - W) x)²` | 1 forward, 1 backward |
//! | [`FirstOrder`](Proxy::FirstOrder) | `Σ \|∂L/∂Q (Q - W)\|` at the quantized model | 1 forward, 1 backward per candidate |
//! | [`Block`](Proxy::Block) | error of the block's output, one module quantized | 1 block per candidate |
//! | [`Noise`](Proxy::Noise) | divergence under Gaussian noise, times `‖Q - W‖²/‖W‖²` | several half models per module |
//! | [`Divergence`](Proxy::Divergence) | divergence with one module quantized | a half model per candidate and module |
//!
//! A model is seen through the traits of `gamma-preference` and, for what goes beyond,
//! [`Ending`] and [`Trial`].

mod backward;
mod error;
mod gradients;
mod heuristics;
mod local;
mod table;
mod trials;

use burn::tensor::Tensor;
use gamma_core::ScoreTable;
use gamma_preference::Network;

pub use error::ProxyError;

/// Which published score to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// Sensitivities drawn at random, errors that fall by four with each bit: a floor for all others.
    Random {
        /// Of the draw.
        seed: u64,
    },
    /// The first and the last blocks and, within each, the value and down projections count more: the
    /// rule of thumb behind llama.cpp's mixed types.
    Depth,
    /// Squared error of the weights.
    Weights,
    /// Squared error of the weights, each input channel weighted by its mean square: llama.cpp's
    /// importance matrix.
    Moments,
    /// Mean squared error of the module's output, with the whole second-moment matrix of its input:
    /// the objective of GPTQ.
    Hessian,
    /// Mean curvature times squared error, as HAWQ-V2 and -V3 (arXiv 2011.10680). The trace of the
    /// Hessian is taken as that of the Fisher information, with labels sampled from the model: the
    /// expectation of the squared gradient.
    Trace,
    /// Squared gradient times squared change of the module's output, summed over tokens and channels:
    /// the diagonal Fisher information, as in `auto_quantize` of NVIDIA Model-Optimizer.
    Fisher,
    /// Absolute first-order change of the loss, with gradients taken at the quantized weights, all
    /// modules at one width at a time: as `AutoScheme` of Intel's `auto-round`.
    FirstOrder,
    /// Error of the block's output relative to the residual stream with one module quantized.
    Block,
    /// The linearity theorem of HIGGS (arXiv 2411.17525): one coefficient per module, from its
    /// divergence under Gaussian noise of several strengths, times the relative squared error.
    Noise {
        /// Number of strengths.
        levels: usize,
        /// Of the noise.
        seed: u64,
    },
    /// Divergence of the model from full precision with one module quantized.
    Divergence,
}

impl Proxy {
    /// Whether the proxy needs calibration data.
    #[must_use]
    pub fn needs_data(self) -> bool {
        !matches!(self, Self::Random { .. } | Self::Depth | Self::Weights)
    }

    /// A short name, such as `fisher`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Random { .. } => "random",
            Self::Depth => "depth",
            Self::Weights => "weights",
            Self::Moments => "moments",
            Self::Hessian => "hessian",
            Self::Trace => "trace",
            Self::Fisher => "fisher",
            Self::FirstOrder => "first-order",
            Self::Block => "block",
            Self::Noise { .. } => "noise",
            Self::Divergence => "divergence",
        }
    }
}

/// Which tokens a gradient of the loss is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Those of the text; the loss is their mean.
    Text,
    /// Drawn from the model's own prediction, as the Fisher information asks; the loss is their sum.
    Drawn {
        /// Of the draw.
        seed: u64,
    },
}

/// What stands after the last block, and the text to predict.
pub trait Ending {
    /// The gradient of the cross-entropy of the next tokens of batch `batch`, in nats, in `hidden`: the
    /// residual stream `[batch, tokens, width]` after the last block.
    fn gradient(&self, batch: usize, hidden: &Tensor<3>, labels: Labels) -> Tensor<3>;
}

/// A full-precision model in which one weight can be replaced.
pub trait Trial {
    /// Why a trial failed.
    type Error: std::error::Error + 'static;

    /// Mean divergence from full precision, in nats per token, with `weight` in place of that of
    /// module `slot` of block `block`.
    ///
    /// # Errors
    /// Whatever keeps the model from being run.
    fn divergence(&mut self, block: usize, slot: usize, weight: Tensor<2>) -> Result<f64, Self::Error>;
}

/// Called with the number of steps done and their total; stops the work if it breaks.
pub type Tick<'a> = &'a mut dyn FnMut(usize, usize) -> std::ops::ControlFlow<()>;

/// Scores from names, weights and what the full-precision model feeds each module or block. `inputs`
/// is the residual stream before the first block, in batches `[batch, tokens, width]`.
///
/// Means are over all tokens. A token that does not go to a module, because it goes to other experts,
/// finds no error there.
///
/// # Errors
/// [`ProxyError`] names the block or module at fault.
///
/// # Panics
/// If `proxy` needs [`by_gradients`] or [`by_trials`].
pub fn locally<N: Network>(
    proxy: Proxy,
    network: &mut N,
    inputs: &[Tensor<3>],
    tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    match proxy {
        Proxy::Random { seed } => heuristics::random(network, seed),
        Proxy::Depth => heuristics::depth(network),
        Proxy::Weights => local::weights(network, tick),
        Proxy::Moments | Proxy::Hessian => local::outputs(network, inputs, proxy, tick),
        Proxy::Block => local::blocks(network, inputs, tick),
        _ => panic!("`{}` needs more than the blocks", proxy.name()),
    }
}

/// Scores from gradients of the loss at the end.
///
/// # Errors
/// As [`locally`].
///
/// # Panics
/// If `proxy` is none of [`Trace`](Proxy::Trace), [`Fisher`](Proxy::Fisher),
/// [`FirstOrder`](Proxy::FirstOrder).
pub fn by_gradients<N: Network>(
    proxy: Proxy,
    network: &mut N,
    inputs: &[Tensor<3>],
    ending: &dyn Ending,
    tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    match proxy {
        Proxy::Trace | Proxy::Fisher => gradients::at_full_precision(network, inputs, ending, proxy, tick),
        Proxy::FirstOrder => gradients::first_order(network, inputs, ending, tick),
        _ => panic!("`{}` is not made of gradients", proxy.name()),
    }
}

/// Scores from the divergence of the whole model, one module changed at a time.
///
/// # Errors
/// As [`locally`]; [`ProxyError::Trial`] if a trial failed.
///
/// # Panics
/// If `proxy` is neither [`Noise`](Proxy::Noise) nor [`Divergence`](Proxy::Divergence).
pub fn by_trials<N: Network, T: Trial<Error = N::Error>>(
    proxy: Proxy,
    network: &mut N,
    trial: &mut T,
    tick: Tick<'_>,
) -> Result<ScoreTable, ProxyError<N::Error>> {
    match proxy {
        Proxy::Divergence => trials::divergence(network, trial, tick),
        Proxy::Noise { levels, seed } => trials::noise(network, trial, levels, seed, tick),
        _ => panic!("`{}` needs no trials", proxy.name()),
    }
}
