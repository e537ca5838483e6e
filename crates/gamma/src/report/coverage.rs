//! What a plan does not decide, and what calibration text did not reach: said aloud.

use std::collections::BTreeMap;

use gamma_core::{FixedRole, Part, Routing};
use gamma_export::Unplanned;

/// Weights that no plan changes, by role, beside the `planned` ones: numbers and bytes in one
/// paragraph.
///
/// ```
/// use std::collections::BTreeMap;
/// use gamma::{Unplanned, core::FixedRole, report};
/// let head = Unplanned { tensors: 1, weights: 3_000, bytes: 6_000 };
/// let text = report::unplanned(7_000, &BTreeMap::from([(FixedRole::Head, head)]));
/// assert_eq!(
///     text,
///     "NOT ALLOCATED: 3000 of 10000 weights (30.00 %) stay as they are, 5.9 KiB: output head 3000 (5.9 KiB)"
/// );
/// ```
#[must_use]
pub fn unplanned(planned: u64, unplanned: &BTreeMap<FixedRole, Unplanned>) -> String {
    let weights: u64 = unplanned.values().map(|own| own.weights).sum();
    let bytes: u64 = unplanned.values().map(|own| own.bytes).sum();
    let all = planned + weights;
    let kib = |bytes: u64| format!("{:.1} KiB", bytes as f64 / 1024.0);
    let part = |(&role, own): (&FixedRole, &Unplanned)| {
        format!("{} {} ({})", Part::Fixed(role), own.weights, kib(own.bytes))
    };
    let parts: Vec<String> = unplanned.iter().map(part).collect();
    let share = 100.0 * weights as f64 / all.max(1) as f64;
    format!(
        "NOT ALLOCATED: {weights} of {all} weights ({share:.2} %) stay as they are, {}: {}",
        kib(bytes),
        parts.join(", ")
    )
}

/// Experts that too few calibration tokens went to, what was done about them, and what would help;
/// `None` where every expert saw enough.
///
/// ```
/// use gamma::{Routing, SparseExpert, report};
/// let few = vec![SparseExpert { name: "model.layers.1.mlp.experts.3".into(), tokens: 0 }];
/// let mut routing = Routing { experts: 8, tokens: 512, fewest: 32, few };
/// let text = report::starved(&routing).expect("a warning");
/// assert!(text.starts_with("FEW TOKENS: 1 of 8 experts saw fewer than 32"), "{text}");
/// assert!(text.contains("model.layers.1.mlp.experts.3 (0)"), "{text}");
/// routing.few.clear();
/// assert_eq!(report::starved(&routing), None);
/// ```
#[must_use]
pub fn starved(routing: &Routing) -> Option<String> {
    (!routing.is_sufficient()).then(|| {
        format!(
            "FEW TOKENS: {routing}. Statistics of all tokens of the block make up for theirs, their options \
             cost as if tokens spread evenly, and refinement does not narrow them. More calibration text, \
             or of other kinds, would tell"
        )
    })
}
