//! Several plans, whole curves and explanations, against trying every plan.

mod oracle;
mod random;

use std::collections::{BTreeMap, HashSet};

use gamma_core::{Budget, ModuleName, Plan, ScoreKind};
use gamma_ilp::{Frontier, Limits, Problem, ProjectError};
use oracle::{Case, Found, draw, value};
use random::{Random, model, widest};

/// Cases of random laws that have a plan, their plans and the budget in bits.
fn solvable(seed: u64, rows: u64) -> impl Iterator<Item = (Case, Plan, Vec<Found>)> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || {
        let case = draw::case(&mut random, 3, rows);
        let plan = case.problem().solve(&Limits::default()).ok()?;
        let plans = case.plans();
        Some((case, plan, plans))
    })
    .flatten()
}

/// What a sum of so many costs as floats may lose.
fn rounding(plans: &[Found]) -> f64 {
    let largest = plans.iter().map(|plan| plan.magnitude).fold(0.0, f64::max);
    32.0 * f64::EPSILON * largest
}

fn check_top(case: &Case, first: &Plan, plans: &[Found], count: usize) {
    let proof = first.certificate().expect("a proof");
    let (floor, limit) = (case.floor(plans, proof.limit_bits), proof.limit_bits);
    let mut sorted: Vec<&Found> = plans.iter().filter(|p| (floor..=limit).contains(&p.size)).collect();
    sorted.sort_by_key(|plan| plan.cost);
    let top = case.problem().top(count, &Limits::default()).unwrap_or_else(|error| panic!("{error}: {case}"));
    assert_eq!(top.len(), count.min(sorted.len()), "{case}");
    let mut seen = HashSet::new();
    let mut margin = rounding(plans);
    for (number, (plan, expected)) in top.iter().zip(sorted).enumerate() {
        let found = case.place(plan, plans).unwrap_or_else(|| panic!("number {number} breaks a law: {case}"));
        assert!((floor..=limit).contains(&found.size), "number {number}: {case}");
        assert!(seen.insert(found.picks.clone()), "number {number} is there twice: {case}");
        let own = plan.certificate().expect("a proof");
        // HiGHS takes any plan within its gap, and then the next one may be cheaper.
        margin += own.gap();
        let missed = value(found.cost - expected.cost).abs();
        assert!(missed <= margin, "number {number} costs {missed} more or less than it should: {case}");
        assert!(own.bound <= value(expected.cost) + margin, "number {number}: {case}");
    }
}

fn check_tops(seed: u64, cases: usize, rows: u64, counts: &[usize]) {
    for (round, (case, plan, plans)) in solvable(seed, rows).take(cases).enumerate() {
        check_top(&case, &plan, &plans, counts[round % counts.len()]);
    }
}

#[test]
fn the_top_plans_are_the_cheapest_in_order() {
    check_tops(1, 1200, 0, &[1, 2, 5, 20, 100_000]);
}

#[cfg(feature = "highs")]
#[test]
fn the_top_plans_with_rows_are_the_cheapest_in_order() {
    check_tops(2, 60, 2, &[1, 2, 4, 8]);
}

#[test]
#[ignore = "takes minutes; for changes to the listing of plans"]
fn the_top_plans_are_the_cheapest_in_order_in_many_cases() {
    check_tops(3, 40_000, 0, &[1, 2, 5, 20, 100_000]);
}

#[cfg(feature = "highs")]
#[test]
#[ignore = "takes minutes; for changes to the listing of plans"]
fn the_top_plans_with_rows_are_the_cheapest_in_order_in_many_cases() {
    check_tops(4, 1500, 2, &[1, 2, 4, 8, 1000]);
}

/// Both ways to list the plans of a knapsack agree.
#[cfg(feature = "highs")]
#[test]
fn highs_lists_the_same_costs_as_the_knapsack_solver() {
    let mut random = Random::new(5);
    for _ in 0..15 {
        let table = model(&mut random, 3..=4, 2..=3);
        if widest(&table) > 1 << 45 {
            continue;
        }
        let problem = Problem::new(&table, ScoreKind::Loss, Budget::bytes(widest(&table) / 10));
        let Ok(own) = problem.top(5, &Limits::default()) else { continue };
        let other =
            problem.top(5, &Limits::default().solver(gamma_ilp::Solver::Highs)).expect("the same plans");
        assert_eq!(own.len(), other.len());
        let mut margin = 1e-12;
        for (own, other) in own.iter().zip(&other) {
            margin += other.certificate().unwrap().gap() + 1e-15 * own.cost().abs();
            assert!((own.cost() - other.cost()).abs() <= margin, "{own:?} {other:?}");
        }
    }
}

#[test]
fn none_of_the_plans_are_wanted() {
    let (case, ..) = solvable(6, 0).next().expect("a case");
    assert_eq!(case.problem().top(0, &Limits::default()), Ok(Vec::new()));
}

fn check_frontier(case: &Case, frontier: &Frontier, plans: &[Found]) {
    let margin = rounding(plans);
    let mut cheapest = BTreeMap::new();
    for plan in plans {
        let cost = cheapest.entry(plan.size).or_insert(plan.cost);
        *cost = plan.cost.min(*cost);
    }
    let points = &frontier.points;
    for point in points {
        let best = cheapest.get(&point.bits).unwrap_or_else(|| panic!("{point:?} is no plan: {case}"));
        assert!((point.cost - value(*best)).abs() <= margin, "{point:?} is not the cheapest: {case}");
    }
    let ends = (points[0].bits, points[points.len() - 1].cost);
    let least = plans.iter().map(|plan| plan.cost).min().expect("a plan");
    assert_eq!(ends.0, *cheapest.keys().next().expect("a plan"), "{case}");
    assert!((ends.1 - value(least)).abs() <= margin, "{frontier:?} {case}");
    assert!(points[0].step.is_none());
    let mut steepest = f64::INFINITY;
    for pair in points.windows(2) {
        let step = pair[1].step.as_ref().expect("a step");
        assert!(pair[0].bits < pair[1].bits && pair[1].cost <= pair[0].cost, "{pair:?} {case}");
        assert!(step.slope <= steepest * (1.0 + 1e-12) && step.slope > 0.0, "{pair:?} {case}");
        let slope = (pair[0].cost - pair[1].cost) / (pair[1].bits - pair[0].bits) as f64;
        let off = (slope - step.slope).abs() * (pair[1].bits - pair[0].bits) as f64;
        assert!(off <= margin, "{pair:?} has a slope of {slope}: {case}");
        steepest = step.slope;
    }
    // No plan lies below the line between two points.
    for (&bits, &cost) in &cheapest {
        let Some(after) = points.iter().position(|point| point.bits >= bits) else { continue };
        let line = if points[after].bits == bits {
            points[after].cost
        } else {
            let (a, b) = (&points[after - 1], &points[after]);
            a.cost + (b.cost - a.cost) * ((bits - a.bits) as f64 / (b.bits - a.bits) as f64)
        };
        assert!(value(cost) >= line - 2.0 * margin, "a plan of {bits} bits is below the curve: {case}");
    }
    check_knee(case, frontier);
}

/// The knee is the farthest point below the line through both ends.
fn check_knee(case: &Case, frontier: &Frontier) {
    let points = &frontier.points;
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let (width, height) = ((last.bits - first.bits) as f64, first.cost - last.cost);
    let below = |at: usize| {
        let fraction = (points[at].bits - first.bits) as f64 / width;
        (first.cost - height * fraction - points[at].cost) / height
    };
    match frontier.knee {
        None => {
            assert!((0..points.len()).all(|at| width <= 0.0 || height <= 0.0 || below(at) < 1e-9), "{case}");
        }
        Some(knee) => {
            let best = (0..points.len()).map(below).fold(f64::MIN, f64::max);
            assert!(below(knee) > 0.0 && below(knee) >= best - 1e-9, "{frontier:?} {case}");
        }
    }
}

fn check_frontiers(seed: u64, count: usize) {
    let mut random = Random::new(seed);
    let mut checked = 0;
    while checked < count {
        let case = draw::case(&mut random, 3, 0);
        if let Ok(frontier) = case.problem().frontier() {
            assert_eq!(frontier.measure, case.measure());
            check_frontier(&case, &frontier, &case.plans());
            checked += 1;
        }
    }
}

#[test]
fn the_frontier_is_the_lower_hull_of_all_plans() {
    check_frontiers(7, 2500);
}

#[test]
#[ignore = "takes minutes; for changes to the sweep"]
fn the_frontier_is_the_lower_hull_of_all_plans_of_many_cases() {
    check_frontiers(8, 100_000);
}

#[test]
fn a_frontier_of_joined_modules_is_refused() {
    let table = model(&mut Random::new(9), 3..=3, 2..=3);
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::bytes(1)).rule("formats 2".parse().unwrap());
    let error = problem.frontier().unwrap_err();
    assert_eq!(error, ProjectError::NotAKnapsack { constraints: vec!["formats 2".to_owned()] });
}

fn check_explanation(case: &Case, plan: &Plan, plans: &[Found], module: &ModuleName) {
    let explanation = case.problem().explain(plan, module, &Limits::default()).expect("an explanation");
    let proof = plan.certificate().expect("a proof");
    let own = case.place(plan, plans).expect("a plan that obeys");
    let kept = case.kept();
    let names: Vec<&ModuleName> = kept.iter().map(|&m| &case.table.modules()[m].name).collect();
    let at = names.iter().position(|name| *name == module).expect("an allocated module");
    let options = &case.table.modules()[kept[at]].options;
    let format = |k: usize, pick: usize| &case.table.modules()[kept[k]].options[pick].format;
    assert_eq!(explanation.options.len(), options.len());
    assert_eq!(explanation.options.iter().filter(|option| option.chosen).count(), 1);
    let tie = case.ties().into_iter().find(|tie| tie.contains(&kept[at])).expect("a group");
    let tied: Vec<_> = tie.iter().map(|&m| &case.table.modules()[m].name).filter(|n| *n != module).collect();
    assert_eq!(explanation.tied.iter().collect::<Vec<_>>(), tied, "{case}");
    for (place, alternative) in explanation.options.iter().enumerate() {
        assert_eq!(alternative.format, options[place].format);
        assert_eq!(alternative.chosen, own.picks[at] == place);
        let with: Vec<Found> = plans.iter().filter(|plan| plan.picks[at] == place).cloned().collect();
        let fits = with.iter().any(|plan| plan.size <= proof.limit_bits);
        assert_eq!(alternative.forced.is_some(), fits, "{alternative:?} {case}");
        let Some(forced) = &alternative.forced else { continue };
        // The plan that the moves lead to.
        let mut picks = own.picks.clone();
        let pick = |k: usize, wanted| {
            let count = case.table.modules()[kept[k]].options.len();
            (0..count).find(|&pick| format(k, pick) == wanted).expect("an option")
        };
        for &m in &tie {
            let k = kept.iter().position(|own| *own == m).expect("no tie is cut");
            picks[k] = pick(k, &alternative.format);
        }
        for (name, from, to) in &forced.moves {
            let k = names.iter().position(|own| *own == name).expect("a module");
            assert!(
                !tie.contains(&kept[k]) && format(k, own.picks[k]) == from && from != to,
                "{forced:?} {case}"
            );
            picks[k] = pick(k, to);
        }
        let found = with.iter().find(|plan| plan.picks == picks);
        let found = found.unwrap_or_else(|| panic!("{forced:?} leads to no plan: {case}"));
        assert_eq!(i128::from(forced.bits), i128::from(found.size) - i128::from(own.size), "{case}");
        let margin = 2.0 * rounding(plans);
        assert!((forced.cost - value(found.cost - own.cost)).abs() <= margin, "{forced:?} {case}");
        if case.kind == ScoreKind::Loss
            && proof.solver != "highs"
            && !case.laws.iter().any(oracle::Law::is_row)
        {
            let fitting = with.iter().filter(|plan| plan.size <= proof.limit_bits);
            let best = fitting.map(|plan| plan.cost).min().expect("one fits");
            assert_eq!(found.cost, best, "{forced:?} {case}");
        } else if case.kind == ScoreKind::Loss {
            let fitting = with.iter().filter(|plan| plan.size <= proof.limit_bits);
            let best = fitting.map(|plan| plan.cost).min().expect("one fits");
            let spread = rounding(plans) + 1e-10 * own.magnitude.max(found.magnitude);
            assert!(value(found.cost - best) <= spread.max(proof.gap()), "{forced:?} {case}");
        }
        // What the best plan has cannot be improved by forcing it.
        assert!(case.kind == ScoreKind::Logits || forced.cost >= -margin - proof.gap(), "{forced:?} {case}");
    }
}

fn check_explanations(seed: u64, count: usize, rows: u64) {
    for (round, (case, plan, plans)) in solvable(seed, rows).take(count).enumerate() {
        let choices = plan.choices();
        check_explanation(&case, &plan, &plans, &choices[round % choices.len()].name);
    }
}

#[test]
fn explanations_agree_with_the_best_of_all_plans_with_the_option() {
    check_explanations(10, 1500, 0);
}

#[cfg(feature = "highs")]
#[test]
fn explanations_with_rows_agree_with_the_best_of_all_plans_with_the_option() {
    check_explanations(11, 80, 2);
}

#[test]
#[ignore = "takes minutes; for changes to explanations"]
fn explanations_agree_with_the_best_of_all_plans_with_the_option_in_many_cases() {
    check_explanations(12, 60_000, 0);
    if cfg!(feature = "highs") {
        check_explanations(13, 1500, 2);
    }
}

#[test]
fn only_allocated_modules_and_own_plans_are_explained() {
    let table = model(&mut Random::new(14), 4..=4, 3..=3);
    let names: Vec<_> = table.modules().iter().map(|module| module.name.clone()).collect();
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::bytes(widest(&table) / 8));
    let plan = problem.solve(&Limits::default()).unwrap();
    let limits = Limits::default();

    let nobody = ModuleName::new("model.layers.9.mlp.sideways_proj");
    let error = problem.explain(&plan, &nobody, &limits).unwrap_err();
    assert_eq!(error, ProjectError::UnknownModule { module: nobody, similar: None });
    // An excluded module is not its own better name.
    let excluding = problem.clone().rule(format!("exclude {}", names[1]).parse().unwrap());
    let smaller = excluding.solve(&limits).unwrap();
    let error = excluding.explain(&smaller, &names[1], &limits).unwrap_err();
    let ProjectError::UnknownModule { module, similar } = error else { panic!("{error}") };
    assert_eq!(module, names[1]);
    assert_ne!(similar.as_ref(), Some(&names[1]));
    // A plan of more modules, and one of fewer.
    let error = excluding.explain(&plan, &names[0], &limits).unwrap_err();
    assert!(matches!(&error, ProjectError::ForeignPlan { module, .. } if *module == names[1]), "{error}");
    let error = problem.explain(&smaller, &names[0], &limits).unwrap_err();
    assert!(error.to_string().contains(names[1].as_str()), "{error}");
    // A plan of formats that the table lacks.
    let mut modules = table.modules().to_vec();
    modules[2].options[0].format = "custom5:other".parse().unwrap();
    let other = gamma_core::ScoreTable::new(modules).unwrap();
    let foreign = Plan::from_picks(&other, &[0; 4], None).unwrap();
    let error = problem.explain(&foreign, &names[0], &limits).unwrap_err();
    assert!(matches!(&error, ProjectError::ForeignPlan { module, .. } if *module == names[2]), "{error}");
}
