//! Ternary and integer codes compete for the modules of the shipped model.

use std::path::{Path, PathBuf};

use gamma::{
    Budget, Calibration, Format, Gamma, GroupSize, Limits, Plan, Quiet, Rtn, Run, Scores, Settings, Variants,
};
use ternary::{Packed, Ternary};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

fn group() -> GroupSize {
    GroupSize::new(64).expect("valid")
}

fn run() -> Run {
    Gamma::builder()
        .model(fable())
        .calibration(Calibration::text_file(fable().join("calibration.txt")).sequences(16).length(128))
        .quantizer(Variants::new([Rtn::asymmetric(group())]).and(Ternary::new(group()).weighted()))
        .candidates([2, 3, 4])
        .learning(Settings { rounds: 1, steps: 6, survey_draws: 2, ..Settings::default() })
        .build()
        .expect("valid settings")
}

/// The cheapest plan of any size that obeys `rules`.
fn obeying(scores: &Scores, rules: &[&str]) -> Plan {
    let problem = scores
        .problem(Budget::stored_bits_per_weight(16.0))
        .rules(rules.iter().map(|rule| rule.parse().expect("a rule")));
    scores.solve(&problem, &Limits::default()).expect("feasible")
}

fn ternary_modules(plan: &Plan) -> usize {
    plan.choices().iter().filter(|choice| matches!(choice.format, Format::Custom { .. })).count()
}

#[test]
#[expect(clippy::print_stdout, reason = "the tutorial quotes these numbers")]
fn ternary_and_integer_codes_share_a_plan_whose_size_is_known_beforehand() {
    let run = run();
    let formats: Vec<String> = run.formats().iter().map(ToString::to_string).collect();
    let expected = ["int2:g64:asym:f16", "custom2:ternary-g64", "int3:g64:asym:f16", "int4:g64:asym:f16"];
    assert_eq!(formats, expected);

    // Before anything is quantized: ternary codes make room below the smallest integer plan.
    let options = run.options().expect("reads").expect("every format says its size");
    let small = options.problem(Budget::stored_bits_per_weight(2.0));
    assert!(small.check(&Limits::default()).is_ok());
    let integers = "min * int2:g64:asym:f16".parse().expect("a rule");
    assert!(small.rule(integers).check(&Limits::default()).is_err());

    let scores = run.learn(&mut Quiet).expect("learns");
    for (promised, learned) in options.table.modules().iter().zip(scores.table.modules()) {
        let sizes = |module: &gamma::ModuleScores| -> Vec<(Format, u64)> {
            module.options.iter().map(|option| (option.format.clone(), option.stored_bits)).collect()
        };
        assert_eq!(sizes(promised), sizes(learned), "{}", learned.name);
    }

    let uniform = obeying(&scores, &["pin * int2:g64:asym:f16"]);
    let smallest = obeying(&scores, &["pin * custom2:ternary-g64"]);
    let mixed = scores.project(Budget::bytes(uniform.stored_bits() / 8)).expect("feasible");
    assert!(mixed.stored_bits() <= uniform.stored_bits());
    assert!((1..42).contains(&ternary_modules(&mixed)), "{} of 42", ternary_modules(&mixed));

    let jury = run.jury(&[fable().join("evaluation.txt")], Some(256), Some(8), &mut Quiet).expect("judges");
    let judge = |name: &str, plan: &Plan| {
        let measured = jury.evaluate(&run.apply(plan).expect("fits"), &mut Quiet).expect("finite");
        let (bits, ternary) = (plan.stored_bits_per_weight(), ternary_modules(plan));
        println!("{name}: {bits:.3} bits, {ternary} ternary, perplexity {:.1}", measured.perplexity());
        measured
    };
    let (mixed, uniform) = (judge("mixed", &mixed), judge("int2", &uniform));
    assert!(judge("ternary", &smallest).kl < uniform.kl);
    assert!(mixed.kl < 0.8 * uniform.kl, "{mixed:?} against {uniform:?}");
}

#[test]
fn custom_codes_leave_as_a_checkpoint_and_as_bytes_of_ones_own() {
    let run = run();
    let scores = run.options().expect("reads").expect("every format says its size");
    let plan = obeying(&scores, &["pin *.mlp.* custom2:ternary-g64", "pin *.self_attn.* 4"]);
    let applied = run.apply(&plan).expect("fits the model");
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("out");

    // The checkpoint with decoded weights, which any engine loads; the packed file holds integer codes
    // only, and is left out.
    applied.save(&out).expect("writes");
    assert!(out.join("model.safetensors").exists() && !out.join("packed.safetensors").exists());
    let text = [fable().join("evaluation.txt")];
    let jury = run.jury(&text, Some(128), Some(4), &mut Quiet).expect("judges");
    let judged = jury.evaluate(&applied, &mut Quiet).expect("finite");
    let reread = Gamma::builder().model(&out).calibration(Calibration::none()).build().expect("loads");
    let again = reread.jury(&text, Some(128), Some(4), &mut Quiet).expect("judges").full_precision();
    assert!((judged.loss - again.loss).abs() < 1e-12, "{judged:?} and {again:?}");

    // The codes themselves, in exactly the size that the plan counted.
    let mut packed = 0;
    for choice in plan.choices().iter().filter(|choice| matches!(choice.format, Format::Custom { .. })) {
        let values = applied.weights()[&choice.name].dequantize();
        let bytes = Packed::new(values.view(), group()).expect("ternary");
        assert_eq!((bytes.bits(), bytes.decode()), (choice.stored_bits, values), "{}", choice.name);
        packed += 1;
    }
    assert_eq!(packed, 18);
}
