//! Overrides for `recompile.py` of `ExLlamaV3`, which joins uniform models module by module.

use std::{collections::BTreeSet, fmt::Write};

use gamma_core::Plan;

/// The file for `recompile.py --override`. `ExLlamaV3` makes codes of its own; of every format its
/// bit-width counts. `MODEL-4bpw` and the like are to be replaced by the folders of models that
/// `convert.py` made at these widths; the widest is also the one to override.
pub(super) fn recipe(plan: &Plan) -> String {
    let widths: BTreeSet<u8> = plan.choices().iter().map(|choice| choice.format.bits().bits()).collect();
    let mut text = String::from("sources:\n");
    for bits in widths {
        let _ = writeln!(text, "  - id: {bits}\n    model_dir: MODEL-{bits}bpw");
    }
    text.push_str("overrides:\n");
    for choice in plan.choices() {
        let (name, bits) = (&choice.name, choice.format.bits());
        // All tensors of a module have its name in front; a `*` matches any text.
        let _ = writeln!(text, "  - key: \"{name}.*\"\n    source: {bits}");
    }
    text
}
