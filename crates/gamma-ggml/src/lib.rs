//! The block formats of ggml as candidates of a plan, and the GGUF files that hold them.
//!
//! Use this crate if a plan shall run in llama.cpp, candle or mistral.rs: [`Ggml`] offers `Q2_K` to
//! `Q8_0` as formats whose sizes are those of the file to the byte, [`Gguf`] reads files and
//! [`Outline`] writes them. It knows no model; `gamma-export` turns checkpoints and plans into files.
//!
//! ```
//! use gamma_core::{BitWidth, ModuleName};
//! use gamma_ggml::{GgmlType, Ggml, Gguf, Metadata, Outline, TensorInfo};
//! use gamma_quant::{CalibrationStats, Quantizer, WeightView};
//! use ndarray::Array2;
//!
//! let name = ModuleName::new("model.layers.0.mlp.up_proj");
//! let weight = Array2::from_shape_fn((4, 256), |(i, j)| ((i * 256 + j) as f32).sin());
//! let view = WeightView::new(&name, weight.view())?;
//! let quantized = Ggml::portable().quantize_at(&view, &CalibrationStats::default(), BitWidth::B4)?;
//! let blocks = quantized.as_custom().and_then(|weight| weight.bytes()).expect("ggml keeps its bytes");
//!
//! let mut metadata = Metadata::new();
//! metadata.set("general.architecture", "llama");
//! let up = TensorInfo::new("blk.0.ffn_up.weight", &[4, 256], GgmlType::Q4K);
//! let outline = Outline::new(metadata, vec![up])?;
//! let file = outline.to_bytes(|_| blocks.into())?;
//! assert_eq!(file.len() as u64, outline.file_bytes());
//!
//! let read = Gguf::from_bytes(file)?;
//! assert_eq!(read.bytes("blk.0.ffn_up.weight"), Some(blocks));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types
//!
//! | types | carried | decoded | encoded | candidates |
//! |---|---|---|---|---|
//! | `Q2_K`, `Q3_K`, `Q4_K`, `Q5_K`, `Q6_K`, `Q8_0` | yes | yes | yes | [`Ggml::portable`] |
//! | `Q4_0`, `Q5_0` | yes | yes | yes | [`Ggml::with_small_blocks`] |
//! | `F32`, `F16`, `BF16` | yes | yes | yes | no: what a plan leaves as it is |
//! | `Q4_1`, `Q5_1` | yes | yes | no | no |
//! | all others | as raw blocks | no | no | no |

mod codec;
mod gguf;
mod quantizer;
mod types;

pub use codec::CodecError;
pub use gguf::{Array, Gguf, GgufError, InvalidGguf, Metadata, Outline, TensorInfo, Value, ValueKind};
pub use quantizer::{Ggml, importance};
pub use types::{GgmlType, UnknownType};
