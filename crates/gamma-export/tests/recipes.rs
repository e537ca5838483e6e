//! Recipes for other tools, by what their own documentation says of them.
#![allow(clippy::unwrap_used, reason = "called by tests alone")]

mod fixture;

use fixture::{Weights, plan};
use gamma_core::{BitWidth, GroupSize, ModuleName, Plan};
use gamma_export::{ExportError, Recipe};
use gamma_ggml::{Ggml, GgmlType};
use gamma_quant::{CalibrationStats, QuantizedWeight, Quantizer, Rtn, WeightView};
use ndarray::Array2;
use serde_json::Value;

const ROLES: [&str; 4] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj"];

fn module(block: usize, role: &str) -> ModuleName {
    ModuleName::new(format!("model.layers.{block}.{role}"))
}

/// A small matrix for each of `ROLES` in two blocks.
fn quantized(quantize: impl Fn(usize, &str, &WeightView<'_>) -> QuantizedWeight) -> Plan {
    let mut weights = Weights::new();
    for (block, role) in (0..2).flat_map(|block| ROLES.map(|role| (block, role))) {
        let name = module(block, role);
        let matrix = Array2::from_shape_fn((32, 256), |(i, j)| ((i * 256 + j) as f32 * 0.7).sin());
        let view = WeightView::new(&name, matrix.view()).unwrap();
        weights.insert(name.clone(), quantize(block, role, &view));
    }
    plan(&weights)
}

/// Four bits in groups of 64; `down_proj` of the second block 8 in groups of 32, its attention 3.
fn integers() -> Plan {
    quantized(|block, role, view| {
        let (bits, group) = match (block, role) {
            (1, "mlp.down_proj") => (BitWidth::B8, 32),
            (1, _) => (BitWidth::B3, 64),
            _ => (BitWidth::B4, 64),
        };
        let rtn = Rtn::symmetric(GroupSize::new(group).unwrap());
        rtn.quantize_at(view, &CalibrationStats::default(), bits).unwrap()
    })
}

fn blocks() -> Plan {
    quantized(|block, role, view| {
        let kind = if (block, role) == (1, "mlp.down_proj") { GgmlType::Q6K } else { GgmlType::Q3K };
        let format = kind.format().unwrap();
        Ggml::portable().quantize(view, &CalibrationStats::default(), &format).unwrap()
    })
}

fn json(recipe: Recipe) -> Value {
    serde_json::from_str(&recipe.text(&integers(), &[ModuleName::new("lm_head")]).unwrap()).unwrap()
}

#[test]
fn rules_of_gptqmodel_name_what_differs_and_what_vllm_joins() {
    let config = json(Recipe::GptqModel);
    assert_eq!(
        (&config["bits"], &config["group_size"], &config["sym"]),
        (&4.into(), &64.into(), &true.into())
    );
    let rules: Vec<(&String, u64)> = config["dynamic"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(rule, value)| (rule, value["bits"].as_u64().unwrap_or(16)))
        .collect();
    let attention = r"model\.layers\.1\.self_attn";
    let expected = [
        (format!(r"+:^{attention}\.k_proj$"), 3),
        (format!(r"+:^{attention}\.q_proj$"), 3),
        (format!(r"+:^{attention}\.qkv_proj$"), 3),
        (format!(r"+:^{attention}\.v_proj$"), 3),
        (r"+:^model\.layers\.1\.mlp\.down_proj$".to_owned(), 8),
        (r"-:^lm_head$".to_owned(), 16),
    ];
    let mut found: Vec<(String, u64)> = rules.into_iter().map(|(rule, bits)| (rule.clone(), bits)).collect();
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn groups_and_maps_name_every_module_once() {
    let recipe = json(Recipe::LlmCompressor);
    let modifier = &recipe["quant_stage"]["quant_modifiers"]["GPTQModifier"];
    assert_eq!(modifier["ignore"], serde_json::json!(["lm_head"]));
    let mut found: Vec<(String, u64)> = Vec::new();
    for group in modifier["config_groups"].as_object().unwrap().values() {
        let bits = group["weights"]["num_bits"].as_u64().unwrap();
        found.extend(
            group["targets"].as_array().unwrap().iter().map(|t| (t.as_str().unwrap().to_owned(), bits)),
        );
    }
    found.sort();
    let mut expected: Vec<(String, u64)> =
        integers().choices().iter().map(|c| (c.name.to_string(), c.format.bits().bits().into())).collect();
    expected.sort();
    assert_eq!(found, expected);

    let config = json(Recipe::AutoRound);
    assert_eq!(config["lm_head"]["bits"], 16);
    let own = config.as_object().unwrap().iter().filter(|(name, _)| *name != "lm_head");
    let own: Vec<(String, u64)> = own.map(|(name, v)| (name.clone(), v["bits"].as_u64().unwrap())).collect();
    assert_eq!(own, expected);
}

#[test]
fn text_recipes_have_a_line_for_every_module() {
    let plan = integers();
    let text = Recipe::ModelOptimizer.text(&plan, &[]).unwrap();
    let line = "- {quantizer_name: \"model.layers.1.mlp.down_proj.weight_quantizer\", enable: true, cfg: \
                {num_bits: 8, block_sizes: {-1: 32}}}";
    assert!(text.lines().any(|found| found == line), "{text}");
    let text = Recipe::Mlx.text(&plan, &[]).unwrap();
    let line = "    \"model.layers.1.mlp.down_proj\": {\"bits\": 8, \"group_size\": 32},";
    assert!(text.lines().any(|found| found == line), "{text}");
    let text = Recipe::ExLlamaV3.text(&plan, &[]).unwrap();
    assert!(text.starts_with("sources:\n  - id: 3\n    model_dir: MODEL-3bpw\n  - id: 4\n"), "{text}");
    assert!(text.contains("  - key: \"model.layers.1.mlp.down_proj.*\"\n    source: 8\n"), "{text}");
    assert_eq!(text.matches("- key:").count(), 8);
    let blocks = blocks();
    let text = Recipe::LlamaQuantize.text(&blocks, &[]).unwrap();
    assert!(text.lines().any(|line| line == r"^blk\.1\.ffn_down\.weight$=q6_K"), "{text}");
    let text = Recipe::MistralRs.text(&blocks, &[]).unwrap();
    assert!(text.contains("'/^model\\.layers\\.1\\.mlp\\.down_proj\\.weight$/':\n  isq: q6k\n"), "{text}");
}

#[test]
fn tools_are_given_no_formats_that_they_do_not_make() {
    let (integers, blocks) = (integers(), blocks());
    for recipe in Recipe::all() {
        assert_eq!(recipe.to_string().parse(), Ok(recipe));
        let of_blocks = matches!(recipe, Recipe::LlamaQuantize | Recipe::MistralRs);
        let refused = if of_blocks { &integers } else { &blocks };
        match recipe.text(refused, &[]) {
            Ok(_) => assert_eq!(recipe, Recipe::ExLlamaV3),
            Err(ExportError::Unserved { modules, .. }) => assert!(!modules.is_empty(), "{recipe}"),
            Err(error) => panic!("{recipe}: {error}"),
        }
    }
    assert!("awq".parse::<Recipe>().is_err());
}
