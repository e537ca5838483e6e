use std::{convert::Infallible, ops::ControlFlow};

use burn::tensor::{Tensor, TensorData, activation::silu};
use gamma_core::{BitWidth, Format, GroupSize, ModuleName};
use rand::RngExt;

use super::*;
use crate::{
    Bank, Block, Candidate, Competitor, Head, Inputs, Learned, Network, Normaliser, Objective, Pressure,
    Reading, Sampling, Settings, Step, Tap, choices::stream, learn, resume,
};

const WIDTH: usize = 6;
const BLOCKS: usize = 3;

fn random<const D: usize>(shape: [usize; D], seed: u64, size: f32) -> Tensor<D> {
    let mut rng = stream(seed, 0, 0, 0);
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * size).collect();
    Tensor::from_data(TensorData::new(values, shape), &gamma_device::tested())
}

/// `x + silu(x Wᵀ)`, and a head that takes the stream for logits.
#[derive(Clone)]
pub(crate) struct Layer;

impl Block for Layer {
    fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
        let output = hidden.clone().matmul(weights[0].clone().transpose().unsqueeze());
        hidden.clone() + silu(tap(0, &hidden, output))
    }
}

impl Head for Layer {
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        hidden
    }
}

/// Blocks of one module each.
pub(crate) struct Stack(Vec<Vec<Competitor>>);

impl Stack {
    pub(crate) fn new(widths: &[BitWidth]) -> Self {
        let candidate = |&bits: &BitWidth| {
            let format = Format::symmetric(bits, GroupSize::G128);
            Candidate { stored_bits: format.stored_bits([WIDTH; 2]).expect("an integer format"), format }
        };
        let candidates: Vec<Candidate> = widths.iter().map(candidate).collect();
        let module = |block: usize| {
            let name = ModuleName::new(format!("m{block}"));
            vec![Competitor { name, shape: [WIDTH; 2], candidates: candidates.clone() }]
        };
        Self((0..BLOCKS).map(module).collect())
    }
}

impl Network for Stack {
    type Block = Layer;
    type Head = Layer;
    type Error = Infallible;

    fn competitors(&self) -> &[Vec<Competitor>] {
        &self.0
    }

    fn load(&mut self, number: usize) -> Result<Bank<Layer>, Infallible> {
        let candidates = self.0[number][0].candidates.len();
        Ok(Bank {
            block: Layer,
            originals: vec![random([WIDTH; 2], number as u64, 0.7)],
            differences: vec![random([candidates, WIDTH * WIDTH], 100 + number as u64, 0.2)],
        })
    }

    fn head(&self) -> &Layer {
        &Layer
    }
}

const WIDTHS: [BitWidth; 3] = [BitWidth::B2, BitWidth::B3, BitWidth::B4];

pub(crate) fn inputs() -> Vec<Tensor<3>> {
    (0..4).map(|batch| random([2, 7, WIDTH], 50 + batch, 1.0)).collect()
}

pub(crate) fn settings(reading: Reading, pressure: Pressure, sampling: Sampling) -> Settings {
    let objective = Objective { reading, normaliser: Normaliser::Output };
    Settings { objective, pressure, sampling, rounds: 3, steps: 4, survey_draws: 3, ..Settings::default() }
}

/// Stops at the `stop`-th place where it can, and keeps the bytes of the state there.
pub(crate) struct StopAt {
    stop: usize,
    pub(crate) rests: usize,
    steps: usize,
    pub(crate) kept: Option<Vec<u8>>,
}

impl StopAt {
    pub(crate) fn new(stop: usize) -> Self {
        Self { stop, rests: 0, steps: 0, kept: None }
    }
}

impl Progress for StopAt {
    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        self.steps += 1;
        assert!(step.done <= step.total);
        ControlFlow::Continue(())
    }

    fn rest(&mut self, state: &dyn Fn() -> State) -> ControlFlow<()> {
        self.rests += 1;
        if self.rests == self.stop {
            self.kept = Some(state().to_bytes());
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

fn check_equal(a: &Learned, b: &Learned) {
    assert_eq!(a.losses, b.losses);
    assert_eq!(a.logits, b.logits);
    assert_eq!(a.observations, b.observations);
    assert_eq!(a.random_loss.to_bits(), b.random_loss.to_bits());
    assert_eq!(a.multiplier.map(f64::to_bits), b.multiplier.map(f64::to_bits));
}

/// Interrupts a run at every place where it can rest, and goes on from there each time. Answers the
/// number of places.
fn check(settings: &Settings) -> usize {
    let mut watch = StopAt::new(usize::MAX);
    let whole = learn(&mut Stack::new(&WIDTHS), &inputs(), settings, &mut watch).expect("learns");
    for stop in 1..=watch.rests {
        let mut first = StopAt::new(stop);
        let broken = learn(&mut Stack::new(&WIDTHS), &inputs(), settings, &mut first);
        assert!(matches!(broken, Err(LearnError::Interrupted)), "place {stop}");
        let state = State::from_bytes(&first.kept.expect("stopped there")).expect("reads back");
        assert_eq!(state.steps(), first.steps);
        let mut second = StopAt::new(usize::MAX);
        let resumed = resume(&mut Stack::new(&WIDTHS), &inputs(), settings, state, &mut second);
        check_equal(&whole, &resumed.expect("learns"));
        // Nothing is done twice, and no place is left out.
        assert_eq!(first.steps + second.steps, watch.steps, "place {stop}");
        assert_eq!(first.rests + second.rests, watch.rests, "place {stop}");
    }
    watch.rests
}

pub(crate) const DRAWN: Pressure = Pressure::DrawnBudgets { from: 2.1, to: 3.5 };
const HELD: Pressure = Pressure::AugmentedLagrangian { target: 2.7, rho: 1.0 };

#[test]
fn a_student_that_runs_through_goes_on_where_it_was_interrupted() {
    let through = Reading::Through { hidden: 0.5, divergence: 1.0 };
    // A survey of nine passes in groups of four, and three rounds.
    assert_eq!(check(&settings(through, DRAWN, Sampling::Hard)), 3 + 3);
    assert_eq!(check(&settings(through, HELD, Sampling::Soft)), 3 + 3);
}

#[test]
fn blocks_that_learn_apart_go_on_where_they_were_interrupted() {
    // After each block of each of four rounds.
    assert_eq!(check(&settings(Reading::Teacher, DRAWN, Sampling::Hard)), 4 * BLOCKS);
    assert_eq!(check(&settings(Reading::Teacher, HELD, Sampling::Soft)), 4 * BLOCKS);
    let fisher = Objective { reading: Reading::Teacher, normaliser: Normaliser::Fisher };
    let settings = Settings { objective: fisher, ..settings(Reading::Teacher, HELD, Sampling::Hard) };
    assert_eq!(check(&settings), 4 * BLOCKS);
}

#[test]
fn mixed_inputs_and_static_errors_go_on_where_they_were_interrupted() {
    assert_eq!(check(&settings(Reading::Mixed { last: 0.5 }, DRAWN, Sampling::Hard)), 4);
    assert_eq!(check(&settings(Reading::PerModule, DRAWN, Sampling::Hard)), BLOCKS);
}

/// The state of a run at its `stop`-th place.
fn state_at(stop: usize, settings: &Settings) -> Vec<u8> {
    let mut watch = StopAt::new(stop);
    let broken = learn(&mut Stack::new(&WIDTHS), &inputs(), settings, &mut watch);
    assert!(matches!(broken, Err(LearnError::Interrupted)));
    watch.kept.expect("stopped there")
}

#[test]
fn a_state_of_another_run_is_refused() {
    let settings = settings(Objective::default().reading, DRAWN, Sampling::Hard);
    let bytes = state_at(2, &settings);
    let refusal = |network: &mut Stack, inputs: &dyn Inputs, settings: &Settings| {
        let state = State::from_bytes(&bytes).expect("whole");
        let answer = resume(network, inputs, settings, state, &mut |_: &_| ControlFlow::Continue(()));
        answer.expect_err("refused").to_string()
    };
    let fewer = refusal(&mut Stack::new(&WIDTHS[..2]), &inputs(), &settings);
    assert!(fewer.contains("candidates"), "{fewer}");
    let batches = refusal(&mut Stack::new(&WIDTHS), &&inputs()[..2], &settings);
    assert!(batches.contains("batches"), "{batches}");
    let late = state_at(6, &settings);
    let state = State::from_bytes(&late).expect("whole");
    let shorter = Settings { rounds: 1, ..settings };
    let go = &mut |_: &_| ControlFlow::Continue(());
    let error = resume(&mut Stack::new(&WIDTHS), &inputs(), &shorter, state, go).expect_err("refused");
    assert!(error.to_string().contains("rounds"), "{error}");
}

#[test]
fn damaged_states_are_refused_wherever_they_were_cut_or_changed() {
    let settings = settings(Objective::default().reading, DRAWN, Sampling::Hard);
    let bytes = state_at(2, &settings);
    for length in 0..bytes.len() {
        assert_eq!(State::from_bytes(&bytes[..length]).expect_err("cut"), StateError::Damaged);
    }
    assert_eq!(State::from_bytes(&[&bytes[..], &[0]].concat()).expect_err("longer"), StateError::Damaged);
    let other = State::from_bytes(&[&[LAYOUT + 1], &bytes[1..]].concat()).expect_err("another layout");
    assert_eq!(other, StateError::Layout { expected: LAYOUT, found: LAYOUT + 1 });
    // Lengths and positions that are wrong are found before they do harm.
    for place in 1..bytes.len().min(600) {
        let mut changed = bytes.clone();
        changed[place] ^= 0x15;
        let Ok(state) = State::from_bytes(&changed) else { continue };
        let stop = &mut |_: &_| ControlFlow::Break(());
        let _ = resume(&mut Stack::new(&WIDTHS), &inputs(), &settings, state, stop);
    }
}
