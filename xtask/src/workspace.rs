//! Where the repository lies, and how child cargos are started in it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The root folder of the repository.
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the root from the place of this crate's manifest.
    ///
    /// The value cargo sets at run time comes first, because the one compiled in is wrong after
    /// the repository has been moved together with its `target` folder.
    pub fn locate() -> Result<Self> {
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir.parent().context("xtask lies in no workspace")?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// The folder that holds the root `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder cargo builds into.
    pub fn target_dir(&self) -> PathBuf {
        self.root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target")))
    }

    /// `cargo SUBCOMMAND` in the root, as if started from a shell.
    ///
    /// Continuous integration (`CI` is set) builds exactly what `Cargo.lock` says.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).arg(subcommand);
        if env::var_os("CI").is_some() && subcommand != "fmt" {
            command.arg("--locked");
        }
        for (name, _) in env::vars_os().filter(|(name, _)| describes_xtask(name)) {
            command.env_remove(name);
        }
        command
    }
}

/// Whether cargo set the variable to describe xtask itself while running it.
///
/// Build scripts may watch such variables. Handed on, they would make the builds of xtask and of
/// plain cargo invalidate each other in turn.
fn describes_xtask(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Runs a command whose output goes to the terminal; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{} failed ({status})", name_of(command));
    }
    Ok(())
}

/// Runs a command and returns its standard output; the error carries its last line of complaint.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", name_of(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let complaint = stderr.lines().rev().find(|line| !line.trim().is_empty());
        bail!("{}: {}", name_of(command), complaint.unwrap_or("failed without a message").trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Program and first argument: enough to recognize a command in a message.
fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut name = program.to_string_lossy().into_owned();
    if let Some(argument) = command.get_args().next() {
        name = format!("{name} {}", argument.to_string_lossy());
    }
    format!("`{name}`")
}
