//! Budgets as they are typed.

use std::{fmt, str::FromStr};

use gamma::Budget;

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

impl FromStr for BudgetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            digits.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0).ok_or_else(|| {
                "expected a positive number, alone (average bits), with `bpw` (stored bits per weight) \
                 or with B, KB, MB, GB, KiB, MiB or GiB"
                    .to_owned()
            })
        };
        let budget = if let Some(digits) = text.strip_suffix("bpw") {
            Budget::stored_bits_per_weight(number(digits)?)
        } else if let Some((digits, unit)) =
            UNITS.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)))
        {
            Budget::bytes((number(digits)? * unit) as u64)
        } else {
            Budget::average_bits(number(text)?)
        };
        Ok(Self { text: text.to_owned(), budget })
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
        for nonsense in ["", "-3", "NaN", "inf", "3.2 bits", "0", "MiB", "bpw"] {
            assert!(budget(nonsense).is_err(), "{nonsense}");
        }
    }
}
