//! The projection as a mixed-integer program for HiGHS.
//!
//! ```text
//! minimise   sum of cost[g][i] * x[g][i]                            x[g][i] is 0 or 1
//! such that  sum over i of x[g][i] = 1                              for every group g
//!            floor <= sum of size[g][i] * x[g][i] <= ceiling
//!            lower <= sum of a[g][i] * x[g][i] <= upper             for every further row
//!            sum over i of format f of x[g][i] <= y[f]              for every group g and format f,
//!            sum of y[f] <= n                                       where formats are counted
//! ```
//!
//! HiGHS computes in `f64` with absolute tolerances, so all rows of numbers are brought to where
//! the tolerances do no harm: one unit must stand out from the tolerance, and the tolerance from the
//! rounding of sums, or HiGHS discards plans in silence. Sizes are counted above the narrowest plan in
//! units of their greatest common divisor and multiplied by a power of two that makes a unit about
//! 10^-6, where the ceiling permits; all of them and all their sums are exact. Further rows are
//! multiplied likewise. Costs are counted above the cheapest item of each group and multiplied by a
//! power of two that brings a known plan to about 1000; items that cost more than that whole plan
//! are left out. Where no plan is known beforehand, a first solution at a coarser scale gives one.

use highs::{Col, HighsModelStatus, HighsSolutionStatus, Model, RowProblem, Sense, SolvedModel};

use crate::{
    Instance, Limits, ProjectError, Window, knapsack,
    row::{Distinct, Joints},
    solve::Answer,
};

/// For integrality, rows and reduced costs, and the margin by which HiGHS cuts off what is no
/// better; its smallest choice is 1e-10.
const TOLERANCE: f64 = 1e-9;
/// More units than this do not stand out from the tolerance.
const MOST_UNITS: u64 = 1 << 47;
/// A unit of size is no smaller than this power of two, unless the ceiling would exceed the next one.
const UNIT_EXPONENT: i32 = -20;
const CEILING_EXPONENT: i32 = 20;
/// For the largest coefficient of a row.
const ROW_EXPONENT: i32 = 10;
const COST_EXPONENT: i32 = 10;
/// A scale of costs that is this much too coarse is worth another solution.
const COARSE: f64 = 64.0;

/// An instance and what joins its groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct General<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) window: Window,
    pub(crate) joints: &'a Joints,
}

/// The cheapest plan, or `None` where there is none.
///
/// Cheapest up to [`TOLERANCE`] in the scaled costs, which the gap of the answer includes.
pub(crate) fn solve(general: &General<'_>, limits: &Limits) -> Result<Option<Answer>, ProjectError> {
    let &General { instance, window, .. } = general;
    if window.ceiling < instance.narrowest() {
        return Ok(None);
    }
    let sizes = Sizes::new(instance, window)?;
    if sizes.floor > sizes.ceiling || general.joints.rows.iter().any(|row| row.is_out_of_reach(instance)) {
        return Ok(None);
    }
    // A plan of any quality: for the scale of the costs, as a start, and should time run out.
    let first = knapsack::solve(instance, window, &limits.max_states(0));
    let first = first.filter(|answer| general.joints.hold(instance, &answer.picks));
    let costs = Costs::new(instance, first.as_ref().map(|answer| answer.picks.as_slice()));
    let found = general.attempt(&sizes, &costs, first.as_ref(), limits)?;
    match &found {
        // The first scale knew nothing but the costs of the worst plan.
        Some(answer) if first.is_none() => {
            let finer = Costs::new(instance, Some(&answer.picks));
            if finer.scale > COARSE * costs.scale {
                return general.attempt(&sizes, &finer, Some(answer), limits);
            }
            Ok(found)
        }
        _ => Ok(found),
    }
}

impl General<'_> {
    fn attempt(
        &self,
        sizes: &Sizes,
        costs: &Costs,
        known: Option<&Answer>,
        limits: &Limits,
    ) -> Result<Option<Answer>, ProjectError> {
        let run = |presolve: &str| {
            let mut model = configured(self.model(sizes, costs)?, limits)?;
            model.try_set_option("presolve", presolve).map_err(refused)?;
            if let Some(known) = known {
                model.try_set_solution(Some(&self.start(&known.picks)), None, None, None).map_err(refused)?;
            }
            model.try_solve().map_err(refused)
        };
        // The presolve of HiGHS 1.15 fails on some problems where one cost dwarfs all others, or
        // calls them infeasible: its word is not taken for that.
        let solved = match run("choose") {
            Ok(solved) if solved.status() != HighsModelStatus::Infeasible => solved,
            _ => run("off")?,
        };
        let stopped = match solved.status() {
            // With a plan at hand this would be an error of HiGHS.
            HighsModelStatus::Infeasible if known.is_none() => return Ok(None),
            HighsModelStatus::Optimal => false,
            HighsModelStatus::ReachedTimeLimit => true,
            status => return Err(refused(status)),
        };
        if solved.primal_solution_status() != HighsSolutionStatus::Feasible {
            return match (stopped, known) {
                (true, Some(known)) => Ok(Some(known.clone())),
                (true, None) => Err(ProjectError::TimeLimit { seconds: limits.time_limit.as_secs_f64() }),
                (false, _) => Err(unusable("it claims to be optimal without a plan")),
            };
        }
        let picks = picks(self.instance, &solved)?;
        let used = self.instance.size(&picks);
        if !self.window.contains(used) {
            let Window { floor, ceiling } = self.window;
            return Err(unusable(&format!("a plan of {used} bits, outside of {floor} to {ceiling}")));
        }
        if !self.joints.hold(self.instance, &picks) {
            return Err(unusable("a plan that breaks a constraint"));
        }
        let bound = solved.double_info_value(c"mip_dual_bound").map_err(refused)?;
        let gap = (solved.objective_value() - bound).max(0.0) + TOLERANCE;
        Ok(Some(Answer { picks, gap: if costs.most > 0.0 { gap / costs.scale } else { 0.0 } }))
    }

    fn model(&self, sizes: &Sizes, costs: &Costs) -> Result<Model, ProjectError> {
        let mut problem = RowProblem::new();
        let mut columns: Vec<Col> = Vec::with_capacity(self.instance.n_items());
        let mut budget = Vec::with_capacity(self.instance.n_items());
        for items in self.instance.groups() {
            let start = columns.len();
            for (place, item) in items.iter().enumerate() {
                let cost = excess(items, place);
                let (cost, most) = if cost > costs.most { (0.0, 0.0) } else { (cost * costs.scale, 1.0) };
                let column = problem.add_integer_column(cost, 0.0..=most);
                budget.push((column, sizes.scaled((item.size - items[0].size) / sizes.unit)));
                columns.push(column);
            }
            problem.add_row(1.0..=1.0, columns[start..].iter().map(|&column| (column, 1.0)));
        }
        // Between whole numbers nothing lies that a plan could be, so half a unit more does no harm.
        let (floor, ceiling) = (sizes.floor as f64 - 0.5, sizes.ceiling as f64 + 0.5);
        problem.add_row(floor * sizes.scale..=ceiling * sizes.scale, budget);
        for row in &self.joints.rows {
            let largest = row.coefficients.iter().fold(0.0, |most: f64, a| most.max(a.abs()));
            let scale = if largest > 0.0 { power_of_two(ROW_EXPONENT, largest) } else { 1.0 };
            let terms = columns.iter().zip(&row.coefficients).filter(|&(_, &a)| a != 0.0);
            let terms: Vec<_> = terms.map(|(&column, &a)| (column, a * scale)).collect();
            let (lower, upper) = if row.is_whole() {
                (row.lower.ceil() - 0.5, row.upper.floor() + 0.5)
            } else {
                (row.lower, row.upper)
            };
            problem.add_row(lower * scale..=upper * scale, terms);
        }
        if let Some(distinct) = &self.joints.distinct {
            self.limit_formats(distinct, &mut problem, &columns);
        }
        problem.try_optimise(Sense::Minimise).map_err(refused)
    }

    fn limit_formats(&self, distinct: &Distinct, problem: &mut RowProblem, columns: &[Col]) {
        let used: Vec<Col> =
            (0..distinct.count).map(|_| problem.add_integer_column(0.0, 0.0..=1.0)).collect();
        problem.add_row(..=distinct.at_most as f64, used.iter().map(|&column| (column, 1.0)));
        for (group, items) in self.instance.groups().enumerate() {
            let start = self.instance.start(group);
            let mut own: Vec<(u32, Col)> =
                (start..start + items.len()).map(|item| (distinct.formats[item], columns[item])).collect();
            own.sort_by_key(|&(format, _)| format);
            for same in own.chunk_by(|a, b| a.0 == b.0) {
                let terms = same.iter().map(|&(_, column)| (column, 1.0));
                problem.add_row(..=0.0, terms.chain([(used[same[0].0 as usize], -1.0)]));
            }
        }
    }

    /// The columns of a plan.
    fn start(&self, picks: &[usize]) -> Vec<f64> {
        let n_formats = self.joints.distinct.as_ref().map_or(0, |distinct| distinct.count);
        let mut columns = vec![0.0; self.instance.n_items() + n_formats];
        for (group, &pick) in picks.iter().enumerate() {
            let item = self.instance.start(group) + pick;
            columns[item] = 1.0;
            if let Some(distinct) = &self.joints.distinct {
                columns[self.instance.n_items() + distinct.formats[item] as usize] = 1.0;
            }
        }
        columns
    }
}

/// Sizes above the narrowest plan, in units.
struct Sizes {
    unit: u64,
    floor: u64,
    ceiling: u64,
    scale: f64,
}

impl Sizes {
    fn new(instance: &Instance, window: Window) -> Result<Self, ProjectError> {
        let unit = instance.unit();
        let minimum = instance.narrowest();
        let widest = instance.widest() - minimum;
        let ceiling = (window.ceiling - minimum).min(widest) / unit;
        let floor = window.floor.saturating_sub(minimum).div_ceil(unit);
        if widest / unit > MOST_UNITS {
            return Err(ProjectError::TooFine { units: widest / unit, most: MOST_UNITS });
        }
        let bits = (u64::BITS - ceiling.leading_zeros()).cast_signed();
        let exponent = (bits + UNIT_EXPONENT).clamp(0, CEILING_EXPONENT);
        Ok(Self { unit, floor, ceiling, scale: 2_f64.powi(exponent - bits) })
    }

    fn scaled(&self, units: u64) -> f64 {
        units as f64 * self.scale
    }
}

/// Costs above the cheapest item of each group.
struct Costs {
    scale: f64,
    /// An item that costs more is in no plan that beats the known one.
    most: f64,
}

impl Costs {
    fn new(instance: &Instance, known: Option<&[usize]>) -> Self {
        let groups = instance.groups();
        let most: f64 = match known {
            // Twice, because the sum is rounded.
            Some(known) => 2.0 * groups.zip(known).map(|(items, &pick)| excess(items, pick)).sum::<f64>(),
            None => groups.map(|g| (0..g.len()).map(|place| excess(g, place)).fold(0.0, f64::max)).sum(),
        };
        let scale = if most > 0.0 { power_of_two(COST_EXPONENT, most) } else { 1.0 };
        Self { scale, most: most.min(f64::MAX) }
    }
}

/// The power of two that brings `value` just below `2^exponent`.
fn power_of_two(exponent: i32, value: f64) -> f64 {
    // The exponent stays where neither the power nor its inverse overflows.
    2_f64.powi((exponent - value.log2().ceil() as i32).clamp(-1000, 1000))
}

fn excess(items: &[crate::instance::Item], place: usize) -> f64 {
    let least = items.iter().map(|item| item.cost).fold(f64::INFINITY, f64::min);
    items[place].cost - least
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

fn picks(instance: &Instance, solved: &SolvedModel) -> Result<Vec<usize>, ProjectError> {
    let solution = solved.get_solution();
    let columns = solution.columns();
    let pick = |(group, items): (usize, &[crate::instance::Item])| {
        let own = &columns[instance.start(group)..][..items.len()];
        own.iter().position(|&x| x > 0.5).ok_or_else(|| unusable("a module without an option"))
    };
    instance.groups().enumerate().map(pick).collect()
}

/// HiGHS's word for why there is no plan.
fn refused(status: impl std::fmt::Debug) -> ProjectError {
    ProjectError::Highs { status: format!("{status:?}") }
}

fn unusable(what: &str) -> ProjectError {
    ProjectError::Highs { status: what.to_owned() }
}
