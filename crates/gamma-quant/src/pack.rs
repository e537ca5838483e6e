//! Codes as a dense bit stream: code `i` of width `b` takes bits `i * b` to `i * b + b - 1`, bit 0
//! being the lowest bit of byte 0. Nothing is aligned, also not at the end of a row; only the end
//! of the stream is filled with zero bits to a whole byte.
//!
//! Eight codes take exactly `b` bytes, so that the fast path handles blocks of eight as one
//! 64-bit word, in which it moves halves, then quarters, then single codes all at once.

use gamma_core::BitWidth;
use rayon::prelude::*;

/// Blocks of eight codes that are worth a task of their own.
const BLOCKS_PER_TASK: usize = 8192;

/// Bytes that `n_codes` codes take.
pub(crate) fn packed_len(n_codes: usize, width: BitWidth) -> usize {
    (n_codes * usize::from(width.bits())).div_ceil(8)
}

/// Packs bit by bit. Codes fit `width`; `bytes` are zero and as many as [`packed_len`] says.
fn pack_plain(codes: &[u8], width: BitWidth, bytes: &mut [u8]) {
    let b = usize::from(width.bits());
    for (i, &code) in codes.iter().enumerate() {
        for bit in 0..b {
            let at = i * b + bit;
            bytes[at / 8] |= ((code >> bit) & 1) << (at % 8);
        }
    }
}

/// Unpacks the codes from number `start` on, bit by bit.
fn unpack_plain(bytes: &[u8], width: BitWidth, start: usize, codes: &mut [u8]) {
    let b = usize::from(width.bits());
    for (i, code) in codes.iter_mut().enumerate() {
        *code = 0;
        for bit in 0..b {
            let at = (start + i) * b + bit;
            *code |= ((bytes[at / 8] >> (at % 8)) & 1) << bit;
        }
    }
}

/// Packs codes that all fit `width`.
pub(crate) fn pack(codes: &[u8], width: BitWidth) -> Vec<u8> {
    let mut bytes = vec![0; packed_len(codes.len(), width)];
    let (blocks, tail) = codes.as_chunks::<8>();
    let (full, rest) = bytes.split_at_mut(blocks.len() * usize::from(width.bits()));
    match width.bits() {
        2 => pack_blocks::<2>(blocks, full),
        3 => pack_blocks::<3>(blocks, full),
        4 => pack_blocks::<4>(blocks, full),
        5 => pack_blocks::<5>(blocks, full),
        6 => pack_blocks::<6>(blocks, full),
        7 => pack_blocks::<7>(blocks, full),
        _ => pack_blocks::<8>(blocks, full),
    }
    pack_plain(tail, width, rest);
    bytes
}

fn pack_blocks<const B: usize>(blocks: &[[u8; 8]], bytes: &mut [u8]) {
    let bytes = bytes.as_chunks_mut::<B>().0;
    bytes.par_iter_mut().zip(blocks).with_min_len(BLOCKS_PER_TASK).for_each(|(out, block)| {
        out.copy_from_slice(&gather::<B>(u64::from_le_bytes(*block)).to_le_bytes()[..B]);
    });
}

/// The low bits of every half, quarter and byte of a word that belong to four, two codes and one.
const fn masks<const B: usize>() -> [u64; 3] {
    let [four, two, one]: [u64; 3] = [(1 << (4 * B)) - 1, (1 << (2 * B)) - 1, (1 << B) - 1];
    [four, two * 0x0000_0001_0000_0001, one * 0x0001_0001_0001_0001]
}

/// One code per byte, brought together in the lowest `8 * B` bits.
fn gather<const B: usize>(word: u64) -> u64 {
    let [four, two, one] = const { masks::<B>() };
    let word = (word & one) | ((word >> (8 - B)) & (one << B));
    let word = (word & two) | ((word >> (16 - 2 * B)) & (two << (2 * B)));
    (word & four) | ((word >> (32 - 4 * B)) & (four << (4 * B)))
}

/// The lowest `8 * B` bits, brought to one code per byte.
fn spread<const B: usize>(word: u64) -> u64 {
    let [four, two, one] = const { masks::<B>() };
    let word = (word & four) | ((word << (32 - 4 * B)) & (four << 32));
    let word = (word & two) | ((word << (16 - 2 * B)) & (two << 16));
    (word & one) | ((word << (8 - B)) & (one << 8))
}

/// Unpacks the codes from number `start` on, as many as `codes` has room for.
pub(crate) fn unpack(bytes: &[u8], width: BitWidth, start: usize, codes: &mut [u8]) {
    let b = usize::from(width.bits());
    let to_boundary = (start.next_multiple_of(8) - start).min(codes.len());
    let (head, codes) = codes.split_at_mut(to_boundary);
    unpack_plain(bytes, width, start, head);
    if codes.is_empty() {
        return;
    }
    let bytes = &bytes[(start + to_boundary) / 8 * b..];
    let (blocks, tail) = codes.as_chunks_mut::<8>();
    let (full, rest) = bytes.split_at(blocks.len() * b);
    match b {
        2 => unpack_blocks::<2>(full, blocks),
        3 => unpack_blocks::<3>(full, blocks),
        4 => unpack_blocks::<4>(full, blocks),
        5 => unpack_blocks::<5>(full, blocks),
        6 => unpack_blocks::<6>(full, blocks),
        7 => unpack_blocks::<7>(full, blocks),
        _ => blocks.as_flattened_mut().copy_from_slice(full),
    }
    unpack_plain(rest, width, 0, tail);
}

fn unpack_blocks<const B: usize>(bytes: &[u8], blocks: &mut [[u8; 8]]) {
    for (block, chunk) in blocks.iter_mut().zip(bytes.as_chunks::<B>().0) {
        let mut le = [0; 8];
        le[..B].copy_from_slice(chunk);
        *block = spread::<B>(u64::from_le_bytes(le)).to_le_bytes();
    }
}

/// Whether the bits behind the last of `n_codes` codes are zero.
pub(crate) fn is_padded_with_zeros(bytes: &[u8], n_codes: usize, width: BitWidth) -> bool {
    let used = n_codes * usize::from(width.bits()) % 8;
    used == 0 || bytes.last().is_none_or(|last| last >> used == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn width_and_codes() -> impl Strategy<Value = (BitWidth, Vec<u8>)> {
        (2_u8..=8).prop_flat_map(|bits| {
            let width = BitWidth::new(bits).unwrap();
            (Just(width), prop::collection::vec(0..=width.max_code(), 0..100))
        })
    }

    proptest! {
        #[test]
        fn fast_and_plain_packing_agree((width, codes) in width_and_codes()) {
            let mut plain = vec![0; packed_len(codes.len(), width)];
            pack_plain(&codes, width, &mut plain);
            prop_assert!(is_padded_with_zeros(&plain, codes.len(), width));
            prop_assert_eq!(pack(&codes, width), plain);
        }

        #[test]
        fn every_range_unpacks_to_the_codes_that_were_packed(
            (width, codes) in width_and_codes(),
            cut in (0.0_f64..=1.0, 0.0_f64..=1.0),
        ) {
            let at = |fraction: f64| (fraction * codes.len() as f64) as usize;
            let range = at(cut.0.min(cut.1))..at(cut.0.max(cut.1));
            let bytes = pack(&codes, width);
            let mut plain = vec![0xAA; range.len()];
            unpack_plain(&bytes, width, range.start, &mut plain);
            prop_assert_eq!(&plain, &codes[range.clone()]);
            let mut fast = vec![0x55; range.len()];
            unpack(&bytes, width, range.start, &mut fast);
            prop_assert_eq!(fast, plain);
        }
    }

    #[test]
    fn three_bit_codes_straddle_bytes_lowest_bit_first() {
        // 5 = 101, 3 = 011, 6 = 110: read from the right, 1_10|011|101 and the rest of the 6.
        assert_eq!(pack(&[5, 3, 6], BitWidth::B3), [0b1001_1101, 0b1]);
    }

    #[test]
    fn set_bits_behind_the_last_code_are_seen() {
        assert!(is_padded_with_zeros(&[0xFF, 0x01], 3, BitWidth::B3));
        assert!(!is_padded_with_zeros(&[0xFF, 0x02], 3, BitWidth::B3));
        assert!(is_padded_with_zeros(&[0xFF], 2, BitWidth::B4));
        assert!(is_padded_with_zeros(&[], 0, BitWidth::B4));
    }
}
