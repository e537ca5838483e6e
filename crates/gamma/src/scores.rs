//! Scores and plans as files, and the step from one to the other.

use std::{fs, ops::Deref, path::Path};

use gamma_core::{BitWidth, Budget, FileError, PlanFile, Provenance, ScoresFile};
use gamma_export::write_atomically;
use gamma_ilp::{Limits, project};

use crate::Error;

/// What every option of every module costs. One learning run serves every budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores(ScoresFile);

/// One format per module, and where the decision came from. Dereferences to
/// [`gamma_core::Plan`].
#[derive(Clone, Debug, PartialEq)]
pub struct Plan(PlanFile);

impl Scores {
    /// Wraps scores that were made elsewhere.
    #[must_use]
    pub fn new(file: ScoresFile) -> Self {
        Self(file)
    }

    /// Reads `scores.json`.
    ///
    /// # Errors
    /// [`Error`] names the file and what is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        read(path.as_ref(), ScoresFile::from_json).map(Self)
    }

    /// Writes `scores.json`: complete, or not at all.
    ///
    /// # Errors
    /// [`Error::Export`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(write_atomically(path.as_ref(), self.0.to_json().as_bytes())?)
    }

    /// The cheapest plan within `budget`, proven. Takes milliseconds; needs neither the model nor
    /// calibration data.
    ///
    /// # Errors
    /// [`Error::Project`] states the smallest possible budget if this one is too small.
    pub fn project(&self, budget: Budget) -> Result<Plan, Error> {
        self.project_within(budget, &Limits::default())
    }

    /// [`project`](Self::project) with a solver and limits of the caller's choice.
    ///
    /// # Errors
    /// As [`project`](Self::project).
    pub fn project_within(&self, budget: Budget, limits: &Limits) -> Result<Plan, Error> {
        let plan = project(&self.0.table, self.0.kind, budget, limits)?;
        Ok(Plan(PlanFile { budget: Some(budget), provenance: self.0.provenance.clone(), plan }))
    }

    /// The plan that gives `bits` to every module: what gamma is measured against.
    ///
    /// # Errors
    /// [`Error::Plan`] if `bits` is not among the candidates.
    pub fn uniform(&self, bits: BitWidth) -> Result<Plan, Error> {
        let plan = gamma_core::Plan::uniform(&self.0.table, bits)?;
        Ok(Plan(PlanFile { budget: None, provenance: self.0.provenance.clone(), plan }))
    }
}

impl Deref for Scores {
    type Target = ScoresFile;

    fn deref(&self) -> &ScoresFile {
        &self.0
    }
}

impl Plan {
    /// Reads `plan.json`.
    ///
    /// # Errors
    /// [`Error`] names the file and what is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        read(path.as_ref(), PlanFile::from_json).map(Self)
    }

    /// Writes `plan.json`: complete, or not at all.
    ///
    /// # Errors
    /// [`Error::Export`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(write_atomically(path.as_ref(), self.0.to_json().as_bytes())?)
    }

    /// The budget that led to the plan, as it was given.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        self.0.budget
    }

    /// Where the scores behind the plan came from.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.0.provenance
    }

    /// The text of `plan.json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.0.to_json()
    }
}

impl Deref for Plan {
    type Target = gamma_core::Plan;

    fn deref(&self) -> &gamma_core::Plan {
        &self.0.plan
    }
}

fn read<T>(path: &Path, parse: fn(&str) -> Result<T, FileError>) -> Result<T, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|source| Error::File { path: path.to_owned(), source })
}
