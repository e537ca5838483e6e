//! Measured plans in a folder: kept one by one, so that work that was stopped goes on.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use gamma::{
    Error, Evaluation, Row, read_csv,
    report::{self, Shown},
    to_csv, write_atomically,
};

use crate::watch;

/// The rows of a comparison, and where they are kept: `NAME.csv`, `NAME.md` and `NAME.svg`.
pub struct Ledger {
    folder: PathBuf,
    name: &'static str,
    known: Vec<Row>,
}

impl Ledger {
    /// Takes up the rows that are in `folder` already, if they were measured with the same `setting`:
    /// everything that rows depend on but for method, budget and seed.
    pub fn open(folder: &Path, name: &'static str, setting: &str, fresh: bool) -> anyhow::Result<Self> {
        watch::writable(Some(folder))?;
        let csv = folder.join(format!("{name}.csv"));
        let stamp = folder.join(format!("{name}.setting"));
        let same = fs::read_to_string(&stamp).is_ok_and(|text| text == setting);
        let known: Vec<Row> = match fs::read_to_string(&csv) {
            Ok(text) if same && !fresh => read_csv(&csv, &text)?,
            Ok(_) if !fresh => anyhow::bail!(
                "`{}` was measured with other settings: choose another --out, or give --fresh",
                csv.display()
            ),
            _ => Vec::new(),
        };
        write_atomically(&stamp, setting.as_bytes())?;
        if !known.is_empty() {
            note!("{} rows are known from {}", known.len(), csv.display());
        }
        Ok(Self { folder: folder.to_owned(), name, known })
    }

    /// Rows that need not be measured again.
    pub fn known(&self) -> &[Row] {
        &self.known
    }

    /// Writes the rows so far, of which the last one is new.
    pub fn keep(&self, rows: &[Row]) -> Result<(), Error> {
        let Some(row) = rows.last() else { return Ok(()) };
        note!("{} {} (seed {}): {:.3}", row.method, row.budget, row.seed, row.evaluation.perplexity());
        self.write(rows)
    }

    /// Writes `rows`, and those that are known besides: still to be taken up, or not asked for this time.
    fn write(&self, rows: &[Row]) -> Result<(), Error> {
        let new = |known: &&Row| !rows.iter().any(|row| row.is(&known.method, &known.budget, known.seed));
        let all: Vec<Row> = rows.iter().chain(self.known.iter().filter(new)).cloned().collect();
        Ok(write_atomically(&self.path("csv"), to_csv(&all).as_bytes())?)
    }

    /// Prints the tables of `rows`, and writes them, the picture and all rows.
    pub fn finish(&self, rows: &[Row], caption: &str, full: Evaluation) -> anyhow::Result<()> {
        let mut page = format!("{caption}\n\nPerplexity; full precision {:.3}:\n\n", full.perplexity());
        page.push_str(&report::comparison(rows, Shown::Perplexity));
        _ = write!(page, "\nMean divergence from full precision, nats per token:\n\n");
        page.push_str(&report::comparison(rows, Shown::Divergence));
        _ = write!(page, "\nTop-1 agreement with full precision, per cent:\n\n");
        page.push_str(&report::comparison(rows, Shown::Agreement));
        say!("{page}");
        self.write(rows)?;
        write_atomically(&self.path("md"), page.as_bytes())?;
        let picture = report::comparison_svg(rows).context("nothing was compared")?;
        write_atomically(&self.path("svg"), picture.as_bytes())?;
        note!("table and picture are in {}", self.folder.display());
        Ok(())
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name))
    }
}
