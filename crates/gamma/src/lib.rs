//! Learns how many bits each module of a language model deserves, and plans for any budget.
//!
//! Use this crate if you have a Hugging Face folder and a size in mind. A run quantizes every
//! linear module at several bit-widths, learns once what each choice costs, and from then on turns
//! any budget into a proven optimal plan in milliseconds.
//!
//! ```no_run
//! use gamma::{Budget, Calibration, Gamma, GroupSize, Quiet, Rtn};
//!
//! let run = Gamma::builder()
//!     .model("path/to/hf-folder")
//!     .calibration(Calibration::text_file("calib.txt").sequences(64).length(256))
//!     .quantizer(Rtn::asymmetric(GroupSize::new(64)?))
//!     .candidates([2, 3, 4, 6, 8])
//!     .build()?; // every setting is checked here
//! let scores = run.learn(&mut Quiet)?;
//! scores.save("scores.json")?;
//! let plan = scores.project(Budget::average_bits(3.0))?;
//! run.apply(&plan)?.save("out/")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A later budget needs neither the model nor calibration data:
//!
//! ```no_run
//! use gamma::{Budget, Scores, report};
//!
//! let scores = Scores::load("scores.json")?;
//! for budget in [Budget::average_bits(2.5), Budget::stored_bits_per_weight(3.2), Budget::bytes(1 << 30)] {
//!     let plan = scores.project(budget)?;
//!     println!("{budget}: {} bytes\n{}", plan.stored_bits() / 8, report::grid(&plan));
//! }
//! # Ok::<(), gamma::Error>(())
//! ```
//!
//! And a plan can be measured, on text that learning has not seen:
//!
//! ```no_run
//! use gamma::{Calibration, Gamma, Plan, Quiet};
//!
//! let run = Gamma::builder().model("path/to/hf-folder").calibration(Calibration::none()).build()?;
//! let jury = run.jury(&["held-out.txt".into()], None, None, &mut Quiet)?;
//! let applied = run.apply(&Plan::load("plan.json")?)?;
//! let measured = jury.evaluate(&applied, &mut Quiet)?;
//! println!("perplexity {:.3}, {:.4} nats from full precision", measured.perplexity(), measured.kl);
//! # Ok::<(), gamma::Error>(())
//! ```
//!
//! # Watching and stopping
//!
//! [`Run::learn`] reports every step to a [`Progress`]: a closure, or [`Quiet`]. Answering
//! [`ControlFlow::Break`](std::ops::ControlFlow::Break) ends the work in [`Error::Interrupted`].
//!
//! A run that takes long keeps its state in a file ([`Run::learn_kept`]): after Ctrl-C, a crash or a
//! kill the same call goes on from there, to the same scores bit for bit.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `flex` | yes | the CPU, in Rust alone, and with it a default device |
//! | `highs` | yes | HiGHS as a second solver, a C++ library |
//! | `wgpu` | | graphics cards through Vulkan, Metal or DirectX |
//! | `vulkan`, `metal` | | the same through this interface alone, with its own shaders |
//! | `cuda` | | NVIDIA cards; the build downloads a compiler |
//! | `rocm` | | AMD cards; the build needs `ROCm` |
//!
//! [`DeviceName`] opens a device by its name, and [`Builder::device`] takes it.

mod applied;
mod bank;
mod builder;
mod calibration;
mod choices;
mod compare;
mod demand;
mod ending;
mod engines;
mod error;
mod examine;
mod experts;
mod filed;
mod judge;
mod keep;
mod latency;
mod learning;
mod network;
mod observe;
mod origin;
mod outside;
mod progress;
mod proxies;
mod refine;
pub mod report;
mod reuse;
mod run;
mod scores;
mod spill;
mod stream;

pub use applied::Applied;
pub use builder::{Builder, Gamma};
pub use calibration::Calibration;
pub use choices::{Choices, ChosenBits};
pub use compare::{Comparison, Row, Strategy, read_csv, to_csv};
pub use demand::{Demand, Share, peak_memory};
pub use error::Error;
pub use judge::{Jury, Protocol};
pub use keep::{Found, StateFile};
pub use latency::LatencyTable;
pub use learning::{Learning, Stability};
pub use observe::FEWEST_TOKENS;
pub use progress::{Event, Progress, Quiet};
pub use refine::{Refined, Refinement};
pub use run::{Run, ScoreSource};
pub use scores::{Plan, Scores};

pub use burn::tensor::Device;
pub use gamma_core::{
    self as core, BitWidth, Budget, Certificate, Choice, Context, Difference, Digest, Footprint, Format,
    GroupSize, ModuleName, ModuleScores, Provenance, Remainder, Routing, ScoreKind, ScoreTable, ScoredOption,
    ScoresFile, SparseExpert, Symmetry,
};
pub use gamma_device::{self as device, DeviceError, DeviceName};
pub use gamma_export::{
    self as export, ExportError, GgufReport, IntegerLayout, Precision, Recipe, Target, Unplanned,
    WrittenFile, write_atomically,
};
pub use gamma_ggml::{self as ggml, Ggml, GgmlType};
pub use gamma_ilp::{
    self as ilp, Change, Engine, Explanation, Frontier, Limits, Pattern, Problem, ProjectError, Rule,
    RuleError, Solver, Ties, Which,
};
pub use gamma_model::{self as model, Config, Evaluation, FloatType, ModelError, Products, Source};
pub use gamma_preference::{
    LearnError, Learned, Normaliser, Objective, Observations, Pressure, Reading, Sampling, Settings, Step,
};
pub use gamma_proxy::{Proxy, ProxyError};
pub use gamma_quant::{self as quant, Awq, Clip, Gptq, Hqq, Quantizer, Rescale, Rtn, Variants};
pub use gamma_refine::{self as refining, Estimate, RefineError};

/// The code of the README is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
