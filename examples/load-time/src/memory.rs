//! How much memory there is.

use std::{error::Error, fs};

/// Bytes that a model may take: those given, or those that the system says are free, less a reserve.
pub struct Memory {
    pub free: u64,
    /// Per cent, below 100.
    pub reserve: u64,
}

impl Memory {
    /// Asks the system where nothing is given.
    pub fn find(given: Option<u64>, reserve: u64) -> Result<Self, Box<dyn Error>> {
        let free = match given {
            Some(free) => free,
            None => {
                available().ok_or("this system does not say how much memory is free: give --free BYTES")?
            }
        };
        Ok(Self { free, reserve })
    }

    /// What remains without the reserve.
    pub fn usable(&self) -> u64 {
        (u128::from(self.free) * u128::from(100 - self.reserve) / 100) as u64
    }

    /// What must be free to have `bytes` usable.
    pub fn needed_for(&self, bytes: u64) -> u64 {
        (u128::from(bytes) * 100).div_ceil(u128::from(100 - self.reserve)) as u64
    }
}

/// What Linux can give away without swapping. An engine on a GPU asks its driver instead.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}
