//! What was measured around one plan, used for other budgets.

mod synthetic;

use gamma_core::{BitWidth, Budget, Context, Origin, Plan, ScoreKind, ScoreTable};
use gamma_ilp::{Limits, Problem};
use gamma_refine::{BlendError, CONTEXT_REACH, RecentreSettings, Split, blend, recentre};
use synthetic::{Damage, Formula, go_on, isolated, llama, recost};

fn costs(table: &ScoreTable) -> Vec<f64> {
    table.modules().iter().flat_map(|module| module.options.iter().map(|option| option.cost)).collect()
}

/// Bits that are `share` of the reach of a context.
fn away(table: &ScoreTable, share: f64) -> u64 {
    (share * CONTEXT_REACH * table.weights() as f64).round() as u64
}

#[test]
fn a_context_counts_alone_at_its_own_budget_and_not_at_all_beyond_its_reach() {
    let base = llama(0, 1, &[2, 3, 4]);
    let thrice = recost(&base, |module, option| 3.0 * module.options[option].cost);
    let centre = 1_000_000;
    let contexts = [Context { stored_bits: centre, origin: Origin::Measured, table: thrice.clone() }];
    assert_eq!(costs(&blend(&base, &contexts, centre).unwrap()), costs(&thrice));
    assert_eq!(blend(&base, &contexts, centre + away(&base, 1.0)).unwrap(), base);
    assert_eq!(blend(&base, &[], centre).unwrap(), base);
    // In between both say the same, for the base is rescaled.
    for share in [0.1, 0.5, 0.9] {
        let blended = blend(&base, &contexts, centre - away(&base, share)).unwrap();
        for (own, thrice) in costs(&blended).iter().zip(costs(&thrice)) {
            assert!((own - thrice).abs() < 1e-12);
        }
    }
}

#[test]
fn shares_follow_the_formula() {
    let base = llama(1, 1, &[2, 3, 4]);
    // The first module of each differs; the median of the ratios is 1.
    let but_first = |factor: f64| {
        let first = base.modules()[0].name.clone();
        recost(&base, |module, option| {
            module.options[option].cost * if module.name == first { factor } else { 1.0 }
        })
    };
    let target = 1_000_000;
    let contexts = [
        Context { stored_bits: target - away(&base, 0.5), origin: Origin::Measured, table: but_first(2.0) },
        Context { stored_bits: target + away(&base, 0.75), origin: Origin::Measured, table: but_first(10.0) },
        Context {
            stored_bits: target + away(&base, 3.0),
            origin: Origin::Measured,
            table: but_first(1000.0),
        },
    ];
    let blended = blend(&base, &contexts, target).unwrap();
    // ((h - d) / (h d))² is 1² and (1/3)² in units of h; K is a half.
    let expected = 0.5 + 0.5 * (0.9 * 2.0 + 0.1 * 10.0);
    for (own, base) in costs(&blended)[..3].iter().zip(costs(&base)) {
        assert!((own / base - expected).abs() < 1e-4, "{} {expected}", own / base);
    }
    for (own, base) in costs(&blended)[3..].iter().zip(&costs(&base)[3..]) {
        assert!((own / base - 1.0).abs() < 1e-12);
    }
}

#[test]
fn blending_is_continuous_in_the_budget() {
    let base = llama(2, 1, &[2, 3, 4]);
    let other = |seed: u64| {
        let other = llama(seed, 1, &[2, 3, 4]);
        recost(&base, |module, option| {
            other.modules().iter().find(|own| own.name == module.name).unwrap().options[option].cost
        })
    };
    let step = away(&base, 0.01);
    let start = 10 * away(&base, 1.0);
    let contexts = [
        Context { stored_bits: start, origin: Origin::Measured, table: other(3) },
        Context { stored_bits: start + 40 * step, origin: Origin::Measured, table: other(4) },
    ];
    // The medians of ratios of one and of two contexts differ: beyond the reach of one of them only
    // the base jumps, so look where both or none reach.
    let tables: Vec<Vec<f64>> =
        (0..=40).map(|k| costs(&blend(&base, &contexts, start + k * step).unwrap())).collect();
    for pair in tables.windows(2) {
        for (a, b) in pair[0].iter().zip(&pair[1]) {
            assert!((a - b).abs() < 0.12, "{a} {b}");
        }
    }
    assert_eq!(tables[0], costs(&contexts[0].table));
    assert_eq!(tables[40], costs(&contexts[1].table));
}

#[test]
fn between_learned_contexts_costs_are_interpolated_and_measured_ones_refine_them() {
    let base = llama(3, 1, &[2, 3, 4]);
    let times = |factor: f64| recost(&base, |module, option| factor * module.options[option].cost);
    let learned =
        |stored_bits, factor| Context { stored_bits, origin: Origin::Learned, table: times(factor) };
    let step = 4 * away(&base, 1.0);
    let contexts = vec![learned(2 * step, 5.0), learned(step, 3.0)];
    for (target, expected) in
        [(0, 3.0), (step, 3.0), (step + step / 4, 3.5), (2 * step, 5.0), (9 * step, 5.0)]
    {
        for (found, base) in costs(&blend(&base, &contexts, target).unwrap()).iter().zip(costs(&base)) {
            assert!((found / base - expected).abs() < 1e-6, "{} at {target}", found / base);
        }
    }
    let other = llama(4, 1, &[2, 3, 4]);
    let table = recost(&base, |module, option| {
        other.modules().iter().find(|own| own.name == module.name).unwrap().options[option].cost
    });
    let measured = Context { stored_bits: step, origin: Origin::Measured, table: table.clone() };
    let all = [contexts.clone(), vec![measured]].concat();
    assert_eq!(costs(&blend(&base, &all, step).unwrap()), costs(&table));
    assert_eq!(blend(&base, &all, 2 * step).unwrap(), blend(&base, &contexts, 2 * step).unwrap());
}

#[test]
fn contexts_of_other_tables_are_refused_by_name() {
    let base = llama(0, 1, &[2, 3, 4]);
    let context = |table| [Context { stored_bits: 1, origin: Origin::Measured, table }];
    let error = blend(&base, &context(llama(0, 2, &[2, 3, 4])), 1).unwrap_err();
    assert!(matches!(error, BlendError::Length { found: 14, expected: 7, .. }));
    let error = blend(&base, &context(llama(0, 1, &[2, 3, 8])), 1).unwrap_err();
    assert!(matches!(&error, BlendError::Module { module, .. } if module.as_str().ends_with("q_proj")));
}

#[test]
fn neighbouring_budgets_profit_from_a_context() {
    let mut ratios = Vec::new();
    for seed in 0..6 {
        let truth = llama(seed, 4, &[2, 3, 4, 5, 6, 8]);
        let mut model = Formula::new(&truth, Damage::Joint(10.0), 8, 0.0);
        let table = isolated(&model, &truth);
        let at = |average: f64| Problem::new(&table, ScoreKind::Loss, Budget::average_bits(average));
        let start = at(2.5).solve(&Limits::default()).unwrap();
        let split = Split::halves(8).unwrap();
        let settings = RecentreSettings::default();
        let found = recentre(&mut model, &split, &at(2.5), &start, &settings, &mut go_on()).unwrap();
        let contexts = [found.context.unwrap()];
        for average in [2.4, 2.6] {
            let target = at(average).space().unwrap().limit().bits;
            let blended = blend(&table, &contexts, target).unwrap();
            let problem = Problem::new(&blended, ScoreKind::Loss, Budget::average_bits(average));
            let [plain, better] = [at(average), problem]
                .map(|problem| model.truth(&problem.solve(&Limits::default()).unwrap()));
            ratios.push(better / plain);
        }
    }
    let mean = ratios.iter().map(|ratio: &f64| ratio.ln()).sum::<f64>() / ratios.len() as f64;
    assert!(mean.exp() < 0.95, "{ratios:?}");
}

#[test]
fn a_context_covers_options_and_modules_that_the_rules_leave_out() {
    let truth = llama(5, 2, &[2, 3, 4, 6, 8]);
    let mut model = Formula::new(&truth, Damage::Additive, 4, 0.0);
    let rules = ["tie vllm", "exclude *.o_proj", "max *.down_proj 3"].map(|rule| rule.parse().unwrap());
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0)).rules(rules);
    let start = problem.solve(&Limits::default()).unwrap();
    let split = Split::halves(4).unwrap();
    let settings = RecentreSettings { rounds: 1, ..RecentreSettings::default() };
    let found = recentre(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap();
    let context = found.context.unwrap();
    assert_eq!(context.stored_bits, start.stored_bits());
    // The model is additive and the scores are right: up to one constant per module, so is the
    // context, measured or not, but for what the windows' own factors do to the mean.
    let factor = model.mean(&start, 0..2) / model.truth(&start);
    for (own, truth) in context.table.modules().iter().zip(truth.modules()) {
        assert_eq!(own.name, truth.name);
        assert!(own.options.iter().zip(&truth.options).all(|(a, b)| a.format == b.format));
        let last = own.options.len() - 1;
        let excluded = own.name.role() == "o_proj";
        let tied = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"].contains(&own.name.role());
        if !tied {
            for (a, b) in own.options.iter().zip(&truth.options) {
                let expected = (b.cost - truth.options[last].cost) * if excluded { 1.0 } else { factor };
                let found = a.cost - own.options[last].cost;
                assert!((found - expected).abs() < 1e-9 + 0.01 * expected, "{} {found} {expected}", own.name);
            }
        }
        assert!(own.options.windows(2).all(|pair| pair[0].cost >= pair[1].cost - 1e-12));
    }
    // Tied modules share what was measured of them together.
    let group = |table: &ScoreTable, option: usize| -> f64 {
        table.modules()[..3].iter().map(|module| module.options[option].cost).sum()
    };
    let [own, expected] = [&context.table, &truth].map(|table| group(table, 0) - group(table, 1));
    assert!((own - factor * expected).abs() < 0.02 * expected, "{own} {expected}");
}

#[test]
fn uniform_start_of_the_same_size_has_a_context_of_that_size() {
    let truth = llama(6, 1, &[2, 3, 4]);
    let mut model = Formula::new(&truth, Damage::Additive, 4, 0.0);
    let problem = Problem::new(&truth, ScoreKind::Loss, Budget::average_bits(3.0));
    let start = Plan::uniform(&truth, BitWidth::B3).unwrap();
    let split = Split::halves(4).unwrap();
    let settings = RecentreSettings { rounds: 1, reach: 1, ..RecentreSettings::default() };
    let found = recentre(&mut model, &split, &problem, &start, &settings, &mut go_on()).unwrap();
    assert_eq!(found.context.unwrap().stored_bits, start.stored_bits());
    // One move down and one up for each of 7 modules.
    assert_eq!((found.history.len(), found.history[0].moves), (1, 14));
}
