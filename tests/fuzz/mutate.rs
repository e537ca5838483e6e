//! Damaged copies of valid files, the same ones for the same seed, on stable Rust.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Numbers that lengths and offsets go wrong at.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 8, 31, 32, 255, 0xffff, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 61, 1 << 63, u64::MAX];

/// One to four changes of `bytes`. Most of them strike the first `header` bytes, where structure is.
fn damage(bytes: &mut Vec<u8>, header: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let reach = if random.below(8) == 0 { bytes.len() } else { header.min(bytes.len()) };
        let at = random.below(reach);
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 | 4 => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let width = [1, 4, 8][random.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            5 => bytes.truncate(at),
            6 => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

/// Gives `try_file` damaged copies of `valid`: `cases` of them, or for as many seconds as the variable
/// `GAMMA_FUZZ_SECONDS` says. Returns how many there were.
///
/// A panic names the case, which is the same in every run.
pub fn fuzz(valid: &[(Vec<u8>, usize)], cases: u64, mut try_file: impl FnMut(&[u8])) -> u64 {
    let seconds = std::env::var("GAMMA_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut case = 0;
    while end.map_or(case < cases, |end| Instant::now() < end) {
        let mut random = Random(case);
        let (file, header) = &valid[random.below(valid.len())];
        let mut bytes = file.clone();
        damage(&mut bytes, *header, &mut random);
        let outcome = catch_unwind(AssertUnwindSafe(|| try_file(&bytes)));
        assert!(outcome.is_ok(), "case {case} of {} bytes ends in a panic", bytes.len());
        case += 1;
    }
    case
}
