//! The bit stream that every engine's layout of integer codes is made of.

use rayon::prelude::*;

/// Bytes that `count` codes of `bits` bits take in whole words of 32 bits.
pub(crate) fn bytes(count: usize, bits: usize) -> usize {
    4 * (count * bits).div_ceil(32)
}

/// Codes of one row as a dense stream: bit `t` of code `i` is bit `i * bits + t`, and bit `p` of the
/// stream is bit `p % 32` of word `p / 32`, little-endian. Bits behind the last code are zero.
///
/// `out` holds [`bytes`] zeros.
fn pack(codes: impl Iterator<Item = u8>, bits: usize, out: &mut [u8]) {
    // Bits of little-endian words are in the order of bits of bytes.
    let (mut held, mut n_held, mut at) = (0_u32, 0, 0);
    for code in codes {
        held |= u32::from(code) << n_held;
        n_held += bits;
        while n_held >= 8 {
            out[at] = held as u8;
            (held, n_held, at) = (held >> 8, n_held - 8, at + 1);
        }
    }
    if n_held > 0 {
        out[at] = held as u8;
    }
}

/// Code `place` of a stream.
pub(crate) fn code(stream: &[u8], place: usize, bits: usize) -> u32 {
    let (byte, shift) = (place * bits / 8, place * bits % 8);
    let next = stream.get(byte + 1).copied().unwrap_or(0);
    u32::from(u16::from_le_bytes([stream[byte], next])) >> shift & ((1 << bits) - 1)
}

/// A matrix `[rows, columns]` of codes, each row a stream of its own: `[rows, words]`.
pub(crate) fn along_rows(codes: &[u8], columns: usize, bits: usize) -> Vec<u8> {
    let size = bytes(columns, bits);
    let mut out = vec![0; codes.len() / columns * size];
    let rows = out.par_chunks_exact_mut(size).zip(codes.par_chunks_exact(columns));
    rows.for_each(|(out, codes)| pack(codes.iter().copied(), bits, out));
    out
}

/// The same matrix, each column a stream of its own: `[words, columns]`.
pub(crate) fn along_columns(codes: &[u8], columns: usize, bits: usize) -> Vec<u8> {
    let rows = codes.len() / columns;
    let size = bytes(rows, bits);
    let streams: Vec<Vec<u8>> = (0..columns)
        .into_par_iter()
        .map(|column| {
            let mut out = vec![0; size];
            pack((0..rows).map(|row| codes[row * columns + column]), bits, &mut out);
            out
        })
        .collect();
    let mut out = vec![0; columns * size];
    for (at, word) in out.chunks_exact_mut(4).enumerate() {
        let (row, column) = (at / columns, at % columns);
        word.copy_from_slice(&streams[column][4 * row..4 * row + 4]);
    }
    out
}

/// The matrix `[columns, rows]` of a matrix `[rows, columns]`.
pub(crate) fn transposed<T: Copy>(matrix: &[T], columns: usize) -> Vec<T> {
    let rows = matrix.len() / columns;
    (0..matrix.len()).map(|at| matrix[at % rows * columns + at / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, bit by bit.
    fn plain(codes: &[u8], bits: usize) -> Vec<u32> {
        let mut words = vec![0_u32; (codes.len() * bits).div_ceil(32)];
        for (i, &code) in codes.iter().enumerate() {
            for t in 0..bits {
                let p = i * bits + t;
                words[p / 32] |= u32::from(code >> t & 1) << (p % 32);
            }
        }
        words
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
    }

    #[test]
    fn streams_of_every_width_follow_the_definition_in_both_directions() {
        for bits in 1..=8 {
            let (rows, columns) = (7, 45);
            let codes: Vec<u8> =
                (0..rows * columns).map(|i| (i * 37 + i / 3) as u8 & (0xff >> (8 - bits))).collect();
            let packed = words(&along_rows(&codes, columns, bits));
            let expected: Vec<u32> = codes.chunks(columns).flat_map(|row| plain(row, bits)).collect();
            assert_eq!(packed, expected, "{bits} bits along rows");
            let stream = along_rows(&codes[..columns], columns, bits);
            for (place, &expected) in codes[..columns].iter().enumerate() {
                assert_eq!(code(&stream, place, bits), u32::from(expected), "code {place} of {bits} bits");
            }

            let turned = transposed(&codes, columns);
            assert_eq!(turned[1], codes[columns]);
            let packed = words(&along_columns(&codes, columns, bits));
            let streams: Vec<Vec<u32>> = turned.chunks(rows).map(|column| plain(column, bits)).collect();
            let expected: Vec<u32> = (0..streams[0].len())
                .flat_map(|word| streams.iter().map(move |stream| stream[word]))
                .collect();
            assert_eq!(packed, expected, "{bits} bits along columns");
        }
    }
}
