//! The hash of the MAC table, and of frames that may come back: as fast as one multiplication, and not to be foreseen.
//!
//! Anyone on the gateway's LAN chooses source addresses freely, so with a fixed hash they could fill the table with
//! addresses of one bucket, and every look-up of the room would walk through all of them. The hash therefore mixes in two
//! numbers that only this process knows, drawn anew for each table. It is no cryptographic hash: should someone find
//! collisions through timing nevertheless, the table's cap bounds what a look-up can cost.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes [`FoldHasher`]s that share one secret.
#[derive(Clone, Debug)]
pub(crate) struct FoldState {
    mask: u64,
    factor: u64,
}

impl FoldState {
    /// A state with a secret of its own, from the operating system's randomness by way of the standard library.
    pub(crate) fn random() -> Self {
        Self::with_secret([RandomState::new().hash_one(0u8), RandomState::new().hash_one(1u8)])
    }

    /// A state with a secret that is known, two numbers that look random: what is played again with it finds its keys in the same places.
    pub(crate) const fn with_secret([mask, factor]: [u64; 2]) -> Self {
        // An even factor would lose the key's highest bits.
        Self { mask, factor: factor | 1 }
    }

    /// The hash of a whole frame. Four numbers are carried side by side, so that none waits for the other's multiplication.
    pub(crate) fn digest(&self, bytes: &[u8]) -> u64 {
        let mut lanes = [0, 1, 2, 3].map(|lane: u64| self.mask.wrapping_add(lane.wrapping_mul(self.factor)));
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = fold(*lane ^ u64::from_le_bytes(*word), self.factor);
            }
        }
        let mut hasher = self.build_hasher();
        lanes.iter().for_each(|lane| hasher.write_u64(*lane));
        hasher.write(rest);
        hasher.write_u64(bytes.len() as u64);
        hasher.finish()
    }
}

/// Multiplies to 128 bits and folds the halves, so that every bit of the key reaches every part of the hash.
#[inline]
fn fold(key: u64, factor: u64) -> u64 {
    let product = u128::from(key).wrapping_mul(u128::from(factor));
    product as u64 ^ (product >> 64) as u64
}

impl BuildHasher for FoldState {
    type Hasher = FoldHasher;

    #[inline]
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher { state: self.mask, factor: self.factor }
    }
}

/// Folds each key into what came before it.
pub(crate) struct FoldHasher {
    state: u64,
    factor: u64,
}

impl Hasher for FoldHasher {
    #[inline]
    fn write_u64(&mut self, key: u64) {
        self.state = fold(self.state ^ key, self.factor);
    }

    /// Not used by the table, whose keys are numbers.
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Addresses of one vendor in a row, and addresses that differ in their first octets only.
    fn keys() -> impl Iterator<Item = u64> {
        (0..4096).map(|low| 0x0200_5e10_0000 | low).chain((1..4096).map(|high| high << 36))
    }

    #[test]
    fn keys_that_look_alike_spread_over_buckets() {
        // Fixed secrets, so that the test says the same every time.
        for secret in 1..32u64 {
            let secret = secret.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let state = FoldState { mask: secret, factor: secret.rotate_left(23) | 1 };
            // The standard table takes the bucket from the low bits and a 7-bit tag from the high ones.
            let mut buckets = vec![0u32; 8192];
            let mut tags = [0u32; 128];
            for hash in keys().map(|key| state.hash_one(key)) {
                buckets[(hash % 8192) as usize] += 1;
                tags[(hash >> 57) as usize] += 1;
            }
            // One key a bucket and 64 a tag on average; an ideal hash has at most 7 or 8 and about 90.
            assert!(buckets.iter().all(|load| *load <= 16), "secret {secret:#x}");
            assert!(tags.iter().all(|load| *load <= 160), "secret {secret:#x}");
        }
    }

    #[test]
    fn every_table_has_its_own_secret() {
        let hashes: HashSet<u64> = (0..16).map(|_| FoldState::random().hash_one(1u64)).collect();
        assert_eq!(hashes.len(), 16);
    }

    #[test]
    fn a_known_secret_hashes_the_same_again() {
        let of = |secret| FoldState::with_secret(secret).hash_one(1u64);
        assert_eq!(of([5, 6]), of([5, 6]));
        assert_ne!(of([5, 6]), of([7, 6]));
    }

    #[test]
    fn a_digest_changes_with_every_bit_and_length() {
        let state = FoldState { mask: 5, factor: 0x9e37_79b9_7f4a_7c15 };
        let mut digests = HashSet::new();
        let mut count = 0;
        for len in [0, 1, 7, 8, 9, 31, 32, 33, 64, 100, 1514] {
            let mut frame = vec![0xa5; len];
            assert!(digests.insert(state.digest(&frame)));
            count += 1;
            for bit in 0..len * 8 {
                frame[bit / 8] ^= 1 << (bit % 8);
                digests.insert(state.digest(&frame));
                frame[bit / 8] ^= 1 << (bit % 8);
                count += 1;
            }
        }
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn bytes_hash_with_their_length() {
        let state = FoldState { mask: 5, factor: 0x9e37_79b9_7f4a_7c15 };
        assert_ne!(state.hash_one([1u8, 0].as_slice()), state.hash_one([1u8].as_slice()));
    }
}
