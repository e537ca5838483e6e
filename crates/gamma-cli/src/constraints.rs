//! What a plan must obey besides the budget, as it is typed.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use gamma::{LatencyTable, Problem, Rule, Scores};

use crate::{
    budget::{self, BudgetArg},
    engine::Engine,
    export::{Kept, kept},
};

/// Patterns are globs such as `*.down_proj`, or `re:` and a regular expression; options are
/// bit-widths such as 4, or formats such as int4:g64:asym:f16. All repeatable.
#[derive(Debug, Args)]
#[command(next_help_heading = "Constraints")]
pub struct ConstraintArgs {
    /// The engine that shall run the plan: no other options than it can load, and one format for what
    /// it stores as one
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Store a matrix outside of the plan in this type of ggml when the plan becomes a GGUF file, such as
    /// `model.embed_tokens=q8_0`; budgets `gguf:SIZE` count it
    #[arg(long, value_name = "MODULE=TYPE", value_parser = kept)]
    keep: Vec<Kept>,
    /// What the engine stores as one shares a format: vllm, sglang, tensorrt-llm, llama.cpp,
    /// mistral.rs, mlx; or a pattern, for its matches in each block
    #[arg(long, value_name = "ENGINE|PATTERN")]
    tie: Vec<String>,
    /// Exactly this option
    #[arg(long, value_name = "PATTERN=OPTION")]
    pin: Vec<String>,
    /// No fewer bits
    #[arg(long, value_name = "PATTERN=OPTION")]
    min: Vec<String>,
    /// No more bits
    #[arg(long, value_name = "PATTERN=OPTION")]
    max: Vec<String>,
    /// Leave these modules as they are
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// These modules together take no more than this, such as those on one device
    #[arg(long, value_name = "PATTERN=SIZE")]
    limit: Vec<String>,
    /// No more than so many modules have this option
    #[arg(long, value_name = "OPTION=COUNT")]
    at_most: Vec<String>,
    /// No more than so many different formats
    #[arg(long, value_name = "COUNT")]
    formats: Option<usize>,
    /// Measured times of modules, `gamma.latency/1`
    #[arg(long, value_name = "FILE", requires = "max_latency")]
    latency: Option<PathBuf>,
    /// No more time than this in all, by the file given with --latency
    #[arg(long, value_name = "MICROSECONDS", requires = "latency")]
    max_latency: Option<f64>,
}

impl ConstraintArgs {
    /// The rules among them.
    pub fn rules(&self) -> anyhow::Result<Vec<Rule>> {
        let mut rules = Vec::new();
        let mut add = |text: String| -> anyhow::Result<()> {
            rules.push(text.parse()?);
            Ok(())
        };
        if let Some(tie) = self.engine.and_then(Engine::tie) {
            add(tie.to_string())?;
        }
        for ties in &self.tie {
            add(format!("tie {ties}"))?;
        }
        for (keyword, given) in [("pin", &self.pin), ("min", &self.min), ("max", &self.max)] {
            for text in given {
                let (pattern, option) = split(keyword, text)?;
                add(format!("{keyword} {pattern} {option}"))?;
            }
        }
        for pattern in &self.exclude {
            add(format!("exclude {pattern}"))?;
        }
        for text in &self.limit {
            let (pattern, size) = split("limit", text)?;
            let Some(Ok(bytes)) = budget::bytes(size) else {
                bail!("`--limit {text}`: `{size}` is not a size such as 120MiB");
            };
            add(format!("bytes {pattern} {bytes}"))?;
        }
        for text in &self.at_most {
            let (option, count) = split("at-most", text)?;
            add(format!("modules {option} {count}"))?;
        }
        if let Some(count) = self.formats {
            add(format!("formats {count}"))?;
        }
        Ok(rules)
    }

    /// The scores that plans are made from: those of options that the engine can load, for a GGUF file
    /// with the matrices that are kept.
    pub fn scores(&self, scores: Scores) -> anyhow::Result<Scores> {
        let mut scores = match self.engine {
            Some(engine) => engine.served(&scores)?,
            None => scores,
        };
        for (module, kind) in &self.keep {
            scores = scores.keep_as(module, *kind)?;
        }
        Ok(scores)
    }

    /// The file for scores that were measured with the options of the engine alone.
    pub fn scores_file(&self) -> String {
        let name = self.engine.and_then(|engine| Some(engine.to_possible_value()?.get_name().to_owned()));
        name.map_or_else(|| "scores.json".to_owned(), |name| format!("scores-{name}.json"))
    }

    /// Refuses constraints that are more than rules.
    pub fn only_rules(&self) -> anyhow::Result<()> {
        if self.engine.is_some() || !self.keep.is_empty() {
            bail!(
                "methods are compared on all candidates and as they are: `--tie` instead of `--engine`, no `--keep`"
            );
        }
        Ok(())
    }

    /// The problem that `scores` pose with these constraints.
    pub fn problem<'a>(&self, scores: &'a Scores, budget: &BudgetArg) -> anyhow::Result<Problem<'a>> {
        let problem = scores.problem(budget.budget).rules(self.rules()?);
        match (&self.latency, self.max_latency) {
            (Some(path), Some(most)) => {
                Ok(LatencyTable::load(path)?.limit(problem, scores.table.modules(), most)?)
            }
            _ => Ok(problem),
        }
    }
}

/// Says how many modules each rule with a pattern matches.
pub fn introduce(problem: &Problem<'_>) {
    for (rule, count) in problem.matches() {
        note!("{rule}: {count} {}", if count == 1 { "module" } else { "modules" });
    }
}

/// What stands before and after the last `=`.
fn split<'a>(flag: &str, text: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
    text.rsplit_once('=').with_context(|| format!("`--{flag} {text}` lacks a `=`"))
}
