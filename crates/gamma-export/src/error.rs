//! Why nothing was written, or a file cannot be read.

use std::{io, path::PathBuf};

use gamma_core::{Format, ModuleName};
use gamma_ggml::{CodecError, GgufError};
use gamma_quant::QuantizeError;
use safetensors::SafeTensorError;

use crate::unserved::{Unserved, list};

/// Why an export failed, or a packed file is refused. A failed export leaves no output behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// No part was asked for.
    #[error("nothing to export: neither a checkpoint nor a packed file nor another file was asked for")]
    NothingToWrite,
    /// The plan names a module whose weights were not handed over.
    #[error("module `{module}` is in the plan, but its quantized weights are missing")]
    MissingWeights {
        /// The module.
        module: ModuleName,
    },
    /// Weights of a module that the plan does not name.
    #[error("module `{module}` has quantized weights, but is not in the plan")]
    NotInPlan {
        /// The module.
        module: ModuleName,
    },
    /// Weights of another shape than the plan says.
    #[error("module `{module}`: the plan says shape {expected:?}, the quantized weights have {found:?}")]
    Shape {
        /// The module.
        module: ModuleName,
        /// `[out_features, in_features]` in the plan.
        expected: [usize; 2],
        /// Shape of the weights.
        found: [usize; 2],
    },
    /// Weights in another format than the plan says.
    #[error("module `{module}`: the plan says `{expected}`, the quantized weights are `{found}`")]
    Format {
        /// The module.
        module: ModuleName,
        /// The format in the plan.
        expected: Format,
        /// The format of the weights.
        found: Format,
    },
    /// Weights of another size than the plan counted.
    #[error("module `{module}`: the plan counts {expected} stored bits, the quantized weights take {found}")]
    StoredBits {
        /// The module.
        module: ModuleName,
        /// Bits in the plan.
        expected: u64,
        /// Bits of the weights.
        found: u64,
    },
    /// A code that packed files cannot hold.
    #[error("module `{module}`: packed files hold integer codes, not `{format}`")]
    CustomFormat {
        /// The module.
        module: ModuleName,
        /// The format.
        format: Format,
    },
    /// Modules in formats that the target does not hold; found before anything is quantized.
    #[error("{target} holds {served}; it does not hold {}", list(modules))]
    Unserved {
        /// What was to be written.
        target: &'static str,
        /// What it holds.
        served: &'static str,
        /// All modules that it does not hold.
        modules: Vec<Unserved>,
    },
    /// Different formats in modules that engines join into one matrix.
    #[error(
        "engines join these modules of `{parent}` into one matrix, so that they must share a format: {parts}; \
         tie them in the plan"
    )]
    Untied {
        /// The module that holds them.
        parent: String,
        /// Their formats, in words.
        parts: String,
    },
    /// A matrix whose quantizer has kept its values but not its bytes.
    #[error("module `{module}`: the quantizer has not kept the bytes of `{format}`")]
    NoBytes {
        /// The module.
        module: ModuleName,
        /// Its format.
        format: Format,
    },
    /// A type for a tensor whose format the plan decides.
    #[error("tensor `{tensor}` is in the plan, and a type was given for it besides")]
    PlannedAndKept {
        /// The tensor.
        tensor: String,
    },
    /// A model of another kind.
    #[error(
        "`{}`: models of the type `{found}` cannot be described; llama, mistral without a window, qwen2 and \
         qwen3 can",
        path.display()
    )]
    Architecture {
        /// The configuration.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
    },
    /// Experts for a target that holds those of a block stacked in one tensor.
    #[error(
        "{target}: engines read the experts of a block stacked in one tensor, which is not implemented, and \
         `{module}` is one expert's; dequantized checkpoints and packed files hold experts one by one"
    )]
    Experts {
        /// What was to be written.
        target: &'static str,
        /// The first module of an expert.
        module: ModuleName,
    },
    /// A setting that is missing, or has no meaning for the target.
    #[error("`{}`: `{key}` is missing or cannot be used", path.display())]
    ConfigKey {
        /// The configuration.
        path: PathBuf,
        /// The setting.
        key: String,
    },
    /// A tokenizer that the target cannot describe.
    #[error("`{}`: {what}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        what: String,
    },
    /// A tensor for which GGUF has no name.
    #[error("GGUF files have no name for the tensor `{tensor}`")]
    NoGgufName {
        /// The tensor.
        tensor: String,
    },
    /// One of several files that belong together.
    #[error("`{}` is one of {count} parts; join them first, as `llama-gguf-split --merge` does", path.display())]
    SplitGguf {
        /// The file.
        path: PathBuf,
        /// How many parts there are.
        count: u64,
    },
    /// Importances that do not fit.
    #[error("module `{module}`: there must be {channels} second moments, none negative, not all zero")]
    Moments {
        /// The module.
        module: ModuleName,
        /// Its input channels.
        channels: usize,
    },
    /// A GGUF file that cannot be read or written.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Weights that cannot be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Weights of one tensor that cannot be encoded or decoded.
    #[error("tensor `{tensor}`")]
    GgufTensor {
        /// The tensor.
        tensor: String,
        /// Why not.
        #[source]
        source: CodecError,
    },
    /// A written file that reads back otherwise; it was removed.
    #[error("`{}` was written, but differs when it is read again: {what}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A file that exists already.
    #[error("`{}` exists and overwriting was not asked for", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A folder without weights.
    #[error(
        "`{}` holds no weights: expected `model.safetensors`, or shards with `model.safetensors.index.json`",
        path.display()
    )]
    NoCheckpoint {
        /// The folder.
        path: PathBuf,
    },
    /// A shard outside of the checkpoint's folder.
    #[error("`{}` names the shard `{shard}`, which is not the name of a file", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The shard.
        shard: String,
    },
    /// A tensor that should be there.
    #[error("`{}` has no tensor `{tensor}`", path.display())]
    UnknownTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape.
    #[error("`{}`: expected tensor `{tensor}` of shape {expected:?}, found {found:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that belongs there.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of another type.
    #[error("`{}`: expected tensor `{tensor}` of type {expected}, found {found}", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The types that can stand there.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// A packed file without the key that describes it.
    #[error("`{}` is not a packed file of gamma", path.display())]
    NotPacked {
        /// The file.
        path: PathBuf,
    },
    /// A packed file of another version.
    #[error("`{}` is of format `{found}`, this version of gamma reads `{expected}`", path.display())]
    PackedVersion {
        /// The file.
        path: PathBuf,
        /// The version that can be read.
        expected: &'static str,
        /// What the file says it is.
        found: String,
    },
    /// A packed file whose module breaks a promise.
    #[error("cannot use a module of `{}`", path.display())]
    PackedModule {
        /// The file.
        path: PathBuf,
        /// What is wrong with which module.
        #[source]
        source: QuantizeError,
    },
    /// A packed file with a module in a format that packed files do not hold.
    #[error("`{}`: module `{module}` cannot be stored as `{format}`", path.display())]
    PackedFormat {
        /// The file.
        path: PathBuf,
        /// The module.
        module: ModuleName,
        /// The format in the file.
        format: Format,
    },
    /// A packed file with a tensor that belongs to no module.
    #[error("`{}`: the tensor `{tensor}` belongs to no module", path.display())]
    StrayTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A file that is not valid safetensors, such as a truncated one.
    #[error("`{}` is not a complete safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        #[source]
        source: SafeTensorError,
    },
    /// A file that is not the JSON that was expected.
    #[error("`{}` is not valid JSON for its purpose", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// A file or folder that cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file or folder that cannot be written; a full disk is reported here.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The path that was asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file in the place of the folder.
    #[error("`{}` is not a folder", path.display())]
    NotAFolder {
        /// The target.
        path: PathBuf,
    },
    /// A folder or device in the place of the file.
    #[error("`{}` is not a plain file", path.display())]
    NotAFile {
        /// The target.
        path: PathBuf,
    },
    /// A path that cannot be replaced, such as `/`.
    #[error("`{}` has no name of its own to write to", path.display())]
    NoName {
        /// The target.
        path: PathBuf,
    },
    /// A folder that holds something already.
    #[error("the folder `{}` is not empty and overwriting was not asked for", path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// A folder that no export has written.
    #[error(
        "will not overwrite `{}`: it holds the folder `{folder}`, and an export holds files alone",
        path.display()
    )]
    HoldsFolders {
        /// The target.
        path: PathBuf,
        /// One of the folders in it.
        folder: String,
    },
    /// The source would be overwritten by its own copy.
    #[error("the target `{}` is or contains the source `{}`", target.display(), path.display())]
    TargetHoldsSource {
        /// The target.
        target: PathBuf,
        /// The source.
        path: PathBuf,
    },
    /// An added file whose name is a path.
    #[error("`{name}` is not the name of a file in the export")]
    FileName {
        /// The name.
        name: String,
    },
    /// Two parts of the export under one name.
    #[error("two files of the export would have the name `{name}`")]
    FileTwice {
        /// The name.
        name: String,
    },
    /// The replaced folder could be put neither aside nor back.
    #[error("cannot write `{}`; what it held before is in `{}`", path.display(), kept.display())]
    NotRestored {
        /// The target.
        path: PathBuf,
        /// Where its former content is.
        kept: PathBuf,
        /// Why it could not be put back.
        #[source]
        source: io::Error,
    },
    /// The export is complete, but the folder that it replaced could not be removed.
    #[error("`{}` is written, but what it replaced could not be removed", path.display())]
    LeftBehind {
        /// The target.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
