//! `cargo xtask bench project`: the measurements in `docs/performance.md`.

use anyhow::{Result, bail};

use crate::highs;
use crate::workspace::{Workspace, run as run_command};

/// Runs the benchmark that `args` name first; the rest goes to it.
pub fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((name, rest)) if name == "project" => project(workspace, rest),
        Some((name, _)) => bail!("unknown benchmark `{name}`; there is `project`"),
        None => bail!("no benchmark named; there is `project`"),
    }
}

/// Times of the exact solver and of HiGHS.
fn project(workspace: &Workspace, args: &[String]) -> Result<()> {
    let highs = highs::provide(workspace)?;
    let mut run = workspace.cargo("run");
    run.args(["--release", "--package", "gamma-ilp", "--example", "timing", "--"]).args(args);
    run_command(highs.apply(&mut run))
}
