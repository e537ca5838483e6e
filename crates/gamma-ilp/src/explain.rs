//! Why a module has the format it has.

use std::collections::{HashMap, HashSet};

use gamma_core::{Format, ModuleName, Plan};

use crate::{Limits, Problem, ProjectError, knapsack, program::Program, solve};

/// Why a module has its format, and what any other one would bring.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The module.
    pub module: ModuleName,
    /// Modules that must have the same format.
    pub tied: Vec<ModuleName>,
    /// Rules that name the module.
    pub rules: Vec<String>,
    /// Cost that one more bit of budget saves, from the linear relaxation: the shadow price. Zero
    /// where the budget is more than enough. Constraints that join modules do not enter it.
    pub price: f64,
    /// Every option of the module, in order of growing size.
    pub options: Vec<Alternative>,
}

/// One option of the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// The format.
    pub format: Format,
    /// Size of the module, together with those tied to it, in bits.
    pub bits: u64,
    /// Cost of the same.
    pub cost: f64,
    /// Whether the plan has it.
    pub chosen: bool,
    /// Cost per bit of what lies between the next narrower option and this one; `None` for the
    /// narrowest one. The plan goes on to wider options while this is above the price.
    pub gain_per_bit: Option<f64>,
    /// The best plan with this option; `None` where rules or the budget do not permit any.
    pub forced: Option<Forced>,
}

/// The best plan with an option that is forced upon it, compared with the plan as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Forced {
    /// Cost above that of the plan.
    pub cost: f64,
    /// Size above that of the plan, in bits.
    pub bits: i64,
    /// Modules that change besides this one and those tied to it, in model order: name, present
    /// format, then format.
    pub moves: Vec<(ModuleName, Format, Format)>,
}

impl Problem<'_> {
    /// Why `plan`, which this problem led to, gives `module` its format.
    ///
    /// # Errors
    /// [`ProjectError::UnknownModule`], [`ProjectError::ForeignPlan`] and
    /// [`ProjectError::IncompletePlan`] if module or plan do not belong to the table; else as
    /// [`solve`](Self::solve).
    pub fn explain(
        &self,
        plan: &Plan,
        module: &ModuleName,
        limits: &Limits,
    ) -> Result<Explanation, ProjectError> {
        let program = Program::new(self)?;
        let modules = program.table.modules();
        let name = |&member: &u32| modules[member as usize].name.clone();
        let unknown =
            || ProjectError::UnknownModule { module: module.clone(), similar: self.similar(module) };
        let at = modules.iter().position(|own| own.name == *module).ok_or_else(unknown)?;
        let chosen = plan.choice(module).ok_or_else(unknown)?;
        let group = program.units.group_of(at);
        let members = program.units.members(group);
        if let Some(choice) = plan.choices().iter().find(|choice| !offers(&program, choice)) {
            return Err(ProjectError::ForeignPlan {
                module: choice.name.clone(),
                format: choice.format.clone(),
            });
        }

        let planned: HashSet<_> = plan.choices().iter().map(|choice| &choice.name).collect();
        if let Some(missing) = modules.iter().find(|module| !planned.contains(&module.name)) {
            return Err(ProjectError::IncompletePlan { module: missing.name.clone() });
        }

        let sizes = |format: &Format| {
            let own = members.iter().map(|&member| &modules[member as usize]).filter_map(|module| {
                let option = module.options.iter().find(|option| option.format == *format)?;
                Some((program.limit.measure.of(option, module.weights()), option.cost))
            });
            own.fold((0, 0.0), |sum, own| (sum.0 + own.0, sum.1 + own.1))
        };
        let mut options: Vec<Alternative> = Vec::new();
        for option in &modules[at].options {
            let format = option.format.clone();
            let (bits, cost) = sizes(&format);
            let gain_per_bit = options.last().and_then(|narrower| {
                let more = bits.checked_sub(narrower.bits).filter(|&more| more > 0)?;
                Some((narrower.cost - cost) / more as f64)
            });
            let mut forced = self.forced(plan, module, &format, limits)?;
            if let Some(forced) = &mut forced {
                forced.moves.retain(|(moved, ..)| members.iter().all(|member| name(member) != *moved));
            }
            let chosen = format == chosen.format;
            options.push(Alternative { format, bits, cost, chosen, gain_per_bit, forced });
        }
        let names = |rule: &&crate::Rule| rule.pattern().is_some_and(|pattern| pattern.matches(module));
        Ok(Explanation {
            module: module.clone(),
            tied: members.iter().map(name).filter(|member| member != module).collect(),
            rules: self.rules.iter().filter(names).map(ToString::to_string).collect(),
            price: knapsack::price(&program.instance, program.limit.bits),
            options,
        })
    }

    /// The best plan with `format` for `module`, compared with `plan`.
    fn forced(
        &self,
        plan: &Plan,
        module: &ModuleName,
        format: &Format,
        limits: &Limits,
    ) -> Result<Option<Forced>, ProjectError> {
        let mut problem = self.clone();
        problem.forced = Some((module.clone(), format.clone()));
        // Without the option, or without a budget for it, there is nothing to compare.
        let Ok(program) = Program::new(&problem) else { return Ok(None) };
        let Some(found) = solve::best(&program, self.kind, limits)? else { return Ok(None) };
        let other = solve::certified(&program, &found);
        // The plan may list its modules in another order.
        let former: HashMap<_, _> =
            plan.choices().iter().map(|choice| (&choice.name, &choice.format)).collect();
        let bits = |plan: &Plan| plan.size(program.limit.measure).cast_signed();
        let moves = other.choices().iter().map(|own| (&own.name, former[&own.name], &own.format));
        let moves = moves.filter(|(_, from, to)| from != to);
        Ok(Some(Forced {
            cost: other.cost() - plan.cost(),
            bits: bits(&other) - bits(plan),
            moves: moves.map(|(name, from, to)| (name.clone(), from.clone(), to.clone())).collect(),
        }))
    }

    /// A module whose name ends like `name`, for error messages.
    fn similar(&self, name: &ModuleName) -> Option<ModuleName> {
        let all = || self.table.modules().iter().map(|module| &module.name);
        // An excluded module would be suggested for itself.
        let names = || all().filter(|own| !self.excludes(own));
        let close = |other: &&ModuleName| other.as_str().contains(name.as_str());
        names().find(close).or_else(|| names().find(|other| other.role() == name.role())).cloned()
    }
}

/// Whether the choice is one of the allocated modules and of its options.
fn offers(program: &Program<'_>, choice: &gamma_core::Choice) -> bool {
    let module = program.table.modules().iter().find(|module| module.name == choice.name);
    module.is_some_and(|module| module.options.iter().any(|option| option.format == choice.format))
}
