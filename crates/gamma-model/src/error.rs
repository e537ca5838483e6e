//! What can be wrong with a checkpoint, a tokenizer or a text.

use std::{io, path::PathBuf};

use gamma_core::ModuleName;

use crate::Products;

/// Why a model or a text cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be opened or read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        #[source]
        source: io::Error,
    },
    /// A file is not the JSON that was expected.
    #[error("`{}` is not a valid {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// The folder holds neither one safetensors file nor an index of shards.
    #[error(
        "`{}` holds no weights: expected `model.safetensors`, or shards with `model.safetensors.index.json`",
        path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A model of another kind.
    #[error("`{}`: architecture {found:?} is not supported; supported are {}", path.display(), supported.join(", "))]
    Architecture {
        /// The configuration file.
        path: PathBuf,
        /// The names it lists.
        found: Vec<String>,
        /// The names that gamma knows.
        supported: Vec<&'static str>,
    },
    /// The device has no such numbers.
    #[error("{device} does not multiply in {}: use f32, or another device", .products.name())]
    Products {
        /// What was asked for.
        products: Products,
        /// The device, as its backend names it.
        device: String,
    },
    /// A setting that changes the arithmetic in a way that is not implemented.
    #[error("`{}`: `{key}` is {found}; {expected}", path.display())]
    Setting {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would work.
        expected: &'static str,
    },
    /// A safetensors file is truncated or malformed.
    #[error("`{}` is not a complete safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor stands in two shards.
    #[error("tensor `{tensor}` stands in both `{}` and `{}`", first.display(), second.display())]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// One of the files.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A tensor that the architecture needs is absent.
    #[error("tensor `{tensor}` is missing from `{}`", path.display())]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The checkpoint folder.
        path: PathBuf,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{tensor}` in `{}`: expected shape {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its file.
        path: PathBuf,
        /// From the configuration.
        expected: Vec<usize>,
        /// From the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that holds no plain floats.
    #[error("tensor `{tensor}` in `{}` is stored as {found}; expected F32, F16 or BF16", path.display())]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its file.
        path: PathBuf,
        /// The type.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{tensor}` in `{}`: value {index} is {value}", path.display())]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Its file.
        path: PathBuf,
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A source of weights that is no checkpoint failed.
    #[error("tensor `{tensor}` cannot be had")]
    Source {
        /// The tensor.
        tensor: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Replacement weights of another shape.
    #[error("module `{module}`: expected a weight of shape {expected:?}, found {found:?}")]
    ModuleShape {
        /// The module.
        module: ModuleName,
        /// The shape in the checkpoint.
        expected: [usize; 2],
        /// The shape offered.
        found: [usize; 2],
    },
    /// The tokenizer file cannot be used.
    #[error("cannot load the tokenizer `{}`", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer library says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text cannot be encoded.
    #[error("the tokenizer refuses the text `{text}`")]
    Encode {
        /// Which text.
        text: String,
        /// What the tokenizer library says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No text was given.
    #[error("the list of text files is empty; name at least one UTF-8 file")]
    NoText,
    /// Not enough text for the sequences asked for.
    #[error(
        "`{text}` gives {found} tokens, but {sequences} sequences of {length} need {}: add about {} bytes \
         of text or ask for at most {} sequences",
        sequences.saturating_mul(*length), missing_bytes, found.checked_div(*length).unwrap_or(0)
    )]
    TooLittleText {
        /// Which text.
        text: String,
        /// Tokens in it.
        found: usize,
        /// Sequences asked for.
        sequences: usize,
        /// Tokens per sequence.
        length: usize,
        /// Estimate of the text that is missing, in bytes.
        missing_bytes: usize,
    },
    /// The tokenizer knows tokens that the model does not.
    #[error("`{text}` has the token {token}, but the model knows only {vocabulary} tokens: wrong tokenizer?")]
    Token {
        /// Which text.
        text: String,
        /// The token.
        token: u32,
        /// The model's vocabulary size.
        vocabulary: usize,
    },
    /// Sequences of no use.
    #[error("sequences of {length} tokens cannot be used: {expected}")]
    Length {
        /// Tokens per sequence.
        length: usize,
        /// What would work.
        expected: String,
    },
    /// The model answered with a number that is not finite.
    #[error("the model gives a loss of {loss} in sequence {sequence}: weights or activations overflow")]
    Overflow {
        /// The sequence, counted from 0.
        sequence: usize,
        /// NaN or an infinity.
        loss: f64,
    },
}
