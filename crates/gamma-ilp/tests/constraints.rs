//! One constraint at a time: without it the best plan breaks it, with it the best plan obeys it.

mod random;

use gamma_core::{
    Budget, CacheShape, FixedRole, FixedTensor, ModuleName, ModuleScores, Plan, Remainder, ScoreKind,
    ScoreTable, ScoredOption,
};
use gamma_ilp::{Limits, Problem, ProjectError, Rule};
use random::formats;

const UP: &str = "model.layers.0.mlp.up_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";
const GATE: &str = "model.layers.0.mlp.gate_proj";

/// Modules of 8 x 8 weights, options of 2, 3, 4 and 8 bits as far as there are costs.
fn table(modules: &[(&str, &[f64])]) -> ScoreTable {
    let module = |&(name, costs): &(&str, &[f64])| {
        let option = |(format, &cost): (gamma_core::Format, &f64)| {
            let bits = 64 * u64::from(format.bits().bits());
            ScoredOption::new(format, bits, cost)
        };
        let options = formats().into_iter().take(4).zip(costs).map(option).collect();
        ModuleScores { name: ModuleName::new(name), shape: [8, 8], options }
    };
    ScoreTable::new(modules.iter().map(module).collect()).expect("a legal table")
}

fn bits(plan: &Plan) -> Vec<u8> {
    plan.choices().iter().map(|choice| choice.format.bits().bits()).collect()
}

fn rule(text: &str) -> Rule {
    text.parse().expect("a rule")
}

fn solved(problem: &Problem<'_>) -> Vec<u8> {
    bits(&problem.solve(&Limits::default()).expect("a plan"))
}

/// Bytes of the modules of 64 weights at so many bits in total.
fn at(total_bits: u64) -> Budget {
    Budget::bytes(8 * total_bits)
}

/// The best plans without and with the rule.
fn check(modules: &[(&str, &[f64])], budget: Budget, text: &str, without: &[u8], with: &[u8]) {
    let table = table(modules);
    let problem = Problem::new(&table, ScoreKind::Loss, budget);
    assert_eq!(solved(&problem), without, "without `{text}`");
    assert_eq!(solved(&problem.rule(rule(text))), with, "with `{text}`");
}

/// Three modules: the first one gains most from bits, the last one least.
const THREE: [(&str, &[f64]); 3] =
    [(GATE, &[8.0, 3.0, 1.0, 0.0]), (UP, &[4.0, 2.0, 1.4, 1.0]), (DOWN, &[1.0, 0.5, 0.25, 0.0])];

#[test]
fn fusing_engines_tie_queries_keys_and_values_and_gates_with_ups() {
    let modules: [(&str, &[f64]); 6] = [
        ("model.layers.0.self_attn.q_proj", &[1.0, 0.9, 0.8]),
        ("model.layers.0.self_attn.k_proj", &[1.0, 0.9, 0.8]),
        ("model.layers.0.self_attn.v_proj", &[9.0, 5.0, 1.0]),
        ("model.layers.0.self_attn.o_proj", &[2.0, 1.4, 1.0]),
        (GATE, &[7.0, 3.0, 1.0]),
        (UP, &[1.0, 0.5, 0.4]),
    ];
    for engine in ["vllm", "sglang", "tensorrt-llm"] {
        check(&modules, at(18), &format!("tie {engine}"), &[2, 2, 4, 3, 4, 3], &[3, 3, 3, 3, 3, 3]);
    }
    for engine in ["llama.cpp", "mistral.rs", "mlx"] {
        check(&modules, at(18), &format!("tie {engine}"), &[2, 2, 4, 3, 4, 3], &[2, 2, 4, 3, 4, 3]);
    }
}

#[test]
fn engines_tie_experts_as_a_whole_or_by_projection() {
    let modules: [(&str, &[f64]); 5] = [
        ("model.layers.0.mlp.experts.0.gate_proj", &[9.0, 1.0]),
        ("model.layers.0.mlp.experts.0.down_proj", &[3.0, 1.0]),
        ("model.layers.0.mlp.experts.1.gate_proj", &[1.5, 1.0]),
        ("model.layers.0.mlp.experts.1.down_proj", &[2.5, 1.0]),
        ("model.layers.1.mlp.experts.0.down_proj", &[1.0, 0.5]),
    ];
    // Room for two and a half modules: the two that gain most, and all of an engine's group.
    for engine in ["vllm", "sglang", "tensorrt-llm"] {
        check(&modules, at(13), &format!("tie {engine}"), &[3, 3, 2, 3, 2], &[2, 2, 2, 2, 3]);
    }
    for engine in ["llama.cpp", "mistral.rs", "mlx"] {
        check(&modules, at(13), &format!("tie {engine}"), &[3, 3, 2, 3, 2], &[3, 2, 3, 2, 3]);
    }
}

#[test]
fn a_tie_by_pattern_joins_the_modules_of_each_block() {
    let modules: [(&str, &[f64]); 4] = [
        (UP, &[4.0, 1.0]),
        (DOWN, &[1.0, 0.5]),
        ("model.layers.1.mlp.up_proj", &[1.0, 0.5]),
        ("model.layers.1.mlp.down_proj", &[9.0, 1.0]),
    ];
    // Were all four tied, none could have 3 bits.
    check(&modules, at(10), "tie *.mlp.*", &[3, 2, 2, 3], &[2, 2, 3, 3]);
}

#[test]
fn a_pin_leaves_one_option() {
    check(&THREE, at(9), "pin *.down_proj 4", &[4, 3, 2], &[3, 2, 4]);
    check(&THREE, at(9), "pin *.gate_proj int2:g128:asym:f16", &[4, 3, 2], &[2, 4, 3]);
}

#[test]
fn a_minimum_and_a_maximum_cut_options_off() {
    check(&THREE, at(9), "min *.down_proj 3", &[4, 3, 2], &[4, 2, 3]);
    check(&THREE, at(9), "min re:.*up_proj int4:g128:asym:f16", &[4, 3, 2], &[3, 4, 2]);
    check(&THREE, at(9), "max *.gate_proj 3", &[4, 3, 2], &[3, 4, 2]);
    check(&THREE, at(9), "max * int3:g128:asym:f16", &[4, 3, 2], &[3, 3, 3]);
}

#[test]
fn a_minimum_by_format_counts_stored_bits_and_by_width_code_bits() {
    // 3 bits in small groups, which are larger than 4 bits in large ones.
    let mut options = table(&[(UP, &[9.0, 8.0, 1.0])]).modules()[0].options.clone();
    options[1].stored_bits = 300;
    let module = ModuleScores { name: ModuleName::new(UP), shape: [8, 8], options };
    let table = ScoreTable::new(vec![module]).unwrap();
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::bytes(100));
    for (text, expected) in
        [("min * 4", 4), ("max * 3", 3), ("max * int4:g128:asym:f16", 4), ("min * int3:g128:asym:f16", 3)]
    {
        assert_eq!(solved(&problem.clone().rule(rule(text))), [expected], "{text}");
    }
}

#[test]
fn excluded_modules_are_not_allocated_and_their_budget_is_not_either() {
    let table = table(&THREE);
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::stored_bits_per_weight(3.0));
    assert_eq!(solved(&problem), [4, 3, 2]);
    let problem = problem.rule(rule("exclude *.gate_proj"));
    assert_eq!(problem.excluded(), [ModuleName::new(GATE)]);
    assert_eq!(solved(&problem), [4, 2]);
}

#[test]
fn an_excluded_module_weighs_on_the_file_as_it_was() {
    let table = table(&THREE);
    let tensor = FixedTensor { name: "wte".into(), role: FixedRole::Embedding, bytes: 1000 };
    let remainder =
        Remainder { tensors: vec![tensor], cache: None, weight_bits: 16, container: 50, gguf: None };
    let fixed = 1000 + 50;
    let excluded = 64 * 2;
    let budget = |bits_in_all: u64| Budget::artifact(fixed + excluded + 8 * bits_in_all);
    let problem =
        |bits_in_all| Problem::new(&table, ScoreKind::Loss, budget(bits_in_all)).remainder(Some(&remainder));
    assert_eq!(solved(&problem(7)), [8, 8, 4], "the excluded 128 bytes are 16 bits for each weight");
    let problem = problem(7).rule(rule("exclude *.gate_proj"));
    let own = problem.remainder_with_excluded().unwrap();
    assert_eq!(own.tensor_bytes(), 1000 + excluded);
    assert_eq!(
        (own.tensors[1].name.as_str(), own.tensors[1].role),
        (&*format!("{GATE}.weight"), FixedRole::Module)
    );
    let plan = problem.solve(&Limits::default()).unwrap();
    assert_eq!(bits(&plan), [4, 3]);
    assert!(plan.stored_bits() / 8 + own.tensor_bytes() + own.container <= fixed + excluded + 56);
    // Too small a file for what is left out of the plan.
    let error = problem.budget(Budget::artifact(fixed + excluded - 1)).solve(&Limits::default()).unwrap_err();
    let ProjectError::BelowMinimum { missing_bytes, held, .. } = error else { panic!("{error}") };
    assert_eq!(missing_bytes, 1 + 2 * 16);
    assert_eq!(held[0].constraint, "exclude *.gate_proj");
}

#[test]
fn a_device_holds_everything_and_the_cache() {
    let table = table(&THREE);
    let tensor = FixedTensor { name: "wte".into(), role: FixedRole::Embedding, bytes: 1000 };
    let cache = Some(CacheShape { blocks: 1, kv_heads: 2, head_dim: 4 });
    let remainder = Remainder { tensors: vec![tensor], cache, weight_bits: 16, container: 50, gguf: None };
    let device = |tokens| {
        let budget = Budget::device(1000 + 8 * 11, tokens);
        Problem::new(&table, ScoreKind::Loss, budget).remainder(Some(&remainder)).solve(&Limits::default())
    };
    assert_eq!(bits(&device(0).unwrap()), [4, 4, 3]);
    // 16 numbers of 2 bytes for a token.
    assert_eq!(bits(&device(1).unwrap()), [3, 2, 2]);
    assert!(device(2).is_err());
}

#[test]
fn code_bits_leave_scales_out_of_the_account() {
    let mut modules = table(&[(UP, &[5.0, 4.0, 1.0]), (DOWN, &[5.0, 4.0, 0.5])]).modules().to_vec();
    // The scales of the second module take more than its codes.
    modules[1].options.iter_mut().for_each(|option| option.stored_bits += 1000);
    let table = ScoreTable::new(modules).unwrap();
    let problem = Problem::new(&table, ScoreKind::Loss, Budget::code_bits_per_weight(3.0));
    let plan = problem.solve(&Limits::default()).unwrap();
    assert_eq!(bits(&plan), [2, 4]);
    let proof = plan.certificate().unwrap();
    assert_eq!((proof.limit_bits, proof.used_bits), (384, 384));
}

#[test]
fn a_frontier_needs_no_constraint_of_its_own_and_obeys_ties() {
    let table = table(&THREE);
    let problem = Problem::new(&table, ScoreKind::Loss, at(9)).rule(rule("tie vllm"));
    let sizes: Vec<u64> = problem.frontier().unwrap().points.iter().map(|point| point.bits / 64).collect();
    // Gate and up go together.
    assert_eq!(sizes, [6, 8, 10, 11, 12, 20, 24]);
}

/// What joins modules, and so is no knapsack any more.
#[cfg(feature = "highs")]
mod rows {
    use gamma_core::BitWidth;
    use gamma_ilp::{Change, Solver};

    use super::*;

    #[test]
    fn bytes_of_some_modules_are_limited() {
        check(&THREE, at(9), "bytes *.gate_proj 24", &[4, 3, 2], &[3, 4, 2]);
        check(&THREE, at(9), "bytes re:.*(gate|up)_proj 40", &[4, 3, 2], &[3, 2, 4]);
    }

    #[test]
    fn two_devices_have_a_budget_each() {
        let modules: [(&str, &[f64]); 4] = [
            (UP, &[9.0, 7.0, 1.0]),
            (DOWN, &[8.0, 4.0, 1.0]),
            ("model.layers.1.mlp.up_proj", &[1.0, 0.5, 0.4]),
            ("model.layers.1.mlp.down_proj", &[1.0, 0.6, 0.4]),
        ];
        let table = table(&modules);
        let problem = Problem::new(&table, ScoreKind::Loss, at(12));
        assert_eq!(solved(&problem), [4, 4, 2, 2]);
        let problem = problem.rule(rule("bytes model.layers.0.* 48")).rule(rule("bytes model.layers.1.* 40"));
        assert_eq!(solved(&problem), [4, 2, 3, 2]);
    }

    #[test]
    fn modules_of_an_option_are_counted() {
        check(&THREE, at(9), "modules 4 0", &[4, 3, 2], &[3, 3, 3]);
        check(&THREE, at(12), "modules int4:g128:asym:f16 1", &[4, 4, 4], &[4, 3, 3]);
    }

    #[test]
    fn different_formats_are_counted() {
        let modules: [(&str, &[f64]); 3] =
            [(GATE, &[9.0, 5.0, 1.0]), (UP, &[4.0, 2.0, 1.9]), (DOWN, &[1.0, 0.8, 0.7])];
        check(&modules, at(9), "formats 2", &[4, 3, 2], &[4, 2, 2]);
        check(&modules, at(9), "formats 1", &[4, 3, 2], &[3, 3, 3]);
        let table = table(&THREE);
        let both = Problem::new(&table, ScoreKind::Loss, at(9)).rules([rule("formats 1"), rule("formats 3")]);
        assert_eq!(solved(&both), [3, 3, 3], "the stricter one counts");
    }

    #[test]
    fn a_plan_may_change_few_modules() {
        let table = table(&THREE);
        let former = Plan::from_picks(&table, &[0, 1, 1], None).unwrap();
        let problem = Problem::new(&table, ScoreKind::Loss, at(9));
        assert_eq!(solved(&problem), [4, 3, 2]);
        let near = |most| solved(&problem.clone().near(&former, Change::Modules(most)));
        assert_eq!(near(0), [2, 3, 3]);
        assert_eq!(near(1), [3, 3, 3]);
        assert_eq!(near(2), [4, 3, 2]);
    }

    #[test]
    fn a_plan_may_change_few_bytes() {
        let table = table(&THREE);
        let former = Plan::from_picks(&table, &[0, 1, 2], None).unwrap();
        let problem = Problem::new(&table, ScoreKind::Loss, at(9));
        let near = |most| solved(&problem.clone().near(&former, Change::Bytes(most)));
        // Gate at 4 and down at 2 bits are 48 bytes.
        assert_eq!(near(48), [4, 3, 2]);
        assert_eq!(near(47), [3, 3, 2]);
        assert_eq!(near(39), [2, 3, 4]);
    }

    #[test]
    fn a_module_that_the_former_plan_lacks_counts_as_changed() {
        let (all, two) = (table(&THREE), table(&THREE[..2]));
        let former = Plan::from_picks(&two, &[2, 1], None).unwrap();
        let problem = Problem::new(&all, ScoreKind::Loss, at(9));
        assert!(problem.clone().near(&former, Change::Modules(0)).solve(&Limits::default()).is_err());
        assert_eq!(solved(&problem.near(&former, Change::Modules(1))), [4, 3, 2]);
    }

    #[test]
    fn storage_and_latency_are_budgets_at_once() {
        let table = table(&THREE);
        let latency = |module: &ModuleScores, option: &ScoredOption| {
            let slow = if module.name.role() == "gate_proj" { 2.0 } else { 1.0 };
            slow * f64::from(option.format.bits().bits())
        };
        let problem = Problem::new(&table, ScoreKind::Loss, at(9));
        let fast = problem.clone().linear("at most 12 ms", ..=12.0, latency);
        assert_eq!(solved(&problem), [4, 3, 2]);
        assert_eq!(solved(&fast), [3, 4, 2]);
        // A lower bound, by a coefficient that only some options have.
        let wide = |_: &ModuleScores, option: &ScoredOption| {
            f64::from(u8::from(option.format.bits() == BitWidth::B3))
        };
        assert_eq!(solved(&problem.linear("two of 3 bits", 2.0.., wide)), [3, 3, 3]);
    }

    #[test]
    fn logits_fill_the_budget_among_the_plans_that_obey() {
        // Wider is dearer.
        let table = table(&[(UP, &[0.0, 1.0, 2.5]), (DOWN, &[0.0, 3.0, 4.0])]);
        let problem = Problem::new(&table, ScoreKind::Logits, at(6));
        assert_eq!(solved(&problem), [3, 2]);
        // Nothing of 5 or 6 is left, so the window of one bit is doubled.
        let problem = problem.rule(rule("modules 3 0")).rule(rule("modules 4 0"));
        assert_eq!(solved(&problem), [2, 2]);
    }

    #[test]
    fn the_knapsack_solver_alone_names_what_it_cannot_obey() {
        let table = table(&THREE);
        let problem = Problem::new(&table, ScoreKind::Loss, at(9)).rule(rule("formats 2"));
        let limits = Limits::default().solver(Solver::Knapsack);
        let error = problem.solve(&limits).unwrap_err();
        assert!(error.to_string().contains("`formats 2`"), "{error}");
        let enough = Problem::new(&table, ScoreKind::Loss, at(9)).rule(rule("formats 3"));
        assert_eq!(bits(&enough.solve(&limits).unwrap()), [4, 3, 2]);
    }
}
