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
//! # Two solvers
//!
//! [`Solver::Knapsack`] is written for this problem: a linear relaxation, then dynamic programming
//! over the few modules that it leaves in doubt. A model of some hundred modules takes it about a
//! tenth of a millisecond. [`Solver::Highs`] hands the same integer program to HiGHS, hundreds to
//! thousands of times slower; it is here as an independent check.
//!
//! | | knapsack | HiGHS |
//! |---|---|---|
//! | budget | integers | floating point, then checked in integers |
//! | lowest cost | costs are compared as integers of more than 100 bits | up to 10^-11 of what the plan costs above every module's cheapest option |
//! | equal costs, [`ScoreKind::Loss`] | the plan with fewer stored bits | any of them |
//! | equal costs otherwise | one and the same, by no rule worth a promise | any of them |
//! | same table, budget and limits | same plan, on any machine and any number of threads | the same, if the build of HiGHS is and its time limit is not reached |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `highs` | yes | [`Solver::Highs`], and with it a C++ library |
//!
//! [`Certificate`]: gamma_core::Certificate

mod error;
#[cfg(feature = "highs")]
mod highs;
mod knapsack;
mod limits;
mod window;

use gamma_core::{Budget, Certificate, Plan, ScoreKind, ScoreTable};

pub use error::ProjectError;
pub use limits::{Limits, Solver};
use window::Window;

/// Option indices, one per module, and how much cheaper another plan could be.
struct Answer {
    picks: Vec<usize>,
    gap: f64,
}

/// The cheapest plan of `table` within `budget`.
///
/// With [`ScoreKind::Loss`] a plan may leave a part of the budget unused; of plans of equal cost
/// the one of fewer stored bits is taken.
///
/// With [`ScoreKind::Logits`] a plan must fill the budget, because logits carry a price of storage
/// of their own: it uses at least `limit - delta` bits, where `delta` is the smallest positive
/// difference between the stored bits of two options of one module. Where no plan does, `delta` is
/// doubled until one does. A limit beyond the widest plan counts as the size of that plan. If the
/// solver's limit is reached before it finds a plan or proves that there is none, `delta` is
/// doubled too.
///
/// The [certificate](gamma_core::Certificate) tells what was proven: no plan within the budget
/// (that fills it, for logits) costs less than `bound`. Costs are compared without rounding, but the
/// `cost` of the plan is a sum of `f64` in module order; `bound` equals it where another plan could
/// be cheaper by no more than the rounding of that sum.
///
/// # Errors
/// [`ProjectError::Budget`] if no plan fits. The other variants concern [`Solver::Highs`] alone.
pub fn project(
    table: &ScoreTable,
    kind: ScoreKind,
    budget: Budget,
    limits: &Limits,
) -> Result<Plan, ProjectError> {
    let limit_bits = budget.limit_bits(table)?;
    let (answer, window) = best(table, kind, limit_bits, limits)?;
    Ok(certified(table, &answer, window, limit_bits, limits.solver))
}

/// The answer, and the window in which it is the best.
fn best(
    table: &ScoreTable,
    kind: ScoreKind,
    limit_bits: u64,
    limits: &Limits,
) -> Result<(Answer, Window), ProjectError> {
    if kind == ScoreKind::Logits {
        for window in window::filling(table, limit_bits) {
            if let Some(answer) = solve(table, window, limits)? {
                return Ok((answer, window));
            }
        }
    }
    let window = Window::up_to(limit_bits);
    let answer = solve(table, window, limits)?.expect("the narrowest plan is within the budget");
    Ok((answer, window))
}

fn solve(table: &ScoreTable, window: Window, limits: &Limits) -> Result<Option<Answer>, ProjectError> {
    match limits.solver {
        Solver::Auto | Solver::Knapsack => Ok(knapsack::solve(table, window, limits)),
        #[cfg(feature = "highs")]
        Solver::Highs => highs::solve(table, window, limits),
        #[cfg(not(feature = "highs"))]
        Solver::Highs => Err(ProjectError::NoHighs),
    }
}

fn stored_bits(table: &ScoreTable, picks: &[usize]) -> u64 {
    picks.iter().zip(table.modules()).map(|(&pick, module)| module.options[pick].stored_bits).sum()
}

fn certified(table: &ScoreTable, answer: &Answer, window: Window, limit_bits: u64, solver: Solver) -> Plan {
    let chosen = || answer.picks.iter().zip(table.modules()).map(|(&pick, module)| &module.options[pick]);
    let used_bits = stored_bits(table, &answer.picks);
    assert!(window.contains(used_bits), "a plan of {used_bits} bits is outside {window:?}");
    let cost: f64 = chosen().map(|option| option.cost).sum();
    let rounding = f64::EPSILON * chosen().map(|option| option.cost.abs()).sum::<f64>();
    let bound = if answer.gap > rounding { (cost - answer.gap).next_down() } else { cost };
    let solver = if solver == Solver::Highs { "highs" } else { "knapsack" }.to_owned();
    let certificate = Certificate { solver, cost, bound, limit_bits, used_bits };
    Plan::from_picks(table, &answer.picks, Some(certificate)).expect("one option of each module is picked")
}
