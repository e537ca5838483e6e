//! Presents the library from the wheel to `highs-sys` and to the linker, by three generated files.
//!
//! The wheel holds a shared library only, which a program has to find again when it starts. A run
//! path would have to come from `RUSTFLAGS`, which rebuilds everything and which the user may have
//! set to something else, or from a build script in every crate with a program, test or example,
//! and neither reaches doc tests or crates outside this workspace. So the programs are linked
//! against a stand-in: a shared library with the same function names and no code, whose own name
//! (`soname`) is the absolute path of the real one. The linker copies that name into the program,
//! and a loader opens a name that contains a slash as it stands. Nothing else has to be arranged.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::text;
use crate::workspace::output;

/// The ready HiGHS inside an unpacked wheel.
pub struct Library {
    /// The real shared library, absolute.
    file: PathBuf,
    include_dir: PathBuf,
    pub version: String,
}

impl Library {
    /// Looks up the library in the folder of the wheel `highsbox`.
    pub fn in_wheel(folder: &Path) -> Result<Self> {
        let dist = folder.join("highsbox/highs_dist");
        let include_dir = dist.join("include/highs");
        let config = include_dir.join("HConfig.h");
        let config =
            fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
        let version = version(&config).context("HConfig.h names no version")?;
        let file = dist.join("lib/libhighs.so");
        if !file.is_file() {
            bail!("the wheel has no {}", file.display());
        }
        Ok(Self { file, include_dir, version })
    }
}

/// The version that `HConfig.h` defines in three lines.
fn version(config: &str) -> Option<String> {
    let part = |name: &str| {
        let line = config.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
        line.split_whitespace().nth(2)
    };
    let (major, minor, patch) =
        (part("HIGHS_VERSION_MAJOR")?, part("HIGHS_VERSION_MINOR")?, part("HIGHS_VERSION_PATCH")?);
    Some(format!("{major}.{minor}.{patch}"))
}

/// Writes the stand-in and the answering script below `home`; returns the path of the script.
pub fn write(home: &Path, library: &Library) -> Result<String> {
    let folder = home.join("link");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    write_stand_in(&folder, library)?;

    let script = home.join("pkg-config");
    let flags = [format!("-I{}", text(&library.include_dir)?), format!("-L{}", text(&folder)?)];
    let flags = format!("{} -lhighs", flags.map(|flag| quote(&flag)).join(" "));
    let content = script_text(&flags, &library.version);
    fs::write(&script, content).with_context(|| format!("cannot write {}", script.display()))?;
    make_executable(&script)?;
    text(&script)
}

fn write_stand_in(folder: &Path, library: &Library) -> Result<()> {
    let header = library.include_dir.join("interfaces/highs_c_api.h");
    let header = fs::read_to_string(&header).with_context(|| format!("cannot read {}", header.display()))?;
    let functions = functions(&header);
    if functions.is_empty() {
        bail!("the header of HiGHS declares no functions");
    }
    let source = folder.join("stand_in.c");
    let mut code = String::new();
    for name in functions {
        writeln!(code, "void {name}(void) {{}}")?;
    }
    fs::write(&source, code).with_context(|| format!("cannot write {}", source.display()))?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-nostdlib", "-Xlinker", "-soname", "-Xlinker"]);
    compile.arg(&library.file).arg("-o").arg(folder.join("libhighs.so")).arg(&source);
    output(&mut compile).context("cannot link the stand-in for HiGHS")?;
    Ok(())
}

/// The functions a C header declares: every `Highs_name(`. A comment may add a name that does not
/// exist; nobody calls it.
fn functions(header: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    header
        .match_indices("Highs_")
        .filter_map(|(start, _)| {
            let rest = &header[start..];
            let (name, rest) = rest.split_at(rest.find(|c| !is_name(c))?);
            rest.trim_start().starts_with('(').then_some(name)
        })
        .collect()
}

/// A pkg-config that knows HiGHS and passes every other question on.
///
/// A `highs.pc` would need a pkg-config program, which a bare machine lacks, and a search path,
/// which would compete with the user's.
fn script_text(flags: &str, version: &str) -> String {
    format!(
        r#"#!/bin/sh
# Written by `cargo xtask`: answers for HiGHS, and leaves the rest to the machine's pkg-config.
case " $* " in
*" highs "*) ;;
*) exec "${{PKG_CONFIG:-pkg-config}}" "$@" ;;
esac
case " $* " in
*" --modversion "*) echo {version} ;;
*) cat <<'FLAGS' ;;
{flags}
FLAGS
esac
"#
    )
}

/// Escapes blanks the way pkg-config does; bindgen splits its arguments by the same rule.
pub fn quote(flag: &str) -> String {
    flag.replace('\\', r"\\").replace(' ', r"\ ")
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    bail!("the ready library needs a Unix system")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_from_mentions() {
        let header =
            "// see Highs_lpCall, which\nHighsInt Highs_run(void* highs);\nvoid Highs_destroy (void*);";
        assert_eq!(functions(header).into_iter().collect::<Vec<_>>(), ["Highs_destroy", "Highs_run"]);
    }

    #[test]
    fn version_is_read_from_three_definitions() {
        let config =
            "#define HIGHS_VERSION_MAJOR 1\n#define HIGHS_VERSION_MINOR 15\n#define HIGHS_VERSION_PATCH 1\n";
        assert_eq!(version(config).as_deref(), Some("1.15.1"));
        assert_eq!(version(""), None);
    }
}
