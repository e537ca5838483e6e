//! What was decided: one format per module.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{
    BitWidth, Format, Measure, ModuleName, ScoreTable,
    scores::{Totals, weights},
};

/// The format chosen for one module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The module's exact name.
    pub name: ModuleName,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// How its weights are stored.
    pub format: Format,
    /// Exact storage in this format, in bits.
    pub stored_bits: u64,
    /// The cost that the score table gave to this option.
    pub cost: f64,
}

/// What a solver proved about a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The solver that answered.
    pub solver: String,
    /// Total cost of the plan.
    pub cost: f64,
    /// No plan within the budget costs less than this.
    pub bound: f64,
    /// What `limit_bits` and `used_bits` count.
    #[serde(default)]
    pub measure: Measure,
    /// The budget, in bits.
    pub limit_bits: u64,
    /// What the plan takes of it, in bits.
    pub used_bits: u64,
}

impl Certificate {
    /// `cost - bound`: zero where the plan is proven optimal.
    #[must_use]
    pub fn gap(&self) -> f64 {
        (self.cost - self.bound).max(0.0)
    }

    /// Bits of the budget that no better plan could use.
    #[must_use]
    pub fn slack_bits(&self) -> u64 {
        self.limit_bits.saturating_sub(self.used_bits)
    }
}

/// One choice per module, in model order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    choices: Vec<Choice>,
    certificate: Option<Certificate>,
}

/// Why a plan cannot be formed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not one pick per module.
    #[error("the plan picks {picks} options for {modules} modules")]
    Length {
        /// Number of picks.
        picks: usize,
        /// Number of modules.
        modules: usize,
    },
    /// A pick beyond the module's options.
    #[error("module `{module}` has {options} options, there is no option {pick}")]
    NoSuchOption {
        /// The module.
        module: ModuleName,
        /// How many options it has.
        options: usize,
        /// The pick, counted from 0.
        pick: usize,
    },
    /// A uniform plan at a width that a module does not offer.
    #[error("module `{module}` has no option of {bits} bits; it offers {}", list(offered))]
    NoSuchWidth {
        /// The module.
        module: ModuleName,
        /// The requested bit-width.
        bits: BitWidth,
        /// The bit-widths it offers.
        offered: Vec<BitWidth>,
    },
    /// There is nothing to store.
    #[error("the plan has no modules")]
    Empty,
    /// The same name stands twice.
    #[error("module `{0}` stands twice in the plan")]
    Duplicate(ModuleName),
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

fn list(widths: &[BitWidth]) -> String {
    let words: Vec<_> = widths.iter().map(ToString::to_string).collect();
    words.join(", ")
}

impl Plan {
    /// The plan that takes option `picks[i]` of module `i` of `table`.
    ///
    /// # Errors
    /// [`PlanError`] if the picks do not fit the table.
    pub fn from_picks(
        table: &ScoreTable,
        picks: &[usize],
        certificate: Option<Certificate>,
    ) -> Result<Self, PlanError> {
        let modules = table.modules();
        if picks.len() != modules.len() {
            return Err(PlanError::Length { picks: picks.len(), modules: modules.len() });
        }
        let choose = |(module, &pick): (&crate::ModuleScores, &usize)| {
            let option = module.options.get(pick).ok_or_else(|| PlanError::NoSuchOption {
                module: module.name.clone(),
                options: module.options.len(),
                pick,
            })?;
            Ok(Choice {
                name: module.name.clone(),
                shape: module.shape,
                format: option.format.clone(),
                stored_bits: option.stored_bits,
                cost: option.cost,
            })
        };
        let choices = modules.iter().zip(picks).map(choose).collect::<Result<_, _>>()?;
        Ok(Self { choices, certificate })
    }

    /// The plan that gives `bits` to every module.
    ///
    /// # Errors
    /// [`PlanError::NoSuchWidth`] names the first module without this bit-width.
    pub fn uniform(table: &ScoreTable, bits: BitWidth) -> Result<Self, PlanError> {
        let pick = |module: &crate::ModuleScores| {
            module.options.iter().position(|option| option.format.bits() == bits).ok_or_else(|| {
                PlanError::NoSuchWidth {
                    module: module.name.clone(),
                    bits,
                    offered: module.options.iter().map(|option| option.format.bits()).collect(),
                }
            })
        };
        let picks = table.modules().iter().map(pick).collect::<Result<Vec<_>, _>>()?;
        Self::from_picks(table, &picks, None)
    }

    pub(crate) fn from_parts(
        choices: Vec<Choice>,
        certificate: Option<Certificate>,
    ) -> Result<Self, PlanError> {
        if choices.is_empty() {
            return Err(PlanError::Empty);
        }
        let mut names = HashSet::new();
        let mut totals = Totals::default();
        for choice in &choices {
            if !names.insert(&choice.name) {
                return Err(PlanError::Duplicate(choice.name.clone()));
            }
            if !totals.add_weights(choice.shape) {
                return Err(PlanError::Shape { module: choice.name.clone(), shape: choice.shape });
            }
            if !totals.add_bits(choice.stored_bits) {
                return Err(PlanError::TooLarge);
            }
        }
        Ok(Self { choices, certificate })
    }

    /// The choices, in model order.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The choice for one module.
    #[must_use]
    pub fn choice(&self, name: &ModuleName) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.name == *name)
    }

    /// What the solver proved; `None` for a plan that no solver made.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// Exact storage of all modules, in bits.
    #[must_use]
    pub fn stored_bits(&self) -> u64 {
        self.choices.iter().map(|choice| choice.stored_bits).sum()
    }

    /// Size of all modules in bits, counted as `measure` says.
    #[must_use]
    pub fn size(&self, measure: Measure) -> u64 {
        match measure {
            Measure::StoredBits => self.stored_bits(),
            Measure::CodeBits => {
                self.choices.iter().map(|c| c.weights() * u64::from(c.format.bits().bits())).sum()
            }
        }
    }

    /// Number of weights of all modules.
    #[must_use]
    pub fn weights(&self) -> u64 {
        self.choices.iter().map(Choice::weights).sum()
    }

    /// Stored bits per weight, scales and zero points counted.
    #[must_use]
    pub fn stored_bits_per_weight(&self) -> f64 {
        self.stored_bits() as f64 / self.weights() as f64
    }

    /// Bits per weight of the codes alone.
    #[must_use]
    pub fn code_bits_per_weight(&self) -> f64 {
        self.size(Measure::CodeBits) as f64 / self.weights() as f64
    }

    /// Total cost by the score table that the plan was made from.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.choices.iter().map(|choice| choice.cost).sum()
    }
}

impl Choice {
    /// Number of weights.
    #[must_use]
    pub fn weights(&self) -> u64 {
        weights(self.shape)
    }
}
