//! The storage types of ggml: how many weights make a block, and how many bytes it takes.

use std::{fmt, str::FromStr};

/// A storage type of ggml, by the number that GGUF files hold.
///
/// ```
/// use gamma_ggml::GgmlType;
///
/// // 144 bytes for 256 weights: 4.5 bits each.
/// assert_eq!(GgmlType::Q4K.bytes([32, 512]), Some(32 * 2 * 144));
/// // A block never spans two rows.
/// assert_eq!(GgmlType::Q4K.bytes([32, 192]), None);
/// assert_eq!("q4_k".parse(), Ok(GgmlType::Q4K));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of ggml, and `name` writes them")]
#[non_exhaustive]
#[rustfmt::skip]
pub enum GgmlType {
    F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2K, Q3K, Q4K, Q5K, Q6K, Q8K,
    Iq2Xxs, Iq2Xs, Iq3Xxs, Iq1S, Iq4Nl, Iq3S, Iq2S, Iq4Xs, I8, I16, I32, I64, F64, Iq1M, Bf16,
    Tq1_0, Tq2_0, Mxfp4, Nvfp4, Q1_0, Q2_0,
}

/// Number in files, name, weights in a block, bytes of a block.
type Row = (GgmlType, u32, &'static str, u64, u64);

const TABLE: [Row; 35] = [
    (GgmlType::F32, 0, "f32", 1, 4),
    (GgmlType::F16, 1, "f16", 1, 2),
    (GgmlType::Q4_0, 2, "q4_0", 32, 18),
    (GgmlType::Q4_1, 3, "q4_1", 32, 20),
    (GgmlType::Q5_0, 6, "q5_0", 32, 22),
    (GgmlType::Q5_1, 7, "q5_1", 32, 24),
    (GgmlType::Q8_0, 8, "q8_0", 32, 34),
    (GgmlType::Q8_1, 9, "q8_1", 32, 36),
    (GgmlType::Q2K, 10, "q2_K", 256, 84),
    (GgmlType::Q3K, 11, "q3_K", 256, 110),
    (GgmlType::Q4K, 12, "q4_K", 256, 144),
    (GgmlType::Q5K, 13, "q5_K", 256, 176),
    (GgmlType::Q6K, 14, "q6_K", 256, 210),
    (GgmlType::Q8K, 15, "q8_K", 256, 292),
    (GgmlType::Iq2Xxs, 16, "iq2_xxs", 256, 66),
    (GgmlType::Iq2Xs, 17, "iq2_xs", 256, 74),
    (GgmlType::Iq3Xxs, 18, "iq3_xxs", 256, 98),
    (GgmlType::Iq1S, 19, "iq1_s", 256, 50),
    (GgmlType::Iq4Nl, 20, "iq4_nl", 32, 18),
    (GgmlType::Iq3S, 21, "iq3_s", 256, 110),
    (GgmlType::Iq2S, 22, "iq2_s", 256, 82),
    (GgmlType::Iq4Xs, 23, "iq4_xs", 256, 136),
    (GgmlType::I8, 24, "i8", 1, 1),
    (GgmlType::I16, 25, "i16", 1, 2),
    (GgmlType::I32, 26, "i32", 1, 4),
    (GgmlType::I64, 27, "i64", 1, 8),
    (GgmlType::F64, 28, "f64", 1, 8),
    (GgmlType::Iq1M, 29, "iq1_m", 256, 56),
    (GgmlType::Bf16, 30, "bf16", 1, 2),
    (GgmlType::Tq1_0, 34, "tq1_0", 256, 54),
    (GgmlType::Tq2_0, 35, "tq2_0", 256, 66),
    (GgmlType::Mxfp4, 39, "mxfp4", 32, 17),
    (GgmlType::Nvfp4, 40, "nvfp4", 64, 36),
    (GgmlType::Q1_0, 41, "q1_0", 128, 18),
    (GgmlType::Q2_0, 42, "q2_0", 64, 18),
];

/// A name that no type has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no type of ggml")]
pub struct UnknownType(pub String);

impl GgmlType {
    /// All types, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        // Derived from the order of declaration, which a test compares with the table.
        &TABLE[self as usize]
    }

    /// The number that stands in files.
    #[must_use]
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The type of a number; `None` for one that is unknown or was given up.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// The name that ggml gives it, such as `q4_K`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Weights in a block.
    #[must_use]
    pub fn block(self) -> usize {
        self.row().3 as usize
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.row().4 as usize
    }

    /// Whether a number stands by itself: blocks of one.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self.block() == 1
    }

    /// Exact bytes of a matrix of `shape` = `[rows, columns]`; `None` if blocks do not divide the
    /// columns, or beyond 2^64.
    #[must_use]
    pub fn bytes(self, shape: [usize; 2]) -> Option<u64> {
        let &(_, _, _, block, bytes) = self.row();
        let [rows, columns] = shape.map(|side| side as u64);
        let blocks = columns.is_multiple_of(block).then_some(columns / block)?;
        rows.checked_mul(blocks)?.checked_mul(bytes)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GgmlType {
    type Err = UnknownType;

    /// Reads a name in any case, as llama.cpp does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let row = TABLE.iter().find(|row| row.2.eq_ignore_ascii_case(text));
        row.map(|row| row.0).ok_or_else(|| UnknownType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_the_order_of_declaration() {
        for (place, kind) in GgmlType::all().enumerate() {
            assert_eq!(kind as usize, place, "{kind}");
            assert_eq!(GgmlType::from_id(kind.id()), Some(kind));
            assert_eq!(kind.name().to_uppercase().parse(), Ok(kind));
        }
        for id in [4, 5, 31, 36, 38, u32::MAX] {
            assert_eq!(GgmlType::from_id(id), None, "{id}");
        }
    }

    #[test]
    fn sizes_that_overflow_or_do_not_divide_are_none() {
        assert_eq!(GgmlType::Q8_0.bytes([3, 64]), Some(3 * 2 * 34));
        assert_eq!(GgmlType::Q8_0.bytes([3, 65]), None);
        assert_eq!(GgmlType::F32.bytes([usize::MAX, usize::MAX]), None);
    }
}
