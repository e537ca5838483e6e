//! The whole way from a checkpoint to a judged plan, on the shipped model.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use gamma::{
    BitWidth, Budget, Calibration, Error, Event, Format, Gamma, GroupSize, Limits, Objective, Pressure,
    Quantizer, Quiet, Reading, Rtn, Run, ScoreSource, Scores, Settings, Solver,
    core::{FixedRole, Part},
    quant::{CalibrationNeeds, CalibrationStats, QuantizeError, QuantizedWeight, WeightView},
};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

fn group() -> GroupSize {
    GroupSize::new(64).expect("valid")
}

fn brief() -> Settings {
    Settings { rounds: 2, steps: 8, survey_draws: 4, ..Settings::default() }
}

fn builder() -> gamma::Builder {
    Gamma::builder()
        .device(gamma::device::tested())
        .model(fable())
        .calibration(Calibration::text_file(fable().join("calibration.txt")).sequences(32).length(128))
        .quantizer(Rtn::asymmetric(group()))
        .candidates([2, 3, 4, 6, 8])
        .learning(brief())
}

/// One learning run for all tests.
fn learned() -> &'static (Run, Scores) {
    static LEARNED: OnceLock<(Run, Scores)> = OnceLock::new();
    LEARNED.get_or_init(|| {
        let run = builder().build().expect("valid settings");
        let scores = run.learn(&mut Quiet).expect("learns");
        (run, scores)
    })
}

#[test]
fn learned_plans_beat_uniform_precision_of_the_same_size() {
    let (run, scores) = learned();
    let jury = run.jury(&[fable().join("evaluation.txt")], Some(256), Some(24), &mut Quiet).expect("judges");
    let judge = |plan: &gamma::Plan| {
        let applied = run.apply(plan).expect("fits the model");
        jury.evaluate(&applied, &mut Quiet).expect("finite")
    };
    for bits in [BitWidth::B3, BitWidth::B4] {
        let uniform = scores.uniform(bits).expect("a candidate");
        let plan = scores.project(Budget::average_bits(f64::from(bits.bits()))).expect("feasible");
        assert!(plan.stored_bits() <= uniform.stored_bits());
        let (learned, uniform) = (judge(&plan), judge(&uniform));
        assert!(learned.kl < uniform.kl, "{bits} bits: {learned:?} against {uniform:?}");
    }
    let between = judge(&scores.project(Budget::average_bits(2.5)).expect("feasible"));
    let below = judge(&scores.uniform(BitWidth::B2).expect("a candidate"));
    assert!(between.perplexity() < 0.5 * below.perplexity(), "{between:?} against {below:?}");
    assert!(between.perplexity() > jury.full_precision().perplexity());
}

#[test]
fn stored_bits_are_the_bytes_of_the_written_tensors_and_the_checkpoint_is_the_judged_model() {
    let (run, scores) = learned();
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("quantized");
    let plan = scores.project(Budget::average_bits(3.0)).expect("feasible");
    let applied = run.apply(&plan).expect("fits the model");
    applied.save(&out).expect("writes");

    let packed = std::fs::read(out.join("packed.safetensors")).expect("written");
    let tensors = safetensors::SafeTensors::deserialize(&packed).expect("safetensors");
    let codes = |name: &str| [".codes", ".scales", ".zeros"].iter().any(|part| name.ends_with(part));
    let bytes = |planned: bool| -> u64 {
        let own = tensors.tensors().into_iter().filter(|(name, _)| codes(name) == planned);
        own.map(|(_, tensor)| tensor.data().len() as u64).sum()
    };
    assert_eq!(bytes(true) * 8, plan.stored_bits());
    // The account of the plan is that of the file, but for what the header leaves of its bound.
    let (footprint, remainder) = (plan.footprint(), plan.remainder().expect("learned from a model"));
    assert_eq!(bytes(false), remainder.tensor_bytes());
    let header = packed.len() as u64 - bytes(true) - bytes(false);
    assert!((header..header + header / 4).contains(&footprint.bytes(Part::Container)), "{footprint}");
    assert!(plan.stored_bits() <= plan.certificate().expect("solved").limit_bits);

    // Read back through our own reader, the checkpoint is the model that was judged, to the bit.
    let text = [fable().join("evaluation.txt")];
    let jury = run.jury(&text, Some(128), Some(8), &mut Quiet).expect("judges");
    let judged = jury.evaluate(&applied, &mut Quiet).expect("finite");
    let reread = Gamma::builder()
        .device(gamma::device::tested())
        .model(&out)
        .calibration(Calibration::none())
        .build()
        .expect("loads");
    let again = reread.jury(&text, Some(128), Some(8), &mut Quiet).expect("judges").full_precision();
    assert!((judged.loss - again.loss).abs() < 1e-12, "{judged:?} and {again:?}");
    assert!(matches!(reread.apply(&plan), Err(Error::OtherWeights { .. })));
}

#[test]
fn excluded_modules_stay_as_they_are() {
    let (run, scores) = learned();
    let problem = scores
        .problem(Budget::average_bits(3.0))
        .rule("exclude model.layers.0.*".parse().expect("a rule"))
        .rule("tie vllm".parse().expect("a rule"));
    let plan = scores.solve(&problem, &Limits::default()).expect("feasible");
    assert_eq!((plan.choices().len(), plan.excluded().len()), (35, 7));
    let footprint = plan.footprint();
    assert_eq!(footprint.bytes(Part::Fixed(FixedRole::Module)), 49_152 * 2, "{footprint}");
    let applied = run.apply(&plan).expect("fits the model");
    assert!(applied.weights().keys().all(|name| name.block() != Some(0)));
    // A plan that forgets a module, rather than to exclude it, is refused.
    let forgetful = plan.to_json().replacen("\"model.layers.0.self_attn.q_proj\",", "", 1);
    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("plan.json");
    std::fs::write(&path, forgetful).expect("writes");
    let error = run.apply(&gamma::Plan::load(&path).expect("parses")).expect_err("incomplete");
    assert!(matches!(error, Error::Modules { in_plan: false, .. }), "{error}");
}

#[test]
fn what_cannot_be_planned_is_refused_before_learning() {
    let (run, scores) = learned();
    let options = run.options().expect("reads").expect("integer formats");
    assert_eq!(options.table.minimum_bits(), scores.table.minimum_bits());
    assert_eq!(options.remainder, scores.remainder);
    let problem = options.problem(Budget::average_bits(2.5));
    assert!(problem.check(&Limits::default()).is_ok());
    let problem = problem.rule("min * 3".parse().expect("a rule"));
    let error = problem.check(&Limits::default()).expect_err("too small");
    assert!(error.to_string().contains("without `min * 3`"), "{error}");
}

#[test]
fn ten_budgets_come_from_one_score_file_and_both_solvers_agree() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("scores.json");
    learned().1.save(&path).expect("writes");
    let scores = Scores::load(&path).expect("reads");
    assert!(scores == learned().1, "the scores differ after a round trip");
    let mut last = f64::INFINITY;
    for step in 0..10 {
        let budget = Budget::average_bits(2.0 + 0.25 * f64::from(step));
        let plan = scores.project(budget).expect("feasible");
        let proof = plan.certificate().expect("solved");
        assert!(proof.gap() <= 0.0 && plan.stored_bits() <= proof.limit_bits);
        assert!(plan.cost() <= last, "a larger budget cannot cost more");
        last = plan.cost();
        if cfg!(feature = "highs") {
            let other = scores
                .solve(&scores.problem(budget), &Limits::default().solver(Solver::Highs))
                .expect("feasible");
            assert!((other.cost() - plan.cost()).abs() <= 1e-9 * plan.cost().abs(), "{budget}");
        }
    }
    let error = scores.project(Budget::bytes(1000)).expect_err("too small");
    assert!(error.to_string().contains("needs"), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_scores_and_another_seed_others() {
    let scores = |seed| {
        let settings = Settings { rounds: 1, steps: 2, survey_draws: 1, seed, ..Settings::default() };
        let run = builder().candidates([2, 4]).learning(settings).build().expect("valid");
        run.learn(&mut Quiet).expect("learns")
    };
    assert!(scores(3) == scores(3));
    assert!(scores(3).table != scores(4).table);
    assert_ne!(scores(3).provenance.settings, scores(4).provenance.settings);
}

#[test]
fn the_paper_mode_holds_its_budget() {
    let settings = Settings {
        pressure: Pressure::AugmentedLagrangian { target: 3.0, rho: 2.0 },
        rounds: 6,
        steps: 12,
        survey_draws: 2,
        ..Settings::default()
    };
    let run = builder()
        .candidates([2, 3, 4])
        .learning(settings)
        .scores(ScoreSource::Logits)
        .build()
        .expect("valid");
    let mut last = f64::NAN;
    let scores = run.learn(&mut |event: Event| {
        if let Event::Learning(step) = event {
            last = step.expected_bits;
        }
        ControlFlow::Continue(())
    });
    assert!((last - 3.0).abs() < 0.25, "the expected bits end at {last}");
    // Logits fill the budget: no smaller than uniform 3 bits by more than one step of one module.
    let plan = scores.expect("learns").project(Budget::average_bits(3.0)).expect("feasible");
    assert!(plan.code_bits_per_weight() > 2.95, "{}", plan.code_bits_per_weight());
}

#[test]
fn the_model_can_write_its_own_calibration_text() {
    // Few draws of each option say little where the student runs through; block by block they are
    // enough for every cost to be positive.
    let objective = Objective { reading: Reading::Teacher, ..Objective::default() };
    let settings = Settings { objective, rounds: 0, steps: 1, survey_draws: 6, ..Settings::default() };
    let calibration = Calibration::sampled().sequences(4).length(32);
    let run =
        builder().calibration(calibration).candidates([2, 4]).learning(settings).build().expect("valid");
    let scores = run.learn(&mut Quiet).expect("learns");
    assert!(scores.table.modules().iter().all(|module| module.options[0].cost > 0.0));
}

#[test]
fn a_break_ends_in_an_interruption() {
    let mut steps = 0;
    let outcome = builder().build().expect("valid").learn(&mut |event: Event| {
        steps += usize::from(matches!(event, Event::Learning(_)));
        if steps > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(outcome, Err(Error::Interrupted)));
    assert_eq!(steps, 4);
}

/// Rounds to nearest, and records what it is told about the inputs.
#[derive(Debug, Default)]
struct Curious {
    seen: Mutex<Vec<(usize, f64, f64, usize)>>,
}

impl Quantizer for Curious {
    fn name(&self) -> &'static str {
        "curious"
    }
    fn describe(&self) -> String {
        "curious".into()
    }
    fn formats(&self, width: BitWidth) -> Vec<Format> {
        Rtn::symmetric(group()).formats(width)
    }
    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        format: &Format,
    ) -> Result<QuantizedWeight, QuantizeError> {
        stats.check(weight.name(), weight.shape()[1], self.needs())?;
        let hessian = stats.hessian.as_ref().expect("checked");
        let trace: f64 = hessian.matrix().diag().iter().map(|&x| f64::from(x)).sum();
        let moment: f64 = stats.second_moment.as_ref().expect("checked").iter().map(|&x| f64::from(x)).sum();
        let samples = stats.samples.as_ref().expect("checked").nrows();
        self.seen.lock().expect("no panic").push((stats.tokens, trace, moment, samples));
        Rtn::symmetric(group()).quantize(weight, stats, format)
    }
    fn needs(&self) -> CalibrationNeeds {
        CalibrationNeeds::Samples
    }
}

#[test]
fn a_quantizer_of_ones_own_sees_the_statistics_it_needs() {
    let curious: &'static Curious = Box::leak(Box::default());
    let settings = Settings { rounds: 0, steps: 1, survey_draws: 6, ..Settings::default() };
    let run = builder().quantizer(curious).candidates([3]).learning(settings).build().expect("valid");
    run.learn(&mut Quiet).expect("learns");
    let seen = curious.seen.lock().expect("no panic");
    assert_eq!(seen.len(), 42);
    assert!(seen.iter().all(|&(tokens, trace, moment, samples)| tokens == 32 * 128
        && (512..=1024).contains(&samples)
        && trace > 0.0
        && (trace - moment).abs() < 1e-3 * trace));
}

#[test]
fn every_wrong_setting_is_named_before_any_work() {
    let message = |builder: gamma::Builder| builder.build().map(|_| ()).expect_err("refused").to_string();
    let text = || Calibration::text_file(fable().join("calibration.txt"));
    assert!(message(Gamma::builder().calibration(text())).contains("`model`"));
    assert!(message(Gamma::builder().model(fable())).contains("`calibration`"));
    assert!(message(builder().model("no/such/folder")).contains("no/such/folder"));
    assert!(message(builder().candidates([])).contains("candidates"));
    assert!(message(builder().candidates([3, 3])).contains("twice"));
    assert!(message(builder().candidates([1, 2])).contains("2 to 8"));
    assert!(message(builder().calibration(text().sequences(0))).contains("calibration.sequences"));
    assert!(message(builder().calibration(text().sequences(100_000).length(256))).contains("bytes of text"));
    assert!(message(builder().calibration(text().length(100_000))).contains("tokens"));
    assert!(message(builder().calibration(Calibration::text_file("no.txt"))).contains("no.txt"));
    assert!(message(builder().scores(ScoreSource::Logits)).contains("logits"));
    assert!(
        message(builder().learning(Settings { learning_rate: f64::NAN, ..brief() }))
            .contains("learning_rate")
    );
    let nothing = builder().calibration(Calibration::none()).build().expect("enough to apply plans");
    assert!(matches!(nothing.learn(&mut Quiet), Err(Error::Missing { .. })));
}

#[test]
fn a_plan_for_another_quantizer_is_refused() {
    let plan = learned().1.project(Budget::average_bits(3.0)).expect("feasible");
    let run = builder().quantizer(Rtn::symmetric(group())).build().expect("valid");
    let error = run.apply(&plan).map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("int") && error.contains("asym") && error.contains("self_attn"), "{error}");
}
