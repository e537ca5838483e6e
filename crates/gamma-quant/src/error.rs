//! What can go wrong while a matrix is quantized.

use std::{error::Error, fmt};

use gamma_core::{BitWidth, Format, ModuleName};

use crate::CalibrationNeeds;

/// One of the parts that integer codes are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The codes.
    Codes,
    /// One scale per group.
    Scales,
    /// One zero point per group.
    Zeros,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Codes => "codes",
            Self::Scales => "scales",
            Self::Zeros => "zero points",
        })
    }
}

/// Why a matrix cannot be quantized, or a quantized one not be formed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A bit-width or format that the method does not make.
    #[error("module `{module}`: `{quantizer}` does not make {requested}")]
    Unsupported {
        /// The module.
        module: ModuleName,
        /// The method in words.
        quantizer: String,
        /// The bit-width or format.
        requested: String,
    },
    /// A matrix without weights.
    #[error("module `{module}`: a weight of shape {shape:?} is empty")]
    Empty {
        /// The module.
        module: ModuleName,
        /// `[out_features, in_features]`.
        shape: [usize; 2],
    },
    /// A weight that is NaN or infinite.
    #[error("module `{module}`: the weight in row {row}, column {column} is {value}")]
    NotFinite {
        /// The module.
        module: ModuleName,
        /// Row, counted from 0.
        row: usize,
        /// Column, counted from 0.
        column: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// Weights too far apart for a 16-bit scale.
    #[error(
        "module `{module}`: the scale {scale:e} of row {row}, group {group} is beyond the largest \
         16-bit float, 65504"
    )]
    ScaleOverflow {
        /// The module.
        module: ModuleName,
        /// Row, counted from 0.
        row: usize,
        /// Group within the row, counted from 0.
        group: usize,
        /// The scale that the weights ask for.
        scale: f32,
    },
    /// Statistics that the method needs and did not get.
    #[error("module `{module}`: the {} of its inputs is missing", statistic(*need))]
    MissingStatistics {
        /// The module.
        module: ModuleName,
        /// What is missing.
        need: CalibrationNeeds,
    },
    /// Statistics of another module.
    #[error(
        "module `{module}`: the {} of its {in_features} input channels has the shape {found:?}",
        statistic(*need)
    )]
    StatisticsShape {
        /// The module.
        module: ModuleName,
        /// Which of the statistics.
        need: CalibrationNeeds,
        /// The module's input channels.
        in_features: usize,
        /// Shape of the statistic.
        found: Vec<usize>,
    },
    /// A statistic that is NaN or infinite.
    #[error("module `{module}`: the {} of its inputs holds {value} in channel {channel}", statistic(*need))]
    StatisticsNotFinite {
        /// The module.
        module: ModuleName,
        /// Which of the statistics.
        need: CalibrationNeeds,
        /// Input channel, counted from 0.
        channel: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// Inputs without any signal, from which nothing can be learned.
    #[error("module `{module}`: all of its inputs were zero")]
    NoSignal {
        /// The module.
        module: ModuleName,
    },
    /// A Hessian that no sensible damping makes positive definite.
    #[error(
        "module `{module}`: the Hessian of its inputs is not positive definite at channel {channel}, \
         with {damping} times its mean diagonal added"
    )]
    SingularHessian {
        /// The module.
        module: ModuleName,
        /// Input channel where the factorization stopped, counted from 0.
        channel: usize,
        /// The largest damping tried, as a fraction of the mean diagonal.
        damping: f64,
    },
    /// A failure that only one method knows, with its own error as the source.
    #[error("module `{module}`: the quantizer `{quantizer}` failed")]
    Method {
        /// The module.
        module: ModuleName,
        /// The method's name.
        quantizer: String,
        /// The method's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A code that does not fit its bit-width.
    #[error("module `{module}`: the value {value} among the {stream} does not fit {width} bits")]
    CodeTooWide {
        /// The module.
        module: ModuleName,
        /// Codes or zero points.
        stream: Stream,
        /// The code.
        value: u8,
        /// The bit-width.
        width: BitWidth,
    },
    /// More or less of a stream than the shape asks for.
    #[error("module `{module}`, shape {shape:?}: expected {expected} {unit} of {stream}, found {found}")]
    StreamLength {
        /// The module.
        module: ModuleName,
        /// `[out_features, in_features]`.
        shape: [usize; 2],
        /// Which stream.
        stream: Stream,
        /// `"bytes"` or `"values"`.
        unit: &'static str,
        /// What the shape asks for.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// Bits set behind the last code: the stream was packed in another way.
    #[error("module `{module}`: bits are set behind the end of the {stream}")]
    Padding {
        /// The module.
        module: ModuleName,
        /// Codes or zero points.
        stream: Stream,
    },
    /// A scale that is NaN or infinite.
    #[error("module `{module}`: the scale of row {row}, group {group} is {scale}")]
    ScaleNotFinite {
        /// The module.
        module: ModuleName,
        /// Row, counted from 0.
        row: usize,
        /// Group within the row, counted from 0.
        group: usize,
        /// The scale.
        scale: f32,
    },
    /// A matrix that no machine can hold.
    #[error("module `{module}`: a shape of {shape:?} is too large")]
    TooLarge {
        /// The module.
        module: ModuleName,
        /// `[out_features, in_features]`.
        shape: [usize; 2],
    },
    /// A custom weight under the name of an integer format.
    #[error("module `{module}`: decoded values need a custom format, `{format}` stores integer codes")]
    NotCustom {
        /// The module.
        module: ModuleName,
        /// The format.
        format: Format,
    },
}

fn statistic(need: CalibrationNeeds) -> &'static str {
    match need {
        CalibrationNeeds::Nothing => "token count",
        CalibrationNeeds::SecondMoment => "second moment",
        CalibrationNeeds::Hessian => "Hessian",
        CalibrationNeeds::Samples => "sample",
    }
}

impl QuantizeError {
    /// The module that the error is about.
    #[must_use]
    pub fn module(&self) -> &ModuleName {
        match self {
            Self::Unsupported { module, .. }
            | Self::Empty { module, .. }
            | Self::NotFinite { module, .. }
            | Self::ScaleOverflow { module, .. }
            | Self::MissingStatistics { module, .. }
            | Self::StatisticsShape { module, .. }
            | Self::StatisticsNotFinite { module, .. }
            | Self::NoSignal { module }
            | Self::SingularHessian { module, .. }
            | Self::Method { module, .. }
            | Self::CodeTooWide { module, .. }
            | Self::StreamLength { module, .. }
            | Self::Padding { module, .. }
            | Self::ScaleNotFinite { module, .. }
            | Self::TooLarge { module, .. }
            | Self::NotCustom { module, .. } => module,
        }
    }
}
