//! The importance of input channels as the file that `llama-quantize` reads.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use gamma_core::ModuleName;
use gamma_ggml::{GgmlType, Metadata, Outline, TensorInfo, Value};

use super::names::gguf_tensor_name;
use crate::ExportError;

/// The mean squares of a module's inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments<'a> {
    /// Number of vectors behind the means.
    pub tokens: usize,
    /// Mean over them of `x²` per input channel.
    pub second_moment: &'a [f32],
}

/// Writes an importance matrix: what `llama-quantize --imatrix FILE` weighs errors with. `dataset` names
/// the calibration text, in sequences of `sequence` tokens.
///
/// # Errors
/// [`ExportError`] if GGUF has no name for a module, its moments are negative, not finite or all zero,
/// or the file cannot be written.
pub fn write_imatrix(
    path: &Path,
    modules: &BTreeMap<ModuleName, Moments<'_>>,
    dataset: &str,
    sequence: u32,
) -> Result<(), ExportError> {
    let mut metadata = Metadata::new();
    metadata.set("general.type", "imatrix");
    metadata.set("imatrix.datasets", Value::strings([dataset]));
    let tokens = modules.values().map(|moments| moments.tokens).max().unwrap_or(0);
    metadata.set("imatrix.chunk_count", (tokens as u32).div_ceil(sequence.max(1)));
    metadata.set("imatrix.chunk_size", sequence);
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (module, moments) in modules {
        let name = gguf_tensor_name(&module.weight());
        let name = name.ok_or_else(|| ExportError::NoGgufName { tensor: module.weight() })?;
        let channels = moments.second_moment.len();
        if gamma_ggml::importance(moments.second_moment).is_none() || moments.tokens == 0 {
            return Err(ExportError::Moments { module: module.clone(), channels });
        }
        // The tool divides the sums by the counts.
        let count = moments.tokens as f32;
        infos.push(TensorInfo::new(format!("{name}.in_sum2"), &[1, channels], GgmlType::F32));
        data.push(moments.second_moment.iter().map(|moment| moment * count).collect());
        infos.push(TensorInfo::new(format!("{name}.counts"), &[1, 1], GgmlType::F32));
        data.push(vec![count]);
    }
    let invalid = |source| gamma_ggml::GgufError::Invalid { path: path.to_owned(), source };
    let outline = Outline::new(metadata, infos).map_err(invalid)?;
    let mut data = data.into_iter();
    outline.write(path, |_| {
        let values: Vec<f32> = data.next().unwrap_or_default();
        Ok(Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect()))
    })
}
