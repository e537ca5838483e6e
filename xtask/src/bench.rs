//! `cargo xtask bench`: the measurements in `docs/performance.md`.

use std::env;

use anyhow::{Result, bail};

use crate::highs;
use crate::workspace::{Workspace, run as run_command};

/// Runs the benchmark that `args` name first; the rest goes to it.
pub fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((name, rest)) if name == "project" => project(workspace, rest),
        Some((name, rest)) if name == "quant" => quant(workspace, rest),
        Some((name, rest)) if name == "stream" => stream(workspace, rest),
        Some((name, _)) => bail!("unknown benchmark `{name}`; there are `project`, `quant` and `stream`"),
        None => bail!("no benchmark named; there are `project`, `quant` and `stream`"),
    }
}

/// Times of the exact solver and of HiGHS.
fn project(workspace: &Workspace, args: &[String]) -> Result<()> {
    let highs = highs::provide(workspace)?;
    let mut run = workspace.cargo("run");
    run.args(["--release", "--package", "gamma-ilp", "--example", "timing", "--"]).args(args);
    run_command(highs.apply(&mut run))
}

/// Peak memory of learning on a model that is larger than memory.
fn stream(workspace: &Workspace, args: &[String]) -> Result<()> {
    let highs = highs::provide(workspace)?;
    let mut run = workspace.cargo("run");
    run.args(["--release", "--package", "gamma", "--example", "stream", "--"]).args(args);
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
