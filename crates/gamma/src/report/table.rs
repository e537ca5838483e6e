//! The comparison as a Markdown table.

use std::fmt::Write as _;

use gamma_core::Plan;
use gamma_model::Evaluation;

/// What an outcome belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The original model.
    Full,
    /// One bit-width for all modules.
    Uniform,
    /// A plan made for a budget.
    Planned,
}

/// One measured model.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What it belongs to.
    pub series: Series,
    /// Its name in the table.
    pub name: String,
    /// Bits per weight of the codes alone.
    pub code_bits: f64,
    /// Stored bits per weight of the allocated modules.
    pub stored_bits: f64,
    /// Bytes of the allocated modules.
    pub bytes: u64,
    /// What was measured.
    pub evaluation: Evaluation,
}

impl Outcome {
    /// The outcome of a plan.
    #[must_use]
    pub fn of_plan(series: Series, name: impl Into<String>, plan: &Plan, evaluation: Evaluation) -> Self {
        Self {
            series,
            name: name.into(),
            code_bits: plan.code_bits_per_weight(),
            stored_bits: plan.stored_bits_per_weight(),
            bytes: plan.stored_bits().div_ceil(8),
            evaluation,
        }
    }

    /// The outcome of the original model.
    #[must_use]
    pub fn full_precision(evaluation: Evaluation) -> Self {
        let (series, name) = (Series::Full, "full precision".to_owned());
        Self { series, name, code_bits: 0.0, stored_bits: 0.0, bytes: 0, evaluation }
    }
}

/// The outcomes as a Markdown table, in the given order.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let mut row = |cells: [&str; 6]| {
        let [name, code, stored, size, perplexity, kl] = cells;
        _ = writeln!(
            text,
            "| {name:16} | {code:>9} | {stored:>11} | {size:>9} | {perplexity:>10} | {kl:>9} |"
        );
    };
    row(["model", "code bits", "stored bits", "KiB", "perplexity", "KL, nats"]);
    let rule = ["---", "---:", "---:", "---:", "---:", "---:"];
    row(rule);
    for outcome in outcomes {
        let blank = outcome.series == Series::Full;
        let number =
            |value: f64, digits: usize| if blank { "–".to_owned() } else { format!("{value:.digits$}") };
        row([
            &outcome.name,
            &number(outcome.code_bits, 3),
            &number(outcome.stored_bits, 3),
            &number(outcome.bytes as f64 / 1024.0, 1),
            &significant(outcome.evaluation.perplexity()),
            &number(outcome.evaluation.kl, 4),
        ]);
    }
    text
}

/// Four or more significant digits without an exponent, where that is readable.
fn significant(value: f64) -> String {
    match value {
        v if v < 100.0 => format!("{v:.3}"),
        v if v < 1e6 => format!("{v:.1}"),
        v => format!("{v:.2e}"),
    }
}
