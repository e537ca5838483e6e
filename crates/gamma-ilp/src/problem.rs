//! What to solve: scores, a budget, and everything a plan must obey.

use std::{
    collections::HashMap,
    ops::{Bound, RangeBounds},
};

use gamma_core::{
    Budget, FixedRole, FixedTensor, Footprint, Format, GgufMatrix, GgufRemainder, ModuleName, ModuleScores,
    Plan, Remainder, ScoreKind, ScoreTable, ScoredOption,
};

use crate::{Limits, ProjectError, Rule, infeasible, program::Program, solve, top};

/// A projection with constraints.
///
/// | setter | default | meaning |
/// |---|---|---|
/// | [`rule`](Self::rule) | none | ties, pins, ranges, exclusions, counts; see [`Rule`] |
/// | [`linear`](Self::linear) | none | any linear constraint, such as a latency |
/// | [`near`](Self::near) | none | how far the plan may be from another one |
/// | [`remainder`](Self::remainder) | unknown | what else the model holds, for budgets of files and devices |
///
/// Ties, pins, ranges and exclusions change the groups and options that the solver sees, so the
/// problem remains a knapsack. The others make it a general integer program: it is solved as a
/// knapsack first, and if that plan obeys them by itself, it is the answer; otherwise HiGHS solves.
///
/// ```
/// # use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, ScoredOption};
/// use gamma_core::{Budget, ScoreKind, ScoreTable};
/// use gamma_ilp::{Limits, Problem};
/// # let module = |name: &str, damage: [f64; 3]| {
/// #     let option = |(bits, cost)| {
/// #         let format = Format::asymmetric(bits, GroupSize::G128);
/// #         ScoredOption::new(format.clone(), format.stored_bits([256, 256]).expect("integer"), cost)
/// #     };
/// #     let widths = [BitWidth::B2, BitWidth::B3, BitWidth::B4];
/// #     let options = widths.into_iter().zip(damage).map(option).collect();
/// #     ModuleScores { name: ModuleName::new(name), shape: [256, 256], options }
/// # };
/// # let table: ScoreTable = ScoreTable::new(vec![
/// #     module("model.layers.0.mlp.gate_proj", [0.9, 0.2, 0.1]),
/// #     module("model.layers.0.mlp.up_proj", [4.0, 1.0, 0.3]),
/// #     module("model.layers.0.mlp.down_proj", [0.5, 0.3, 0.1]),
/// # ])?;
///
/// let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0))
///     .rule("tie vllm".parse()?)
///     .rule("min *.down_proj 3".parse()?);
/// let plan = problem.solve(&Limits::default())?;
/// let bits: Vec<u8> = plan.choices().iter().map(|choice| choice.format.bits().bits()).collect();
/// assert_eq!(bits, [3, 3, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem<'a> {
    pub(crate) table: &'a ScoreTable,
    pub(crate) kind: ScoreKind,
    pub(crate) budget: Budget,
    pub(crate) remainder: Option<&'a Remainder>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) linear: Vec<Linear>,
    /// A module that must have this format, together with all that are tied to it.
    pub(crate) forced: Option<(ModuleName, Format)>,
}

/// A constraint on the sum of numbers, one per option.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) label: String,
    pub(crate) bounds: (f64, f64),
    /// Module by module of the table, option by option.
    pub(crate) coefficients: Vec<Vec<f64>>,
}

/// How far a plan may be from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Modules whose format differs.
    Modules(usize),
    /// Bytes of modules whose format differs, in the new plan: what must be quantized and shipped
    /// again.
    Bytes(u64),
}

impl<'a> Problem<'a> {
    /// The cheapest plan of `table` within `budget`, and no further constraint yet.
    pub fn new(table: &'a ScoreTable, kind: ScoreKind, budget: Budget) -> Self {
        Self { table, kind, budget, remainder: None, rules: Vec::new(), linear: Vec::new(), forced: None }
    }

    /// The same with other costs for the same modules and options.
    pub fn scores(mut self, table: &'a ScoreTable) -> Self {
        self.table = table;
        self
    }

    /// The same with another budget.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The budget.
    #[must_use]
    pub fn goal(&self) -> Budget {
        self.budget
    }

    /// What the model holds besides the modules of the table. [`Budget::Artifact`] and
    /// [`Budget::Device`] need it.
    pub fn remainder(mut self, remainder: Option<&'a Remainder>) -> Self {
        self.remainder = remainder;
        self
    }

    /// Adds a rule.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds rules.
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }

    /// Requires that the sum of `coefficient` over the chosen options lies within `bounds`, such as
    /// `..=12.5` for a latency of at most 12.5 ms. `label` names the constraint in errors.
    ///
    /// Holds exactly where all coefficients are whole numbers, else up to 1e-11 of the sum of their
    /// absolute values. An excluded bound counts as included.
    pub fn linear(
        mut self,
        label: impl Into<String>,
        bounds: impl RangeBounds<f64>,
        coefficient: impl Fn(&ModuleScores, &ScoredOption) -> f64,
    ) -> Self {
        let end = |bound: Bound<&f64>, open: f64| match bound {
            Bound::Included(&x) | Bound::Excluded(&x) => x,
            Bound::Unbounded => open,
        };
        let bounds = (end(bounds.start_bound(), f64::NEG_INFINITY), end(bounds.end_bound(), f64::INFINITY));
        let modules = self.table.modules().iter();
        let coefficients = modules
            .map(|module| module.options.iter().map(|option| coefficient(module, option)).collect())
            .collect();
        self.linear.push(Linear { label: label.into(), bounds, coefficients });
        self
    }

    /// Stays within `change` of `plan`. Modules that `plan` does not name count as changed.
    pub fn near(self, plan: &Plan, change: Change) -> Self {
        let former: HashMap<_, _> =
            plan.choices().iter().map(|choice| (&choice.name, &choice.format)).collect();
        let kept = |module: &ModuleScores, option: &ScoredOption| {
            former.get(&module.name).is_some_and(|format| **format == option.format)
        };
        match change {
            Change::Modules(most) => self.linear(
                format!("near: at most {most} modules change"),
                ..=most as f64,
                |module, option| f64::from(u8::from(!kept(module, option))),
            ),
            Change::Bytes(most) => {
                let bits = most.saturating_mul(8) as f64;
                self.linear(format!("near: at most {most} bytes change"), ..=bits, |module, option| {
                    if kept(module, option) { 0.0 } else { option.stored_bits as f64 }
                })
            }
        }
    }

    /// The cheapest plan.
    ///
    /// With [`ScoreKind::Loss`] a plan may leave a part of the budget unused; of plans of equal cost
    /// the knapsack solver takes the one of fewer bits.
    ///
    /// With [`ScoreKind::Logits`] a plan must fill the budget, because logits carry a price of
    /// storage of their own: it uses at least `limit - delta` bits, where `delta` is the smallest
    /// positive difference between the sizes of two options of one module, or of tied ones. Where no plan does,
    /// `delta` is doubled until one does. A limit beyond the widest plan counts as the size of that
    /// plan. If the solver's limit is reached before it finds a plan or proves that there is none,
    /// `delta` is doubled too.
    ///
    /// The [certificate](gamma_core::Certificate) tells what was proven: no plan that obeys
    /// everything (and fills the budget, for logits) costs less than `bound`. The knapsack solver
    /// compares costs without rounding, but the `cost` of the plan is a sum of `f64` in module order;
    /// `bound` equals it where another plan could be cheaper by no more than the rounding of that
    /// sum. The costs of tied modules are added up before they are compared.
    ///
    /// # Errors
    /// [`ProjectError`] names the rule, module or budget at fault; where no plan fits, it states the
    /// smallest budget that would do and what holds it there.
    pub fn solve(&self, limits: &Limits) -> Result<Plan, ProjectError> {
        let program = Program::new(self)?;
        match solve::best(&program, self.kind, limits)? {
            Some(found) => Ok(solve::certified(&program, &found)),
            None => Err(infeasible::reason(self, limits)),
        }
    }

    /// The `count` cheapest plans, cheapest first; fewer where there are no more. Each carries its
    /// own certificate: nothing but the plans before it costs less than its bound.
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn top(&self, count: usize, limits: &Limits) -> Result<Vec<Plan>, ProjectError> {
        let program = Program::new(self)?;
        let Some(first) = solve::best(&program, self.kind, limits)? else {
            return Err(infeasible::reason(self, limits));
        };
        top::cheapest(program, first, count, limits)
    }

    /// Whether any plan obeys everything. Costs play no part, so this can be asked before learning.
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn check(&self, limits: &Limits) -> Result<(), ProjectError> {
        let program = Program::new(self)?;
        match solve::narrowest(&program, program.limit.bits, limits)? {
            Some(size) if size <= program.limit.bits && program.overdraft == 0 => Ok(()),
            _ => Err(infeasible::reason(self, limits)),
        }
    }

    /// What the plan has to obey besides the budget, in words.
    #[must_use]
    pub fn constraints(&self) -> Vec<String> {
        let rules = self.rules.iter().map(ToString::to_string);
        rules.chain(self.linear.iter().map(|linear| linear.label.clone())).collect()
    }

    /// How many modules each rule with a pattern matches.
    #[must_use]
    pub fn matches(&self) -> Vec<(&Rule, usize)> {
        let count = |rule: &'_ Rule| {
            let pattern = rule.pattern()?;
            Some(self.table.modules().iter().filter(|module| pattern.matches(&module.name)).count())
        };
        self.rules.iter().filter_map(|rule| Some((rule, count(rule)?))).collect()
    }

    /// Modules that rules exclude from allocation, in model order.
    #[must_use]
    pub fn excluded(&self) -> Vec<ModuleName> {
        let modules = self.table.modules().iter();
        modules.filter(|module| self.excludes(&module.name)).map(|module| module.name.clone()).collect()
    }

    pub(crate) fn excludes(&self, name: &ModuleName) -> bool {
        self.rules.iter().any(|rule| matches!(rule, Rule::Exclude { modules } if modules.matches(name)))
    }

    /// Whether nothing but the budget joins modules (ties aside), so that no other solver than the
    /// knapsack's is ever needed.
    ///
    /// # Errors
    /// As [`solve`](Self::solve), but for budgets that cannot be met.
    pub fn is_knapsack(&self) -> Result<bool, ProjectError> {
        Program::new(self).map(|program| program.joints.is_empty())
    }

    /// Where the bytes of `plan`, which this problem led to, go: see [`Footprint::within`].
    #[must_use]
    pub fn footprint(&self, plan: &Plan) -> Footprint {
        Footprint::within(self.budget, plan, self.remainder_with_excluded().as_ref())
    }

    /// Whether no rule concerns the options of this module.
    pub(crate) fn is_free(&self, name: &ModuleName) -> bool {
        self.forced.is_none()
            && !self
                .rules
                .iter()
                .any(|rule| rule.restricts() && rule.pattern().is_some_and(|pattern| pattern.matches(name)))
    }

    /// What the model holds besides the allocated modules; excluded modules are among it.
    #[must_use]
    pub fn remainder_with_excluded(&self) -> Option<Remainder> {
        let mut remainder = self.remainder?.clone();
        for module in self.table.modules().iter().filter(|module| self.excludes(&module.name)) {
            let bits = module.weights().saturating_mul(u64::from(remainder.weight_bits));
            let (name, role, bytes) = (module.name.weight(), FixedRole::Module, bits.div_ceil(8));
            remainder.tensors.push(FixedTensor { name, role, bytes });
            if let Some(gguf) = &mut remainder.gguf {
                let (name, shape, bytes) = (module.name.clone(), module.shape, GgufRemainder::padded(bytes));
                gguf.matrices.push(GgufMatrix { name, role, shape, kind: None, bytes, options: Vec::new() });
            }
        }
        Some(remainder)
    }
}
