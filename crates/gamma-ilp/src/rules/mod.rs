//! What a plan must obey besides its budget.

mod pattern;
mod text;
mod ties;

use gamma_core::{BitWidth, Format, ScoredOption};

pub use pattern::Pattern;
pub use ties::{Engine, Ties};

/// A constraint on plans. Each has a form as text, which reads back.
///
/// ```
/// use gamma_ilp::Rule;
///
/// for text in [
///     "tie vllm",
///     "pin *.o_proj 4",
///     "min *.v_proj 3",
///     "max model.layers.0.* int4:g64:sym:f16",
///     "exclude re:model\\.layers\\.(0|31)\\..*",
///     "bytes model.layers.[0-9].* 120000000",
///     "modules 2 10",
///     "formats 3",
/// ] {
///     assert_eq!(text.parse::<Rule>()?.to_string(), text);
/// }
/// # Ok::<(), gamma_ilp::RuleError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// `tie ENGINE` or `tie PATTERN`: modules that share a format.
    Tie(Ties),
    /// `pin PATTERN OPTION`: no other option than this.
    Pin {
        /// The modules.
        modules: Pattern,
        /// The options that remain.
        option: Which,
    },
    /// `min PATTERN OPTION`: no fewer bits than this bit-width, or than this format stores.
    Min {
        /// The modules.
        modules: Pattern,
        /// The narrowest option that remains.
        option: Which,
    },
    /// `max PATTERN OPTION`: no more bits than this bit-width, or than this format stores.
    Max {
        /// The modules.
        modules: Pattern,
        /// The widest option that remains.
        option: Which,
    },
    /// `exclude PATTERN`: not quantized, and not counted in budgets for the allocated modules.
    Exclude {
        /// The modules.
        modules: Pattern,
    },
    /// `bytes PATTERN BYTES`: storage of these modules together, such as those on one device.
    Bytes {
        /// The modules.
        modules: Pattern,
        /// Most bytes.
        at_most: u64,
    },
    /// `modules OPTION COUNT`: how many modules may have this option.
    Modules {
        /// The option.
        option: Which,
        /// Most modules.
        at_most: usize,
    },
    /// `formats COUNT`: how many different formats a plan may use.
    Formats {
        /// Most formats.
        at_most: usize,
    },
}

/// Options by bit-width or by exact format; `4` or `int4:g64:asym:f16` as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every option of this bit-width.
    Bits(BitWidth),
    /// This option alone.
    Format(Format),
}

impl Which {
    /// Whether `option` is meant.
    #[must_use]
    pub fn matches(&self, option: &ScoredOption) -> bool {
        match self {
            Self::Bits(bits) => option.format.bits() == *bits,
            Self::Format(format) => option.format == *format,
        }
    }
}

impl Rule {
    /// The modules that the rule names, where it names any.
    #[must_use]
    pub fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::Pin { modules, .. }
            | Self::Min { modules, .. }
            | Self::Max { modules, .. }
            | Self::Exclude { modules }
            | Self::Bytes { modules, .. }
            | Self::Tie(Ties::Pattern(modules)) => Some(modules),
            Self::Tie(Ties::Engine(_)) | Self::Modules { .. } | Self::Formats { .. } => None,
        }
    }

    /// Whether the rule decides over a module's options one by one, so that it must not treat
    /// tied modules differently.
    pub(crate) fn restricts(&self) -> bool {
        matches!(self, Self::Pin { .. } | Self::Min { .. } | Self::Max { .. } | Self::Exclude { .. })
    }

    /// Whether a module that matches may have `option`, one of `all`.
    pub(crate) fn allows(&self, option: &ScoredOption, all: &[ScoredOption]) -> bool {
        let size = |which: &Which| match which {
            Which::Bits(bits) => (u64::from(bits.bits()), u64::from(option.format.bits().bits())),
            // A format that the module lacks limits nothing, and is an error elsewhere.
            Which::Format(format) => {
                let bits = all.iter().find(|one| one.format == *format).map(|one| one.stored_bits);
                (bits.unwrap_or(option.stored_bits), option.stored_bits)
            }
        };
        match self {
            Self::Pin { option: which, .. } => which.matches(option),
            Self::Min { option: which, .. } => {
                let (limit, own) = size(which);
                own >= limit
            }
            Self::Max { option: which, .. } => {
                let (limit, own) = size(which);
                own <= limit
            }
            _ => true,
        }
    }
}

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Not one of the forms.
    #[error(
        "unknown rule `{0}`; expected `tie ENGINE`, `tie PATTERN`, `pin PATTERN OPTION`, `min PATTERN OPTION`, \
         `max PATTERN OPTION`, `exclude PATTERN`, `bytes PATTERN BYTES`, `modules OPTION COUNT` or `formats COUNT`"
    )]
    Unknown(String),
    /// A pattern that cannot be read.
    #[error("`{pattern}` is not a pattern for module names: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An engine without a preset.
    #[error("unknown engine `{found}`; expected one of {known}, or a pattern for the modules to tie")]
    Engine {
        /// What was given.
        found: String,
        /// The engines with a preset.
        known: String,
    },
    /// Neither a bit-width nor a format.
    #[error("`{0}` is neither a bit-width (2 to 8) nor a format such as `int4:g64:asym:f16`")]
    Option(String),
    /// Not a whole number.
    #[error("`{0}` is not a whole number of bytes, modules or formats")]
    Number(String),
}
