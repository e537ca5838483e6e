//! Bad input is refused with what would work.

mod synthetic;

use std::ops::Range;

use gamma_core::{BitWidth, Budget, Plan, ScoreKind};
use gamma_ilp::{Problem, ProjectError};
use gamma_refine::{
    EvolveSettings, Examiner, PolishSettings, RandomSettings, RecentreSettings, RefineError, Split, Stage,
    best_of_random, choose, evolve, polish, recentre,
};
use synthetic::{Damage, Formula, go_on, llama};

/// What an examiner may do wrong.
#[derive(Clone, Copy)]
enum Fault {
    Fails,
    TooFew,
    Broken(f64),
}

struct Faulty(Fault);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the model is gone")]
struct Gone;

impl Examiner for Faulty {
    type Error = Gone;

    fn windows(&self) -> usize {
        8
    }

    fn divergence(&mut self, _: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Gone> {
        match self.0 {
            Fault::Fails => Err(Gone),
            Fault::TooFew => Ok(vec![1.0; windows.len() - 1]),
            Fault::Broken(value) => Ok(vec![value; windows.len()]),
        }
    }
}

#[test]
fn faults_of_the_examiner_are_named() {
    let table = llama(0, 1, &[2, 3, 4]);
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&table, BitWidth::B3).unwrap();
    let split = Split::halves(8).unwrap();
    let run = |fault: Fault| {
        polish(&mut Faulty(fault), &split, &problem, &start, &PolishSettings::default(), &mut go_on())
            .unwrap_err()
    };
    let error = run(Fault::Fails);
    assert!(matches!(&error, RefineError::Examine { windows, source: Gone } if *windows == (0..4)));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the model is gone");
    let error = run(Fault::TooFew).to_string();
    assert!(error.contains("3 numbers") && error.contains("expected 4"), "{error}");
    for value in [f64::NAN, f64::INFINITY] {
        assert!(matches!(run(Fault::Broken(value)), RefineError::NotFinite { windows } if windows == (0..4)));
    }
}

#[test]
fn plans_that_the_problem_does_not_admit_are_refused() {
    let table = llama(0, 1, &[2, 3, 4]);
    let mut model = Formula::new(&table, Damage::Additive, 8, 0.0);
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0));
    let split = Split::halves(8).unwrap();
    let wide = Plan::uniform(&table, BitWidth::B4).unwrap();
    let settings = RecentreSettings::default();
    let error = recentre(&mut model, &split, &problem, &wide, &settings, &mut go_on()).unwrap_err();
    let limit = problem.space().unwrap().limit().bits;
    assert!(
        matches!(&error, RefineError::NotAdmitted { used_bits, limit_bits, .. }
            if *used_bits == wide.stored_bits() && *limit_bits == limit),
        "{error}"
    );

    let other = llama(0, 1, &[2, 3, 8]);
    let foreign = Plan::uniform(&other, BitWidth::B8).unwrap();
    let error =
        evolve(&mut model, &split, &problem, &foreign, &EvolveSettings::default(), &mut go_on()).unwrap_err();
    assert!(matches!(error, RefineError::Project(ProjectError::ForeignPlan { .. })), "{error}");

    // One module too few at 2 bits for two thirds of the modules.
    let tight = problem.budget(Budget::average_bits(2.0)).rule("modules 2 3".parse().unwrap());
    let error =
        best_of_random(&mut model, &split, &tight, &RandomSettings::default(), &mut go_on()).unwrap_err();
    assert!(matches!(error, RefineError::NoRandomPlan { tries: 64 }), "{error}");
    assert!(model.calls.is_empty());
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let table = llama(0, 1, &[2, 3, 4]);
    let mut model = Formula::new(&table, Damage::Additive, 8, 0.0);
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&table, BitWidth::B3).unwrap();
    let split = Split::halves(8).unwrap();
    let expect = |name: &str, error: RefineError<std::convert::Infallible>| {
        assert!(matches!(&error, RefineError::Setting { name: own, .. } if *own == name), "{name}: {error}");
    };
    let good = RecentreSettings::default();
    for (name, settings) in [
        ("rounds", RecentreSettings { rounds: 0, ..good }),
        ("rounds", RecentreSettings { rounds: 4, ..good }),
        ("reach", RecentreSettings { reach: 3, ..good }),
        ("halvings", RecentreSettings { halvings: 9, ..good }),
        ("std_errors", RecentreSettings { std_errors: -1.0, ..good }),
    ] {
        expect(name, recentre(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap_err());
    }
    let good = PolishSettings::default();
    for (name, settings) in [
        ("patience", PolishSettings { patience: 0, ..good.clone() }),
        ("reach", PolishSettings { reach: 0, ..good.clone() }),
        ("stages", PolishSettings { stages: vec![], ..good.clone() }),
        ("stages", PolishSettings { stages: vec![0.5, 0.5, 1.0], ..good.clone() }),
        ("stages", PolishSettings { stages: vec![0.5], ..good.clone() }),
        ("stages", PolishSettings { stages: vec![0.0, 1.0], ..good.clone() }),
        ("std_errors", PolishSettings { std_errors: f64::NAN, ..good }),
    ] {
        expect(name, polish(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap_err());
    }
    let good = EvolveSettings::default();
    let stages = |stages: &[(usize, f64)]| stages.iter().copied().map(Stage::from).collect::<Vec<_>>();
    for (name, settings) in [
        ("offspring", EvolveSettings { offspring: 0, ..good.clone() }),
        ("patience", EvolveSettings { patience: Some(0), ..good.clone() }),
        ("flips", EvolveSettings { flips: 0, ..good.clone() }),
        ("stages", EvolveSettings { stages: stages(&[(2, 1.0)]), ..good.clone() }),
        ("stages", EvolveSettings { stages: stages(&[(1, 0.5), (2, 0.7), (1, 1.0)]), ..good }),
    ] {
        expect(name, evolve(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap_err());
    }
    let settings = RandomSettings { plans: 0, seed: 0 };
    expect("plans", best_of_random(&mut model, &split, &problem, &settings, &mut go_on()).unwrap_err());
    assert!(model.calls.is_empty());
}

#[test]
fn a_split_beyond_the_text_and_an_empty_choice_are_refused() {
    let table = llama(0, 1, &[2, 3, 4]);
    let mut model = Formula::new(&table, Damage::Additive, 8, 0.0);
    let plan = Plan::uniform(&table, BitWidth::B3).unwrap();
    let long = Split::halves(9).unwrap();
    let error = choose(&mut model, &long, &[("uniform", &plan)], &mut go_on()).unwrap_err();
    assert!(matches!(error, RefineError::Split(_)), "{error}");
    let split = Split::halves(8).unwrap();
    assert!(matches!(choose(&mut model, &split, &[], &mut go_on()), Err(RefineError::NoCandidates)));
}

#[test]
fn a_plan_that_breaks_the_model_is_rejected_and_ends_nothing() {
    /// Infinite wherever the first module has two bits.
    struct Fragile(Formula);
    impl Examiner for Fragile {
        type Error = std::convert::Infallible;

        fn windows(&self) -> usize {
            self.0.windows()
        }

        fn divergence(&mut self, plan: &Plan, windows: Range<usize>) -> Result<Vec<f64>, Self::Error> {
            let broken = plan.choices()[0].format.bits() == BitWidth::B2;
            let n_windows = windows.len();
            if broken { Ok(vec![f64::NAN; n_windows]) } else { self.0.divergence(plan, windows) }
        }
    }
    let truth = llama(0, 1, &[2, 3, 4]);
    // By the scores the first module does not matter.
    let table = synthetic::recost(&truth, |module, option| {
        if module.name.role() == "q_proj" { 0.0 } else { module.options[option].cost }
    });
    let mut model = Fragile(Formula::new(&truth, Damage::Additive, 8, 0.0));
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&table, BitWidth::B3).unwrap();
    let split = Split::halves(8).unwrap();
    let recentred =
        recentre(&mut model, &split, &problem, &start, &RecentreSettings::default(), &mut go_on()).unwrap();
    let polished =
        polish(&mut model, &split, &problem, &start, &PolishSettings::default(), &mut go_on()).unwrap();
    let evolved =
        evolve(&mut model, &split, &problem, &start, &EvolveSettings::default(), &mut go_on()).unwrap();
    for plan in [&recentred.plan, &polished.plan, &evolved.plan] {
        assert_ne!(plan.choices()[0].format.bits(), BitWidth::B2);
        assert!(model.0.truth(plan) < model.0.truth(&start));
    }
}
