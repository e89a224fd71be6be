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
        if bytes.len() < WIDE {
            return Self::of_few(bytes);
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        Self(sum_of_blocks(blocks)).plus(Self::of_few(rest))
    }

    /// Eight bytes at a time, and the rest in halves: a part at an even place may be any number of words.
    fn of_few(bytes: &[u8]) -> Self {
        let (words, mut rest) = bytes.as_chunks::<8>();
        let mut sum = 0_u128;
        for word in words {
            sum = sum.wrapping_add(u64::from_ne_bytes(*word).into());
        }
        if let Some((part, left)) = rest.split_first_chunk::<4>() {
            sum = sum.wrapping_add(u32::from_ne_bytes(*part).into());
            rest = left;
        }
        if let Some((part, left)) = rest.split_first_chunk::<2>() {
            sum = sum.wrapping_add(u16::from_ne_bytes(*part).into());
            rest = left;
        }
        if let [last] = rest {
            sum = sum.wrapping_add(u16::from_ne_bytes([*last, 0]).into());
        }
        // A carry out of the low half is worth one (2^64 is 1 modulo 2^16 - 1).
        Self(sum as u64).plus(Self((sum >> 64) as u64))
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

/// Bytes summed up at a time where there are many.
const BLOCK: usize = 64;
/// Below this many, setting up for blocks costs more than it saves.
const WIDE: usize = 2 * BLOCK;

fn sum_of_blocks(blocks: &[[u8; BLOCK]]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just asked.
        return unsafe { sum_of_blocks_avx2(blocks) };
    }
    lanes(blocks)
}

/// The same, made by the compiler for processors with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_of_blocks_avx2(blocks: &[[u8; BLOCK]]) -> u64 {
    lanes(blocks)
}

/// Words of 32 bits in lanes of 64: nothing carries for the first 2^32 blocks, so that the lanes are independent and the compiler can use wide registers.
#[inline(always)]
fn lanes(blocks: &[[u8; BLOCK]]) -> u64 {
    let mut lanes = [0_u64; BLOCK / 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(u32::from_ne_bytes(*word).into());
        }
    }
    // Each lane is below 2^58 for any memory there is, and there are 16.
    lanes.iter().fold(0, |sum: u64, lane| sum.wrapping_add(*lane))
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
        fn many_bytes_of_ones_carry_right(len in 0_usize..70_000, fill in prop::sample::select(vec![0xff_u8, 0xfe, 0x80, 1])) {
            let bytes = vec![fill; len];
            prop_assert_eq!(u16::from_be_bytes(Sum::of(&bytes).checksum()), slow(&bytes));
        }

        #[test]
        fn without_wide_registers_it_is_the_same(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
            let (blocks, _) = bytes.as_chunks::<BLOCK>();
            prop_assert_eq!(sum_of_blocks(blocks), lanes(blocks));
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
