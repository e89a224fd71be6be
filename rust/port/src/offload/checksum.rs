//! The Internet checksum (RFC 1071), as a sum that can be put together from parts.

/// A one's complement sum of 16-bit words, not yet folded.
///
/// The words are kept in the machine's own byte order, which RFC 1071 section 2(B) allows: the result is turned into
/// bytes the same way it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes`. An odd last byte counts as if a zero followed, so only the last part may be odd.
    pub fn of(bytes: &[u8]) -> Self {
        // Four accumulators of 64-bit words, wide enough that carries need no looking after: independent chains of
        // add and add-with-carry, two instructions for eight bytes.
        let mut lanes = [0_u128; 4];
        let mut blocks = bytes.chunks_exact(32);
        for block in &mut blocks {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u128::from(u64::from_ne_bytes(*word));
            }
        }
        let mut sum = Self::default();
        for lane in lanes {
            // A carry out of the low half is worth one (2^64 is 1 modulo 2^16 - 1).
            sum = sum.plus(Self(lane as u64)).plus(Self((lane >> 64) as u64));
        }
        let mut words = blocks.remainder().chunks_exact(2);
        let mut rest = 0_u64;
        for word in &mut words {
            rest += u64::from(u16::from_ne_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            rest += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        sum.plus(Sum(rest))
    }

    /// Both sums.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        // One's complement addition: a carry out of the top comes back in at the bottom.
        Self(sum + u64::from(carry))
    }

    /// This sum and one more word, given as a number.
    #[must_use]
    pub fn plus_word(self, word: u16) -> Self {
        self.plus(Self(u64::from(word.to_be())))
    }

    /// The pseudo-header of TCP (RFC 9293 section 3.1) and UDP (RFC 768) over IPv4 or IPv6 (RFC 8200 section 8.1).
    /// `addresses` is source then destination, 8 or 32 bytes; `len` is the transport header and payload in bytes.
    pub fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> Self {
        let len = len as u32;
        Self::of(addresses).plus_word(u16::from(protocol)).plus_word((len >> 16) as u16).plus_word(len as u16)
    }

    /// The folded sum as two bytes for the wire, not complemented: what a partial checksum starts from.
    pub fn to_bytes(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }

    /// The checksum as two bytes for the wire.
    pub fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// The checksum where zero means "none" (UDP, and any partial checksum the kernel left): zero becomes 0xffff.
    pub fn checksum_not_zero(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            bytes => bytes,
        }
    }

    /// Whether a sum over data and its checksum says the data is whole.
    pub fn is_whole(self) -> bool {
        self.fold() == 0xffff
    }

    fn fold(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }
}

/// Finishes a partial checksum in place: the field at `start + offset` holds the pseudo-header's sum and the checksum
/// covers everything from `start` to the end (`skb_checksum_help` in the Linux kernel).
///
/// Returns false, and changes nothing, when the field lies outside of the frame.
pub fn finish_partial(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(field) = start.checked_add(offset) else { return false };
    match field.checked_add(2) {
        Some(end) if end <= frame.len() => {
            let checksum = Sum::of(&frame[start..]).checksum_not_zero();
            frame[field..end].copy_from_slice(&checksum);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        // Section 3: the sum is ddf2 before complementing.
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.to_bytes(), [0xdd, 0xf2]);
        assert_eq!(sum.checksum(), [0x22, 0x0d]);
    }

    #[test]
    fn partial_outside_the_frame_is_refused() {
        let mut frame = [1_u8; 40];
        assert!(!finish_partial(&mut frame, 30, 9));
        assert!(!finish_partial(&mut frame, usize::MAX, 2));
        assert_eq!(frame, [1; 40]);
        assert!(finish_partial(&mut frame, 30, 8));
    }

    proptest! {
        #[test]
        fn same_as_the_slow_one(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(u16::from_be_bytes(Sum::of(&bytes).checksum()), slow(&bytes));
        }

        #[test]
        fn parts_add_up(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..150, word: u16) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let whole: Vec<u8> = word.to_be_bytes().into_iter().chain(bytes.iter().copied()).collect();
            let sum = Sum::of(&bytes[..cut]).plus(Sum::of(&bytes[cut..])).plus_word(word);
            prop_assert_eq!(u16::from_be_bytes(sum.checksum()), slow(&whole));
        }

        #[test]
        fn with_its_checksum_data_is_whole(mut bytes in prop::collection::vec(any::<u8>(), 4..100), flip in 0_u8..8) {
            bytes[0] = 0x45; // all-zero data has no wrong checksum of one flipped bit to tell
            bytes[2..4].fill(0);
            let checksum = Sum::of(&bytes).checksum();
            bytes[2..4].copy_from_slice(&checksum);
            prop_assert!(Sum::of(&bytes).is_whole());
            bytes[1] ^= 1 << flip;
            prop_assert!(!Sum::of(&bytes).is_whole());
        }
    }
}
