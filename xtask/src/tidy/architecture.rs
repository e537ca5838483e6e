//! Reads `docs/ARCHITECTURE.md`: which crates it describes and what each must never reach.

use super::Finding;

/// The map of the workspace.
pub const FILE: &str = "docs/ARCHITECTURE.md";

/// Folders whose folders are crates.
pub const PARENTS: [&str; 2] = ["crates", "examples"];

/// The part of the map below a heading that names one crate, as in ``### `crates/gamma-ilp` ``.
#[derive(Debug, PartialEq, Eq)]
pub struct Chapter {
    /// From the root, such as `crates/gamma-ilp`.
    pub folder: String,
    pub line: usize,
    pub borders: Vec<Border>,
}

/// One name from a line such as ``**Never reaches:** `burn`, `std::fs`.``
#[derive(Debug, PartialEq, Eq)]
pub struct Border {
    pub name: String,
    pub line: usize,
}

/// The chapters of the map, in its order. Words outside backticks are for people only.
pub fn chapters(map: &str) -> Vec<Chapter> {
    let mut chapters: Vec<Chapter> = Vec::new();
    let mut inside = false;
    for (line, text) in (1..).zip(map.lines()) {
        if text.starts_with('#') {
            let is_crate = |path: &&str| {
                path.split_once('/')
                    .is_some_and(|(parent, name)| PARENTS.contains(&parent) && !name.is_empty())
            };
            let folder = quoted(text).find(is_crate);
            inside = folder.is_some();
            if let Some(folder) = folder {
                chapters.push(Chapter { folder: folder.to_owned(), line, borders: Vec::new() });
            }
        } else if let (true, Some(chapter)) = (inside, chapters.last_mut())
            && let Some((_, names)) = text.split_once("**Never reaches:**")
        {
            chapter.borders.extend(quoted(names).map(|name| Border { name: name.to_owned(), line }));
        }
    }
    chapters
}

impl Chapter {
    /// The package: crates are named like their folders.
    pub fn package(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(&self.folder)
    }
}

/// The parts of a line between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Every crate has one chapter and every chapter a crate.
pub fn compare(chapters: &[Chapter], crates: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, chapter) in chapters.iter().enumerate() {
        let folder = &chapter.folder;
        if !crates.contains(folder) {
            findings.push(Finding::new(FILE, chapter.line, format!("there is no {folder}")));
        }
        if chapters[..position].iter().any(|earlier| earlier.folder == *folder) {
            findings.push(Finding::new(FILE, chapter.line, format!("second heading for `{folder}`")));
        }
    }
    for folder in crates.iter().filter(|folder| chapters.iter().all(|chapter| chapter.folder != **folder)) {
        findings.push(Finding::new(FILE, 0, format!("no heading names `{folder}`")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
# Map
### `crates/a`
Text with `code`.
**Never reaches:** `burn`, files by `std::fs`.
## Elsewhere
**Never reaches:** `ignored`.
### `examples/b`
### `docs/b`
**Never reaches:** `ignored`.
";

    #[test]
    fn borders_belong_to_the_crate_above_them() {
        let chapters = chapters(MAP);
        let folders: Vec<&str> = chapters.iter().map(|chapter| chapter.folder.as_str()).collect();
        assert_eq!(folders, ["crates/a", "examples/b"]);
        assert_eq!(chapters[1].package(), "b");
        let border = |name: &str| Border { name: name.to_owned(), line: 4 };
        assert_eq!(chapters[0].borders, [border("burn"), border("std::fs")]);
        assert_eq!(chapters[1].borders, []);
    }

    #[test]
    fn map_and_folders_are_compared_both_ways() {
        let found = compare(&chapters(MAP), &["examples/b".to_owned(), "crates/c".to_owned()]);
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 0]);
    }
}
