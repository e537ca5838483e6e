//! Reads the text files of the repository that people write.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Text;

/// Endings of the files to read; data and golden files may contain anything.
const EXTENSIONS: [&str; 5] = ["rs", "toml", "md", "sh", "yml"];

/// Hidden folders that belong to the repository.
const HIDDEN: [&str; 3] = [".cargo", ".ci", ".github"];

/// All files below `root`, sorted; build output and hidden folders are left out.
pub fn read(root: &Path) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    walk(root, root, &mut texts)?;
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(texts)
}

fn walk(root: &Path, folder: &Path, texts: &mut Vec<Text>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().with_context(|| format!("cannot look at {}", path.display()))?;
        if kind.is_dir() {
            let hidden = name.starts_with('.') && !HIDDEN.contains(&name.as_str());
            if name != "target" && !hidden {
                walk(root, &path, texts)?;
            }
        } else if kind.is_file() && is_text(&path) {
            let content =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
            texts.push(Text { path, content });
        }
    }
    Ok(())
}

fn is_text(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => EXTENSIONS.iter().any(|known| extension == *known),
        None => path.ends_with(".ci/run"),
    }
}
