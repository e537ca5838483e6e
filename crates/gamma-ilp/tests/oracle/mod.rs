//! Every plan of a small table, and which of them obey the laws: written without a look at how the
//! crate does it.
#![allow(dead_code, reason = "every test file uses another part")]

pub mod draw;

use std::collections::BTreeSet;

use gamma_core::{Budget, Format, Measure, ModuleName, Plan, Remainder, ScoreKind, ScoreTable};
use gamma_ilp::{Change, Problem};

use crate::random::{Random, formats};

/// A set of modules.
#[derive(Clone, Debug)]
pub enum Target {
    All,
    Role(String),
    Block(u64),
    Name(String),
    Roles(String, String),
}

impl Target {
    pub fn contains(&self, name: &ModuleName) -> bool {
        let name = name.as_str();
        let ends = |role: &str| name.split('.').next_back() == Some(role);
        match self {
            Self::All => true,
            Self::Role(role) => ends(role),
            Self::Block(block) => name.split('.').nth(2) == Some(block.to_string().as_str()),
            Self::Name(own) => name == own,
            Self::Roles(a, b) => ends(a) || ends(b),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::Role(role) => format!("*.{role}"),
            Self::Block(block) => format!("model.layers.{block}.*"),
            Self::Name(name) => name.clone(),
            Self::Roles(a, b) => format!("re:.*\\.({a}|{b})"),
        }
    }
}

/// Options by bit-width or by format.
#[derive(Clone, Debug)]
pub enum Kind {
    Bits(u8),
    Format(Format),
}

impl Kind {
    fn text(&self) -> String {
        match self {
            Self::Bits(bits) => bits.to_string(),
            Self::Format(format) => format.to_string(),
        }
    }

    fn is(&self, format: &Format) -> bool {
        match self {
            Self::Bits(bits) => format.bits().bits() == *bits,
            Self::Format(own) => own == format,
        }
    }
}

/// What a plan must obey besides its budget.
#[derive(Clone, Debug)]
pub enum Law {
    TieEngine(&'static str),
    Tie(Target),
    Pin(Target, Kind),
    Min(Target, Kind),
    Max(Target, Kind),
    Exclude(Target),
    Bytes(Target, u64),
    Modules(Kind, usize),
    Formats(usize),
    /// Coefficients in quarters, module by module and option by option, so that sums are exact.
    Linear {
        name: String,
        quarters: Vec<Vec<i64>>,
        bounds: (Option<i64>, Option<i64>),
    },
    NearModules(Vec<Option<Format>>, usize),
    NearBytes(Vec<Option<Format>>, u64),
}

impl Law {
    /// Names the law in errors.
    pub fn label(&self) -> String {
        match self {
            Self::TieEngine(engine) => format!("tie {engine}"),
            Self::Tie(target) => format!("tie {}", target.text()),
            Self::Pin(target, kind) => format!("pin {} {}", target.text(), kind.text()),
            Self::Min(target, kind) => format!("min {} {}", target.text(), kind.text()),
            Self::Max(target, kind) => format!("max {} {}", target.text(), kind.text()),
            Self::Exclude(target) => format!("exclude {}", target.text()),
            Self::Bytes(target, bytes) => format!("bytes {} {bytes}", target.text()),
            Self::Modules(kind, count) => format!("modules {} {count}", kind.text()),
            Self::Formats(count) => format!("formats {count}"),
            Self::Linear { name, .. } => name.clone(),
            Self::NearModules(_, count) => format!("near: at most {count} modules change"),
            Self::NearBytes(_, bytes) => format!("near: at most {bytes} bytes change"),
        }
    }

    /// Whether it joins modules other than by making them one.
    pub fn is_row(&self) -> bool {
        !matches!(
            self,
            Self::TieEngine(_)
                | Self::Tie(_)
                | Self::Pin(..)
                | Self::Min(..)
                | Self::Max(..)
                | Self::Exclude(_)
        )
    }

    /// The modules whose options the law decides over one by one.
    fn restricted(&self) -> Option<&Target> {
        match self {
            Self::Pin(target, _) | Self::Min(target, _) | Self::Max(target, _) | Self::Exclude(target) => {
                Some(target)
            }
            _ => None,
        }
    }
}

/// A problem as the tests state it.
#[derive(Clone, Debug)]
pub struct Case {
    pub table: ScoreTable,
    pub kind: ScoreKind,
    pub budget: Budget,
    pub remainder: Option<Remainder>,
    pub laws: Vec<Law>,
}

impl Case {
    pub fn problem(&self) -> Problem<'_> {
        let mut problem =
            Problem::new(&self.table, self.kind, self.budget).remainder(self.remainder.as_ref());
        for law in &self.laws {
            problem = match law {
                Law::Linear { name, quarters, bounds } => {
                    let coefficient =
                        |module: &gamma_core::ModuleScores, option: &gamma_core::ScoredOption| {
                            let own = self
                                .table
                                .modules()
                                .iter()
                                .position(|m| m.name == module.name)
                                .expect("of the table");
                            let place = module
                                .options
                                .iter()
                                .position(|o| o.format == option.format)
                                .expect("of the module");
                            quarters[own][place] as f64 / 4.0
                        };
                    let [low, high] = [bounds.0, bounds.1].map(|end| end.map(|end| end as f64 / 4.0));
                    match (low, high) {
                        (Some(low), Some(high)) => problem.linear(name, low..=high, coefficient),
                        (Some(low), None) => problem.linear(name, low.., coefficient),
                        (None, Some(high)) => problem.linear(name, ..=high, coefficient),
                        (None, None) => problem.linear(name, .., coefficient),
                    }
                }
                Law::NearModules(former, count) => {
                    problem.near(&self.former(former), Change::Modules(*count))
                }
                Law::NearBytes(former, bytes) => problem.near(&self.former(former), Change::Bytes(*bytes)),
                rule => problem.rule(rule.label().parse().expect("a rule")),
            };
        }
        problem
    }

    /// A plan that may lack modules.
    fn former(&self, formats: &[Option<Format>]) -> Plan {
        let modules = self.table.modules().iter().zip(formats);
        let kept: Vec<_> = modules
            .filter_map(|(module, format)| {
                let mut module = module.clone();
                let format = format.clone()?;
                module.options.retain(|option| option.format == format);
                Some(module)
            })
            .collect();
        let picks = vec![0; kept.len()];
        Plan::from_picks(&ScoreTable::new(kept).expect("a plan of one module"), &picks, None)
            .expect("one pick per module")
    }

    pub fn measure(&self) -> Measure {
        match self.budget {
            Budget::CodeBitsPerWeight(_) => Measure::CodeBits,
            _ => Measure::StoredBits,
        }
    }

    /// The allocated modules, as positions in the table.
    pub fn kept(&self) -> Vec<usize> {
        let excluded = |name: &ModuleName| {
            self.laws.iter().any(|law| matches!(law, Law::Exclude(target) if target.contains(name)))
        };
        (0..self.table.modules().len()).filter(|&m| !excluded(&self.table.modules()[m].name)).collect()
    }

    /// Modules that share a format, as positions in the table; groups of one as well.
    pub fn ties(&self) -> Vec<Vec<usize>> {
        let names: Vec<_> = self.table.modules().iter().map(|module| &module.name).collect();
        let mut group: Vec<usize> = (0..names.len()).collect();
        for law in &self.laws {
            for a in 0..names.len() {
                for b in a + 1..names.len() {
                    if tied(law, names[a], names[b]) {
                        let (from, to) = (group[b], group[a]);
                        group.iter_mut().filter(|own| **own == from).for_each(|own| *own = to);
                    }
                }
            }
        }
        let heads: BTreeSet<usize> = group.iter().copied().collect();
        heads.iter().map(|head| (0..names.len()).filter(|&m| group[m] == *head).collect()).collect()
    }

    /// Whether a rule matches one of two tied modules and not the other.
    pub fn cuts(&self) -> bool {
        let name = |module: usize| &self.table.modules()[module].name;
        self.ties().iter().any(|tie| {
            self.laws.iter().filter_map(Law::restricted).any(|target| {
                let inside = tie.iter().filter(|&&module| target.contains(name(module))).count();
                inside > 0 && inside < tie.len()
            })
        })
    }

    /// Whether the laws leave this option of this module.
    pub fn allows(&self, module: usize, option: usize) -> bool {
        let own = &self.table.modules()[module];
        let option = &own.options[option];
        let stored =
            |format: &Format| own.options.iter().find(|o| o.format == *format).map(|o| o.stored_bits);
        self.laws.iter().filter(|law| law.restricted().is_some_and(|target| target.contains(&own.name))).all(
            |law| match law {
                Law::Pin(_, kind) => kind.is(&option.format),
                Law::Min(_, Kind::Bits(bits)) => option.format.bits().bits() >= *bits,
                Law::Max(_, Kind::Bits(bits)) => option.format.bits().bits() <= *bits,
                Law::Min(_, Kind::Format(format)) => {
                    stored(format).is_none_or(|bits| option.stored_bits >= bits)
                }
                Law::Max(_, Kind::Format(format)) => {
                    stored(format).is_none_or(|bits| option.stored_bits <= bits)
                }
                _ => true,
            },
        )
    }

    /// Every plan that obeys the laws, whatever the budget.
    pub fn plans(&self) -> Vec<Found> {
        let kept = self.kept();
        let options: Vec<Vec<usize>> = kept
            .iter()
            .map(|&m| (0..self.table.modules()[m].options.len()).filter(|&o| self.allows(m, o)).collect())
            .collect();
        let ties: Vec<Vec<usize>> = self
            .ties()
            .iter()
            .map(|tie| tie.iter().filter_map(|m| kept.iter().position(|k| k == m)).collect::<Vec<_>>())
            .filter(|tie| !tie.is_empty())
            .collect();
        let rows: Vec<(&Law, Vec<bool>)> = self
            .laws
            .iter()
            .filter(|law| law.is_row())
            .map(|law| {
                let inside = |&m: &usize| match law {
                    Law::Bytes(target, _) => target.contains(&self.table.modules()[m].name),
                    _ => true,
                };
                (law, kept.iter().map(inside).collect())
            })
            .collect();
        let mut plans = Vec::new();
        let mut picks = vec![0; kept.len()];
        if options.iter().any(Vec::is_empty) || kept.is_empty() {
            return plans;
        }
        let mut places = vec![0; kept.len()];
        loop {
            for (pick, (own, &place)) in picks.iter_mut().zip(options.iter().zip(&places)) {
                *pick = own[place];
            }
            let format = |k: usize| &self.table.modules()[kept[k]].options[picks[k]].format;
            let together = ties.iter().all(|tie| tie.iter().all(|&k| *format(k) == *format(tie[0])));
            if together && rows.iter().all(|(law, inside)| self.obeys(law, inside, &kept, &picks)) {
                plans.push(self.found(&kept, &picks, &ties));
            }
            let Some(next) = (0..kept.len()).find(|&k| places[k] + 1 < options[k].len()) else { break };
            places[next] += 1;
            places[..next].fill(0);
        }
        plans
    }

    fn obeys(&self, law: &Law, inside: &[bool], kept: &[usize], picks: &[usize]) -> bool {
        let chosen = || {
            let own = kept.iter().zip(picks);
            own.map(|(&m, &pick)| (m, pick, &self.table.modules()[m].options[pick]))
        };
        match law {
            Law::Bytes(_, bytes) => {
                let bits = chosen().zip(inside).filter(|(_, inside)| **inside);
                bits.map(|((_, _, option), _)| u128::from(option.stored_bits)).sum::<u128>()
                    <= 8 * u128::from(*bytes)
            }
            Law::Modules(kind, count) => chosen().filter(|(_, _, o)| kind.is(&o.format)).count() <= *count,
            Law::Formats(count) => {
                let formats: BTreeSet<_> = chosen().map(|(_, _, option)| &option.format).collect();
                formats.len() <= *count
            }
            Law::Linear { quarters, bounds, .. } => {
                let sum: i64 = chosen().map(|(m, pick, _)| quarters[m][pick]).sum();
                bounds.0.is_none_or(|low| sum >= low) && bounds.1.is_none_or(|high| sum <= high)
            }
            Law::NearModules(former, count) => {
                chosen().filter(|(m, _, o)| former[*m].as_ref() != Some(&o.format)).count() <= *count
            }
            Law::NearBytes(former, bytes) => {
                let changed = chosen().filter(|(m, _, o)| former[*m].as_ref() != Some(&o.format));
                changed.map(|(_, _, o)| u128::from(o.stored_bits)).sum::<u128>() <= 8 * u128::from(*bytes)
            }
            _ => true,
        }
    }

    fn found(&self, kept: &[usize], picks: &[usize], ties: &[Vec<usize>]) -> Found {
        let option = |k: usize| &self.table.modules()[kept[k]].options[picks[k]];
        let weights = |k: usize| self.table.modules()[kept[k]].weights();
        // Costs of tied modules are added up, and rounded, before they are compared.
        let cost = ties
            .iter()
            .map(|tie| exact(tie.iter().map(|&k| option(k).cost).reduce(|a, b| a + b).expect("a member")));
        let size = (0..kept.len()).map(|k| match self.measure() {
            Measure::StoredBits => option(k).stored_bits,
            Measure::CodeBits => u64::from(option(k).format.bits().bits()) * weights(k),
        });
        let magnitude = (0..kept.len()).map(|k| option(k).cost.abs()).sum();
        Found { picks: picks.to_vec(), cost: cost.sum(), size: size.sum(), magnitude }
    }

    /// The plan among `plans`, where it is one of them.
    pub fn place<'a>(&self, plan: &Plan, plans: &'a [Found]) -> Option<&'a Found> {
        let kept = self.kept();
        assert_eq!(plan.choices().len(), kept.len());
        let pick = |(&m, choice): (&usize, &gamma_core::Choice)| {
            let module = &self.table.modules()[m];
            assert_eq!((&choice.name, choice.shape), (&module.name, module.shape));
            module.options.iter().position(|option| option.format == choice.format).expect("an option")
        };
        let picks: Vec<usize> = kept.iter().zip(plan.choices()).map(pick).collect();
        plans.iter().find(|found| found.picks == picks)
    }

    /// Where plans must begin that fill `limit`: the window is as wide as the smallest step of a
    /// group and doubles until a plan lies in it.
    pub fn floor(&self, plans: &[Found], limit: u64) -> u64 {
        if self.kind == ScoreKind::Loss {
            return 0;
        }
        // Without the laws that join groups.
        let free =
            Self { laws: self.laws.iter().filter(|law| !law.is_row()).cloned().collect(), ..self.clone() };
        let all = free.plans();
        let ceiling = limit.min(all.iter().map(|plan| plan.size).max().expect("a plan"));
        let kept = self.kept();
        let step = self.ties().into_iter().filter_map(|tie| {
            let own: Vec<usize> = tie.iter().filter_map(|m| kept.iter().position(|k| k == m)).collect();
            let sizes: BTreeSet<u64> =
                all.iter().map(|plan| own.iter().map(|&k| self.size(kept[k], plan.picks[k])).sum()).collect();
            let sizes: Vec<u64> = sizes.into_iter().collect();
            sizes.windows(2).map(|pair| pair[1] - pair[0]).min()
        });
        let Some(mut width) = step.min() else { return 0 };
        loop {
            let floor = ceiling.saturating_sub(width);
            if floor == 0 || plans.iter().any(|plan| (floor..=ceiling).contains(&plan.size)) {
                return floor;
            }
            width *= 2;
        }
    }

    pub fn size(&self, module: usize, pick: usize) -> u64 {
        let module = &self.table.modules()[module];
        self.measure().of(&module.options[pick], module.weights())
    }

    /// Whether there is a plan under these of the laws, whatever the budget.
    pub fn feasible(&self, laws: &[usize]) -> bool {
        let laws = laws.iter().map(|&law| self.laws[law].clone()).collect();
        !Self { laws, ..self.clone() }.plans().is_empty()
    }
}

fn tied(law: &Law, a: &ModuleName, b: &ModuleName) -> bool {
    fn split(name: &ModuleName) -> (&str, &str, Option<&str>) {
        let text = name.as_str();
        let dot = text.rfind('.').expect("a path");
        (&text[..dot], &text[dot + 1..], text.find(".experts.").map(|at| &text[..at]))
    }
    let ((parent_a, role_a, block_a), (parent_b, role_b, block_b)) = (split(a), split(b));
    let experts = block_a.is_some() && block_a == block_b;
    match law {
        Law::Tie(target) => {
            let block = |name: &ModuleName| name.as_str().split('.').nth(2).map(str::to_owned);
            target.contains(a) && target.contains(b) && block(a) == block(b)
        }
        Law::TieEngine("vllm" | "sglang" | "tensorrt-llm") => {
            let fused = |roles: &[&str]| roles.contains(&role_a) && roles.contains(&role_b);
            let kernel = fused(&["q_proj", "k_proj", "v_proj"]) || fused(&["gate_proj", "up_proj"]);
            experts || (block_a.is_none() && parent_a == parent_b && kernel)
        }
        Law::TieEngine(_) => experts && role_a == role_b,
        _ => false,
    }
}

/// A plan, module by module of the allocated ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub picks: Vec<usize>,
    /// In units of 2^-40.
    pub cost: i128,
    pub size: u64,
    /// Sum of absolute costs.
    pub magnitude: f64,
}

/// A cost of the generators, which are multiples of 2^-40, as an integer.
pub fn exact(cost: f64) -> i128 {
    let scaled = cost * 2_f64.powi(40);
    assert!(scaled.fract().abs() <= 0.0 && scaled.abs() < 1e32, "{cost} is no test cost");
    scaled as i128
}

pub fn value(cost: i128) -> f64 {
    cost as f64 / 2_f64.powi(40)
}

/// A line per module, so that a failure can be read.
impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?} within {:?}", self.kind, self.budget)?;
        for module in self.table.modules() {
            write!(f, "  {} {:?}:", module.name, module.shape)?;
            for option in &module.options {
                write!(f, " {}={} bits, {:?};", option.format, option.stored_bits, option.cost)?;
            }
            writeln!(f)?;
        }
        for law in &self.laws {
            write!(f, "  {}", law.label())?;
            match law {
                Law::Linear { quarters, bounds, .. } => writeln!(f, ": {quarters:?} / 4 in {bounds:?} / 4")?,
                Law::NearModules(former, _) | Law::NearBytes(former, _) => writeln!(f, ": {former:?}")?,
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}
