//! Why a run fails.

use std::{io, path::PathBuf};

use gamma_core::{Difference, Digest, FileError, Format, ModuleName, PlanError, ScoreTableError};
use gamma_device::DeviceError;
use gamma_export::{ExportError, Target};
use gamma_ggml::GgmlType;
use gamma_ilp::ProjectError;
use gamma_model::ModelError;
use gamma_preference::LearnError;
use gamma_proxy::ProxyError;
use gamma_quant::QuantizeError;
use gamma_refine::{BlendError, RefineError};

/// Why a run fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that was not given and has no default.
    #[error("`{setting}` is not set: {expected}")]
    Missing {
        /// The builder's method.
        setting: &'static str,
        /// What would work.
        expected: &'static str,
    },
    /// A setting out of range.
    #[error("`{setting}` is {found}: {expected}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// The value.
        found: String,
        /// What would work.
        expected: &'static str,
    },
    /// There is no such device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model, its tokenizer or a text.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A quantizer failed.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// Learning failed.
    #[error(transparent)]
    Learn(Box<LearnError<Error>>),
    /// Scoring by a proxy failed.
    #[error(transparent)]
    Proxy(Box<ProxyError<Error>>),
    /// Improving a plan failed.
    #[error(transparent)]
    Refine(Box<RefineError<Error>>),
    /// What was measured around other plans cannot be used.
    #[error(transparent)]
    Context(#[from] BlendError),
    /// A candidate that was not made.
    #[error("module `{module}` was not quantized as `{format}`: it is not among the candidates of this run")]
    Candidate {
        /// The module.
        module: ModuleName,
        /// The format.
        format: Format,
    },
    /// There is no plan.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// Costs are no score table.
    #[error(transparent)]
    Table(#[from] ScoreTableError),
    /// A plan does not fit its score table.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A plan names a module that the model does not have, or leaves one out.
    #[error("the plan and the model differ: module `{module}` is only in the {}", if *.in_plan { "plan" } else { "model" })]
    Modules {
        /// The module.
        module: ModuleName,
        /// Whether it is the plan that has it.
        in_plan: bool,
    },
    /// A matrix of another shape than the model's, in a plan or from a quantizer.
    #[error("module `{module}` has shape {expected:?} in the model, not {found:?}")]
    Shape {
        /// The module.
        module: ModuleName,
        /// In the model.
        expected: [usize; 2],
        /// In the plan, or from the quantizer.
        found: [usize; 2],
    },
    /// A plan was made for other weights.
    #[error("the plan was made for weights with hash {plan}, the model has {model}{}", among(.tensors))]
    OtherWeights {
        /// Hash in the plan.
        plan: Digest,
        /// Hash of the model.
        model: Digest,
        /// The tensors that differ; empty for a plan of a version that did not record them.
        tensors: Vec<Difference>,
    },
    /// Scores that were made from something else than this run.
    #[error("the scores are not those of this run{}", among(.differences))]
    OtherScores {
        /// What differs.
        differences: Vec<Difference>,
    },
    /// There is no state to go on from.
    #[error("`{}` does not exist: there is no interrupted run to go on with", path.display())]
    NoState {
        /// The file.
        path: PathBuf,
    },
    /// A file that holds no state, or a damaged one.
    #[error("`{}` holds no state of a learning run: {what}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The state of another run.
    #[error("`{}` is the state of another run{}", path.display(), among(.differences))]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// Learning does not fit into the memory that it may take.
    #[error(
        "learning takes {needed} bytes at least, {given} were given: {largest} takes {} of them; shorter \
         sequences, smaller batches, fewer candidates or less calibration data take less", .part
    )]
    Memory {
        /// What was given.
        given: u64,
        /// What cannot be put on a disk.
        needed: u64,
        /// The largest part of that.
        largest: &'static str,
        /// Its bytes.
        part: u64,
    },
    /// The model has no folder, because its weights come from the caller.
    #[error("the weights come from no folder, and there is nothing to take {wanted} from")]
    NoFolder {
        /// What was wanted.
        wanted: &'static str,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        #[source]
        source: io::Error,
    },
    /// A module that none of the candidates' blocks divide.
    #[error("no candidate of `{quantizer}` fits module `{module}` of shape {shape:?}")]
    NothingFits {
        /// The module.
        module: ModuleName,
        /// `[out_features, in_features]`.
        shape: [usize; 2],
        /// The quantizer in words.
        quantizer: String,
    },
    /// Modules that have no option for a target.
    #[error(
        "no option of {} fits the target {target}, which holds {}; learn with others (`--quantizer ggml` for \
         gguf, `--symmetric` with a `--group-size` that divides all rows for integers), or exclude these modules",
        list(modules), target.served()
    )]
    NothingServed {
        /// The target.
        target: Target,
        /// The modules.
        modules: Vec<ModuleName>,
    },
    /// A type for a matrix outside of the plan that cannot be.
    #[error("`{module}` cannot be kept as {kind}: {reason}")]
    Keep {
        /// The matrix.
        module: ModuleName,
        /// The type.
        kind: GgmlType,
        /// Why not.
        reason: &'static str,
    },
    /// A plan asks for a format that the quantizer does not make for a matrix of this shape.
    #[error("module `{module}` is planned as `{format}`, which `{quantizer}` does not make")]
    Format {
        /// The module.
        module: ModuleName,
        /// The format in the plan.
        format: Format,
        /// The quantizer in words.
        quantizer: String,
    },
    /// A quantizer that makes another format than it was asked for.
    #[error("module `{module}`: the quantizer made `{found}` instead of `{expected}`")]
    Quantizer {
        /// The module.
        module: ModuleName,
        /// What it was asked for.
        expected: Format,
        /// What it made.
        found: Format,
    },
    /// Writing a checkpoint failed.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        #[source]
        source: io::Error,
    },
    /// A file has the wrong content.
    #[error("`{}` cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FileError,
    },
    /// A file of bit-widths that another tool chose cannot be read.
    #[error("`{}` holds no choices of bit-widths", path.display())]
    Choices {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// A bit-width that is not among the candidates.
    #[error("module `{module}` is wanted in {bits} bits, which is not among the candidates of this run")]
    Width {
        /// The module.
        module: ModuleName,
        /// The width that is wanted.
        bits: u8,
    },
    /// A table of measurements that gamma did not write.
    #[error("line {line} of `{}` is no row of a comparison", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// Two models whose predictions cannot be compared.
    #[error("the model in `{}` predicts {found} tokens, the one it is compared with {expected}", path.display())]
    Vocabulary {
        /// The folder of the other model.
        path: PathBuf,
        /// Tokens that the full-precision model predicts.
        expected: usize,
        /// Tokens that the other one does.
        found: usize,
    },
    /// A file of latencies cannot be used, or lacks an option.
    #[error("{0}")]
    Latency(String),
    /// A picture cannot be drawn.
    #[error("the picture cannot be drawn: {0}")]
    Picture(String),
    /// The progress callback asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// The first differences, and how many there are besides.
fn among(differences: &[Difference]) -> String {
    const SHOWN: usize = 5;
    let mut parts = vec![String::new()];
    parts.extend(differences.iter().take(SHOWN).map(Difference::to_string));
    if differences.len() > SHOWN {
        parts.push(format!("and {} more", differences.len() - SHOWN));
    }
    parts.join("; ")
}

/// The first few names.
fn list(modules: &[ModuleName]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<_> = modules.iter().take(SHOWN).map(|module| format!("`{module}`")).collect();
    let rest = modules.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

impl From<LearnError<Error>> for Error {
    fn from(error: LearnError<Error>) -> Self {
        match error {
            LearnError::Interrupted => Self::Interrupted,
            LearnError::Load { source, .. } => source,
            other => Self::Learn(Box::new(other)),
        }
    }
}

impl From<RefineError<Error>> for Error {
    fn from(error: RefineError<Error>) -> Self {
        match error {
            RefineError::Examine { source, .. } => source,
            other => Self::Refine(Box::new(other)),
        }
    }
}
