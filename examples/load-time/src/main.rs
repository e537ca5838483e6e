//! An inference engine that decides, while it loads a model, how many bits each weight gets.
//!
//! The score file was learned once; the memory is what this machine has free now. Between the two
//! stands one call to [`gamma_ilp::Problem::solve`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program reports to a terminal")]

mod args;
mod memory;

use std::{collections::BTreeMap, env, error::Error, fs, process::ExitCode, time::Instant};

use args::Args;
use gamma_core::{Budget, Certificate, Choice, Plan, ScoresFile};
use gamma_ilp::{Limits, Problem, ProjectError};
use memory::Memory;

/// The scores of the model in `tests/fixtures/fable`, as the demonstration learns them.
const FABLE: &str = include_str!("../fable.scores.json");

fn main() -> ExitCode {
    match Args::parse(env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let scores = match &args.scores {
        Some(path) => ScoresFile::from_json(
            &fs::read_to_string(path)
                .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?,
        )?,
        None => ScoresFile::from_json(FABLE)?,
    };
    let memory = Memory::find(args.free, args.reserve)?;
    let tokens = args.tokens();
    println!("memory: {} bytes free, {} to use; cache for {tokens} tokens", memory.free, memory.usable());

    let start = Instant::now();
    let problem = Problem::new(&scores.table, scores.kind, Budget::device(memory.usable(), tokens))
        .remainder(scores.remainder.as_ref())
        .rules(args.rules.iter().cloned());
    let plan = problem.solve(&Limits::default()).map_err(|error| too_little(error, &memory))?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;

    let gap = plan.certificate().map_or(f64::NAN, Certificate::gap);
    let proof = if gap == 0.0 { "optimal".to_owned() } else { format!("within {gap:e} of the optimum") };
    println!(
        "plan: {:.3} stored bits per weight, {proof}, {milliseconds:.2} ms",
        plan.stored_bits_per_weight()
    );
    print_formats(&plan);
    println!("{}", problem.footprint(&plan));
    Ok(())
}

/// Where the memory is too small, also says how much would do.
fn too_little(error: ProjectError, memory: &Memory) -> Box<dyn Error> {
    let ProjectError::BelowMinimum { missing_bytes, .. } = error else { return error.into() };
    let bytes = memory.usable() + missing_bytes;
    format!(
        "{error}\nthe model takes {bytes} bytes at least: with a reserve of {} %, {} bytes must be free",
        memory.reserve,
        memory.needed_for(bytes)
    )
    .into()
}

/// One line per kind of module: which blocks have which format.
fn print_formats(plan: &Plan) {
    let mut roles: BTreeMap<&str, Vec<&Choice>> = BTreeMap::new();
    for choice in plan.choices() {
        roles.entry(choice.name.role()).or_default().push(choice);
    }
    for (role, choices) in roles {
        let runs = choices.chunk_by(|a, b| a.format == b.format).map(|run| {
            let block =
                |choice: &Choice| choice.name.block().map_or("-".to_owned(), |block| block.to_string());
            let (first, last) = (block(run[0]), block(run[run.len() - 1]));
            let blocks = if run.len() == 1 { first } else { format!("{first}-{last}") };
            format!("{blocks} {}", run[0].format)
        });
        println!("  {role:<10} {}", runs.collect::<Vec<_>>().join(", "));
    }
}
