//! Weight-only quantization, one matrix at a time: the trait [`Quantizer`] that every method
//! implements, the data that goes in and comes out, the [`laws`] that a method keeps,
//! round-to-nearest, GPTQ, HQQ and AWQ.
//!
//! Use this crate if you *write* a quantizer, or if you want one matrix quantized without a model
//! around it. To quantize a whole checkpoint within a budget, use the crate `gamma`. It knows no
//! model, no tensor framework and no solver.
//!
//! A method is a struct that holds its settings and implements [`Quantizer`]. Here is one that
//! keeps the sign of each weight and one size per row, with a code of its own:
//!
//! ```
//! use gamma_core::{BitWidth, Format, ModuleName};
//! use gamma_quant::{
//!     CalibrationStats, CustomWeight, QuantizeError, QuantizedWeight, Quantizer, WeightView, accept, laws,
//! };
//! use ndarray::{Axis, array};
//!
//! #[derive(Debug)]
//! struct Signs;
//!
//! impl Quantizer for Signs {
//!     fn name(&self) -> &str {
//!         "signs"
//!     }
//!     fn describe(&self) -> String {
//!         "signs, mean absolute value per row".into()
//!     }
//!     fn formats(&self, width: BitWidth) -> Vec<Format> {
//!         vec![Format::Custom { bits: width, name: "signs".into() }]
//!     }
//!     fn quantize(
//!         &self,
//!         weight: &WeightView<'_>,
//!         _stats: &CalibrationStats,
//!         format: &Format,
//!     ) -> Result<QuantizedWeight, QuantizeError> {
//!         accept(self, weight.name(), format)?;
//!         let mut values = weight.data().to_owned();
//!         for mut row in values.axis_iter_mut(Axis(0)) {
//!             let size = row.iter().map(|w| w.abs()).sum::<f32>() / row.len() as f32;
//!             row.mapv_inplace(|w| if w == 0.0 { 0.0 } else { size.copysign(w) });
//!         }
//!         // -1, 0 or 1 in two bits per weight, and one 32-bit size per row.
//!         let bits = 2 * values.len() as u64 + 32 * values.nrows() as u64;
//!         Ok(CustomWeight::new(weight.name(), format.clone(), values, bits)?.into())
//!     }
//! }
//!
//! let name = ModuleName::new("model.layers.0.mlp.up_proj");
//! let weight = array![[1.0, -3.0], [0.0, 0.5]];
//! let view = WeightView::new(&name, weight.view())?;
//! let quantized = Signs.quantize_at(&view, &CalibrationStats::default(), BitWidth::B2)?;
//! assert_eq!(quantized.dequantize(), array![[2.0, -2.0], [0.0, 0.25]]);
//! assert_eq!(quantized.stored_bits(), 4 * 2 + 2 * 32);
//!
//! // What a method owes to its callers, as a test of one line.
//! assert!(laws::check(&Signs, &[BitWidth::B2]).is_ok());
//! # Ok::<(), QuantizeError>(())
//! ```
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `awq` | yes | `Awq`, scales per input channel that make the following quantizer lose less |
//! | `gptq` | yes | `Gptq`, error compensation by the Hessian of the inputs, and `HessianAccumulator` |
//! | `hqq` | yes | `Hqq`, half-quadratic quantization: better grids for few bits, without data |
//! | `rtn` | yes | `Rtn`, round-to-nearest, the baseline; with `Clip`, a search of every group's range |
//!
//! With default features off, the traits [`Quantizer`] and [`Rescale`], their data types and the
//! laws remain.

#[cfg(feature = "awq")]
mod awq;
mod error;
#[cfg(feature = "gptq")]
mod gptq;
#[cfg(any(feature = "gptq", feature = "rtn"))]
mod grid;
#[cfg(feature = "rtn")]
mod groups;
mod hessian;
#[cfg(feature = "hqq")]
mod hqq;
mod int;
pub mod laws;
mod pack;
mod quantizer;
pub mod rescale;
#[cfg(feature = "rtn")]
mod rtn;
mod stats;
mod variants;
mod view;
mod weight;

#[cfg(feature = "awq")]
pub use awq::Awq;
pub use error::{QuantizeError, Stream};
#[cfg(feature = "gptq")]
pub use gptq::{Damping, Gptq};
pub use hessian::Hessian;
#[cfg(feature = "gptq")]
pub use hessian::{HessianAccumulator, InvalidActivations};
#[cfg(feature = "hqq")]
pub use hqq::Hqq;
pub use int::IntWeight;
pub use quantizer::{Quantizer, accept};
pub use rescale::Rescale;
#[cfg(feature = "rtn")]
pub use rtn::{Clip, Rtn};
pub use stats::{CalibrationNeeds, CalibrationStats};
pub use variants::Variants;
pub use view::WeightView;
pub use weight::{CustomWeight, Decode, QuantizedWeight};
