//! Weight-only quantization, one matrix at a time: the trait [`Quantizer`] that every method
//! implements, the data that goes in and comes out, the [`laws`] that a method keeps, and
//! round-to-nearest.
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
//!     CalibrationStats, CustomWeight, QuantizeError, QuantizedWeight, Quantizer, WeightView, laws,
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
//!     fn format(&self, width: BitWidth) -> Format {
//!         Format::Custom { bits: width, name: "signs".into() }
//!     }
//!     fn quantize(
//!         &self,
//!         weight: &WeightView<'_>,
//!         _stats: &CalibrationStats,
//!         width: BitWidth,
//!     ) -> Result<QuantizedWeight, QuantizeError> {
//!         let mut values = weight.data().to_owned();
//!         for mut row in values.axis_iter_mut(Axis(0)) {
//!             let size = row.iter().map(|w| w.abs()).sum::<f32>() / row.len() as f32;
//!             row.mapv_inplace(|w| if w == 0.0 { 0.0 } else { size.copysign(w) });
//!         }
//!         // -1, 0 or 1 in two bits per weight, and one 32-bit size per row.
//!         let bits = 2 * values.len() as u64 + 32 * values.nrows() as u64;
//!         Ok(CustomWeight::new(weight.name(), self.format(width), values, bits)?.into())
//!     }
//! }
//!
//! let name = ModuleName::new("model.layers.0.mlp.up_proj");
//! let weight = array![[1.0, -3.0], [0.0, 0.5]];
//! let view = WeightView::new(&name, weight.view())?;
//! let quantized = Signs.quantize(&view, &CalibrationStats::default(), BitWidth::B2)?;
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
//! | `rtn` | yes | `Rtn`, round-to-nearest, the baseline; with `Clip`, a search of every group's range |
//! | `hqq` | yes | `Hqq`, half-quadratic quantization: better grids for few bits, without data |
//! | `awq` | yes | `Awq`, scales per input channel that make the following quantizer lose less |
//!
//! With default features off, the traits [`Quantizer`] and [`Rescale`], their data types and the
//! laws remain.

#[cfg(feature = "awq")]
mod awq;
mod error;
#[cfg(feature = "rtn")]
mod grid;
#[cfg(feature = "rtn")]
mod groups;
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
mod view;
mod weight;

#[cfg(feature = "awq")]
pub use awq::Awq;
pub use error::{QuantizeError, Stream};
#[cfg(feature = "hqq")]
pub use hqq::Hqq;
pub use int::IntWeight;
pub use quantizer::Quantizer;
pub use rescale::Rescale;
#[cfg(feature = "rtn")]
pub use rtn::{Clip, Rtn};
pub use stats::{CalibrationNeeds, CalibrationStats};
pub use view::WeightView;
pub use weight::{CustomWeight, QuantizedWeight};
