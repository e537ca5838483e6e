//! Where every bit of a block stands.
//!
//! `e` counts the weights of a block. In blocks of 256: `half = e / 128`, `quarter = (e / 32) % 4`,
//! `lane = e % 32`. Source: `ggml-common.h` and `ggml-quants.c` of ggml; golden files pin it.

use half::f16;

/// Reads a 16-bit float at byte `at`.
pub(super) fn float(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Writes a 16-bit float at byte `at`.
pub(super) fn set_float(block: &mut [u8], at: usize, value: f16) {
    block[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Two bits per code, four codes of a lane in a byte: `qs` is 64 bytes.
pub(super) mod two_bits {
    pub(in crate::codec) fn get(qs: &[u8], e: usize) -> u8 {
        (qs[32 * (e / 128) + e % 32] >> (2 * ((e / 32) % 4))) & 3
    }

    pub(in crate::codec) fn set(qs: &mut [u8], e: usize, code: u8) {
        qs[32 * (e / 128) + e % 32] |= (code & 3) << (2 * ((e / 32) % 4));
    }
}

/// One bit per code, the eight runs of 32 in the bits of a byte: `hmask` is 32 bytes.
pub(super) mod one_bit {
    pub(in crate::codec) fn get(mask: &[u8], e: usize) -> u8 {
        (mask[e % 32] >> (e / 32)) & 1
    }

    pub(in crate::codec) fn set(mask: &mut [u8], e: usize, code: u8) {
        mask[e % 32] |= (code & 1) << (e / 32);
    }
}

/// Four bits per code, two runs of 32 in the halves of 32 bytes: `qs` is 128 bytes.
pub(super) mod four_bits {
    pub(in crate::codec) fn get(qs: &[u8], e: usize) -> u8 {
        (qs[32 * (e / 64) + e % 32] >> (4 * ((e / 32) % 2))) & 15
    }

    pub(in crate::codec) fn set(qs: &mut [u8], e: usize, code: u8) {
        qs[32 * (e / 64) + e % 32] |= (code & 15) << (4 * ((e / 32) % 2));
    }
}

/// The low four bits of `Q6_K`, two runs of 32 that stand 64 apart in a byte: `ql` is 128 bytes.
pub(super) mod low_bits {
    fn place(e: usize) -> (usize, usize) {
        let quarter = (e / 32) % 4;
        (64 * (e / 128) + 32 * (quarter % 2) + e % 32, 4 * (quarter / 2))
    }

    pub(in crate::codec) fn get(ql: &[u8], e: usize) -> u8 {
        let (byte, shift) = place(e);
        (ql[byte] >> shift) & 15
    }

    pub(in crate::codec) fn set(ql: &mut [u8], e: usize, code: u8) {
        let (byte, shift) = place(e);
        ql[byte] |= (code & 15) << shift;
    }
}

/// Sixteen 6-bit scales in 12 bytes, as in `Q3_K`: low nibbles first, then the high two bits.
pub(super) mod scales_16 {
    pub(in crate::codec) fn get(bytes: &[u8], i: usize) -> u8 {
        let low = if i < 8 { bytes[i] & 15 } else { bytes[i - 8] >> 4 };
        low | ((bytes[8 + i % 4] >> (2 * (i / 4))) & 3) << 4
    }

    pub(in crate::codec) fn set(bytes: &mut [u8], i: usize, scale: u8) {
        let low = scale & 15;
        bytes[i % 8] |= if i < 8 { low } else { low << 4 };
        bytes[8 + i % 4] |= (scale >> 4) << (2 * (i / 4));
    }
}

/// Eight pairs of a 6-bit scale and a 6-bit offset in 12 bytes, as in `Q4_K` and `Q5_K`.
pub(super) mod pairs_8 {
    pub(in crate::codec) fn get(bytes: &[u8], j: usize) -> (u8, u8) {
        if j < 4 {
            (bytes[j] & 63, bytes[j + 4] & 63)
        } else {
            let (low, high) = (bytes[j + 4], [bytes[j - 4] >> 6, bytes[j] >> 6]);
            ((low & 15) | (high[0] << 4), (low >> 4) | (high[1] << 4))
        }
    }

    pub(in crate::codec) fn set(bytes: &mut [u8], j: usize, (scale, offset): (u8, u8)) {
        if j < 4 {
            bytes[j] |= scale & 63;
            bytes[j + 4] |= offset & 63;
        } else {
            bytes[j + 4] |= (scale & 15) | ((offset & 15) << 4);
            bytes[j - 4] |= (scale >> 4) << 6;
            bytes[j] |= (offset >> 4) << 6;
        }
    }
}
