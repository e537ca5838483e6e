//! `QuantizeConfig` of `GPTQModel`, whose rules for single modules are `dynamic`.

use gamma_core::{ModuleName, Plan};
use serde_json::{Map, Value, json};

use super::numbers::{Numbers, divides, integers, most_frequent};
use crate::{ExportError, integers::JOINED};

/// The arguments of `QuantizeConfig` as JSON.
pub(super) fn recipe(plan: &Plan, left: &[ModuleName]) -> Result<String, ExportError> {
    let sides = |shape: [usize; 2]| shape.iter().all(|side| side.is_multiple_of(32));
    integers(
        plan,
        "a recipe for GPTQModel",
        "integers of 2, 3, 4 or 8 bits in groups that divide a row, in matrices of a multiple of 32 rows and \
         columns",
        |numbers, shape| matches!(numbers.bits, 2 | 3 | 4 | 8) && divides(numbers, shape) && sides(shape),
    )?;
    let left = left.iter().map(ModuleName::as_str);
    Ok(format!("{:#}\n", Value::Object(settings(plan, left))))
}

/// The format of most modules for all, and `dynamic` for the others.
pub(crate) fn settings<'a>(plan: &Plan, left: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    let usual = most_frequent(plan);
    let settings = json!({
        "bits": usual.bits,
        "group_size": usual.group,
        "sym": usual.symmetric,
        "desc_act": false,
        "lm_head": plan.choice(&ModuleName::new("lm_head")).is_some(),
        "dynamic": dynamic(plan, usual, left),
    });
    match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    }
}

/// A rule for every module that differs from `usual`, and one for each that is left as it is. The first
/// rule that matches counts; these match one name each.
///
/// vLLM asks for the name of the matrix that it joins modules into, so that every rule about one of
/// them is repeated for that name, where they agree.
fn dynamic<'a>(plan: &Plan, usual: Numbers, left: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    let pattern = |sign: char, module: &str| format!("{sign}:^{}$", module.replace('.', "\\."));
    let mut rules = Map::new();
    for choice in plan.choices() {
        let Some(numbers) = Numbers::of(&choice.format).filter(|&numbers| numbers != usual) else { continue };
        let rule = json!({"bits": numbers.bits, "group_size": numbers.group, "sym": numbers.symmetric});
        if let Some(joined) = joined(choice.name.as_str(), |part| {
            plan.choice(&ModuleName::new(part)).is_some_and(|other| other.format == choice.format)
        }) {
            rules.insert(pattern('+', &joined), rule.clone());
        }
        rules.insert(pattern('+', choice.name.as_str()), rule);
    }
    let left: Vec<&str> = left.collect();
    for module in &left {
        if let Some(joined) = joined(module, |part| left.contains(&part)) {
            rules.insert(pattern('-', &joined), json!({}));
        }
        rules.insert(pattern('-', module), json!({}));
    }
    rules
}

/// The name of the matrix that `module` becomes a part of, if `agrees` with all its parts.
fn joined(module: &str, agrees: impl Fn(&str) -> bool) -> Option<String> {
    let (parent, role) = module.rsplit_once('.')?;
    let &(name, roles) = JOINED.iter().find(|(_, roles)| roles.contains(&role))?;
    roles.iter().all(|role| agrees(&format!("{parent}.{role}"))).then(|| format!("{parent}.{name}"))
}
