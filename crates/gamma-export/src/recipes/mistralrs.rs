//! A plan as the topology file of mistral.rs, which quantizes by itself while it loads.

use std::fmt::Write;

use gamma_core::Plan;
use gamma_ggml::GgmlType;

use crate::{
    ExportError,
    experts::check_dense,
    unserved::{Unserved, check_served},
};

/// The text of a topology file: one anchored pattern per module of `plan`. mistral.rs makes codes of its
/// own in the types that the plan chose.
///
/// # Errors
/// [`ExportError::Unserved`] names all modules whose format is no block format of ggml;
/// [`ExportError::Experts`] a module of an expert, which mistral.rs stacks.
pub fn mistralrs_topology(plan: &Plan) -> Result<String, ExportError> {
    check_dense("a mistral.rs topology", plan)?;
    let kind = |choice: &gamma_core::Choice| {
        let kind = GgmlType::from_format(&choice.format)?;
        kind.bytes(choice.shape).map(|_| kind)
    };
    let unserved = plan.choices().iter().filter(|choice| kind(choice).is_none()).map(|choice| Unserved {
        module: choice.name.clone(),
        format: choice.format.clone(),
        shape: choice.shape,
    });
    check_served(
        "a mistral.rs topology",
        "ggml's block formats whose blocks divide a row",
        unserved.collect(),
    )?;
    let mut text = String::new();
    for choice in plan.choices() {
        // Where several patterns match, mistral.rs takes the last; these match one name each.
        if let Some(kind) = kind(choice) {
            let name = choice.name.weight().replace('.', "\\.");
            let kind = kind.name().to_lowercase().replace("_k", "k");
            let _ = writeln!(text, "'/^{name}$/':\n  isq: {kind}");
        }
    }
    Ok(text)
}
