//! A recipe of llm-compressor, with the groups of modules that compressed-tensors describes.

use std::collections::BTreeMap;

use gamma_core::{ModuleName, Plan};
use serde_json::{Map, Value, json};

use super::numbers::{Numbers, divides, integers};
use crate::ExportError;

/// The text for `oneshot(recipe=...)`. JSON is YAML too.
pub(super) fn recipe(plan: &Plan, left: &[ModuleName]) -> Result<String, ExportError> {
    integers(plan, "a recipe for llm-compressor", "integers in groups that divide a row", divides)?;
    let modifier = json!({"ignore": left, "config_groups": config_groups(plan)});
    let recipe = json!({"quant_stage": {"quant_modifiers": {"GPTQModifier": modifier}}});
    Ok(format!("{recipe:#}\n"))
}

/// One group per format, all modules by their exact names. Engines refuse keys that they do not know
/// within a group.
pub(crate) fn config_groups(plan: &Plan) -> Map<String, Value> {
    let mut groups: BTreeMap<Numbers, Vec<&str>> = BTreeMap::new();
    for choice in plan.choices() {
        if let Some(numbers) = Numbers::of(&choice.format) {
            groups.entry(numbers).or_default().push(choice.name.as_str());
        }
    }
    let group = |(place, (numbers, targets)): (usize, (Numbers, Vec<&str>))| {
        let described = json!({
            "targets": targets,
            "weights": {
                "num_bits": numbers.bits, "type": "int", "symmetric": numbers.symmetric, "strategy": "group",
                "group_size": numbers.group, "dynamic": false,
            },
            "input_activations": null,
            "output_activations": null,
            "format": "pack-quantized",
        });
        (format!("group_{place}"), described)
    };
    groups.into_iter().enumerate().map(group).collect()
}
