//! Reads `docs/ARCHITECTURE.md`: which crates it describes and what each must never reach.

use super::Finding;

/// The map of the workspace.
pub const FILE: &str = "docs/ARCHITECTURE.md";

/// The part of the map below a heading that names one crate, as in ``### `crates/gamma-ilp` ``.
#[derive(Debug, PartialEq, Eq)]
pub struct Chapter {
    pub name: String,
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
            let name = quoted(text).find_map(|name| name.strip_prefix("crates/"));
            inside = name.is_some();
            if let Some(name) = name {
                chapters.push(Chapter { name: name.to_owned(), line, borders: Vec::new() });
            }
        } else if let (true, Some(chapter)) = (inside, chapters.last_mut())
            && let Some((_, names)) = text.split_once("**Never reaches:**")
        {
            chapter.borders.extend(quoted(names).map(|name| Border { name: name.to_owned(), line }));
        }
    }
    chapters
}

/// The parts of a line between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Every crate has one chapter and every chapter a crate.
pub fn compare(chapters: &[Chapter], crates: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, chapter) in chapters.iter().enumerate() {
        if !crates.contains(&chapter.name) {
            findings.push(Finding::new(FILE, chapter.line, format!("there is no crates/{}", chapter.name)));
        }
        if chapters[..position].iter().any(|earlier| earlier.name == chapter.name) {
            findings.push(Finding::new(FILE, chapter.line, format!("second heading for `{}`", chapter.name)));
        }
    }
    for name in crates.iter().filter(|name| chapters.iter().all(|chapter| chapter.name != **name)) {
        findings.push(Finding::new(FILE, 0, format!("no heading names `crates/{name}`")));
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
### `crates/b`
";

    #[test]
    fn borders_belong_to_the_crate_above_them() {
        let chapters = chapters(MAP);
        let names: Vec<&str> = chapters.iter().map(|chapter| chapter.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let border = |name: &str| Border { name: name.to_owned(), line: 4 };
        assert_eq!(chapters[0].borders, [border("burn"), border("std::fs")]);
        assert_eq!(chapters[1].borders, []);
    }

    #[test]
    fn map_and_folders_are_compared_both_ways() {
        let found = compare(&chapters(MAP), &["b".to_owned(), "c".to_owned()]);
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 0]);
    }
}
