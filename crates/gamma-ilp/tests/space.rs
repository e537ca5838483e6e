//! The space of a problem's plans, against all plans that obey the laws.

mod oracle;
mod random;

use std::collections::BTreeSet;

use gamma_core::{Plan, ScoreTable};
use gamma_ilp::{Limits, ProjectError};
use oracle::{Case, Found, draw};
use random::Random;

/// Cases of random laws and all plans that obey them, whatever the budget.
fn cases(seed: u64, rows: u64) -> impl Iterator<Item = (Case, Vec<Found>)> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || {
        let case = draw::case(&mut random, 3, rows);
        case.problem().space().ok()?;
        let plans = case.plans();
        Some((case, plans))
    })
    .flatten()
}

fn allocated(case: &Case) -> ScoreTable {
    let modules = case.kept().iter().map(|&m| case.table.modules()[m].clone()).collect();
    ScoreTable::new(modules).expect("part of a table")
}

/// Every pick of one option per module.
fn all_picks(table: &ScoreTable) -> Vec<Vec<usize>> {
    table.modules().iter().fold(vec![Vec::new()], |picks, module| {
        let longer = |picks: &Vec<usize>| {
            let picks = picks.clone();
            (0..module.options.len()).map(move |pick| [picks.as_slice(), &[pick]].concat())
        };
        picks.iter().flat_map(longer).collect()
    })
}

#[test]
fn a_plan_is_admitted_exactly_if_it_obeys_everything() {
    let (mut admitted, mut refused) = (0, 0);
    for (case, plans) in cases(1, 2).take(300) {
        let (problem, table) = (case.problem(), allocated(&case));
        let space = problem.space().expect("asked before");
        let limit = space.limit().bits;
        let legal: BTreeSet<&Vec<usize>> =
            plans.iter().filter(|plan| plan.size <= limit).map(|plan| &plan.picks).collect();
        let overdrawn =
            matches!(problem.check(&Limits::default()), Err(ProjectError::BelowMinimum { .. })) && limit == 0;
        for picks in all_picks(&table).into_iter().step_by(3) {
            let plan = Plan::from_picks(&table, &picks, None).expect("picks of the table");
            let expected = legal.contains(&picks) && !overdrawn;
            assert_eq!(problem.admits(&plan).expect("a legal problem"), expected, "{picks:?}\n{case}");
            if let Ok(places) = space.places(&plan) {
                assert_eq!(space.plan(&places), plan, "{case}");
            }
            *(if expected { &mut admitted } else { &mut refused }) += 1;
        }
    }
    assert!(admitted > 300 && refused > 1000, "{admitted} {refused}");
}

#[test]
fn plans_that_lack_or_add_modules_are_not_admitted() {
    let (case, _) =
        cases(2, 0).find(|(case, _)| case.kept().len() < case.table.modules().len()).expect("some");
    let problem = case.problem();
    let space = problem.space().expect("asked before");
    let whole = Plan::from_picks(&case.table, &vec![0; case.table.modules().len()], None).expect("a plan");
    assert!(matches!(space.places(&whole), Err(ProjectError::ForeignPlan { .. })));
    assert_eq!(problem.admits(&whole), Ok(false));

    let (case, _) = cases(3, 0).find(|(case, _)| case.kept().len() > 1).expect("some");
    let few = ScoreTable::new(allocated(&case).modules()[1..].to_vec()).expect("part of a table");
    let few = Plan::from_picks(&few, &vec![0; few.modules().len()], None).expect("a plan");
    let problem = case.problem();
    assert!(matches!(
        problem.space().expect("asked before").places(&few),
        Err(ProjectError::IncompletePlan { .. } | ProjectError::ForeignPlan { .. })
    ));
    assert_eq!(problem.admits(&few), Ok(false));
}

#[test]
fn the_cheapest_point_is_that_of_all_points_with_costs() {
    let mut random = Random::new(5);
    let (mut found, mut none) = (0, 0);
    for (case, _) in cases(4, 1).take(300) {
        let problem = case.problem();
        let space = problem.space().expect("asked before");
        // Quarters: their sums are exact.
        let costs: Vec<Vec<Option<f64>>> = (0..space.len())
            .map(|group| {
                let mut cost = || (random.below(4) > 0).then(|| random.below(40) as f64 / 4.0 - 3.0);
                (0..space.places_of(group)).map(|_| cost()).collect()
            })
            .collect();
        let points = costs.iter().fold(vec![(Vec::new(), 0.0)], |points: Vec<(Vec<usize>, f64)>, own| {
            let longer = |(places, cost): &(Vec<usize>, f64)| {
                let (places, cost) = (places.clone(), *cost);
                let known = own.iter().enumerate().filter_map(|(place, own)| Some((place, (*own)?)));
                known.map(move |(place, own)| ([places.as_slice(), &[place]].concat(), cost + own))
            };
            points.iter().flat_map(longer).collect()
        });
        let admitted = points.iter().filter(|(places, _)| space.admits(places));
        let best = admitted.map(|&(_, cost)| cost).reduce(f64::min);
        match space.cheapest(|group, place| costs[group][place], &Limits::default()) {
            Ok(Some(places)) => {
                assert!(space.admits(&places), "{case}");
                let cost: f64 = places.iter().enumerate().map(|(g, &p)| costs[g][p].expect("a cost")).sum();
                assert_eq!(Some(cost), best, "{case}");
                found += 1;
            }
            Ok(None) => {
                assert_eq!(best, None, "{case}");
                none += 1;
            }
            // Rows, in a build without HiGHS.
            Err(ProjectError::NoHighs { .. }) => {}
            Err(error) => panic!("{error}: {case}"),
        }
    }
    assert!(found > 100 && none > 20, "{found} {none}");
}

#[test]
fn costs_that_are_no_numbers_are_refused() {
    let (case, _) = cases(6, 0).next().expect("endless");
    let problem = case.problem();
    let cheapest = problem.space().expect("asked before").cheapest(|_, _| Some(f64::NAN), &Limits::default());
    assert!(matches!(cheapest, Err(ProjectError::NotFinite { .. })));
}
