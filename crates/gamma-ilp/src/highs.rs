//! The projection as a mixed-integer program for HiGHS.
//!
//! ```text
//! minimise   sum of cost[m][k] * x[m][k]                            x[m][k] is 0 or 1
//! such that  sum over k of x[m][k] = 1                              for every module m
//!            floor <= sum of size[m][k] * x[m][k] <= ceiling
//! ```
//!
//! HiGHS computes in `f64` with absolute tolerances, so both rows of numbers are brought to where
//! the tolerances do no harm. Sizes are counted above the narrowest plan in units of their greatest
//! common divisor and multiplied by a power of two that brings the ceiling near 2^20: all of them
//! and all their sums are exact, and one unit is far above the tolerance. Costs are counted above
//! the cheapest option of each module and multiplied by a power of two that brings a known plan to
//! about 1000; options that cost more than that whole plan are left out.

use gamma_core::{ModuleScores, ScoreTable};
use highs::{HighsModelStatus, HighsSolutionStatus, Model, RowProblem, Sense, SolvedModel};

use crate::{Answer, Limits, ProjectError, Window, knapsack, stored_bits};

/// For integrality, rows and reduced costs, and the margin by which HiGHS cuts off what is no
/// better; its smallest choice is 1e-10.
const TOLERANCE: f64 = 1e-9;
/// More units than this do not stand out from the tolerance.
const MOST_UNITS: u64 = 1 << 47;
const CEILING_EXPONENT: i32 = 20;
const COST_EXPONENT: i32 = 10;

/// The cheapest plan within `window`, or `None` where there is none.
///
/// Cheapest up to [`TOLERANCE`] in the scaled costs, which the gap of the answer includes.
pub(crate) fn solve(
    table: &ScoreTable,
    window: Window,
    limits: &Limits,
) -> Result<Option<Answer>, ProjectError> {
    // A plan of any quality: for the scale of the costs, and should HiGHS run out of time.
    let first = knapsack::solve(table, window, &limits.max_states(0));
    let sizes = Sizes::new(table, window)?;
    if sizes.floor > sizes.ceiling {
        return Ok(None);
    }
    let costs = Costs::new(table, first.as_ref().map(|answer| answer.picks.as_slice()));
    let solved = configured(model(table, &sizes, &costs)?, limits)?.try_solve().map_err(refused)?;
    let stopped = match solved.status() {
        // With a plan at hand this would be an error of HiGHS.
        HighsModelStatus::Infeasible if first.is_none() => return Ok(None),
        HighsModelStatus::Optimal => false,
        HighsModelStatus::ReachedTimeLimit => true,
        status => return Err(refused(status)),
    };
    if solved.primal_solution_status() != HighsSolutionStatus::Feasible {
        return if stopped { Ok(first) } else { Err(unusable("it claims to be optimal without a plan")) };
    }
    let picks = picks(table, &solved)?;
    let used = stored_bits(table, &picks);
    if !window.contains(used) {
        return Err(unusable(&format!(
            "a plan of {used} bits, outside of {} to {}",
            window.floor, window.ceiling
        )));
    }
    let bound = solved.double_info_value(c"mip_dual_bound").map_err(refused)?;
    let gap = (solved.objective_value() - bound).max(0.0) + TOLERANCE;
    Ok(Some(Answer { picks, gap: if costs.most > 0.0 { gap / costs.scale } else { 0.0 } }))
}

/// Sizes above the narrowest plan, in units.
struct Sizes {
    unit: u64,
    floor: u64,
    ceiling: u64,
    scale: f64,
}

impl Sizes {
    fn new(table: &ScoreTable, window: Window) -> Result<Self, ProjectError> {
        let widths = table.modules().iter().flat_map(|m| (0..m.options.len()).map(|pick| above(m, pick)));
        let unit = widths.fold(0, gcd).max(1);
        let minimum = table.minimum_bits();
        let widest: u64 = table.modules().iter().map(|m| above(m, m.options.len() - 1)).sum();
        let ceiling = (window.ceiling - minimum).min(widest) / unit;
        let floor = window.floor.saturating_sub(minimum).div_ceil(unit);
        if widest / unit > MOST_UNITS {
            return Err(ProjectError::TooFine { units: widest / unit, most: MOST_UNITS });
        }
        let bits = u64::BITS - ceiling.leading_zeros();
        Ok(Self { unit, floor, ceiling, scale: 2_f64.powi(CEILING_EXPONENT - bits.cast_signed()) })
    }

    fn scaled(&self, units: u64) -> f64 {
        units as f64 * self.scale
    }
}

/// Costs above the cheapest option of each module.
struct Costs {
    scale: f64,
    /// An option that costs more is in no plan that beats the known one.
    most: f64,
}

impl Costs {
    fn new(table: &ScoreTable, known: Option<&[usize]>) -> Self {
        let modules = table.modules().iter();
        let most: f64 = match known {
            // Twice, because the sum is rounded.
            Some(known) => 2.0 * modules.zip(known).map(|(m, &pick)| excess(m, pick)).sum::<f64>(),
            None => modules.map(|m| (0..m.options.len()).map(|k| excess(m, k)).fold(0.0, f64::max)).sum(),
        };
        let scale = match most {
            0.0 => 1.0,
            // The exponent stays where neither the scale nor its inverse overflows.
            _ => 2_f64.powi((COST_EXPONENT - most.log2().ceil() as i32).clamp(-1000, 1000)),
        };
        Self { scale, most: most.min(f64::MAX) }
    }
}

fn above(module: &ModuleScores, pick: usize) -> u64 {
    module.options[pick].stored_bits - module.options[0].stored_bits
}

fn excess(module: &ModuleScores, pick: usize) -> f64 {
    let least = module.options.iter().map(|option| option.cost).fold(f64::INFINITY, f64::min);
    module.options[pick].cost - least
}

fn model(table: &ScoreTable, sizes: &Sizes, costs: &Costs) -> Result<Model, ProjectError> {
    let mut problem = RowProblem::new();
    let mut budget = Vec::new();
    for module in table.modules() {
        let mut one = Vec::with_capacity(module.options.len());
        for pick in 0..module.options.len() {
            let cost = excess(module, pick);
            let (cost, most) = if cost > costs.most { (0.0, 0.0) } else { (cost * costs.scale, 1.0) };
            let column = problem.add_integer_column(cost, 0.0..=most);
            one.push((column, 1.0));
            budget.push((column, sizes.scaled(above(module, pick) / sizes.unit)));
        }
        problem.add_row(1.0..=1.0, one);
    }
    problem.add_row(sizes.scaled(sizes.floor)..=sizes.scaled(sizes.ceiling), budget);
    problem.try_optimise(Sense::Minimise).map_err(refused)
}

fn configured(mut model: Model, limits: &Limits) -> Result<Model, ProjectError> {
    model.make_quiet();
    let numbers = [
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", 0.0),
        ("mip_feasibility_tolerance", TOLERANCE),
        ("primal_feasibility_tolerance", TOLERANCE),
        ("dual_feasibility_tolerance", TOLERANCE),
        ("time_limit", limits.time_limit.as_secs_f64()),
    ];
    for (option, value) in numbers {
        model.try_set_option(option, value).map_err(refused)?;
    }
    for (option, value) in [("threads", 1), ("random_seed", 0)] {
        model.try_set_option(option, value).map_err(refused)?;
    }
    Ok(model)
}

fn picks(table: &ScoreTable, solved: &SolvedModel) -> Result<Vec<usize>, ProjectError> {
    let solution = solved.get_solution();
    let mut columns = solution.columns();
    let mut picks = Vec::with_capacity(table.modules().len());
    for module in table.modules() {
        let (own, rest) = columns.split_at(module.options.len());
        picks.push(own.iter().position(|&x| x > 0.5).ok_or_else(|| unusable("a module without an option"))?);
        columns = rest;
    }
    Ok(picks)
}

/// HiGHS's word for why there is no plan.
fn refused(status: impl std::fmt::Debug) -> ProjectError {
    ProjectError::Highs { status: format!("{status:?}") }
}

fn unusable(what: &str) -> ProjectError {
    ProjectError::Highs { status: what.to_owned() }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
