//! What the machine already has: HiGHS, libclang, cmake and the C compiler's headers.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::output;

/// The oldest HiGHS to link, as `[major, minor]`. The build script of `highs-sys` is content with
/// 1.5; results of solvers that much older than the one in the wheel have not been compared.
const OLDEST: [u32; 2] = [1, 10];

/// A HiGHS that pkg-config knows.
pub struct Found {
    pub version: String,
    /// Where `interfaces/highs_c_api.h` may lie besides the folders that pkg-config names.
    pub include_dirs: Vec<PathBuf>,
}

/// Asks pkg-config for HiGHS.
pub fn pkg_config_highs() -> Result<Found> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| OsString::from("pkg-config"));
    let ask = |question: &str| output(Command::new(&program).args([question, "highs"]));
    let Ok(version) = ask("--modversion") else {
        bail!("pkg-config finds no HiGHS");
    };
    let version = version.trim().to_owned();
    if !is_recent(&version) {
        let [major, minor] = OLDEST;
        bail!("pkg-config finds HiGHS {version}, older than {major}.{minor}");
    }
    // Debian's file names the parent folder only, and the header includes its neighbours without it.
    let parent = ask("--variable=includedir").unwrap_or_default();
    let folder = Path::new(parent.trim()).join("highs");
    Ok(Found { version, include_dirs: folder.is_dir().then_some(folder).into_iter().collect() })
}

fn is_recent(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = [parts.next().unwrap_or(0), parts.next().unwrap_or(0)];
    found >= OLDEST
}

/// The folder of a libclang outside `home`: from `LIBCLANG_PATH`, or where distributions put it.
///
/// `LIBCLANG_PATH` may also name the library itself, and may stem from an older set-up in `home`,
/// because cargo hands its `[env]` table on to xtask.
pub fn libclang_folder(home: &Path) -> Option<PathBuf> {
    let named = env::var_os("LIBCLANG_PATH").map(PathBuf::from).into_iter().map(|path| {
        if path.is_file() { path.parent().map_or(PathBuf::new(), Path::to_path_buf) } else { path }
    });
    let mut folders: Vec<PathBuf> = named.filter(|path| !path.starts_with(home)).collect();
    folders.extend(subfolders("/usr/lib", "llvm-").into_iter().rev().map(|folder| folder.join("lib")));
    folders.extend(subfolders("/usr/lib", ""));
    let fixed = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/Library/Developer/CommandLineTools/usr/lib",
        "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
    ];
    folders.extend(fixed.map(PathBuf::from));
    folders.into_iter().find(|folder| holds_libclang(folder))
}

fn subfolders(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

fn holds_libclang(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| is_libclang(&name.to_string_lossy()))
}

/// Whether bindgen would load a file of this name; `libclang-cpp.so.14` is another library.
fn is_libclang(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("libclang") else {
        return false;
    };
    let numbered = rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    rest == ".dylib" || rest == ".so" || rest.starts_with(".so.") || (numbered && rest.contains(".so"))
}

/// Whether `highs-sys` will find a cmake.
pub fn has_cmake() -> bool {
    output(Command::new("cmake").arg("--version")).is_ok()
}

/// The folder of the C compiler's own headers; gcc and clang answer alike.
pub fn compiler_include_dir() -> Result<PathBuf> {
    let answer = output(Command::new("cc").arg("-print-file-name=include"))
        .context("no C compiler: install gcc and g++, or clang")?;
    let folder = PathBuf::from(answer.trim());
    if !folder.is_dir() {
        bail!("the C compiler names no folder of headers");
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        for (version, expected) in
            [("1.15.1", true), ("1.10.0", true), ("1.9.0", false), ("2", true), ("", false)]
        {
            assert_eq!(is_recent(version), expected, "{version}");
        }
    }

    #[test]
    fn libclang_is_not_mistaken_for_its_neighbours() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so.1", "libclang-18.so", "libclang.dylib"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang_rt.so", "libclangAST.a", "libclang.a"] {
            assert!(!is_libclang(name), "{name}");
        }
    }
}
