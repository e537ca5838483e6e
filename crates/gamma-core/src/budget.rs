//! How much may be spent.

use serde::{Deserialize, Serialize};

use crate::{ModuleScores, ScoreTable};

/// A limit on the storage of all allocated modules.
///
/// Every kind of budget ends in one number of stored bits, codes and scales and zero points
/// together, that a plan never exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Budget {
    /// As much storage as a uniform plan of this bit-width takes, scales and zero points included;
    /// between two candidate widths, the straight line between their uniform plans. A budget of
    /// 3.0 is thus *exactly* the size of the uniform 3-bit model.
    AverageBits(f64),
    /// Stored bits per weight, scales and zero points counted in.
    StoredBitsPerWeight(f64),
    /// Bytes of all allocated modules together.
    Bytes(u64),
}

/// Why a budget cannot be used with a score table.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// Not a number, zero, negative or infinite.
    #[error("a budget of {0} bits per weight is not a positive number")]
    NotPositive(f64),
    /// Less than the smallest plan.
    #[error(
        "the budget of {limit_bits} bits is below the smallest plan, which needs {minimum_bits} bits \
         ({minimum_per_weight:.4} stored bits per weight, {} bytes)", minimum_bits.div_ceil(8)
    )]
    BelowMinimum {
        /// What was asked for, in stored bits.
        limit_bits: u64,
        /// What every plan needs at least.
        minimum_bits: u64,
        /// The same per weight.
        minimum_per_weight: f64,
    },
    /// Average bits below the narrowest candidate of a module.
    #[error(
        "an average of {requested} bits is below the narrowest candidate ({narrowest} bits); \
         the smallest plan takes {minimum_per_weight:.4} stored bits per weight"
    )]
    BelowNarrowest {
        /// The requested average.
        requested: f64,
        /// The narrowest bit-width that some module offers.
        narrowest: u8,
        /// Stored bits per weight of the smallest plan.
        minimum_per_weight: f64,
    },
}

impl Budget {
    /// As much storage as a uniform plan of `bits` takes; see [`Budget::AverageBits`].
    #[must_use]
    pub const fn average_bits(bits: f64) -> Self {
        Self::AverageBits(bits)
    }

    /// Stored bits per weight, everything counted.
    #[must_use]
    pub const fn stored_bits_per_weight(bits: f64) -> Self {
        Self::StoredBitsPerWeight(bits)
    }

    /// Bytes of all allocated modules together.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self::Bytes(bytes)
    }

    /// The limit in stored bits for the modules of `table`, rounded down.
    ///
    /// # Errors
    /// [`BudgetError`] if the number is not positive, or below what the smallest plan needs.
    pub fn limit_bits(self, table: &ScoreTable) -> Result<u64, BudgetError> {
        let minimum_bits = table.minimum_bits();
        let minimum_per_weight = minimum_bits as f64 / table.weights() as f64;
        let limit_bits = match self {
            Self::Bytes(bytes) => bytes.saturating_mul(8),
            Self::AverageBits(bits) | Self::StoredBitsPerWeight(bits)
                if !(bits.is_finite() && bits > 0.0) =>
            {
                return Err(BudgetError::NotPositive(bits));
            }
            Self::StoredBitsPerWeight(bits) => (bits * table.weights() as f64).floor() as u64,
            Self::AverageBits(bits) => {
                let mut limit = 0.0;
                for module in table.modules() {
                    limit += uniform_storage(module, bits).map_err(|narrowest| {
                        BudgetError::BelowNarrowest { requested: bits, narrowest, minimum_per_weight }
                    })?;
                }
                limit.floor() as u64
            }
        };
        if limit_bits < minimum_bits {
            return Err(BudgetError::BelowMinimum { limit_bits, minimum_bits, minimum_per_weight });
        }
        Ok(limit_bits)
    }
}

/// Storage of `module` at `bits`, on the straight line between neighbouring bit-widths and flat
/// above the widest. `Err` holds the narrowest bit-width where `bits` is below it.
fn uniform_storage(module: &ModuleScores, bits: f64) -> Result<f64, u8> {
    let mut below: Option<(f64, f64)> = None;
    let mut widths: Vec<_> = module.options.iter().map(|option| option.format.bits()).collect();
    widths.sort_unstable();
    widths.dedup();
    for width in &widths {
        let stored = module.option(*width).map_or(0.0, |option| option.stored_bits as f64);
        let at = f64::from(width.bits());
        if at >= bits {
            return match below {
                _ if at <= bits => Ok(stored),
                None => Err(width.bits()),
                Some((low, low_stored)) => Ok(low_stored + (stored - low_stored) * (bits - low) / (at - low)),
            };
        }
        below = Some((at, stored));
    }
    Ok(below.map_or(0.0, |(_, stored)| stored))
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AverageBits(bits) => write!(f, "{bits} bits on average"),
            Self::StoredBitsPerWeight(bits) => write!(f, "{bits} stored bits per weight"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BitWidth, Format, GroupSize, ModuleName, ScoredOption};

    fn table() -> ScoreTable {
        let module = |name: &str, shape: [usize; 2]| ModuleScores {
            name: ModuleName::new(name),
            shape,
            options: [2, 3, 4, 8]
                .map(|bits| {
                    let group = GroupSize::new(64).unwrap();
                    let format = Format::asymmetric(BitWidth::new(bits).unwrap(), group);
                    let stored = format.stored_bits(shape).unwrap();
                    ScoredOption::new(format, stored, 1.0 / f64::from(bits))
                })
                .to_vec(),
        };
        ScoreTable::new(vec![module("a", [64, 64]), module("b", [64, 172])]).unwrap()
    }

    fn uniform(bits: u8) -> u64 {
        let width = BitWidth::new(bits).unwrap();
        table().modules().iter().map(|m| m.option(width).unwrap().stored_bits).sum()
    }

    #[test]
    fn an_average_at_a_candidate_is_the_size_of_its_uniform_plan() {
        for bits in [2, 3, 4, 8] {
            let limit = Budget::average_bits(f64::from(bits)).limit_bits(&table());
            assert_eq!(limit, Ok(uniform(bits)));
        }
        assert_eq!(Budget::average_bits(2.5).limit_bits(&table()), Ok(u64::midpoint(uniform(2), uniform(3))));
        assert_eq!(Budget::average_bits(6.0).limit_bits(&table()), Ok(u64::midpoint(uniform(4), uniform(8))));
        assert_eq!(Budget::average_bits(16.0).limit_bits(&table()), Ok(uniform(8)));
    }

    #[test]
    fn a_budget_below_the_smallest_plan_states_the_minimum() {
        let minimum = uniform(2);
        let error = Budget::bytes(minimum / 8 - 1).limit_bits(&table()).unwrap_err();
        assert!(error.to_string().contains(&minimum.to_string()), "{error}");
        assert!(matches!(
            Budget::average_bits(1.5).limit_bits(&table()),
            Err(BudgetError::BelowNarrowest { narrowest: 2, .. })
        ));
        assert!(Budget::bytes(minimum / 8).limit_bits(&table()).is_ok());
    }

    #[test]
    fn nonsense_is_refused() {
        for bits in [f64::NAN, f64::INFINITY, 0.0, -3.0] {
            assert!(matches!(
                Budget::average_bits(bits).limit_bits(&table()),
                Err(BudgetError::NotPositive(_))
            ));
            assert!(Budget::stored_bits_per_weight(bits).limit_bits(&table()).is_err());
        }
    }
}
