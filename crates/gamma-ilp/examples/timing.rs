//! Times the solvers, on tables as models have them and on tables made to be hard, as Markdown.
//!
//! `cargo run --release -p gamma-ilp --example timing -- [--seconds N] [--large] [--states N]`
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `--seconds N` | 10 | time limit of HiGHS for each plan; 0 leaves HiGHS out |
//! | `--large` | no | HiGHS for 50,000 modules as well |
//! | `--states N` | 10,000,000 | the largest `Limits::max_states` for the hard tables |

#![allow(clippy::print_stdout, reason = "this program's purpose is its tables")]

use std::{
    fmt::Write as _,
    fs,
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use gamma_core::{
    BitWidth, Budget, Format, GroupSize, ModuleName, ModuleScores, Plan, ScoreKind, ScoreTable, ScoredOption,
};
use gamma_ilp::{Limits, ProjectError, Solver, project};

/// `[out_features, in_features]` of one decoder block of Llama 3.1 8B: q, k, v, o, gate, up, down.
const BLOCK: [[usize; 2]; 7] =
    [[4096, 4096], [1024, 4096], [1024, 4096], [4096, 4096], [14336, 4096], [14336, 4096], [4096, 14336]];
const WIDTHS: [u8; 6] = [2, 3, 4, 5, 6, 8];
/// Average bits, from 2.2 in steps of 0.25.
const BUDGETS: usize = 15;

/// Modules of a table, and how many tables and budgets each solver gets.
struct Size {
    modules: usize,
    tables: u64,
    highs_budgets: usize,
    /// Whether HiGHS solves it only when asked.
    large: bool,
}

const SIZES: [Size; 5] = [
    Size { modules: 42, tables: 5, highs_budgets: BUDGETS, large: false },
    Size { modules: 224, tables: 5, highs_budgets: BUDGETS, large: false },
    Size { modules: 448, tables: 5, highs_budgets: BUDGETS, large: false },
    Size { modules: 5000, tables: 5, highs_budgets: 3, large: false },
    Size { modules: 50_000, tables: 1, highs_budgets: 3, large: true },
];

/// `SplitMix64` (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in [0, 1).
fn unit(state: &mut u64) -> f64 {
    (next(state) >> 11) as f64 / (1_u64 << 53) as f64
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
        let name = ModuleName::new(format!("model.layers.{}.{}", index / 7, index % 7));
        ModuleScores { name, shape, options }
    });
    ScoreTable::new(modules.collect()).expect("a legal table")
}

/// Times of many plans.
#[derive(Default)]
struct Times {
    /// `None` where the time limit ended the work.
    each: Vec<Option<Duration>>,
    unproven: usize,
}

impl Times {
    fn add(&mut self, table: &ScoreTable, kind: ScoreKind, budget: Budget, solver: Solver, seconds: u64) {
        let limit = Duration::from_secs(seconds);
        let limits = Limits::default().solver(solver).time_limit(limit);
        let start = Instant::now();
        let plan = black_box(project(table, kind, budget, &limits));
        let time = start.elapsed();
        let proven = match &plan {
            Ok(plan) => gap(plan) <= tolerance(solver),
            Err(ProjectError::TimeLimit { .. }) => false,
            Err(error) => panic!("{budget}: {error}"),
        };
        self.unproven += usize::from(!proven);
        self.each.push((proven || solver != Solver::Highs || time < limit).then_some(time));
    }

    /// The longest of the shortest `part`; `None` beyond the time limit.
    fn quantile(&self, part: f64) -> Option<f64> {
        let mut ms: Vec<f64> = self.each.iter().map(|time| time.map_or(f64::INFINITY, ms)).collect();
        ms.sort_unstable_by(f64::total_cmp);
        let at = (ms.len() as f64 * part) as usize;
        ms.get(at.min(ms.len() - 1)).copied().filter(|ms| ms.is_finite())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The relative gap of a plan that the solver calls optimal.
fn tolerance(solver: Solver) -> f64 {
    if solver == Solver::Highs { 1e-11 } else { 0.0 }
}

/// The proven gap, relative to the plan's cost.
fn gap(plan: &Plan) -> f64 {
    let certificate = plan.certificate().expect("projections are certified");
    certificate.gap() / certificate.cost.abs().max(f64::MIN_POSITIVE)
}

fn budget(index: usize) -> Budget {
    Budget::average_bits(2.2 + 0.25 * index as f64)
}

/// One row per size, kind of sizes and kind of scores.
fn compare(seconds: u64, large: bool) {
    println!(
        "| modules x 6 | sizes | scores | median ms | longest ms | unproven | HiGHS median ms | HiGHS longest ms | ratio of medians |"
    );
    println!("|---:|---|---|---:|---:|---:|---:|---:|---:|");
    for size in &SIZES {
        for (regular, name) in [(true, "of a model"), (false, "irregular")] {
            let tables: Vec<_> = (0..size.tables).map(|seed| table(size.modules, regular, seed)).collect();
            for (kind, kind_name) in [(ScoreKind::Loss, "loss"), (ScoreKind::Logits, "logits")] {
                let mut own = Times::default();
                for table in &tables {
                    for index in 0..BUDGETS {
                        own.add(table, kind, budget(index), Solver::Knapsack, 0);
                    }
                }
                let (median, longest) = (own.quantile(0.5), own.quantile(1.0));
                let (median, longest) = (median.expect("no limit"), longest.expect("no limit"));
                let mut other = String::from("– | – | –");
                if kind == ScoreKind::Loss && seconds > 0 && (large || !size.large) {
                    other = against_highs(&tables[0], size.highs_budgets, seconds, median);
                }
                let (plans, unproven) = (own.each.len(), own.unproven);
                let modules = thousands(size.modules);
                println!(
                    "| {modules} | {name} | {kind_name} | {median:.3} | {longest:.3} | {unproven} of {plans} | {other} |"
                );
            }
        }
    }
}

/// HiGHS's median and longest time, and how many times our median its own is.
fn against_highs(table: &ScoreTable, budgets: usize, seconds: u64, own: f64) -> String {
    let mut times = Times::default();
    for index in 0..budgets {
        // The middle of each of equal parts of the range.
        let index = (2 * index + 1) * BUDGETS / (2 * budgets);
        times.add(table, ScoreKind::Loss, budget(index), Solver::Highs, seconds);
    }
    let limit = seconds as f64 * 1e3;
    let [median, longest] = [0.5, 1.0].map(|part| times.quantile(part));
    let shown = |ms: Option<f64>| ms.map_or_else(|| format!("> {limit:.0}"), |ms| format!("{ms:.0}"));
    let beyond = if median.is_none() { "> " } else { "" };
    let ratio = thousands((median.unwrap_or(limit) / own).round() as usize);
    format!("{} | {} | {beyond}{ratio}", shown(median), shown(longest))
}

fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Many budgets of one model.
fn sweep() {
    const N: u32 = 1000;
    println!();
    for (regular, name) in [(true, "of a model"), (false, "irregular")] {
        let table = table(224, regular, 0);
        let start = Instant::now();
        for index in 0..N {
            let bits = 2.05 + 5.9 * f64::from(index) / f64::from(N - 1);
            let plan = project(&table, ScoreKind::Loss, Budget::average_bits(bits), &Limits::default());
            black_box(plan).expect("a feasible budget");
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("Sweep: {N} budgets from 2.05 to 7.95 bits, 224 modules, sizes {name}: {seconds:.3} s.");
    }
}

/// A table made to be hard, and the budget in bits.
struct Hard {
    name: &'static str,
    modules: Vec<Vec<(u64, f64)>>,
    /// Added to the budget, which is otherwise even and halfway between smallest and largest plan.
    odd: u64,
}

impl Hard {
    /// `n_modules` times `n_options`. Sizes are multiples of `step` up to about `largest`; `saving`
    /// makes what an option saves of the bits that it takes above the narrowest one.
    fn new(
        name: &'static str,
        [n_modules, n_options]: [usize; 2],
        (largest, step): (u64, u64),
        saving: impl FnMut(f64, &mut u64) -> f64,
    ) -> Self {
        let mut state = 7;
        let mut size = || step * (1 + next(&mut state) % (largest / step));
        let sizes = (0..n_modules).map(|_| (0..n_options).map(|_| size()).collect());
        Self::with_sizes(name, sizes.collect(), saving)
    }

    /// The sizes of a real model.
    fn of_model(name: &'static str, n_modules: usize, saving: impl FnMut(f64, &mut u64) -> f64) -> Self {
        let table = table(n_modules, true, 0);
        let sizes = |module: &ModuleScores| module.options.iter().map(|option| option.stored_bits).collect();
        Self::with_sizes(name, table.modules().iter().map(sizes).collect(), saving)
    }

    fn with_sizes(
        name: &'static str,
        mut sizes: Vec<Vec<u64>>,
        mut saving: impl FnMut(f64, &mut u64) -> f64,
    ) -> Self {
        let mut state = 8;
        let mut module = |sizes: &mut Vec<u64>| {
            sizes.sort_unstable();
            let savings = sizes.iter().map(|size| match size - sizes[0] {
                0 => 0.0,
                above => saving(above as f64, &mut state),
            });
            let savings: Vec<f64> = savings.collect();
            let most = savings.iter().copied().fold(0.0, f64::max);
            sizes.iter().zip(savings).map(|(&size, saved)| (size, most - saved)).collect()
        };
        Self { name, modules: sizes.iter_mut().map(&mut module).collect(), odd: 0 }
    }

    /// The same with a budget that even sizes cannot fill.
    fn odd(mut self) -> Self {
        self.odd = 1;
        self
    }

    /// Adds an odd option that costs more than the narrower one of its module, so that no plan takes
    /// it, but all sizes have no common divisor any more.
    fn with_odd_size(mut self) -> Self {
        let options = &mut self.modules[0];
        let (size, cost) = options[options.len() - 1];
        options.push((size + 1, 2.0 * cost + 1.0));
        self
    }

    fn table(&self) -> (ScoreTable, Budget) {
        // As many weights as make bits per weight exact for any budget.
        let shape = [1, 1];
        let modules = self.modules.iter().enumerate().map(|(index, options)| {
            let option = |(place, &(size, cost)): (usize, &(u64, f64))| {
                let name = place.to_string();
                ScoredOption::new(Format::Custom { bits: BitWidth::B2, name }, size, cost)
            };
            let options = options.iter().enumerate().map(option).collect();
            ModuleScores { name: ModuleName::new(index.to_string()), shape, options }
        });
        let table = ScoreTable::new(modules.collect()).expect("a legal table");
        let ends = |end: fn(&ModuleScores) -> u64| table.modules().iter().map(end).sum::<u64>();
        let least = ends(|module| module.options[0].stored_bits);
        let most = ends(|module| module.options[module.options.len() - 1].stored_bits);
        let bits = u64::midpoint(least, most) / 2 * 2 + self.odd;
        let budget = Budget::stored_bits_per_weight((bits as f64 + 0.5) / table.weights() as f64);
        assert_eq!(budget.limit(&table, None).expect("a positive budget").bits, bits);
        (table, budget)
    }
}

/// Knapsacks after Pisinger, "Where are the hard knapsack problems?" (2005), and Chvátal, "Hard
/// knapsack problems" (1980), with several options per module.
fn hard_tables() -> Vec<Hard> {
    let sizes = (100_000_000, 1);
    let even = (100_000_000, 2);
    let noisy = |above: f64, state: &mut u64| above * (1.0 + 1e-6 * unit(state));
    let shifted = |above: f64, _: &mut u64| above + 1e7;
    let equal = |above: f64, _: &mut u64| above;
    vec![
        Hard::of_model("sizes of a model, saving within 10^-6 of size", 224, noisy),
        Hard::of_model("sizes of a model, saving = size + constant", 224, shifted),
        Hard::new("sizes up to 10^4, saving within 10^-6 of size", [224, 6], (10_000, 1), noisy),
        Hard::new("sizes up to 10^8, saving within 10^-6 of size", [224, 6], sizes, noisy),
        Hard::new("sizes up to 10^8, saving = size + constant", [224, 6], sizes, shifted),
        Hard::new("sizes up to 10^8, saving = size + constant", [5000, 6], sizes, shifted),
        Hard::new("sizes up to 10^8, saving = size", [224, 6], sizes, equal),
        Hard::new("the same, all sizes even, odd budget", [224, 6], even, equal).odd(),
        Hard::new("the same, and one odd size that no plan takes", [224, 6], even, equal)
            .odd()
            .with_odd_size(),
        Hard::new("the same, sizes up to 2^40", [42, 6], (1 << 40, 2), equal).odd().with_odd_size(),
    ]
}

/// What the limit on states buys where it is reached.
fn hard(states: u64, seconds: u64) {
    let limits = [states / 100, states / 10, states];
    let mut head = String::from("| hard table | modules x options |");
    for states in limits {
        write!(head, " {} states |", thousands(states as usize)).expect("writing to a string");
    }
    println!("\n{head} peak memory of the process | HiGHS |");
    println!("|---|---:|---|---|---|---:|---|");
    for hard in hard_tables() {
        let (table, budget) = hard.table();
        let shape = format!("{} x {}", thousands(table.modules().len()), table.modules()[1].options.len());
        let mut row = format!("| {} | {shape} |", hard.name);
        let mut memory = None;
        for states in limits {
            let limits = Limits::default().max_states(states);
            let forgotten = forget_peak();
            write!(row, " {} |", outcome(&table, budget, Solver::Knapsack, limits))
                .expect("writing to a string");
            memory = forgotten.and_then(|()| peak());
        }
        let memory = memory.map_or_else(|| "–".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let mut highs = "–".to_owned();
        if seconds > 0 {
            let limits = Limits::default().time_limit(Duration::from_secs(seconds));
            highs = outcome(&table, budget, Solver::Highs, limits);
        }
        println!("{row} {memory} | {highs} |");
    }
}

/// Time and gap in words.
fn outcome(table: &ScoreTable, budget: Budget, solver: Solver, limits: Limits) -> String {
    let start = Instant::now();
    let plan = project(table, ScoreKind::Loss, budget, &limits.solver(solver));
    let ms = ms(start.elapsed());
    match plan.as_ref().map(gap) {
        Ok(gap) if gap <= tolerance(solver) => format!("{ms:.1} ms, optimal"),
        Ok(gap) => format!("{ms:.1} ms, limit, gap {gap:.0e}"),
        Err(ProjectError::TimeLimit { .. }) => format!("{ms:.0} ms, no plan"),
        Err(ProjectError::TooFine { .. }) => "sizes too fine".to_owned(),
        Err(error) => panic!("{budget}: {error}"),
    }
}

/// Forgets the peak of the process's memory so far, where the system can (Linux).
fn forget_peak() -> Option<()> {
    fs::write("/proc/self/clear_refs", "5").ok()
}

/// Peak of the process's memory in bytes.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn main() -> ExitCode {
    let (mut seconds, mut large, mut states) = (10, false, 10_000_000);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|word| word.parse::<u64>().ok());
        let understood = match arg.as_str() {
            "--seconds" => number().map(|n| seconds = n),
            "--states" => number().filter(|n| *n >= 100).map(|n| states = n),
            "--large" => {
                large = true;
                Some(())
            }
            _ => None,
        };
        if understood.is_none() {
            eprintln!("usage: timing [--seconds N] [--large] [--states N], N a whole number; see `{arg}`");
            return ExitCode::FAILURE;
        }
    }
    compare(seconds, large);
    sweep();
    hard(states, seconds);
    ExitCode::SUCCESS
}
