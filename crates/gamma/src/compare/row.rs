//! One measured plan, and the CSV file of many.

use std::{fmt::Write as _, path::Path};

use gamma_model::Evaluation;

use crate::Error;

/// A plan made by one method for one budget, and what it does to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The method.
    pub method: String,
    /// The budget as it was given.
    pub budget: String,
    /// Seed of the method; 0 where it draws nothing.
    pub seed: u64,
    /// Bits per weight of the codes alone.
    pub code_bits: f64,
    /// Stored bits per weight.
    pub stored_bits: f64,
    /// What was measured.
    pub evaluation: Evaluation,
    /// Seconds for the scores, which serve every budget; candidates were there already.
    pub scoring: f64,
    /// Seconds for this budget.
    pub planning: f64,
}

impl Row {
    /// Whether this is the row of that method, budget and seed.
    #[must_use]
    pub fn is(&self, method: &str, budget: &str, seed: u64) -> bool {
        self.method == method && self.budget == budget && self.seed == seed
    }
}

const HEADER: &str = "method,budget,seed,code_bits,stored_bits,perplexity,loss,loss_std_error,kl,\
                      kl_std_error,kl_p99,agreement,predicted,scoring_seconds,planning_seconds";

/// The rows as a CSV file.
#[must_use]
pub fn to_csv(rows: &[Row]) -> String {
    let mut text = format!("{HEADER}\n");
    for row in rows {
        let Evaluation { loss, loss_std_error, kl, kl_std_error, kl_p99, agreement, predicted } =
            row.evaluation;
        let perplexity = row.evaluation.perplexity();
        _ = writeln!(
            text,
            "{},{},{},{},{},{perplexity},{loss},{loss_std_error},{kl},{kl_std_error},{kl_p99},{agreement},\
             {predicted},{},{}",
            quoted(&row.method),
            quoted(&row.budget),
            row.seed,
            row.code_bits,
            row.stored_bits,
            row.scoring,
            row.planning,
        );
    }
    text
}

/// The rows of a CSV file that [`to_csv`] wrote; `path` stands for it in errors.
///
/// # Errors
/// [`Error::Csv`] names the line.
pub fn read_csv(path: &Path, text: &str) -> Result<Vec<Row>, Error> {
    let bad = |line: usize| Error::Csv { path: path.to_owned(), line: line + 1 };
    let mut lines = text.lines().enumerate();
    if lines.next().is_none_or(|(_, header)| header != HEADER) {
        return Err(bad(0));
    }
    let parse = |(number, line): (usize, &str)| {
        let cells = cells(line);
        let real =
            |i: usize| cells.get(i).and_then(|cell| cell.parse::<f64>().ok()).ok_or_else(|| bad(number));
        let text = |i: usize| cells.get(i).cloned().ok_or_else(|| bad(number));
        let seed = text(2)?.parse().map_err(|_| bad(number))?;
        let predicted = text(12)?.parse().map_err(|_| bad(number))?;
        Ok(Row {
            method: text(0)?,
            budget: text(1)?,
            seed,
            code_bits: real(3)?,
            stored_bits: real(4)?,
            evaluation: Evaluation {
                loss: real(6)?,
                loss_std_error: real(7)?,
                kl: real(8)?,
                kl_std_error: real(9)?,
                kl_p99: real(10)?,
                agreement: real(11)?,
                predicted,
            },
            scoring: real(13)?,
            planning: real(14)?,
        })
    };
    lines.filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

/// A cell, in quotation marks where it needs them.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// The cells of a line.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut inside) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if inside && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => inside = !inside,
            ',' if !inside => cells.push(std::mem::take(&mut cell)),
            other => cell.push(other),
        }
    }
    cells.push(cell);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_as_they_were_written() {
        let evaluation = Evaluation {
            loss: 1.5,
            loss_std_error: 0.01,
            kl: 0.1 + 0.2,
            kl_std_error: 1e-17,
            kl_p99: 2.0,
            agreement: 0.75,
            predicted: 1000,
        };
        let row = |method: &str| Row {
            method: method.into(),
            budget: "2.5".into(),
            seed: 3,
            code_bits: 2.5,
            stored_bits: 2.75,
            evaluation,
            scoring: f64::NAN,
            planning: 0.25,
        };
        let rows = [row("learned"), row("a \"tool\", with a comma")];
        let read = read_csv(Path::new("x.csv"), &to_csv(&rows)).unwrap();
        assert_eq!(to_csv(&read), to_csv(&rows));
        assert!(read[1].is("a \"tool\", with a comma", "2.5", 3));
        let error = read_csv(Path::new("x.csv"), &to_csv(&rows).replace("0.75", "x")).unwrap_err();
        assert!(matches!(error, Error::Csv { line: 2, .. }), "{error}");
    }
}
