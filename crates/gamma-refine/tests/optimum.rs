//! What the searches find where the best plan is known, and how much better than the scores' plan
//! it is where scores do not add up.

mod synthetic;

use std::ops::Range;

use gamma_core::{BitWidth, Budget, Plan, ScoreKind};
use gamma_ilp::{Limits, Problem};
use gamma_refine::{
    EvolveSettings, Examiner, PolishSettings, RandomSettings, RecentreSettings, Split, Status,
    best_of_random, evolve, polish, recentre,
};
use synthetic::{Damage, Formula, bits, go_on, isolated, llama, recost};

fn solved(problem: &Problem<'_>) -> Plan {
    problem.solve(&Limits::default()).expect("a plan")
}

#[test]
fn recentring_finds_the_optimum_of_an_additive_model_from_flat_scores() {
    for seed in 0..5 {
        let truth = llama(seed, 2, &[2, 3, 4]);
        let mut model = Formula::new(&truth, Damage::Additive, 4, 0.0);
        let budget = Budget::average_bits(3.0);
        let best = solved(&Problem::new(&truth, ScoreKind::Loss, budget));
        let flat = recost(&truth, |module, option| {
            4_f64.powi(-i32::from(module.options[option].format.bits().bits()))
        });
        let problem = Problem::new(&flat, ScoreKind::Loss, budget);
        let split = Split::halves(4).unwrap();
        let start = Plan::uniform(&flat, BitWidth::B3).unwrap();
        let settings = RecentreSettings::default();
        let found = recentre(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap();
        assert_eq!(bits(&found.plan), bits(&best), "seed {seed}");
        // One round gets there, and the next one sees that nothing is left.
        assert_eq!((found.report.status, found.report.accepted), (Status::Exhausted, 1));
        let round = found.history[0];
        let gained = round.probe.unwrap().mean;
        assert!((round.predicted - gained).abs() < 1e-9 * gained.abs(), "{round:?}");
        // Costs at the centre add up to its divergence.
        let context = found.context.unwrap();
        let cost: f64 = context
            .table
            .modules()
            .iter()
            .zip(found.plan.choices())
            .map(|(module, choice)| {
                module.options.iter().find(|option| option.format == choice.format).unwrap().cost
            })
            .sum();
        let after = found.report.after.probe.unwrap().mean;
        assert!((cost - after).abs() < 1e-9, "{cost} {after}");
    }
}

/// Divergence of the scores' plan and of the recentred one.
fn gain(damage: Damage, seed: u64, average: f64, noise: f64) -> (f64, f64) {
    let truth = llama(seed, 4, &[2, 3, 4, 5, 6, 8]);
    let mut model = Formula::new(&truth, damage, 16, noise);
    let table = isolated(&model, &truth);
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(average));
    let plain = solved(&problem);
    let split = Split::halves(16).expect("enough windows");
    let found = recentre(&mut model, &split, &problem, &plain, &RecentreSettings::default(), &mut go_on())
        .expect("a plan");
    (model.truth(&plain), model.truth(&found.plan))
}

#[test]
fn recentring_beats_isolated_scores_where_interactions_are_strong() {
    let mut ratios = Vec::new();
    for seed in 0..6 {
        for average in [2.25, 2.5, 3.0] {
            let (plain, recentred) = gain(Damage::Joint(10.0), seed, average, 0.02);
            assert!(recentred <= plain * 1.001, "seed {seed} at {average}: {plain} {recentred}");
            ratios.push(recentred / plain);
        }
    }
    let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64;
    assert!(mean.exp() < 0.9, "{ratios:?}");
}

#[test]
fn recentring_does_no_harm_where_scores_are_right_already() {
    for damage in [Damage::Additive, Damage::Root, Damage::Saturating] {
        for seed in 0..4 {
            let (plain, recentred) = gain(damage, seed, 2.5, 0.05);
            // The gate is noisy, so the truth may be a little worse.
            assert!(recentred <= plain * 1.01, "{damage:?}: {plain} {recentred}");
        }
    }
}

#[test]
fn polishing_comes_close_to_the_optimum_from_a_uniform_plan() {
    for seed in 0..4 {
        let truth = llama(seed, 2, &[2, 3, 4]);
        let budget = Budget::average_bits(3.0);
        let mut model = Formula::new(&truth, Damage::Root, 16, 0.01);
        let problem = Problem::new(&truth, ScoreKind::Loss, budget);
        let best = model.truth(&solved(&problem));
        let start = Plan::uniform(&truth, BitWidth::B3).unwrap();
        let before = model.truth(&start);
        let split = Split::halves(16).unwrap();
        let settings = PolishSettings::default();
        let found = polish(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap();
        let after = model.truth(&found.plan);
        assert!(after - best < 0.1 * (before - best), "seed {seed}: {before} {after} {best}");
        assert!(found.report.accepted > 0);
    }
}

#[test]
fn polishing_improves_what_recentring_cannot_reach_with_wrong_scores() {
    let truth = llama(3, 2, &[2, 3, 4]);
    let mut model = Formula::new(&truth, Damage::Additive, 16, 0.0);
    // Every option costs the same: the order of proposals says nothing at first.
    let blind = recost(&truth, |_, _| 1.0);
    let problem = Problem::new(&blind, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&blind, BitWidth::B3).unwrap();
    let split = Split::halves(16).unwrap();
    let settings = PolishSettings { patience: 60, ..PolishSettings::default() };
    let found = polish(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap();
    let best = solved(&Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0)));
    let [before, after, best] = [&start, &found.plan, &best].map(|plan| model.truth(plan));
    assert!(after - best < 0.5 * (before - best), "{before} {after} {best}");
}

#[test]
fn evolution_improves_with_generations_and_reports_what_it_cost() {
    let truth = llama(1, 2, &[2, 3, 4]);
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&truth, BitWidth::B3).unwrap();
    let best = solved(&problem);
    let split = Split::halves(16).unwrap();
    let reached = [0, 5, 60].map(|generations| {
        let mut model = Formula::new(&truth, Damage::Additive, 16, 0.0);
        let settings = EvolveSettings { generations, ..EvolveSettings::default() };
        let found = evolve(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap();
        assert_eq!(found.report.spent.evaluations, model.calls.len() as u64);
        let windows: usize = model.calls.iter().map(|(_, windows)| windows.len()).sum();
        assert_eq!(found.report.spent.windows, windows as u64);
        // 4.5 probes of 8 windows per generation, a gate of 8 for each new parent, both for the start.
        let most = 16 + generations as u64 * 36 + found.report.accepted as u64 * 8;
        assert!(found.report.spent.windows <= most, "{:?}", found.report);
        model.truth(&found.plan)
    });
    let optimum = Formula::new(&truth, Damage::Additive, 16, 0.0).truth(&best);
    assert!(reached[0] > reached[1] && reached[1] > reached[2], "{reached:?}");
    assert!(reached[2] - optimum < 0.2 * (reached[0] - optimum), "{reached:?} {optimum}");
}

#[test]
fn more_random_plans_are_no_worse_and_use_the_budget() {
    let truth = llama(1, 2, &[2, 3, 4]);
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let limit = problem.space().unwrap().limit().bits;
    let split = Split::halves(4).unwrap();
    let found = [1, 10, 100].map(|plans| {
        let best = |seed: u64| {
            let mut model = Formula::new(&truth, Damage::Additive, 4, 0.0);
            let settings = RandomSettings { plans, seed };
            let found = best_of_random(&mut model, &split, &problem, &settings, &mut go_on()).unwrap();
            // What is left has no room for the smallest step, unless all of those are taken.
            assert!(
                found.plan.stored_bits() + 192 * 64 + 256 > limit,
                "{} {limit}",
                found.plan.stored_bits()
            );
            assert_eq!(found.report.spent.evaluations, plans as u64 + 1);
            model.truth(&found.plan)
        };
        (0..8).map(best).sum::<f64>()
    });
    assert!(found[0] > 1.1 * found[1] && found[1] > 1.1 * found[2], "{found:?}");
}

#[test]
fn evolution_without_success_runs_out_of_patience() {
    let truth = llama(1, 1, &[2, 3, 4]);
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let best = solved(&problem);
    let mut model = Formula::new(&truth, Damage::Additive, 16, 0.0);
    let split = Split::halves(16).unwrap();
    let settings = EvolveSettings { patience: Some(3), ..EvolveSettings::default() };
    let found = evolve(&mut model, &split, &problem, &best, &settings, &mut go_on()).unwrap();
    assert_eq!((found.report.status, found.report.accepted), (Status::OutOfPatience, 0));
    assert_eq!(found.plan.choices(), best.choices());
    // Three generations, and no plan measured twice.
    assert!(found.report.spent.windows <= 16 + 3 * 36, "{:?}", found.report);
}

#[test]
fn polishing_costs_a_fraction_of_evolution_for_the_same_gain() {
    let (mut gains, mut costs) = ([0.0; 2], [0; 2]);
    for seed in 0..6 {
        let truth = llama(seed, 4, &[2, 3, 4, 5, 6, 8]);
        let model = Formula::new(&truth, Damage::Joint(10.0), 32, 0.02);
        let table = isolated(&model, &truth);
        let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(2.5));
        let plain = solved(&problem);
        let split = Split::halves(32).unwrap();
        let (polishing, evolution) = (PolishSettings::default(), EvolveSettings::default());
        let found = [
            polish(&mut model.clone(), &split, &problem, &plain, &polishing, &mut go_on()).unwrap(),
            evolve(&mut model.clone(), &split, &problem, &plain, &evolution, &mut go_on()).unwrap(),
        ];
        for (at, found) in found.iter().enumerate() {
            gains[at] += (model.truth(&plain) / model.truth(&found.plan)).ln();
            costs[at] += found.report.spent.windows;
        }
    }
    assert!(gains[0] > 0.9 * gains[1] && costs[0] < costs[1] / 3, "{gains:?} {costs:?}");
}

#[test]
fn recentring_takes_a_smaller_step_where_all_changes_at_once_do_harm() {
    /// Every module at 4 bits helps by itself; many of them do harm, as the square of their number.
    struct Crowded;
    impl Examiner for Crowded {
        type Error = std::convert::Infallible;

        fn windows(&self) -> usize {
            4
        }

        fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Self::Error> {
            let (mut gain, mut n_wide) = (0.0, 0.0);
            for (at, choice) in plan.choices().iter().enumerate() {
                match choice.format.bits() {
                    BitWidth::B4 => (gain, n_wide) = (gain + 0.1 + 0.005 * at as f64, n_wide + 1.0),
                    BitWidth::B2 => gain -= 1.0,
                    _ => {}
                }
            }
            Ok(windows.map(|_| 5.0 - gain + 0.02 * n_wide * n_wide).collect())
        }
    }
    let table = llama(0, 2, &[2, 3, 4]);
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(4.0));
    let start = Plan::uniform(&table, BitWidth::B3).unwrap();
    let split = Split::halves(4).unwrap();
    let run = |halvings: usize| {
        let settings = RecentreSettings { rounds: 1, halvings, ..RecentreSettings::default() };
        recentre(&mut Crowded, &split, &problem, &start, &settings, &mut go_on()).unwrap()
    };
    // All 14 at once: 1.855 better and 3.92 worse.
    let all = run(0);
    assert_eq!((all.history[0].changed, all.history[0].accepted), (14, false));
    assert!(all.history[0].predicted < 0.0 && all.history[0].probe.unwrap().mean > 2.0);
    assert_eq!((all.report.accepted, all.report.rejected), (0, 1));
    // A quarter of them are the last three: 0.48 better and 0.18 worse.
    let few = run(2);
    assert_eq!(bits(&few.plan), [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4]);
    assert!((few.history[0].gate.unwrap().mean + 0.3).abs() < 1e-9);
    assert_eq!((few.report.accepted, few.report.rejected), (1, 2));
}
