//! What `config.json` says about the codes.

use std::collections::BTreeSet;

use gamma_core::Plan;
use serde_json::{Map, Value, json};

use super::IntegerLayout;
use crate::recipes::{Numbers, config_groups, gptq_settings, most_frequent};

/// Sets the keys of `config` for the modules of `plan`; `others` are all further linear modules.
pub(super) fn describe(
    layout: IntegerLayout,
    config: &mut Map<String, Value>,
    plan: &Plan,
    others: &BTreeSet<String>,
) {
    match layout {
        IntegerLayout::CompressedTensors => {
            config.insert("quantization_config".into(), compressed_tensors(plan, others));
        }
        IntegerLayout::AutoRound => {
            config.insert("quantization_config".into(), auto_round(plan, others));
        }
        IntegerLayout::Gptq => {
            config.insert("quantization_config".into(), gptq(plan, others));
        }
        IntegerLayout::Mlx => {
            let described = mlx(plan);
            config.insert("quantization".into(), described.clone());
            config.insert("quantization_config".into(), described);
        }
    }
}

fn compressed_tensors(plan: &Plan, others: &BTreeSet<String>) -> Value {
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": others,
        "config_groups": config_groups(plan),
    })
}

fn gptq(plan: &Plan, others: &BTreeSet<String>) -> Value {
    let mut settings = gptq_settings(plan, others.iter().map(String::as_str));
    settings.insert("quant_method".into(), json!("gptq"));
    settings.insert("checkpoint_format".into(), json!("gptq"));
    Value::Object(settings)
}

/// The text of `quantize_config.json`, where `GPTQModel` looks first.
pub(super) fn quantize_config(plan: &Plan, others: &BTreeSet<String>) -> String {
    format!("{:#}\n", gptq(plan, others))
}

/// The most frequent pair for all, and every module by its exact name besides.
fn auto_round(plan: &Plan, others: &BTreeSet<String>) -> Value {
    let Numbers { bits, group, .. } = most_frequent(plan);
    let quantized = numbers(plan).map(|(module, Numbers { bits, group, .. })| {
        (module, json!({"bits": bits, "group_size": group, "sym": true}))
    });
    let left = others.iter().map(|name| (name.clone(), json!({"bits": 16, "data_type": "float"})));
    let extra: Map<String, Value> = quantized.chain(left).collect();
    json!({
        "quant_method": "auto-round",
        "bits": bits,
        "group_size": group,
        "sym": true,
        "data_type": "int",
        "packing_format": "auto_round:auto_gptq",
        "block_name_to_quantize": "model.layers",
        // The version whose keys these are, not the writer.
        "autoround_version": "0.10.0",
        "extra_config": extra,
    })
}

/// The most frequent pair for all, and every module besides. A module is quantized if it has scales.
fn mlx(plan: &Plan) -> Value {
    let Numbers { bits, group, .. } = most_frequent(plan);
    let mut map = Map::from_iter([("group_size".into(), json!(group)), ("bits".into(), json!(bits))]);
    map.extend(
        numbers(plan).map(|(module, Numbers { bits, group, .. })| {
            (module, json!({"group_size": group, "bits": bits}))
        }),
    );
    Value::Object(map)
}

/// The formats of the modules, all of integers.
fn numbers(plan: &Plan) -> impl Iterator<Item = (String, Numbers)> {
    plan.choices().iter().filter_map(|choice| Some((choice.name.to_string(), Numbers::of(&choice.format)?)))
}
