//! What a tap sees and changes.

use std::{path::PathBuf, sync::Arc};

use burn::tensor::{Tensor, TensorData};
use gamma_model::{Block, Checkpoint, Decoder};

const FOLDERS: [&str; 4] =
    ["fixtures/fable", "golden/qwen2-random", "golden/llama3-random", "golden/qwen3-random"];

/// A block and the residual stream before it, of two sequences.
fn block(folder: &str) -> (Block, Tensor<3>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(folder);
    let checkpoint = Arc::new(Checkpoint::open(folder).expect("checkpoint"));
    let decoder = Decoder::load(checkpoint, 8, &gamma_device::tested()).expect("decoder");
    let hidden = decoder.embed(&[vec![1, 5, 2, 9, 30, 7, 11, 3], vec![4, 4, 8, 1, 0, 63, 2, 17]]);
    (decoder.block(1).expect("block"), hidden)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_as::<f32>().as_slice::<f32>().expect("floats").to_vec()
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(largest > 0.0, "{what}: nothing to compare");
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-5 * largest, "{what}: off by {worst:e} of {largest}");
}

#[test]
fn every_module_is_tapped_once_with_shapes_of_its_own_and_an_idle_tap_changes_nothing() {
    for folder in FOLDERS {
        let (block, hidden) = block(folder);
        let mut seen = Vec::new();
        let tapped = block.forward_tapped(block.weights(), hidden.clone(), &mut |slot, x, y| {
            let ([batch, tokens, inputs], [_, _, outputs]) = (x.dims(), y.dims());
            assert_eq!((batch, tokens, [outputs, inputs]), (2, 8, block.modules()[slot].shape));
            seen.push(slot);
            y
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..block.modules().len()).collect::<Vec<_>>());
        assert_eq!(values(tapped), values(block.forward(hidden)));
    }
}

#[test]
fn what_a_tap_returns_is_what_the_block_goes_on_with() {
    let (block, hidden) = block("golden/qwen3-random");
    let roles = ["o_proj", "down_proj"]; // what is added to the residual stream
    let output = block.forward_tapped(block.weights(), hidden.clone(), &mut |slot, _, y| {
        let name = block.modules()[slot].name.to_string();
        if roles.iter().any(|role| name.ends_with(role)) { y.zeros_like() } else { y }
    });
    assert_eq!(values(output), values(hidden));
}

#[test]
#[should_panic(expected = "keeps the shape of `model.layers.1.self_attn.k_proj`")]
fn a_tap_that_changes_a_shape_is_told_where() {
    let (block, hidden) = block("golden/qwen3-random");
    block.forward_tapped(block.weights(), hidden, &mut |slot, _, y| match slot {
        1 => y.narrow(1, 0, 4),
        _ => y,
    });
}

#[test]
fn the_gradient_in_a_zero_that_a_tap_adds_gives_the_gradient_in_the_weight() {
    for folder in FOLDERS {
        let (block, hidden) = block(folder);
        let weights: Vec<_> = block.weights().iter().map(|w| w.clone().autodiff().require_grad()).collect();
        let mut gradients = block.forward_with(&weights, hidden.clone()).square().sum().backward();
        let expected = weights.iter().map(|weight| weight.grad_remove(&mut gradients).expect("a gradient"));

        let mut leaves = Vec::new();
        let output = block.forward_tapped(block.weights(), hidden, &mut |slot, x, y| {
            let zero = Tensor::<3>::zeros(y.dims(), &x.clone().inner().device()).autodiff().require_grad();
            leaves.push((slot, x.clone().inner(), zero.clone()));
            y.autodiff() + zero
        });
        let mut gradients = output.square().sum().backward();
        leaves.sort_by_key(|(slot, ..)| *slot);
        for ((slot, x, zero), expected) in leaves.into_iter().zip(expected) {
            let g = zero.grad_remove(&mut gradients).expect("a gradient").flatten::<2>(0, 1);
            let product = g.transpose().matmul(x.flatten::<2>(0, 1)); // Σ_t g_t x_tᵀ
            let name = format!("{folder}, {}", block.modules()[slot].name);
            assert_close(&name, &values(product), &values(expected));
        }
    }
}

const EXPERTS: [&str; 2] = ["golden/qwen3-moe-random", "golden/mixtral-random"];

#[test]
fn experts_are_tapped_with_the_tokens_that_go_to_them_alone() {
    for folder in EXPERTS {
        let (block, hidden) = block(folder);
        let (mut rows, mut taps) = (0, vec![0; block.modules().len()]);
        let tapped = block.forward_tapped(block.weights(), hidden.clone(), &mut |slot, x, y| {
            taps[slot] += 1;
            let module = &block.modules()[slot];
            assert_eq!([y.dims()[2], x.dims()[2]], module.shape);
            if module.expert.is_some() {
                let [batch, tokens, _] = x.dims();
                assert!(batch == 1 && tokens > 0 && y.dims()[1] == tokens);
                rows += tokens;
            }
            y
        });
        assert!(taps.iter().all(|&count| count <= 1) && taps[..4] == [1; 4]);
        // 16 tokens, each to two experts of three modules.
        assert_eq!(rows, 16 * 2 * 3, "{folder}");
        assert_eq!(values(tapped), values(block.forward(hidden)));
    }
}

#[test]
fn gradients_through_experts_are_those_in_their_weights() {
    for folder in EXPERTS {
        let (block, hidden) = block(folder);
        let weights: Vec<_> = block.weights().iter().map(|w| w.clone().autodiff().require_grad()).collect();
        let mut gradients = block.forward_with(&weights, hidden.clone()).square().sum().backward();
        let expected: Vec<_> = weights.iter().map(|weight| weight.grad_remove(&mut gradients)).collect();
        let mut leaves = Vec::new();
        let output = block.forward_tapped(block.weights(), hidden.clone(), &mut |slot, x, y| {
            let zero = Tensor::<3>::zeros(y.dims(), &x.clone().inner().device()).autodiff().require_grad();
            leaves.push((slot, x.clone().inner(), zero.clone()));
            y.autodiff() + zero
        });
        let mut gradients = output.square().sum().backward();
        assert!(leaves.len() > 4 + 2 * 3, "{folder}: more than two experts are in use");
        for (slot, x, zero) in leaves {
            let g = zero.grad_remove(&mut gradients).expect("a gradient").flatten::<2>(0, 1);
            let product = g.transpose().matmul(x.flatten::<2>(0, 1));
            let name = format!("{folder}, {}", block.modules()[slot].name);
            let expected = expected[slot].clone().expect("tapped, so in use");
            assert_close(&name, &values(product), &values(expected));
        }
    }
}

#[test]
fn a_leaf_in_one_expert_alone_learns_its_gradient() {
    let (block, hidden) = block("golden/mixtral-random");
    let slot = block.modules().iter().position(|module| module.expert == Some(1)).expect("an expert");
    let mut weights = block.weights().to_vec();
    weights[slot] = weights[slot].clone().autodiff().require_grad();
    let mut gradients = block.forward_with(&weights, hidden).square().sum().backward();
    let gradient = values(weights[slot].grad_remove(&mut gradients).expect("a gradient"));
    assert!(gradient.iter().any(|g| g.abs() > 0.0));
}

#[test]
fn the_gradient_in_the_input_of_experts_passes_through_their_shares() {
    for folder in EXPERTS {
        let (block, hidden) = block(folder);
        let [_, tokens, width] = hidden.dims();
        let leaf = hidden.clone().autodiff().require_grad();
        let mut gradients = block.forward(leaf.clone()).square().sum().backward();
        let gradient = values(leaf.grad_remove(&mut gradients).expect("a gradient"));
        let loss = |values: Vec<f32>| -> f64 {
            let hidden =
                Tensor::from_data(TensorData::new(values, [2, tokens, width]), &gamma_device::tested());
            let output = self::values(block.forward(hidden));
            output.iter().map(|&x| f64::from(x).powi(2)).sum()
        };
        let largest = gradient.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
        for at in (0..gradient.len()).step_by(37) {
            let step = 2e-3_f32;
            let moved = |by: f32| {
                let mut moved = values(hidden.clone());
                moved[at] += by;
                loss(moved)
            };
            let found = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let error = (found - f64::from(gradient[at])).abs();
            assert!(error < 5e-3 * f64::from(largest), "{folder}, {at}: {found} and {}", gradient[at]);
        }
    }
}

#[test]
fn experts_without_routing_are_shown_every_token_and_among_them_their_own() {
    for folder in EXPERTS {
        let (block, hidden) = block(folder);
        let first = |slot: usize| block.modules()[slot].expert.is_some() && (slot - 4).is_multiple_of(3);
        let mut routed = Vec::new();
        block.observe(block.weights(), hidden.clone(), |slot, x| {
            if first(slot) {
                routed.push((slot, values(x.clone())));
            }
        });
        for (slot, own) in routed {
            let expert = block.modules()[slot].expert.expect("filtered above");
            let mut seen = Vec::new();
            block.observe_unrouted(hidden.clone(), &[expert], |at, x| {
                assert_eq!(x.dims(), [2, 8, block.modules()[at].shape[1]]);
                seen.push((at, values(x.clone())));
            });
            assert_eq!(seen.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [slot, slot + 1, slot + 2]);
            let all: Vec<&[f32]> = seen[0].1.chunks(32).collect();
            assert!(own.chunks(32).all(|token| all.contains(&token)), "{folder}");
        }
    }
}
