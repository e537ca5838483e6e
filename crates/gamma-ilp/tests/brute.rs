//! Problems with constraints against trying every plan.

mod oracle;
mod random;

use std::collections::BTreeMap;

use gamma_core::{BudgetError, Limit, Plan, ScoreKind, ScoreTable};
use gamma_ilp::{Limits, ProjectError};
use oracle::{Case, Found, draw, exact, value};
use random::Random;

/// How often each outcome was met, so that a test can demand all of them.
type Tally = BTreeMap<&'static str, usize>;

/// The budget in bits, or the error that the case must lead to before any plan is looked at.
/// With it the bytes by which the rest of the model exceeds the budget already.
fn limit(case: &Case) -> Result<(Limit, u64), &'static str> {
    if case.cuts() {
        return Err("tie cut");
    }
    let kept = case.kept();
    let modules: Vec<_> = kept.iter().map(|&m| case.table.modules()[m].clone()).collect();
    let table = ScoreTable::new(modules).map_err(|_| "all excluded")?;
    let remainder = case.remainder.clone().map(|mut remainder| {
        let excluded = (0..case.table.modules().len()).filter(|m| !kept.contains(m));
        let weights: u64 = excluded.map(|m| case.table.modules()[m].weights()).sum();
        remainder.tensors[0].bytes += weights * u64::from(remainder.weight_bits) / 8;
        remainder
    });
    match case.budget.limit(&table, remainder.as_ref()) {
        Ok(limit) => Ok((limit, 0)),
        Err(BudgetError::BelowFixed { bytes, fixed }) => {
            Ok((Limit { measure: case.measure(), bits: 0 }, fixed.total() - bytes))
        }
        Err(_) => Err("budget"),
    }
}

/// Without a look at rows: whether some module, or some tie, has no option left.
fn no_option(case: &Case) -> Option<&'static str> {
    let kept = case.kept();
    let left = |m: usize| -> Vec<usize> {
        (0..case.table.modules()[m].options.len()).filter(|&o| case.allows(m, o)).collect()
    };
    if kept.iter().any(|&m| left(m).is_empty()) {
        return Some("no option");
    }
    let formats = |m: usize| left(m).into_iter().map(move |o| &case.table.modules()[m].options[o].format);
    let ties = case.ties();
    let mut ties = ties.iter().filter(|tie| kept.contains(&tie[0]));
    let apart = ties.any(|tie| !formats(tie[0]).any(|own| tie.iter().all(|&m| formats(m).any(|f| f == own))));
    apart.then_some("nothing in common")
}

fn outcome(result: &Result<Plan, ProjectError>) -> &'static str {
    match result {
        Ok(plan) if plan.certificate().expect("a proof").solver == "highs" => "plan by HiGHS",
        Ok(_) => "plan",
        Err(ProjectError::TieCut { .. }) => "tie cut",
        Err(ProjectError::AllExcluded) => "all excluded",
        Err(ProjectError::Budget(_)) => "budget",
        Err(ProjectError::NoOption { .. }) => "no option",
        Err(ProjectError::NothingInCommon { .. }) => "nothing in common",
        Err(ProjectError::Contradiction { .. }) => "contradiction",
        Err(ProjectError::BelowMinimum { .. }) => "below minimum",
        Err(error) => panic!("{error}"),
    }
}

/// Solves and compares; the outcome.
fn check(case: &Case) -> &'static str {
    let result = case.problem().solve(&Limits::default());
    let own = outcome(&result);
    let context = || format!("{result:?}\n{case}");
    let (limit, overdraft) = match limit(case) {
        Ok(found) => found,
        Err(expected) => {
            assert_eq!(own, expected, "{}", context());
            return own;
        }
    };
    if let Some(expected) = no_option(case) {
        // Whichever group comes first decides which of both is named.
        assert!(own == expected || own == "nothing in common" || own == "no option", "{}", context());
        return own;
    }
    let plans = case.plans();
    let Some(minimum) = plans.iter().map(|plan| plan.size).min() else {
        assert_eq!(own, "contradiction", "{}", context());
        check_contradiction(case, &result.expect_err("a contradiction"));
        return own;
    };
    if minimum > limit.bits || overdraft > 0 {
        let Err(ProjectError::BelowMinimum { limit_bits, minimum_bits, missing_bytes, ref held, .. }) =
            result
        else {
            panic!("{}", context());
        };
        assert_eq!((limit_bits, minimum_bits), (limit.bits, minimum), "{}", context());
        let missing = (minimum - limit.bits).div_ceil(8) + overdraft;
        assert_eq!(missing_bytes, missing, "{}", context());
        check_held(case, minimum, held);
        return own;
    }
    let plan = result.as_ref().unwrap_or_else(|_| panic!("{}", context()));
    let found = case.place(plan, &plans).unwrap_or_else(|| panic!("breaks a law: {}", context()));
    check_plan(case, plan, found, &plans, limit).unwrap_or_else(|what| panic!("{what}: {}", context()));
    own
}

fn check_plan(case: &Case, plan: &Plan, found: &Found, plans: &[Found], limit: Limit) -> Result<(), String> {
    let proof = plan.certificate().expect("a proof");
    let floor = case.floor(plans, limit.bits);
    let best = plans.iter().filter(|plan| (floor..=limit.bits).contains(&plan.size));
    let best = best.min_by_key(|plan| (plan.cost, plan.size)).expect("a plan fits");
    let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}; best {best:?}")) };
    demand((floor..=limit.bits).contains(&found.size), "outside of the window")?;
    let stated = (proof.used_bits, proof.limit_bits, proof.measure);
    demand(stated == (found.size, limit.bits, limit.measure), "a false certificate")?;
    demand((proof.cost - plan.cost()).abs() <= 0.0 && proof.bound <= proof.cost, "a false cost")?;
    if proof.solver == "highs" {
        let spread: f64 = (case.table.modules().iter())
            .map(|m| {
                let costs = || m.options.iter().map(|option| option.cost);
                costs().fold(f64::MIN, f64::max) - costs().fold(f64::MAX, f64::min)
            })
            .sum();
        let missed = value(found.cost - best.cost);
        demand(missed <= proof.gap() + f64::EPSILON * found.magnitude, "more missed than admitted")?;
        demand(proof.gap() <= 1e-10 * spread, "a wide gap")
    } else {
        demand(found.cost == best.cost, "not the cheapest")?;
        demand(proof.gap() <= 0.0, "a gap")?;
        demand(case.kind == ScoreKind::Logits || found.size == best.size, "not the smallest of its cost")
    }
}

/// No plan obeys what is named, and without any one of it there is a plan.
fn check_contradiction(case: &Case, error: &ProjectError) {
    let ProjectError::Contradiction { constraints } = error else { unreachable!() };
    let law = |label: &String| case.laws.iter().position(|law| law.label() == *label).expect("a law");
    let laws: Vec<usize> = constraints.iter().map(law).collect();
    assert!(!case.feasible(&laws), "no contradiction: {constraints:?} {case}");
    for out in 0..laws.len() {
        let mut fewer = laws.clone();
        fewer.remove(out);
        // A rule may leave an excluded module without an option: then the exclusion is needed as well.
        let own = fewer.iter().map(|&law| case.laws[law].clone()).collect();
        let stuck = no_option(&Case { laws: own, ..case.clone() }).is_some();
        let needed = case.feasible(&fewer) || stuck;
        assert!(needed, "`{}` is superfluous in {constraints:?}: {case}", constraints[out]);
    }
}

/// What each law adds to the smallest plan, for laws that do not change the budget.
fn check_held(case: &Case, minimum: u64, held: &[gamma_ilp::Held]) {
    for (index, law) in case.laws.iter().enumerate() {
        if matches!(law, oracle::Law::Exclude(_)) {
            continue;
        }
        let mut fewer = case.clone();
        fewer.laws.remove(index);
        let Some(without) = fewer.plans().iter().map(|plan| plan.size).min() else { continue };
        if fewer.cuts() || limit(&fewer).is_err() {
            continue;
        }
        let own = held.iter().find(|held| held.constraint == law.label()).map_or(0, |held| held.bits);
        assert_eq!(own, minimum - without, "{held:?}: {case}");
    }
}

fn check_cases(seed: u64, count: usize, simple: u64, rows: u64) -> Tally {
    let mut random = Random::new(seed);
    let mut tally = Tally::new();
    for round in 0..count {
        let case = draw::case(&mut random, simple, rows);
        let own = check(&case);
        *tally.entry(own).or_default() += 1;
        // Asking whether there is a plan is as much work as finding one.
        if round % 4 == 0 {
            let verdict = case.problem().check(&Limits::default());
            match verdict {
                Ok(()) => assert!(own.starts_with("plan"), "{own}: {case}"),
                Err(error) => assert_eq!(outcome(&Err(error)), own, "{case}"),
            }
        }
    }
    tally
}

#[test]
fn without_rows_the_answer_is_the_best_of_all_plans() {
    let tally = check_cases(1, 18_000, 4, 0);
    for outcome in
        ["plan", "tie cut", "all excluded", "budget", "no option", "nothing in common", "below minimum"]
    {
        assert!(tally.get(outcome).is_some_and(|&count| count > 50), "{outcome}: {tally:?}");
    }
}

#[cfg(feature = "highs")]
#[test]
fn with_rows_the_answer_is_the_best_of_all_plans() {
    let tally = check_cases(2, 2500, 2, 3);
    for outcome in ["plan", "plan by HiGHS", "contradiction", "below minimum"] {
        assert!(tally.get(outcome).is_some_and(|&count| count > 50), "{outcome}: {tally:?}");
    }
}

#[test]
#[ignore = "takes minutes; for changes to rules and solver"]
fn without_rows_the_answer_is_the_best_of_all_plans_of_many_cases() {
    check_cases(3, 600_000, 4, 0);
}

#[cfg(feature = "highs")]
#[test]
#[ignore = "takes minutes; for changes to rows and to the model that HiGHS is given"]
fn with_rows_the_answer_is_the_best_of_all_plans_of_many_cases() {
    let tally = check_cases(4, 40_000, 2, 3);
    assert!(tally["plan by HiGHS"] > 1000, "{tally:?}");
}

/// Costs of the generators add up exactly, which the others rely on.
#[test]
fn the_grid_of_the_generators_is_exact() {
    assert_eq!(exact(1.25), 5 << 38);
    assert!((value(5 << 38) - 1.25).abs() <= 0.0);
}
