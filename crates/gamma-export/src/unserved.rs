//! Formats that a target cannot hold: refused with all modules at once, before anything is quantized.

use std::fmt;

use gamma_core::{Format, ModuleName};

use crate::ExportError;

/// A module whose format the target cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// The module.
    pub module: ModuleName,
    /// Its format in the plan.
    pub format: Format,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {:?} as `{}`", self.module, self.shape, self.format)
    }
}

/// Refuses a list that is not empty.
pub(crate) fn check_served(
    target: &'static str,
    served: &'static str,
    modules: Vec<Unserved>,
) -> Result<(), ExportError> {
    if modules.is_empty() { Ok(()) } else { Err(ExportError::Unserved { target, served, modules }) }
}

/// The first few as text.
pub(crate) fn list(modules: &[Unserved]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<_> = modules.iter().take(SHOWN).map(ToString::to_string).collect();
    let rest = modules.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
