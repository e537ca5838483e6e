//! A plan as the file of tensor types that `llama-quantize` reads.

use std::{collections::BTreeMap, fmt::Write};

use gamma_core::{ModuleName, Plan};
use gamma_ggml::GgmlType;

use crate::{
    ExportError,
    gguf::{check_plan, gguf_tensor_name, gguf_type},
};

/// The text of a file for `llama-quantize --pure --tensor-type-file FILE`, one line per matrix: the
/// modules of `plan` and `others`, by their names in the checkpoint, such as `lm_head` and
/// `model.embed_tokens`.
///
/// Patterns are escaped and anchored, because the tool searches for them anywhere in a name and takes
/// the first that matches: a bare `output` would also catch every `attn_output`.
///
/// # Errors
/// [`ExportError::Unserved`] names all modules whose format is no type of ggml;
/// [`ExportError::NoGgufName`] a module that GGUF files do not have.
pub fn tensor_type_file(plan: &Plan, others: &BTreeMap<ModuleName, GgmlType>) -> Result<String, ExportError> {
    check_plan(plan.choices().iter().map(|choice| (&choice.name, &choice.format, choice.shape)))?;
    let planned = plan
        .choices()
        .iter()
        .filter_map(|choice| Some((choice.name.clone(), gguf_type(&choice.format, choice.shape)?)));
    let mut text = String::new();
    for (module, kind) in planned.chain(others.iter().map(|(name, &kind)| (name.clone(), kind))) {
        let name = gguf_tensor_name(&module.weight());
        let name = name.ok_or_else(|| ExportError::NoGgufName { tensor: module.weight() })?;
        let _ = writeln!(text, "^{}$={kind}", name.replace('.', "\\."));
    }
    Ok(text)
}
