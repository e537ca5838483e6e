//! How much may be spent.

use serde::{Deserialize, Serialize};

use crate::{Footprint, GgufRemainder, ModuleScores, Remainder, ScoreTable, ScoredOption};

/// A limit on what a plan may take.
///
/// Every kind of budget ends in one whole number of bits that the allocated modules never exceed:
/// [`limit`](Self::limit).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Budget {
    /// As much storage as a uniform plan of this bit-width takes, scales and zero points included;
    /// between two candidate widths, the straight line between their uniform plans. A budget of
    /// 3.0 is thus *exactly* the size of the uniform 3-bit model.
    AverageBits(f64),
    /// Bits per weight of the codes alone; scales and zero points are free.
    CodeBitsPerWeight(f64),
    /// Stored bits per weight, scales and zero points counted in.
    StoredBitsPerWeight(f64),
    /// Bytes of all allocated modules together.
    Bytes(u64),
    /// Bytes of the packed file: allocated modules, all other tensors and the container.
    Artifact(u64),
    /// Bytes of the GGUF file: allocated modules with their padding, all other tensors, all keys.
    Gguf(u64),
    /// Memory of the device that runs the model: all tensors and the key-value cache.
    Device {
        /// Bytes for all of it.
        bytes: u64,
        /// Tokens that the cache holds: context length times batch.
        tokens: u64,
        /// Bits of a number in the cache.
        cache_bits: u32,
    },
}

/// What the sizes of a plan are counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Codes, scales and zero points.
    #[default]
    StoredBits,
    /// Codes alone.
    CodeBits,
}

impl Measure {
    /// The size of an option of a matrix of `weights` weights, in bits.
    #[must_use]
    pub fn of(self, option: &ScoredOption, weights: u64) -> u64 {
        match self {
            Self::StoredBits => option.stored_bits,
            Self::CodeBits => weights * u64::from(option.format.bits().bits()),
        }
    }
}

/// A budget in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What the bits count.
    pub measure: Measure,
    /// Most that the allocated modules may take together.
    pub bits: u64,
}

/// Why a budget cannot be used with a score table.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// Not a number, zero, negative or infinite.
    #[error("a budget of {0} bits per weight is not a positive number")]
    NotPositive(f64),
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
    /// A budget that what no plan changes exceeds already.
    #[error("{bytes} bytes do not hold what no plan changes: {fixed:#}")]
    BelowFixed {
        /// The budget in bytes.
        bytes: u64,
        /// What there is without the allocated modules.
        fixed: Footprint,
    },
    /// A budget for a file or a device, and no account of what else it must hold.
    #[error(
        "a budget for the whole {what} needs to know what the model holds besides the allocated modules, \
         and the scores do not say it; learn them again, or give bytes of the modules alone"
    )]
    NoRemainder {
        /// `file` or `device`.
        what: &'static str,
    },
    /// A budget for a GGUF file, and no account of what else it holds.
    #[error(
        "a budget for a GGUF file needs scores of options that are stored there in just their size, of a \
         checkpoint that can be described there; learn with `--quantizer ggml`, and `gamma export --target gguf` \
         says what is in the way"
    )]
    NoGguf,
    /// A device budget with a cache, for a model whose cache is unknown.
    #[error("a device budget needs the shape of the key-value cache, and the scores do not state it")]
    NoCache,
}

impl Budget {
    /// As much storage as a uniform plan of `bits` takes; see [`Budget::AverageBits`].
    #[must_use]
    pub const fn average_bits(bits: f64) -> Self {
        Self::AverageBits(bits)
    }

    /// Bits per weight of the codes alone.
    #[must_use]
    pub const fn code_bits_per_weight(bits: f64) -> Self {
        Self::CodeBitsPerWeight(bits)
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

    /// Bytes of the packed file.
    #[must_use]
    pub const fn artifact(bytes: u64) -> Self {
        Self::Artifact(bytes)
    }

    /// Bytes of the GGUF file.
    #[must_use]
    pub const fn gguf(bytes: u64) -> Self {
        Self::Gguf(bytes)
    }

    /// Bytes of a device, with a 16-bit cache for `tokens` tokens (context length times batch).
    #[must_use]
    pub const fn device(bytes: u64, tokens: u64) -> Self {
        Self::Device { bytes, tokens, cache_bits: 16 }
    }

    /// The same with numbers of `bits` bits in the cache; other budgets than devices stay as they are.
    #[must_use]
    pub const fn cache_bits(self, bits: u32) -> Self {
        match self {
            Self::Device { bytes, tokens, .. } => Self::Device { bytes, tokens, cache_bits: bits },
            other => other,
        }
    }

    /// The limit for the modules of `table`, rounded down to whole bits. Whether any plan stays
    /// below it is for the solver to say.
    ///
    /// # Errors
    /// [`BudgetError`] if the number is not positive, if an average is below the narrowest
    /// candidate, or if what `remainder` lists leaves nothing for the modules or is not known.
    pub fn limit(self, table: &ScoreTable, remainder: Option<&Remainder>) -> Result<Limit, BudgetError> {
        let stored = |bits| Ok(Limit { measure: Measure::StoredBits, bits });
        match self {
            Self::Bytes(bytes) => stored(bytes.saturating_mul(8)),
            Self::AverageBits(bits) | Self::StoredBitsPerWeight(bits) | Self::CodeBitsPerWeight(bits)
                if !(bits.is_finite() && bits > 0.0) =>
            {
                Err(BudgetError::NotPositive(bits))
            }
            Self::StoredBitsPerWeight(bits) => stored((bits * table.weights() as f64).floor() as u64),
            Self::CodeBitsPerWeight(bits) => {
                let bits = (bits * table.weights() as f64).floor() as u64;
                Ok(Limit { measure: Measure::CodeBits, bits })
            }
            Self::AverageBits(bits) => {
                let minimum_per_weight = table.minimum_bits() as f64 / table.weights() as f64;
                let mut limit = 0.0;
                for module in table.modules() {
                    limit += uniform_storage(module, bits).map_err(|narrowest| {
                        BudgetError::BelowNarrowest { requested: bits, narrowest, minimum_per_weight }
                    })?;
                }
                stored(limit.floor() as u64)
            }
            Self::Artifact(bytes) => {
                let remainder = remainder.ok_or(BudgetError::NoRemainder { what: "file" })?;
                let fixed = Footprint::default().with_tensors(remainder).with_container(remainder.container);
                stored(left(bytes, fixed)?)
            }
            Self::Gguf(bytes) => {
                let gguf = remainder.and_then(|remainder| remainder.gguf.as_ref());
                let gguf = gguf.ok_or(BudgetError::NoGguf)?;
                let padding = GgufRemainder::padding(table);
                stored(left(bytes, Footprint::default().with_gguf(gguf).with_container(padding))?)
            }
            Self::Device { bytes, tokens, cache_bits } => {
                let remainder = remainder.ok_or(BudgetError::NoRemainder { what: "device" })?;
                let mut fixed = Footprint::default().with_tensors(remainder);
                if tokens > 0 {
                    fixed =
                        fixed.with_cache(remainder.cache.ok_or(BudgetError::NoCache)?, tokens, cache_bits);
                }
                stored(left(bytes, fixed)?)
            }
        }
    }
}

/// Bits that `fixed` leaves of `bytes`.
fn left(bytes: u64, fixed: Footprint) -> Result<u64, BudgetError> {
    match bytes.checked_sub(fixed.total()) {
        Some(left) => Ok(left.saturating_mul(8)),
        None => Err(BudgetError::BelowFixed { bytes, fixed }),
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
            Self::CodeBitsPerWeight(bits) => write!(f, "{bits} code bits per weight"),
            Self::StoredBitsPerWeight(bits) => write!(f, "{bits} stored bits per weight"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Artifact(bytes) => write!(f, "a file of {bytes} bytes"),
            Self::Gguf(bytes) => write!(f, "a GGUF file of {bytes} bytes"),
            Self::Device { bytes, tokens, cache_bits } => {
                write!(f, "a device of {bytes} bytes with a {cache_bits}-bit cache for {tokens} tokens")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BitWidth, CacheShape, FixedRole, FixedTensor, Format, GgufMatrix, GroupSize, ModuleName};

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

    fn bits(budget: Budget) -> Result<u64, BudgetError> {
        budget.limit(&table(), None).map(|limit| limit.bits)
    }

    #[test]
    fn an_average_at_a_candidate_is_the_size_of_its_uniform_plan() {
        for width in [2, 3, 4, 8] {
            assert_eq!(bits(Budget::average_bits(f64::from(width))), Ok(uniform(width)));
        }
        assert_eq!(bits(Budget::average_bits(2.5)), Ok(u64::midpoint(uniform(2), uniform(3))));
        assert_eq!(bits(Budget::average_bits(6.0)), Ok(u64::midpoint(uniform(4), uniform(8))));
        assert_eq!(bits(Budget::average_bits(16.0)), Ok(uniform(8)));
        let error = bits(Budget::average_bits(1.5)).unwrap_err();
        assert!(matches!(error, BudgetError::BelowNarrowest { narrowest: 2, .. }));
    }

    #[test]
    fn code_bits_leave_scales_and_zero_points_out() {
        let limit = Budget::code_bits_per_weight(2.5).limit(&table(), None).unwrap();
        assert_eq!(limit, Limit { measure: Measure::CodeBits, bits: 64 * (64 + 172) * 5 / 2 });
        let table = table();
        let option = &table.modules()[0].options[1];
        assert_eq!(limit.measure.of(option, 4096), 3 * 4096);
        assert_eq!(Measure::StoredBits.of(option, 4096), option.stored_bits);
    }

    #[test]
    fn whole_files_and_devices_pay_for_everything_else_first() {
        let tensor = |name: &str, role, bytes| FixedTensor { name: name.into(), role, bytes };
        let remainder = Remainder {
            tensors: vec![tensor("wte", FixedRole::Embedding, 5000), tensor("norm", FixedRole::Norm, 128)],
            cache: Some(CacheShape { blocks: 2, kv_heads: 1, head_dim: 16 }),
            weight_bits: 16,
            container: 700,
            gguf: None,
        };
        let bits = |budget: Budget| budget.limit(&table(), Some(&remainder)).map(|limit| limit.bits);
        assert_eq!(bits(Budget::artifact(10_000)), Ok(8 * (10_000 - 5128 - 700)));
        let cache = 2 * 2 * 16 * 100 * 2;
        assert_eq!(bits(Budget::device(30_000, 100)), Ok(8 * (30_000 - 5128 - cache)));
        let error = bits(Budget::device(15_000, 100)).unwrap_err();
        assert!(error.to_string().contains("key-value cache"), "{error}");
        for budget in [Budget::artifact(10_000), Budget::device(10_000, 0)] {
            assert!(matches!(budget.limit(&table(), None), Err(BudgetError::NoRemainder { .. })));
        }
    }

    #[test]
    fn gguf_files_pay_for_keys_other_tensors_and_padding_first() {
        let table = table();
        let shape = [10, 64];
        let matrix = GgufMatrix {
            name: ModuleName::new("wte"),
            role: FixedRole::Embedding,
            shape,
            kind: None,
            bytes: 1280,
            options: Vec::new(),
        };
        let gguf = GgufRemainder { header: 640, vectors: 96, matrices: vec![matrix] };
        let remainder = Remainder { gguf: Some(gguf.clone()), ..Remainder::default() };
        let limit = Budget::gguf(20_000).limit(&table, Some(&remainder)).unwrap();
        let left = 20_000 - 640 - 96 - 1280 - limit.bits / 8;
        assert!(left < 32 * 2, "{left} bytes for the padding of two modules");
        for bits in [2, 3, 4, 8] {
            let plan = crate::Plan::uniform(&table, BitWidth::new(bits).unwrap()).unwrap();
            let padded: u64 = plan.choices().iter().map(|c| (c.stored_bits / 8).next_multiple_of(32)).sum();
            assert_eq!(gguf.file_bytes(&plan), 640 + 96 + 1280 + padded);
            assert!(plan.stored_bits() > limit.bits || gguf.file_bytes(&plan) <= 20_000);
            let footprint = Footprint::within(Budget::gguf(20_000), &plan, Some(&remainder));
            assert_eq!(footprint.total(), gguf.file_bytes(&plan));
        }
        let error = Budget::gguf(1000).limit(&table, Some(&remainder)).unwrap_err();
        assert!(error.to_string().contains("embeddings"), "{error}");
        let none = Budget::gguf(20_000).limit(&table, Some(&Remainder::default()));
        assert_eq!(none, Err(BudgetError::NoGguf));
    }

    #[test]
    fn nonsense_is_refused() {
        for number in [f64::NAN, f64::INFINITY, 0.0, -3.0] {
            for budget in [Budget::AverageBits, Budget::CodeBitsPerWeight, Budget::StoredBitsPerWeight] {
                assert!(matches!(bits(budget(number)), Err(BudgetError::NotPositive(_))));
            }
        }
    }
}
