//! Rust code in documents is compiled: each document with a Rust block is included by a crate.

use std::path::{Component, Path, PathBuf};

use super::{Finding, Text};

/// Reports the documents with Rust blocks that no `include_str!` names.
pub fn check(texts: &[Text]) -> Vec<Finding> {
    let included: Vec<PathBuf> =
        texts.iter().filter(|text| text.has_extension("rs")).flat_map(includes).collect();
    texts
        .iter()
        .filter(|text| text.has_extension("md") && !included.contains(&text.path))
        .filter_map(|text| {
            let (line, _) = text.lines().find(|(_, line)| line.trim_start().starts_with("```rust"))?;
            Some(Finding::new(
                &text.path,
                line,
                "Rust code that no crate compiles: include it as documentation",
            ))
        })
        .collect()
}

/// Files a source includes as text, relative to the root.
fn includes(source: &Text) -> Vec<PathBuf> {
    let folder = source.path.parent().unwrap_or(Path::new(""));
    let calls = source.content.split("include_str!(").skip(1);
    calls
        .filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next())
        .map(|path| resolve(&folder.join(path)))
        .collect()
}

/// Removes `.` and `..` without asking the file system.
fn resolve(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_with_rust_must_be_included() {
        let text = |path: &str, content: &str| Text { path: path.into(), content: content.to_owned() };
        let texts = [
            text("README.md", "text\n```rust\nlet x = 1;\n```\n"),
            text("docs/guide.md", "```rust\n```\n"),
            text("docs/shell.md", "```sh\n```\n"),
            text(
                "crates/a/src/lib.rs",
                "#[cfg(doctest)]\n#[doc = include_str!(\"../../../README.md\")]\nstruct Readme;",
            ),
        ];
        let found = check(&texts);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_path(), found[0].line), (Path::new("docs/guide.md"), 1));
    }
}
