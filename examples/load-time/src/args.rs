//! The command line.

use std::{error::Error, path::PathBuf, str::FromStr};

use gamma_ilp::Rule;

pub const USAGE: &str = "\
usage: load-time [SCORES] [OPTIONS]

  SCORES             a score file; without it, that of the repository's small model
  --free BYTES       memory for the model, instead of what the system says is free
  --reserve PERCENT  how much of it stays unused (10)
  --context TOKENS   longest sequence (512)
  --batch N          sequences at a time (1)
  --rule RULE        such as `tie vllm` or `min *.down_proj 4`; may be repeated";

/// What was asked for.
pub struct Args {
    pub scores: Option<PathBuf>,
    pub free: Option<u64>,
    /// Per cent, below 100.
    pub reserve: u64,
    pub context: u64,
    pub batch: u64,
    pub rules: Vec<Rule>,
}

impl Args {
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut args = Self { scores: None, free: None, reserve: 10, context: 512, batch: 1, rules: vec![] };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word.as_str() {
                "--free" => args.free = Some(read(&word, value)?),
                "--reserve" => args.reserve = read(&word, value)?,
                "--context" => args.context = read(&word, value)?,
                "--batch" => args.batch = read(&word, value)?,
                "--rule" => args.rules.push(read(&word, value)?),
                _ if word.starts_with('-') || args.scores.is_some() => {
                    return Err(format!("unknown argument `{word}`\n\n{USAGE}").into());
                }
                _ => args.scores = Some(word.into()),
            }
        }
        if args.reserve >= 100 {
            return Err(format!("a reserve of {} % leaves nothing", args.reserve).into());
        }
        Ok(args)
    }

    /// Tokens that the key-value cache must hold.
    pub fn tokens(&self) -> u64 {
        self.context.saturating_mul(self.batch)
    }
}

fn read<T: FromStr<Err: Error>>(
    option: &str,
    value: impl FnOnce() -> Result<String, String>,
) -> Result<T, Box<dyn Error>> {
    let value = value()?;
    value.parse().map_err(|error| format!("{option} {value}: {error}").into())
}
