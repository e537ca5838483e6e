//! Both solvers against trying every plan, on many small tables.

mod random;

use gamma_core::{Budget, ModuleScores, ScoreKind, ScoreTable};
use gamma_ilp::{Limits, ProjectError, Solver, project};
use random::{Random, table};

/// Sums of costs in 128-bit integers; `None` where the costs of the table are no multiples of
/// 2^-40 or too large, which the generators avoid wherever exactness is asserted.
fn exact(cost: f64) -> i128 {
    let scaled = cost * 2_f64.powi(40);
    assert!(scaled == scaled.round() && scaled.abs() < 1e30, "{cost} is no test cost");
    scaled as i128
}

/// Every plan: cost and stored bits.
fn all_plans(table: &ScoreTable) -> Vec<(i128, u64)> {
    let mut plans = vec![(0, 0)];
    for module in table.modules() {
        plans = plans
            .iter()
            .flat_map(|&(cost, bits)| {
                module.options.iter().map(move |o| (cost + exact(o.cost), bits + o.stored_bits))
            })
            .collect();
    }
    plans
}

fn widest(table: &ScoreTable) -> u64 {
    table.modules().iter().map(|m| m.options.last().unwrap().stored_bits).sum()
}

/// The window of 4.8: as wide as the smallest step, doubled until a plan lies in it.
fn filled(table: &ScoreTable, plans: &[(i128, u64)], limit: u64) -> u64 {
    let ceiling = limit.min(widest(table));
    let steps = table.modules().iter().flat_map(|m| m.options.windows(2));
    let step = steps.map(|o| o[1].stored_bits - o[0].stored_bits).filter(|&s| s > 0).min();
    let mut width = step.unwrap_or(0);
    loop {
        let floor = ceiling.saturating_sub(width);
        if plans.iter().any(|&(_, bits)| (floor..=ceiling).contains(&bits)) {
            return floor;
        }
        width *= 2;
    }
}

fn check(table: &ScoreTable, kind: ScoreKind, limit: u64, solver: Solver, plans: &[(i128, u64)]) {
    let floor = if kind == ScoreKind::Logits { filled(table, plans, limit) } else { 0 };
    let best = plans.iter().filter(|&&(_, bits)| (floor..=limit).contains(&bits)).min();
    let result = project(table, kind, Budget::bytes(limit / 8), &Limits::default().solver(solver));
    let Some(&(cost, bits)) = best else {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(&table.minimum_bits().to_string()), "{text}");
        return;
    };
    if matches!(result, Err(ProjectError::TooFine { units, most }) if units > most) {
        return;
    }
    let plan = result.unwrap();
    let context = || format!("{kind:?} by {solver:?} within {floor}..={limit}: {table:#?}");
    assert!((floor..=limit).contains(&plan.stored_bits()), "{}", context());
    let certificate = plan.certificate().unwrap();
    assert_eq!((certificate.used_bits, certificate.limit_bits), (plan.stored_bits(), limit));
    let found: i128 = plan.choices().iter().map(|choice| exact(choice.cost)).sum();
    if solver == Solver::Highs {
        let missed = (found - cost) as f64 / 2_f64.powi(40);
        assert!(missed <= certificate.gap(), "{missed} missed, {} allowed: {}", certificate.gap(), context());
        let costs = |m: &ModuleScores| m.options.iter().map(|o| o.cost).collect::<Vec<_>>();
        let spread = |m: &ModuleScores| {
            let costs = costs(m);
            costs.iter().copied().fold(f64::MIN, f64::max) - costs.iter().copied().fold(f64::MAX, f64::min)
        };
        let spread: f64 = table.modules().iter().map(spread).sum();
        assert!(certificate.gap() <= 1e-10 * spread, "{} {spread}", certificate.gap());
    } else {
        assert_eq!(found, cost, "{}", context());
        assert_eq!(certificate.gap(), 0.0);
        assert!(kind == ScoreKind::Logits || plan.stored_bits() == bits, "not the smallest: {}", context());
    }
}

fn check_random(seed: u64, n_tables: usize, solver: Solver) {
    let mut random = Random::new(seed);
    for _ in 0..n_tables {
        let table = table(&mut random, 1..=6, 1..=5);
        let plans = all_plans(&table);
        let (low, high) = (table.minimum_bits(), widest(&table));
        let budgets = [low, high, high + 8 * random.below(9)];
        let between = [0, 1, 2].map(|_| low + random.below((high - low) / 8 + 1) * 8);
        for limit in budgets.into_iter().chain(between) {
            for kind in [ScoreKind::Loss, ScoreKind::Logits] {
                check(&table, kind, limit, solver, &plans);
            }
        }
        if low >= 8 {
            check(&table, ScoreKind::Loss, low - 8, solver, &plans);
        }
    }
}

#[test]
fn the_knapsack_solver_finds_the_best_of_all_plans() {
    check_random(1, 20_000, Solver::Knapsack);
}
#[cfg(feature = "highs")]
#[test]
fn highs_finds_the_best_of_all_plans() {
    check_random(2, 60, Solver::Highs);
}

/// Every budget between the smallest and the widest plan, byte by byte.
#[test]
fn every_budget_of_a_range_is_served() {
    let mut random = Random::new(3);
    for _ in 0..40 {
        let table = table(&mut random, 3..=5, 2..=4);
        let plans = all_plans(&table);
        let range = (table.minimum_bits() / 8..=widest(&table) / 8).take(400);
        for bytes in range {
            for kind in [ScoreKind::Loss, ScoreKind::Logits] {
                check(&table, kind, bytes * 8, Solver::Knapsack, &plans);
            }
        }
    }
}
