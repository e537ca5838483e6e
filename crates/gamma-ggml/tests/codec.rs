//! Blocks against ggml's own, from `tests/golden/ggml.safetensors`.
#![allow(clippy::unwrap_used, reason = "called by tests alone")]

use std::path::Path;

use gamma_ggml::{CodecError, GgmlType};
use safetensors::SafeTensors;

const TYPES: [GgmlType; 8] = [
    GgmlType::Q4_0,
    GgmlType::Q5_0,
    GgmlType::Q8_0,
    GgmlType::Q2K,
    GgmlType::Q3K,
    GgmlType::Q4K,
    GgmlType::Q5K,
    GgmlType::Q6K,
];

struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ggml.safetensors");
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    // ggml writes -0 where the zero of an offset is subtracted from nothing; engines do not care.
    values.iter().map(|&value| (value + 0.0).to_bits()).collect()
}

#[test]
fn every_type_decodes_bit_by_bit_as_ggml_does() {
    let golden = Golden::read();
    for kind in TYPES.into_iter().chain([GgmlType::Q4_1, GgmlType::Q5_1]) {
        let expected = golden.floats(&format!("{kind}.values"));
        let mut values = vec![f32::NAN; expected.len()];
        kind.decode(&golden.bytes(&format!("{kind}.blocks")), &mut values).unwrap();
        assert_eq!(bits(&values), bits(&expected), "{kind}");
    }
}

/// `Σ h (w - ŵ)²` relative to `Σ h w²`.
fn error(w: &[f32], h: &[f32], decoded: &[f32]) -> f64 {
    let sum = |rest: fn(f32, f32) -> f32| -> f64 {
        let terms = w.iter().zip(decoded).zip(h.iter().cycle());
        terms.map(|((&w, &v), &h)| f64::from(h) * f64::from(rest(w, v)).powi(2)).sum()
    };
    sum(|w, v| w - v) / sum(|w, _| w)
}

#[test]
#[expect(clippy::print_stdout, reason = "docs/engines.md quotes these numbers")]
fn no_matrix_has_more_error_than_in_ggmls_own_blocks() {
    let golden = Golden::read();
    let importance = golden.floats("importance");
    let ones = vec![1.0; importance.len()];
    for matrix in ["trained", "normal"] {
        let w = golden.floats(&format!("{matrix}.weight"));
        for kind in TYPES {
            for (way, h) in [("plain", &ones), ("weighted", &importance)] {
                let theirs = golden.bytes(&format!("{matrix}.{kind}.{way}"));
                let mut ours = vec![0; theirs.len()];
                let row_bytes = kind.bytes([1, h.len()]).unwrap() as usize;
                for (w, bytes) in w.chunks_exact(h.len()).zip(ours.chunks_exact_mut(row_bytes)) {
                    kind.encode(w, (way == "weighted").then_some(h), bytes).unwrap();
                }
                let measure = |bytes: &[u8]| {
                    let mut decoded = vec![0.0; w.len()];
                    kind.decode(bytes, &mut decoded).unwrap();
                    error(&w, h, &decoded)
                };
                let (ours, theirs) = (measure(&ours), measure(&theirs));
                let ratio = ours / theirs;
                println!("{matrix} {kind} {way}: {ours:.4e} against {theirs:.4e}, {ratio:.3}");
                assert!(ratio <= 1.0, "{matrix} {kind} {way}: {ours:e} against {theirs:e}");
            }
        }
    }
}

#[test]
fn encoding_what_was_decoded_loses_next_to_nothing() {
    let golden = Golden::read();
    for kind in TYPES {
        let w = golden.floats("trained.weight");
        let mut once = vec![0; kind.bytes([1, w.len()]).unwrap() as usize];
        kind.encode(&w, None, &mut once).unwrap();
        let (mut decoded, mut again) = (vec![0.0; w.len()], vec![0; once.len()]);
        kind.decode(&once, &mut decoded).unwrap();
        kind.encode(&decoded, None, &mut again).unwrap();
        let mut twice = vec![0.0; w.len()];
        kind.decode(&again, &mut twice).unwrap();
        let loss = error(&decoded, &[1.0], &twice);
        let first = error(&w, &[1.0], &decoded);
        assert!(loss < 0.05 * first, "{kind}: {loss:e} after {first:e}");
    }
}

#[test]
fn zeros_become_zeros_and_what_no_scale_reaches_is_refused() {
    for kind in TYPES {
        let (n, size) = (kind.block(), kind.block_bytes());
        let mut bytes = vec![0xff; 2 * size];
        kind.encode(&vec![0.0; 2 * n], None, &mut bytes).unwrap();
        let mut values = vec![1.0; 2 * n];
        kind.decode(&bytes, &mut values).unwrap();
        assert!(values.iter().all(|&value| value == 0.0), "{kind}");
        for bad in [1e12, 3e38, f32::INFINITY, f32::NAN] {
            let mut weights = vec![0.5; 2 * n];
            weights[n + 3] = bad;
            let error = kind.encode(&weights, None, &mut bytes).unwrap_err();
            assert!(matches!(error, CodecError::Range { block: 1, .. }), "{kind}, {bad}: {error}");
        }
    }
}

#[test]
fn lengths_that_do_not_fit_and_types_that_are_not_written_are_refused() {
    let refused = |kind: GgmlType, weights: usize, bytes: usize, importances: Option<usize>| {
        let importance = importances.map(|n| vec![1.0; n]);
        kind.encode(&vec![0.0; weights], importance.as_deref(), &mut vec![0; bytes]).unwrap_err()
    };
    assert!(matches!(refused(GgmlType::Q4K, 255, 144, None), CodecError::Length { .. }));
    assert!(matches!(refused(GgmlType::Q4K, 256, 143, None), CodecError::Length { .. }));
    assert!(matches!(refused(GgmlType::Q4K, 256, 144, Some(255)), CodecError::Length { .. }));
    let error = refused(GgmlType::Iq2Xs, 256, 74, None);
    assert!(error.to_string().contains("q4_K"), "{error}");
    let error = GgmlType::Iq2Xs.decode(&[0; 74], &mut [0.0; 256]).unwrap_err();
    assert!(matches!(error, CodecError::NotDecodable { kind: GgmlType::Iq2Xs }), "{error}");
}

#[test]
fn plain_floats_round_to_even() {
    let weights = [1.0, -0.1, 65504.0, 3.0e-6];
    for (kind, expected) in [
        (GgmlType::F32, weights),
        (GgmlType::F16, [1.0, -0.099_975_586, 65504.0, 2.980_232_2e-6]),
        (GgmlType::Bf16, [1.0, -0.100_097_656, 65536.0, 2.995_133_4e-6]),
    ] {
        let mut bytes = vec![0; kind.block_bytes() * 4];
        kind.encode(&weights, None, &mut bytes).unwrap();
        let mut decoded = [0.0; 4];
        kind.decode(&bytes, &mut decoded).unwrap();
        assert_eq!(decoded.map(f32::to_bits), expected.map(f32::to_bits), "{kind}: {decoded:?}");
    }
}
