//! `cargo xtask demo`: from a fresh checkout to a result in one command.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::highs;
use crate::workspace::{Workspace, run as run_command};

/// Folder of the small model that the repository brings along.
const FABLE: &str = "tests/fixtures/fable";

/// Builds the command in release mode and runs `gamma run`.
pub fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    let highs = highs::provide(workspace)?;
    let start = Instant::now();
    let mut build = workspace.cargo("build");
    build.args(["--release", "--package", "gamma-cli"]);
    run_command(highs.apply(&mut build))?;
    eprintln!("demo: built in {:.1} s", start.elapsed().as_secs_f64());

    // Not through `cargo run`: the demonstration also shows that the program starts on its own.
    let program = workspace.target_dir().join("release").join("gamma");
    let args = complete(workspace.root(), args);
    eprintln!("demo: {} run {}", program.display(), args.join(" "));
    run_command(Command::new(program).arg("run").args(args))
}

/// The given arguments, plus the built-in value of every option that they do not name.
fn complete(root: &Path, given: &[String]) -> Vec<String> {
    let path = |relative: &str| root.join(relative).display().to_string();
    let defaults = [
        ("--model", vec![path(FABLE)]),
        ("--calibration", vec![path(&format!("{FABLE}/calibration.txt"))]),
        ("--evaluation", vec![path(&format!("{FABLE}/evaluation.txt"))]),
        ("--sequences", vec!["128".into()]),
        ("--length", vec!["256".into()]),
        ("--group-size", vec!["64".into()]),
        ("--budget", ["2.5", "3", "3.5", "4"].map(String::from).to_vec()),
        ("--refine-seconds", vec!["15".into()]),
        ("--out", vec![path("target/demo")]),
    ];
    let mut args = Vec::new();
    for (option, values) in defaults {
        if !given.iter().any(|arg| names(arg, option)) {
            args.extend(values.into_iter().flat_map(|value| [option.to_owned(), value]));
        }
    }
    args.extend_from_slice(given);
    args
}

/// Whether `arg` is `--option` or `--option=value`.
fn names(arg: &str, option: &str) -> bool {
    arg.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_options_replace_their_defaults_and_no_others() {
        let given = ["--budget=3.5", "--out", "here"].map(String::from);
        let args = complete(Path::new("root"), &given);
        assert_eq!(args.iter().filter(|arg| arg.starts_with("--budget")).count(), 1);
        assert_eq!(args.iter().filter(|arg| *arg == "--out").count(), 1);
        assert!(args.contains(&"--model".to_owned()));
    }
}
