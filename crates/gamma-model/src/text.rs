//! Texts as sequences of tokens.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokenizers::Tokenizer;

use crate::{Config, ModelError};

/// The tokenizer of a Hugging Face folder (`tokenizer.json`).
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    vocabulary: usize,
}

/// The tokens of a text, with the name that errors give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    name: String,
    bytes: usize,
    ids: Vec<u32>,
}

impl TextEncoder {
    /// Loads `tokenizer.json` of `folder`. Truncation and padding that it asks for are switched
    /// off: texts are encoded as they are.
    ///
    /// # Errors
    /// [`ModelError`] if the file is missing or malformed.
    pub fn open(folder: &Path, config: &Config) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let json = fs::read(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let tokenizer = Tokenizer::from_bytes(json).and_then(|mut tokenizer| {
            tokenizer.with_truncation(None)?.with_padding(None);
            Ok(tokenizer)
        });
        let tokenizer = tokenizer.map_err(|source| ModelError::Tokenizer { path, source })?;
        Ok(Self { tokenizer, vocabulary: config.vocab_size })
    }

    /// Encodes the UTF-8 files `paths`, one after the other, each with the special tokens that
    /// the tokenizer adds by itself.
    ///
    /// # Errors
    /// [`ModelError`] if there is no file, one cannot be read as UTF-8, or holds tokens unknown to
    /// the model.
    pub fn encode_files(&self, paths: &[PathBuf]) -> Result<Tokens, ModelError> {
        if paths.is_empty() {
            return Err(ModelError::NoText);
        }
        let mut all = Tokens { name: String::new(), bytes: 0, ids: Vec::new() };
        for path in paths {
            let text =
                fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
            let tokens = self.encode(&path.display().to_string(), &text)?;
            let separator = if all.name.is_empty() { "" } else { ", " };
            all.name = format!("{}{separator}{}", all.name, tokens.name);
            all.bytes += tokens.bytes;
            all.ids.extend(tokens.ids);
        }
        Ok(all)
    }

    /// Encodes a text; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`ModelError`] if it holds tokens unknown to the model.
    pub fn encode(&self, name: &str, text: &str) -> Result<Tokens, ModelError> {
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|source| ModelError::Encode { text: name.to_owned(), source })?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            None => Ok(Tokens { name: name.to_owned(), bytes: text.len(), ids }),
            Some(&token) => {
                Err(ModelError::Token { text: name.to_owned(), token, vocabulary: self.vocabulary })
            }
        }
    }
}

impl Tokens {
    #[cfg(test)]
    pub(crate) fn for_tests(ids: Vec<u32>) -> Self {
        Self { name: "test".into(), bytes: ids.len(), ids }
    }

    /// The token ids.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The length of the text, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.bytes
    }

    /// `count` sequences of `length` tokens, spread evenly over the text, none overlapping.
    ///
    /// # Errors
    /// [`ModelError::TooLittleText`] says how much is missing.
    pub fn spread(&self, count: usize, length: usize) -> Result<Vec<Vec<u32>>, ModelError> {
        let windows = self.windows(length)?;
        if windows.len() < count {
            return Err(self.too_little(count, length));
        }
        Ok((0..count).map(|i| windows[i * windows.len() / count].to_vec()).collect())
    }

    /// All consecutive windows of `length` tokens; a last, shorter one is dropped.
    ///
    /// # Errors
    /// [`ModelError::TooLittleText`] if there is not even one.
    pub fn all(&self, length: usize) -> Result<Vec<Vec<u32>>, ModelError> {
        let windows = self.windows(length)?;
        if windows.is_empty() {
            return Err(self.too_little(1, length));
        }
        Ok(windows.into_iter().map(<[u32]>::to_vec).collect())
    }

    fn windows(&self, length: usize) -> Result<Vec<&[u32]>, ModelError> {
        if length < 2 {
            return Err(ModelError::Length { length, expected: "at least 2 are needed".into() });
        }
        Ok(self.ids.chunks_exact(length).collect())
    }

    fn too_little(&self, sequences: usize, length: usize) -> ModelError {
        let found = self.ids.len();
        let missing = sequences.saturating_mul(length).saturating_sub(found);
        let bytes_per_token = self.bytes as f64 / found.max(1) as f64;
        let missing_bytes = (missing as f64 * bytes_per_token.max(1.0)).ceil() as usize;
        ModelError::TooLittleText { text: self.name.clone(), found, sequences, length, missing_bytes }
    }
}
