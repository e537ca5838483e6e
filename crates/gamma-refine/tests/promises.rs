//! What holds whatever the scores, the model and the rules are: plans are admitted, the gate does
//! not rise, a stop is obeyed, and two runs agree.

mod synthetic;

use std::ops::ControlFlow;

use gamma_core::{BitWidth, Budget, Plan, ScoreKind, ScoreTable};
use gamma_ilp::{Limits, Problem, Rule};
use gamma_refine::{
    EvolveSettings, PolishSettings, Progress, RandomSettings, RecentreSettings, RefineError, Report, Split,
    Status, Step, best_of_random, choose, evolve, polish, recentre,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synthetic::{Damage, Formula, go_on, llama, recost, stop_after};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    Recentre,
    Polish,
    Evolve,
    Random,
}

const SEARCHES: [Search; 4] = [Search::Recentre, Search::Polish, Search::Evolve, Search::Random];

impl Search {
    fn run(
        self,
        model: &mut Formula,
        problem: &Problem<'_>,
        start: &Plan,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Option<(Plan, Report)> {
        let split = Split::halves(model.windows).expect("enough windows");
        match self {
            Self::Recentre => {
                let settings = RecentreSettings::default();
                let found = recentre(model, &split, problem, start, &settings, progress).expect("a plan");
                Some((found.plan, found.report))
            }
            Self::Polish => {
                let settings = PolishSettings { proposals: 40, patience: 12, ..PolishSettings::default() };
                let found = polish(model, &split, problem, start, &settings, progress).expect("a plan");
                Some((found.plan, found.report))
            }
            Self::Evolve => {
                let settings =
                    EvolveSettings { generations: 4, offspring: 6, seed, ..EvolveSettings::default() };
                let found = evolve(model, &split, problem, start, &settings, progress).expect("a plan");
                Some((found.plan, found.report))
            }
            Self::Random => {
                let settings = RandomSettings { plans: 12, seed };
                let found = match best_of_random(model, &split, problem, &settings, progress) {
                    Ok(found) => found,
                    // Rows that a build without HiGHS cannot obey but by luck.
                    Err(RefineError::NoRandomPlan { .. }) if problem.is_knapsack() == Ok(false) => {
                        return None;
                    }
                    Err(error) => panic!("{error}"),
                };
                Some((found.plan, found.report))
            }
        }
    }
}

/// A random table, model and set of rules.
struct Case {
    table: ScoreTable,
    model: Formula,
    rules: Vec<Rule>,
    budget: Budget,
}

fn case(seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let widths: &[u8] = [&[2, 3, 4][..], &[2, 4, 8], &[2, 3, 4, 6]][rng.random_range(0..3)];
    let truth = llama(rng.random(), rng.random_range(1..=2), widths);
    let damage =
        [Damage::Additive, Damage::Joint(5.0), Damage::Root, Damage::Saturating][rng.random_range(0..4)];
    let model = Formula::new(&truth, damage, 12, 0.3 * rng.random::<f64>());
    // Scores that are right, noisy, or the opposite of right.
    let table = match rng.random_range(0..3) {
        0 => truth,
        1 => recost(&truth, |module, option| {
            module.options[option].cost * 10_f64.powf(rng.random::<f64>() - 0.5)
        }),
        _ => recost(&truth, |module, option| -module.options[option].cost),
    };
    let texts = [
        "tie vllm",
        "tie *.mlp.*",
        "pin *.o_proj 4",
        "min *.v_proj 4",
        "max *.down_proj 4",
        "exclude model.layers.0.mlp.*",
        "modules 2 5",
        "formats 2",
        "bytes *.down_proj 9000",
    ];
    let rules = texts
        .iter()
        .filter(|_| rng.random_range(0..3) == 0)
        .map(|text| text.parse().expect("a rule"))
        .collect();
    let budget = match rng.random_range(0..2) {
        0 => Budget::average_bits(2.0 + 2.0 * rng.random::<f64>()),
        _ => Budget::code_bits_per_weight(2.0 + 2.0 * rng.random::<f64>()),
    };
    Case { table, model, rules, budget }
}

impl Case {
    fn problem(&self) -> Problem<'_> {
        Problem::new(&self.table, ScoreKind::Loss, self.budget).rules(self.rules.iter().cloned())
    }

    /// The solver's plan, or a random one where it needs another solver.
    fn start(&self) -> Option<Plan> {
        let problem = self.problem();
        if let Ok(plan) = problem.solve(&Limits::default()) {
            return Some(plan);
        }
        let split = Split::halves(12).expect("enough windows");
        let settings = RandomSettings { plans: 1, seed: 0 };
        let found = best_of_random(&mut self.model.clone(), &split, &problem, &settings, &mut go_on());
        found.ok().map(|found| found.plan)
    }
}

fn check(seed: u64, search: Search, stop: Option<u64>) -> Result<(), TestCaseError> {
    let case = case(seed);
    let Some(start) = case.start() else { return Err(TestCaseError::reject("no plan")) };
    let problem = case.problem();
    let mut model = case.model.clone();
    let run = |model: &mut Formula| match stop {
        Some(stop) => search.run(model, &problem, &start, seed, &mut stop_after(stop)),
        None => search.run(model, &problem, &start, seed, &mut go_on()),
    };
    let Some((plan, report)) = run(&mut model) else { return Ok(()) };

    let space = problem.space().expect("a problem with a plan");
    let settled: Vec<Vec<usize>> =
        model.settled.iter().map(|plan| space.places(plan).expect("a point of the space")).collect();
    for (measured, _) in &model.calls {
        // Ties, pins and exclusions hold for every plan.
        let places = space.places(measured).expect("a point of the space");
        let moves = |centre: &Vec<usize>| centre.iter().zip(&places).filter(|(a, b)| a != b).count();
        // Only a single move around a plan may break the budget.
        let single = search == Search::Recentre && settled.iter().any(|centre| moves(centre) == 1);
        prop_assert!(space.admits(&places) || single, "{measured:?}");
    }
    prop_assert!(problem.admits(&plan).expect("a problem with a plan"));
    let gate = 6..12;
    if search != Search::Random {
        prop_assert!(model.mean(&plan, gate.clone()) <= model.mean(&start, gate.clone()));
        let own = report.before.gate.map(|gate| gate.mean);
        prop_assert!(own.is_none_or(|own| (own - model.mean(&start, gate.clone())).abs() < 1e-12));
    }
    let own = report.after.gate.map(|gate| gate.mean);
    prop_assert!(own.is_none_or(|own| (own - model.mean(&plan, gate)).abs() < 1e-12));
    prop_assert_eq!(report.spent.evaluations, model.calls.len() as u64);
    // Unless the stop came with the last measurement anyway.
    let stopped = report.status == Status::Stopped;
    prop_assert!(report.spent.evaluations <= stop.unwrap_or(u64::MAX));
    prop_assert!(!stopped || Some(report.spent.evaluations) == stop);

    let mut again = case.model.clone();
    prop_assert_eq!(run(&mut again), Some((plan, report)));
    prop_assert_eq!(again.calls, model.calls);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_global_rejects: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_search_keeps_its_promises(seed in any::<u64>()) {
        for search in SEARCHES {
            check(seed, search, None)?;
        }
    }

    #[test]
    fn every_search_can_be_stopped_at_any_time(seed in any::<u64>(), stop in 1_u64..120) {
        for search in SEARCHES {
            check(seed, search, Some(stop))?;
        }
    }
}

#[test]
fn polishing_never_raises_the_gate_with_the_worst_of_scores() {
    for seed in 0..10 {
        let truth = llama(seed, 2, &[2, 3, 4]);
        let mut model = Formula::new(&truth, Damage::Joint(3.0), 12, 0.5);
        let adverse = recost(&truth, |module, option| -module.options[option].cost);
        let good = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(2.5));
        let start = good.solve(&Limits::default()).unwrap();
        let problem = Problem::new(&adverse, ScoreKind::Loss, Budget::average_bits(2.5));
        let (plan, report) = Search::Polish.run(&mut model, &problem, &start, 0, &mut go_on()).unwrap();
        assert!(model.mean(&plan, 6..12) <= model.mean(&start, 6..12));
        assert!(report.rejected > 0);
    }
}

#[test]
fn what_is_chosen_is_never_worse_than_uniform_however_bad_the_scores() {
    let truth = llama(7, 2, &[2, 3, 4]);
    let mut model = Formula::new(&truth, Damage::Joint(2.0), 12, 0.1);
    let bad = recost(&truth, |module, option| -module.options[option].cost);
    let problem = Problem::new(&bad, ScoreKind::Loss, Budget::average_bits(3.0));
    let uniform = Plan::uniform(&bad, BitWidth::B3).unwrap();
    let solved = problem.solve(&Limits::default()).unwrap();
    assert!(model.truth(&solved) > 2.0 * model.truth(&uniform), "the scores are bad");
    let split = Split::halves(12).unwrap();
    let candidates = [("uniform", &uniform), ("solved", &solved)];
    let choice = choose(&mut model, &split, &candidates, &mut go_on()).unwrap();
    assert_eq!((choice.name(), choice.position, &choice.plan), ("uniform", 0, &uniform));
    assert!(choice.candidates[0].excess.unwrap().mean.abs() < f64::MIN_POSITIVE);
    assert!(choice.candidates[1].excess.unwrap().mean > 0.0);
    assert_eq!((choice.status, choice.spent.windows), (Status::Done, 12));

    // With the right scores the solver's plan wins; a stop leaves what was measured.
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let solved = problem.solve(&Limits::default()).unwrap();
    let candidates = [("uniform", &uniform), ("solved", &solved)];
    assert_eq!(choose(&mut model, &split, &candidates, &mut go_on()).unwrap().name(), "solved");
    let stopped = choose(&mut model, &split, &candidates, &mut stop_after(1)).unwrap();
    assert_eq!((stopped.name(), stopped.status), ("uniform", Status::Stopped));
    assert_eq!(stopped.candidates[1].gate, None);
}

#[test]
fn rejected_proposals_cost_a_part_of_the_probe() {
    let truth = llama(2, 2, &[2, 3, 4]);
    let mut model = Formula::new(&truth, Damage::Additive, 32, 0.0);
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let best = problem.solve(&Limits::default()).unwrap();
    let (plan, report) = Search::Polish.run(&mut model, &problem, &best, 0, &mut go_on()).unwrap();
    assert_eq!(plan.choices(), best.choices());
    // Twelve proposals, none better on the first eighth of 16 windows.
    assert_eq!((report.status, report.rejected), (Status::OutOfPatience, 12));
    assert_eq!(report.spent.windows, 32 + 12 * 2);
}

#[test]
fn recentring_measures_late_modules_first_and_settles_before() {
    let truth = llama(2, 3, &[2, 3, 4]);
    let mut model = Formula::new(&truth, Damage::Additive, 4, 0.0);
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&truth, BitWidth::B3).unwrap();
    let mut seen = Vec::new();
    let mut stop = stop_after(40);
    let mut watch = |step: &Step| {
        seen.push((step.round, step.rounds, step.moves));
        stop(step)
    };
    Search::Recentre.run(&mut model, &problem, &start, 0, &mut watch).unwrap();
    assert_eq!(model.settled[0].choices(), start.choices());
    // After the plan itself on both parts, single moves.
    let moved: Vec<usize> = model.calls[2..]
        .iter()
        .map(|(plan, _)| {
            let pairs = plan.choices().iter().zip(start.choices());
            let moved: Vec<usize> =
                pairs.enumerate().filter(|(_, (a, b))| a.format != b.format).map(|(at, _)| at).collect();
            assert_eq!(moved.len(), 1);
            moved[0]
        })
        .collect();
    assert_eq!((moved[0], moved.len()), (20, 38));
    assert!(moved.is_sorted_by(|a, b| a >= b), "{moved:?}");
    assert_eq!((seen[0], seen[2], seen[39]), ((0, 3, (0, 0)), (0, 3, (1, 42)), (0, 3, (38, 42))));
}

#[test]
fn a_clock_of_the_caller_stops_a_search() {
    use std::time::Duration;
    let truth = llama(2, 1, &[2, 3, 4]);
    let mut model = Formula::new(&truth, Damage::Additive, 12, 0.0);
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&truth, BitWidth::B3).unwrap();
    let mut seconds = 0;
    let clock = || {
        seconds += 1;
        Duration::from_secs(seconds)
    };
    let mut seen = Vec::new();
    let watch = |step: &Step| {
        seen.push(*step);
        ControlFlow::Continue(())
    };
    let mut progress = gamma_refine::Within::new(Duration::from_secs(9), clock, watch);
    let (_, report) = Search::Polish.run(&mut model, &problem, &start, 0, &mut progress).unwrap();
    assert_eq!((report.status, report.spent.evaluations), (Status::Stopped, 9));
    assert_eq!((seen.len(), seen[8].spent), (9, report.spent));
    assert!(seen[1].gated && !seen[0].gated && seen[0].best.is_none() && seen[2].best.is_some());
}
