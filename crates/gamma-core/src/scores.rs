//! What each choice costs: the only thing that a solver needs to know about a model.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{BitWidth, Format, ModuleName};

/// What the costs of a table mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScoreKind {
    /// Expected loss that the option brings in the contexts seen while learning. In loss units, so
    /// that costs add up over modules and may be compared across budgets.
    Loss,
    /// Negated preference logits. They carry the price of bits of the budget they were learned
    /// at, so a projection must fill the budget and not merely respect it.
    Logits,
}

/// One way to store one module, and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredOption {
    /// How the weights would be stored.
    pub format: Format,
    /// Exact storage of the module in this format, in bits.
    pub stored_bits: u64,
    /// The damage; lower is better.
    pub cost: f64,
    /// Standard error of `cost`, where it was estimated from samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std_error: Option<f64>,
}

impl ScoredOption {
    /// An option whose cost is known without sampling error.
    #[must_use]
    pub fn new(format: Format, stored_bits: u64, cost: f64) -> Self {
        Self { format, stored_bits, cost, std_error: None }
    }
}

/// One module and its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleScores {
    /// The module's exact name.
    pub name: ModuleName,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// At least one option, in order of growing `stored_bits`.
    pub options: Vec<ScoredOption>,
}

impl ModuleScores {
    /// Number of weights.
    #[must_use]
    pub fn weights(&self) -> u64 {
        weights(self.shape)
    }

    /// The cheapest option (in stored bits) of bit-width `bits`.
    #[must_use]
    pub fn option(&self, bits: BitWidth) -> Option<&ScoredOption> {
        self.options.iter().find(|option| option.format.bits() == bits)
    }

    fn narrowest(&self) -> u64 {
        self.options[0].stored_bits
    }
}

/// The costs of every option of every module, checked.
///
/// Holds at least one module and at least one option in each, all costs finite, names unique,
/// and the options of a module in order of growing stored bits. No shape has a zero, and sums over
/// the modules cannot overflow: they stay below 2^52 weights and 2^63 stored bits.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTable {
    modules: Vec<ModuleScores>,
}

/// Costs in the context of plans of one size.
///
/// What an option costs depends on how much else is lost, so it is not the same at every budget.
/// Where a context is near, its costs are better than those over all budgets, which it refines.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Size of the plans, in bits.
    pub stored_bits: u64,
    /// How the costs were found.
    pub origin: Origin,
    /// The costs.
    pub table: ScoreTable,
}

/// How the costs of a [`Context`] were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Learned, from many plans that lose as much, in the units of the whole table.
    Learned,
    /// Measured around one plan: changes of the divergence, in nats per token, on top of each module's
    /// share of it.
    #[default]
    Measured,
}

/// Why a score table is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreTableError {
    /// There is nothing to allocate.
    #[error("the score table has no modules")]
    Empty,
    /// The same name stands twice.
    #[error("module `{0}` stands twice in the score table")]
    Duplicate(ModuleName),
    /// A module without a choice.
    #[error("module `{0}` has no options")]
    NoOptions(ModuleName),
    /// The same format stands twice in one module.
    #[error("module `{module}` lists the option `{format}` twice")]
    DuplicateOption {
        /// The module.
        module: ModuleName,
        /// The repeated format.
        format: Format,
    },
    /// A cost that cannot be compared.
    #[error("module `{module}`: the cost of `{format}` is {cost}")]
    NotFinite {
        /// The module.
        module: ModuleName,
        /// The option.
        format: Format,
        /// NaN or an infinity.
        cost: f64,
    },
    /// A shape that no matrix has.
    #[error("module `{module}`: shape {shape:?} has a zero, or brings all modules to 2^52 weights or more")]
    Shape {
        /// The module.
        module: ModuleName,
        /// `[out_features, in_features]`.
        shape: [usize; 2],
    },
    /// Sizes whose sum does not fit 63 bits.
    #[error("the stored sizes of the modules add up to 2^63 bits or more")]
    TooLarge,
}

impl ScoreTable {
    /// Checks a table; options are sorted by growing stored bits.
    ///
    /// # Errors
    /// [`ScoreTableError`] names the module that breaks a promise of the type.
    pub fn new(mut modules: Vec<ModuleScores>) -> Result<Self, ScoreTableError> {
        if modules.is_empty() {
            return Err(ScoreTableError::Empty);
        }
        let mut names = HashSet::new();
        let mut totals = Totals::default();
        for module in &mut modules {
            if !names.insert(module.name.clone()) {
                return Err(ScoreTableError::Duplicate(module.name.clone()));
            }
            module.options.sort_by_key(|option| option.stored_bits);
            check_options(module)?;
            if !totals.add_weights(module.shape) {
                return Err(ScoreTableError::Shape { module: module.name.clone(), shape: module.shape });
            }
            if !totals.add_bits(module.options.last().map_or(0, |option| option.stored_bits)) {
                return Err(ScoreTableError::TooLarge);
            }
        }
        Ok(Self { modules })
    }

    /// The modules, in model order.
    #[must_use]
    pub fn modules(&self) -> &[ModuleScores] {
        &self.modules
    }

    /// Number of weights of all modules.
    #[must_use]
    pub fn weights(&self) -> u64 {
        self.modules.iter().map(ModuleScores::weights).sum()
    }

    /// The least storage that any plan needs, in bits.
    #[must_use]
    pub fn minimum_bits(&self) -> u64 {
        self.modules.iter().map(ModuleScores::narrowest).sum()
    }
}

/// Weights of a matrix of `shape`; `u64::MAX` where they overflow.
pub(crate) fn weights(shape: [usize; 2]) -> u64 {
    (shape[0] as u64).saturating_mul(shape[1] as u64)
}

/// Sums over modules that are kept far from overflow, so that no later sum needs a check.
#[derive(Default)]
pub(crate) struct Totals {
    weights: u64,
    bits: u64,
}

impl Totals {
    /// `false` for a matrix without weights, and where the sum reaches 2^52: up to there it is
    /// exact as a float, and 8 bits for each weight fit as well.
    pub(crate) fn add_weights(&mut self, shape: [usize; 2]) -> bool {
        self.weights = self.weights.saturating_add(weights(shape));
        !shape.contains(&0) && self.weights < 1 << 52
    }

    /// `false` where the sum reaches 2^63.
    pub(crate) fn add_bits(&mut self, stored_bits: u64) -> bool {
        self.bits = self.bits.saturating_add(stored_bits);
        self.bits < 1 << 63
    }
}

fn check_options(module: &ModuleScores) -> Result<(), ScoreTableError> {
    if module.options.is_empty() {
        return Err(ScoreTableError::NoOptions(module.name.clone()));
    }
    let mut seen = HashSet::new();
    for option in &module.options {
        let (module, format) = (module.name.clone(), option.format.clone());
        if !option.cost.is_finite() {
            return Err(ScoreTableError::NotFinite { module, format, cost: option.cost });
        }
        if !seen.insert(&option.format) {
            return Err(ScoreTableError::DuplicateOption { module, format });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GroupSize;

    fn module(name: &str, shape: [usize; 2], stored_bits: u64) -> ModuleScores {
        let format = Format::symmetric(BitWidth::B4, GroupSize::G128);
        let options = vec![ScoredOption::new(format, stored_bits, 0.0)];
        ModuleScores { name: ModuleName::new(name), shape, options }
    }

    #[test]
    fn empty_and_overflowing_shapes_are_refused_by_name() {
        for shape in [[0, 4], [4, 0], [usize::MAX; 2], [1 << 26, 1 << 26]] {
            let error = ScoreTable::new(vec![module("a", shape, 8)]).unwrap_err();
            assert_eq!(error, ScoreTableError::Shape { module: ModuleName::new("a"), shape });
        }
        let half = [1 << 26, 1 << 25];
        assert!(ScoreTable::new(vec![module("a", half, 8)]).is_ok());
        let error = ScoreTable::new(vec![module("a", half, 8), module("b", half, 8)]).unwrap_err();
        assert_eq!(error, ScoreTableError::Shape { module: ModuleName::new("b"), shape: half });
    }

    #[test]
    fn sizes_that_add_up_to_2_to_the_63_are_refused() {
        let table = |bits| ScoreTable::new(vec![module("a", [1, 1], 1 << 62), module("b", [1, 1], bits)]);
        assert!(table((1 << 62) - 1).is_ok());
        for bits in [1 << 62, u64::MAX] {
            assert_eq!(table(bits).unwrap_err(), ScoreTableError::TooLarge);
        }
    }
}
