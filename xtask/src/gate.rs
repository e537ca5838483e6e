//! `cargo xtask test` and `cargo xtask validate`: what must hold before a change is merged.

use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::highs::{self, Highs};
use crate::tidy;
use crate::workspace::{Workspace, run};

/// All tests of the workspace, doc tests included.
pub fn test(workspace: &Workspace, args: &[String]) -> Result<()> {
    let highs = highs::provide(workspace)?;
    test_with(workspace, &highs, args)
}

/// The whole gate, cheapest stage first; the first failure ends it.
///
/// The dependencies are compiled twice and no more often: clippy and rustdoc share the metadata of
/// `cargo check` in the dev profile, tests and doc tests share one full build of the same profile.
/// Warnings become errors through the tools' own arguments, not through `RUSTFLAGS`, which would
/// compile every dependency once more.
pub fn validate(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::default();
    let result = validate_stages(workspace, &mut stages);
    stages.report();
    result
}

fn validate_stages(workspace: &Workspace, stages: &mut Stages) -> Result<()> {
    stages.run("format", || run(workspace.cargo("fmt").args(["--all", "--check"])))?;
    stages.run("tidy", || tidy::run(workspace))?;
    let highs = stages.run("set-up", || highs::provide(workspace))?;
    stages.run("clippy", || {
        let mut clippy = workspace.cargo("clippy");
        clippy.args(["--workspace", "--all-targets", "--", "--deny", "warnings"]);
        run(highs.apply(&mut clippy))
    })?;
    stages.run("test", || test_with(workspace, &highs, &[]))?;
    stages.run("doc", || {
        let mut doc = workspace.cargo("doc");
        doc.args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings");
        run(highs.apply(&mut doc))
    })
}

fn test_with(workspace: &Workspace, highs: &Highs, args: &[String]) -> Result<()> {
    let mut test = workspace.cargo("test");
    test.arg("--workspace").args(args);
    if let Some(data) = test_data(workspace)? {
        test.env("GAMMA_TEST_DATA", data);
    }
    run(highs.apply(&mut test))
}

/// The folder with larger models and texts, absolute: tests run in the folder of their own crate.
///
/// Tests that need it pass it over when the variable is missing, so a default that does not exist
/// is no error; a folder that was asked for and does not exist is one.
fn test_data(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let asked = env::var_os("GAMMA_TEST_DATA");
    let given = asked.as_ref().map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let path = workspace.root().join(given);
    if asked.is_none() && !path.is_dir() {
        return Ok(None);
    }
    let absolute = path.canonicalize().with_context(|| format!("GAMMA_TEST_DATA: {}", path.display()))?;
    Ok(Some(absolute))
}

/// Stages that ran, with their wall time.
#[derive(Default)]
struct Stages {
    done: Vec<(&'static str, Duration)>,
}

impl Stages {
    fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let start = Instant::now();
        let result = work();
        self.done.push((name, start.elapsed()));
        result.with_context(|| format!("stage `{name}`"))
    }

    fn report(&self) {
        for (name, time) in &self.done {
            eprintln!("{name:>8} {:>7.1} s", time.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        eprintln!("{:>8} {:>7.1} s", "total", total.as_secs_f64());
    }
}
