//! Bit-widths and group sizes: the two numbers every integer format is made of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bits per code, 2 to 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct BitWidth(u8);

impl BitWidth {
    /// Two bits, the narrowest width.
    pub const B2: Self = Self(2);
    /// Three bits.
    pub const B3: Self = Self(3);
    /// Four bits.
    pub const B4: Self = Self(4);
    /// Five bits.
    pub const B5: Self = Self(5);
    /// Six bits.
    pub const B6: Self = Self(6);
    /// Eight bits, the widest width.
    pub const B8: Self = Self(8);

    /// A bit-width, or `None` outside 2 to 8.
    ///
    /// ```
    /// use gamma_core::BitWidth;
    /// assert_eq!(BitWidth::new(4), Some(BitWidth::B4));
    /// assert_eq!(BitWidth::new(9), None);
    /// ```
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        match bits {
            2..=8 => Some(Self(bits)),
            _ => None,
        }
    }

    /// The number of bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The largest unsigned code, `2^b - 1`.
    #[must_use]
    pub const fn max_code(self) -> u8 {
        ((1_u16 << self.0) - 1) as u8
    }
}

impl fmt::Debug for BitWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "B{}", self.0)
    }
}

impl fmt::Display for BitWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<BitWidth> for u8 {
    fn from(width: BitWidth) -> Self {
        width.0
    }
}

impl TryFrom<u8> for BitWidth {
    type Error = String;

    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        Self::new(bits).ok_or_else(|| format!("bit-width {bits} is outside 2 to 8"))
    }
}

/// How many consecutive input channels of one row share a scale (and a zero point).
///
/// Where the group size does not divide the row length, the last group of each row is shorter
/// and still has its own scale: a row of 172 weights in groups of 64 is stored as 64 + 64 + 44.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSize(usize);

/// A group size that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group size {0} is outside 1 to 65536; usual sizes are 32, 64 and 128")]
pub struct InvalidGroupSize(pub usize);

impl GroupSize {
    /// The default of the field: 128.
    pub const G128: Self = Self(128);

    /// A group size.
    ///
    /// # Errors
    /// [`InvalidGroupSize`] outside 1 to 65536.
    pub const fn new(channels: usize) -> Result<Self, InvalidGroupSize> {
        if channels == 0 || channels > 65_536 {
            return Err(InvalidGroupSize(channels));
        }
        Ok(Self(channels))
    }

    /// Channels per full group.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }

    /// Groups per row of `in_features` weights; the last one may be shorter.
    #[must_use]
    pub const fn groups_in(self, in_features: usize) -> usize {
        in_features.div_ceil(self.0)
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
