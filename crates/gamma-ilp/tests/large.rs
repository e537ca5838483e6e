//! Tables as large as those of real models, against a dense dynamic program and against HiGHS.

mod random;

use gamma_core::{Budget, Plan, ScoreKind, ScoreTable};
use gamma_ilp::{Limits, Solver, project};
use random::{Random, llama, widest};

fn limit(table: &ScoreTable, per_mille: u64) -> u64 {
    let low = table.minimum_bits();
    (low + (widest(table) - low) / 1000 * per_mille) / 8 * 8
}

fn solve(table: &ScoreTable, kind: ScoreKind, limit: u64, solver: Solver) -> Plan {
    project(table, kind, Budget::bytes(limit / 8), &Limits::default().solver(solver)).expect("a plan")
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The cheapest total for every size above the smallest plan, in units of `unit` bits: textbook
/// dynamic programming, possible because the shapes of a model have a large common divisor.
fn dense(table: &ScoreTable) -> (u64, Vec<f64>) {
    let above = |m: &gamma_core::ModuleScores, k: usize| m.options[k].stored_bits - m.options[0].stored_bits;
    let sizes = table.modules().iter().flat_map(|m| (1..m.options.len()).map(move |k| above(m, k)));
    let unit = sizes.fold(0, gcd);
    let mut best = vec![0.0];
    for module in table.modules() {
        let width = (above(module, module.options.len() - 1) / unit) as usize;
        let mut next = vec![f64::INFINITY; best.len() + width];
        for (k, option) in module.options.iter().enumerate() {
            let size = (above(module, k) / unit) as usize;
            for (next, cost) in next[size..].iter_mut().zip(&best) {
                *next = next.min(cost + option.cost);
            }
        }
        best = next;
    }
    (unit, best)
}

#[test]
fn the_knapsack_solver_agrees_with_dense_dynamic_programming() {
    let mut random = Random::new(11);
    for _ in 0..4 {
        let table = llama(&mut random, 112);
        let (unit, best) = dense(&table);
        for per_mille in [1, 40, 170, 333, 500, 720, 990] {
            let limit = limit(&table, per_mille);
            let ceiling = ((limit - table.minimum_bits()) / unit) as usize;
            let expected = best[..=ceiling].iter().copied().fold(f64::INFINITY, f64::min);
            let plan = solve(&table, ScoreKind::Loss, limit, Solver::Knapsack);
            assert!((plan.cost() - expected).abs() <= 1e-12 * expected, "{} {expected}", plan.cost());

            // The smallest step of the smallest module is 1 bit per weight with its zero point.
            let delta = 512 * 2048 + 512 * 2048 / 128;
            let floor = (limit - delta - table.minimum_bits()).div_ceil(unit) as usize;
            let expected = best[floor..=ceiling].iter().copied().fold(f64::INFINITY, f64::min);
            let plan = solve(&table, ScoreKind::Logits, limit, Solver::Knapsack);
            assert!((plan.cost() - expected).abs() <= 1e-12 * expected, "{} {expected}", plan.cost());
            assert!((limit - delta..=limit).contains(&plan.stored_bits()));
        }
    }
}

#[cfg(feature = "highs")]
fn check_agreement(table: &ScoreTable, per_mille: u64) {
    let limit = limit(table, per_mille);
    for kind in [ScoreKind::Loss, ScoreKind::Logits] {
        let [own, other] = [Solver::Knapsack, Solver::Highs].map(|solver| solve(table, kind, limit, solver));
        let [proof, other_proof] = [&own, &other].map(|plan| plan.certificate().expect("a proof"));
        assert_eq!((proof.solver.as_str(), other_proof.solver.as_str()), ("knapsack", "highs"));
        // Neither may be better than the other one's proof allows, but for how costs add up.
        let costs = table.modules().iter().flat_map(|m| m.options.iter().map(|option| option.cost.abs()));
        let rounding = f64::EPSILON * costs.sum::<f64>();
        assert!(other.cost() >= proof.bound - rounding, "{} {}", other.cost(), proof.bound);
        assert!(own.cost() >= other_proof.bound - rounding, "{} {}", own.cost(), other_proof.bound);
        assert!(proof.gap() <= 0.0);
    }
}

#[cfg(feature = "highs")]
#[test]
fn both_solvers_agree() {
    let mut random = Random::new(12);
    for round in 0..20 {
        let table = random::table(&mut random, 10..=20, 2..=6);
        if widest(&table) < 1 << 47 {
            check_agreement(&table, 50 * round);
        }
    }
    for per_mille in [30, 150, 400, 800] {
        check_agreement(&llama(&mut random, 42), per_mille);
    }
}

#[cfg(feature = "highs")]
#[test]
#[ignore = "takes minutes; for changes to a solver"]
fn both_solvers_agree_on_models() {
    let mut random = Random::new(13);
    for per_mille in 0..40 {
        check_agreement(&llama(&mut random, 224), 25 * per_mille);
    }
}
