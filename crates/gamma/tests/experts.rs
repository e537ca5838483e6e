//! Models with experts, the whole way: learned, planned, improved, applied, written and read again.

use std::path::{Path, PathBuf};

use gamma::{
    Awq, Budget, Calibration, Error, ExportError, FEWEST_TOKENS, Gamma, Gptq, GroupSize, IntegerLayout,
    Objective, Proxy, Quiet, Reading, Refinement, Rtn, Run, Scores, Settings,
    core::{FixedRole, Part},
    export::read_packed,
    report,
};

const MODELS: [&str; 2] = ["qwen3-moe-random", "mixtral-random"];

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn group() -> GroupSize {
    GroupSize::new(16).expect("valid")
}

/// So little text that some experts see few tokens of it.
fn builder(model: &str) -> gamma::Builder {
    let text = tests().join("fixtures/fable/calibration.txt");
    Gamma::builder()
        .device(gamma::device::tested())
        .model(tests().join("golden").join(model))
        .calibration(Calibration::text_file(text).sequences(3).length(32))
        .quantizer(Rtn::asymmetric(group()))
        .candidates([2, 3, 4])
        .learning(Settings { rounds: 1, steps: 4, survey_draws: 2, ..Settings::default() })
}

/// Costs of all options of modules of starved experts, and of those of fed ones.
fn costs(scores: &Scores) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let few = &scores.routing.as_ref().expect("a model with experts").few;
    let of_expert = |name: &str| few.iter().any(|expert| name.starts_with(&format!("{}.", expert.name)));
    let experts = scores.table.modules().iter().filter(|module| module.name.expert().is_some());
    let (starved, fed): (Vec<_>, Vec<_>) = experts.partition(|module| of_expert(module.name.as_str()));
    let costs = |modules: Vec<&gamma::ModuleScores>| {
        modules.iter().map(|module| module.options.iter().map(|option| option.cost).collect()).collect()
    };
    (costs(starved), costs(fed))
}

#[test]
fn experts_are_learned_planned_and_applied_and_the_written_checkpoint_is_the_judged_model() {
    for model in MODELS {
        let run = builder(model).build().expect("valid settings");
        let scores = run.learn(&mut Quiet).expect("learns");
        let routing = scores.routing.as_ref().expect("a model with experts");
        assert_eq!(routing.tokens, 3 * 32);
        assert!(!routing.is_sufficient() && routing.few.iter().all(|one| one.tokens < FEWEST_TOKENS));
        assert!(routing.few.is_sorted_by_key(|one| one.tokens));
        let warning = report::starved(routing).expect("a warning");
        assert!(warning.contains(&routing.few[0].name), "{warning}");

        let plan = scores.project(Budget::average_bits(3.0)).expect("feasible");
        let grid = report::grid(&plan);
        let row = if model.starts_with("mixtral") { "experts.w2" } else { "experts.down_proj" };
        assert_eq!(grid.matches(row).count(), 1, "{grid}");
        assert!(plan.footprint().bytes(Part::Fixed(FixedRole::Router)) > 0, "{}", plan.footprint());
        let unplanned = run.unplanned().expect("reads");
        let all: u64 = unplanned.values().map(|own| own.weights).sum::<u64>() + run.planned_weights();
        let file = std::fs::metadata(tests().join("golden").join(model).join("model.safetensors"));
        let header = 1 << 14; // everything else is in bfloat16
        assert!((2 * all..2 * all + header).contains(&file.expect("there").len()), "{model}: {all} weights");
        assert!(!unplanned.contains_key(&FixedRole::Other) && !unplanned.contains_key(&FixedRole::Module));

        let scratch = tempfile::tempdir().expect("a folder");
        let out = scratch.path().join("quantized");
        let applied = run.apply(&plan).expect("fits the model");
        applied.save(&out).expect("writes");
        let packed = read_packed(&out.join("packed.safetensors")).expect("reads");
        assert_eq!(packed.len(), plan.choices().len());
        let stored: u64 = packed.values().map(gamma::quant::QuantizedWeight::stored_bits).sum();
        assert_eq!(stored, plan.stored_bits());
        let text = [tests().join("fixtures/fable/evaluation.txt")];
        let jury = run.jury(&text, Some(32), Some(8), &mut Quiet).expect("judges");
        let judged = jury.evaluate(&applied, &mut Quiet).expect("finite");
        let again = jury.evaluate_folder(&out, &mut Quiet).expect("loads");
        assert!((judged.loss - again.loss).abs() < 1e-12, "{judged:?} and {again:?}");
        assert!(judged.kl > 1e-4, "{judged:?}");
    }
}

#[test]
fn every_way_to_score_charges_experts_that_the_text_did_not_reach() {
    for model in MODELS {
        let run = builder(model).build().expect("valid settings");
        for proxy in [
            Proxy::Moments,
            Proxy::Hessian,
            Proxy::Trace,
            Proxy::Fisher,
            Proxy::FirstOrder,
            Proxy::Block,
            Proxy::Divergence,
        ] {
            let scores = run.score(proxy, &mut Quiet).expect("scores");
            let (starved, fed) = costs(&scores);
            let mean = |costs: &[Vec<f64>]| costs.iter().map(|own| own[0]).sum::<f64>() / costs.len() as f64;
            assert!(!starved.is_empty() && !fed.is_empty());
            for own in &starved {
                assert!(own[0] > 0.0 && own[0] > own[2], "{model}, {}: {own:?}", proxy.name());
            }
            let (starved, fed) = (mean(&starved), mean(&fed));
            assert!(
                starved > 0.1 * fed && starved < 10.0 * fed,
                "{model}, {}: {starved} and {fed}",
                proxy.name()
            );
        }
        // Who looks at no data charges all experts alike.
        assert!(run.score(Proxy::Weights, &mut Quiet).expect("scores").routing.is_none());
    }
    let objective = Objective { reading: Reading::PerModule, ..Objective::default() };
    let run = builder(MODELS[0]).learning(Settings { objective, ..Settings::default() });
    let (starved, _) = costs(&run.build().expect("valid").learn(&mut Quiet).expect("learns"));
    assert!(starved.iter().all(|own| own[0] > 0.0 && own[0] > own[2]), "{starved:?}");
}

#[test]
fn refinement_does_not_narrow_what_it_cannot_measure() {
    let run = builder("qwen3-moe-random").build().expect("valid settings");
    let scores = run.learn(&mut Quiet).expect("learns");
    let problem = scores.problem(Budget::average_bits(3.0));
    let planned = scores.project(Budget::average_bits(3.0)).expect("feasible");
    let settings = Refinement { rounds: 1, proposals: 12, ..Refinement::default() };
    let refined = run.refine(&scores, &problem, &[], &settings, &mut Quiet).expect("measures");
    let routing = scores.routing.as_ref().expect("a model with experts");
    let held = |name: &str| routing.few.iter().any(|one| name.starts_with(&format!("{}.", one.name)));
    let mut checked = 0;
    // What re-centring and polishing led to; a uniform plan may win over it.
    let recentred = &refined.recentred.as_ref().expect("a round was asked for").plan;
    let searched: Vec<_> = refined.polished.iter().map(|found| &found.plan).chain([recentred]).collect();
    for choice in searched.iter().flat_map(|plan| plan.choices()).filter(|choice| held(choice.name.as_str()))
    {
        let before = planned.choice(&choice.name).expect("the same modules");
        assert!(choice.format.bits() >= before.format.bits(), "{} was narrowed", choice.name);
        checked += 1;
    }
    assert!(searched.len() >= 2, "polished and re-centred");
    assert_eq!(checked, 3 * routing.few.len() * searched.len());
    assert!(refined.plan.constraints().is_empty(), "{:?}", refined.plan.constraints());
}

#[test]
fn quantizers_that_look_at_data_take_experts_without_tokens() {
    // 16 tokens to six experts, two each: none of them sees 32.
    let text = tests().join("fixtures/fable/calibration.txt");
    let calibration = || Calibration::text_file(&text).sequences(1).length(16);
    let run = |model| builder(model).calibration(calibration()).candidates([3]);
    for model in MODELS {
        for run in [
            run(model).quantizer(Gptq::asymmetric(group())),
            run(model).rescale(Awq::new(Rtn::asymmetric(group()), &[gamma::BitWidth::B3])),
            run(model).quantizer(Rtn::asymmetric(group()).clip(gamma::Clip::Weighted)),
        ] {
            let run: Run = run.build().expect("valid settings");
            let scores = run.score(Proxy::Hessian, &mut Quiet).expect("quantizes");
            let routing = scores.routing.as_ref().expect("a model with experts");
            assert_eq!(routing.few.len(), routing.experts);
            let plan = scores.project(Budget::average_bits(3.0)).expect("feasible");
            let text = [tests().join("fixtures/fable/evaluation.txt")];
            let jury = run.jury(&text, Some(16), Some(2), &mut Quiet).expect("judges");
            let judged = jury.evaluate(&run.apply(&plan).expect("applies"), &mut Quiet).expect("finite");
            assert!(judged.kl.is_finite());
        }
    }
}

#[test]
fn files_in_which_experts_would_have_to_be_stacked_are_refused() {
    let run = builder("mixtral-random").build().expect("valid settings");
    let plan = run.score(Proxy::Weights, &mut Quiet).expect("scores").uniform(gamma::BitWidth::B4);
    let plan = plan.expect("a candidate");
    let layouts = [IntegerLayout::CompressedTensors, IntegerLayout::AutoRound, IntegerLayout::Mlx];
    for layout in layouts {
        let error = run.integer_bytes(&plan, layout, false).expect_err("refused");
        assert!(matches!(error, Error::Export(ExportError::Experts { .. })), "{error}");
    }
    let error = gamma::Recipe::Mlx.text(&plan, &[]).expect_err("refused");
    assert!(matches!(error, ExportError::Experts { .. }), "{error}");
    let error = run.gguf_bytes(&plan, &std::collections::BTreeMap::new()).expect_err("refused");
    assert!(error.to_string().contains("experts.0.w1"), "{error}");
}
