//! Writes what a bit allocation decided: a checkpoint folder that `transformers` loads, a packed
//! file with the codes themselves, or both, in one folder that appears complete or not at all.
//!
//! Use this crate if you hold a [`Plan`](gamma_core::Plan) and the quantized weights and want them
//! on disk, or to read a packed file back. The crate `gamma` does this at the end of a run. It
//! knows no quantizer, no tensor framework and no solver.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use gamma_core::{BitWidth, GroupSize, ModuleName, ModuleScores, Plan, ScoreTable, ScoredOption};
//! use gamma_export::{Export, read_packed};
//! use gamma_quant::{IntWeight, QuantizedWeight};
//! use half::f16;
//!
//! let name = ModuleName::new("model.layers.0.mlp.up_proj");
//! let layout = (BitWidth::B4, GroupSize::new(2)?);
//! let codes = [0, 15, 8, 7];
//! let weight: QuantizedWeight =
//!     IntWeight::from_codes(&name, [1, 4], layout, &codes, vec![f16::ONE; 2], None)?.into();
//!
//! // A plan comes from a solver; this one has no choice.
//! let option = ScoredOption::new(weight.format(), weight.stored_bits(), 0.0);
//! let module = ModuleScores { name: name.clone(), shape: weight.shape(), options: vec![option] };
//! let plan = Plan::uniform(&ScoreTable::new(vec![module])?, BitWidth::B4)?;
//!
//! let scratch = tempfile::tempdir()?;
//! let target = scratch.path().join("quantized");
//! let weights = BTreeMap::from([(name, weight)]);
//! Export::new(&plan).packed().file("notes.txt", "four bits").write(&target, &weights)?;
//! assert_eq!(read_packed(&target.join("packed.safetensors"))?, weights);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is written
//!
//! | part | files | content |
//! |---|---|---|
//! | [`Export::dequantized`] | the names of the source | quantized modules as decoded floats, everything else byte for byte |
//! | [`Export::packed`] | `packed.safetensors` | codes, scales and zero points in exactly the bits that the plan counted |
//! | [`Export::packed_model`] | `packed.safetensors` | the same, and all tensors that the plan leaves as they are |
//! | [`Export::file`] | any name | what the caller adds, such as `plan.json` |
//!
//! Files for engines are written by exporters of their own, which refuse formats that the engine does
//! not hold before anything is quantized, and say the size beforehand:
//!
//! | exporter | for |
//! |---|---|
//! | [`GgufExport`], [`GgufRecode`] | llama.cpp, candle, mistral.rs: one GGUF file, read again before it appears |
//! | [`IntegerExport`] | transformers, vLLM, `GPTQModel` and MLX: compressed-tensors, AutoRound, GPTQ and MLX folders |
//! | [`Recipe`], [`write_imatrix`] | tools that quantize by themselves |

mod account;
mod config;
mod dequantized;
mod error;
mod experts;
mod export;
mod float;
mod gguf;
mod integers;
mod packed;
mod recipes;
mod source;
mod stage;
mod target;
mod unserved;

pub use account::{Unplanned, remainder, unplanned};
pub use dequantized::Precision;
pub use error::ExportError;
pub use export::{Export, WrittenFile};
pub use gguf::{
    AuditedTensor, GgufExport, GgufRecode, GgufReport, Moments, gguf_tensor_name, gguf_type, write_imatrix,
};
pub use integers::{IntegerExport, IntegerLayout};
pub use packed::read_packed;
pub use recipes::{Recipe, UnknownRecipe, mistralrs_topology, tensor_type_file};
pub use stage::write_atomically;
pub use target::{Target, UnknownTarget};
pub use unserved::Unserved;
