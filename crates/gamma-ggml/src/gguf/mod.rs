//! The container: keys with values, and tensors as raw blocks.
//!
//! Little-endian. `u32` magic, `u32` version, `u64` number of tensors, `u64` number of keys. A key is
//! a string (`u64` length, bytes), a `u32` type and the value. A tensor is its name, a `u32` number of
//! sides, the sides as `u64` with the columns first, a `u32` type and a `u64` offset behind the header,
//! which is padded to the alignment. So is every tensor, the last one too.
//! Source: the specification `docs/gguf.md` of ggml.

mod array;
mod error;
mod outline;
mod read;
mod value;
mod write;

pub use array::Array;
pub use error::{GgufError, InvalidGguf};
pub use outline::{Outline, TensorInfo};
pub use read::Gguf;
pub use value::{Metadata, Value, ValueKind};

/// What every file begins with.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written.
pub(crate) const VERSION: u32 = 3;
/// The key of the alignment, and what holds without it.
pub(crate) const ALIGNMENT: &str = "general.alignment";
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// Tensors have one to four sides.
pub(crate) const MAX_SIDES: usize = 4;
