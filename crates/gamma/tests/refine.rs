//! Plans that are measured before they are returned.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use gamma::{
    BitWidth, Budget, Calibration, Choices, Comparison, Error, Event, Gamma, GroupSize, Limits, ModuleScores,
    Proxy, Quiet, Refinement, Rtn, Run, ScoreTable, Scores, ScoresFile, Settings, Stability, Strategy,
};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let calibration = Calibration::text_file(fable().join("calibration.txt"));
        Gamma::builder()
            .device(gamma::device::tested())
            .model(fable())
            .calibration(calibration.sequences(16).gate_sequences(8).length(64))
            .quantizer(Rtn::asymmetric(GroupSize::new(64).expect("valid")))
            .candidates([2, 3, 4, 8])
            .build()
            .expect("valid settings")
    })
}

fn brief() -> Refinement {
    Refinement { rounds: 1, proposals: 6, probe: 8, ..Refinement::default() }
}

/// Scores that praise what hurts most: every cost is the negative of a good one.
fn upside_down(scores: &Scores) -> Scores {
    let module = |module: &ModuleScores| {
        let mut module = module.clone();
        module.options.iter_mut().for_each(|option| option.cost = -option.cost);
        module
    };
    let table = ScoreTable::new(scores.table.modules().iter().map(module).collect()).expect("finite");
    Scores::new(ScoresFile { table, ..(**scores).clone() })
}

#[test]
fn a_plan_from_bad_scores_is_never_worse_than_uniform_on_the_gate() {
    let bad = upside_down(&run().score(Proxy::Weights, &mut Quiet).expect("scores"));
    for settings in [Refinement::none(), brief()] {
        for (budget, uniform) in [(3.0, "uniform 3"), (4.2, "uniform 4")] {
            let problem = bad.problem(Budget::average_bits(budget));
            let refined = run().refine(&bad, &problem, &[], &settings, &mut Quiet).expect("refines");
            let gate = |name: &str| {
                let found = refined.candidates.iter().find(|candidate| candidate.name == name);
                found.and_then(|candidate| candidate.gate).expect("measured").mean
            };
            assert!(gate(&refined.name) <= gate(uniform), "{:?}", refined.candidates);
            // The bad plan is really bad, so the promise had something to do.
            assert!(gate("planned") > 2.0 * gate(uniform), "{:?}", refined.candidates);
            assert_ne!(refined.name, "planned");
            assert!(
                refined.plan.stored_bits()
                    <= problem
                        .solve(&gamma::Limits::default())
                        .unwrap()
                        .certificate()
                        .expect("solved")
                        .limit_bits
            );
        }
    }
}

#[test]
fn refining_keeps_rules_improves_the_gate_and_leaves_a_context() {
    let scores = run().score(Proxy::Weights, &mut Quiet).expect("scores");
    let problem = scores.problem(Budget::average_bits(2.5)).rule("min *.o_proj 3".parse().expect("a rule"));
    let refined = run().refine(&scores, &problem, &[], &brief(), &mut Quiet).expect("refines");
    let kept = |name: &str| name.ends_with("o_proj");
    let widths = refined.plan.choices().iter().filter(|choice| kept(choice.name.as_str()));
    assert!(widths.map(|choice| choice.format.bits()).all(|bits| bits >= BitWidth::B3));
    let found = refined.recentred.as_ref().expect("rounds were asked for");
    let (before, after) =
        (found.report.before.gate.expect("measured"), found.report.after.gate.expect("too"));
    assert!(after.mean <= before.mean, "{:?}", found.report);
    assert!(refined.predicted.is_some());

    // The context survives the file, and the next budget is solved with it.
    assert_eq!(refined.scores.contexts.len(), 1);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scores.json");
    refined.scores.save(&path).expect("writes");
    let again = Scores::load(&path).expect("reads");
    assert_eq!(again, refined.scores);
    let plan = |scores: &Scores| scores.project(Budget::average_bits(2.5)).expect("feasible");
    assert_ne!(*plan(&again), *plan(&scores), "what was measured changes the plan");
    assert!(plan(&again).stored_bits() <= plan(&scores).certificate().expect("solved").limit_bits);
}

#[test]
fn a_stop_while_refining_returns_the_best_plan_so_far() {
    let scores = run().score(Proxy::Weights, &mut Quiet).expect("scores");
    let problem = scores.problem(Budget::average_bits(2.5));
    let mut seen = 0;
    let mut stop = |event: Event| {
        if let Event::Refining { .. } = event {
            seen += 1;
            if seen == 5 {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    let refined = run().refine(&scores, &problem, &[], &brief(), &mut stop).expect("no error");
    assert!(refined.recentred.is_none() && refined.candidates.iter().any(|c| c.name == refined.name));
}

#[test]
fn every_proxy_scores_the_candidates_of_a_run() {
    let proxies = Strategy::ALL.into_iter().filter_map(|strategy| match strategy {
        Strategy::Scored(proxy) => Some(proxy),
        _ => None,
    });
    for proxy in proxies {
        // The costly ones have tests of their own; here one level and few sequences must do.
        let proxy =
            if let Proxy::Noise { seed, .. } = proxy { Proxy::Noise { levels: 1, seed } } else { proxy };
        let scores = run().score(proxy, &mut Quiet).expect("scores");
        let plan = scores.project(Budget::average_bits(3.0)).expect("feasible");
        assert!((plan.code_bits_per_weight() - 3.0).abs() < 0.05, "{proxy:?}");
        assert!(scores.provenance.learner.contains(proxy.name()), "{}", scores.provenance.learner);
    }
}

#[test]
fn a_comparison_goes_on_where_it_was_stopped() {
    let jury = run().jury(&[fable().join("evaluation.txt")], Some(64), Some(8), &mut Quiet).expect("judges");
    let comparison = Comparison {
        strategies: vec![Strategy::Uniform, Strategy::Scored(Proxy::Weights)],
        budgets: [2.5, 3.0].map(|bits| (bits.to_string(), Budget::average_bits(bits))).to_vec(),
        seeds: vec![0],
        rules: Vec::new(),
        choices: Vec::new(),
        refinement: Refinement::none(),
    };
    let mut first = Vec::new();
    let mut stop = |rows: &[gamma::Row]| {
        first = rows.to_vec();
        if rows.len() == 3 { Err(Error::Interrupted) } else { Ok(()) }
    };
    let stopped = run().compare(&jury, &comparison, &[], &mut stop, &mut Quiet);
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let mut new = 0;
    let mut count = |_: &[gamma::Row]| {
        new += 1;
        Ok(())
    };
    let rows = run().compare(&jury, &comparison, &first, &mut count, &mut Quiet).expect("compares");
    assert_eq!((rows.len(), new), (4, 1));
    assert_eq!(rows[..3], first[..3]);
    let uniform = |budget: &str| rows.iter().find(|row| row.is("uniform", budget, 0)).expect("measured");
    assert!((uniform("2.5").code_bits - 2.0).abs() < 1e-9 && (uniform("3").code_bits - 3.0).abs() < 1e-9);
}

#[test]
fn choices_of_other_tools_become_plans_or_say_what_is_wrong() {
    let scores = run().options().expect("reads").expect("sizes are known");
    let bits = |width: u8, skip: usize| -> String {
        let names = scores.table.modules().iter().skip(skip);
        let pairs: Vec<String> = names.map(|module| format!("\"{}\": {width}", module.name)).collect();
        format!("{{\"tool\": \"t\", \"budgets\": {{\"3\": {{\"bits\": {{{}}}}}}}}}", pairs.join(", "))
    };
    let folder = tempfile::tempdir().expect("a folder");
    let load = |text: &str| {
        let path = folder.path().join("choices.json");
        std::fs::write(&path, text).expect("writes");
        Choices::load(&path)
    };
    let plan = |text: &str| load(text).expect("choices").budgets["3"].plan(&scores);
    assert!((plan(&bits(3, 0)).expect("fits").code_bits_per_weight() - 3.0).abs() < 1e-9);
    assert!(matches!(plan(&bits(5, 0)), Err(Error::Width { bits: 5, .. })));
    assert!(matches!(plan(&bits(3, 1)), Err(Error::Modules { in_plan: false, .. })));
    let other = bits(3, 0).replace("layers.0.mlp.up_proj", "layers.77.mlp.up_proj");
    assert!(matches!(plan(&other), Err(Error::Modules { in_plan: true, .. })));
    assert!(matches!(load("{"), Err(Error::Choices { .. })));
}

#[test]
fn resamples_tell_choices_that_the_data_support_from_coin_flips() {
    let settings = Settings { rounds: 2, steps: 8, survey_draws: 1, ..Settings::default() };
    let calibration = Calibration::text_file(fable().join("calibration.txt"));
    let run = Gamma::builder()
        .device(gamma::device::tested())
        .model(fable())
        .calibration(calibration.sequences(16).length(64))
        .quantizer(Rtn::asymmetric(GroupSize::new(64).expect("valid")))
        .candidates([2, 3, 4])
        .learning(settings)
        .build()
        .expect("valid settings");
    let learning = run.learn_detailed(0, &mut Quiet).expect("learns");
    let problem = learning.scores.problem(Budget::average_bits(3.0));
    let plan = learning.scores.solve(&problem, &Limits::default()).expect("feasible");
    let found = learning.stability(&problem, &plan, 12).expect("resamples");
    assert_eq!((found.resamples, found.kept.len()), (12, plan.choices().len()));
    let shares = || found.kept.iter().map(|(_, share)| *share);
    // Sixteen steps on eight batches: some choices are clear, some are not.
    assert!(shares().any(|share| share > 0.9) && shares().any(|share| share < 1.0), "{found:?}");
    assert!(shares().all(|share| ((share * 12.0).round() / 12.0 - share).abs() < 1e-12), "{found:?}");
    assert!(found.coin_flips().iter().all(|(_, share)| *share < 0.75));
    // A plan that no data ask for keeps less.
    let other = learning.scores.uniform(BitWidth::B3).expect("a candidate");
    let odd = learning.stability(&problem, &other, 12).expect("resamples");
    let mean = |found: &Stability| found.kept.iter().map(|(_, share)| share).sum::<f64>();
    assert!(mean(&odd) < mean(&found), "{odd:?} {found:?}");
    assert!(matches!(
        learning.stability(&problem, &plan, 0),
        Err(Error::Missing { setting: "resamples", .. })
    ));
}

#[test]
fn too_little_text_to_refine_is_found_out_before_learning() {
    let text = Calibration::text_file(fable().join("calibration.txt"));
    let run = |calibration: Calibration| {
        Gamma::builder()
            .device(gamma::device::tested())
            .model(fable())
            .calibration(calibration)
            .build()
            .expect("valid settings")
    };
    let error = run(text.clone().sequences(1).gate_sequences(0).length(64)).check_gate().unwrap_err();
    assert!(error.to_string().contains("calibration.sequences"), "{error}");
    assert!(run(text.sequences(2).length(64)).check_gate().is_ok());
    assert!(run(Calibration::sampled()).check_gate().is_ok());
}
