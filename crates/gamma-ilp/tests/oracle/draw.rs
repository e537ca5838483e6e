//! Random laws and budgets.

use gamma_core::{Budget, CacheShape, FixedRole, FixedTensor, Remainder};

use super::{Case, Format, Kind, Law, Random, ScoreKind, ScoreTable, Target, formats};
use crate::random::{model, widest};

fn target(random: &mut Random, table: &ScoreTable) -> Target {
    let modules = table.modules();
    let name = modules[random.below(modules.len() as u64) as usize].name.as_str();
    let other = modules[random.below(modules.len() as u64) as usize].name.role();
    let segments: Vec<&str> = name.split('.').collect();
    let role = segments[segments.len() - 1].to_owned();
    match random.below(6) {
        0 => Target::All,
        1 | 2 => Target::Role(role),
        3 => Target::Block(segments[2].parse().expect("a block")),
        4 => Target::Name(name.to_owned()),
        _ => Target::Roles(role, other.to_owned()),
    }
}

fn kind(random: &mut Random, table: &ScoreTable) -> Kind {
    let pool = formats();
    let modules = table.modules();
    let options = &modules[random.below(modules.len() as u64) as usize].options;
    let present = options[random.below(options.len() as u64) as usize].format.clone();
    match random.below(8) {
        0 => Kind::Format(pool[random.below(pool.len() as u64) as usize].clone()),
        1..=3 => Kind::Format(present),
        _ => Kind::Bits(present.bits().bits()),
    }
}

/// A law that keeps the problem a knapsack.
fn simple(random: &mut Random, table: &ScoreTable) -> Law {
    const ENGINES: [&str; 6] = ["vllm", "sglang", "tensorrt-llm", "llama.cpp", "mistral.rs", "mlx"];
    match random.below(12) {
        0..=2 => Law::TieEngine(ENGINES[random.below(6) as usize]),
        3 | 4 => match target(random, table) {
            // A name alone is no pattern for a tie.
            Target::Name(_) => Law::Tie(Target::All),
            target => Law::Tie(target),
        },
        5 | 6 => Law::Pin(target(random, table), kind(random, table)),
        7 | 8 => Law::Min(target(random, table), kind(random, table)),
        9 | 10 => Law::Max(target(random, table), kind(random, table)),
        _ => Law::Exclude(target(random, table)),
    }
}

/// A plan to compare with; now and then it lacks modules.
fn former(random: &mut Random, table: &ScoreTable) -> Vec<Option<Format>> {
    let lacking = random.below(4) == 0;
    let pick = |(index, module): (usize, &gamma_core::ModuleScores)| {
        let option = &module.options[random.below(module.options.len() as u64) as usize];
        // The first one stays, for a plan has a module.
        (index == 0 || !lacking || random.below(3) > 0).then(|| option.format.clone())
    };
    table.modules().iter().enumerate().map(pick).collect()
}

/// A law that joins modules; often just tight or just too tight.
fn row(random: &mut Random, table: &ScoreTable, index: usize) -> Law {
    let between = |random: &mut Random, low: u64, high: u64| low + random.below(high.saturating_sub(low) + 2);
    match random.below(8) {
        0 | 1 => {
            let target = target(random, table);
            let own = || table.modules().iter().filter(|module| target.contains(&module.name));
            let low: u64 = own().map(|module| module.options[0].stored_bits).sum();
            let high: u64 = own().map(|module| module.options.last().expect("an option").stored_bits).sum();
            Law::Bytes(target, between(random, (low / 8).saturating_sub(1), high / 8))
        }
        2 => Law::Modules(kind(random, table), random.below(table.modules().len() as u64 + 1) as usize),
        3 => Law::Formats(random.below(5).min(random.below(4)) as usize),
        4 | 5 => {
            let quarters: Vec<Vec<i64>> = table
                .modules()
                .iter()
                .map(|m| m.options.iter().map(|_| random.below(41).cast_signed() - 20).collect())
                .collect();
            let reach =
                |pick: fn(&Vec<i64>) -> Option<&i64>| -> i64 { quarters.iter().filter_map(pick).sum() };
            let (least, most) = (reach(|own| own.iter().min()), reach(|own| own.iter().max()));
            let mut end = || least - 1 + random.below((most - least).cast_unsigned() + 3).cast_signed();
            let (a, b) = (end(), end());
            let bounds = match random.below(5) {
                0 => (Some(a), None),
                1 => (None, Some(a)),
                2 => (Some(a), Some(a)),
                _ => (Some(a.min(b)), Some(a.max(b))),
            };
            Law::Linear { name: format!("linear {index}"), quarters, bounds }
        }
        6 => {
            let count = random.below(table.modules().len() as u64 + 1) as usize;
            Law::NearModules(former(random, table), count)
        }
        _ => {
            let bytes = random.below(widest(table) / 8 + 1);
            Law::NearBytes(former(random, table), if random.below(5) == 0 { 0 } else { bytes })
        }
    }
}

/// A budget of any kind that leaves `bits`, as nearly as its kind can.
fn budget(random: &mut Random, table: &ScoreTable, bits: u64) -> (Budget, Option<Remainder>) {
    let weights = table.weights() as f64;
    let tensor = |bytes| FixedTensor { name: "embedding".into(), role: FixedRole::Embedding, bytes };
    let remainder = Remainder {
        tensors: vec![tensor(random.below(5000)), tensor(random.below(300))],
        cache: Some(CacheShape { blocks: 2, kv_heads: 3, head_dim: 8 }),
        weight_bits: 16,
        container: random.below(200),
        gguf: None,
    };
    let fixed: u64 = remainder.tensors.iter().map(|tensor| tensor.bytes).sum();
    let budget = match random.below(10) {
        0 => Budget::average_bits(2.0 + random.below(25) as f64 / 4.0),
        1 => Budget::stored_bits_per_weight((bits as f64 / weights).max(0.01)),
        2 | 3 => Budget::code_bits_per_weight(2.0 + random.below(49) as f64 / 8.0),
        4 => Budget::artifact(bits / 8 + fixed + remainder.container),
        5 => {
            let tokens = random.below(9);
            Budget::device(bits / 8 + fixed + 2 * 2 * 3 * 8 * 2 * tokens, tokens)
        }
        _ => Budget::bytes(bits / 8),
    };
    (budget, Some(remainder))
}

/// A case of at most so many laws that keep it a knapsack, and so many that do not.
pub fn case(random: &mut Random, simple_laws: u64, rows: u64) -> Case {
    let table = loop {
        // Of modules with four options fewer, so that all plans can be listed quickly.
        let table =
            if random.below(3) == 0 { model(random, 2..=7, 1..=3) } else { model(random, 2..=5, 1..=4) };
        // Sizes beyond the integers of a float concern knapsacks alone.
        if rows == 0 || widest(&table) < 1 << 45 {
            break table;
        }
    };
    let mut laws: Vec<Law> = (0..random.below(simple_laws + 1)).map(|_| simple(random, &table)).collect();
    for index in 0..random.below(rows + 1).max(rows.min(1)) {
        laws.insert(random.below(laws.len() as u64 + 1) as usize, row(random, &table, index as usize));
    }
    // Rules that say the same thing twice have one label.
    let mut seen = Vec::new();
    laws.retain(|law| {
        let new = !seen.contains(&law.label());
        seen.push(law.label());
        new
    });
    let (low, high) = (table.minimum_bits(), widest(&table));
    let bits = match random.below(8) {
        0 => low.saturating_sub(8),
        1 => low,
        2 => high + 8 * random.below(9),
        _ => low + random.below((high - low) / 8 + 1) * 8,
    };
    let (budget, remainder) = budget(random, &table, bits);
    let kind = if random.below(2) == 0 { ScoreKind::Loss } else { ScoreKind::Logits };
    Case { table, kind, budget, remainder, laws }
}
