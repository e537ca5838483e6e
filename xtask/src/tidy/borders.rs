//! What a crate must never reach: packages by `cargo tree`, modules of `std` by its sources.

use std::path::Path;

use anyhow::Result;

use super::architecture::{Chapter, FILE};
use super::{Finding, Text};
use crate::workspace::{Workspace, output};

/// Checks the borders of every chapter whose crate exists.
pub fn check(workspace: &Workspace, chapters: &[Chapter], texts: &[Text]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for chapter in chapters.iter().filter(|chapter| !chapter.borders.is_empty()) {
        let sources_in = Path::new(&chapter.folder).join("src");
        let sources: Vec<&Text> = texts
            .iter()
            .filter(|text| text.has_extension("rs") && text.path.starts_with(&sources_in))
            .collect();
        if sources.is_empty() {
            continue; // reported as a heading without a crate
        }
        let packages = reachable(workspace, chapter)?;
        for border in &chapter.borders {
            if border.name.contains("::") {
                findings.extend(sources.iter().flat_map(|source| uses(source, &border.name)));
            } else if let Some(package) = packages.iter().find(|package| belongs(package, &border.name)) {
                let message =
                    format!("`{}` reaches `{package}`: cargo tree -p {0} -i {package}", chapter.package());
                findings.push(Finding::new(FILE, border.line, message));
            }
        }
    }
    Ok(findings)
}

/// Packages that can end up in a program through the crate, itself left out.
///
/// With all features, because a border holds for every user's choice of them; without
/// development and build dependencies and without what procedural macros use, which run at
/// compile time only.
fn reachable(workspace: &Workspace, chapter: &Chapter) -> Result<Vec<String>> {
    let mut tree = workspace.cargo("tree");
    // By its manifest, because an example may be a workspace of its own.
    tree.arg("--manifest-path").arg(workspace.root().join(&chapter.folder).join("Cargo.toml"));
    tree.args(["--all-features", "--edges", "normal,no-proc-macro"]);
    tree.args(["--prefix", "none", "--format", "{p}"]);
    let lines = output(&mut tree)?;
    let names = lines.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|found| *found != chapter.package()).map(str::to_owned).collect())
}

/// `burn` stands for its whole family, `burn-core` and so on.
fn belongs(package: &str, family: &str) -> bool {
    package.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Places where the code of a source file names a module such as `std::fs`. The module of tests
/// stands last in a file and is not looked at, nor is a file of tests.
fn uses(source: &Text, module: &str) -> Vec<Finding> {
    if source.path.file_stem().is_some_and(|stem| stem == "tests") {
        return Vec::new();
    }
    let lines: Vec<&str> = source.content.lines().collect();
    let n_code = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "))
        .unwrap_or(lines.len());
    let code = &lines[..n_code];
    (0..n_code)
        .filter(|&at| {
            !code[at].trim_start().starts_with("//") && names_module(&statement(&code[at..]), module)
        })
        .map(|at| Finding::new(&source.path, at + 1, format!("reaches `{module}`, see {FILE}")))
        .collect()
}

/// The first line, and where it begins an import that goes on, the lines up to its end.
fn statement(lines: &[&str]) -> String {
    let ends = |line: &&str| line.contains(';');
    let goes_on = lines[0].trim_start().starts_with("use ") || lines[0].trim_start().starts_with("pub use ");
    let n_lines = if goes_on { lines.iter().position(ends).map_or(1, |last| last + 1) } else { 1 };
    lines[..n_lines].concat()
}

/// Whether a line contains the path `a::b`, also as `a::{.., b, ..}`.
fn names_module(line: &str, module: &str) -> bool {
    let Some((parent, child)) = module.rsplit_once("::") else {
        return false;
    };
    line.split(parent).skip(1).filter_map(|rest| rest.strip_prefix("::")).any(|rest| {
        let items = rest.strip_prefix('{').unwrap_or(rest).split(',');
        let count = if rest.starts_with('{') { usize::MAX } else { 1 };
        items.take(count).any(|item| {
            let word = item.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next();
            word == Some(child)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_is_told_from_its_namesakes() {
        assert!(belongs("burn", "burn") && belongs("burn-core", "burn"));
        assert!(!belongs("burnt", "burn") && !belongs("highs", "burn"));
    }

    #[test]
    fn module_is_found_in_every_spelling() {
        for line in
            ["use std::fs;", "let x = std::fs::read(p);", "use std::{env, fs::File};", "use ::std::fs as f;"]
        {
            assert!(names_module(line, "std::fs"), "{line}");
        }
        for line in ["use std::fmt;", "use std::{fmt, env};", "let fs = 1;", "use std::fs_like;"] {
            assert!(!names_module(line, "std::fs"), "{line}");
        }
    }

    #[test]
    fn comments_and_tests_may_name_the_module() {
        let content =
            "/// See `std::fs`.\nuse std::fs;\n#[cfg(test)]\nmod tests { use std::fs; }\n".to_owned();
        let source = Text { path: "crates/a/src/lib.rs".into(), content };
        let lines: Vec<usize> = uses(&source, "std::fs").iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2]);
    }
}
