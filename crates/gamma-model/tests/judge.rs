//! The judge: windows, prefixes, and what is measured.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use gamma_model::{Block, Checkpoint, Decoder, Judge, ModelError, TextEncoder, Tokens};

const LENGTH: usize = 128;

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn fable() -> (Decoder, Tokens) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fable");
    let checkpoint = Arc::new(Checkpoint::open(&folder).expect("fixture"));
    let text = TextEncoder::open(&folder, checkpoint.config()).expect("tokenizer");
    let tokens = text.encode_files(&[folder.join("evaluation.txt")]).expect("text");
    (Decoder::load(checkpoint, LENGTH, &gamma_device::tested()).expect("fits"), tokens)
}

/// The blocks of a model whose weights from block `first` on are a tenth smaller.
fn shrunk(decoder: &Decoder, first: usize) -> impl FnMut(usize) -> Result<Block, ModelError> + '_ {
    move |number| {
        let mut block = decoder.block(number)?;
        if number >= first {
            for slot in 0..block.weights().len() {
                let weight = block.weights()[slot].clone() * 0.9;
                block.replace(slot, weight)?;
            }
        }
        Ok(block)
    }
}

#[test]
fn what_is_measured_after_a_prefix_equals_what_is_measured_from_the_start() {
    let (decoder, tokens) = fable();
    let windows = tokens.all(LENGTH).expect("enough")[..37].to_vec();
    let judge = Judge::new(&decoder, windows, &mut go_on).expect("runs").expect("not stopped");
    let blocks = decoder.config().blocks;
    let mut full = |number| decoder.block(number);
    // Room for all streams, for some of them, and for none but the first.
    for bytes in [u64::MAX, 3 * 37 * 128 * 64 * 4, 0] {
        let prefix =
            judge.prefix(&decoder, &mut full, bytes, &mut go_on).expect("runs").expect("not stopped");
        for first in 0..blocks {
            let mut load = shrunk(&decoder, first);
            let whole = judge.evaluate(&decoder, &mut load, &mut go_on).expect("finite").expect("done");
            let measure = |windows| {
                let mut load = shrunk(&decoder, first);
                judge.divergence(&decoder, (&prefix, first), windows, &mut load, &mut go_on)
            };
            let each = measure(0..37).expect("finite").expect("done");
            let mean = each.iter().sum::<f64>() / 37.0;
            assert!((mean - whole.kl).abs() < 1e-9 * whole.kl, "block {first}: {mean} and {}", whole.kl);
            let some = measure(5..20).expect("finite").expect("done");
            assert_eq!(some, each[5..20], "block {first}");
        }
    }
}

#[test]
fn a_prefix_follows_the_model_it_is_advanced_to() {
    let (decoder, tokens) = fable();
    let windows = tokens.all(LENGTH).expect("enough")[..9].to_vec();
    let judge = Judge::new(&decoder, windows, &mut go_on).expect("runs").expect("not stopped");
    let blocks = decoder.config().blocks;
    let mut full = |number| decoder.block(number);
    let mut prefix = judge.prefix(&decoder, &mut full, u64::MAX, &mut go_on).expect("runs").expect("done");
    let mut load = shrunk(&decoder, 2);
    assert!(judge.advance(&decoder, &mut prefix, 2, &mut load, &mut go_on).expect("runs"));
    let measure = |prefix: &_, first| {
        let mut load = shrunk(&decoder, 2);
        judge.divergence(&decoder, (prefix, first), 0..9, &mut load, &mut go_on)
    };
    let end = measure(&prefix, blocks).expect("finite").expect("done");
    let start = measure(&prefix, 0).expect("finite").expect("done");
    assert_eq!(end, start);
    assert!(end.iter().all(|kl| *kl > 0.0));
}

#[test]
fn overlapping_windows_predict_with_more_context_and_do_better() {
    let (decoder, tokens) = fable();
    let judge = |stride| {
        let windows = tokens.sliding(64, stride).expect("enough").spread(60);
        assert_eq!(windows.stride(), stride);
        let judge = Judge::new(&decoder, windows, &mut go_on).expect("runs").expect("not stopped");
        judge.full_precision()
    };
    let (apart, overlapping) = (judge(64), judge(16));
    assert!(overlapping.loss < apart.loss, "{overlapping:?} and {apart:?}");
    assert!(overlapping.predicted < apart.predicted && apart.predicted == 60 * 63);
}

#[test]
fn the_full_precision_model_agrees_with_itself() {
    let (decoder, tokens) = fable();
    let windows = tokens.all(LENGTH).expect("enough")[..8].to_vec();
    let judge = Judge::new(&decoder, windows, &mut go_on).expect("runs").expect("not stopped");
    let mut full = |number| decoder.block(number);
    let same = judge.evaluate(&decoder, &mut full, &mut go_on).expect("finite").expect("done");
    assert!((same.loss - judge.full_precision().loss).abs() < 1e-12);
    assert!(same.kl.abs() < 1e-9 && same.kl_p99 < 1e-6 && (same.agreement - 1.0).abs() < 1e-12, "{same:?}");
    let mut load = shrunk(&decoder, 0);
    let other = judge.evaluate(&decoder, &mut load, &mut go_on).expect("finite").expect("done");
    assert!(other.agreement < 1.0 && other.kl_p99 > other.kl && other.kl_std_error > 0.0, "{other:?}");
}
