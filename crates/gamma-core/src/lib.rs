//! The vocabulary of bit allocation: what a module is, how a matrix may be stored, what each
//! choice costs, how much may be spent, and what was decided.
//!
//! Use this crate alone if you *read* score tables or plans, for example in an inference engine.
//! It knows no tensor library, no solver, no thread pool and no file system: files are parsed
//! from and written to strings.
//!
//! ```
//! use gamma_core::{BitWidth, Budget, Format, GroupSize, ModuleName, ModuleScores, ScoreTable, ScoredOption};
//!
//! let group = GroupSize::new(64)?;
//! let option = |bits: u8, cost: f64| {
//!     let bits = BitWidth::new(bits).expect("2 to 8");
//!     let format = Format::asymmetric(bits, group);
//!     ScoredOption::new(format.clone(), format.stored_bits([128, 64]).expect("integer format"), cost)
//! };
//! let table = ScoreTable::new(vec![ModuleScores {
//!     name: ModuleName::new("model.layers.0.mlp.up_proj"),
//!     shape: [128, 64],
//!     options: vec![option(2, 0.9), option(4, 0.1)],
//! }])?;
//! // Three bits: as much storage as halfway between the 2-bit and the 4-bit plan.
//! let limit = Budget::average_bits(3.0).limit(&table, None)?;
//! assert_eq!(limit.bits, (table.modules()[0].options[0].stored_bits + table.modules()[0].options[1].stored_bits) / 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bits;
mod budget;
mod digest;
mod file;
mod footprint;
mod format;
mod isotonic;
mod module;
mod plan;
mod provenance;
mod remainder;
mod routing;
mod scores;

pub use bits::{BitWidth, GroupSize, InvalidGroupSize};
pub use budget::{Budget, BudgetError, Limit, Measure};
pub use digest::{Digest, InvalidDigest};
pub use file::{FileError, PlanFile, ScoresFile};
pub use footprint::{Footprint, Part};
pub use format::{Format, InvalidFormat, Streams, Symmetry};
pub use isotonic::non_increasing;
pub use module::ModuleName;
pub use plan::{Certificate, Choice, Plan, PlanError};
pub use provenance::{Difference, Provenance};
pub use remainder::{CacheShape, FixedRole, FixedTensor, GgufMatrix, GgufOption, GgufRemainder, Remainder};
pub use routing::{Routing, SparseExpert};
pub use scores::{Context, ModuleScores, Origin, ScoreKind, ScoreTable, ScoreTableError, ScoredOption};
