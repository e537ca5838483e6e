//! GGUF files for llama.cpp, candle and mistral.rs.

mod architecture;
mod audit;
mod blocks;
mod checkpoint;
mod imatrix;
mod names;
mod recode;
mod tokenizer;

pub use audit::{AuditedTensor, GgufReport};
pub(crate) use blocks::check_plan;
pub use blocks::gguf_type;
pub use checkpoint::GgufExport;
pub use imatrix::{Moments, write_imatrix};
pub use names::gguf_tensor_name;
pub use recode::GgufRecode;

/// How these files are called in errors.
pub(crate) const TARGET: &str = "a GGUF file";

/// What they hold.
pub(crate) const SERVED: &str = "ggml's block formats whose blocks divide a row, and symmetric integers of 4, 5 or \
                                 8 bits in groups of a multiple of 32";
