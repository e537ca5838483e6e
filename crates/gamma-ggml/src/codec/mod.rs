//! Encoding and decoding of blocks.

mod fit;
mod layout;
mod ranged;
mod scaled;
mod single;

use half::{bf16, f16};

use crate::GgmlType;
use layout::{float, four_bits, low_bits, one_bit, pairs_8, scales_16, set_float, two_bits};

/// Weights or bytes that do not go with a type.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A type that is carried but not read.
    #[error("blocks of {kind} cannot be decoded; {} can", list(GgmlType::is_decodable))]
    NotDecodable {
        /// The type.
        kind: GgmlType,
    },
    /// A type that is not written.
    #[error("weights cannot be encoded as {kind}, but as {}", list(GgmlType::is_encodable))]
    NotEncodable {
        /// The type.
        kind: GgmlType,
    },
    /// A number of weights that is no multiple of the block, or another number of bytes or
    /// importances than weights.
    #[error("{weights} weights, {bytes} bytes and {importances:?} importances do not go together as {kind}")]
    Length {
        /// The type.
        kind: GgmlType,
        /// Number of weights.
        weights: usize,
        /// Number of bytes.
        bytes: usize,
        /// Number of importances, where there are any.
        importances: Option<usize>,
    },
    /// Weights that no 16-bit scale reaches, or that are not finite.
    #[error("block {block}, whose largest weight is {largest:e}, is beyond the scales of {kind}")]
    Range {
        /// The type.
        kind: GgmlType,
        /// The block, counted from 0.
        block: usize,
        /// The largest size of its weights.
        largest: f32,
    },
}

fn list(holds: fn(GgmlType) -> bool) -> String {
    GgmlType::all().filter(|&kind| holds(kind)).map(GgmlType::name).collect::<Vec<_>>().join(", ")
}

/// Weights, importances and zeroed bytes of one block; `None` where no scale reaches the weights.
type EncodeBlock = fn(&[f32], &[f32], &mut [u8]) -> Option<()>;

const Q2: ranged::Ranges = ranged::Ranges { run: 16, code: 3.0, scale: 15.0 };
const Q3: scaled::Ranges = scaled::Ranges { codes: (-4.0, 3.0), scales: (-32.0, 31.0) };
const Q4: ranged::Ranges = ranged::Ranges { run: 32, code: 15.0, scale: 63.0 };
const Q5: ranged::Ranges = ranged::Ranges { run: 32, code: 31.0, scale: 63.0 };
const Q6: scaled::Ranges = scaled::Ranges { codes: (-32.0, 31.0), scales: (-128.0, 127.0) };

impl GgmlType {
    /// Whether [`decode`](Self::decode) reads blocks of this type.
    #[must_use]
    pub fn is_decodable(self) -> bool {
        self.is_encodable() || matches!(self, Self::Q4_1 | Self::Q5_1)
    }

    /// Whether [`encode`](Self::encode) writes blocks of this type.
    #[must_use]
    pub fn is_encodable(self) -> bool {
        use GgmlType::{Bf16, F16, F32, Q2K, Q3K, Q4_0, Q4K, Q5_0, Q5K, Q6K, Q8_0};
        matches!(self, F32 | F16 | Bf16 | Q4_0 | Q5_0 | Q8_0 | Q2K | Q3K | Q4K | Q5K | Q6K)
    }

    fn check(self, weights: usize, bytes: usize, importances: Option<usize>) -> Result<(), CodecError> {
        let fits = self.bytes([1, weights]) == Some(bytes as u64);
        if fits && importances.is_none_or(|n| n == weights) {
            return Ok(());
        }
        Err(CodecError::Length { kind: self, weights, bytes, importances })
    }

    /// Decodes blocks to the weights that they stand for, exactly as ggml does.
    ///
    /// # Errors
    /// [`CodecError::NotDecodable`], or [`CodecError::Length`].
    pub fn decode(self, bytes: &[u8], weights: &mut [f32]) -> Result<(), CodecError> {
        self.check(weights.len(), bytes.len(), None)?;
        let decode_block: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => |b, w| w[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Self::F16 => |b, w| w[0] = float(b, 0),
            Self::Bf16 => |b, w| w[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            Self::Q4_0 => decode_q4_0,
            Self::Q4_1 => decode_q4_1,
            Self::Q5_0 => decode_q5_0,
            Self::Q5_1 => decode_q5_1,
            Self::Q8_0 => decode_q8_0,
            Self::Q2K => decode_q2_k,
            Self::Q3K => decode_q3_k,
            Self::Q4K => decode_q4_k,
            Self::Q5K => decode_q5_k,
            Self::Q6K => decode_q6_k,
            _ => return Err(CodecError::NotDecodable { kind: self }),
        };
        let blocks = bytes.chunks_exact(self.block_bytes()).zip(weights.chunks_exact_mut(self.block()));
        blocks.for_each(|(bytes, weights)| decode_block(bytes, weights));
        Ok(())
    }

    /// Encodes weights so that `Σ h (w - decoded)²` is as small as the search makes it, with `h` the
    /// `importance` of each weight, not negative, or 1. The order of magnitude of `h` does not matter,
    /// as long as its squares are far from the limits of `f32`.
    ///
    /// Floats are rounded to the nearest, ties to even.
    ///
    /// # Errors
    /// [`CodecError`] if lengths do not fit, the type is not written, or weights are too large for its
    /// scales.
    pub fn encode(
        self,
        weights: &[f32],
        importance: Option<&[f32]>,
        bytes: &mut [u8],
    ) -> Result<(), CodecError> {
        self.check(weights.len(), bytes.len(), importance.map(<[f32]>::len))?;
        let encode_block: EncodeBlock = match self {
            Self::F32 => |w, _, b| {
                b.copy_from_slice(&w[0].to_le_bytes());
                Some(())
            },
            Self::F16 => |w, _, b| {
                b.copy_from_slice(&f16::from_f32(w[0]).to_le_bytes());
                f16::from_f32(w[0]).is_finite().then_some(())
            },
            Self::Bf16 => |w, _, b| {
                b.copy_from_slice(&bf16::from_f32(w[0]).to_le_bytes());
                bf16::from_f32(w[0]).is_finite().then_some(())
            },
            Self::Q4_0 => encode_q4_0,
            Self::Q5_0 => encode_q5_0,
            Self::Q8_0 => encode_q8_0,
            Self::Q2K => encode_q2_k,
            Self::Q3K => encode_q3_k,
            Self::Q4K => encode_q4_k,
            Self::Q5K => encode_q5_k,
            Self::Q6K => encode_q6_k,
            _ => return Err(CodecError::NotEncodable { kind: self }),
        };
        let alike = [1.0; 256];
        let n = self.block();
        for (block, (w, bytes)) in
            weights.chunks_exact(n).zip(bytes.chunks_exact_mut(self.block_bytes())).enumerate()
        {
            let h = importance.map_or(&alike[..n], |importance| &importance[block * n..][..n]);
            bytes.fill(0);
            let done = w.iter().all(|w| w.is_finite()).then(|| encode_block(w, h, bytes)).flatten();
            if done.is_none() {
                let largest =
                    w.iter().fold(
                        0.0,
                        |largest: f32, w| {
                            if w.is_nan() || w.abs() > largest { w.abs() } else { largest }
                        },
                    );
                return Err(CodecError::Range { kind: self, block, largest });
            }
        }
        Ok(())
    }
}

fn decode_q4_0(block: &[u8], w: &mut [f32]) {
    let d = float(block, 0);
    for (e, w) in w.iter_mut().enumerate() {
        *w = d * (f32::from(nibble(&block[2..], e)) - 8.0);
    }
}

fn decode_q4_1(block: &[u8], w: &mut [f32]) {
    let (d, m) = (float(block, 0), float(block, 2));
    for (e, w) in w.iter_mut().enumerate() {
        *w = d * f32::from(nibble(&block[4..], e)) + m;
    }
}

fn decode_q5_0(block: &[u8], w: &mut [f32]) {
    let d = float(block, 0);
    for (e, w) in w.iter_mut().enumerate() {
        *w = d * (f32::from(nibble(&block[6..], e) | fifth_bit(&block[2..], e) << 4) - 16.0);
    }
}

fn decode_q5_1(block: &[u8], w: &mut [f32]) {
    let (d, m) = (float(block, 0), float(block, 2));
    for (e, w) in w.iter_mut().enumerate() {
        *w = d * f32::from(nibble(&block[8..], e) | fifth_bit(&block[4..], e) << 4) + m;
    }
}

fn decode_q8_0(block: &[u8], w: &mut [f32]) {
    let d = float(block, 0);
    for (w, &q) in w.iter_mut().zip(&block[2..]) {
        *w = d * f32::from(q.cast_signed());
    }
}

fn decode_q2_k(block: &[u8], w: &mut [f32]) {
    let (scales, qs) = block.split_at(16);
    let (d, dmin) = (float(block, 80), float(block, 82));
    for (e, w) in w.iter_mut().enumerate() {
        let pair = scales[e / 16];
        let (scale, offset) = (d * f32::from(pair & 15), dmin * f32::from(pair >> 4));
        *w = scale * f32::from(two_bits::get(qs, e)) - offset;
    }
}

fn decode_q3_k(block: &[u8], w: &mut [f32]) {
    let d = float(block, 108);
    let scales: [f32; 16] = std::array::from_fn(|i| d * (f32::from(scales_16::get(&block[96..], i)) - 32.0));
    for (e, w) in w.iter_mut().enumerate() {
        let q = two_bits::get(&block[32..], e) | one_bit::get(block, e) << 2;
        *w = scales[e / 16] * (f32::from(q) - 4.0);
    }
}

fn decode_q4_k(block: &[u8], w: &mut [f32]) {
    let pairs = runs_of_32(block);
    for (e, w) in w.iter_mut().enumerate() {
        let (scale, offset) = pairs[e / 32];
        *w = scale * f32::from(four_bits::get(&block[16..], e)) - offset;
    }
}

fn decode_q5_k(block: &[u8], w: &mut [f32]) {
    let pairs = runs_of_32(block);
    for (e, w) in w.iter_mut().enumerate() {
        let (scale, offset) = pairs[e / 32];
        let q = four_bits::get(&block[48..], e) | one_bit::get(&block[16..], e) << 4;
        *w = scale * f32::from(q) - offset;
    }
}

fn decode_q6_k(block: &[u8], w: &mut [f32]) {
    let d = float(block, 208);
    for (e, w) in w.iter_mut().enumerate() {
        let q = low_bits::get(block, e) | two_bits::get(&block[128..], e) << 4;
        let scale = f32::from(block[192 + e / 16].cast_signed());
        *w = d * scale * (f32::from(q) - 32.0);
    }
}

/// Scale and offset of the eight runs of `Q4_K` and `Q5_K`.
fn runs_of_32(block: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin) = (float(block, 0), float(block, 2));
    std::array::from_fn(|j| {
        let (scale, offset) = pairs_8::get(&block[4..], j);
        (d * f32::from(scale), dmin * f32::from(offset))
    })
}

/// The low four bits of 32 codes in 16 bytes.
fn nibble(qs: &[u8], e: usize) -> u8 {
    (qs[e % 16] >> (4 * (e / 16))) & 15
}

fn set_nibble(qs: &mut [u8], e: usize, code: u8) {
    qs[e % 16] |= (code & 15) << (4 * (e / 16));
}

/// The fifth bits of 32 codes in 4 bytes.
fn fifth_bit(qh: &[u8], e: usize) -> u8 {
    (qh[e / 8] >> (e % 8)) & 1
}

fn encode_q4_0(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    let (d, codes) = single::search(x, h, -8.0, 7.0)?;
    set_float(block, 0, d);
    for (e, q) in codes.into_iter().enumerate() {
        set_nibble(&mut block[2..], e, (q + 8.0) as u8);
    }
    Some(())
}

fn encode_q5_0(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    let (d, codes) = single::search(x, h, -16.0, 15.0)?;
    set_float(block, 0, d);
    for (e, q) in codes.into_iter().enumerate() {
        let q = (q + 16.0) as u8;
        block[2 + e / 8] |= (q >> 4) << (e % 8);
        set_nibble(&mut block[6..], e, q);
    }
    Some(())
}

fn encode_q8_0(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    // Not -128: kernels of engines rely on codes that have a positive counterpart, as ggml's own do.
    let (d, codes) = single::search(x, h, -127.0, 127.0)?;
    set_float(block, 0, d);
    for (byte, q) in block[2..].iter_mut().zip(codes) {
        *byte = (q as i8).cast_unsigned();
    }
    Some(())
}

fn encode_q2_k(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    let found = ranged::search(x, h, Q2)?;
    for (i, byte) in block[..16].iter_mut().enumerate() {
        *byte = found.scales[i] | found.offsets[i] << 4;
    }
    for (e, &q) in found.codes.iter().enumerate() {
        two_bits::set(&mut block[16..], e, q);
    }
    set_float(block, 80, found.d);
    set_float(block, 82, found.dmin);
    Some(())
}

fn encode_q3_k(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    let found = scaled::search(x, h, Q3)?;
    for (e, &q) in found.codes.iter().enumerate() {
        let q = (q + 4).cast_unsigned();
        two_bits::set(&mut block[32..], e, q);
        one_bit::set(block, e, q >> 2);
    }
    for (i, &scale) in found.scales.iter().enumerate() {
        scales_16::set(&mut block[96..], i, (scale + 32).cast_unsigned());
    }
    set_float(block, 108, found.d);
    Some(())
}

fn encode_q4_k(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    let found = ranged::search(x, h, Q4)?;
    set_runs_of_32(block, &found);
    for (e, &q) in found.codes.iter().enumerate() {
        four_bits::set(&mut block[16..], e, q);
    }
    Some(())
}

fn encode_q5_k(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    let found = ranged::search(x, h, Q5)?;
    set_runs_of_32(block, &found);
    for (e, &q) in found.codes.iter().enumerate() {
        one_bit::set(&mut block[16..], e, q >> 4);
        four_bits::set(&mut block[48..], e, q);
    }
    Some(())
}

fn set_runs_of_32(block: &mut [u8], found: &ranged::Ranged) {
    set_float(block, 0, found.d);
    set_float(block, 2, found.dmin);
    for j in 0..8 {
        pairs_8::set(&mut block[4..], j, (found.scales[j], found.offsets[j]));
    }
}

fn encode_q6_k(x: &[f32], h: &[f32], block: &mut [u8]) -> Option<()> {
    let found = scaled::search(x, h, Q6)?;
    for (e, &q) in found.codes.iter().enumerate() {
        let q = (q + 32).cast_unsigned();
        low_bits::set(block, e, q);
        two_bits::set(&mut block[128..], e, q >> 4);
    }
    for (byte, &scale) in block[192..208].iter_mut().zip(&found.scales) {
        *byte = scale.cast_unsigned();
    }
    set_float(block, 208, found.d);
    Some(())
}
