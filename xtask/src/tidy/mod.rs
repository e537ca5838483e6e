//! `cargo xtask tidy`: what the documents promise about the code, asked of the code.
//!
//! All findings are reported, not only the first. What a compiler sees better is left to clippy:
//! `unwrap_used`, `todo`, `unimplemented` and `dbg_macro` are lints of the workspace.

mod architecture;
mod borders;
mod documents;
mod files;
mod sources;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// One broken promise. Line 0 stands for the whole file.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: impl Into<PathBuf>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.line {
            0 => write!(f, "{path}: {}", self.message),
            line => write!(f, "{path}:{line}: {}", self.message),
        }
    }
}

/// A text file of the repository, its path relative to the root.
struct Text {
    path: PathBuf,
    content: String,
}

impl Text {
    fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|found| found == extension)
    }

    /// Lines with their numbers, from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.content.lines())
    }
}

/// Prints every finding; an error if there is one.
pub fn run(workspace: &Workspace) -> Result<()> {
    let findings = check(workspace)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    Ok(())
}

fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let root = workspace.root();
    let texts = files::read(root)?;
    let crates = crate_folders(root)?;
    let mut findings = Vec::new();
    match texts.iter().find(|text| text.path == Path::new(architecture::FILE)) {
        Some(map) => {
            let chapters = architecture::chapters(&map.content);
            findings.extend(architecture::compare(&chapters, &crates));
            findings.extend(borders::check(workspace, &chapters, &texts)?);
        }
        None => findings.push(Finding::new(architecture::FILE, 0, "is missing")),
    }
    findings.extend(sources::check(&texts));
    findings.extend(documents::check(&texts));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(findings)
}

/// The folders of crates, from the root.
fn crate_folders(root: &Path) -> Result<Vec<String>> {
    let mut folders = Vec::new();
    for parent in architecture::PARENTS {
        let entries = fs::read_dir(root.join(parent)).with_context(|| format!("cannot list {parent}/"))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {parent}/"))?;
            if entry.path().join("Cargo.toml").is_file() {
                folders.push(format!("{parent}/{}", entry.file_name().to_string_lossy()));
            }
        }
    }
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_is_tidy() {
        let findings = check(&Workspace::locate().expect("root")).expect("readable repository");
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
