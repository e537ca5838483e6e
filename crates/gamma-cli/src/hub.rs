//! Models by name.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// The folder of `model`: itself if it exists, else a copy from the Hugging Face hub.
pub fn resolve(model: &str) -> anyhow::Result<PathBuf> {
    let folder = Path::new(model);
    if folder.is_dir() {
        return Ok(folder.to_owned());
    }
    let like_a_name = model.split('/').count() == 2 && !model.starts_with('.') && !model.starts_with('/');
    if like_a_name {
        return fetch(model);
    }
    bail!("there is no folder `{model}`");
}

#[cfg(feature = "hub")]
fn fetch(name: &str) -> anyhow::Result<PathBuf> {
    use anyhow::Context;
    use hf_hub::api::sync::ApiBuilder;

    let reason =
        || format!("there is no folder `{name}`, and it cannot be fetched from the Hugging Face hub");
    let repository =
        ApiBuilder::from_env().with_progress(true).build().with_context(reason)?.model(name.to_owned());
    let files = repository.info().with_context(reason)?.siblings;
    let needed =
        |file: &str| file == "config.json" || file.starts_with("tokenizer") || file.starts_with("model");
    let mut config = None;
    for file in files.iter().map(|sibling| sibling.rfilename.as_str()) {
        let readable = file.ends_with(".json") || file.ends_with(".safetensors");
        if needed(file) && readable && !file.contains('/') {
            let path = repository.get(file).with_context(reason)?;
            config = (file == "config.json").then_some(path).or(config);
        }
    }
    let config = config.with_context(|| format!("`{name}` on the Hugging Face hub has no config.json"))?;
    config.parent().map(Path::to_owned).context("a file has a folder")
}

#[cfg(not(feature = "hub"))]
fn fetch(name: &str) -> anyhow::Result<PathBuf> {
    bail!("there is no folder `{name}`; to fetch models by name, build gamma-cli with the feature `hub`")
}
