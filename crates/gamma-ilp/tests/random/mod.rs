//! Random tables of many shapes from a small deterministic generator.
#![allow(dead_code, reason = "every test file uses another part")]

use std::ops::RangeInclusive;

use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, ScoreTable, ScoredOption};

/// `SplitMix64` (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A table of these stored bits and costs.
pub fn table_of(modules: &[Vec<(u64, f64)>]) -> ScoreTable {
    let option = |(index, &(bits, cost)): (usize, &(u64, f64))| {
        let width = BitWidth::new(2 + (index % 7) as u8).expect("2 to 8");
        ScoredOption::new(Format::Custom { bits: width, name: format!("option-{index}") }, bits, cost)
    };
    let module = |(index, options): (usize, &Vec<(u64, f64)>)| ModuleScores {
        name: ModuleName::new(format!("model.layers.{index}.proj")),
        shape: [1, 1],
        options: options.iter().enumerate().map(option).collect(),
    };
    ScoreTable::new(modules.iter().enumerate().map(module).collect()).expect("a legal table")
}

pub fn widest(table: &ScoreTable) -> u64 {
    table.modules().iter().map(|m| m.options.last().expect("an option").stored_bits).sum()
}

/// Blocks of the shapes of a Llama model at a quarter of the size, costs falling by about four per
/// bit from sensitivities that span three powers of ten.
pub fn llama(random: &mut Random, n_modules: usize) -> ScoreTable {
    const BLOCK: [[usize; 2]; 7] =
        [[2048, 2048], [512, 2048], [512, 2048], [2048, 2048], [7168, 2048], [7168, 2048], [2048, 7168]];
    let modules = (0..n_modules).map(|index| {
        let shape = BLOCK[index % 7];
        let sensitivity = 10_f64.powf(3.0 * random.unit());
        let options = [2, 3, 4, 5, 6, 8].map(|bits| {
            let format = Format::asymmetric(BitWidth::new(bits).expect("2 to 8"), GroupSize::G128);
            let stored = format.stored_bits(shape).expect("integer format");
            let cost = sensitivity * 4_f64.powi(-i32::from(bits)) * (0.5 + random.unit());
            ScoredOption::new(format, stored, cost)
        });
        let name = ModuleName::new(format!("model.layers.{}.{}", index / 7, index % 7));
        ModuleScores { name, shape, options: options.to_vec() }
    });
    ScoreTable::new(modules.collect()).expect("a legal table")
}

/// How the sizes of a table are drawn, in bytes.
#[derive(Clone, Copy)]
enum Sizes {
    /// A few small numbers: many plans of equal size.
    Small,
    /// Multiples of a common step.
    Regular(u64),
    /// Anything.
    Irregular,
    /// From this number to twice as much, near the largest that a table can hold.
    Huge(u64),
}

/// How the costs are drawn; all are multiples of 2^-40 below 2^55, so that tests can add them up
/// without rounding.
#[derive(Clone, Copy)]
enum Costs {
    /// Small integers: many ties.
    Integer,
    /// All the same.
    Equal,
    /// Over several powers of ten, falling with the size.
    Falling,
    /// Positive and negative, in no order.
    Wild,
    /// Proportional to the size: the linear relaxation has many solutions.
    Proportional,
    /// Some options forbidden by an enormous cost.
    Forbidding,
}

/// A random table; the kinds of sizes and costs are drawn as well.
pub fn table(random: &mut Random, modules: RangeInclusive<u64>, options: RangeInclusive<u64>) -> ScoreTable {
    let n_modules = random.within(modules);
    let sizes = match random.below(5) {
        0 | 1 => Sizes::Small,
        2 => Sizes::Regular(random.within(1..=1000)),
        3 => Sizes::Irregular,
        _ => Sizes::Huge((1 << 59) / n_modules),
    };
    let costs = match random.below(7) {
        0 => Costs::Integer,
        1 => Costs::Equal,
        2 | 3 => Costs::Falling,
        4 => Costs::Wild,
        5 => Costs::Proportional,
        _ => Costs::Forbidding,
    };
    let modules: Vec<_> = (0..n_modules)
        .map(|_| (0..random.within(options.clone())).map(|_| draw(random, sizes, costs)).collect())
        .collect();
    table_of(&modules)
}

fn draw(random: &mut Random, sizes: Sizes, costs: Costs) -> (u64, f64) {
    let bytes = match sizes {
        Sizes::Small => random.within(0..=9),
        Sizes::Regular(step) => step * random.within(1..=8),
        Sizes::Irregular => random.within(1..=100_000_000),
        Sizes::Huge(half) => half + random.below(half),
    };
    let grid = |x: f64| (x * 2_f64.powi(40)).round() / 2_f64.powi(40);
    let cost = match costs {
        Costs::Integer => random.within(0..=4) as f64 - 2.0,
        Costs::Equal => 0.25,
        Costs::Falling => grid(10_f64.powf(3.0 * random.unit()) / (1.0 + bytes as f64).min(1e6)),
        Costs::Wild => grid(10_f64.powf(6.0 * random.unit()) * (random.unit() - 0.5)),
        Costs::Proportional => 8.0 - (bytes % (1 << 20)) as f64 / 1024.0,
        Costs::Forbidding if random.below(4) == 0 => 2_f64.powi(54),
        Costs::Forbidding => grid(random.unit() * 1e-6),
    };
    (8 * bytes, cost)
}

/// Formats that the modules of [`model`] share; the first four of one bit-width each.
pub fn formats() -> Vec<Format> {
    let texts = [
        "int2:g128:asym:f16",
        "int3:g128:asym:f16",
        "int4:g128:asym:f16",
        "int8:g128:asym:f16",
        "int4:g64:sym:f16",
        "custom3:ternary",
    ];
    texts.map(|text| text.parse().expect("a format")).to_vec()
}

/// Names of linear modules in model order; some of a block are experts.
fn names(random: &mut Random, count: usize) -> Vec<ModuleName> {
    const ROLES: [&str; 7] = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let experts = random.below(4) == 0;
    let mut all = Vec::new();
    for block in 0..random.within(1..=2) {
        for role in ROLES {
            match role.strip_prefix("mlp.").filter(|_| experts) {
                Some(role) => {
                    all.extend((0..2).map(|e| format!("model.layers.{block}.mlp.experts.{e}.{role}")));
                }
                None => all.push(format!("model.layers.{block}.{role}")),
            }
        }
    }
    while all.len() > count {
        all.remove(random.below(all.len() as u64) as usize);
    }
    all.into_iter().map(ModuleName::new).collect()
}

/// The sizes and costs of [`table`] for modules with names, shapes and formats as real ones have
/// them: formats are shared, mostly, and mostly a wider one is larger.
pub fn model(random: &mut Random, modules: RangeInclusive<u64>, options: RangeInclusive<u64>) -> ScoreTable {
    let plain = table(random, modules, options);
    let names = names(random, plain.modules().len());
    let (shared, ordered) = (random.below(3) > 0, random.below(4) > 0);
    let module = |(module, name): (&ModuleScores, ModuleName)| {
        let mut pool = formats();
        while pool.len() > module.options.len() {
            // Where formats are shared, the same ones are left out everywhere.
            let out = if shared { pool.len() as u64 - 1 } else { random.below(pool.len() as u64) };
            pool.remove(out as usize);
        }
        if ordered {
            pool.sort_by_key(Format::bits);
        }
        let mut options = module.options.clone();
        for (option, format) in options.iter_mut().zip(pool) {
            option.format = format;
        }
        let shape = [random.within(1..=4) as usize, random.within(1..=4) as usize];
        ModuleScores { name, shape, options }
    };
    let modules: Vec<_> = plain.modules().iter().zip(names).map(module).collect();
    ScoreTable::new(modules).expect("a legal table")
}
