//! Bounded memory, threads, and weights without a folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use gamma::{
    Budget, Builder, Calibration, Error, Gamma, Gptq, GroupSize, ModelError, Objective, Products, Quiet,
    Reading, Rtn, Run, Scores, Settings, Source,
    model::{Checkpoint, Config, TextEncoder},
};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

fn tokens() -> Vec<Vec<u32>> {
    let config = Config::read(&fable()).expect("reads");
    let text = TextEncoder::open(&fable(), &config).expect("opens");
    let tokens = text.encode_files(&[fable().join("README.md")]).expect("encodes");
    tokens.spread(8, 64).expect("enough text")
}

fn brief(hidden: f64) -> Settings {
    let objective =
        Objective { reading: Reading::Through { hidden, divergence: 1.0 }, ..Objective::default() };
    Settings { objective, rounds: 1, steps: 2, survey_draws: 1, ..Settings::default() }
}

fn builder() -> Builder {
    Gamma::builder()
        .device(gamma::device::tested())
        .model(fable())
        .calibration(Calibration::tokens(tokens()))
        .quantizer(Gptq::asymmetric(GroupSize::new(64).expect("valid")))
        .candidates([2, 4])
        .learning(brief(0.0))
}

fn scores(builder: Builder) -> Scores {
    builder.build().expect("valid").learn(&mut Quiet).expect("learns")
}

#[test]
fn scores_do_not_depend_on_the_number_of_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| scores(builder().learning(brief(0.5))))
    };
    let one = on(1);
    assert!(one == on(2), "two threads give other scores than one");
    assert!(one == on(3), "three threads give other scores than one");
}

#[test]
fn bounded_memory_changes_nothing_but_where_things_lie() {
    let run: Run = builder().build().expect("valid");
    let free = run.demand().expect("no limit");
    assert_eq!(free.disk, 0);
    let scratch = tempfile::tempdir().expect("a folder");
    let bounded = |bytes| builder().max_memory(bytes).scratch(scratch.path());
    let learned = scores(builder());
    let plan = learned.project(Budget::average_bits(3.0)).expect("a plan");
    let made = |run: &Run| {
        let matrix = tempfile::NamedTempFile::new().expect("a file");
        run.imatrix(matrix.path(), &mut Quiet).expect("written");
        let weights = run.apply(&plan).expect("applies").weights().clone();
        (weights, std::fs::read(matrix.path()).expect("reads"))
    };
    let (weights, matrix) = made(&run);
    // Nothing that can lie on a disk has room in memory.
    let Err(Error::Memory { needed, .. }) = bounded(1).build().expect("valid").demand() else {
        panic!("a byte is enough")
    };
    for bytes in [needed, needed.midpoint(free.memory())] {
        let run = bounded(bytes).build().expect("valid");
        let demand = run.demand().expect("possible");
        assert!(demand.disk > 0 && demand.memory() <= bytes, "{demand}");
        assert!(run.learn(&mut Quiet).expect("learns") == learned, "{bytes} bytes");
        assert!(made(&run) == (weights.clone(), matrix.clone()), "{bytes} bytes");
    }
    let error = bounded(needed - 1).build().expect("valid").learn(&mut Quiet).expect_err("refused");
    assert!(error.to_string().contains("takes"), "{error}");
    assert_eq!(std::fs::read_dir(scratch.path()).expect("reads").count(), 0);
}

/// An engine that holds the weights of a model already.
#[derive(Debug)]
struct Engine(Checkpoint);

impl Source for Engine {
    fn config(&self) -> &Config {
        self.0.config()
    }

    fn read(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.0.read(tensor, shape)
    }
}

#[test]
fn an_engine_that_holds_the_weights_learns_and_applies_without_a_folder() {
    let engine = Arc::new(Engine(Checkpoint::open(fable()).expect("opens")));
    let hosted = Gamma::builder()
        .source(engine)
        .calibration(Calibration::tokens(tokens()))
        .quantizer(Rtn::asymmetric(GroupSize::new(64).expect("valid")))
        .candidates([2, 4])
        .learning(brief(0.0))
        .device(gamma::device::tested())
        .build()
        .expect("valid");
    let found = hosted.learn(&mut Quiet).expect("learns");
    let of_folder = scores(builder().quantizer(Rtn::asymmetric(GroupSize::new(64).expect("valid"))));
    assert_eq!(found.table, of_folder.table);
    assert_eq!(found.provenance.tensors.len(), found.table.modules().len());

    let plan = found.project(Budget::average_bits(3.0)).expect("feasible");
    let applied = hosted.apply(&plan).expect("fits");
    assert_eq!(applied.weights().len(), found.table.modules().len());
    let scratch = tempfile::tempdir().expect("a folder");
    let refused = applied.save(scratch.path().join("out")).expect_err("there is nothing to copy");
    assert!(matches!(refused, Error::NoFolder { .. }), "{refused}");
    let jury = hosted.jury(&[fable().join("README.md")], None, None, &mut Quiet);
    assert!(matches!(jury, Err(Error::NoFolder { .. })));
}

#[test]
fn tokens_that_the_model_cannot_take_are_refused() {
    let build = |tokens: Vec<Vec<u32>>| builder().calibration(Calibration::tokens(tokens)).build();
    for (tokens, word) in [
        (vec![vec![1, 2, 3], vec![1, 2]], "sequences of one length"),
        (vec![vec![1, 512]], "token 512"),
        (vec![vec![1; 600]], "2 to 512"),
        (Vec::new(), "at least one sequence"),
    ] {
        let error = build(tokens).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn products_in_brain_floats_give_nearly_the_same_costs_and_say_so() {
    let rounded = builder().products(Products::Bf16).build();
    if let Err(Error::Model(ModelError::Products { .. })) = &rounded {
        return; // a device without them
    }
    let (rounded, exact) = (rounded.expect("valid"), builder().build().expect("valid"));
    let [scores, reference] = [&rounded, &exact].map(|run| run.learn(&mut Quiet).expect("learns"));
    let cost = |scores: &Scores| -> f64 {
        scores.table.modules().iter().flat_map(|module| &module.options).map(|option| option.cost).sum()
    };
    let ratio = cost(&scores) / cost(&reference);
    assert!(scores.table != reference.table && (0.9..1.1).contains(&ratio), "costs are {ratio} times those");
    let error = exact.verify(&scores, &mut Quiet).expect_err("another run").to_string();
    assert!(error.contains("products: `bf16` then"), "{error}");
}
