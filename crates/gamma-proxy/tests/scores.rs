//! Every proxy against its definition, on networks small enough to compute it by hand.

use std::{convert::Infallible, ops::ControlFlow};

use burn::tensor::{Tensor, TensorData, activation::silu};
use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ScoreTable};
use gamma_preference::{Bank, Block, Candidate, Competitor, Head, Network, Tap};
use gamma_proxy::{Ending, Labels, Proxy, ProxyError, Trial, by_gradients, by_trials, locally};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WIDTH: usize = 6;
const INNER: usize = 8;

/// `x + silu(x W₁ᵀ) W₂ᵀ`.
#[derive(Clone)]
struct Mlp;

impl Block for Mlp {
    fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
        let up = linear(&hidden, &weights[0]);
        let inner = silu(tap(0, &hidden, up));
        let down = linear(&inner, &weights[1]);
        hidden + tap(1, &inner, down)
    }
}

/// No proxy asks the network itself for predictions.
struct NoHead;

impl Head for NoHead {
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        hidden
    }
}

fn linear(x: &Tensor<3>, weight: &Tensor<2>) -> Tensor<3> {
    x.clone().matmul(weight.clone().transpose().unsqueeze())
}

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &gamma_device::tested())
}

/// Blocks of two modules with two candidates each: errors of 30 % and of 5 % of random directions.
struct Toy {
    competitors: Vec<Vec<Competitor>>,
    originals: Vec<Vec<Tensor<2>>>,
    differences: Vec<Vec<Tensor<2>>>,
}

impl Toy {
    fn new(blocks: usize) -> Self {
        let shapes = [[INNER, WIDTH], [WIDTH, INNER]];
        let module = |block: usize, role: &str, shape: [usize; 2]| Competitor {
            name: ModuleName::new(format!("model.layers.{block}.mlp.{role}")),
            shape,
            candidates: [BitWidth::B2, BitWidth::B4]
                .map(|bits| {
                    let format = Format::symmetric(bits, GroupSize::G128);
                    Candidate { stored_bits: format.stored_bits(shape).expect("integer"), format }
                })
                .to_vec(),
        };
        let seeds = |block: usize, slot: usize| (10 * block + slot) as u64;
        let original = |block, slot: usize| random(shapes[slot], seeds(block, slot));
        let difference = |block, slot: usize| {
            let direction = random([1, INNER * WIDTH], 1000 + seeds(block, slot));
            Tensor::cat(vec![direction.clone() * 0.3, direction * 0.05], 0)
        };
        Self {
            competitors: (0..blocks)
                .map(|b| vec![module(b, "up_proj", shapes[0]), module(b, "down_proj", shapes[1])])
                .collect(),
            originals: (0..blocks).map(|b| (0..2).map(|s| original(b, s)).collect()).collect(),
            differences: (0..blocks).map(|b| (0..2).map(|s| difference(b, s)).collect()).collect(),
        }
    }

    fn candidate(&self, block: usize, slot: usize, k: usize) -> Tensor<2> {
        let shape = self.originals[block][slot].dims();
        self.originals[block][slot].clone()
            + self.differences[block][slot].clone().narrow(0, k, 1).reshape(shape)
    }

    /// The output of the whole network with other weights in one place.
    fn run(&self, hidden: Tensor<3>, changed: Option<(usize, usize, Tensor<2>)>) -> Tensor<3> {
        let mut weights = self.originals.clone();
        if let Some((block, slot, weight)) = changed {
            weights[block][slot] = weight;
        }
        weights.iter().fold(hidden, |hidden, weights| Mlp.forward(weights, hidden))
    }
}

impl Network for Toy {
    type Block = Mlp;
    type Head = NoHead;
    type Error = Infallible;

    fn head(&self) -> &NoHead {
        &NoHead
    }

    fn competitors(&self) -> &[Vec<Competitor>] {
        &self.competitors
    }

    fn load(&mut self, number: usize) -> Result<Bank<Mlp>, Infallible> {
        Ok(Bank {
            block: Mlp,
            originals: self.originals[number].clone(),
            differences: self.differences[number].clone(),
        })
    }
}

/// The loss is half the squared norm of the end.
struct HalfSquare;

impl Ending for HalfSquare {
    fn gradient(&self, _: usize, hidden: &Tensor<3>, _: Labels) -> Tensor<3> {
        hidden.clone()
    }
}

fn half_square(hidden: Tensor<3>) -> f64 {
    0.5 * number(hidden.square().sum())
}

fn number(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

fn inputs() -> Vec<Tensor<3>> {
    vec![random([2, 5, WIDTH], 7), random([1, 5, WIDTH], 8)]
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn cost(table: &ScoreTable, module: usize, option: usize) -> f64 {
    table.modules()[module].options[option].cost
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(expected != 0.0, "{what}: nothing to compare");
    assert!((found / expected - 1.0).abs() < tolerance, "{what}: {found} instead of {expected}");
}

/// Checks every module and candidate against `expected(block, slot, candidate)`.
fn check(table: &ScoreTable, tolerance: f64, expected: &dyn Fn(usize, usize, usize) -> f64) {
    for (module, option) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)] {
        let what = format!("module {module}, option {option}");
        assert_near(&what, cost(table, module, option), expected(module / 2, module % 2, option), tolerance);
    }
}

#[test]
fn weights_moments_and_hessian_follow_their_formulas() {
    let mut toy = Toy::new(2);
    let plain = Toy::new(2);
    let error = |b: usize, s: usize, k: usize| plain.candidate(b, s, k) - plain.originals[b][s].clone();
    let weights = locally(Proxy::Weights, &mut toy, &[], &mut go_on).unwrap();
    check(&weights, 1e-4, &|b, s, k| number(error(b, s, k).square().sum()));

    // What each module reads, all tokens below one another.
    let read = |block: usize, slot: usize| -> Tensor<2> {
        let mut rows = Vec::new();
        for states in inputs() {
            let mut hidden = states;
            for b in 0..=block {
                let mut seen = None;
                let next = Mlp.forward_tapped(&plain.originals[b], hidden.clone(), &mut |s, x, y| {
                    if s == slot {
                        seen = Some(x.clone().flatten::<2>(0, 1));
                    }
                    y
                });
                if b == block {
                    rows.push(seen.take().unwrap());
                }
                hidden = next;
            }
        }
        Tensor::cat(rows, 0)
    };
    let hessian = locally(Proxy::Hessian, &mut toy, &inputs(), &mut go_on).unwrap();
    check(&hessian, 1e-3, &|b, s, k| {
        let x = read(b, s);
        let tokens = x.dims()[0] as f64;
        number(x.matmul(error(b, s, k).transpose()).square().sum()) / tokens
    });
    let moments = locally(Proxy::Moments, &mut toy, &inputs(), &mut go_on).unwrap();
    check(&moments, 1e-3, &|b, s, k| {
        let x = read(b, s);
        let mean = x.clone().square().sum_dim(0) / x.dims()[0] as f64;
        number((error(b, s, k).square() * mean).sum())
    });
}

#[test]
fn block_errors_are_those_of_the_block_fed_in_full_precision() {
    let (mut toy, plain) = (Toy::new(2), Toy::new(2));
    let table = locally(Proxy::Block, &mut toy, &inputs(), &mut go_on).unwrap();
    check(&table, 1e-3, &|b, s, k| {
        let (mut error, mut energy) = (0.0, 0.0);
        for states in inputs() {
            let input = plain.originals[..b].iter().fold(states, |hidden, w| Mlp.forward(w, hidden));
            let target = Mlp.forward(&plain.originals[b], input.clone()).narrow(1, 1, 4);
            let mut weights = plain.originals[b].clone();
            weights[s] = plain.candidate(b, s, k);
            let output = Mlp.forward(&weights, input).narrow(1, 1, 4);
            error += number((output - target.clone()).square().sum());
            energy += number(target.square().sum());
        }
        error / energy
    });
}

#[test]
fn first_order_scores_add_up_gradients_at_the_quantized_model() {
    let (mut toy, plain) = (Toy::new(2), Toy::new(2));
    let table = by_gradients(Proxy::FirstOrder, &mut toy, &inputs(), &HalfSquare, &mut go_on).unwrap();
    // Central differences of the loss in every single weight of one module.
    let (block, slot, k) = (0, 1, 0);
    let all = |shift: &Tensor<2>| -> f64 {
        let total = |states: Tensor<3>| {
            let hidden = (0..2).fold(states, |hidden, b| {
                let mut weights: Vec<Tensor<2>> = (0..2).map(|s| plain.candidate(b, s, k)).collect();
                if b == block {
                    weights[slot] = weights[slot].clone() + shift.clone();
                }
                Mlp.forward(&weights, hidden)
            });
            half_square(hidden)
        };
        inputs().into_iter().map(total).sum()
    };
    let difference = plain.candidate(block, slot, k) - plain.originals[block][slot].clone();
    let difference: Vec<f32> = difference.into_data_as::<f32>().as_slice::<f32>().unwrap().to_vec();
    let step = 1e-2_f32;
    let mut expected = 0.0;
    for (at, d) in difference.iter().enumerate() {
        let shift = |by: f32| {
            let mut values = vec![0.0_f32; difference.len()];
            values[at] = by;
            Tensor::<2>::from_data(TensorData::new(values, [WIDTH, INNER]), &gamma_device::tested())
        };
        let slope = (all(&shift(step)) - all(&shift(-step))) / (2.0 * f64::from(step));
        expected += (slope * f64::from(*d)).abs();
    }
    assert_near("first order", cost(&table, 2 * block + slot, k), expected, 2e-2);
}

#[test]
fn fisher_scores_square_gradients_and_changes_of_a_modules_output() {
    let (mut toy, plain) = (Toy::new(2), Toy::new(2));
    let table = by_gradients(Proxy::Fisher, &mut toy, &inputs(), &HalfSquare, &mut go_on).unwrap();
    // The last module's output is added to the end, whose gradient is the end itself.
    let mut expected = 0.0;
    for states in inputs() {
        let end = plain.run(states.clone(), None);
        let before = Mlp.forward(&plain.originals[0], states);
        let inner = silu(linear(&before, &plain.originals[1][0]));
        let d = plain.candidate(1, 1, 0) - plain.originals[1][1].clone();
        expected += number((linear(&inner, &d).square() * end.square()).sum());
    }
    assert_near("fisher, last module", cost(&table, 3, 0), expected, 1e-3);
    // An error six times as small counts a 36th.
    for module in 0..4 {
        assert_near("ratio", cost(&table, module, 0) / cost(&table, module, 1), 36.0, 1e-2);
    }
}

#[test]
fn the_trace_is_that_of_squared_gradients() {
    let (mut toy, plain) = (Toy::new(2), Toy::new(2));
    let table = by_gradients(Proxy::Trace, &mut toy, &inputs(), &HalfSquare, &mut go_on).unwrap();
    let mut trace = 0.0;
    for states in inputs() {
        let end = plain.run(states.clone(), None).flatten::<2>(0, 1);
        let before = Mlp.forward(&plain.originals[0], states);
        let inner = silu(linear(&before, &plain.originals[1][0])).flatten::<2>(0, 1);
        trace += number(end.transpose().matmul(inner).square().sum()); // ∂L/∂W₂ = Gᵀ X
    }
    let d = plain.candidate(1, 1, 0) - plain.originals[1][1].clone();
    let expected = trace / (WIDTH * INNER) as f64 * number(d.square().sum());
    assert_near("trace, last module", cost(&table, 3, 0), expected, 1e-3);
}

/// The divergence is the squared change of the end.
struct Change(Toy);

impl Trial for Change {
    type Error = Infallible;

    fn divergence(&mut self, block: usize, slot: usize, weight: Tensor<2>) -> Result<f64, Infallible> {
        let change = |states: Tensor<3>| {
            let changed = self.0.run(states.clone(), Some((block, slot, weight.clone())));
            number((changed - self.0.run(states, None)).square().sum())
        };
        Ok(inputs().into_iter().map(change).sum())
    }
}

#[test]
fn divergences_are_those_of_single_modules() {
    let (mut toy, mut trial) = (Toy::new(2), Change(Toy::new(2)));
    let table = by_trials(Proxy::Divergence, &mut toy, &mut trial, &mut go_on).unwrap();
    let plain = Toy::new(2);
    check(&table, 1e-5, &|b, s, k| Change(Toy::new(2)).divergence(b, s, plain.candidate(b, s, k)).unwrap());
}

#[test]
fn noise_finds_the_slope_of_the_divergence() {
    let (mut toy, mut trial) = (Toy::new(2), Change(Toy::new(2)));
    let noise = Proxy::Noise { levels: 12, seed: 3 };
    let table = by_trials(noise, &mut toy, &mut trial, &mut go_on).unwrap();
    let again = by_trials(noise, &mut toy, &mut trial, &mut go_on).unwrap();
    assert_eq!(table, again);
    // The end is linear in the last module's weight, so divergence is a quadratic form of the error:
    // its mean over directions is the slope, times the squared size of the candidate's error.
    let plain = Toy::new(2);
    let mut form = 0.0;
    for states in inputs() {
        let before = Mlp.forward(&plain.originals[0], states);
        form += number(silu(linear(&before, &plain.originals[1][0])).square().sum());
    }
    let d = plain.candidate(1, 1, 0) - plain.originals[1][1].clone();
    let expected = form / INNER as f64 * number(d.square().sum());
    assert_near("noise, last module", cost(&table, 3, 0), expected, 0.35);
}

#[test]
fn heuristics_know_names_and_sizes_only() {
    let mut toy = Toy::new(9);
    let table = locally(Proxy::Depth, &mut toy, &[], &mut go_on).unwrap();
    let (first_up, first_down, middle_up) = (cost(&table, 0, 0), cost(&table, 1, 0), cost(&table, 8, 0));
    assert!((first_up - 2.0 * middle_up).abs() < 1e-9 && (first_down - 2.0 * first_up).abs() < 1e-9);
    // The names of Mixtral: the third matrix of an expert leads back to the stream.
    let mut experts = Toy::new(9);
    for (slot, role) in ["w1", "w2"].into_iter().enumerate() {
        let name = format!("model.layers.4.block_sparse_moe.experts.0.{role}");
        experts.competitors[4][slot].name = ModuleName::new(name);
    }
    let table = locally(Proxy::Depth, &mut experts, &[], &mut go_on).unwrap();
    assert!((cost(&table, 9, 0) - 2.0 * cost(&table, 8, 0)).abs() < 1e-9);
    let random = |seed| locally(Proxy::Random { seed }, &mut Toy::new(2), &[], &mut go_on).unwrap();
    assert_eq!(random(1), random(1));
    assert_ne!(random(1), random(2));
}

#[test]
fn missing_data_and_a_stop_are_errors() {
    let mut toy = Toy::new(2);
    let no_data = locally(Proxy::Hessian, &mut toy, &[], &mut go_on);
    assert!(matches!(no_data, Err(ProxyError::NoData)), "{no_data:?}");
    let no_data = by_gradients(Proxy::Fisher, &mut toy, &[], &HalfSquare, &mut go_on);
    assert!(matches!(no_data, Err(ProxyError::NoData)), "{no_data:?}");
    let stopped = locally(Proxy::Weights, &mut toy, &[], &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ProxyError::Interrupted)), "{stopped:?}");
}

#[test]
fn a_score_that_is_not_finite_names_its_module() {
    let mut toy = Toy::new(1);
    toy.differences[0][1] = toy.differences[0][1].clone() * f32::NAN;
    let error = locally(Proxy::Weights, &mut toy, &[], &mut go_on).unwrap_err();
    assert!(error.to_string().contains("model.layers.0.mlp.down_proj"), "{error}");
}
