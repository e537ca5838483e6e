//! Both solvers against trying every plan, on many small tables.

mod random;

use gamma_core::{Budget, ModuleScores, ScoreKind, ScoreTable};
use gamma_ilp::{Limits, ProjectError, Solver, project};
use proptest::prelude::*;
use random::{Random, table, table_of, widest};

/// A cost of the generators, which are multiples of 2^-40, as an integer.
fn exact(cost: f64) -> i128 {
    let scaled = cost * 2_f64.powi(40);
    assert!(scaled.fract().abs() <= 0.0 && scaled.abs() < 1e30, "{cost} is no test cost");
    scaled as i128
}

/// Cost and stored bits of every plan.
fn all_plans(table: &ScoreTable) -> Vec<(i128, u64)> {
    let mut plans = vec![(0, 0)];
    for module in table.modules() {
        let with = |&(cost, bits): &(i128, u64)| {
            module.options.iter().map(move |o| (cost + exact(o.cost), bits + o.stored_bits))
        };
        plans = plans.iter().flat_map(with).collect();
    }
    plans
}

/// The least total that fills the budget: the window is as wide as the smallest step, and doubles
/// until a plan lies in it.
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

fn spread(module: &ModuleScores) -> f64 {
    let costs = || module.options.iter().map(|option| option.cost);
    costs().fold(f64::MIN, f64::max) - costs().fold(f64::MAX, f64::min)
}

fn check(table: &ScoreTable, kind: ScoreKind, limit: u64, solver: Solver, plans: &[(i128, u64)]) {
    let result = project(table, kind, Budget::bytes(limit / 8), &Limits::default().solver(solver));
    if limit < table.minimum_bits() {
        let error = result.expect_err("no plan fits");
        let ProjectError::BelowMinimum { minimum_bits, .. } = error else { panic!("{error}") };
        assert_eq!(minimum_bits, table.minimum_bits());
        return;
    }
    if let Err(ProjectError::TooFine { units, most }) = result {
        assert!(units > most);
        return;
    }
    let plan = result.expect("a feasible budget");
    let floor = if kind == ScoreKind::Logits { filled(table, plans, limit) } else { 0 };
    let context = || format!("{kind:?} by {solver:?} within {floor}..={limit}: {table:#?}");
    assert!((floor..=limit).contains(&plan.stored_bits()), "{}", context());
    let certificate = plan.certificate().expect("a proof");
    assert_eq!((certificate.used_bits, certificate.limit_bits), (plan.stored_bits(), limit));

    let best = plans.iter().filter(|&&(_, bits)| (floor..=limit).contains(&bits)).min();
    let &(cost, bits) = best.expect("a plan fits");
    let found: i128 = plan.choices().iter().map(|choice| exact(choice.cost)).sum();
    if solver == Solver::Highs {
        let missed = (found - cost) as f64 / 2_f64.powi(40);
        assert!(missed <= certificate.gap(), "{missed} missed, {} known: {}", certificate.gap(), context());
        let spread: f64 = table.modules().iter().map(spread).sum();
        assert!(certificate.gap() <= 1e-10 * spread, "a gap of {}: {}", certificate.gap(), context());
    } else {
        assert_eq!(found, cost, "{}", context());
        assert!(certificate.gap() <= 0.0, "{}", context());
        assert!(kind == ScoreKind::Logits || plan.stored_bits() == bits, "not the smallest: {}", context());
    }
}

/// Both kinds of scores and several budgets, with too small and too large ones among them.
fn check_table(table: &ScoreTable, random: &mut Random, solver: Solver) {
    let plans = all_plans(table);
    let (low, high) = (table.minimum_bits(), widest(table));
    let between = [0, 1, 2].map(|_| low + random.below((high - low) / 8 + 1) * 8);
    let ends = [low.saturating_sub(8), low, high, high + 8 * random.below(9)];
    for limit in ends.into_iter().chain(between) {
        for kind in [ScoreKind::Loss, ScoreKind::Logits] {
            check(table, kind, limit, solver, &plans);
        }
    }
}

fn check_random(seed: u64, n_tables: usize, solver: Solver) {
    let mut random = Random::new(seed);
    for round in 0..n_tables {
        // Few modules with many options, now and then many modules with few.
        let (modules, options) = if round % 16 == 0 { (7..=9, 1..=3) } else { (1..=6, 1..=5) };
        let table = table(&mut random, modules, options);
        check_table(&table, &mut random, solver);
    }
}

/// Cost and stored bits of every plan up to `limit` bits that no smaller plan matches in cost.
fn undominated_plans(table: &ScoreTable, limit: u64) -> Vec<(i128, u64)> {
    let mut plans = vec![(0, table.minimum_bits())];
    for module in table.modules() {
        let narrowest = module.options[0].stored_bits;
        let with = |&(cost, bits): &(i128, u64)| {
            module.options.iter().map(move |o| (cost + exact(o.cost), bits + o.stored_bits - narrowest))
        };
        let mut all: Vec<_> = plans.iter().flat_map(with).filter(|&(_, bits)| bits <= limit).collect();
        all.sort_unstable_by_key(|&(cost, bits)| (bits, cost));
        plans.clear();
        for plan in all {
            if plans.last().is_none_or(|&(cost, _)| plan.0 < cost) {
                plans.push(plan);
            }
        }
    }
    plans
}

#[test]
fn the_knapsack_solver_finds_the_best_of_all_undominated_plans_of_larger_tables() {
    let mut random = Random::new(6);
    for _ in 0..1200 {
        let table = table(&mut random, 10..=16, 2..=5);
        let (low, high) = (table.minimum_bits(), widest(&table));
        let limit = low + random.below((high - low) / 8 + 1) * 8;
        let plans = undominated_plans(&table, limit);
        check(&table, ScoreKind::Loss, limit, Solver::Knapsack, &plans);
    }
}

#[test]
fn the_knapsack_solver_finds_the_best_of_all_plans() {
    check_random(1, 20_000, Solver::Knapsack);
}

#[test]
#[ignore = "takes minutes; for changes to the solver"]
fn the_knapsack_solver_finds_the_best_of_all_plans_of_a_million_tables() {
    check_random(4, 1_000_000, Solver::Knapsack);
}

#[cfg(feature = "highs")]
#[test]
fn highs_finds_the_best_of_all_plans() {
    check_random(2, 60, Solver::Highs);
}

#[cfg(feature = "highs")]
#[test]
#[ignore = "takes minutes; for changes to the model that HiGHS is given"]
fn highs_finds_the_best_of_all_plans_of_many_tables() {
    check_random(5, 3000, Solver::Highs);
}

/// Every budget between the smallest and the widest plan, byte by byte.
#[test]
fn every_budget_of_a_range_is_served() {
    let mut random = Random::new(3);
    for _ in 0..40 {
        let table = table(&mut random, 3..=5, 2..=4);
        let plans = all_plans(&table);
        for bytes in (table.minimum_bits() / 8..=widest(&table) / 8).take(400) {
            for kind in [ScoreKind::Loss, ScoreKind::Logits] {
                check(&table, kind, bytes * 8, Solver::Knapsack, &plans);
            }
        }
    }
}

proptest! {
    /// Small numbers, so that a failure shrinks to something readable.
    #[test]
    fn no_plan_beats_the_projection(
        modules in prop::collection::vec(prop::collection::vec((0_u64..20, -9_i32..10), 1..6), 1..6),
        seed: u64,
    ) {
        let options = |module: &Vec<(u64, i32)>| -> Vec<(u64, f64)> {
            module.iter().map(|&(bytes, cost)| (8 * bytes, f64::from(cost) / 4.0)).collect()
        };
        let table = table_of(&modules.iter().map(options).collect::<Vec<_>>());
        check_table(&table, &mut Random::new(seed), Solver::Knapsack);
    }
}
