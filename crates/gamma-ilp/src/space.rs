//! The plans of a problem as positions, for searches that measure plans instead of adding up costs.

use std::collections::{HashMap, HashSet};

use gamma_core::{Choice, Format, Limit, ModuleScores, Plan, ScoreTable};

use crate::{Instance, Limits, Problem, ProjectError, Window, instance::Item, program::Program, solve};

/// Everything that a plan of a [`Problem`] can be: groups of modules that share a format, and the
/// places that each group may take, in order of growing size.
///
/// A point of the space is one place per group. Ties, pins, ranges and exclusions hold for every
/// point, because they decide which groups and places there are; the budget and what else joins
/// modules is asked of [`admits`](Self::admits).
///
/// ```
/// # use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, ScoredOption};
/// use gamma_core::{Budget, ScoreKind, ScoreTable};
/// use gamma_ilp::{Limits, Problem};
/// # let module = |name: &str| {
/// #     let option = |(bits, cost)| {
/// #         let format = Format::asymmetric(bits, GroupSize::G128);
/// #         ScoredOption::new(format.clone(), format.stored_bits([256, 256]).expect("integer"), cost)
/// #     };
/// #     let options = [(BitWidth::B2, 9.0), (BitWidth::B3, 2.0), (BitWidth::B4, 1.0)];
/// #     ModuleScores { name: ModuleName::new(name), shape: [256, 256], options: options.map(option).to_vec() }
/// # };
/// # let names = ["gate_proj", "up_proj", "down_proj"].map(|role| format!("model.layers.0.mlp.{role}"));
/// # let table: ScoreTable = ScoreTable::new(names.iter().map(|name| module(name)).collect())?;
///
/// let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0)).rule("tie vllm".parse()?);
/// let space = problem.space()?;
/// // The gate and the up projection are one group.
/// assert_eq!(space.len(), 2);
/// assert!(space.admits(&[1, 1]) && space.admits(&[0, 2]) && !space.admits(&[2, 0]));
/// assert!(problem.admits(&space.plan(&[0, 2]))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Space<'p> {
    program: Program<'p>,
}

impl<'a> Problem<'a> {
    /// The scores.
    #[must_use]
    pub fn table(&self) -> &'a ScoreTable {
        self.table
    }

    /// All that a plan can be.
    ///
    /// # Errors
    /// [`ProjectError`] if a rule is at fault, or if the budget is no number. Whether any plan fits
    /// the budget plays no part.
    pub fn space(&self) -> Result<Space<'_>, ProjectError> {
        Ok(Space { program: Program::new(self)? })
    }

    /// Whether `plan` has one of the permitted options for every allocated module and for no other,
    /// fits the budget, and obeys all that joins modules. Costs play no part, nor does how much of
    /// the budget is used.
    ///
    /// # Errors
    /// As [`space`](Self::space).
    pub fn admits(&self, plan: &Plan) -> Result<bool, ProjectError> {
        let space = self.space()?;
        Ok(space.places(plan).is_ok_and(|places| space.admits(&places)))
    }
}

impl Space<'_> {
    /// The allocated modules, in model order, with the scores of the problem.
    #[must_use]
    pub fn table(&self) -> &ScoreTable {
        &self.program.table
    }

    /// The budget in bits; zero where what no plan changes exceeds it already.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.program.limit
    }

    /// Number of groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.program.instance.len()
    }

    /// Never: a problem has a module, and every module is in a group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions in [`table`](Self::table) of the modules of a group, growing.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn members(&self, group: usize) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.program.units.members(group).iter().map(|&member| member as usize)
    }

    /// The modules of a group, in model order.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn modules(&self, group: usize) -> impl Iterator<Item = &ModuleScores> {
        self.members(group).map(|member| &self.program.table.modules()[member])
    }

    /// Number of places of a group, at least 1.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn places_of(&self, group: usize) -> usize {
        self.program.instance.group(group).len()
    }

    /// The option of each module of the group at a place, as positions in their lists of options.
    ///
    /// # Panics
    /// If there is no such group or place.
    #[must_use]
    pub fn options(&self, group: usize, place: usize) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.program.units.picks(group, place).iter().map(|&pick| pick as usize)
    }

    /// Size of the group at a place, in bits of [`limit`](Self::limit)'s measure.
    ///
    /// # Panics
    /// If there is no such group or place.
    #[must_use]
    pub fn size(&self, group: usize, place: usize) -> u64 {
        self.program.instance.group(group)[place].size
    }

    /// Cost of the group at a place by the scores of the problem.
    ///
    /// # Panics
    /// If there is no such group or place.
    #[must_use]
    pub fn cost(&self, group: usize, place: usize) -> f64 {
        self.program.instance.group(group)[place].cost
    }

    /// The format that all modules of the group have at a place.
    ///
    /// # Panics
    /// If there is no such group or place.
    #[must_use]
    pub fn format(&self, group: usize, place: usize) -> &Format {
        let (member, pick) =
            (self.program.units.members(group)[0], self.program.units.picks(group, place)[0]);
        &self.program.table.modules()[member as usize].options[pick as usize].format
    }

    /// Where `plan` is.
    ///
    /// # Errors
    /// [`ProjectError::IncompletePlan`] names an allocated module that the plan leaves out;
    /// [`ProjectError::ForeignPlan`] a module whose format is not permitted, or which is not
    /// allocated.
    pub fn places(&self, plan: &Plan) -> Result<Vec<usize>, ProjectError> {
        let modules = self.program.table.modules();
        let choices: HashMap<_, &Choice> =
            plan.choices().iter().map(|choice| (&choice.name, choice)).collect();
        let foreign = |choice: &Choice| ProjectError::ForeignPlan {
            module: choice.name.clone(),
            format: choice.format.clone(),
        };
        let mut places = Vec::with_capacity(self.len());
        for group in 0..self.len() {
            let mut own = Vec::new();
            for member in self.members(group) {
                let name = &modules[member].name;
                own.push(
                    *choices
                        .get(name)
                        .ok_or_else(|| ProjectError::IncompletePlan { module: name.clone() })?,
                );
            }
            let format = &own[0].format;
            if let Some(other) = own.iter().find(|choice| choice.format != *format) {
                return Err(foreign(other));
            }
            let place = (0..self.places_of(group)).find(|&place| self.format(group, place) == format);
            places.push(place.ok_or_else(|| foreign(own[0]))?);
        }
        let known: HashSet<_> = modules.iter().map(|module| &module.name).collect();
        match plan.choices().iter().find(|choice| !known.contains(&choice.name)) {
            Some(extra) => Err(foreign(extra)),
            None => Ok(places),
        }
    }

    /// Whether a point fits the budget and obeys all that joins modules.
    ///
    /// # Panics
    /// Unless there is one place per group.
    #[must_use]
    pub fn admits(&self, places: &[usize]) -> bool {
        self.fits(places) && self.program.joints.hold(&self.program.instance, places)
    }

    /// Whether a point fits the budget, whatever else it breaks.
    ///
    /// # Panics
    /// Unless there is one place per group.
    #[must_use]
    pub fn fits(&self, places: &[usize]) -> bool {
        assert_eq!(places.len(), self.len(), "one place per group");
        self.program.overdraft == 0 && self.program.instance.size(places) <= self.program.limit.bits
    }

    /// The plan at a point, costs as the scores of the problem have them, without a certificate.
    ///
    /// # Panics
    /// Unless there is one place per group.
    #[must_use]
    pub fn plan(&self, places: &[usize]) -> Plan {
        assert_eq!(places.len(), self.len(), "one place per group");
        let picks = self.program.units.expand(places);
        Plan::from_picks(&self.program.table, &picks, None).expect("one option of each module is picked")
    }

    /// The admitted point whose sum of `cost(group, place)` is lowest among the places for which
    /// there is a cost, or `None` where no point is admitted. Costs are losses: whatever the kind of
    /// the problem's scores, the budget need not be filled.
    ///
    /// # Errors
    /// [`ProjectError::NotFinite`] for a cost that is not a number; else as [`Problem::solve`].
    pub fn cheapest(
        &self,
        cost: impl Fn(usize, usize) -> Option<f64>,
        limits: &Limits,
    ) -> Result<Option<Vec<usize>>, ProjectError> {
        let full = &self.program.instance;
        let mut instance = Instance::with_capacity(full.len(), full.n_items());
        let mut kept = Vec::with_capacity(full.n_items());
        for (group, items) in full.groups().enumerate() {
            let mut own = Vec::with_capacity(items.len());
            for (place, item) in items.iter().enumerate() {
                let Some(cost) = cost(group, place) else { continue };
                if !cost.is_finite() {
                    let constraint = format!("costs of group {group}");
                    return Err(ProjectError::NotFinite { constraint });
                }
                own.push(Item { size: item.size, cost });
                kept.push(full.start(group) + place);
            }
            if own.is_empty() {
                return Ok(None);
            }
            instance.push(own);
        }
        if self.program.overdraft > 0 {
            return Ok(None);
        }
        let joints = self.program.joints.restricted(&kept);
        let window = Window::up_to(self.program.limit.bits);
        let Some((answer, _)) = solve::within(&joints, &instance, window, limits)? else {
            return Ok(None);
        };
        let former = |(group, &pick): (usize, &usize)| kept[instance.start(group) + pick] - full.start(group);
        Ok(Some(answer.picks.iter().enumerate().map(former).collect()))
    }
}
