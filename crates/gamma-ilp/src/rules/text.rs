//! Rules as text.

use std::{fmt, str::FromStr};

use gamma_core::BitWidth;

use super::{Rule, RuleError, Which};

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["tie", ties] => Ok(Self::Tie(ties.parse()?)),
            ["pin", modules, option] => Ok(Self::Pin { modules: modules.parse()?, option: option.parse()? }),
            ["min", modules, option] => Ok(Self::Min { modules: modules.parse()?, option: option.parse()? }),
            ["max", modules, option] => Ok(Self::Max { modules: modules.parse()?, option: option.parse()? }),
            ["exclude", modules] => Ok(Self::Exclude { modules: modules.parse()? }),
            ["bytes", modules, n] => Ok(Self::Bytes { modules: modules.parse()?, at_most: number(n)? }),
            ["modules", option, n] => Ok(Self::Modules { option: option.parse()?, at_most: number(n)? }),
            ["formats", n] => Ok(Self::Formats { at_most: number(n)? }),
            _ => Err(RuleError::Unknown(text.to_owned())),
        }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, RuleError> {
    text.parse().map_err(|_| RuleError::Number(text.to_owned()))
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tie(ties) => write!(f, "tie {ties}"),
            Self::Pin { modules, option } => write!(f, "pin {modules} {option}"),
            Self::Min { modules, option } => write!(f, "min {modules} {option}"),
            Self::Max { modules, option } => write!(f, "max {modules} {option}"),
            Self::Exclude { modules } => write!(f, "exclude {modules}"),
            Self::Bytes { modules, at_most } => write!(f, "bytes {modules} {at_most}"),
            Self::Modules { option, at_most } => write!(f, "modules {option} {at_most}"),
            Self::Formats { at_most } => write!(f, "formats {at_most}"),
        }
    }
}

impl FromStr for Which {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bits = text.parse().ok().and_then(BitWidth::new).map(Self::Bits);
        let format = || text.parse().ok().map(Self::Format);
        bits.or_else(format).ok_or_else(|| RuleError::Option(text.to_owned()))
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits(bits) => bits.fmt(f),
            Self::Format(format) => format.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_rules_are_refused_with_what_is_wrong() {
        for (text, word) in [
            ("", "expected `tie"),
            ("pin *.o_proj", "unknown rule"),
            ("pin *.o_proj 9", "`9` is neither"),
            ("min * wide", "`wide`"),
            ("exclude [", "`[`"),
            ("bytes * 1.5", "`1.5`"),
            ("formats -1", "`-1`"),
            ("tie vlmm", "vllm"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
