//! `cargo xtask bench`: the measurements in `docs/performance.md`.

use std::{env, process::Command};

use anyhow::{Result, bail};

use crate::highs;
use crate::workspace::{Workspace, run as run_command};

const NAMES: &str = "`judge`, `learn`, `project`, `quant` and `stream`";

/// Runs the benchmark that `args` name first; the rest goes to it.
pub fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((name, rest)) if name == "judge" => judge(workspace, rest),
        Some((name, rest)) if name == "learn" => learn(workspace, rest),
        Some((name, rest)) if name == "project" => project(workspace, rest),
        Some((name, rest)) if name == "quant" => quant(workspace, rest),
        Some((name, rest)) if name == "stream" => stream(workspace, rest),
        Some((name, _)) => bail!("unknown benchmark `{name}`; there are {NAMES}"),
        None => bail!("no benchmark named; there are {NAMES}"),
    }
}

/// Times of measurements that start at a block, and of a full evaluation.
fn judge(workspace: &Workspace, args: &[String]) -> Result<()> {
    run_command(with_models(workspace, "gamma-model", "bench_judge")?.args(args))
}

/// Times of a learning step, and of the same step in `PyTorch` if the interpreter has it.
fn learn(workspace: &Workspace, args: &[String]) -> Result<()> {
    let python = env::var("GAMMA_PYTHON").unwrap_or_else(|_| "python3".into());
    let threads = args.iter().position(|arg| arg == "--threads").and_then(|at| args.get(at + 1));
    let mut run = with_models(workspace, "gamma", "bench_learn")?;
    run.args(["--python", &python]).args(args);
    run_command(run.env("RAYON_NUM_THREADS", threads.map_or("1", String::as_str)))
}

/// Peak memory of learning on a model that is larger than memory.
fn stream(workspace: &Workspace, args: &[String]) -> Result<()> {
    run_command(with_models(workspace, "gamma", "stream")?.args(args))
}

/// A release run of an example of `package`, which is built beside the command to share what both are made
/// of: alone it would ask for other features, and build everything again. (`cargo run` takes one package.)
fn with_models(workspace: &Workspace, package: &str, name: &str) -> Result<Command> {
    let highs = highs::provide(workspace)?;
    let mut build = workspace.cargo("build");
    build.args(["--release", "--package", "gamma-cli", "--package", package, "--example", name]);
    run_command(highs.apply(&mut build))?;
    let example = format!("release/examples/{name}{}", env::consts::EXE_SUFFIX);
    Ok(Command::new(workspace.target_dir().join(example)))
}

/// Times of the exact solver and of HiGHS.
fn project(workspace: &Workspace, args: &[String]) -> Result<()> {
    let highs = highs::provide(workspace)?;
    let mut run = workspace.cargo("run");
    run.args(["--release", "--package", "gamma-ilp", "--example", "timing", "--"]).args(args);
    run_command(highs.apply(&mut run))
}

/// Times of the quantizers, and of GPTQ elsewhere if the interpreter has what that needs.
fn quant(workspace: &Workspace, args: &[String]) -> Result<()> {
    let python = env::var_os("GAMMA_PYTHON").unwrap_or_else(|| "python3".into());
    let example = |name| {
        let mut run = workspace.cargo("run");
        run.args(["--release", "--package", "gamma-quant", "--example", name, "--"]).args(args);
        run
    };
    let script = workspace.root().join("tests/golden/bench_gptq.py");
    run_command(example("bench_gptq").arg("--python").arg(python).arg(script))?;
    println!();
    run_command(&mut example("bench_methods"))
}
