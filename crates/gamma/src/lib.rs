//! wip

mod applied;
mod bank;
mod builder;
mod calibration;
mod error;
mod judge;
mod network;
mod progress;
pub mod report;
mod run;
mod scores;

pub use applied::Applied;
pub use builder::{Builder, Gamma};
pub use calibration::Calibration;
pub use error::Error;
pub use judge::Jury;
pub use progress::{Event, Progress, Quiet};
pub use run::{Run, ScoreSource};
pub use scores::{Plan, Scores};

pub use burn::tensor::Device;
pub use gamma_core::{BitWidth, Budget, Certificate, Choice, Format, GroupSize, ModuleName, ScoreTable, Symmetry};
pub use gamma_export::{Precision, WrittenFile, write_atomically};
pub use gamma_ilp::{Limits, Solver};
pub use gamma_model::{Config, Evaluation};
pub use gamma_preference::{Pressure, Sampling, Settings};
pub use gamma_quant::{self as quant, Quantizer, Rtn};
