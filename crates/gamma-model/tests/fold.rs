//! Scales that are folded into a block leave its function as it is.

use std::{path::PathBuf, sync::Arc};

use burn::tensor::Tensor;
use gamma_model::{Checkpoint, Decoder, Producer};
use half::bf16;

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_as::<f32>().as_slice::<f32>().expect("floats").to_vec()
}

#[test]
fn a_rescaled_block_computes_what_it_did_before() {
    for folder in [
        "fixtures/fable",
        "golden/qwen2-random",
        "golden/llama3-random",
        "golden/qwen3-random",
        "golden/qwen3-moe-random",
        "golden/mixtral-random",
    ] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(folder);
        let checkpoint = Arc::new(Checkpoint::open(folder).expect("checkpoint"));
        let decoder = Decoder::load(checkpoint, 8, &gamma_device::tested()).expect("decoder");
        let hidden = decoder.embed(&[vec![1, 5, 2, 9, 30, 7, 11, 3]]);
        let mut block = decoder.block(1).expect("block");
        let before = values(block.forward(hidden.clone()));
        let weights: Vec<_> = block.weights().iter().map(|weight| values(weight.clone())).collect();

        let mut changed = 0;
        for input in block.inputs() {
            let channels = block.modules()[input.readers[0]].shape[1];
            let scales: Vec<f32> = (0..channels).map(|channel| 0.25 + 0.1 * (channel % 41) as f32).collect();
            let used = block.rescale(&input, &scales);
            assert_eq!(used.is_some(), input.producer.is_some());
            changed += usize::from(used.is_some());
            // A rounded norm moves a scale by less than a step of its type.
            for (used, asked) in used.iter().flatten().zip(&scales) {
                assert!((used / asked - 1.0).abs() < 0.005, "{used} instead of {asked}");
            }
        }
        assert!(changed >= 3);
        let differ = block.weights().iter().zip(&weights).filter(|(a, b)| values((*a).clone()) != **b);
        assert!(differ.count() >= 6, "all readers of a folded input change");

        let largest = before.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let after = values(block.forward(hidden));
        let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-5 * largest, "off by {worst:e} of {largest}");
    }
}

#[test]
fn a_norm_keeps_its_type() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable");
    let decoder =
        Decoder::load(Arc::new(Checkpoint::open(folder).expect("checkpoint")), 8, &gamma_device::tested())
            .expect("decoder");
    let mut block = decoder.block(0).expect("block");
    let original = values(block.norms()[0].1.clone());
    let input = &block.inputs()[0];
    assert_eq!(input.producer, Some(Producer::AttentionNorm));
    let scales: Vec<f32> = (0..64).map(|channel| 0.9 + 0.01 * channel as f32).collect();
    block.rescale(input, &scales).expect("a norm produces this input");
    let [(name, norm), _] = block.norms();
    assert_eq!(name, "model.layers.0.input_layernorm.weight");
    let norm = values(norm.clone());
    assert!(norm.iter().all(|w| bf16::from_f32(*w).to_f32().to_bits() == w.to_bits()));
    assert!(norm != original);
}
