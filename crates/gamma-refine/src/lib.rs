//! Improves a plan by measurement, and searches for plans by measurement alone.
//!
//! Use this crate if you have a [`Problem`] and something that can measure what a plan does to a
//! model, an [`Examiner`]. A solver finds the best plan *by the scores*; scores are costs of single
//! modules, and below 3 bits what modules do together is far more than the sum. This crate asks the
//! model itself. It knows nothing of models, tensors and files.
//!
//! | function | does | needs | costs |
//! |---|---|---|---|
//! | [`recentre`] | measures every single move around a plan and solves again | a plan, scores | some measurements per module and round |
//! | [`polish`] | tries swaps, best promise first, keeps what helps | a plan, scores | as many as you have time for |
//! | [`evolve`] | evolutionary search, a baseline | a plan | thousands |
//! | [`best_of_random`] | the best of random plans, a baseline | nothing | one per plan |
//! | [`choose`] | the best of several plans | plans | one per plan |
//!
//! ```
//! use std::{convert::Infallible, ops::{ControlFlow, Range}};
//!
//! use gamma_core::{BitWidth, Budget, Format, GroupSize, ModuleName, ModuleScores, Plan, ScoreKind, ScoreTable, ScoredOption};
//! use gamma_ilp::{Limits, Problem};
//! use gamma_refine::{Examiner, PolishSettings, RecentreSettings, Split, Step, choose, polish, recentre};
//!
//! /// A model of a formula: the down projections do more harm together than one by one.
//! struct Formula;
//!
//! impl Examiner for Formula {
//!     type Error = Infallible;
//!
//!     fn windows(&self) -> usize {
//!         8
//!     }
//!
//!     fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Infallible> {
//!         let error = |name: &str| -> f64 {
//!             let own = plan.choices().iter().filter(|choice| choice.name.role() == name);
//!             own.map(|choice| 4_f64.powi(-i32::from(choice.format.bits().bits()))).sum()
//!         };
//!         let mean = error("up_proj") + error("down_proj") + 400.0 * error("down_proj").powi(2);
//!         Ok(windows.map(|window| mean * (1.0 + 0.1 * (window % 3) as f64)).collect())
//!     }
//! }
//!
//! // Scores that were measured one module at a time see no difference between the modules.
//! let module = |name: &str| {
//!     let options = [BitWidth::B2, BitWidth::B3, BitWidth::B4].map(|bits| {
//!         let format = Format::asymmetric(bits, GroupSize::G128);
//!         let stored = format.stored_bits([256, 256]).expect("integer format");
//!         ScoredOption::new(format, stored, 4_f64.powi(-i32::from(bits.bits())))
//!     });
//!     ModuleScores { name: ModuleName::new(name), shape: [256, 256], options: options.to_vec() }
//! };
//! let names = ["0.up_proj", "0.down_proj", "1.up_proj", "1.down_proj"];
//! let table = ScoreTable::new(names.map(|name| module(&format!("model.layers.{name}"))).to_vec())?;
//! let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0));
//! let solved = problem.solve(&Limits::default())?;
//!
//! let split = Split::halves(8)?;
//! let mut watch = |_: &Step| ControlFlow::Continue(());
//! let recentred =
//!     recentre(&mut Formula, &split, &problem, &solved, &RecentreSettings::default(), &mut watch)?;
//! let polished =
//!     polish(&mut Formula, &split, &problem, &recentred.plan, &PolishSettings::default(), &mut watch)?;
//! let bits: Vec<u8> = polished.plan.choices().iter().map(|choice| choice.format.bits().bits()).collect();
//! assert_eq!(bits, [2, 4, 2, 4]);
//!
//! // Whatever the scores are worth: never worse than uniform.
//! let uniform = Plan::uniform(&table, BitWidth::B3)?;
//! let choice =
//!     choose(&mut Formula, &split, &[("uniform", &uniform), ("polished", &polished.plan)], &mut watch)?;
//! assert_eq!(choice.name(), "polished");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What leads and what decides
//!
//! A [`Split`] sets two parts of the text apart. On the *probe* moves are measured and plans are
//! ordered; on the *gate* a plan is measured only to be kept or not, against the plan it would
//! replace, window by window. Neither should be the text that the result is reported on.
//!
//! # Time
//!
//! Every search can be stopped at any time by its [`Progress`], and then returns the best plan so
//! far, with [`Status::Stopped`]; [`Within`] does so by a clock.
//!
//! # Promises
//!
//! The answer of a search is a plan that the problem admits: budget, ties, pins and limits hold.
//! Where the search has a plan to start from, the answer is never worse than that on the gate.
//!
//! # Determinism
//!
//! With the same examiner, problem and settings, a search measures the same plans in the same order
//! and returns the same one, on any machine; the seeds are settings.
//!
//! [`Problem`]: gamma_ilp::Problem

mod best_of_random;
mod choose;
mod context;
mod error;
mod estimate;
mod evolve;
mod examiner;
mod polish;
mod progress;
mod recentre;
mod report;
mod session;
mod split;
mod walk;

pub use best_of_random::{RandomSettings, best_of_random};
pub use choose::{Candidate, Choice, choose};
pub use context::{BlendError, CONTEXT_REACH, blend};
pub use error::RefineError;
pub use estimate::Estimate;
pub use evolve::{EvolveSettings, Stage, evolve};
pub use examiner::Examiner;
pub use polish::{PolishSettings, polish};
pub use progress::{Method, Progress, Step, Within};
pub use recentre::{RecentreSettings, Recentred, Round, recentre};
pub use report::{Measured, Outcome, Report, Spent, Status};
pub use split::{Split, SplitError};
