//! Scores and plans as files, and the step from one to the other.

use std::{fs, ops::Deref, path::Path};

use gamma_core::{
    BitWidth, Budget, Context, FileError, Footprint, ModuleName, PlanFile, Provenance, Remainder, ScoreTable,
    ScoresFile,
};
use gamma_export::write_atomically;
use gamma_ilp::{Limits, Problem};
use gamma_refine::blend;

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
        let limits = Limits::default();
        let settled = self.settled(&self.problem(budget), &limits)?;
        settled.solve(&settled.problem(budget), &limits)
    }

    /// A projection to which constraints can be added: ties for an engine, pinned or excluded
    /// modules, latencies. [`solve`](Self::solve) turns it into a plan.
    ///
    /// ```no_run
    /// use gamma::{Budget, Limits, Scores};
    ///
    /// let scores = Scores::load("scores.json")?;
    /// let problem = scores
    ///     .problem(Budget::device(8 << 30, 4096))
    ///     .rule("tie vllm".parse()?)
    ///     .rule("min *.down_proj 3".parse()?);
    /// let plan = scores.solve(&problem, &Limits::default())?;
    /// println!("{}", plan.footprint());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn problem(&self, budget: Budget) -> Problem<'_> {
        Problem::new(&self.0.table, self.0.kind, budget).remainder(self.0.remainder.as_ref())
    }

    /// The cheapest plan that obeys `problem`, which was made from these scores.
    ///
    /// # Errors
    /// [`Error::Project`] names the rule, module or budget at fault.
    pub fn solve(&self, problem: &Problem<'_>, limits: &Limits) -> Result<Plan, Error> {
        let costs = self.in_context(problem, limits)?;
        Ok(self.filed(problem, problem.clone().scores(&costs).solve(limits)?))
    }

    /// The costs for plans of the size to which `problem` leads: those of
    /// [`solve`](Self::solve).
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn in_context(&self, problem: &Problem<'_>, limits: &Limits) -> Result<ScoreTable, Error> {
        if self.0.contexts.is_empty() {
            return Ok(problem.table().clone());
        }
        let plan = problem.solve(limits)?;
        Ok(blend(problem.table(), &self.0.contexts, plan.stored_bits())?)
    }

    /// A plan found otherwise than by solving `problem`, which it obeys.
    pub(crate) fn found(&self, problem: &Problem<'_>, plan: gamma_core::Plan) -> Plan {
        self.filed(problem, plan)
    }

    /// Adds what was measured around a plan. It takes the place of what was measured around one of
    /// the same size.
    pub fn add_context(&mut self, context: Context) {
        let same =
            |known: &Context| (known.stored_bits, known.origin) == (context.stored_bits, context.origin);
        self.0.contexts.retain(|known| !same(known));
        self.0.contexts.push(context);
        self.0.contexts.sort_by_key(|context| context.stored_bits);
    }

    /// The costs over all budgets alone, without what is known of single ones.
    #[must_use]
    pub fn overall(mut self) -> Self {
        self.0.contexts.clear();
        self
    }

    /// The `count` cheapest plans that obey `problem`, cheapest first.
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn top(&self, problem: &Problem<'_>, count: usize, limits: &Limits) -> Result<Vec<Plan>, Error> {
        let costs = self.in_context(problem, limits)?;
        let plans = problem.clone().scores(&costs).top(count, limits)?;
        Ok(plans.into_iter().map(|plan| self.filed(problem, plan)).collect())
    }

    fn filed(&self, problem: &Problem<'_>, plan: gamma_core::Plan) -> Plan {
        Plan(PlanFile {
            budget: Some(problem.goal()),
            provenance: self.0.provenance.clone(),
            constraints: problem.constraints(),
            excluded: problem.excluded(),
            remainder: problem.remainder_with_excluded().map(Remainder::closed),
            plan,
        })
    }

    /// The plan that gives `bits` to every module: what gamma is measured against.
    ///
    /// # Errors
    /// [`Error::Plan`] if `bits` is not among the candidates.
    pub fn uniform(&self, bits: BitWidth) -> Result<Plan, Error> {
        Ok(self.unconstrained(gamma_core::Plan::uniform(&self.0.table, bits)?))
    }

    /// The plan that takes option `picks[i]` of module `i`.
    pub(crate) fn picked(&self, picks: &[usize]) -> Result<Plan, Error> {
        Ok(self.unconstrained(gamma_core::Plan::from_picks(&self.0.table, picks, None)?))
    }

    fn unconstrained(&self, plan: gamma_core::Plan) -> Plan {
        Plan(PlanFile {
            budget: None,
            provenance: self.0.provenance.clone(),
            constraints: Vec::new(),
            excluded: Vec::new(),
            remainder: self.0.remainder.clone().map(Remainder::closed),
            plan,
        })
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

    /// What the plan had to obey besides the budget, in words; rules read back as
    /// [`Rule`](crate::Rule).
    #[must_use]
    pub fn constraints(&self) -> &[String] {
        &self.0.constraints
    }

    /// Modules that stay as they are.
    #[must_use]
    pub fn excluded(&self) -> &[ModuleName] {
        &self.0.excluded
    }

    /// What the model holds besides the modules of the plan, where the scores knew it.
    #[must_use]
    pub fn remainder(&self) -> Option<&Remainder> {
        self.0.remainder.as_ref()
    }

    /// Where the bytes go: the planned modules and, where it is known, everything else that the
    /// packed file holds. What the file adds for its own purposes is an upper bound. For a plan
    /// that a device budget led to, the key-value cache takes the place of the file's header.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let budget = self.0.budget.unwrap_or(Budget::bytes(u64::MAX));
        Footprint::within(budget, self, self.remainder())
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
