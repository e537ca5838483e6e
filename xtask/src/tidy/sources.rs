//! Habits that concern single files: their names, length, manifests and paths of one machine.

use super::{Finding, Text};

/// A file this long has more than one idea in it.
const MAX_LINES: usize = 600;

/// Names that say nothing about what is inside, for files and for folders of modules.
const EMPTY_NAMES: [&str; 3] = ["utils", "helpers", "common"];

/// Folders that exist on one machine only; written in halves so that this file passes.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Checks every file by itself.
pub fn check(texts: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for text in texts {
        findings.extend(machine_paths(text));
        if text.has_extension("rs") {
            findings.extend(name(text));
            findings.extend(length(text));
        }
        if text.path.starts_with("crates") && text.path.ends_with("Cargo.toml") {
            findings.extend(manifest(text));
        }
    }
    findings
}

fn machine_paths(text: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in text.lines() {
        for path in MACHINE_PATHS.iter().filter(|path| starts_path(content, path)) {
            findings.push(Finding::new(&text.path, line, format!("names the folder {path} of one machine")));
        }
    }
    findings
}

/// Whether `folder` stands at the beginning of a path and not inside one.
fn starts_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_-.}*~>".contains(c))
    })
}

fn name(text: &Text) -> Option<Finding> {
    let mut names = text.path.iter().map(|part| part.to_string_lossy());
    let found = names.find(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs")))?;
    Some(Finding::new(&text.path, 0, format!("`{found}` does not say what is inside")))
}

fn length(text: &Text) -> Option<Finding> {
    let n_lines = text.content.lines().count();
    (n_lines > MAX_LINES)
        .then(|| Finding::new(&text.path, n_lines, format!("is longer than {MAX_LINES} lines")))
}

fn manifest(text: &Text) -> Option<Finding> {
    let mut table = "";
    for (_, line) in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            table = line;
        }
        let line: String = line.split_whitespace().collect();
        if line == "lints.workspace=true" || (table == "[lints]" && line == "workspace=true") {
            return None;
        }
    }
    Some(Finding::new(&text.path, 0, "does not take the lints of the workspace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, content: &str) -> Text {
        Text { path: path.into(), content: content.to_owned() }
    }

    #[test]
    fn machine_path_is_told_from_a_folder_of_the_repository() {
        let [first, ..] = MACHINE_PATHS;
        for (line, expected) in [
            (format!("let p = \"{first}x\";"), true),
            (format!("cd {first}x"), true),
            (format!("docs{first}x"), false),
            (format!("../..{first}x"), false),
        ] {
            assert_eq!(!machine_paths(&text("a.rs", &line)).is_empty(), expected, "{line}");
        }
    }

    #[test]
    fn names_and_length_are_checked() {
        let long = "\n".repeat(MAX_LINES + 1);
        let texts = [text("crates/a/src/utils.rs", ""), text("tests/common/mod.rs", ""), text("b.rs", &long)];
        assert_eq!(check(&texts).len(), 3);
    }

    #[test]
    fn lints_are_found_in_both_spellings() {
        let inherits = |content: &str| manifest(&text("crates/a/Cargo.toml", content)).is_none();
        assert!(inherits("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(inherits("lints.workspace = true\n"));
        assert!(!inherits("[package]\nedition.workspace = true\n[lib]\nworkspace = true\n"));
    }
}
