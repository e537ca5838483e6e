//! Damaged packed files, checkpoints and GGUF files to copy: an error or a result, never a panic, and no
//! output of a refused one.
//!
//! ```sh
//! GAMMA_FUZZ_SECONDS=600 cargo test --release --test damaged
//! ```
#![allow(clippy::unwrap_used, reason = "called by tests alone")]

#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;

mod fixture;

use std::fs;

use fixture::{folder, quantize, read};
use gamma_export::{Export, ExportError, GgufExport, GgufRecode, Precision, read_packed};
use gamma_ggml::GgmlType;

/// Bytes of a file that hold its structure.
fn header(bytes: &[u8]) -> usize {
    let length: [u8; 8] = bytes[..8].try_into().unwrap();
    8 + u64::from_le_bytes(length) as usize
}

#[test]
fn damaged_packed_files_end_in_errors() {
    let (plan, weights) = quantize(&folder("golden/qwen2-random"));
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    Export::new(&plan).packed().write(&out, &weights).unwrap();
    let valid = read(&out.join("packed.safetensors"));
    let path = scratch.path().join("damaged.safetensors");
    let whole = header(&valid);
    mutate::fuzz(&[(valid, whole)], 400, |bytes| {
        fs::write(&path, bytes).unwrap();
        if let Ok(found) = read_packed(&path) {
            for weight in found.values() {
                _ = weight.dequantize();
            }
        }
    });
}

#[test]
fn damaged_checkpoints_are_copied_whole_or_not_at_all() {
    let source = folder("golden/qwen2-random");
    let (plan, weights) = quantize(&source);
    let scratch = tempfile::tempdir().unwrap();
    let (copy, out) = (scratch.path().join("copy"), scratch.path().join("out"));
    fs::create_dir(&copy).unwrap();
    fs::copy(source.join("config.json"), copy.join("config.json")).unwrap();
    let valid = read(&source.join("model.safetensors"));
    let whole = header(&valid);
    mutate::fuzz(&[(valid, whole)], 200, |bytes| {
        fs::write(copy.join("model.safetensors"), bytes).unwrap();
        let export = Export::new(&plan).dequantized(&copy, Precision::Source);
        match export.write(&out, &weights) {
            Ok(_) => fs::remove_dir_all(&out).unwrap(),
            Err(_) => assert!(!out.exists()),
        }
        _ = GgufExport::unquantized(&copy).without_tokenizer().outline();
    });
}

#[test]
fn damaged_gguf_files_are_recoded_or_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, out) = (scratch.path().join("whole.gguf"), scratch.path().join("out.gguf"));
    let none = fixture::Weights::new();
    GgufExport::unquantized(folder("golden/qwen2-random")).without_tokenizer().write(&path, &none).unwrap();
    let valid = read(&path);
    let whole = GgufRecode::open(&path).unwrap().source().data_offset() as usize;
    mutate::fuzz(&[(valid, whole)], 200, |bytes| {
        fs::write(&path, bytes).unwrap();
        let recode = || -> Result<(), ExportError> {
            let mut recode = GgufRecode::open(&path)?.overwrite(true);
            let names: Vec<String> = recode.source().tensors().iter().map(|t| t.name.clone()).collect();
            for name in names {
                recode = match recode.tensor(&name, GgmlType::Q8_0) {
                    Ok(recode) => recode,
                    Err(_) => return Ok(()),
                };
            }
            recode.write(&out).map(drop)
        };
        _ = recode();
    });
}
