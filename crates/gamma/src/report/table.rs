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
    /// The divergence that was expected, in nats per token, where one was.
    pub predicted: Option<f64>,
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
            predicted: None,
        }
    }

    /// With the divergence that was expected.
    #[must_use]
    pub fn predicted(mut self, kl: Option<f64>) -> Self {
        self.predicted = kl;
        self
    }

    /// The outcome of a checkpoint whose sizes are not known.
    #[must_use]
    pub fn checkpoint(name: impl Into<String>, evaluation: Evaluation) -> Self {
        let (bits, predicted) = (f64::NAN, None);
        let (series, name) = (Series::Planned, name.into());
        Self { series, name, code_bits: bits, stored_bits: bits, bytes: 0, evaluation, predicted }
    }

    /// The outcome of the original model.
    #[must_use]
    pub fn full_precision(evaluation: Evaluation) -> Self {
        let (series, name) = (Series::Full, "full precision".to_owned());
        Self { series, name, code_bits: 0.0, stored_bits: 0.0, bytes: 0, evaluation, predicted: None }
    }
}

/// The outcomes as a Markdown table, in the given order: sizes, perplexity, divergence from full
/// precision (mean, what was expected of it where something was, and the 99th percentile over tokens),
/// and how often the most likely token is the same.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let with_expected = outcomes.iter().any(|outcome| outcome.predicted.is_some());
    let mut text = String::new();
    let mut row = |cells: [&str; 9]| {
        let widths = [16, 9, 11, 9, 10, 9, 9, 9, 7];
        text.push('|');
        for (column, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            match column {
                0 => _ = write!(text, " {cell:width$} |"),
                6 if !with_expected => {}
                _ => _ = write!(text, " {cell:>width$} |"),
            }
        }
        text.push('\n');
    };
    row([
        "model",
        "code bits",
        "stored bits",
        "KiB",
        "perplexity",
        "KL, nats",
        "expected",
        "KL, p99",
        "top-1 %",
    ]);
    row(["---", "---:", "---:", "---:", "---:", "---:", "---:", "---:", "---:"]);
    for outcome in outcomes {
        let blank = outcome.series == Series::Full;
        let number = |value: f64, digits: usize| {
            if blank || value.is_nan() { "–".to_owned() } else { format!("{value:.digits$}") }
        };
        let kib = if outcome.stored_bits.is_nan() { f64::NAN } else { outcome.bytes as f64 / 1024.0 };
        let evaluation = &outcome.evaluation;
        row([
            &outcome.name,
            &number(outcome.code_bits, 3),
            &number(outcome.stored_bits, 3),
            &number(kib, 1),
            &significant(evaluation.perplexity()),
            &number(evaluation.kl, 4),
            &outcome.predicted.map_or_else(|| "–".to_owned(), |kl| number(kl, 4)),
            &number(evaluation.kl_p99, 3),
            &number(100.0 * evaluation.agreement, 1),
        ]);
    }
    text
}

/// Four or more significant digits without an exponent, where that is readable.
pub(super) fn significant(value: f64) -> String {
    match value {
        v if v < 100.0 => format!("{v:.3}"),
        v if v < 1e6 => format!("{v:.1}"),
        v => format!("{v:.2e}"),
    }
}
