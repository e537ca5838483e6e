//! What the model is shown while learning.

use std::path::PathBuf;

/// Where calibration tokens come from, and how many.
///
/// | setter | default |
/// |---|---|
/// | [`sequences`](Self::sequences) | 128 |
/// | [`length`](Self::length) | 2048, or the model's context if that is shorter |
/// | [`gate_sequences`](Self::gate_sequences) | half as many, 8 at least, as far as the text suffices |
/// | [`seed`](Self::seed), for sampled text | 0 |
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Calibration {
    pub(crate) source: Source,
    pub(crate) sequences: usize,
    gate: Option<usize>,
    pub(crate) length: Option<usize>,
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Files(Vec<PathBuf>),
    Sampled,
    Tokens(Vec<Vec<u32>>),
    None,
}

impl Calibration {
    /// Text from a UTF-8 file. Do not use the text that you judge by.
    pub fn text_file(path: impl Into<PathBuf>) -> Self {
        Self::text_files([path])
    }

    /// Text from several UTF-8 files, one after the other.
    pub fn text_files(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self::new(Source::Files(paths.into_iter().map(Into::into).collect()))
    }

    /// Text sampled from the model itself at temperature 1, for those who have none. All blocks
    /// are in memory while sampling.
    pub fn sampled() -> Self {
        Self::new(Source::Sampled)
    }

    /// Tokens of a host that has its own tokenizer: sequences of one length. A quarter of them, spread
    /// over all, also decides what is accepted.
    pub fn tokens(sequences: Vec<Vec<u32>>) -> Self {
        let count = sequences.len();
        Self::new(Source::Tokens(sequences)).sequences(count)
    }

    /// No text at all: enough to apply and judge plans with a quantizer that needs no data, not
    /// enough to learn.
    pub fn none() -> Self {
        Self::new(Source::None)
    }

    fn new(source: Source) -> Self {
        Self { source, sequences: 128, gate: None, length: None, seed: 0 }
    }

    /// How many sequences, spread evenly over the text.
    pub fn sequences(mut self, count: usize) -> Self {
        self.sequences = count;
        self
    }

    /// How many sequences are held back, spread over the text, to decide whether a plan that was
    /// improved by measuring is really better.
    pub fn gate_sequences(mut self, count: usize) -> Self {
        self.gate = Some(count);
        self
    }

    pub(crate) fn gate(&self) -> usize {
        self.gate.unwrap_or(self.sequences.div_ceil(2).max(8))
    }

    /// Tokens per sequence.
    pub fn length(mut self, tokens: usize) -> Self {
        self.length = Some(tokens);
        self
    }

    /// Seed of sampled text.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}
