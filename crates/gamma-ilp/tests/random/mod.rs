//! Random tables of many shapes from a small deterministic generator.

use std::ops::RangeInclusive;

use gamma_core::{BitWidth, Format, ModuleName, ModuleScores, ScoreTable, ScoredOption};

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (u128::from(self.next()) * u128::from(end) >> 64) as u64
    }

    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
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
    /// Next to the largest that a table can hold.
    Huge,
}

/// How the costs are drawn; all are multiples of 2^-40 below 2^55, so that tests can sum them
/// without rounding.
#[derive(Clone, Copy)]
enum Costs {
    /// Small integers: many ties.
    Integer,
    /// All the same.
    Equal,
    /// Falling with the size, over several powers of ten.
    Falling,
    /// Positive and negative, in no order.
    Wild,
    /// Proportional to the size: every plan of the relaxation is optimal.
    Proportional,
    /// Some options forbidden by an enormous cost.
    Forbidding,
}

/// A random table; the kinds of sizes and costs are drawn as well.
pub fn table(
    random: &mut Random,
    modules: RangeInclusive<u64>,
    options: RangeInclusive<u64>,
) -> ScoreTable {
    let sizes = match random.below(5) {
        0 | 1 => Sizes::Small,
        2 => Sizes::Regular(random.within(1..=1000)),
        3 => Sizes::Irregular,
        _ => Sizes::Huge,
    };
    let costs = [
        Costs::Integer,
        Costs::Equal,
        Costs::Falling,
        Costs::Falling,
        Costs::Wild,
        Costs::Proportional,
        Costs::Forbidding,
    ][random.below(7) as usize];
    let n_modules = random.within(modules);
    let name = |index: u64| ModuleName::new(format!("model.layers.{index}.proj"));
    let modules = (0..n_modules).map(|index| {
        let n_options = random.within(options.clone());
        let options = (0..n_options).map(|option| draw(random, sizes, costs, option)).collect();
        ModuleScores { name: name(index), shape: [1, 1], options }
    });
    ScoreTable::new(modules.collect()).expect("a legal table")
}

fn draw(random: &mut Random, sizes: Sizes, costs: Costs, option: u64) -> ScoredOption {
    let bytes = match sizes {
        Sizes::Small => random.within(0..=9),
        Sizes::Regular(step) => step * random.within(1..=8),
        Sizes::Irregular => random.within(1..=100_000_000),
        Sizes::Huge => (1 << 55) + random.below(1 << 56),
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
    let bits = BitWidth::new(2 + (option % 7) as u8).expect("2 to 8");
    let format = Format::Custom { bits, name: format!("option-{option}") };
    ScoredOption::new(format, 8 * bytes, cost)
}
