//! How one weight matrix is stored.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{BitWidth, GroupSize};

/// Whether a group stores a zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symmetry {
    /// `w ≈ scale * (code - 2^(b-1))`: no zero point is stored.
    Symmetric,
    /// `w ≈ scale * (code - zero)`: one integer zero point of `b` bits per group.
    Asymmetric,
}

/// The storage format of one weight matrix.
///
/// Written as `int4:g64:asym:f16` (integer codes of 4 bits, groups of 64, asymmetric, 16-bit
/// scales) or, for a method with a code of its own, as `custom3:NAME`.
///
/// ```
/// use gamma_core::Format;
/// let format: Format = "int3:g128:sym:f16".parse()?;
/// assert_eq!(format.bits().bits(), 3);
/// assert_eq!(format.to_string(), "int3:g128:sym:f16");
/// # Ok::<(), gamma_core::InvalidFormat>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Format {
    /// Affine integer codes with one 16-bit float scale per group.
    Int {
        /// Bits per code.
        bits: BitWidth,
        /// Input channels per scale.
        group: GroupSize,
        /// With or without a zero point.
        symmetry: Symmetry,
    },
    /// The code of a third-party quantizer, known by name alone.
    Custom {
        /// Bits per code.
        bits: BitWidth,
        /// The quantizer's name; letters, digits, `-`, `_` and `.`.
        name: String,
    },
}

/// Storage of one matrix by purpose, in bits; each stream takes whole bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Integer codes.
    pub codes: u64,
    /// Scales of the groups.
    pub scales: u64,
    /// Zero points of the groups.
    pub zeros: u64,
}

/// A format string that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown weight format `{0}`; expected `int<2-8>:g<size>:<sym|asym>:f16` or `custom<2-8>:<name>`")]
pub struct InvalidFormat(pub String);

impl Format {
    /// Symmetric integer codes.
    #[must_use]
    pub fn symmetric(bits: BitWidth, group: GroupSize) -> Self {
        Self::Int { bits, group, symmetry: Symmetry::Symmetric }
    }

    /// Asymmetric integer codes.
    #[must_use]
    pub fn asymmetric(bits: BitWidth, group: GroupSize) -> Self {
        Self::Int { bits, group, symmetry: Symmetry::Asymmetric }
    }

    /// Bits per code.
    #[must_use]
    pub fn bits(&self) -> BitWidth {
        match self {
            Self::Int { bits, .. } | Self::Custom { bits, .. } => *bits,
        }
    }

    /// Exact storage of a matrix of `shape` = `[out_features, in_features]`, in bits, each of the
    /// three streams (codes, scales, zero points) rounded up to whole bytes. `None` for
    /// [`Format::Custom`], whose quantizer alone knows, and beyond 2^64 bits.
    ///
    /// ```
    /// use gamma_core::{BitWidth, Format, GroupSize};
    /// let format = Format::asymmetric(BitWidth::B4, GroupSize::new(128)?);
    /// // 4-bit codes, one 16-bit scale and one 4-bit zero point per 128 weights.
    /// assert_eq!(format.stored_bits([256, 512]), Some(256 * 512 * 4 + 256 * 4 * (16 + 4)));
    /// # Ok::<(), gamma_core::InvalidGroupSize>(())
    /// ```
    #[must_use]
    pub fn stored_bits(&self, shape: [usize; 2]) -> Option<u64> {
        let Streams { codes, scales, zeros } = self.streams(shape)?;
        codes.checked_add(scales)?.checked_add(zeros)
    }

    /// What [`stored_bits`](Self::stored_bits) adds up.
    #[must_use]
    pub fn streams(&self, shape: [usize; 2]) -> Option<Streams> {
        let Self::Int { bits, group, symmetry } = self else {
            return None;
        };
        let width = u64::from(bits.bits());
        let codes = (shape[0] as u64).checked_mul(shape[1] as u64)?;
        let groups = (shape[0] as u64).checked_mul(group.groups_in(shape[1]) as u64)?;
        let zeros = match symmetry {
            Symmetry::Symmetric => 0,
            Symmetry::Asymmetric => groups,
        };
        let stream = |count: u64, bits: u64| count.checked_mul(bits)?.checked_next_multiple_of(8);
        Some(Streams {
            codes: stream(codes, width)?,
            scales: stream(groups, 16)?,
            zeros: stream(zeros, width)?,
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int { bits, group, symmetry } => {
                let symmetry = match symmetry {
                    Symmetry::Symmetric => "sym",
                    Symmetry::Asymmetric => "asym",
                };
                write!(f, "int{bits}:g{group}:{symmetry}:f16")
            }
            Self::Custom { bits, name } => write!(f, "custom{bits}:{name}"),
        }
    }
}

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| InvalidFormat(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Format> {
    let width = |digits: &str| digits.parse().ok().and_then(BitWidth::new);
    if let Some(rest) = text.strip_prefix("custom") {
        let (bits, name) = rest.split_once(':')?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let named = !name.is_empty() && name.chars().all(legal);
        return named.then_some(Format::Custom { bits: width(bits)?, name: name.to_owned() });
    }
    let mut parts = text.strip_prefix("int")?.split(':');
    let bits = width(parts.next()?)?;
    let group = GroupSize::new(parts.next()?.strip_prefix('g')?.parse().ok()?).ok()?;
    let symmetry = match parts.next()? {
        "sym" => Symmetry::Symmetric,
        "asym" => Symmetry::Asymmetric,
        _ => return None,
    };
    let complete = parts.next() == Some("f16") && parts.next().is_none();
    complete.then_some(Format::Int { bits, group, symmetry })
}

impl TryFrom<String> for Format {
    type Error = InvalidFormat;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Format> for String {
    fn from(format: Format) -> Self {
        format.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_format_reads_back() {
        for text in ["int2:g32:sym:f16", "int8:g128:asym:f16", "custom3:my-ternary_v1.2"] {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_formats_are_refused() {
        for text in [
            "",
            "int4",
            "int9:g64:sym:f16",
            "int4:64:sym:f16",
            "int4:g0:sym:f16",
            "int4:g64:sym:f32",
            "int4:g64:sym:f16:more",
            "custom4:",
            "custom4:with space",
            "Q4_K",
        ] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_shorter_last_group_still_pays_for_its_scale() {
        let format = Format::symmetric(BitWidth::B3, GroupSize::new(64).unwrap());
        // 172 = 64 + 64 + 44: three scales per row; 5 * 172 * 3 = 2580 bits round up to 2584.
        assert_eq!(format.stored_bits([5, 172]), Some(2584 + 5 * 3 * 16));
    }

    #[test]
    fn storage_beyond_64_bits_is_none_and_does_not_overflow() {
        let format = Format::asymmetric(BitWidth::B8, GroupSize::new(1).unwrap());
        for shape in [[usize::MAX, 1], [1, usize::MAX], [usize::MAX; 2], [1 << 32, 1 << 28]] {
            assert_eq!(format.stored_bits(shape), None, "{shape:?}");
        }
    }
}
