//! Why a file is refused.

use std::{io, path::PathBuf};

/// A GGUF file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The system does not give the file.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system does not take the file; a full disk is reported here.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file that was asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder or device in the place of the file.
    #[error("`{}` is not a plain file", path.display())]
    NotAFile {
        /// The target.
        path: PathBuf,
    },
    /// The content breaks the format.
    #[error("`{}` is not a usable GGUF file", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidGguf,
    },
    /// Data for a tensor that do not have its size.
    #[error("tensor `{tensor}` takes {expected} bytes, {found} were given")]
    TensorData {
        /// The tensor.
        tensor: String,
        /// Bytes by type and shape.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
}

/// What is wrong with the content of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidGguf {
    /// Another kind of file.
    #[error("it begins with {found:02x?}, not with `GGUF`")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A version of the format that is not supported; a big-endian file has a very large one.
    #[error("it is of version {found}; versions 2 and 3, little-endian, can be read")]
    Version {
        /// The version.
        found: u32,
    },
    /// The file ends before its content does.
    #[error("it ends within {what}: byte {end} is needed, there are {len}")]
    Truncated {
        /// What is cut off.
        what: String,
        /// Where it would end.
        end: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// A count of things that the file is too small for.
    #[error("{what} has {count} entries, and {left} bytes are left for them")]
    Count {
        /// What is counted.
        what: String,
        /// How many there should be.
        count: u64,
        /// Bytes left.
        left: u64,
    },
    /// A name that is not text.
    #[error("the name in byte {at} is not UTF-8")]
    Name {
        /// Where the name begins.
        at: u64,
    },
    /// A value of a type that does not exist.
    #[error("key `{key}` has a value of the unknown type {kind}")]
    ValueKind {
        /// The key.
        key: String,
        /// The type.
        kind: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("key `{key}` has the truth value {value}")]
    Bool {
        /// The key.
        key: String,
        /// The byte.
        value: u8,
    },
    /// Arrays of arrays without end.
    #[error("key `{key}` nests arrays more than {limit} deep")]
    Nesting {
        /// The key.
        key: String,
        /// How deep they may be.
        limit: usize,
    },
    /// A key that stands twice.
    #[error("key `{key}` stands twice")]
    KeyTwice {
        /// The key.
        key: String,
    },
    /// A tensor that stands twice.
    #[error("tensor `{tensor}` stands twice")]
    TensorTwice {
        /// The tensor.
        tensor: String,
    },
    /// An alignment that is not a power of two and at least 8.
    #[error("the alignment is {found}, not a power of two from 8 to 2^20")]
    Alignment {
        /// The value of `general.alignment`.
        found: String,
    },
    /// A tensor with no or too many sides.
    #[error("tensor `{tensor}` has {found} sides, not 1 to 4")]
    Sides {
        /// The tensor.
        tensor: String,
        /// Its number of sides.
        found: u64,
    },
    /// A tensor of a type that does not exist.
    #[error("tensor `{tensor}` is of the unknown type {id}")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The type's number.
        id: u32,
    },
    /// A tensor whose blocks would span rows, or whose size does not fit 63 bits.
    #[error("tensor `{tensor}` of shape {dims:?}, columns first, cannot be stored as {kind}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its sides, columns first.
        dims: Vec<u64>,
        /// Its type.
        kind: crate::GgmlType,
    },
    /// A tensor that does not begin at a multiple of the alignment.
    #[error("tensor `{tensor}` begins at {offset}, not a multiple of {alignment}")]
    Offset {
        /// The tensor.
        tensor: String,
        /// Its offset.
        offset: u64,
        /// The alignment.
        alignment: u64,
    },
    /// Two tensors that share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// A file of more bytes than can be counted.
    #[error("its tensors add up to 2^63 bytes or more")]
    TooLarge,
}
