//! From modules, options and rules to groups, items and rows.

use std::{borrow::Cow, collections::BTreeSet};

use gamma_core::{BudgetError, Format, Limit, Measure, ModuleName, ScoreTable};

use crate::{
    Instance, Problem, ProjectError, Rule,
    instance::Item,
    row::{Distinct, Joints, Row},
};

/// A problem that is ready for a solver.
#[derive(Debug)]
pub(crate) struct Program<'p> {
    /// The allocated modules.
    pub(crate) table: Cow<'p, ScoreTable>,
    pub(crate) limit: Limit,
    /// Bytes by which what no plan changes exceeds the budget already.
    pub(crate) overdraft: u64,
    pub(crate) instance: Instance,
    pub(crate) units: Units,
    pub(crate) joints: Joints,
}

/// Which modules the groups of an instance stand for, and which options its items.
#[derive(Debug, Default)]
pub(crate) struct Units {
    /// Positions of modules in the table, group by group.
    members: Vec<u32>,
    /// Where each group's members begin, and the end.
    starts: Vec<u32>,
    /// Positions of options, one per member, item by item.
    picks: Vec<u32>,
    /// Where the picks of each group's first item begin.
    pick_starts: Vec<u32>,
}

impl Units {
    pub(crate) fn members(&self, group: usize) -> &[u32] {
        &self.members[self.starts[group] as usize..self.starts[group + 1] as usize]
    }

    /// The member's options at the item.
    pub(crate) fn picks(&self, group: usize, place: usize) -> &[u32] {
        let width = self.members(group).len();
        let start = self.pick_starts[group] as usize + place * width;
        &self.picks[start..start + width]
    }

    /// The group that a module belongs to.
    pub(crate) fn group_of(&self, module: usize) -> usize {
        (0..self.starts.len() - 1)
            .find(|&group| self.members(group).contains(&(module as u32)))
            .expect("every module is in a group")
    }

    /// One option per module from one item per group.
    pub(crate) fn expand(&self, places: &[usize]) -> Vec<usize> {
        let mut picks = vec![0; self.members.len()];
        for (group, &place) in places.iter().enumerate() {
            for (&member, &pick) in self.members(group).iter().zip(self.picks(group, place)) {
                picks[member as usize] = pick as usize;
            }
        }
        picks
    }

    /// Adds a group; `picks` are one per member, item by item.
    fn push(&mut self, members: &[usize], picks: &[u32]) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.members.extend(members.iter().map(|&member| member as u32));
        self.starts.push(self.members.len() as u32);
        self.pick_starts.push(self.picks.len() as u32);
        self.picks.extend(picks);
    }
}

impl<'p> Program<'p> {
    /// Applies the rules of `problem`.
    pub(crate) fn new(problem: &'p Problem<'_>) -> Result<Self, ProjectError> {
        check_matches(problem)?;
        let full = problem.table;
        let names: Vec<&ModuleName> = full.modules().iter().map(|module| &module.name).collect();
        let groups = tied(problem, &names);
        for group in groups.iter().filter(|group| group.len() > 1) {
            check_cuts(problem, group, &names)?;
        }
        let excluded = |at: usize| problem.excludes(names[at]);
        let kept: Vec<usize> = (0..names.len()).filter(|&at| !excluded(at)).collect();
        let table = if kept.len() == names.len() {
            Cow::Borrowed(full)
        } else {
            let modules = kept.iter().map(|&at| full.modules()[at].clone()).collect();
            Cow::Owned(ScoreTable::new(modules).map_err(|_| ProjectError::AllExcluded)?)
        };
        let remainder = problem.remainder_with_excluded();
        let (limit, overdraft) = match problem.budget.limit(&table, remainder.as_ref()) {
            Ok(limit) => (limit, 0),
            Err(BudgetError::BelowFixed { bytes, fixed }) => {
                (Limit { measure: Measure::StoredBits, bits: 0 }, fixed.total() - bytes)
            }
            Err(error) => return Err(error.into()),
        };

        let mut program = Self {
            table,
            limit,
            overdraft,
            instance: Instance::with_capacity(kept.len(), kept.len() * full.modules()[0].options.len()),
            units: Units::default(),
            joints: Joints::default(),
        };
        let position = |at: &usize| kept.binary_search(at).ok();
        for group in groups {
            let members: Vec<usize> = group.iter().filter_map(position).collect();
            match members[..] {
                [] => {}
                [member] if problem.is_free(&program.table.modules()[member].name) => {
                    program.add_module(member);
                }
                _ => program.add_group(problem, &members)?,
            }
        }
        program.add_rows(problem, &kept)?;
        Ok(program)
    }

    /// Adds all options of a module that nothing restricts.
    fn add_module(&mut self, member: usize) {
        let (module, measure) = (&self.table.modules()[member], self.limit.measure);
        let size = |pick: u32| measure.of(&module.options[pick as usize], module.weights());
        let mut picks: Vec<u32> = (0..module.options.len() as u32).collect();
        if measure != Measure::StoredBits {
            picks.sort_by_key(|&pick| size(pick));
        }
        let cost = |pick: u32| module.options[pick as usize].cost;
        self.instance.push(picks.iter().map(|&pick| Item { size: size(pick), cost: cost(pick) }));
        self.units.push(&[member], &picks);
    }

    /// Adds the items that all members of a group may take.
    fn add_group(&mut self, problem: &Problem<'_>, members: &[usize]) -> Result<(), ProjectError> {
        let modules = self.table.modules();
        let allowed = |member: usize| -> Vec<u32> {
            let module = &modules[member];
            let rules = problem.rules.iter().filter(|rule| rule.restricts());
            let own: Vec<_> =
                rules.filter(|rule| rule.pattern().is_some_and(|p| p.matches(&module.name))).collect();
            let forced = problem
                .forced
                .as_ref()
                .filter(|(name, _)| members.iter().any(|&member| modules[member].name == *name));
            let fits = |pick: &usize| {
                forced.is_none_or(|(_, format)| module.options[*pick].format == *format)
                    && own.iter().all(|rule| rule.allows(&module.options[*pick], &module.options))
            };
            (0..module.options.len()).filter(fits).map(|pick| pick as u32).collect()
        };
        let mut items: Vec<Vec<u32>> = allowed(members[0]).into_iter().map(|pick| vec![pick]).collect();
        if items.is_empty() {
            return Err(no_option(problem, &modules[members[0]]));
        }
        for &member in &members[1..] {
            let own = allowed(member);
            if own.is_empty() {
                return Err(no_option(problem, &modules[member]));
            }
            items.retain_mut(|picks| {
                let format = &modules[members[0]].options[picks[0] as usize].format;
                let twin = own.iter().find(|&&pick| modules[member].options[pick as usize].format == *format);
                picks.extend(twin);
                twin.is_some()
            });
        }
        if items.is_empty() {
            let names = members.iter().map(|&member| modules[member].name.clone()).collect();
            return Err(ProjectError::NothingInCommon { modules: names });
        }
        let measure = self.limit.measure;
        let sum = |picks: &Vec<u32>| {
            let own = members.iter().zip(picks).map(|(&member, &pick)| {
                let module = &modules[member];
                let option = &module.options[pick as usize];
                (measure.of(option, module.weights()), option.cost)
            });
            own.reduce(|a, b| (a.0 + b.0, a.1 + b.1)).expect("a group has members")
        };
        let mut sized: Vec<_> = items.into_iter().map(|picks| (sum(&picks), picks)).collect();
        sized.sort_by_key(|&((size, _), _)| size);
        self.instance.push(sized.iter().map(|&((size, cost), _)| Item { size, cost }));
        let picks: Vec<u32> = sized.into_iter().flat_map(|(_, picks)| picks).collect();
        self.units.push(members, &picks);
        Ok(())
    }

    /// Adds what joins the groups. `kept` are positions of this program's modules in the problem's
    /// table.
    fn add_rows(&mut self, problem: &Problem<'_>, kept: &[usize]) -> Result<(), ProjectError> {
        let mut rows = Vec::new();
        for rule in &problem.rules {
            let modules = self.table.modules();
            match rule {
                Rule::Bytes { modules: pattern, at_most } => {
                    let bits = |module: usize, pick: usize| match &modules[module] {
                        module if pattern.matches(&module.name) => module.options[pick].stored_bits as f64,
                        _ => 0.0,
                    };
                    let most = at_most.saturating_mul(8) as f64;
                    rows.push(self.row(rule.to_string(), (f64::NEG_INFINITY, most), bits)?);
                }
                Rule::Modules { option, at_most } => {
                    let count = |module: usize, pick: usize| {
                        f64::from(u8::from(option.matches(&modules[module].options[pick])))
                    };
                    let most = *at_most as f64;
                    rows.push(self.row(rule.to_string(), (f64::NEG_INFINITY, most), count)?);
                }
                Rule::Formats { at_most } => self.limit_formats(rule.to_string(), *at_most),
                _ => {}
            }
        }
        for linear in &problem.linear {
            let coefficient = |module: usize, pick: usize| linear.coefficients[kept[module]][pick];
            rows.push(self.row(linear.label.clone(), linear.bounds, coefficient)?);
        }
        self.joints.rows = rows;
        Ok(())
    }

    /// A row whose coefficients are sums over the members of a group.
    fn row(
        &self,
        label: String,
        bounds: (f64, f64),
        coefficient: impl Fn(usize, usize) -> f64,
    ) -> Result<Row, ProjectError> {
        let mut coefficients = Vec::with_capacity(self.instance.n_items());
        for (group, items) in self.instance.groups().enumerate() {
            let members = self.units.members(group);
            for place in 0..items.len() {
                let picks = self.units.picks(group, place);
                let own = members.iter().zip(picks).map(|(&m, &pick)| coefficient(m as usize, pick as usize));
                coefficients.push(own.sum());
            }
        }
        Row::new(label, coefficients, bounds)
    }

    fn limit_formats(&mut self, label: String, at_most: usize) {
        let modules = self.table.modules();
        let format = |group: usize, place: usize| {
            let (member, pick) = (self.units.members(group)[0], self.units.picks(group, place)[0]);
            &modules[member as usize].options[pick as usize].format
        };
        let places =
            || (0..self.instance.len()).flat_map(|g| (0..self.instance.group(g).len()).map(move |p| (g, p)));
        let all: BTreeSet<&Format> = places().map(|(group, place)| format(group, place)).collect();
        let all: Vec<&Format> = all.into_iter().collect();
        let number =
            |(group, place)| all.binary_search(&format(group, place)).expect("collected above") as u32;
        let formats = places().map(number).collect();
        let own = Distinct { label, at_most, count: all.len(), formats };
        // Of several such rules the strictest counts.
        if self.joints.distinct.as_ref().is_none_or(|known| own.at_most < known.at_most) {
            self.joints.distinct = Some(own);
        }
    }
}

/// Refuses patterns that match nothing.
fn check_matches(problem: &Problem<'_>) -> Result<(), ProjectError> {
    for rule in &problem.rules {
        if let Some(pattern) = rule.pattern()
            && !problem.table.modules().iter().any(|module| pattern.matches(&module.name))
        {
            let examples = problem.table.modules().iter().take(2).map(|module| module.name.clone()).collect();
            return Err(ProjectError::NoMatch { rule: rule.to_string(), examples });
        }
    }
    Ok(())
}

/// All modules in groups that share a format, in order of their first members.
fn tied(problem: &Problem<'_>, names: &[&ModuleName]) -> Vec<Vec<usize>> {
    // The first member of each module's group; groups of several rules may overlap.
    let mut first: Vec<usize> = (0..names.len()).collect();
    for rule in &problem.rules {
        let Rule::Tie(ties) = rule else { continue };
        for group in ties.groups(names) {
            let heads: Vec<usize> = group.iter().map(|&member| first[member]).collect();
            let head = heads.iter().copied().min().unwrap_or(0);
            for own in &mut first {
                if heads.contains(own) {
                    *own = head;
                }
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); names.len()];
    for (member, &head) in first.iter().enumerate() {
        groups[head].push(member);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Refuses rules that treat tied modules differently.
fn check_cuts(problem: &Problem<'_>, group: &[usize], names: &[&ModuleName]) -> Result<(), ProjectError> {
    for rule in problem.rules.iter().filter(|rule| rule.restricts()) {
        let Some(pattern) = rule.pattern() else { continue };
        let (matched, missed): (Vec<_>, Vec<_>) = group.iter().partition(|&&at| pattern.matches(names[at]));
        if let (Some(&&matched), Some(&&missed)) = (matched.first(), missed.first()) {
            let (matched, missed) = (names[matched].clone(), names[missed].clone());
            return Err(ProjectError::TieCut { rule: rule.to_string(), matched, missed });
        }
    }
    Ok(())
}

fn no_option(problem: &Problem<'_>, module: &gamma_core::ModuleScores) -> ProjectError {
    let restricting = problem.rules.iter().filter(|rule| {
        rule.restricts() && rule.pattern().is_some_and(|pattern| pattern.matches(&module.name))
    });
    ProjectError::NoOption {
        module: module.name.clone(),
        rules: restricting.map(ToString::to_string).collect(),
        offered: module.options.iter().map(|option| option.format.clone()).collect(),
    }
}
