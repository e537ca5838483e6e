//! Modules that engines join into one matrix and that must therefore share a format.

use std::collections::BTreeMap;

use gamma_core::{Format, Plan};

use crate::ExportError;

/// What vLLM joins: the matrix, and the roles of one block that become it.
pub(crate) const JOINED: [(&str, &[&str]); 2] =
    [("qkv_proj", &["q_proj", "k_proj", "v_proj"]), ("gate_up_proj", &["gate_proj", "up_proj"])];

/// Refuses a plan in which joined modules differ, also where one of them is not planned at all.
pub(super) fn check(plan: &Plan) -> Result<(), ExportError> {
    // By the parent module and the number of the joined matrix, the formats of its parts.
    let mut found: BTreeMap<(String, usize), Vec<(&str, &Format)>> = BTreeMap::new();
    for choice in plan.choices() {
        let joined = JOINED.iter().position(|(_, roles)| roles.contains(&choice.name.role()));
        if let (Some(joined), Some((parent, role))) = (joined, choice.name.as_str().rsplit_once('.')) {
            found.entry((parent.to_owned(), joined)).or_default().push((role, &choice.format));
        }
    }
    for ((parent, joined), parts) in found {
        let same = parts.iter().all(|(_, format)| *format == parts[0].1);
        if !same || parts.len() != JOINED[joined].1.len() {
            let describe = |role: &&str| {
                let format = parts.iter().find(|(found, _)| found == role);
                let format = format.map_or("not planned".to_owned(), |(_, format)| format!("`{format}`"));
                format!("`{role}` {format}")
            };
            let parts = JOINED[joined].1.iter().map(describe).collect::<Vec<_>>().join(", ");
            return Err(ExportError::Untied { parent, parts });
        }
    }
    Ok(())
}
