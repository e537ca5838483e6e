//! GGUF files for llama.cpp, candle and mistral.rs.

mod architecture;
mod audit;
mod blocks;
mod checkpoint;
mod imatrix;
mod names;
mod recode;
mod tokenizer;
mod type_file;

pub use audit::{AuditedTensor, GgufReport};
pub use checkpoint::GgufExport;
pub use imatrix::{Moments, write_imatrix};
pub use names::gguf_tensor_name;
pub use recode::GgufRecode;
pub use type_file::tensor_type_file;

/// How these files are called in errors.
pub(crate) const TARGET: &str = "a GGUF file";
