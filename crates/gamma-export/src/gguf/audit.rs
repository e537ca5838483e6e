//! What was written, read again.

use std::path::Path;

use gamma_core::Digest;
use gamma_ggml::{GgmlType, Gguf, Outline};
use sha2::{Digest as _, Sha256};

use crate::ExportError;

/// A finished GGUF file, as it was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufReport {
    /// Bytes of the file: exactly those that the outline promised.
    pub file_bytes: u64,
    /// Bytes in front of the first tensor.
    pub data_offset: u64,
    /// The tensors, in the order of the file.
    pub tensors: Vec<AuditedTensor>,
}

/// A tensor of a finished file.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditedTensor {
    /// Its name in the file.
    pub name: String,
    /// How it is stored.
    pub kind: GgmlType,
    /// Its bytes, without padding.
    pub bytes: u64,
    /// The hash of these bytes, as they were handed to the file system and as they were read back.
    pub digest: Digest,
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes).into())
}

/// Reads the file at `staged` and compares it with what it should be: keys, tensors, sizes, hashes,
/// and by `values` the weights that it decodes to. Errors name `path`.
pub(super) fn audit(
    path: &Path,
    staged: &Path,
    outline: &Outline,
    digests: &[Digest],
    mut values: impl FnMut(&str) -> Option<Vec<f32>>,
) -> Result<GgufReport, ExportError> {
    let differs = |what: String| ExportError::Audit { path: path.to_owned(), what };
    let read = Gguf::open(staged)?;
    if read.metadata() != outline.metadata() {
        return Err(differs("its keys".into()));
    }
    if read.file_bytes() != outline.file_bytes() || read.data_offset() != outline.data_offset() {
        return Err(differs(format!("its size, {} bytes for {}", read.file_bytes(), outline.file_bytes())));
    }
    if read.tensors() != outline.tensors() {
        return Err(differs("its list of tensors".into()));
    }
    let mut tensors = Vec::new();
    for (tensor, expected) in read.tensors().iter().zip(digests) {
        let (name, kind) = (tensor.name.clone(), tensor.kind);
        let bytes = read.bytes(&name).unwrap_or_default();
        let digest = digest(bytes);
        if digest != *expected {
            return Err(differs(format!("the bytes of tensor `{name}`")));
        }
        if let Some(expected) = values(&name) {
            let mut found = vec![0.0; expected.len()];
            kind.decode(bytes, &mut found)?;
            if found.iter().zip(&expected).any(|(a, b)| (a + 0.0).to_bits() != (b + 0.0).to_bits()) {
                return Err(differs(format!("the weights of tensor `{name}`")));
            }
        }
        tensors.push(AuditedTensor { name, kind, bytes: bytes.len() as u64, digest });
    }
    Ok(GgufReport { file_bytes: read.file_bytes(), data_offset: read.data_offset(), tensors })
}
