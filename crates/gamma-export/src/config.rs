//! `config.json`, with nothing changed but the type of the weights.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The text of `config.json` with the stored type of all weights set to `dtype`, such as
/// `float32`. `transformers` loads in this type, and would round the decoded weights to the
/// source's type otherwise.
///
/// Sets `torch_dtype` and `dtype` (its newer name) at the top and in the parts of a composed
/// model (`text_config`, ...), and adds the former where neither stands at the top. All other
/// bytes stay.
pub(crate) fn with_dtype(json: &str, dtype: &str) -> serde_json::Result<String> {
    let mut spans = Vec::new();
    let at_top = collect(json, json, &mut spans)?;
    let mut text = json.to_owned();
    // From the back, so that the places in front keep their positions.
    spans.sort_unstable();
    for (start, len) in spans.into_iter().rev() {
        text.replace_range(start..start + len, &format!("\"{dtype}\""));
    }
    if !at_top && let Some(brace) = text.find('{') {
        let first = text[brace + 1..].trim_start().starts_with('"');
        let comma = if first { "," } else { "\n" };
        text.insert_str(brace + 1, &format!("\n  \"torch_dtype\": \"{dtype}\"{comma}"));
    }
    Ok(text)
}

/// Adds start and length of each type within `object`, a part of `json`; tells whether one stands
/// directly in `object`.
fn collect(json: &str, object: &str, spans: &mut Vec<(usize, usize)>) -> serde_json::Result<bool> {
    let entries: BTreeMap<String, &RawValue> = serde_json::from_str(object)?;
    let mut found = false;
    for (key, value) in entries {
        let value = value.get();
        if matches!(key.as_str(), "torch_dtype" | "dtype") {
            spans.push((value.as_ptr().addr() - json.as_ptr().addr(), value.len()));
            found = true;
        } else if key.ends_with("_config") && key != "quantization_config" && value.starts_with('{') {
            collect(json, value, spans)?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_change_and_every_other_byte_stays() {
        let json = |top: &str, inner: &str| {
            format!(
                "{{\n \"eps\": 1e-06, \"torch_dtype\" : {top},\t\"big\": 12345678901234567890123, \"dtype\":{top},\n\
                 \"text_config\": {{\"note\": \"torch_dtype: \\u00e9\", \"dtype\": {inner}}}, \"dtypes\": \"x\",\n\
                 \"quantization_config\": {{\"dtype\": \"int8\"}} }}\n"
            )
        };
        let changed = with_dtype(&json("\"bfloat16\"", "null"), "float32").unwrap();
        assert_eq!(changed, json("\"float32\"", "\"float32\""));
    }

    #[test]
    fn a_missing_type_is_added_first() {
        let cases = [
            ("{\n  \"a\": 1\n}\n", "{\n  \"torch_dtype\": \"float32\",\n  \"a\": 1\n}\n"),
            ("{\"a\": 1}", "{\n  \"torch_dtype\": \"float32\",\"a\": 1}"),
            (" {}", " {\n  \"torch_dtype\": \"float32\"\n}"),
        ];
        for (json, expected) in cases {
            let changed = with_dtype(json, "float32").unwrap();
            assert_eq!(changed, expected);
            assert!(serde_json::from_str::<serde_json::Value>(&changed).is_ok(), "{changed}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for json in ["", "[]", "{\"a\": }", "{} more"] {
            assert!(with_dtype(json, "float32").is_err(), "{json}");
        }
    }
}
