//! Learns how much the precision of each module matters, without touching the weights.
//!
//! Every module chooses among frozen quantized candidates by a Gumbel-softmax over learnable
//! logits; each block is asked to reproduce its full-precision output, fed with full-precision
//! hidden states or with the student's own, and the whole to predict as it did; a price on bits, by
//! an augmented Lagrangian or by drawing budgets, keeps the choices honest. What comes out is a cost
//! for every option of every module. [`Objective`] says what is asked.
//!
//! Use this crate if you bring your own model on burn tensors: implement [`Network`], [`Block`]
//! and [`Head`]. It knows no quantizer, no solver and no files.
//!
//! ```
//! use std::ops::ControlFlow;
//! use burn::tensor::{Device, Distribution, Tensor};
//! use gamma_core::{BitWidth, Format, GroupSize, ModuleName};
//! use gamma_preference::{Bank, Block, Candidate, Competitor, Head, Network, Objective, Reading, Sampling,
//!     Settings, Tap, learn};
//!
//! /// One linear layer, `x Wᵀ`, is the whole network.
//! struct Layer;
//! impl Block for Layer {
//!     fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
//!         let output = hidden.clone().matmul(weights[0].clone().transpose().unsqueeze());
//!         tap(0, &hidden, output)
//!     }
//! }
//!
//! /// Its output is all there is to predict from.
//! impl Head for Layer {
//!     fn logits(&self, hidden: Tensor<3>) -> Tensor<3> { hidden }
//! }
//!
//! struct Toy(Tensor<2>, Vec<Vec<Competitor>>);
//! impl Network for Toy {
//!     type Block = Layer;
//!     type Head = Layer;
//!     type Error = std::convert::Infallible;
//!     fn competitors(&self) -> &[Vec<Competitor>] { &self.1 }
//!     fn load(&mut self, _: usize) -> Result<Bank<Layer>, Self::Error> {
//!         let flat = self.0.clone().reshape([1, 64]);
//!         // Candidates that lose 40 % and 5 % of the weights.
//!         let differences = Tensor::cat(vec![flat.clone() * -0.4, flat * -0.05], 0);
//!         Ok(Bank { block: Layer, originals: vec![self.0.clone()], differences: vec![differences] })
//!     }
//!     fn head(&self) -> &Layer { &Layer }
//! }
//!
//! let device = Device::flex();
//! let candidates = [BitWidth::B2, BitWidth::B4].map(|bits| {
//!     let format = Format::symmetric(bits, GroupSize::G128);
//!     Candidate { stored_bits: format.stored_bits([8, 8]).unwrap(), format }
//! });
//! let module = Competitor { name: ModuleName::new("layer"), shape: [8, 8], candidates: candidates.to_vec() };
//! let weight = Tensor::random([8, 8], Distribution::Normal(0.0, 1.0), &device);
//! let inputs = vec![Tensor::random([2, 16, 8], Distribution::Normal(0.0, 1.0), &device)];
//! let objective = Objective { reading: Reading::Teacher, ..Objective::default() };
//! let settings = Settings { objective, sampling: Sampling::Hard, rounds: 2, ..Settings::default() };
//! let mut network = Toy(weight, vec![vec![module]]);
//! let learned = learn(&mut network, &inputs, &settings, &mut |_: &_| ControlFlow::Continue(()))?;
//! let options = &learned.losses.modules()[0].options;
//! // Losing 40 % of a layer costs 0.4² of its energy, losing 5 % costs 0.05².
//! assert!((options[0].cost - 0.16).abs() < 1e-3 && (options[1].cost - 0.0025).abs() < 1e-4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adam;
mod choices;
mod divergence;
mod error;
mod extend;
mod fisher;
mod fit;
mod learn;
mod learner;
mod levels;
mod mixed;
mod network;
mod objective;
mod observe;
mod ordered_sum;
mod per_module;
mod pool;
mod price;
mod progress;
mod reconstruction;
mod scores;
mod settings;
mod shape;
mod state;
mod switched;
mod teacher;
mod through;

pub use error::LearnError;
pub use extend::extend;
pub use learn::{Learned, learn, resume};
pub use network::{Aside, Bank, Block, Candidate, Competitor, Head, Inputs, Network, Tap};
pub use objective::{Normaliser, Objective, Reading};
pub use observe::{Context, Observation, Observations};
pub use ordered_sum::ordered_sum;
pub use progress::{Progress, Step};
pub use settings::{Pressure, Sampling, Settings};
pub use state::{State, StateError};
