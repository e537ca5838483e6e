//! `quant_predicate` of mlx-lm.

use std::fmt::Write;

use gamma_core::Plan;

use crate::{ExportError, IntegerLayout, experts::check_dense, recipes::numbers::integers};

const TARGET: &str = "a recipe for mlx-lm";

/// A Python file with the function that `mlx_lm.convert` asks about every module.
pub(super) fn recipe(plan: &Plan) -> Result<String, ExportError> {
    // The tool stacks experts before it asks, so that the name of one would never be looked up.
    check_dense(TARGET, plan)?;
    let layout = IntegerLayout::Mlx;
    let planned = integers(plan, TARGET, layout.served(), |numbers, shape| {
        matches!(numbers.bits, 2..=6 | 8)
            && matches!(numbers.group, 32 | 64 | 128)
            && (shape[1] as u64).is_multiple_of(numbers.group)
    })?;
    let mut text = String::from(
        "\"\"\"mlx_lm.convert(..., quantize=True, quant_predicate=quant_predicate)\"\"\"\n\nFORMATS = {\n",
    );
    for (choice, numbers) in planned {
        let _ = writeln!(
            text,
            "    \"{}\": {{\"bits\": {}, \"group_size\": {}}},",
            choice.name, numbers.bits, numbers.group
        );
    }
    text.push_str("}\n\n\ndef quant_predicate(path, *_):\n    return FORMATS.get(path, False)\n");
    Ok(text)
}
