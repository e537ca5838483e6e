//! Times the solvers on tables of realistic and of awkward sizes and prints one line per case.
//!
//! `cargo run --release -p gamma-ilp --example timing -- [seconds for HiGHS per budget, default 0]`

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use gamma_core::{
    BitWidth, Budget, Format, GroupSize, ModuleName, ModuleScores, ScoreKind, ScoreTable, ScoredOption,
};
use gamma_ilp::{Limits, Solver, project};

/// `[out_features, in_features]` of one decoder block of Llama 3.1 8B: q, k, v, o, gate, up, down.
const BLOCK: [[usize; 2]; 7] =
    [[4096, 4096], [1024, 4096], [1024, 4096], [4096, 4096], [14336, 4096], [14336, 4096], [4096, 14336]];
const WIDTHS: [u8; 6] = [2, 3, 4, 5, 6, 8];
const SEEDS: u64 = 5;

/// `SplitMix64` (Steele, Lea, Flood 2014), uniform in [0, 1).
fn unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Costs fall by about four per bit, from sensitivities that span four decades.
fn table(n_modules: usize, regular: bool, seed: u64) -> ScoreTable {
    let mut state = seed;
    let modules = (0..n_modules).map(|index| {
        let shape =
            if regular { BLOCK[index % 7] } else { [4096, 256 + (unit(&mut state) * 14_000.0) as usize] };
        let sensitivity = 10_f64.powf(4.0 * unit(&mut state) - 4.0);
        let option = |bits: u8| {
            let bits = BitWidth::new(bits).expect("2 to 8");
            let format = Format::asymmetric(bits, GroupSize::G128);
            let noise = 0.5 + unit(&mut state);
            let jitter = if regular { 0 } else { (unit(&mut state) * 1e6) as u64 };
            let stored = format.stored_bits(shape).expect("integer format") + jitter;
            let cost = sensitivity * 4_f64.powi(-i32::from(bits.bits())) * noise;
            ScoredOption::new(format, stored, cost)
        };
        let options = WIDTHS.map(option).to_vec();
        ModuleScores {
            name: ModuleName::new(format!("model.layers.{}.{}", index / 7, index % 7)),
            shape,
            options,
        }
    });
    ScoreTable::new(modules.collect()).expect("a legal table")
}

/// Median and longest time over 15 budgets of several tables, and how many plans were not proven
/// optimal.
fn time(
    n_modules: usize,
    regular: bool,
    kind: ScoreKind,
    limits: &Limits,
    seeds: u64,
) -> (Vec<Duration>, usize) {
    let mut times = Vec::new();
    let mut unproven = 0;
    for seed in 0..seeds {
        let table = table(n_modules, regular, seed);
        for budget in 0..15 {
            let budget = Budget::average_bits(2.2 + 0.25 * f64::from(budget));
            let start = Instant::now();
            let plan = black_box(project(&table, kind, budget, limits)).expect("a feasible budget");
            times.push(start.elapsed());
            let certificate = plan.certificate().expect("projections are certified");
            unproven += usize::from(certificate.gap() > 1e-9 * certificate.cost.abs());
        }
    }
    times.sort_unstable();
    (times, unproven)
}

#[expect(clippy::print_stdout, reason = "this program's purpose is its table")]
fn main() {
    let seconds: u64 = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let knapsack = Limits::default().solver(Solver::Knapsack);
    let highs = Limits::default().solver(Solver::Highs).time_limit(Duration::from_secs(seconds));
    println!("| modules | sizes | scores | solver | median ms | longest ms | plans | unproven |");
    println!("|---|---|---|---|---|---|---|---|");
    for n_modules in [224, 448, 5000] {
        for regular in [true, false] {
            for (kind, name, limits) in [
                (ScoreKind::Loss, "knapsack", &knapsack),
                (ScoreKind::Logits, "knapsack", &knapsack),
                (ScoreKind::Loss, "highs", &highs),
            ] {
                if name == "highs" && seconds == 0 {
                    continue;
                }
                let seeds = if name == "highs" { 1 } else { SEEDS };
                let (times, unproven) = time(n_modules, regular, kind, limits, seeds);
                let ms = |time: Duration| time.as_secs_f64() * 1e3;
                println!(
                    "| {n_modules} | {} | {kind:?} | {name} | {:.3} | {:.3} | {} | {unproven} |",
                    if regular { "Llama" } else { "irregular" },
                    ms(times[times.len() / 2]),
                    ms(times[times.len() - 1]),
                    times.len()
                );
            }
        }
    }
}
