//! `quant_cfg` of NVIDIA Model-Optimizer.

use std::fmt::Write;

use gamma_core::Plan;

use super::numbers::{divides, integers};
use crate::ExportError;

/// The argument of `modelopt.torch.quantization.quantize` as YAML: nothing is quantized but the weights
/// of the plan's modules, by their exact names. Block sizes are by axis, a whole number, which JSON has
/// no keys for.
pub(super) fn recipe(plan: &Plan) -> Result<String, ExportError> {
    let planned = integers(
        plan,
        "a recipe for Model-Optimizer",
        "symmetric integers in groups that divide a row",
        |numbers, shape| numbers.symmetric && divides(numbers, shape),
    )?;
    let mut text = String::from("algorithm: max\nquant_cfg:\n- {quantizer_name: \"*\", enable: false}\n");
    for (choice, numbers) in planned {
        let _ = writeln!(
            text,
            "- {{quantizer_name: \"{}.weight_quantizer\", enable: true, cfg: {{num_bits: {}, block_sizes: {{-1: \
             {}}}}}}}",
            choice.name, numbers.bits, numbers.group
        );
    }
    Ok(text)
}
