//! States of learning runs in files: what is refused, and why.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use gamma::{
    Builder, Calibration, Error, Event, Found, Gamma, GroupSize, Objective, Quiet, Reading, Rtn, Settings,
    StateFile, Variants,
};

fn fable() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable")
}

fn brief(reading: Reading) -> Settings {
    let objective = Objective { reading, ..Objective::default() };
    Settings { objective, rounds: 2, steps: 2, survey_draws: 1, ..Settings::default() }
}

fn builder(model: &Path) -> Builder {
    Gamma::builder()
        .device(gamma::device::tested())
        .model(model)
        .calibration(Calibration::text_files([fable().join("README.md")]).sequences(6).length(24))
        .quantizer(Rtn::asymmetric(GroupSize::new(64).expect("valid")))
        .candidates([2, 4])
        .learning(brief(Reading::Through { hidden: 0.0, divergence: 1.0 }))
}

fn state_in(folder: &Path) -> StateFile {
    StateFile::new(folder.join("state")).every(Duration::ZERO)
}

/// Runs until `steps` learning steps are done, and asks to stop then.
fn interrupt(builder: Builder, state: &StateFile, steps: usize) {
    let mut progress = |event: Event| match event {
        Event::Learning(step) if step.done >= steps => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = builder.build().expect("valid").learn_kept(state, &mut progress);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
}

#[test]
fn every_reading_goes_on_to_the_same_scores() {
    for reading in [Reading::Through { hidden: 0.5, divergence: 1.0 }, Reading::Teacher, Reading::PerModule] {
        let scratch = tempfile::tempdir().expect("a folder");
        let (state, model) = (state_in(scratch.path()), fable());
        let builder = || builder(&model).learning(brief(reading));
        let whole = builder().build().expect("valid").learn(&mut Quiet).expect("learns");
        interrupt(builder(), &state, 3);
        let mut resumed = 0;
        let mut watch = |event: Event| {
            resumed += usize::from(matches!(event, Event::Resuming { steps } if steps >= 3));
            ControlFlow::Continue(())
        };
        let learning = builder().build().expect("valid").learn_kept(&state, &mut watch).expect("goes on");
        let scores = learning.scores;
        assert_eq!((scores.to_json(), resumed), (whole.to_json(), 1), "{reading:?}");
        // What is left is the end of the run: asking again takes no step.
        let mut steps = 0;
        let mut watch = |event: Event| {
            steps += usize::from(matches!(event, Event::Learning(_)));
            ControlFlow::Continue(())
        };
        let again = builder().build().expect("valid").learn_kept(&state, &mut watch).expect("goes on");
        assert_eq!((again.scores, steps), (scores, 0));
        state.remove().expect("removed");
        assert_eq!(fs::read_dir(scratch.path()).expect("reads").count(), 0);
    }
}

#[test]
fn a_state_of_another_run_is_refused_with_what_differs() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (state, model) = (state_in(scratch.path()), fable());
    interrupt(builder(&model), &state, 1);
    let refusal = |builder: Builder| {
        let error = builder.build().expect("valid").learn_kept(&state, &mut Quiet).expect_err("refused");
        assert!(matches!(error, Error::OtherRun { .. }), "{error}");
        error.to_string()
    };
    let other_text = Calibration::text_file(fable().join("sample.py")).sequences(6).length(24);
    let settings = Settings { seed: 7, ..brief(Reading::Through { hidden: 0.0, divergence: 1.0 }) };
    let group = GroupSize::new(32).expect("valid");
    for (builder, expected) in [
        (builder(&model).calibration(other_text), "another run; calibration tokens: `sha256:"),
        (builder(&model).candidates([2, 3]), "; formats: `"),
        (builder(&model).quantizer(Rtn::asymmetric(group)), "; quantizer: `rtn asymmetric g64` then, `rtn"),
        (builder(&model).learning(settings), "another run; seed: `0` then, `7` now"),
        (builder(&model).batch(3), "another run; batch: `2` then, `3` now"),
    ] {
        let found = refusal(builder);
        assert!(found.contains(expected), "{found}");
    }
    // One weight of one tensor has changed.
    let other = scratch.path().join("model");
    fs::create_dir(&other).expect("a folder");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(fable().join(file), other.join(file)).expect("copies");
    }
    let path = other.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("reads");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&path, bytes).expect("writes");
    let found = refusal(builder(&other));
    assert!(found.contains("another run; tensor model.") && found.matches(';').count() == 1, "{found}");
}

#[test]
fn damaged_and_missing_states_are_refused_and_can_be_replaced() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (state, model) = (state_in(scratch.path()), fable());
    let learn = |state: &StateFile| builder(&model).build().expect("valid").learn_kept(state, &mut Quiet);
    let missing = learn(&state.clone().found(Found::Require)).expect_err("nothing there").to_string();
    assert!(missing.contains("no interrupted run"), "{missing}");
    interrupt(builder(&model), &state, 1);
    let whole = fs::read(state.path()).expect("written");
    let line = whole.iter().position(|&byte| byte == b'\n').expect("a first line");
    for length in [0, line / 2, line, line + 1, whole.len() - 1] {
        fs::write(state.path(), &whole[..length]).expect("writes");
        let error = learn(&state).expect_err("damaged");
        assert!(matches!(error, Error::State { .. }), "{length}: {error}");
    }
    assert_eq!(
        learn(&state.clone().found(Found::Replace)).expect("begins anew").scores,
        builder(&model).build().expect("valid").learn(&mut Quiet).expect("learns")
    );
}

#[test]
fn scores_are_used_again_only_for_exactly_the_run_they_came_from() {
    let scores = builder(&fable()).build().expect("valid").learn(&mut Quiet).expect("learns");
    let verify = |builder: Builder| builder.build().expect("valid").verify(&scores, &mut Quiet);
    verify(builder(&fable())).expect("the same run");
    for (other, expected) in [
        (builder(&fable()).batch(3), "; batch: `2` then, `3` now"),
        (builder(&fable()).candidates([2, 5]), "; formats: `"),
    ] {
        let error = verify(other).expect_err("another run");
        assert!(
            matches!(error, Error::OtherScores { .. }) && error.to_string().contains(expected),
            "{error}"
        );
    }
}

#[test]
fn candidates_that_are_added_are_scored_without_scoring_the_others_again() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (state, model) = (state_in(scratch.path()), fable());
    let group = |size| GroupSize::new(size).expect("valid");
    let first = builder(&model).build().expect("valid").learn_kept(&state, &mut Quiet).expect("learns");
    let extend = |builder: Builder| builder.build().expect("valid").extend(&state, &mut Quiet);
    let finer = Variants::new([Rtn::asymmetric(group(64)), Rtn::asymmetric(group(32))]);
    for (builder, options) in
        [(builder(&model).candidates([2, 3, 4]), 3), (builder(&model).quantizer(finer), 4)]
    {
        let extended = extend(builder).expect("extends");
        let (before, after) = (&first.learned.observations, &extended.learned.observations);
        assert_eq!(after.contexts[..before.contexts.len()], before.contexts);
        assert!(extended.scores.table.modules().iter().all(|module| module.options.len() == options));
        assert!(extended.scores.provenance.named.contains_key("extended from"));
    }
    let settings = Settings { seed: 7, ..brief(Reading::Through { hidden: 0.0, divergence: 1.0 }) };
    for (builder, expected) in [
        (builder(&model).candidates([2, 3]), "; formats: `"),
        (builder(&model).candidates([2, 3, 4]).learning(settings), "another run; seed: `0` then, `7` now"),
        (builder(&model).candidates([2, 3, 4]).quantizer(Rtn::asymmetric(group(32))), "; quantizer: `"),
    ] {
        let error = extend(builder).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_interrupted_extension_goes_on_to_the_same_scores_and_can_be_extended() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (first, model) = (state_in(scratch.path()), fable());
    builder(&model).build().expect("valid").learn_kept(&first, &mut Quiet).expect("learns");
    let own = StateFile::new(scratch.path().join("own")).every(Duration::ZERO);
    let run = || builder(&model).candidates([2, 3, 4]).build().expect("valid");
    let whole = run().extend(&first, &mut Quiet).expect("extends").scores;

    let mut steps = 0;
    let mut stop = |event: Event| {
        steps += usize::from(matches!(event, Event::Learning(_)));
        if steps > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = run().extend_kept(&first, &own, &mut stop);
    assert!(matches!(stopped, Err(Error::Interrupted)) && own.path().exists(), "{stopped:?}");
    let mut rest = 0;
    let mut count = |event: Event| {
        rest += usize::from(matches!(event, Event::Learning(_)));
        ControlFlow::Continue(())
    };
    let resumed = run().extend_kept(&first, &own, &mut count).expect("goes on").scores;
    assert_eq!(resumed, whole);
    assert!(rest > 0);

    // Asked again it has nothing left to do, and its end is a run to extend.
    let again = run().extend_kept(&first, &own, &mut |event: Event| match event {
        Event::Learning(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(again.expect("was done").scores, whole);
    let wider = builder(&model).candidates([2, 3, 4, 5]).build().expect("valid");
    let error = wider.extend_kept(&own, &own, &mut Quiet).expect_err("one file for two states");
    assert!(matches!(error, Error::Setting { setting: "state", .. }), "{error}");
    let wider = wider.extend(&own, &mut Quiet).expect("extends").scores;
    assert!(wider.table.modules().iter().all(|module| module.options.len() == 4));
}
