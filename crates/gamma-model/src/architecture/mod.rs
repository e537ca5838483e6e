//! The supported families, one file each: what its checkpoints hold where families differ.
//!
//! A new family is a file beside this one, and a line in [`FAMILIES`].

mod llama;
mod mistral;
mod mixtral;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use std::{
    fmt::{self, Display},
    path::Path,
};

use serde::de::DeserializeOwned;

use crate::{Experts, ModelError};

const FAMILIES: &[Architecture] =
    &[llama::FAMILY, mistral::FAMILY, mixtral::FAMILY, qwen2::FAMILY, qwen3::FAMILY, qwen3_moe::FAMILY];

/// A supported family of decoders.
#[derive(Clone, Copy)]
pub struct Architecture {
    name: &'static str,
    /// What `config.json` says about the blocks of this family.
    layout: fn(&File<'_>) -> Result<Layout, ModelError>,
}

/// What blocks hold besides the matrices and norms that all families have.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says which tensors a checkpoint has")]
pub(crate) struct Layout {
    /// Channels per head where the file gives none; the hidden size over the heads if this gives
    /// none either.
    pub(crate) head_dim: Option<usize>,
    /// Biases on query, key and value.
    pub(crate) qkv_bias: bool,
    /// A bias on the attention output.
    pub(crate) output_bias: bool,
    /// Biases on the feed-forward layers.
    pub(crate) mlp_bias: bool,
    /// RMS norms over the channels of each query and each key, before they are rotated.
    pub(crate) query_key_norm: bool,
    /// How many tokens a token sees, itself included; all before it where there is no window.
    pub(crate) window: Option<usize>,
    /// Experts in place of the one feed-forward layer.
    pub(crate) experts: Option<Experts>,
}

impl Layout {
    /// Matrices and norms alone.
    const PLAIN: Self = Self {
        head_dim: None,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        query_key_norm: false,
        window: None,
        experts: None,
    };
}

impl Architecture {
    /// The class name in `config.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The family with one of the class names that a configuration lists.
    pub(crate) fn find(file: &File<'_>, classes: &[String]) -> Result<Self, ModelError> {
        let first = classes.first();
        let family = FAMILIES.iter().find(|family| first.is_some_and(|class| class == family.name));
        family.copied().ok_or_else(|| ModelError::Architecture {
            path: file.path.to_owned(),
            found: classes.to_vec(),
            supported: FAMILIES.iter().map(|family| family.name).collect(),
        })
    }

    pub(crate) fn layout(self, file: &File<'_>) -> Result<Layout, ModelError> {
        (self.layout)(file)
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Architecture {}

/// The text of a `config.json`, from which every family picks the keys that concern it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

/// A key, its value, whether it holds, and what would work.
pub(crate) type Setting<'a> = (&'static str, &'a dyn Display, bool, &'static str);

impl File<'_> {
    /// The keys that `T` names.
    pub(crate) fn keys<T: DeserializeOwned>(&self) -> Result<T, ModelError> {
        serde_json::from_str(self.text).map_err(|source| ModelError::Json {
            path: self.path.to_owned(),
            what: "model configuration",
            source,
        })
    }

    /// Refuses the first setting that does not hold.
    pub(crate) fn check(&self, settings: &[Setting<'_>]) -> Result<(), ModelError> {
        match settings.iter().find(|(_, _, holds, _)| !holds) {
            None => Ok(()),
            Some((key, found, _, expected)) => {
                let (path, found) = (self.path.to_owned(), found.to_string());
                Err(ModelError::Setting { path, key, found, expected })
            }
        }
    }
}
