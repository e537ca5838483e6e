//! What is refused, and in which words; and rules as text.

mod random;

use gamma_core::{
    BitWidth, Budget, Format, ModuleName, ModuleScores, Plan, Remainder, ScoreKind, ScoreTable,
};
use gamma_ilp::{Engine, Limits, Problem, ProjectError, Rule, Ties, Which};
use proptest::prelude::*;
use random::formats;

const NAMES: [&str; 4] = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.k_proj",
    "model.layers.0.mlp.up_proj",
    "model.layers.1.mlp.up_proj",
];

/// Four modules of 64 weights, options of 2, 3, 4 and 8 bits; each bit saves a cost of one.
fn table() -> ScoreTable {
    let module = |name: &str| {
        let option = |format: Format| {
            let bits = format.bits().bits();
            gamma_core::ScoredOption::new(format, 64 * u64::from(bits), -f64::from(bits))
        };
        let options = formats().into_iter().take(4).map(option).collect();
        ModuleScores { name: ModuleName::new(name), shape: [8, 8], options }
    };
    ScoreTable::new(NAMES.map(module).to_vec()).expect("a legal table")
}

fn rule(text: &str) -> Rule {
    text.parse().expect("a rule")
}

/// The error of four modules at 4 bits under these rules, of `solve`, `check` and `top` alike.
fn refused(table: &ScoreTable, budget: Budget, rules: &[&str]) -> ProjectError {
    let problem = Problem::new(table, ScoreKind::Loss, budget).rules(rules.iter().map(|text| rule(text)));
    let limits = Limits::default();
    let error = problem.solve(&limits).expect_err("no plan");
    assert_eq!(problem.check(&limits), Err(error.clone()), "{rules:?}");
    assert_eq!(problem.top(3, &limits), Err(error.clone()), "{rules:?}");
    error
}

fn four_bits() -> Budget {
    Budget::average_bits(4.0)
}

#[test]
fn a_pattern_that_matches_nothing_is_refused_with_names_that_exist() {
    for text in
        ["pin *.down_proj 4", "exclude lm_head", "bytes *.sideways 8", "tie *.experts.*", "max re:q_proj 4"]
    {
        let error = refused(&table(), four_bits(), &[text]);
        let ProjectError::NoMatch { rule, examples } = &error else { panic!("{error}") };
        assert_eq!(rule, text);
        assert_eq!(examples[0].as_str(), NAMES[0]);
    }
}

#[test]
fn a_pattern_that_cuts_a_tie_is_refused_with_both_modules() {
    for text in ["pin *.q_proj 4", "min *.q_proj 4", "max *.q_proj 4", "exclude *.q_proj"] {
        let error = refused(&table(), four_bits(), &["tie vllm", text]);
        let ProjectError::TieCut { rule, matched, missed } = &error else { panic!("{error}") };
        assert_eq!((rule.as_str(), matched.as_str(), missed.as_str()), (text, NAMES[0], NAMES[1]));
    }
    // What concerns sums may cut.
    let table = table();
    let problem = Problem::new(&table, ScoreKind::Loss, four_bits()).rule(rule("tie vllm"));
    assert!(problem.rule(rule("bytes *.q_proj 1000")).solve(&Limits::default()).is_ok());
}

#[test]
fn a_module_without_an_option_is_refused_with_the_rules_that_took_them() {
    let rules = ["pin *.q_proj 4", "min *.q_proj 8", "max * 4"];
    let error = refused(&table(), four_bits(), &rules);
    let ProjectError::NoOption { module, rules: found, offered } = &error else { panic!("{error}") };
    assert_eq!((module.as_str(), found.as_slice()), (NAMES[0], rules.map(str::to_owned).as_slice()));
    assert_eq!(offered.len(), 4);
    let error = refused(&table(), four_bits(), &["pin *.up_proj int4:g64:sym:f16"]);
    assert!(
        matches!(&error, ProjectError::NoOption { module, .. } if module.as_str() == NAMES[2]),
        "{error}"
    );
}

#[test]
fn tied_modules_without_a_common_option_are_refused() {
    let mut modules = table().modules().to_vec();
    modules[0].options.truncate(2);
    modules[1].options.drain(..2);
    let table = ScoreTable::new(modules).unwrap();
    let error = refused(&table, Budget::bytes(1000), &["tie sglang"]);
    let expected = [NAMES[0], NAMES[1]].map(ModuleName::new).to_vec();
    assert_eq!(error, ProjectError::NothingInCommon { modules: expected });
}

#[test]
fn all_modules_excluded_leave_nothing_to_allocate() {
    assert_eq!(refused(&table(), four_bits(), &["exclude *"]), ProjectError::AllExcluded);
    let error = refused(&table(), four_bits(), &["exclude *.self_attn.*", "exclude re:.*mlp.*"]);
    assert_eq!(error, ProjectError::AllExcluded);
}

#[test]
fn budgets_of_files_and_devices_need_to_know_the_rest() {
    for budget in [Budget::artifact(1000), Budget::device(1000, 10)] {
        assert!(matches!(refused(&table(), budget, &[]), ProjectError::Budget(_)));
    }
    let table = table();
    // What no plan changes is more than the file may be.
    let remainder = Remainder { container: 2000, weight_bits: 16, ..Remainder::default() };
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::artifact(1000)).remainder(Some(&remainder));
    let error = problem.solve(&Limits::default()).unwrap_err();
    let ProjectError::BelowMinimum { missing_bytes, .. } = error else { panic!("{error}") };
    assert_eq!(missing_bytes, 1000 + 4 * 16);
}

#[test]
fn coefficients_and_bounds_that_are_no_numbers_are_refused() {
    let table = table();
    let problem = Problem::new(&table, ScoreKind::Loss, four_bits());
    let expected = Err(ProjectError::NotFinite { constraint: "latency".to_owned() });
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let own = problem.clone().linear("latency", ..=1e9, |_, option| {
            if option.format.bits() == BitWidth::B8 { number } else { 1.0 }
        });
        assert_eq!(own.solve(&Limits::default()), expected);
        assert_eq!(own.frontier().map(|_| ()), expected.clone().map(|_: Plan| ()));
    }
    assert_eq!(
        problem.clone().linear("latency", ..=f64::NAN, |_, _| 1.0).solve(&Limits::default()),
        expected
    );
    assert_eq!(problem.linear("latency", f64::NAN.., |_, _| 1.0).solve(&Limits::default()), expected);
}

#[test]
fn the_minimum_says_which_rule_holds_it_up() {
    let budget = Budget::bytes(8 * 9);
    let error = refused(&table(), budget, &["min *.self_attn.* 3", "tie vllm", "min *.1.mlp.* 4"]);
    let ProjectError::BelowMinimum { limit_bits, minimum_bits, held, .. } = &error else { panic!("{error}") };
    assert_eq!((*limit_bits, *minimum_bits), (64 * 9, 64 * 12));
    let held: Vec<_> = held.iter().map(|held| (held.constraint.as_str(), held.bits / 64)).collect();
    assert_eq!(held, [("min *.self_attn.* 3", 2), ("min *.1.mlp.* 4", 2)]);
}

#[cfg(feature = "highs")]
mod with_highs {
    use std::{ops::Bound, time::Duration};

    use gamma_ilp::Change;

    use super::*;
    use crate::random::{Random, llama, model, widest};

    fn contradiction(error: &ProjectError) -> Vec<&str> {
        let ProjectError::Contradiction { constraints } = error else { panic!("{error}") };
        constraints.iter().map(String::as_str).collect()
    }

    #[test]
    fn rules_that_no_plan_obeys_are_named_and_no_others() {
        let rules = ["min *.up_proj 4", "formats 3", "bytes *.self_attn.* 1000", "bytes *.mlp.* 63"];
        let error = refused(&table(), Budget::bytes(10_000), &rules);
        assert_eq!(contradiction(&error), ["min *.up_proj 4", "bytes *.mlp.* 63"]);
        for text in ["formats 0", "bytes * 63"] {
            assert_eq!(contradiction(&refused(&table(), four_bits(), &["tie vllm", text])), [text]);
        }
        let each: Vec<String> = [2, 3, 4, 8].map(|bits| format!("modules {bits} 0")).to_vec();
        let rules: Vec<&str> = each.iter().map(String::as_str).collect();
        assert_eq!(contradiction(&refused(&table(), four_bits(), &rules)), rules);
    }

    #[test]
    fn a_plan_must_not_be_near_to_one_that_the_rules_forbid() {
        let table = table();
        let former = Plan::uniform(&table, BitWidth::B4).unwrap();
        let problem = Problem::new(&table, ScoreKind::Loss, four_bits()).rule(rule("pin *.mlp.* 3"));
        let error = problem.clone().near(&former, Change::Modules(1)).solve(&Limits::default()).unwrap_err();
        assert_eq!(contradiction(&error), ["pin *.mlp.* 3", "near: at most 1 modules change"]);
        assert!(problem.near(&former, Change::Modules(2)).solve(&Limits::default()).is_ok());
    }

    #[test]
    fn bounds_that_nothing_reaches_contradict_and_do_not_upset_the_solver() {
        let table = table();
        let problem = Problem::new(&table, ScoreKind::Loss, four_bits());
        let bounds = [
            (Bound::Included(5.0), Bound::Included(3.0)),
            (Bound::Included(f64::INFINITY), Bound::Unbounded),
            (Bound::Unbounded, Bound::Included(f64::NEG_INFINITY)),
            (Bound::Included(1e300), Bound::Unbounded),
            (Bound::Unbounded, Bound::Included(-1e300)),
            (Bound::Included(5.0), Bound::Included(1e300)),
            (Bound::Included(-1e300), Bound::Included(-1e299)),
            (Bound::Included(4.5), Bound::Included(1e18)),
        ];
        for bounds in bounds {
            for unit in [1.0, 1e-300, 1e-12] {
                let own = problem.clone().linear("count", bounds, |_, _| unit);
                let error = own.solve(&Limits::default()).unwrap_err();
                assert_eq!(contradiction(&error), ["count"], "{bounds:?} {unit}: {error}");
            }
        }
        let own = problem.linear("nothing", 1.0.., |_, _| 0.0);
        assert_eq!(contradiction(&own.solve(&Limits::default()).unwrap_err()), ["nothing"]);
    }

    /// The sum over many modules is rounded; a bound that a known plan meets by the same sum in
    /// another order must not shut the plan out.
    #[test]
    fn a_bound_that_is_the_sum_of_a_known_plan_leaves_that_plan() {
        let mut random = Random::new(1);
        for n_modules in [7, 70, 224] {
            for _ in 0..4 {
                let table = llama(&mut random, n_modules);
                let times: Vec<Vec<f64>> =
                    (0..n_modules).map(|_| (0..6).map(|_| 0.1 + random.unit()).collect()).collect();
                let place = |module: &ModuleScores, option: &gamma_core::ScoredOption| {
                    let module = table.modules().iter().position(|own| own.name == module.name).unwrap();
                    let own = table.modules()[module].options.iter().position(|own| own == option).unwrap();
                    (module, own)
                };
                let fastest = |times: &[f64]| times.iter().copied().fold(f64::MAX, f64::min);
                let bound: f64 = times.iter().rev().map(|own| fastest(own)).sum();
                let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(8.0));
                let problem = problem.linear("as fast as can be", ..=bound, |module, option| {
                    let (module, option) = place(module, option);
                    times[module][option]
                });
                let plan = problem.solve(&Limits::default()).unwrap_or_else(|error| panic!("{error}"));
                for (choice, (module, times)) in plan.choices().iter().zip(table.modules().iter().zip(&times))
                {
                    let own = module.options.iter().position(|o| o.format == choice.format).unwrap();
                    assert!(times[own] <= fastest(times));
                }
            }
        }
    }

    #[test]
    fn without_time_there_is_an_error_or_a_plan_with_an_honest_gap() {
        let mut random = Random::new(2);
        let limits = Limits::default().time_limit(Duration::ZERO);
        for _ in 0..40 {
            let table = model(&mut random, 4..=7, 2..=4);
            if widest(&table) > 1 << 45 {
                continue;
            }
            for kind in [ScoreKind::Loss, ScoreKind::Logits] {
                let problem = Problem::new(&table, kind, Budget::bytes(widest(&table) / 11))
                    .rules(["formats 2", "modules 2 1", "bytes * 1000000000"].map(rule));
                let exact = problem.solve(&Limits::default());
                match (problem.solve(&limits), &exact) {
                    (Err(ProjectError::TimeLimit { seconds }), _) => assert!(seconds <= 0.0),
                    (Ok(plan), Ok(exact)) => {
                        let proof = plan.certificate().unwrap();
                        assert!(proof.used_bits <= proof.limit_bits);
                        let margin = 1e-12 * exact.cost().abs() + exact.certificate().unwrap().gap();
                        assert!(kind == ScoreKind::Logits || proof.bound <= exact.cost() + margin);
                    }
                    (Err(own), Err(exact)) => assert_eq!(own, *exact),
                    (own, exact) => panic!("{own:?} instead of {exact:?}"),
                }
                // No time is no proof that there is no plan.
                let asked = problem.check(&limits);
                assert!(
                    exact.is_err() || matches!(asked, Ok(()) | Err(ProjectError::TimeLimit { .. })),
                    "{asked:?}"
                );
                let plan = problem.top(3, &limits);
                assert!(!matches!(plan, Err(ProjectError::Highs { .. })), "{plan:?}");
            }
        }
    }
}

/// A build without HiGHS.
#[cfg(not(feature = "highs"))]
mod without_highs {
    use super::*;

    #[test]
    fn what_needs_highs_is_named() {
        let table = table();
        let problem = Problem::new(&table, ScoreKind::Loss, four_bits())
            .rule(rule("tie vllm"))
            .rule(rule("formats 1"))
            .rule(rule("bytes *.mlp.* 60"));
        let error = problem.solve(&Limits::default()).unwrap_err();
        let constraints = ["bytes *.mlp.* 60", "formats 1"].map(str::to_owned).to_vec();
        assert_eq!(error, ProjectError::NoHighs { constraints });
        assert!(error.to_string().contains("`formats 1`"), "{error}");
        let asked = Problem::new(&table, ScoreKind::Loss, four_bits());
        let error = asked.solve(&Limits::default().solver(gamma_ilp::Solver::Highs)).unwrap_err();
        assert_eq!(error, ProjectError::NoHighs { constraints: Vec::new() });
    }

    #[test]
    fn rows_that_the_best_plan_obeys_by_itself_need_no_highs() {
        let table = table();
        let plan = |problem: Problem<'_>| problem.solve(&Limits::default()).map(|plan| plan.stored_bits());
        let problem = Problem::new(&table, ScoreKind::Loss, four_bits());
        let free = plan(problem.clone()).unwrap();
        assert_eq!(plan(problem.clone().rule(rule("formats 4")).rule(rule("bytes * 10000"))), Ok(free));
        assert!(problem.rule(rule("formats 4")).check(&Limits::default()).is_ok());
    }
}

/// Costs that stand for "never": their sums overflow.
#[test]
fn ties_of_forbidden_options_are_solved() {
    let mut modules = table().modules().to_vec();
    for module in &mut modules[..2] {
        module.options[3].cost = f64::MAX;
        module.options[0].cost = f64::MAX;
    }
    let table = ScoreTable::new(modules).unwrap();
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::bytes(8 * 12)).rule(rule("tie vllm"));
    let plan = problem.solve(&Limits::default()).unwrap();
    let bits: Vec<u8> = plan.choices().iter().map(|choice| choice.format.bits().bits()).collect();
    assert!(
        [[3, 3, 2, 4], [3, 3, 3, 3], [3, 3, 4, 2], [4, 4, 2, 2]]
            .contains(&[bits[0], bits[1], bits[2], bits[3]])
    );
}

fn any_pattern() -> impl Strategy<Value = String> {
    let segment =
        prop_oneof![Just("*"), Just("model"), Just("layers"), Just("[0-3]"), Just("1?"), Just("q_proj")];
    let glob = prop::collection::vec(segment, 1..6).prop_map(|segments| format!("{}*", segments.join(".")));
    let regex = "[a-z_.*]{1,3}".prop_filter_map("a regular expression", |text| {
        let text = format!("re:{text}(a|[0-9]+)\\.x");
        text.parse::<gamma_ilp::Pattern>().is_ok().then_some(text)
    });
    prop_oneof![glob.prop_filter("no `**`", |text| text.parse::<gamma_ilp::Pattern>().is_ok()), regex]
}

fn any_which() -> impl Strategy<Value = Which> {
    let bits = (2_u8..=8).prop_map(|bits| BitWidth::new(bits).expect("2 to 8"));
    let int = (bits.clone(), 1_usize..=65_536, any::<bool>()).prop_map(|(bits, group, symmetric)| {
        let group = gamma_core::GroupSize::new(group).expect("a group size");
        if symmetric { Format::symmetric(bits, group) } else { Format::asymmetric(bits, group) }
    });
    let custom =
        (bits.clone(), "[A-Za-z0-9_.-]{1,12}").prop_map(|(bits, name)| Format::Custom { bits, name });
    prop_oneof![bits.prop_map(Which::Bits), int.prop_map(Which::Format), custom.prop_map(Which::Format)]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let modules =
        any_pattern().prop_map(|text| text.parse::<gamma_ilp::Pattern>().expect("a pattern")).boxed();
    let engines =
        [Engine::Vllm, Engine::Sglang, Engine::TensorRtLlm, Engine::LlamaCpp, Engine::MistralRs, Engine::Mlx];
    prop_oneof![
        prop::sample::select(engines.to_vec()).prop_map(|engine| Rule::Tie(Ties::Engine(engine))),
        modules.clone().prop_map(|modules| Rule::Tie(Ties::Pattern(modules))),
        (modules.clone(), any_which()).prop_map(|(modules, option)| Rule::Pin { modules, option }),
        (modules.clone(), any_which()).prop_map(|(modules, option)| Rule::Min { modules, option }),
        (modules.clone(), any_which()).prop_map(|(modules, option)| Rule::Max { modules, option }),
        modules.clone().prop_map(|modules| Rule::Exclude { modules }),
        (modules, any::<u64>()).prop_map(|(modules, at_most)| Rule::Bytes { modules, at_most }),
        (any_which(), any::<usize>()).prop_map(|(option, at_most)| Rule::Modules { option, at_most }),
        any::<usize>().prop_map(|at_most| Rule::Formats { at_most }),
    ]
}

proptest! {
    #[test]
    fn every_rule_reads_back_from_its_text(rule in any_rule()) {
        let text = rule.to_string();
        prop_assert_eq!(text.parse(), Ok(rule.clone()), "{}", text);
        // White space between words does not matter.
        let spaced = format!("  {}\t", text.replace(' ', "   "));
        prop_assert_eq!(spaced.parse::<Rule>(), Ok(rule));
    }

    #[test]
    fn no_text_upsets_the_reader(text in "(tie|pin|min|max|exclude|bytes|modules|formats|)( [ -~]{0,12}){0,3}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }
}

#[test]
fn a_regular_expression_cannot_leave_the_whole_name() {
    for text in ["re:q)|(?:x", "re:a)(b"] {
        assert!(text.parse::<gamma_ilp::Pattern>().is_err(), "{text}");
    }
    let pattern: gamma_ilp::Pattern = "re:q_proj|up_proj".parse().unwrap();
    assert!(NAMES.iter().all(|name| !pattern.matches(&ModuleName::new(*name))));
}
