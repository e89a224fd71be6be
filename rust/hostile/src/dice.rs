//! Numbers that look random: xorshift64*, seeded by the clock. Nothing here needs to be secret.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// One seeded by the clock.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
        Self(now | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A unicast, locally administered MAC.
    pub fn mac(&mut self) -> [u8; 6] {
        let [a, b, c, d, e, ..] = self.next().to_le_bytes();
        [2, a, b, c, d, e]
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}
