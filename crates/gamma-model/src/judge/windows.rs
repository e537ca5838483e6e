//! The sequences that a model is judged on.

use std::fmt;

use crate::{ModelError, Tokens};

/// Sequences of one length, and which of their tokens are predicted.
///
/// Without overlap every token but the first of a sequence is. Where sequences overlap, a token that
/// stood in the one before is only context, so that each token of the text is predicted once and
/// from at least `length - stride` tokens.
///
/// A plain list of sequences converts into windows without overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    sequences: Vec<Sequence>,
    stride: usize,
}

/// One sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    /// Tokens at the start that are not predicted; at least 1.
    pub(crate) context: usize,
}

impl Windows {
    /// Number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Tokens per sequence.
    #[must_use]
    pub fn length(&self) -> usize {
        self.sequences.first().map_or(0, |first| first.tokens.len())
    }

    /// Tokens from the start of one sequence to the start of the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Number of predicted tokens.
    #[must_use]
    pub fn predicted(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.tokens.len() - sequence.context).sum()
    }

    /// At most `count` of the sequences, spread evenly.
    #[must_use]
    pub fn spread(self, count: usize) -> Self {
        let all = self.sequences.len();
        if count >= all {
            return self;
        }
        let mut sequences: Vec<Option<Sequence>> = self.sequences.into_iter().map(Some).collect();
        let kept = (0..count).filter_map(|i| sequences[i * all / count].take()).collect();
        Self { sequences: kept, stride: self.stride }
    }

    pub(crate) fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Whether all sequences have a length that `context` allows and tokens below `vocabulary`.
    pub(crate) fn check(&self, context: usize, vocabulary: usize) -> Result<(), ModelError> {
        let length = self.length();
        if length < 2 || length > context {
            let expected = format!("windows of 2 to {context} tokens");
            return Err(ModelError::Length { length, expected });
        }
        for (number, Sequence { tokens, .. }) in self.sequences.iter().enumerate() {
            if tokens.len() != length {
                let expected = format!("window 0 has {length} and window {number} must have as many");
                return Err(ModelError::Length { length: tokens.len(), expected });
            }
            if let Some(&token) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(ModelError::Token { text: format!("window {number}"), token, vocabulary });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Windows {
    /// The protocol: what is predicted from what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (predicted, length) = (self.predicted(), self.length());
        write!(f, "{predicted} tokens in {} windows, context {length}, stride {}", self.len(), self.stride)
    }
}

impl From<Vec<Vec<u32>>> for Windows {
    fn from(sequences: Vec<Vec<u32>>) -> Self {
        let stride = sequences.first().map_or(0, Vec::len);
        let sequences = sequences.into_iter().map(|tokens| Sequence { tokens, context: 1 }).collect();
        Self { sequences, stride }
    }
}

impl Tokens {
    /// Windows of `length` tokens that start every `stride` tokens; a last, shorter one is dropped.
    ///
    /// # Errors
    /// [`ModelError::TooLittleText`] if there is not even one; [`ModelError::Length`] if `stride` is
    /// zero or above `length`.
    pub fn sliding(&self, length: usize, stride: usize) -> Result<Windows, ModelError> {
        if stride == 0 || stride > length {
            let expected = format!("a stride of {stride} must be 1 to the length of a window");
            return Err(ModelError::Length { length, expected });
        }
        if stride == length {
            return Ok(self.all(length)?.into());
        }
        let first = self.all(length)?.into_iter().take(1).map(|tokens| Sequence { tokens, context: 1 });
        let later = self.ids().windows(length).step_by(stride).skip(1);
        let context = length - stride;
        let later = later.map(|ids| Sequence { tokens: ids.to_vec(), context });
        Ok(Windows { sequences: first.chain(later).collect(), stride })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_predicted_once_whatever_the_stride() {
        let tokens = Tokens::for_tests((0..103).collect());
        for stride in 1..=10 {
            let windows = tokens.sliding(10, stride).unwrap();
            let mut predicted: Vec<u32> =
                windows.sequences.iter().flat_map(|s| s.tokens[s.context..].to_vec()).collect();
            assert_eq!(predicted.len(), windows.predicted());
            if stride < 10 {
                let last = predicted.len() as u32;
                predicted.sort_unstable();
                assert_eq!(predicted, (1..=last).collect::<Vec<_>>(), "stride {stride}");
                assert!(last > 103 - 10, "stride {stride}");
            } else {
                assert_eq!(predicted.len(), 90);
            }
        }
        assert!(tokens.sliding(10, 11).is_err() && tokens.sliding(10, 0).is_err());
    }
}
