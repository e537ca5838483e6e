//! HiGHS for a machine that has none: found, fetched or prepared for a build from source.
//!
//! The crate `highs-sys` links a HiGHS that pkg-config knows and otherwise compiles its own copy,
//! which takes minutes and wants cmake; either way it reads the C header with libclang. This
//! module supplies whatever of that is missing, under `target/highs`, without root rights:
//!
//! 1. a HiGHS that pkg-config already finds ([`system`]);
//! 2. the ready library in the wheel `highsbox` ([`wheels`]), presented to the linker and to
//!    `highs-sys` by a few generated files ([`linking`]);
//! 3. a build from source, with cmake and ninja from wheels where the machine has no cmake.
//!
//! What was decided becomes the `[env]` table of `target/highs/config.toml` ([`settings`]), which
//! `.cargo/config.toml` includes. A build script cannot do this work, as builds must not download.

mod linking;
mod settings;
mod system;
mod wheels;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

pub use settings::Settings as Highs;

use crate::workspace::Workspace;

/// Part of the key of a finished set-up: raise it when files written by an older xtask no longer do.
const FORMAT: u32 = 1;

/// Makes sure that HiGHS can be linked; a finished set-up is recognized and kept.
///
/// # Errors
/// Fails, with one line that says what to install, when no way to a HiGHS is open.
pub fn provide(workspace: &Workspace) -> Result<Highs> {
    let target = workspace.root().join("target");
    fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
    // Two commands may start at the same time. The lock ends with the process, however that ends.
    let lock = File::create(target.join("highs.lock")).context("cannot create the lock of the set-up")?;
    lock.lock().context("cannot lock the set-up")?;

    let source = Source::asked()?;
    let home = target.join("highs");
    let key = format!("format {FORMAT}, {source:?}, {}", home.display());
    if let Some(ready) = Highs::read(&home, &key) {
        eprintln!("highs: {}", ready.summary());
        return Ok(ready);
    }

    let start = Instant::now();
    if home.exists() {
        Highs::forget(&home)?;
        fs::remove_dir_all(&home).with_context(|| format!("cannot clear {}", home.display()))?;
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    let ready = set_up(&home, source)?;
    ready.write(&key)?;
    eprintln!("highs: {}; set up in {:.1} s", ready.summary(), start.elapsed().as_secs_f64());
    Ok(ready)
}

/// Prints the variables that a build outside this workspace needs, as lines for a shell.
pub fn print_exports(workspace: &Workspace) -> Result<()> {
    print!("{}", provide(workspace)?.exports());
    Ok(())
}

/// Where to take HiGHS from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The first of the others that works.
    Any,
    /// The one pkg-config finds.
    System,
    /// The ready library from a wheel.
    Wheel,
    /// Compiled by `highs-sys`, linked statically: for a program that is to leave this machine.
    Compiled,
}

impl Source {
    /// What `GAMMA_HIGHS` asks for.
    fn asked() -> Result<Self> {
        let Some(value) = env::var_os("GAMMA_HIGHS") else {
            return Ok(Self::Any);
        };
        match value.to_str() {
            Some("system") => Ok(Self::System),
            Some("wheel") => Ok(Self::Wheel),
            Some("source") => Ok(Self::Compiled),
            _ => bail!("GAMMA_HIGHS is `{}`, expected `system`, `wheel` or `source`", value.display()),
        }
    }

    fn allows(self, one: Self) -> bool {
        self == Self::Any || self == one
    }
}

/// Sets HiGHS up below a folder, from one source.
type Way = fn(&Path) -> Result<Highs>;

/// Tries the allowed sources in order and says why it passes one over.
fn set_up(home: &Path, source: Source) -> Result<Highs> {
    let ways: [(Source, Way); 3] =
        [(Source::System, from_system), (Source::Wheel, from_wheel), (Source::Compiled, from_source)];
    for (_, way) in ways.iter().filter(|(way, _)| source.allows(*way)) {
        match way(home) {
            Ok(highs) => return Ok(highs),
            Err(reason) => eprintln!("highs: {reason:#}"),
        }
    }
    bail!(
        "HiGHS cannot be set up; install python3-pip, or libhighs-dev with libclang-dev and pkg-config, \
         or cmake with libclang-dev"
    );
}

fn from_system(home: &Path) -> Result<Highs> {
    let found = system::pkg_config_highs()?;
    let mut highs = Highs::new(home, format!("HiGHS {} found by pkg-config", found.version));
    add_libclang(&mut highs, home, &found.include_dirs)?;
    Ok(highs)
}

fn from_wheel(home: &Path) -> Result<Highs> {
    if !cfg!(target_os = "linux") {
        bail!("the ready library is used on Linux only");
    }
    let folder = wheels::fetch(home, wheels::LIBRARY)?;
    let library = linking::Library::in_wheel(&folder)?;
    let mut highs = Highs::new(home, format!("HiGHS {} from the wheel highsbox", library.version));
    // Of all variables that pkg-config's crate reads, this one is limited to builds for the machine
    // itself: with `PKG_CONFIG` a cross build would link this library, too.
    highs.set("HOST_PKG_CONFIG", linking::write(home, &library)?);
    add_libclang(&mut highs, home, &[])?;
    Ok(highs)
}

fn from_source(home: &Path) -> Result<Highs> {
    let mut highs = Highs::new(home, "HiGHS compiled by highs-sys, which takes minutes once".to_owned());
    // Keeps `highs-sys` away from a HiGHS that pkg-config knows but that is too old. Any value does;
    // this one is recognized when it has become stale.
    highs.set("HIGHS_NO_PKG_CONFIG", text(home)?);
    if !system::has_cmake() {
        let folder = wheels::fetch(home, wheels::BUILD_TOOLS)?;
        highs.set("CMAKE", text(&folder.join("cmake/data/bin/cmake"))?);
        // A machine without cmake is likely to lack make as well.
        highs.set("CMAKE_GENERATOR", "Ninja".to_owned());
        highs.set("CMAKE_PROGRAM_PATH", text(&folder.join("bin"))?);
    }
    add_libclang(&mut highs, home, &[])?;
    Ok(highs)
}

/// Gives bindgen its libclang and the folders in which to look for headers.
fn add_libclang(highs: &mut Highs, home: &Path, include_dirs: &[PathBuf]) -> Result<()> {
    let folder = if let Some(folder) = system::libclang_folder(home) {
        highs.mention("libclang of this machine");
        folder
    } else {
        highs.mention("libclang from its wheel");
        wheels::fetch(home, wheels::LIBCLANG)?.join("clang/native")
    };
    highs.set("LIBCLANG_PATH", text(&folder)?);
    // The wheel is the bare library, without clang's own `stddef.h`; the C compiler's serves.
    let compiler_headers = system::compiler_include_dir()?;
    let flags = include_dirs.iter().chain([&compiler_headers]).map(|folder| text(folder));
    let flags: Result<Vec<String>> =
        flags.map(|folder| Ok(linking::quote(&format!("-I{}", folder?)))).collect();
    highs.set("BINDGEN_EXTRA_CLANG_ARGS", flags?.join(" "));
    Ok(())
}

/// A path as text, for files and variables that can hold nothing else.
fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not valid UTF-8", path.display()))
}
