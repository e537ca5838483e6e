use gamma_core::BitWidth;

use super::*;
use crate::{
    Sampling, learn,
    state::tests::{DRAWN, Stack, StopAt, inputs, settings},
};

const FEW: [BitWidth; 2] = [BitWidth::B2, BitWidth::B4];
const ALL: [BitWidth; 3] = [BitWidth::B2, BitWidth::B3, BitWidth::B4];

fn through() -> Settings {
    settings(Reading::Through { hidden: 0.5, divergence: 1.0 }, DRAWN, Sampling::Hard)
}

/// A run of few options, and the state at its end.
fn first(settings: &Settings) -> (Learned, State) {
    let mut count = StopAt::new(usize::MAX);
    let learned = learn(&mut Stack::new(&FEW), &inputs(), settings, &mut count).expect("learns");
    let mut last = StopAt::new(count.rests);
    let stopped = learn(&mut Stack::new(&FEW), &inputs(), settings, &mut last);
    assert!(matches!(stopped, Err(LearnError::Interrupted)));
    (learned, State::from_bytes(&last.kept.expect("kept")).expect("whole"))
}

fn go_on(settings: &Settings, state: State) -> Result<Learned, LearnError<std::convert::Infallible>> {
    let known = vec![vec![0, 2]; 3];
    let go = &mut |_: &crate::Step| std::ops::ControlFlow::Continue(());
    extend(&mut Stack::new(&ALL), &inputs(), settings, (state, &known), go)
}

#[test]
fn what_was_seen_stays_and_new_options_are_visited_as_often_as_old_ones() {
    let settings = through();
    let (before, state) = first(&settings);
    let after = go_on(&settings, state.clone()).expect("extends");
    let (old, new) = (&before.observations, &after.observations);
    assert_eq!(new.contexts[..old.contexts.len()], old.contexts);
    // Twice as many passes as an option of three was visited on average: 3 + 12 / 3 times.
    assert_eq!(new.contexts.len() - old.contexts.len(), 2 * 7);
    for (old, new) in old.modules.iter().zip(&new.modules) {
        for (old, new) in old.iter().zip(new) {
            assert_eq!((old.context, 2 * old.candidate, old.value), (new.context, new.candidate, new.value));
        }
        assert!(new.iter().filter(|seen| seen.candidate == 1).count() >= 7);
    }
    for (before, after) in before.losses.modules().iter().zip(after.losses.modules()) {
        assert_eq!(after.options.len(), 3);
        let costs: Vec<f64> = after.options.iter().map(|option| option.cost).collect();
        assert!(costs[0] >= costs[1] && costs[1] >= costs[2] && costs[1] > 0.0, "{costs:?}");
        assert!((costs[0] / before.options[0].cost).ln().abs() < 1.0, "{costs:?} and {before:?}");
    }
    assert_eq!(go_on(&settings, state).expect("extends").losses, after.losses);
}

#[test]
fn an_interrupted_extension_ends_as_if_nobody_had_disturbed_it() {
    // Of two steps a round, and so of two passes a group: several places to rest.
    let settings = Settings { steps: 2, ..through() };
    let (_, state) = first(&settings);
    let known = vec![vec![0, 2]; 3];
    let until = |state: State, rest: usize| {
        let mut watch = StopAt::new(rest);
        let ended = extend(&mut Stack::new(&ALL), &inputs(), &settings, (state, &known), &mut watch);
        (ended, watch)
    };
    let (whole, count) = until(state.clone(), usize::MAX);
    let whole = whole.expect("extends");
    assert!(count.rests > 3, "{} places", count.rests);
    for rest in 1..count.rests {
        let (stopped, watch) = until(state.clone(), rest);
        assert!(matches!(stopped, Err(LearnError::Interrupted)));
        let kept = State::from_bytes(&watch.kept.expect("kept")).expect("whole");
        let (resumed, left) = until(kept, usize::MAX);
        let resumed = resumed.expect("extends");
        assert_eq!(
            (resumed.losses, resumed.observations),
            (whole.losses.clone(), whole.observations.clone())
        );
        assert_eq!(left.rests, count.rests - rest);
    }
    // Its end is that of a run with all candidates, to which nothing has to be added.
    let (_, watch) = until(state, count.rests);
    let ended = State::from_bytes(&watch.kept.expect("kept")).expect("whole");
    let all = vec![vec![0, 1, 2]; 3];
    let go = &mut |_: &crate::Step| std::ops::ControlFlow::Continue(());
    let same = extend(&mut Stack::new(&ALL), &inputs(), &settings, (ended, &all), go).expect("extends");
    assert_eq!(same.losses, whole.losses);
}

#[test]
fn only_what_can_be_extended_honestly_is() {
    let settings = through();
    let (_, state) = first(&settings);
    let teacher = crate::Objective { reading: Reading::Teacher, ..settings.objective };
    let held = Pressure::AugmentedLagrangian { target: 3.0, rho: 1.0 };
    for (other, word) in [
        (Settings { objective: teacher, ..settings.clone() }, "runs through"),
        (Settings { pressure: held, ..settings.clone() }, "drawn budgets"),
        (Settings { pooled: false, ..settings.clone() }, "in common"),
        (Settings { rounds: 9, ..settings.clone() }, "has not ended"),
    ] {
        let error = go_on(&other, state.clone()).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
    let known = vec![vec![0]; 3];
    let go = &mut |_: &crate::Step| std::ops::ControlFlow::Continue(());
    let error =
        extend(&mut Stack::new(&ALL), &inputs(), &settings, (state, &known), go).expect_err("refused");
    assert!(matches!(error, LearnError::State(StateError::Other(_))), "{error}");
}
