//! Why there is no plan.

use std::fmt::Write as _;

use gamma_core::{BudgetError, Format, ModuleName};

/// Why a projection fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// The budget is no number, or what no plan changes exceeds it.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// No plan fits the budget.
    #[error(
        "the budget leaves {} bytes for the allocated modules, and the smallest plan needs {} ({minimum_per_weight:.4} \
         bits per weight); a budget {missing_bytes} bytes larger would do{}",
        limit_bits / 8, minimum_bits.div_ceil(8), holding(held)
    )]
    BelowMinimum {
        /// What the budget leaves for the allocated modules, in bits.
        limit_bits: u64,
        /// What every plan needs at least.
        minimum_bits: u64,
        /// How much larger the budget must be, in bytes.
        missing_bytes: u64,
        /// The minimum per weight of the allocated modules.
        minimum_per_weight: f64,
        /// The constraints without which a smaller plan would do, the most expensive first.
        held: Vec<Held>,
    },
    /// Constraints that no plan obeys, whatever the budget.
    #[error("no plan obeys all of {}, whatever the budget", quoted(constraints))]
    Contradiction {
        /// A smallest set of constraints that contradict each other.
        constraints: Vec<String>,
    },
    /// A pattern that matches no module.
    #[error("`{rule}` matches no module; the modules have names such as {}", quoted(examples))]
    NoMatch {
        /// The rule.
        rule: String,
        /// Names of modules.
        examples: Vec<ModuleName>,
    },
    /// A rule that treats modules differently which must be stored alike.
    #[error("`{rule}` matches `{matched}` but not `{missed}`, and the two are tied: match both or none")]
    TieCut {
        /// The rule.
        rule: String,
        /// A module that it matches.
        matched: ModuleName,
        /// A module that is tied to it.
        missed: ModuleName,
    },
    /// Tied modules that no format suits.
    #[error("the tied modules {} have no option in common", quoted(modules))]
    NothingInCommon {
        /// The modules.
        modules: Vec<ModuleName>,
    },
    /// A module whose options the rules have used up.
    #[error("{} leave no option for `{module}`; it offers {}", quoted(rules), quoted(offered))]
    NoOption {
        /// The module.
        module: ModuleName,
        /// The rules that concern it.
        rules: Vec<String>,
        /// Its options.
        offered: Vec<Format>,
    },
    /// Rules that exclude everything.
    #[error("every module is excluded; there is nothing to allocate")]
    AllExcluded,
    /// A module that is not there to be explained.
    #[error("there is no allocated module `{module}`{}", similar.as_ref().map_or_else(String::new, |s| format!("; did you mean `{s}`?")))]
    UnknownModule {
        /// The name that was asked for.
        module: ModuleName,
        /// A name that is there.
        similar: Option<ModuleName>,
    },
    /// A plan that does not come from the score table.
    #[error("the plan has `{format}` for `{module}`, which is not among the allowed options")]
    ForeignPlan {
        /// The module.
        module: ModuleName,
        /// Its format in the plan.
        format: Format,
    },
    /// A plan that leaves out a module which is allocated.
    #[error("the plan has no format for `{module}`, which is to be allocated")]
    IncompletePlan {
        /// The module.
        module: ModuleName,
    },
    /// A coefficient or bound that cannot be compared.
    #[error("`{constraint}` has a coefficient or a bound that is not a number")]
    NotFinite {
        /// The constraint's label.
        constraint: String,
    },
    /// Constraints that only HiGHS can handle, in a build without it.
    #[error(
        "this build has no HiGHS{}; turn on the feature `highs`, or let `Solver::Knapsack` solve without \
         such constraints",
        needed_for(constraints)
    )]
    NoHighs {
        /// What needs it; empty where it was asked for by name.
        constraints: Vec<String>,
    },
    /// Constraints that the solver which was asked for cannot handle.
    #[error(
        "{} can join any modules, which a knapsack cannot: `Solver::Auto` and `Solver::Highs` obey it, a frontier \
         has no such points",
        quoted(constraints)
    )]
    NotAKnapsack {
        /// The constraints.
        constraints: Vec<String>,
    },
    /// The time ran out before there was any plan.
    #[error("HiGHS found no plan within {seconds} s; that does not mean that there is none")]
    TimeLimit {
        /// The limit.
        seconds: f64,
    },
    /// Sizes that HiGHS, which computes in `f64`, cannot tell apart.
    #[error(
        "the plans differ by up to {units} units of storage, HiGHS tells {most} apart; \
         let `Solver::Knapsack` solve"
    )]
    TooFine {
        /// Difference of the widest and the narrowest plan in units of the greatest common divisor.
        units: u64,
        /// The most that HiGHS can handle.
        most: u64,
    },
    /// HiGHS ended without a usable plan, and not for want of time.
    #[error("HiGHS gave no usable plan: {status}")]
    Highs {
        /// HiGHS's own word for what happened, or what is wrong with its plan.
        status: String,
    },
}

/// A constraint that makes the smallest plan larger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The rule, or the label of the linear constraint.
    pub constraint: String,
    /// How many bits closer to the budget the smallest plan would be without it.
    pub bits: u64,
}

fn holding(held: &[Held]) -> String {
    let mut text = String::new();
    for Held { constraint, bits } in held {
        _ = write!(text, "; without `{constraint}` it would be {} bytes less", bits.div_ceil(8));
    }
    text
}

fn quoted<T: std::fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 6;
    let mut words: Vec<String> = items.iter().take(SHOWN).map(|item| format!("`{item}`")).collect();
    if items.len() > SHOWN {
        words.push(format!("{} more", items.len() - SHOWN));
    }
    words.join(", ")
}

fn needed_for(constraints: &[String]) -> String {
    if constraints.is_empty() { String::new() } else { format!(", which {} need", quoted(constraints)) }
}
