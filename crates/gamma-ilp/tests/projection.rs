//! What a caller may rely on, case by case.

mod random;

use std::thread;

use gamma_core::{Budget, Plan, ScoreKind, ScoreTable};
use gamma_ilp::{Limits, ProjectError, Solver, project};
use random::{Random, llama, table_of, widest};

/// Every solver of this build.
fn solvers() -> Vec<Solver> {
    let mut solvers = vec![Solver::Auto, Solver::Knapsack];
    if cfg!(feature = "highs") {
        solvers.push(Solver::Highs);
    }
    solvers
}

fn picks(table: &ScoreTable, plan: &Plan) -> Vec<usize> {
    let pick = |(module, choice): (&gamma_core::ModuleScores, &gamma_core::Choice)| {
        module
            .options
            .iter()
            .position(|option| option.format == choice.format)
            .expect("a format of the table")
    };
    table.modules().iter().zip(plan.choices()).map(pick).collect()
}

/// Solves with every solver and compares the picks.
fn check(modules: &[Vec<(u64, f64)>], kind: ScoreKind, bytes: u64, expected: &[usize]) {
    let table = table_of(modules);
    for solver in solvers() {
        let limits = Limits::default().solver(solver);
        let plan = project(&table, kind, Budget::bytes(bytes), &limits).expect("a feasible budget");
        assert_eq!(picks(&table, &plan), expected, "{solver:?}");
    }
}

#[test]
fn bits_go_where_they_help_most() {
    let modules = [
        vec![(80, 9.0), (160, 3.0), (320, 1.0)],
        vec![(80, 2.0), (160, 1.5), (320, 1.4)],
        vec![(80, 5.0), (160, 4.0), (320, 0.0)],
    ];
    check(&modules, ScoreKind::Loss, 30, &[0, 0, 0]);
    check(&modules, ScoreKind::Loss, 40, &[1, 0, 0]);
    check(&modules, ScoreKind::Loss, 60, &[2, 0, 0]);
    check(&modules, ScoreKind::Loss, 70, &[1, 0, 2]);
    check(&modules, ScoreKind::Loss, 1000, &[2, 2, 2]);
}

#[test]
fn a_wider_option_that_is_worse_is_not_taken() {
    check(&[vec![(8, 2.0), (16, 1.0), (24, 1.5)]], ScoreKind::Loss, 3, &[1]);
    check(&[vec![(8, -2.0), (16, -1.0)], vec![(8, 0.5), (16, -0.5)]], ScoreKind::Loss, 4, &[0, 1]);
}

#[test]
fn logits_fill_the_budget_even_at_a_price() {
    // Wider is dearer, as after learning under a price of bits.
    let modules = [vec![(8, 0.0), (16, 1.0), (24, 3.0)], vec![(8, 0.0), (16, 2.0), (24, 2.5)]];
    check(&modules, ScoreKind::Loss, 4, &[0, 0]);
    // The smallest step is one byte: 3 or 4 bytes fill a budget of 4.
    check(&modules, ScoreKind::Logits, 4, &[1, 0]);
    check(&modules, ScoreKind::Logits, 5, &[0, 2]);
    check(&modules, ScoreKind::Logits, 6, &[1, 2]);
    // No more than everything can be filled.
    check(&modules, ScoreKind::Logits, 1000, &[1, 2]);
}

#[test]
fn the_window_widens_until_a_plan_lies_in_it() {
    // The smallest step is one byte, but nothing lies between 12 and 100 bytes.
    let modules = [vec![(80, 0.0), (88, 1.0), (96, 2.0)], vec![(0, 0.0), (720, 7.0)]];
    check(&modules, ScoreKind::Logits, 11, &[0, 0]);
    check(&modules, ScoreKind::Logits, 12, &[1, 0]);
    check(&modules, ScoreKind::Logits, 13, &[2, 0]);
    // Sixteen bytes wide is the first window that reaches down to a plan.
    check(&modules, ScoreKind::Logits, 26, &[0, 0]);
    check(&modules, ScoreKind::Logits, 27, &[1, 0]);
    check(&modules, ScoreKind::Logits, 28, &[2, 0]);
}

#[test]
fn of_plans_of_equal_cost_the_smaller_one_is_taken() {
    let twins = vec![(8, 3.0), (16, 1.0), (24, 1.0), (32, 0.0)];
    check(&[twins.clone(), twins], ScoreKind::Loss, 5, &[1, 1]);
    // Either module may improve by 4; the second one needs fewer bits for it.
    let modules = [vec![(8, 5.0), (40, 1.0)], vec![(8, 5.0), (24, 1.0)]];
    let table = table_of(&modules);
    let plan = project(&table, ScoreKind::Loss, Budget::bytes(6), &Limits::default()).unwrap();
    assert_eq!(picks(&table, &plan), [0, 1]);
    // Of options that differ in nothing but the format, the first one.
    let twins = table_of(&[vec![(8, 2.0), (16, 1.0), (16, 1.0), (16, 1.0)]]);
    for kind in [ScoreKind::Loss, ScoreKind::Logits] {
        let plan = project(&twins, kind, Budget::bytes(2), &Limits::default()).unwrap();
        assert_eq!(picks(&twins, &plan), [1]);
    }
}

#[test]
fn forbidden_and_huge_and_tiny_costs_do_not_blur_the_others() {
    let forbidden = f64::MAX;
    let modules = [
        vec![(8, forbidden), (16, 3e-12), (24, 1e-12)],
        vec![(8, 4e-12), (16, 3.5e-12), (24, forbidden)],
        vec![(8, -forbidden), (16, 1e-300)],
    ];
    check(&modules, ScoreKind::Loss, 4, &[1, 0, 0]);
    check(&modules, ScoreKind::Loss, 5, &[2, 0, 0]);
    check(&modules, ScoreKind::Loss, 6, &[2, 1, 0]);
    let subnormal = 5e-324;
    let modules = [vec![(8, 3.0 * subnormal), (16, 0.0)], vec![(8, 2.0 * subnormal), (16, 0.0)]];
    let table = table_of(&modules);
    let plan = project(&table, ScoreKind::Loss, Budget::bytes(3), &Limits::default()).unwrap();
    assert_eq!(picks(&table, &plan), [1, 0]);
}

#[test]
fn a_budget_below_the_smallest_plan_is_an_error_that_states_the_minimum() {
    let table = table_of(&[vec![(800, 1.0), (1600, 0.0)], vec![(240, 1.0)]]);
    for solver in solvers() {
        for kind in [ScoreKind::Loss, ScoreKind::Logits] {
            let limits = Limits::default().solver(solver);
            let error = project(&table, kind, Budget::bytes(129), &limits).unwrap_err();
            assert!(matches!(error, ProjectError::BelowMinimum { minimum_bits: 1040, .. }));
            assert_eq!(
                error.to_string(),
                "the budget leaves 129 bytes for the allocated modules, and the smallest plan needs 130 \
                 (520.0000 bits per weight); a budget 1 bytes larger would do"
            );
            assert!(project(&table, kind, Budget::bytes(130), &limits).is_ok());
        }
    }
}

#[test]
fn the_budget_of_a_uniform_plan_is_met_to_the_last_bit() {
    let table = llama(&mut Random::new(5), 28);
    for bits in [2, 3, 4, 5, 6, 8] {
        let uniform = Plan::uniform(&table, gamma_core::BitWidth::new(bits).unwrap()).unwrap();
        let budget = Budget::average_bits(f64::from(bits));
        let plan = project(&table, ScoreKind::Loss, budget, &Limits::default()).unwrap();
        let certificate = plan.certificate().unwrap();
        assert_eq!(certificate.limit_bits, uniform.stored_bits());
        assert!(plan.stored_bits() <= certificate.limit_bits);
        assert!(plan.cost() <= uniform.cost());
    }
}

#[test]
fn a_search_that_is_cut_short_returns_a_plan_and_an_honest_gap() {
    let mut random = Random::new(6);
    let mut unproven = 0;
    for _ in 0..40 {
        // Benefit nearly in proportion to size: nothing is ruled out by its price alone.
        let mut module = |_| -> Vec<(u64, f64)> {
            let weights = random.within(1_000_000..=50_000_000);
            let mut option =
                |bits| (weights * bits, -((weights * bits) as f64) * (1.0 + 0.02 * random.unit()));
            [2, 3, 4, 8].map(&mut option).to_vec()
        };
        let table = table_of(&(0..60).map(&mut module).collect::<Vec<_>>());
        let budget = Budget::bytes((table.minimum_bits() + widest(&table)) / 20);
        let exact = project(&table, ScoreKind::Loss, budget, &Limits::default()).unwrap();
        let limits = Limits::default().max_states(0);
        let quick = project(&table, ScoreKind::Loss, budget, &limits).unwrap();
        let proof = quick.certificate().unwrap();
        assert!(proof.bound <= exact.cost() && exact.cost() <= quick.cost());
        unproven += usize::from(proof.gap() > 0.0);
        let quick = project(&table, ScoreKind::Logits, budget, &limits).unwrap();
        assert!(quick.stored_bits() <= proof.limit_bits);
    }
    assert!(unproven > 5, "the test wants hard tables, {unproven} were");
}

#[test]
fn the_plan_is_the_same_on_every_thread() {
    let table = llama(&mut Random::new(7), 70);
    for solver in solvers() {
        for kind in [ScoreKind::Loss, ScoreKind::Logits] {
            let limits = Limits::default().solver(solver);
            let solve = || project(&table, kind, Budget::average_bits(3.1), &limits).unwrap();
            let plans: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..3).map(|_| scope.spawn(solve)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(plans.iter().all(|plan| *plan == plans[0]), "{solver:?}");
        }
    }
}

#[test]
fn ten_thousand_modules_are_no_burden() {
    let mut random = Random::new(8);
    for table in
        [llama(&mut random, 10_000), table_of(&vec![vec![(80, 2.0), (160, 1.0), (240, 0.5)]; 10_000])]
    {
        for kind in [ScoreKind::Loss, ScoreKind::Logits] {
            let budget = Budget::bytes((table.minimum_bits() + widest(&table)) / 17);
            let plan = project(&table, kind, budget, &Limits::default()).unwrap();
            assert!(plan.certificate().unwrap().gap() <= 0.0);
        }
    }
}

#[cfg(not(feature = "highs"))]
#[test]
fn a_build_without_highs_says_so() {
    let table = table_of(&[vec![(8, 1.0)]]);
    let limits = Limits::default().solver(Solver::Highs);
    let error = project(&table, ScoreKind::Loss, Budget::bytes(1), &limits).unwrap_err();
    assert_eq!(error, ProjectError::NoHighs { constraints: Vec::new() });
}

#[cfg(feature = "highs")]
#[test]
fn highs_refuses_sizes_that_it_cannot_tell_apart() {
    let table = table_of(&[vec![(0, 1.0), (1 << 50, 0.0)], vec![(1, 1.0), (3, 0.0)]]);
    let limits = Limits::default().solver(Solver::Highs);
    let error = project(&table, ScoreKind::Loss, Budget::bytes(1 << 40), &limits).unwrap_err();
    assert!(matches!(error, ProjectError::TooFine { .. }), "{error}");
}

#[cfg(feature = "highs")]
#[test]
fn highs_out_of_time_still_returns_a_plan() {
    let table = llama(&mut Random::new(9), 224);
    let limits = Limits::default().solver(Solver::Highs).time_limit(std::time::Duration::ZERO);
    let exact = project(&table, ScoreKind::Loss, Budget::average_bits(3.1), &Limits::default()).unwrap();
    for kind in [ScoreKind::Loss, ScoreKind::Logits] {
        let plan = project(&table, kind, Budget::average_bits(3.1), &limits).unwrap();
        let proof = plan.certificate().unwrap();
        assert!(proof.used_bits <= proof.limit_bits);
        assert!(kind == ScoreKind::Logits || proof.bound <= exact.cost());
    }
}
