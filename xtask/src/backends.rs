//! `cargo xtask backends`: the same tests on other devices than the CPU.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::highs;
use crate::workspace::{Workspace, output, run};

/// The crates that compute on a device. Their tests ask `gamma_device::tested` for one.
const SUITES: [&str; 6] =
    ["gamma-device", "gamma-model", "gamma-preference", "gamma-proxy", "gamma", "gamma-cli"];

/// Compiles the suites with a backend that is not built by default, `wgpu` unless `args` begin with
/// another one, and runs them where this machine has a device for it. The rest goes to `cargo test`.
pub fn check(workspace: &Workspace, args: &[String]) -> Result<()> {
    let (backend, rest) = match args.split_first() {
        Some((first, rest)) if !first.starts_with('-') => (first.as_str(), rest),
        _ => ("wgpu", args),
    };
    let highs = highs::provide(workspace)?;
    // With other features all that knows burn is compiled anew: in a folder of its own, so that
    // nobody has to go back.
    let target = workspace.target_dir().join("backends");
    let cargo = |subcommand: &str| -> Command {
        let mut cargo = workspace.cargo(subcommand);
        cargo.env("CARGO_TARGET_DIR", &target).env("GAMMA_TEST_DEVICE", backend);
        cargo.args(SUITES.iter().flat_map(|suite| ["--package", suite]));
        cargo.args(["--features", &format!("gamma-cli/{backend}")]);
        highs.apply(&mut cargo);
        cargo
    };
    run(cargo("test").arg("--no-run"))?;
    let probe = format!("debug/examples/devices{}", env::consts::EXE_SUFFIX);
    let found = output(&mut Command::new(target.join(probe)))?;
    print!("{found}");
    let prefix = format!("{backend}:");
    if found.lines().any(|line| line.starts_with(&prefix)) {
        return run(cargo("test").args(rest)).with_context(|| format!("on `{backend}`"));
    }
    println!("compiled for {backend}, and not run: this machine has no device for it");
    Ok(())
}
