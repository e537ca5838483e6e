//! The published schemas against the files that are written and read.
#![allow(clippy::unwrap_used, reason = "called by tests alone")]

use std::collections::BTreeSet;

use gamma_core::{Budget, FileError, Plan, PlanFile, ScoresFile};
use serde_json::{Value, json};

fn schema(name: &str) -> Value {
    serde_json::from_str(match name {
        "scores" => include_str!("../../../docs/scores.schema.json"),
        _ => include_str!("../../../docs/plan.schema.json"),
    })
    .unwrap()
}

/// Follows a reference.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => &root["$defs"][path.strip_prefix("#/$defs/").unwrap()],
        None => schema,
    }
}

/// What of `value` does not keep to `schema`, keys that it does not know included. Notes in `seen` the
/// properties of the schema that it met.
fn check(
    root: &Value,
    schema: &Value,
    value: &Value,
    place: &str,
    seen: &mut BTreeSet<String>,
) -> Vec<String> {
    let schema = resolved(root, schema);
    let mut wrong = Vec::new();
    let mut say = |what: &str| wrong.push(format!("{place}: {what}"));
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => Vec::new(),
        kind => vec![kind.clone()],
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        say("of another type");
    }
    if schema.get("const").is_some_and(|expected| expected != value) {
        say("another constant");
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        say("not in the list");
    }
    if let Some(object) = value.as_object() {
        for key in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(key.as_str().unwrap()) {
                say(&format!("lacks {key}"));
            }
        }
        for (key, inner) in object {
            let path = format!("{place}.{key}");
            match schema["properties"].get(key) {
                Some(known) => {
                    seen.insert(path.clone());
                    wrong.extend(check(root, known, inner, &path, seen));
                }
                // Keys that are names.
                None if schema.get("additionalProperties").is_some() => {
                    wrong.extend(check(root, &schema["additionalProperties"], inner, &path, seen));
                }
                None => wrong.push(format!("{path}: unknown")),
            }
        }
    }
    for item in value.as_array().into_iter().flatten() {
        wrong.extend(check(root, &schema["items"], item, place, seen));
    }
    wrong
}

/// All properties of a schema, as `check` notes them.
fn properties(root: &Value, schema: &Value, place: &str, all: &mut BTreeSet<String>) {
    let schema = resolved(root, schema);
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{place}.{key}");
        all.insert(path.clone());
        properties(root, inner, &path, all);
    }
    if schema.get("items").is_some() {
        properties(root, &schema["items"], place, all);
    }
}

#[test]
fn what_is_written_has_just_the_keys_of_the_schemas() {
    for name in ["scores", "plan"] {
        let root = schema(name);
        let example = root["examples"][0].clone();
        let text = example.to_string();
        let (mut seen, mut all) = (BTreeSet::new(), BTreeSet::new());
        let written: Vec<String> = if name == "scores" {
            vec![ScoresFile::from_json(&text).unwrap().to_json()]
        } else {
            let file = PlanFile::from_json(&text).unwrap();
            let budgets = [
                Budget::average_bits(3.0),
                Budget::code_bits_per_weight(3.0),
                Budget::stored_bits_per_weight(3.0),
                Budget::bytes(1),
                Budget::artifact(1),
                Budget::gguf(1),
                Budget::device(1, 2),
            ];
            let budgets = budgets.into_iter().map(Some).chain([None]);
            budgets.map(|budget| PlanFile { budget, ..file.clone() }.to_json()).collect()
        };
        for text in written {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(check(&root, &root, &value, "", &mut seen), Vec::<String>::new(), "{name}");
        }
        properties(&root, &root, "", &mut all);
        assert_eq!(seen, all, "{name}: every property of the schema is written");
    }
}

#[test]
fn examples_mean_what_they_say_and_other_versions_are_refused() {
    let read = |name: &str, change: &dyn Fn(&mut Value)| -> Result<(), FileError> {
        let mut example = schema(name)["examples"][0].clone();
        change(&mut example);
        let text = example.to_string();
        if name == "scores" {
            ScoresFile::from_json(&text).map(drop)
        } else {
            PlanFile::from_json(&text).map(drop)
        }
    };
    for name in ["scores", "plan"] {
        read(name, &|example| {
            example["comment"] = json!("ignored");
            example["modules"][0]["comment"] = json!({"ignored": 1});
        })
        .unwrap();
        for format in [format!("gamma.{name}/2"), "gamma.scores".into(), "other/1".into(), String::new()] {
            let refused = read(name, &|example| example["format"] = json!(format)).unwrap_err();
            assert!(matches!(&refused, FileError::Format { found, .. } if *found == format), "{refused}");
        }
        let refused = read(name, &|example| drop(example.as_object_mut().unwrap().remove("format")));
        assert!(matches!(refused, Err(FileError::Json { .. })));
        // Patterns are names like any other, and match nothing.
        let mut plan = schema("plan")["examples"][0].clone();
        plan["modules"][0]["name"] = json!("*.q_proj");
        let plan = PlanFile::from_json(&plan.to_string()).unwrap();
        let found = Plan::choice(&plan.plan, &gamma_core::ModuleName::new("model.layers.0.self_attn.q_proj"));
        assert!(found.is_none());
    }
}
