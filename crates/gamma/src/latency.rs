//! Measured times of modules, as a constraint.

use std::{fs, path::Path};

use gamma_core::{Format, ModuleScores, ScoredOption};
use gamma_ilp::{Pattern, Problem};
use serde::Deserialize;

use crate::Error;

/// How long modules take in each format, as measured on the machine that will run them.
///
/// The file is JSON. The last entry that matches a module and a format counts, and every option
/// of every module needs one:
///
/// ```json
/// {
///   "format": "gamma.latency/1",
///   "entries": [
///     { "modules": "*", "format": "int4:g64:asym:f16", "microseconds": 12.5 },
///     { "modules": "*.down_proj", "format": "int4:g64:asym:f16", "microseconds": 31.0 }
///   ]
/// }
/// ```
#[derive(Clone, Debug)]
pub struct LatencyTable {
    entries: Vec<(Pattern, Format, f64)>,
}

const FORMAT: &str = "gamma.latency/1";

#[derive(Deserialize)]
struct File {
    format: String,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    modules: String,
    format: Format,
    microseconds: f64,
}

impl LatencyTable {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Latency`] and [`Error::Read`] name the file and what is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text =
            fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::from_json(&text).map_err(|reason| Error::Latency(format!("`{}`: {reason}", path.display())))
    }

    fn from_json(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.format != FORMAT {
            return Err(format!(
                "the file is of format `{}`, this version of gamma reads `{FORMAT}`",
                file.format
            ));
        }
        let entry = |entry: Entry| {
            if !(entry.microseconds.is_finite() && entry.microseconds >= 0.0) {
                return Err(format!("`{}` takes {} microseconds", entry.modules, entry.microseconds));
            }
            let pattern = entry.modules.parse().map_err(|error: gamma_ilp::RuleError| error.to_string())?;
            Ok((pattern, entry.format, entry.microseconds))
        };
        Ok(Self { entries: file.entries.into_iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// Microseconds of an option; `None` where no entry matches.
    #[must_use]
    pub fn microseconds(&self, module: &ModuleScores, option: &ScoredOption) -> Option<f64> {
        let matching = |(pattern, format, _): &&(Pattern, Format, f64)| {
            pattern.matches(&module.name) && *format == option.format
        };
        self.entries.iter().rev().find(matching).map(|&(.., microseconds)| microseconds)
    }

    /// `problem` with a limit on the sum over all modules.
    ///
    /// # Errors
    /// [`Error::Latency`] names an option of `modules` without an entry.
    pub fn limit<'a>(
        &self,
        problem: Problem<'a>,
        modules: &[ModuleScores],
        microseconds: f64,
    ) -> Result<Problem<'a>, Error> {
        for module in modules {
            if let Some(option) =
                module.options.iter().find(|option| self.microseconds(module, option).is_none())
            {
                let format = &option.format;
                return Err(Error::Latency(format!("no latency for `{format}` of `{}`", module.name)));
            }
        }
        let label = format!("latency of at most {microseconds} microseconds");
        Ok(problem.linear(label, ..=microseconds, |module, option| {
            self.microseconds(module, option).unwrap_or(0.0)
        }))
    }
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, Budget, GroupSize, ModuleName, ScoreKind, ScoreTable};
    use gamma_ilp::Limits;

    use super::*;

    fn table() -> ScoreTable {
        let option = |bits, cost| {
            let format = Format::symmetric(bits, GroupSize::G128);
            ScoredOption::new(format.clone(), format.stored_bits([8, 128]).unwrap(), cost)
        };
        let module = |name: &str| ModuleScores {
            name: ModuleName::new(name),
            shape: [8, 128],
            options: vec![option(BitWidth::B2, 1.0), option(BitWidth::B4, 0.0)],
        };
        ScoreTable::new(vec![module("a.up_proj"), module("a.down_proj")]).unwrap()
    }

    const FILE: &str = r#"{"format": "gamma.latency/1", "entries": [
        {"modules": "*", "format": "int2:g128:sym:f16", "microseconds": 2},
        {"modules": "*", "format": "int4:g128:sym:f16", "microseconds": 4},
        {"modules": "*.down_proj", "format": "int4:g128:sym:f16", "microseconds": 9}]}"#;

    #[cfg(feature = "highs")]
    #[test]
    fn the_last_entry_counts_and_the_limit_holds() {
        let (table, latency) = (table(), LatencyTable::from_json(FILE).unwrap());
        let problem = Problem::new(&table, ScoreKind::Loss, Budget::bytes(1 << 20));
        let bits = |most: f64| {
            let problem = latency.limit(problem.clone(), table.modules(), most).unwrap();
            let plan = problem.solve(&Limits::default()).unwrap();
            plan.choices().iter().map(|choice| choice.format.bits().bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(13.0), [4, 4]);
        assert_eq!(bits(12.9), [4, 2]);
        assert_eq!(bits(4.0), [2, 2]);
    }

    #[test]
    fn missing_and_malformed_entries_are_named() {
        let table = table();
        let problem = || Problem::new(&table, ScoreKind::Loss, Budget::bytes(1 << 20));
        let partial = LatencyTable::from_json(&FILE.replace("int2", "int3")).unwrap();
        let error = partial.limit(problem(), table.modules(), 1.0).unwrap_err().to_string();
        assert!(error.contains("int2") && error.contains("a.up_proj"), "{error}");
        for (from, to) in
            [("latency/1", "latency/2"), (": 9", ": -9"), ("*.down_proj", "["), ("int4:", "int4;")]
        {
            assert!(LatencyTable::from_json(&FILE.replace(from, to)).is_err(), "{to}");
        }
    }
}
