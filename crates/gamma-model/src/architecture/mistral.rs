//! Mistral: Llama without biases; each token sees a window of those before it, if the file has one.

use serde::Deserialize;

use super::{Architecture, File, Layout};
use crate::ModelError;

pub(super) const FAMILY: Architecture = Architecture {
    name: "MistralForCausalLM",
    layout: |file| Ok(Layout { window: window(file)?, ..Layout::PLAIN }),
};

/// The window of a Mistral or Mixtral model, in tokens.
pub(super) fn window(file: &File<'_>) -> Result<Option<usize>, ModelError> {
    let Keys { sliding_window: window } = file.keys()?;
    let expected = "a token sees itself at least; null stands for no window";
    file.check(&[("sliding_window", &window.unwrap_or(0), window != Some(0), expected)])?;
    Ok(window)
}

#[derive(Deserialize)]
struct Keys {
    sliding_window: Option<usize>,
}
