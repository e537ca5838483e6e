//! The outcome of a set-up: variables for builds, kept as a cargo configuration file.
//!
//! Cargo applies an `[env]` table to build scripts and counts it when it decides what is out of
//! date, so plain cargo, editors and xtask share one build. The file is written last: its presence
//! means that the set-up is complete.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The name that `.cargo/config.toml` includes.
const FILE: &str = "config.toml";

/// Variables that let `highs-sys` build and link HiGHS, and a line on where they point.
pub struct Settings {
    /// The folder of the set-up.
    home: PathBuf,
    summary: String,
    variables: Vec<(String, String)>,
}

impl Settings {
    pub fn new(home: &Path, summary: String) -> Self {
        Self { home: home.to_path_buf(), summary, variables: Vec::new() }
    }

    /// What was taken, for people.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    pub fn mention(&mut self, part: &str) {
        self.summary = format!("{}, {part}", self.summary);
    }

    pub fn set(&mut self, name: &str, value: String) {
        self.variables.push((name.to_owned(), value));
    }

    /// Gives a child cargo these variables and takes away those of an older set-up.
    ///
    /// The child reads the file as well; but a cargo that started xtask before the set-up may have
    /// handed on what it read then, and the environment wins over the file.
    pub fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for (name, _) in env::vars_os().filter(|(_, value)| Path::new(value).starts_with(&self.home)) {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)))
    }

    /// Lines for a POSIX shell.
    pub fn exports(&self) -> String {
        let line =
            |(name, value): &(String, String)| format!("export {name}='{}'\n", value.replace('\'', r"'\''"));
        self.variables.iter().map(line).collect()
    }

    /// Writes the file in one step, so that an interruption leaves no half of it.
    pub fn write(&self, key: &str) -> Result<()> {
        let (draft, file) = (self.home.join("config.draft"), self.home.join(FILE));
        fs::write(&draft, self.to_toml(key))
            .and_then(|()| fs::rename(&draft, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads a finished set-up; `None` if there is none, if it was made under another key, or if
    /// something it points to is gone.
    pub fn read(home: &Path, key: &str) -> Option<Self> {
        let settings = Self::from_toml(home, &fs::read_to_string(home.join(FILE)).ok()?, key)?;
        let paths: Vec<PathBuf> = settings.variables.iter().flat_map(|(_, value)| paths(value)).collect();
        paths.iter().all(|path| path.exists()).then_some(settings)
    }

    /// Removes the file, before anything it points to is removed.
    pub fn forget(home: &Path) -> Result<()> {
        match fs::remove_file(home.join(FILE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("cannot drop the old set-up")
            }
            _ => Ok(()),
        }
    }

    fn to_toml(&self, key: &str) -> String {
        let mut toml = format!("# {key}\n# {}\n[env]\n", self.summary);
        for (name, value) in &self.variables {
            let value = value.replace('\\', r"\\").replace('"', "\\\"");
            writeln!(toml, "{name} = \"{value}\"").expect("writing to a string cannot fail");
        }
        toml
    }

    fn from_toml(home: &Path, toml: &str, key: &str) -> Option<Self> {
        let mut lines = toml.lines();
        if lines.next()?.strip_prefix("# ")? != key {
            return None;
        }
        let mut settings = Self::new(home, lines.next()?.strip_prefix("# ")?.to_owned());
        for line in lines.skip(1) {
            let (name, value) = line.split_once(" = ")?;
            let value = value.strip_prefix('"')?.strip_suffix('"')?;
            settings.set(name, value.replace("\\\"", "\"").replace(r"\\", r"\"));
        }
        Some(settings)
    }
}

/// The absolute paths in a value, which is one path or a list of `-I` flags.
fn paths(value: &str) -> Vec<PathBuf> {
    let parts = value.split(" -I").map(|part| part.trim_start_matches("-I").replace(r"\ ", " "));
    parts.map(PathBuf::from).filter(|path| path.is_absolute()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Settings {
        let mut settings = Settings::new(Path::new("home"), "HiGHS 1.15.1".to_owned());
        settings.set("LIBCLANG_PATH", "/a folder/it's".to_owned());
        settings.set("BINDGEN_EXTRA_CLANG_ARGS", r"-I/a\ folder".to_owned());
        settings
    }

    #[test]
    fn file_returns_what_was_written_under_the_same_key_only() {
        let toml = sample().to_toml("key 1");
        let read = Settings::from_toml(Path::new("home"), &toml, "key 1").expect("same key");
        assert_eq!((read.summary, read.variables), (sample().summary, sample().variables));
        assert!(Settings::from_toml(Path::new("home"), &toml, "key 2").is_none());
    }

    #[test]
    fn paths_are_found_in_values() {
        assert_eq!(paths("/a folder"), [Path::new("/a folder")]);
        assert_eq!(paths(r"-I/a\ folder -I/b"), [Path::new("/a folder"), Path::new("/b")]);
        assert!(paths("Ninja").is_empty());
    }

    #[test]
    fn exports_survive_quotes() {
        assert!(sample().exports().starts_with("export LIBCLANG_PATH='/a folder/it'\\''s'\n"));
    }
}
