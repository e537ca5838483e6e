//! Chooses exactly one option per module within a storage budget, at the lowest total cost.
//!
//! Use this crate if you have a [`ScoreTable`], measured or learned by whatever means, and want the
//! best plan for a budget. It knows nothing of models and tensors. The problem is a multiple-choice
//! knapsack; [`project`] solves it exactly, and the plan's [`Certificate`] says so.
//!
//! ```
//! use gamma_core::{
//!     BitWidth, Budget, Format, GroupSize, ModuleName, ModuleScores, ScoreKind, ScoreTable, ScoredOption,
//! };
//! use gamma_ilp::{Limits, project};
//!
//! let module = |name: &str, damage: [f64; 3]| {
//!     let option = |(bits, cost)| {
//!         let format = Format::asymmetric(bits, GroupSize::G128);
//!         ScoredOption::new(format.clone(), format.stored_bits([256, 256]).expect("integer format"), cost)
//!     };
//!     let widths = [BitWidth::B2, BitWidth::B3, BitWidth::B4];
//!     let options = widths.into_iter().zip(damage).map(option).collect();
//!     ModuleScores { name: ModuleName::new(name), shape: [256, 256], options }
//! };
//! let table = ScoreTable::new(vec![
//!     module("model.layers.0.mlp.up_proj", [0.9, 0.2, 0.1]),
//!     module("model.layers.0.mlp.down_proj", [4.0, 1.0, 0.3]),
//!     module("model.layers.1.mlp.up_proj", [0.5, 0.2, 0.1]),
//! ])?;
//!
//! // As much storage as 3 bits everywhere, spent where it helps most.
//! let plan = project(&table, ScoreKind::Loss, Budget::average_bits(3.0), &Limits::default())?;
//! let bits: Vec<u8> = plan.choices().iter().map(|choice| choice.format.bits().bits()).collect();
//! assert_eq!(bits, [3, 4, 2]);
//! assert_eq!(plan.certificate().map(|proof| proof.gap()), Some(0.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Constraints
//!
//! [`Problem`] adds what engines and users ask for: modules that share a format, pins and ranges by
//! pattern, exclusions, counts, several budgets at once, any linear constraint, nearness to an older
//! plan. It also gives the [`top`](Problem::top) plans, the whole [`frontier`](Problem::frontier) of
//! cost against size, and [explains](Problem::explain) a choice. A search that measures plans moves
//! through the [`Space`] of a problem. Where no plan fits, the error
//! states the smallest budget that would do and which constraints hold it there.
//!
//! # Two solvers
//!
//! [`Solver::Knapsack`] is written for this problem: a linear relaxation, then dynamic programming
//! over the few modules that it leaves in doubt. A model of some hundred modules takes it about a
//! tenth of a millisecond. [`Solver::Highs`] hands the same integer program to HiGHS, a hundred
//! times slower and more; it solves what is no knapsack, and checks the other one.
//!
//! | | knapsack | HiGHS |
//! |---|---|---|
//! | budget | integers | floating point, then checked in integers |
//! | constraints that join modules | only if its plan obeys them anyway | all |
//! | lowest cost | costs are compared as integers of more than 100 bits | up to 10^-11 of what the plan costs above every module's cheapest option |
//! | equal costs, [`ScoreKind::Loss`] | the plan with fewer bits | any of them |
//! | equal costs otherwise | the one met first: modules nearest to the relaxation first, then in the order of the table, narrow options first | any of them |
//! | same table, constraints and limits | same plan, on any machine and any number of threads | the same, if the build of HiGHS is and its time limit is not reached |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `highs` | yes | [`Solver::Highs`], and with it a C++ library |
//!
//! [`Certificate`]: gamma_core::Certificate

mod error;
mod explain;
mod frontier;
#[cfg(feature = "highs")]
mod highs;
mod infeasible;
mod instance;
mod knapsack;
mod limits;
mod problem;
mod program;
mod row;
mod rules;
mod solve;
mod space;
mod top;
mod window;

use gamma_core::{Budget, Plan, ScoreKind, ScoreTable};

pub use error::{Held, ProjectError};
pub use explain::{Alternative, Explanation, Forced};
pub use frontier::{Frontier, FrontierPoint, FrontierStep};
use instance::Instance;
pub use limits::{Limits, Solver};
pub use problem::{Change, Problem};
pub use rules::{Engine, Pattern, Rule, RuleError, Ties, Which};
pub use space::Space;
use window::Window;

/// The cheapest plan of `table` within `budget`: [`Problem::solve`] without further constraints.
///
/// # Errors
/// [`ProjectError::Budget`] and [`ProjectError::BelowMinimum`] if no plan fits. Other variants
/// concern [`Solver::Highs`] alone.
pub fn project(
    table: &ScoreTable,
    kind: ScoreKind,
    budget: Budget,
    limits: &Limits,
) -> Result<Plan, ProjectError> {
    Problem::new(table, kind, budget).solve(limits)
}
