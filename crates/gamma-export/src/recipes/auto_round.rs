//! `layer_config` of AutoRound.

use gamma_core::{ModuleName, Plan};
use serde_json::{Map, Value, json};

use super::numbers::{divides, integers};
use crate::ExportError;

/// The argument `layer_config` as JSON: every module by its exact name.
pub(super) fn recipe(plan: &Plan, left: &[ModuleName]) -> Result<String, ExportError> {
    let planned = integers(
        plan,
        "a recipe for AutoRound",
        "integers of 2, 3, 4 or 8 bits in groups that divide a row",
        |numbers, shape| matches!(numbers.bits, 2 | 3 | 4 | 8) && divides(numbers, shape),
    )?;
    let planned = planned.into_iter().map(|(choice, numbers)| {
        let (bits, group, sym) = (numbers.bits, numbers.group, numbers.symmetric);
        let settings = json!({"bits": bits, "group_size": group, "sym": sym, "data_type": "int"});
        (choice.name.to_string(), settings)
    });
    let left = left.iter().map(|module| (module.to_string(), json!({"bits": 16, "data_type": "float"})));
    let config: Map<String, Value> = planned.chain(left).collect();
    Ok(format!("{:#}\n", Value::Object(config)))
}
