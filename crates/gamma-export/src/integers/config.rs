//! What `config.json` says about the codes.

use std::collections::{BTreeMap, BTreeSet};

use gamma_core::{Choice, Format, Plan};
use serde_json::{Map, Value, json};

use super::IntegerLayout;

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
        IntegerLayout::Mlx => {
            let described = mlx(plan);
            config.insert("quantization".into(), described.clone());
            config.insert("quantization_config".into(), described);
        }
    }
}

/// Bits and group of an integer format.
fn numbers(choice: &Choice) -> (u64, u64) {
    match &choice.format {
        Format::Int { bits, group, .. } => (u64::from(bits.bits()), group.get() as u64),
        format => unreachable!("`{format}` was refused"),
    }
}

/// One group per pair of bits and group size, all modules by their exact names. Engines refuse keys
/// that they do not know within a group.
fn compressed_tensors(plan: &Plan, others: &BTreeSet<String>) -> Value {
    let mut groups: BTreeMap<(u64, u64), Vec<&str>> = BTreeMap::new();
    for choice in plan.choices() {
        groups.entry(numbers(choice)).or_default().push(choice.name.as_str());
    }
    let group = |(place, ((bits, group), targets)): (usize, ((u64, u64), Vec<&str>))| {
        let described = json!({
            "targets": targets,
            "weights": {
                "num_bits": bits, "type": "int", "symmetric": true, "strategy": "group",
                "group_size": group, "dynamic": false,
            },
            "input_activations": null,
            "output_activations": null,
            "format": "pack-quantized",
        });
        (format!("group_{place}"), described)
    };
    let groups: Map<String, Value> = groups.into_iter().enumerate().map(group).collect();
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": others,
        "config_groups": groups,
    })
}

/// The most frequent pair for all, and every module by its exact name besides.
fn auto_round(plan: &Plan, others: &BTreeSet<String>) -> Value {
    let (bits, group) = most_frequent(plan);
    let quantized = plan.choices().iter().map(|choice| {
        let (bits, group) = numbers(choice);
        (choice.name.to_string(), json!({"bits": bits, "group_size": group, "sym": true}))
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
    let (bits, group) = most_frequent(plan);
    let mut map = Map::from_iter([("group_size".into(), json!(group)), ("bits".into(), json!(bits))]);
    for choice in plan.choices() {
        let (bits, group) = numbers(choice);
        map.insert(choice.name.to_string(), json!({"group_size": group, "bits": bits}));
    }
    Value::Object(map)
}

fn most_frequent(plan: &Plan) -> (u64, u64) {
    let mut counts: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for choice in plan.choices() {
        *counts.entry(numbers(choice)).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map_or((4, 128), |(pair, _)| pair)
}
