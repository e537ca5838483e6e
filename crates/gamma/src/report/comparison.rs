//! Methods against budgets, as Markdown and as a picture.

use std::fmt::Write as _;

use plotters::{
    prelude::{Circle, LineSeries, PathElement, RGBColor},
    style::ShapeStyle,
};

use super::{
    axes::{Axes, Drawn, picture},
    table::significant,
};
use crate::{Error, Row};

/// What is shown of each plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Perplexity.
    Perplexity,
    /// Mean divergence from full precision, nats per token.
    Divergence,
    /// Top-1 agreement with full precision, per cent.
    Agreement,
}

impl Shown {
    fn of(self, row: &Row) -> f64 {
        match self {
            Self::Perplexity => row.evaluation.perplexity(),
            Self::Divergence => row.evaluation.kl,
            Self::Agreement => 100.0 * row.evaluation.agreement,
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Perplexity => significant(value),
            Self::Divergence => format!("{value:.4}"),
            Self::Agreement => format!("{value:.1}"),
        }
    }
}

/// Values in the order in which they first come.
fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// The rows of one method and budget, one per seed.
fn cell<'a>(rows: &'a [Row], method: &str, budget: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.method == method && row.budget == budget).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// One line per method, one column per budget, and the seconds that each method took: for scores,
/// which serve all budgets, and for one budget in the mean. Where there are several seeds, the mean and
/// the range. The best mean of a budget is bold.
#[must_use]
pub fn comparison(rows: &[Row], shown: Shown) -> String {
    let methods = distinct(rows.iter().map(|row| row.method.as_str()));
    let mut budgets = distinct(rows.iter().map(|row| row.budget.as_str()));
    let size = |budget: &str| budget.parse::<f64>().unwrap_or(f64::INFINITY);
    budgets.sort_by(|a, b| size(a).total_cmp(&size(b)));
    let value = |method: &str, budget: &str| -> Option<Vec<f64>> {
        let cell = cell(rows, method, budget);
        (!cell.is_empty()).then(|| cell.iter().map(|row| shown.of(row)).collect())
    };
    let best: Vec<f64> = budgets
        .iter()
        .map(|budget| {
            let means = methods.iter().filter_map(|method| value(method, budget)).map(|values| mean(&values));
            means.reduce(if shown == Shown::Agreement { f64::max } else { f64::min }).unwrap_or(f64::NAN)
        })
        .collect();
    let mut text = String::from("| method |");
    for budget in &budgets {
        _ = write!(text, " {budget} |");
    }
    _ = writeln!(text, " scores, s | a plan, s |\n|---|{}---:|---:|", "---:|".repeat(budgets.len()));
    for method in &methods {
        _ = write!(text, "| {method} |");
        for (budget, best) in budgets.iter().zip(&best) {
            let Some(values) = value(method, budget) else {
                text.push_str(" – |");
                continue;
            };
            let middle = mean(&values);
            let shown_mean = shown.text(middle);
            let strong = shown_mean == shown.text(*best);
            let mark = if strong { "**" } else { "" };
            _ = write!(text, " {mark}{shown_mean}{mark}");
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if shown.text(low) != shown.text(high) {
                _ = write!(text, " ({}–{})", shown.text(low), shown.text(high));
            }
            text.push_str(" |");
        }
        let own = || rows.iter().filter(|row| row.method == *method);
        let seconds = |pick: fn(&Row) -> f64| {
            let values: Vec<f64> = own().map(pick).filter(|seconds| seconds.is_finite()).collect();
            if values.is_empty() { "–".to_owned() } else { format!("{:.1}", mean(&values)) }
        };
        _ = writeln!(text, " {} | {} |", seconds(|row| row.scoring), seconds(|row| row.planning));
    }
    text
}

const SIZE: (u32, u32) = (900, 560);
/// Colours that can be told apart, also by those who see fewer (Okabe and Ito 2008).
const COLORS: [RGBColor; 8] = [
    RGBColor(0x8a, 0x8a, 0x8a),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x9a, 0x8a, 0x00),
    RGBColor(0x4b, 0x4b, 0x4b),
];
const OURS: RGBColor = RGBColor(0x00, 0x50, 0xb2);

/// Perplexity (logarithmic) against stored bits per weight, one line per method; means over seeds.
/// Methods that are more than five times worse than the best one somewhere are cut off at the top.
///
/// # Errors
/// [`Error::Picture`] if there is nothing to draw.
pub fn comparison_svg(rows: &[Row]) -> Result<String, Error> {
    if rows.is_empty() {
        return Err(Error::Picture("there are no measured plans to draw".into()));
    }
    let methods = distinct(rows.iter().map(|row| row.method.as_str()));
    let line = |method: &str| -> Vec<(f64, f64)> {
        let own: Vec<Row> = rows.iter().filter(|row| row.method == method).cloned().collect();
        let mut points: Vec<(f64, f64)> = distinct(own.iter().map(|row| row.budget.as_str()))
            .into_iter()
            .map(|budget| {
                let cell = cell(&own, method, budget);
                let values = |pick: fn(&Row) -> f64| cell.iter().map(|row| pick(row)).collect::<Vec<_>>();
                (mean(&values(|row| row.stored_bits)), mean(&values(|row| row.evaluation.perplexity())))
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = methods.iter().map(|method| (*method, line(method))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (mut left, mut right, mut low) = (f64::INFINITY, f64::NEG_INFINITY, f64::INFINITY);
    let mut worst_best = 0.0_f64;
    for (bits, perplexity) in all() {
        (left, right, low) = (left.min(bits), right.max(bits), low.min(perplexity));
        let best = all().filter(|(other, _)| (other - bits).abs() < 0.05).map(|(_, p)| p);
        worst_best = worst_best.max(best.fold(f64::INFINITY, f64::min));
    }
    let (bottom, top) = (low / 1.15, worst_best * 5.0);
    picture(SIZE, (left - 0.1..right + 0.1, bottom..top), 13, |chart| draw(chart, &lines, top))
}

/// One line with marks for each of `lines`, cut off at `top`.
fn draw(chart: &mut Axes<'_, '_>, lines: &[(&str, Vec<(f64, f64)>)], top: f64) -> Drawn {
    for (number, (method, points)) in lines.iter().enumerate() {
        let ours = matches!(*method, "gamma" | "learned");
        let color = if ours { OURS } else { COLORS[number % COLORS.len()] };
        let width = match *method {
            "gamma" => 3,
            _ => 1,
        };
        let style = ShapeStyle::from(&color).stroke_width(width);
        chart
            .draw_series(LineSeries::new(points.iter().map(|&(x, y)| (x, y.min(top))), style))?
            .label(*method)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
        // Beyond eight colours the marks differ.
        let size = if number < COLORS.len() { 3 } else { 5 };
        let mark = if number < COLORS.len() { style.filled() } else { style };
        let marks = points.iter().filter(|(_, y)| *y <= top).map(|&point| Circle::new(point, size, mark));
        chart.draw_series(marks)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gamma_model::Evaluation;

    use super::*;

    fn row(method: &str, budget: &str, seed: u64, loss: f64) -> Row {
        let evaluation = Evaluation {
            loss,
            loss_std_error: 0.0,
            kl: loss / 10.0,
            kl_std_error: 0.0,
            kl_p99: 1.0,
            agreement: 0.5,
            predicted: 10,
        };
        let bits: f64 = budget.parse().unwrap();
        Row {
            method: method.into(),
            budget: budget.into(),
            seed,
            code_bits: bits,
            stored_bits: bits + 0.25,
            evaluation,
            scoring: 2.0,
            planning: f64::NAN,
        }
    }

    #[test]
    fn the_best_of_a_budget_is_bold_and_seeds_are_ranges() {
        let rows = [
            row("uniform", "2.5", 0, 3.0),
            row("learned", "2.5", 0, 2.0),
            row("learned", "2.5", 1, 2.1),
            row("uniform", "10", 0, 1.0),
        ];
        let expected = "| method | 2.5 | 10 | scores, s | a plan, s |\n|---|---:|---:|---:|---:|\n\
                        | uniform | 20.086 | **2.718** | 2.0 | – |\n\
                        | learned | **7.778** (7.389–8.166) | – | 2.0 | – |\n";
        assert_eq!(comparison(&rows, Shown::Perplexity), expected);
        assert!(comparison(&rows, Shown::Agreement).contains("**50.0**"));
        let svg = comparison_svg(&rows).unwrap();
        assert!(svg.contains("learned") && svg.matches("<polyline").count() >= 2, "{svg}");
        assert!(comparison_svg(&[]).is_err());
    }
}
