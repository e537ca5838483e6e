//! Budgets as they are typed.

use std::{fmt, str::FromStr};

use gamma::{Budget, Change};

/// A budget and the text it was given as, which names its files.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetArg {
    pub text: String,
    pub budget: Budget,
}

const UNITS: [(&str, f64); 7] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
];

/// How much of a plan may change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeArg(pub Change);

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeArg(pub u64);

impl FromStr for SizeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bytes(text).unwrap_or_else(|| Err("expected a size with a unit such as 12GiB".to_owned())).map(Self)
    }
}

impl FromStr for BudgetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let budget = if let Some(digits) = text.strip_suffix("bpw") {
            Budget::stored_bits_per_weight(number(digits)?)
        } else if let Some(digits) = text.strip_suffix("cbw") {
            Budget::code_bits_per_weight(number(digits)?)
        } else if let Some(size) = text.strip_prefix("file:") {
            Budget::artifact(bytes(size).ok_or_else(expected)??)
        } else if let Some(size) = text.strip_prefix("gguf:") {
            Budget::gguf(bytes(size).ok_or_else(expected)??)
        } else if let Some(device) = text.strip_prefix("device:") {
            let (size, tokens) = device.split_once('@').ok_or_else(expected)?;
            let (context, batch) = tokens.split_once('x').unwrap_or((tokens, "1"));
            let whole = |digits: &str| digits.parse::<u64>().ok().filter(|&n| n > 0).ok_or_else(expected);
            let tokens = whole(context)?.saturating_mul(whole(batch)?);
            Budget::device(bytes(size).ok_or_else(expected)??, tokens)
        } else if let Some(bytes) = bytes(text) {
            Budget::bytes(bytes?)
        } else {
            Budget::average_bits(number(text)?)
        };
        Ok(Self { text: text.to_owned(), budget })
    }
}

impl BudgetArg {
    /// The text as a part of a file name.
    pub fn file_name(&self) -> String {
        self.text.replace([':', '@', '/', '\\'], "-")
    }
}

/// A size such as `120MiB`; `None` without a unit.
pub fn bytes(text: &str) -> Option<Result<u64, String>> {
    let (digits, unit) = UNITS.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    Some(number(digits).map(|number| (number * unit) as u64))
}

fn number(digits: &str) -> Result<f64, String> {
    digits.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0).ok_or_else(expected)
}

fn expected() -> String {
    "expected a positive number, alone (average bits), with `bpw` (stored bits per weight), with `cbw` (code \
     bits per weight) or with B, KB, MB, GB, KiB, MiB or GiB; or `file:SIZE`, `gguf:SIZE`; or `device:SIZE@CONTEXT`, \
     `device:SIZE@CONTEXTxBATCH`"
        .to_owned()
}

impl FromStr for ChangeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match bytes(text) {
            Some(bytes) => Ok(Self(Change::Bytes(bytes?))),
            None => match text.parse() {
                Ok(modules) => Ok(Self(Change::Modules(modules))),
                Err(_) => Err("expected a number of modules, or a size with a unit such as 10MiB".to_owned()),
            },
        }
    }
}

impl fmt::Display for BudgetArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.budget {
            Budget::AverageBits(_) => write!(f, "{} bits", self.text),
            _ => f.write_str(&self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_budget_is_read() {
        let budget = |text: &str| text.parse::<BudgetArg>().map(|arg| arg.budget);
        assert_eq!(budget("3.2"), Ok(Budget::average_bits(3.2)));
        assert_eq!(budget("3.5bpw"), Ok(Budget::stored_bits_per_weight(3.5)));
        assert_eq!(budget("1.5MiB"), Ok(Budget::bytes(1_572_864)));
        assert_eq!(budget("7GB"), Ok(Budget::bytes(7_000_000_000)));
        assert_eq!(budget("2.25cbw"), Ok(Budget::code_bits_per_weight(2.25)));
        assert_eq!(budget("file:1KiB"), Ok(Budget::artifact(1024)));
        assert_eq!(budget("gguf:3MB"), Ok(Budget::gguf(3_000_000)));
        assert_eq!(budget("device:8GiB@4096x2"), Ok(Budget::device(8 << 30, 8192)));
        assert_eq!(budget("device:1GB@100"), Ok(Budget::device(1_000_000_000, 100)));
        for nonsense in [
            "",
            "-3",
            "NaN",
            "inf",
            "3.2 bits",
            "0",
            "MiB",
            "bpw",
            "file:3",
            "device:8GiB",
            "device:1B@x",
            "device:1GB@0",
        ] {
            assert!(budget(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn changes_are_modules_or_bytes() {
        let change = |text: &str| text.parse::<ChangeArg>().map(|arg| arg.0);
        assert_eq!(change("5"), Ok(Change::Modules(5)));
        assert_eq!(change("10KiB"), Ok(Change::Bytes(10_240)));
        assert!(change("1.5").is_err() && change("").is_err());
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!("1.5GiB".parse(), Ok(SizeArg(3 << 29)));
        assert!("12".parse::<SizeArg>().is_err() && "GiB".parse::<SizeArg>().is_err());
    }

    #[test]
    fn every_budget_names_a_file() {
        let arg: BudgetArg = "device:8GiB@4096x2".parse().unwrap();
        assert_eq!(arg.file_name(), "device-8GiB-4096x2");
    }
}
