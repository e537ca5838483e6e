//! Programs and libraries from Python wheels: the way to a ready binary without root rights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::output;

/// Wheels that are installed together: the name of their folder and their pinned requirements.
type Bundle = (&'static str, &'static str);

/// HiGHS as a shared library, with its headers.
pub const LIBRARY: Bundle = ("library", include_str!("../../wheels/library.txt"));

/// libclang without its headers.
pub const LIBCLANG: Bundle = ("libclang", include_str!("../../wheels/libclang.txt"));

/// cmake and ninja.
pub const BUILD_TOOLS: Bundle = ("build-tools", include_str!("../../wheels/build-tools.txt"));

/// Ways to start pip or its equal, the usual first. A Debian system may have python3 without the module pip.
const INSTALLERS: [&[&str]; 4] = [
    &["python3", "-m", "pip", "install"],
    &["pip3", "install"],
    &["python", "-m", "pip", "install"],
    &["uv", "pip", "install"],
];

/// Installs a bundle below `home` and returns its folder.
///
/// `--target` leaves the machine's own packages alone, needs no virtual environment (which Debian
/// splits off from python3) and is allowed where the distribution manages its packages itself. Only
/// wheels whose hash is written down are taken, so nothing is executed while installing.
pub fn fetch(home: &Path, (name, requirements): Bundle) -> Result<PathBuf> {
    let installer = installer()?;
    let folder = home.join(name);
    let list = home.join(format!("{name}.txt"));
    fs::write(&list, requirements).with_context(|| format!("cannot write {}", list.display()))?;
    eprintln!("highs: fetching {} with `{}`", pins(requirements).join(" and "), installer.join(" "));
    let mut command = Command::new(installer[0]);
    command.args(&installer[1..]).args(["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
    command.arg("--target").arg(&folder).arg("--requirement").arg(&list);
    command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1"); // its notice would hide the error in the last line
    output(&mut command).with_context(|| format!("cannot fetch {}", pins(requirements).join(" and ")))?;
    Ok(folder)
}

fn installer() -> Result<&'static [&'static str]> {
    let works = |words: &&&[&str]| output(Command::new(words[0]).args(&words[1..]).arg("--help")).is_ok();
    let Some(installer) = INSTALLERS.iter().find(works) else {
        bail!("no pip for python3");
    };
    Ok(installer)
}

/// The `name==version` parts of a requirements file.
fn pins(requirements: &str) -> Vec<&str> {
    requirements.split_whitespace().filter(|word| word.contains("==")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_has_one_version_and_hashes() {
        for (name, requirements) in [LIBRARY, LIBCLANG, BUILD_TOOLS] {
            assert!(!pins(requirements).is_empty(), "{name}");
            for (pin, paragraph) in pins(requirements).iter().zip(requirements.split("\n\n")) {
                assert!(paragraph.contains(pin) && paragraph.contains("--hash=sha256:"), "{name}: {pin}");
            }
        }
    }
}
