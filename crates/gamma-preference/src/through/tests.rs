use std::{convert::Infallible, ops::ControlFlow};

use burn::tensor::{
    TensorData,
    activation::{log_softmax, silu},
};
use gamma_core::{BitWidth, Format, GroupSize, ModuleName};
use rand::RngExt;

use super::*;
use crate::{
    Bank, Block, Candidate, Competitor, Head, Normaliser, Objective, Reading, Settings, Tap,
    choices::{Draw, Shares, stream},
    learn,
};

const WIDTH: usize = 6;
const INNER: usize = 8;
const CANDIDATES: usize = 3;
const BLOCKS: usize = 3;

fn random<const D: usize>(shape: [usize; D], seed: u64, size: f32) -> Tensor<D> {
    // Drawn on the host: the device's own generator is shared by all tests of the process.
    let mut rng = stream(seed, 0, 0, 0);
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * size).collect();
    Tensor::from_data(TensorData::new(values, shape), &gamma_device::tested())
}

/// `x Wᵀ` for tokens.
fn linear(x: Tensor<3>, weight: &Tensor<2>) -> Tensor<3> {
    x.matmul(weight.clone().transpose().unsqueeze())
}

#[expect(clippy::large_enum_variant, reason = "a handful of them, in tests")]
#[derive(Clone)]
enum Kind {
    /// `x + silu(x W₁ᵀ) W₂ᵀ`.
    Mlp,
    /// `x + c Wᵀ` with a constant `c`: a network of these is linear in all of its errors together.
    Additive(Tensor<3>),
}

impl Block for Kind {
    fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
        match self {
            Self::Mlp => {
                let inner = silu(tap(0, &hidden, linear(hidden.clone(), &weights[0])));
                let output = tap(1, &inner, linear(inner.clone(), &weights[1]));
                hidden + output
            }
            Self::Additive(inputs) => hidden + tap(0, inputs, linear(inputs.clone(), &weights[0])),
        }
    }
}

/// Logits of 11 classes for the normalised stream.
struct Classes(Tensor<2>);

impl Head for Classes {
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let scale = (hidden.clone().square().mean_dim(2) + 1e-3).sqrt().recip();
        linear(hidden * scale, &self.0)
    }
}

struct Toy {
    kinds: Vec<Kind>,
    originals: Vec<Vec<Tensor<2>>>,
    differences: Vec<Vec<Tensor<2>>>,
    competitors: Vec<Vec<Competitor>>,
    head: Classes,
    loads: Vec<usize>,
}

impl Toy {
    fn new(kinds: Vec<Kind>, shapes: &[[usize; 2]]) -> Self {
        let formats =
            [BitWidth::B2, BitWidth::B3, BitWidth::B4].map(|b| Format::symmetric(b, GroupSize::G128));
        let candidates = |shape: [usize; 2]| -> Vec<Candidate> {
            let one = |format: &Format| Candidate {
                stored_bits: format.stored_bits(shape).expect("an integer format"),
                format: format.clone(),
            };
            formats.iter().map(one).collect()
        };
        let seed = |block: usize, slot: usize| (100 * block + 10 * slot) as u64;
        let each =
            |block: usize| shapes.iter().enumerate().map(move |(slot, &shape)| (seed(block, slot), shape));
        let blocks = 0..kinds.len();
        Self {
            originals: blocks
                .clone()
                .map(|b| each(b).map(|(seed, shape)| random(shape, seed + 1, 0.7)).collect())
                .collect(),
            differences: blocks
                .clone()
                .map(|b| each(b).map(|(seed, [o, i])| random([CANDIDATES, o * i], seed + 2, 0.2)).collect())
                .collect(),
            competitors: blocks
                .map(|b| {
                    let module = |(seed, shape)| Competitor {
                        name: ModuleName::new(format!("m{seed}")),
                        shape,
                        candidates: candidates(shape),
                    };
                    each(b).map(module).collect()
                })
                .collect(),
            head: Classes(random([11, WIDTH], 7, 1.0)),
            loads: Vec::new(),
            kinds,
        }
    }

    fn mlp() -> Self {
        Self::new(vec![Kind::Mlp; BLOCKS], &[[INNER, WIDTH], [WIDTH, INNER]])
    }
}

impl Network for Toy {
    type Block = Kind;
    type Head = Classes;
    type Error = Infallible;

    fn competitors(&self) -> &[Vec<Competitor>] {
        &self.competitors
    }

    fn load(&mut self, number: usize) -> Result<Bank<Kind>, Infallible> {
        self.loads.push(number);
        Ok(Bank {
            block: self.kinds[number].clone(),
            originals: self.originals[number].clone(),
            differences: self.differences[number].clone(),
        })
    }

    fn head(&self) -> &Classes {
        &self.head
    }
}

fn settings(objective: Objective) -> Settings {
    Settings { objective, rounds: 2, steps: 4, survey_draws: 2, ..Settings::default() }
}

fn both() -> Objective {
    through(0.7, 1.3)
}

fn through(hidden: f64, divergence: f64) -> Objective {
    Objective { reading: Reading::Through { hidden, divergence }, normaliser: Normaliser::Output }
}

fn inputs() -> Vec<Tensor<3>> {
    vec![random([2, 9, WIDTH], 1, 1.0), random([2, 9, WIDTH], 2, 1.0)]
}

/// One pass per batch, with the same choices in both.
fn found(toy: &mut Toy, objective: Objective, choices: &[Shares], fisher: &[Tensor<3>]) -> Found {
    let Reading::Through { hidden, divergence } = objective.reading else { panic!("another reading") };
    let settings = settings(objective);
    let mut learner = Learner::new(toy.competitors.clone(), &settings);
    let draws: Vec<Draw> =
        choices.iter().map(|used| Draw { used: used.clone(), soft: vec![1.0 / 3.0; CANDIDATES] }).collect();
    let passes: Vec<Pass> =
        (0..2).map(|batch| Pass { step: batch, batch, draws: draws.clone(), price: 0.0 }).collect();
    let go = &mut |_: &crate::Step| ControlFlow::Continue(());
    let weights = Weights { hidden, divergence };
    let forward =
        Forward::run(toy, &mut learner, 1, &passes, &inputs(), fisher, weights).expect("infallible");
    backward(toy, &mut learner, (1, &passes), forward, weights, 0, go).expect("finite")
}

fn shares() -> Vec<Vec<f64>> {
    (0..2 * BLOCKS).map(|i| [[0.2, 0.5, 0.3], [0.7, 0.2, 0.1], [0.0, 1.0, 0.0]][i % 3].to_vec()).collect()
}

fn mixtures(shares: &[Vec<f64>]) -> Vec<Shares> {
    shares.iter().map(|shares| Shares::Mixed(shares.clone())).collect()
}

#[test]
fn slopes_equal_central_differences_of_the_whole_loss() {
    for objective in [
        both(),
        through(0.0, 1.0),
        through(1.0, 0.0),
        Objective { normaliser: Normaliser::Fisher, ..both() },
        Objective { normaliser: Normaliser::Update, ..both() },
    ] {
        let mut toy = Toy::mlp();
        let fisher = crate::fisher::fisher(&mut toy, &inputs(), &settings(objective)).expect("infallible");
        let slopes = found(&mut toy, objective, &mixtures(&shares()), &fisher).slopes;
        let step = 1e-2;
        for (module, candidate) in [(0, 0), (1, 2), (2, 1), (3, 0), (4, 2), (5, 1)] {
            let mut shifted = |by: f64| {
                let mut shares = shares();
                shares[module][candidate] += by;
                found(&mut toy, objective, &mixtures(&shares), &fisher).total
            };
            let (above, below) = (shifted(step), shifted(-step));
            for batch in 0..2 {
                let expected = (above[batch] - below[batch]) / (2.0 * step);
                let found = slopes[batch][module][candidate];
                assert!(
                    (found - expected).abs() < 5e-3 * expected.abs().max(0.02),
                    "{objective:?}, module {module}: {found} instead of {expected}"
                );
            }
        }
    }
}

#[test]
fn slopes_and_loss_equal_those_of_autodiff_through_everything_at_once() {
    let mut toy = Toy::mlp();
    let shares = shares();
    let found = found(&mut toy, both(), &mixtures(&shares), &[]);

    // The plain version: shares are leaves, and one graph holds all candidates and all blocks.
    let device = gamma_device::tested();
    let leaves: Vec<Tensor<2>> = shares
        .iter()
        .map(|shares| {
            let values: Vec<f32> = shares.iter().map(|&share| share as f32).collect();
            let data = TensorData::new(values, [1, CANDIDATES]);
            Tensor::<2>::from_data(data, &device).autodiff().require_grad()
        })
        .collect();
    let batches = inputs();
    // The unit of the hidden terms is a mean over all batches of a group.
    let mut energies = [0.0; BLOCKS];
    for input in &batches {
        let mut teacher = input.clone();
        for (block, energy) in energies.iter_mut().enumerate() {
            teacher = toy.kinds[block].forward(&toy.originals[block], teacher);
            let kept = teacher.clone().narrow(1, 1, 8);
            *energy += f64::from(kept.square().sum().into_scalar::<f32>()) / (2.0 * 16.0);
        }
    }
    for (batch, input) in batches.into_iter().enumerate() {
        let (mut teacher, mut student) = (input.clone(), input.autodiff());
        let mut loss = Tensor::<1>::zeros([1], &device).autodiff();
        for block in 0..BLOCKS {
            let weights: Vec<Tensor<2>> = (0..2)
                .map(|slot| {
                    let (w, d) = (toy.originals[block][slot].clone(), toy.differences[block][slot].clone());
                    w.clone() + leaves[2 * block + slot].clone().matmul(d).reshape(w.dims())
                })
                .collect();
            teacher = toy.kinds[block].forward(&toy.originals[block], teacher);
            student = toy.kinds[block].forward(&weights, student);
            // The first token of every sequence is masked.
            let error = (student.clone() - teacher.clone()).narrow(1, 1, 8);
            loss = loss + error.square().sum() * (0.7 / (energies[block] * 16.0));
        }
        let expected = log_softmax(toy.head.logits(teacher), 2);
        let difference = expected.clone() - log_softmax(toy.head.logits(student), 2);
        let loss = loss + (expected.exp() * difference).sum() * (1.3 / 18.0);
        let gradients = loss.backward();
        for (module, leaf) in leaves.iter().enumerate() {
            let expected = leaf.grad(&gradients).expect("a leaf").into_data_as::<f32>();
            for (expected, found) in
                expected.as_slice::<f32>().expect("f32").iter().zip(&found.slopes[batch][module])
            {
                assert!((f64::from(*expected) - found).abs() < 2e-5, "{found} instead of {expected}");
            }
        }
        let loss = f64::from(loss.into_scalar::<f32>());
        assert!((loss - found.total[batch]).abs() < 1e-5, "{} instead of {loss}", found.total[batch]);
    }
}

#[test]
fn the_parts_of_a_linear_network_add_up_to_its_loss() {
    let kinds = (0..BLOCKS).map(|block| Kind::Additive(random([2, 9, 5], 40 + block as u64, 1.0))).collect();
    let mut toy = Toy::new(kinds, &[[WIDTH, 5]]);
    let objective = through(0.7, 0.0);
    let choices = [Shares::Pure(1), Shares::Mixed(vec![0.2, 0.5, 0.3]), Shares::Pure(0)];
    let Found { total, slopes } = found(&mut toy, objective, &choices, &[]);
    for (loss, slopes) in total.iter().zip(&slopes) {
        let parts: f64 = (choices.iter().zip(slopes))
            .map(|(choice, slopes)| (0..CANDIDATES).map(|k| 0.5 * slopes[k] * choice.of(k)).sum::<f64>())
            .sum();
        assert!((parts - loss).abs() < 1e-5 * loss, "{parts} instead of {loss}");
    }
}

#[test]
fn a_run_loads_one_block_at_a_time_visits_every_option_and_repeats_itself() {
    let run = |seed| {
        let mut toy = Toy::mlp();
        let settings = Settings { seed, ..settings(both()) };
        let learned = learn(&mut toy, &inputs(), &settings, &mut |_: &_| ControlFlow::Continue(()));
        (learned.expect("learns"), toy.loads)
    };
    let (learned, loads) = run(5);
    // There and back, twice for a survey of six passes in groups of four, and for each of two rounds.
    assert_eq!(loads, [0, 1, 2, 1, 0].repeat(4));
    assert_eq!(learned.observations.contexts.len(), 6 + 2 * 4);
    assert!(learned.losses.modules().iter().flat_map(|m| &m.options).all(|o| o.std_error.is_some()));
    assert!(learned.random_loss > 0.0);
    assert_eq!(learned.losses, run(5).0.losses);
    assert_ne!(learned.losses, run(6).0.losses);
    assert_eq!(learned.resample(1), learned.resample(1));
    // With two batches every other redraw is the set itself.
    assert!((0..8).any(|seed| learned.resample(seed).0 != learned.losses));
}

#[test]
fn a_loss_that_is_not_finite_names_where_it_arose() {
    let readings = [
        (both().reading, 2),
        (Reading::Teacher, 2),
        (Reading::Mixed { last: 0.5 }, 2),
        // All candidates are looked at, each batch once.
        (Reading::PerModule, 0),
    ];
    for (reading, candidate) in readings {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut toy = Toy::mlp();
            // One weight of one candidate of the second module of the second block.
            let row = |k: usize| toy.differences[1][1].clone().narrow(0, k, 1);
            let spoilt = |k: usize| if k == candidate { row(k) * bad } else { row(k) };
            let others = [0, 1, 2].map(spoilt);
            toy.differences[1][1] = Tensor::cat(others.to_vec(), 0);
            let settings = settings(Objective { reading, ..both() });
            let error = learn(&mut toy, &inputs(), &settings, &mut |_: &_| ControlFlow::Continue(()));
            let LearnError::NotFinite { block, round, step, batch, module } = error.expect_err("refused")
            else {
                panic!("another error")
            };
            assert_eq!((block, round, module.as_str()), (1, 0, "m110"), "{reading:?}");
            assert!(step < 6 && batch < 2, "{reading:?}: step {step}, batch {batch}");
        }
    }
}

#[test]
fn per_module_costs_are_those_of_the_second_moments_of_the_inputs() {
    let mut toy = Toy::mlp();
    let objective = Objective { reading: Reading::PerModule, ..both() };
    let settings = Settings { pooled: false, ..settings(objective) };
    let learned =
        learn(&mut toy, &inputs(), &settings, &mut |_: &_| ControlFlow::Continue(())).expect("learns");
    assert_eq!(toy.loads, [0, 1, 2]);
    // The closed form, for the second module of the second block: tr(D H Dᵀ) / tr(W H Wᵀ).
    let mut hessian = Tensor::<2>::zeros([INNER, INNER], &gamma_device::tested());
    for input in inputs() {
        let state = toy.kinds[0].forward(&toy.originals[0], input);
        toy.kinds[1].forward_tapped(&toy.originals[1], state, &mut |slot, x, y| {
            if slot == 1 {
                let x = x.clone().flatten::<2>(0, 1);
                hessian = hessian.clone() + x.clone().transpose().matmul(x);
            }
            y
        });
    }
    let trace = |d: Tensor<2>| f64::from((d.clone().matmul(hessian.clone()) * d).sum().into_scalar::<f32>());
    let expected: Vec<f64> = (0..CANDIDATES)
        .map(|k| trace(toy.differences[1][1].clone().narrow(0, k, 1).reshape([WIDTH, INNER])))
        .map(|error| error / trace(toy.originals[1][1].clone()))
        .collect();
    let seen = learned.observations.means(3, CANDIDATES);
    for (found, expected) in seen.iter().zip(expected) {
        let found = found.expect("every option is seen").mean;
        assert!((found - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
    }
}

#[test]
fn mixed_inputs_start_as_teacher_forcing_and_end_as_the_students() {
    let run = |reading| {
        let mut toy = Toy::mlp();
        let settings = settings(Objective { reading, ..both() });
        learn(&mut toy, &inputs(), &settings, &mut |_: &_| ControlFlow::Continue(())).expect("learns")
    };
    let (forced, mixed) = (run(Reading::Mixed { last: 0.0 }), run(Reading::Mixed { last: 1.0 }));
    let values = |learned: &crate::Learned, module: usize, rounds: fn(usize) -> bool| -> Vec<f64> {
        let seen = &learned.observations;
        let wanted = seen.modules[module].iter().filter(|x| rounds(seen.contexts[x.context].round));
        wanted.map(|x| x.value).collect()
    };
    // The survey is teacher-forced either way, and so is the first block always.
    assert_eq!(values(&forced, 5, |round| round == 0), values(&mixed, 5, |round| round == 0));
    assert_eq!(values(&forced, 0, |round| round == 1), values(&mixed, 0, |round| round == 1));
    assert_ne!(values(&forced, 5, |round| round == 1), values(&mixed, 5, |round| round == 1));
}
