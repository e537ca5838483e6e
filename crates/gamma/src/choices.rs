//! Bit-widths that other tools chose.

use std::{collections::BTreeMap, fs, path::Path};

use gamma_core::{BitWidth, ModuleName};
use serde::Deserialize;

use crate::{Error, Plan, Scores};

/// The bit-widths that another tool chose for the modules of a model, budget by budget.
///
/// ```json
/// { "tool": "name and version", "budgets": { "2.5": { "seconds": 12.3, "bits": { "model.layers.0.mlp.up_proj": 3 } } } }
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Choices {
    /// The tool, its version and its settings in words.
    pub tool: String,
    /// By average bit-width, as it was asked for.
    pub budgets: BTreeMap<String, ChosenBits>,
}

/// What a tool chose for one budget.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChosenBits {
    /// How long it took, scoring included.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Bits per code by the exact name of the module.
    pub bits: BTreeMap<String, u8>,
}

impl Choices {
    /// Reads a file of choices.
    ///
    /// # Errors
    /// [`Error`] names the file and what is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text =
            fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        serde_json::from_str(&text).map_err(|source| Error::Choices { path: path.to_owned(), source })
    }
}

impl ChosenBits {
    /// The plan that gives every module of `scores` the bit-width that was chosen for it.
    ///
    /// # Errors
    /// [`Error::Modules`] if a module was not chosen for or does not exist; [`Error::Width`] if it is
    /// not offered in the chosen width.
    pub fn plan(&self, scores: &Scores) -> Result<Plan, Error> {
        let modules = scores.table.modules();
        for name in self.bits.keys() {
            let module = ModuleName::new(name.as_str());
            if !modules.iter().any(|known| known.name == module) {
                return Err(Error::Modules { module, in_plan: true });
            }
        }
        let pick = |module: &gamma_core::ModuleScores| {
            let Some(&bits) = self.bits.get(module.name.as_str()) else {
                return Err(Error::Modules { module: module.name.clone(), in_plan: false });
            };
            let width = |width: BitWidth| width.bits() == bits;
            let found = module.options.iter().position(|option| width(option.format.bits()));
            found.ok_or_else(|| Error::Width { module: module.name.clone(), bits })
        };
        let picks = modules.iter().map(pick).collect::<Result<Vec<_>, _>>()?;
        scores.picked(&picks)
    }
}
