//! The files of engines, by name.

use std::{fmt, str::FromStr};

use gamma_core::Format;

use crate::{IntegerLayout, gguf};

/// What a plan becomes for an engine.
///
/// ```
/// use gamma_export::Target;
///
/// let gguf: Target = "gguf".parse()?;
/// assert!(gguf.holds(&"custom4:ggml-q4_K".parse()?, [64, 512]));
/// assert!(!gguf.holds(&"int3:g128:sym:f16".parse()?, [64, 512]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// One file for llama.cpp, candle and mistral.rs.
    Gguf,
    /// A folder with integer codes.
    Integers(IntegerLayout),
}

/// Every target and its name.
const NAMES: [(Target, &str); 5] = [
    (Target::Gguf, "gguf"),
    (Target::Integers(IntegerLayout::CompressedTensors), "compressed-tensors"),
    (Target::Integers(IntegerLayout::AutoRound), "auto-round"),
    (Target::Integers(IntegerLayout::Gptq), "gptq"),
    (Target::Integers(IntegerLayout::Mlx), "mlx"),
];

/// A name that no target has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no target `{0}`; there are gguf, compressed-tensors, auto-round, gptq and mlx")]
pub struct UnknownTarget(pub String);

impl Target {
    /// Whether a matrix of `shape` can be stored in `format`.
    #[must_use]
    pub fn holds(self, format: &Format, shape: [usize; 2]) -> bool {
        match self {
            Self::Gguf => gguf::gguf_type(format, shape).is_some(),
            Self::Integers(layout) => layout.fits(format, shape),
        }
    }

    /// What it holds, in words.
    #[must_use]
    pub fn served(self) -> &'static str {
        match self {
            Self::Gguf => gguf::SERVED,
            Self::Integers(layout) => layout.served(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(target, _)| target == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|&(target, _)| target).ok_or_else(|| UnknownTarget(text.to_owned()))
    }
}
