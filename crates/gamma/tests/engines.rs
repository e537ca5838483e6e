//! Plans of the shipped model as files of engines.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use gamma::{
    Budget, Calibration, Error, ExportError, Gamma, Ggml, GgmlType, GroupSize, IntegerLayout, Limits,
    ModuleName, Plan, Quantizer, Quiet, Rtn, Run, Scores, Settings, ggml::Gguf,
};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

fn run(quantizer: impl Quantizer + 'static, candidates: &[u8]) -> Run {
    Gamma::builder()
        .device(gamma::device::tested())
        .model(fable())
        .calibration(Calibration::text_file(fable().join("calibration.txt")).sequences(8).length(128))
        .quantizer(quantizer)
        .candidates(candidates.iter().copied())
        .learning(Settings { rounds: 0, survey_draws: 1, ..Settings::default() })
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

#[test]
fn block_formats_compete_where_they_fit_and_become_a_gguf_of_the_promised_size() {
    let run = run(Ggml::with_small_blocks().weighted(), &[4, 5, 8]);
    assert_eq!(run.formats().len(), 5, "two types of 4 and of 5 bits, one of 8");
    let options = run.options().expect("reads").expect("every format says its size");
    let scores = run.learn(&mut Quiet).expect("learns");
    for (promised, learned) in options.table.modules().iter().zip(scores.table.modules()) {
        let formats: Vec<String> = learned.options.iter().map(|option| option.format.to_string()).collect();
        let small = ["custom4:ggml-q4_0", "custom5:ggml-q5_0", "custom8:ggml-q8_0"];
        assert_eq!(formats, small, "rows of {} hold no block of 256", learned.shape[1]);
        assert_eq!(promised.options.len(), 3);
    }
    let plan = scores.project(Budget::stored_bits_per_weight(5.5)).expect("feasible");
    let kept = BTreeMap::from([(ModuleName::new("model.embed_tokens"), GgmlType::Q8_0)]);
    let promised = run.gguf_bytes(&plan, &kept).expect("served");

    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("fable.gguf");
    let applied = run.apply(&plan).expect("fits the model");
    let report = applied.gguf(&path, &kept, false).expect("writes");
    assert_eq!((report.file_bytes, fs::metadata(&path).expect("a file").len()), (promised, promised));
    let file = Gguf::open(&path).expect("reads");
    assert_eq!(file.metadata().text("gamma.quantizer"), Some(run.quantizer().as_str()));
    for choice in plan.choices().iter().filter(|choice| choice.name.role() == "down_proj") {
        let block = choice.name.block().expect("a block");
        let tensor = file.tensor(&format!("blk.{block}.ffn_down.weight")).expect("a tensor");
        assert_eq!(tensor.kind.format().as_ref(), Some(&choice.format), "{}", choice.name);
    }
}

#[test]
fn models_whose_rows_nothing_fits_are_refused_by_name() {
    let portable = Ggml::portable();
    let run = run(portable, &[4]);
    let error = run.options().expect_err("blocks of 256 alone");
    assert!(matches!(&error, Error::NothingFits { shape: [_, 64], .. }), "{error}");
    assert!(error.to_string().contains("model.layers.0."), "{error}");
}

#[test]
fn tied_integer_plans_become_folders_and_others_are_refused_before_quantizing() {
    let run = run(Rtn::symmetric(GroupSize::new(64).expect("valid")), &[3, 4, 8]);
    let scores = run.options().expect("reads").expect("every format says its size");
    let untied = obeying(&scores, &["pin *.q_proj 8", "pin *.k_proj 4", "pin *.v_proj 4", "pin *.mlp.* 3"]);
    let layout = IntegerLayout::CompressedTensors;
    let error = run.integer_bytes(&untied, layout, false).expect_err("vLLM joins them");
    assert!(matches!(&error, Error::Export(ExportError::Untied { .. })), "{error}");

    let tied = obeying(&scores, &["pin *.self_attn.* 4", "pin *.mlp.* 3"]);
    assert!(run.integer_bytes(&tied, layout, false).expect("served") > tied.stored_bits() / 8);
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("out");
    let applied = run.apply(&tied).expect("fits the model");
    let files = applied.integers(layout, &out, false, false).expect("writes");
    for name in ["config.json", "model.safetensors", "plan.json", "tokenizer.json"] {
        assert!(files.iter().any(|file| file.name == name), "{name}");
    }
    let error = run.gguf_bytes(&tied, &BTreeMap::new()).expect_err("3 bits are no block format");
    assert!(
        matches!(&error, Error::Export(ExportError::Unserved { modules, .. }) if modules.len() == 18),
        "{error}"
    );
}

#[test]
fn ten_budgets_become_files_within_them_of_sizes_known_to_the_byte() {
    let run = run(Ggml::with_small_blocks().weighted(), &[4, 5, 8]);
    let scores = run.learn(&mut Quiet).expect("learns");
    let embedding = ModuleName::new("model.embed_tokens");
    let scores = scores.keep_as(&embedding, GgmlType::Q8_0).expect("fits");
    let smallest =
        scores.problem(Budget::gguf(1)).solve(&Limits::default()).expect_err("too small").to_string();
    assert!(smallest.contains("larger would do"), "{smallest}");
    let size = |bits: f64| {
        let plan = scores.project(Budget::stored_bits_per_weight(bits)).expect("feasible");
        plan.gguf_bytes().expect("known")
    };
    let (least, most) = (size(4.5), size(8.5));
    let scratch = tempfile::tempdir().expect("a folder");
    let mut sizes = Vec::new();
    for step in 0..10 {
        // Not round numbers.
        let budget = least + (most - least) * step / 9 + 7 * step;
        let plan = scores.project(Budget::gguf(budget)).expect("feasible");
        assert_eq!(plan.footprint().total(), plan.gguf_bytes().expect("known"));
        let path = scratch.path().join(format!("{step}.gguf"));
        let applied = run.apply(&plan).expect("fits the model");
        let report = applied.gguf(&path, &plan.kept(), false).expect("writes");
        assert_eq!(Some(report.file_bytes), plan.gguf_bytes(), "the size is known beforehand");
        assert!(report.file_bytes <= budget, "{} of {budget}", report.file_bytes);
        let file = Gguf::open(&path).expect("reads");
        assert_eq!(file.tensor("token_embd.weight").expect("a tensor").kind, GgmlType::Q8_0);
        sizes.push(report.file_bytes);
    }
    assert!(sizes.is_sorted() && sizes[0] < sizes[5] && sizes[5] < sizes[9], "{sizes:?}");
    for (module, kind, word) in [
        ("model.embed_tokens", GgmlType::Q4K, "divide"),
        ("model.embed_tokens", GgmlType::Iq4Nl, "write"),
        ("lm_head", GgmlType::Q8_0, "no matrix"),
    ] {
        let error = scores.keep_as(&ModuleName::new(module), kind).expect_err("refused").to_string();
        assert!(error.contains(word) && error.contains(module), "{error}");
    }
}

#[test]
fn the_embedding_gets_the_type_that_leads_to_the_cheapest_file() {
    let run = run(Ggml::with_small_blocks().weighted(), &[4, 5, 8]);
    let scores = run.learn(&mut Quiet).expect("learns").overall();
    let gguf = scores.remainder.as_ref().and_then(|remainder| remainder.gguf.clone()).expect("known");
    let [matrix] = &gguf.matrices[..] else { panic!("embedding and head are one: {:?}", gguf.matrices) };
    let cost = |kind: Option<GgmlType>| {
        let option = |kind: GgmlType| matrix.options.iter().find(|option| option.kind == kind.name());
        kind.map_or(0.0, |kind| option(kind).expect("an option").cost)
    };
    let kinds = [GgmlType::Q4_0, GgmlType::Q5_0, GgmlType::Q8_0].map(Some);
    let costs = kinds.map(cost);
    assert!(costs[0] > costs[1] && costs[1] > 4.0 * costs[2] && costs[2] > 0.0, "{costs:?}");

    let scratch = tempfile::tempdir().expect("a folder");
    let mut chosen = Vec::new();
    let (least, most) = (smallest(&scores), gguf.bytes() + 9 * scores.table.weights() / 8);
    for step in 0..8 {
        let budget = Budget::gguf(least + (most - least) * step / 7);
        let plan = scores.project(budget).expect("feasible");
        let own = plan.kept().get(&matrix.name).copied();
        let total = plan.cost() + cost(own);
        for kind in kinds {
            let fixed = scores.keep_as(&matrix.name, kind.expect("a type")).expect("fits");
            let Ok(other) = fixed.project(budget) else { continue };
            assert!(total <= other.cost() + cost(kind) + 1e-12, "{own:?} rather than {kind:?} in {budget}");
        }
        let path = scratch.path().join(format!("{step}.gguf"));
        let report = run.apply(&plan).expect("fits").gguf(&path, &plan.kept(), false).expect("writes");
        assert_eq!(Some(report.file_bytes), plan.gguf_bytes(), "the size is known beforehand");
        let kind = Gguf::open(&path).expect("reads").tensor("token_embd.weight").expect("a tensor").kind;
        assert_eq!(kind, own.unwrap_or(GgmlType::Bf16));
        assert!(
            plan.remainder().and_then(|r| r.gguf.as_ref()).is_some_and(|g| g.matrices[0].options.is_empty())
        );
        chosen.push(own);
    }
    assert_eq!((chosen[0], chosen[7]), (Some(GgmlType::Q4_0), None), "{chosen:?}");
}

/// The smallest budget that has a plan, found by what a smaller one lacks.
fn smallest(scores: &Scores) -> u64 {
    match scores.project(Budget::gguf(1)) {
        Err(Error::Project(gamma::ProjectError::BelowMinimum { missing_bytes, .. })) => 1 + missing_bytes,
        other => panic!("one byte holds nothing: {other:?}"),
    }
}
