//! MAC addresses: parsing, printing, the bits that mean something, and which ones a client may call its own.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The individual/group bit of the first octet (IEEE 802-2014, 8.2.2): set on multicast and broadcast.
const GROUP_BIT: u8 = 0x01;
/// The universal/local bit of the first octet (IEEE 802-2014, 8.2.2): set when no vendor assigned the address.
const LOCAL_BIT: u8 = 0x02;

/// A 48-bit MAC address, in the order of its octets on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`, every station.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, which no station has.
    pub const ZERO: Self = Self([0; 6]);

    /// The address with these six octets, in wire order.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The six octets, in wire order.
    #[inline]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address as a number below 2^48, first octet highest: a compact key for tables.
    #[inline]
    pub const fn packed(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// Whether the address names a group of stations: multicast, broadcast included.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0[0] & GROUP_BIT != 0
    }

    /// Whether this is [`Mac::BROADCAST`].
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        self.packed() == Self::BROADCAST.packed()
    }

    /// Whether this is [`Mac::ZERO`].
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.packed() == 0
    }

    /// Whether the address was made up locally, as opposed to assigned by a vendor.
    #[inline]
    pub const fn is_locally_administered(self) -> bool {
        self.0[0] & LOCAL_BIT != 0
    }

    /// Whether a client may present this address as its own in `hello` (`docs/protocol.md`): unicast and not zero.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub const fn check_client_identity(self) -> Result<(), IdentityError> {
        if self.is_broadcast() {
            Err(IdentityError::Broadcast)
        } else if self.is_group() {
            Err(IdentityError::Group(self))
        } else if self.is_zero() {
            Err(IdentityError::Zero)
        } else {
            Ok(())
        }
    }

    /// A locally administered unicast address made of 46 of the given random bits.
    ///
    /// Such an address always passes [`Mac::check_client_identity`].
    pub const fn random_local(entropy: [u8; 6]) -> Self {
        let [first, b, c, d, e, f] = entropy;
        Self([(first | LOCAL_BIT) & !GROUP_BIT, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // Built by hand and written once: frame logs print several of these a line.
        let mut text = [b':'; TEXT_LEN];
        for (index, octet) in self.0.into_iter().enumerate() {
            text[index * 3] = DIGITS[usize::from(octet >> 4)];
            text[index * 3 + 1] = DIGITS[usize::from(octet & 0x0f)];
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

/// Characters in a printed address: six pairs of digits and five separators.
const TEXT_LEN: usize = 17;

impl FromStr for Mac {
    type Err = MacError;

    /// Reads six pairs of hexadecimal digits, either case, with `:` or `-` between them, not mixed.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let text = text.as_bytes();
        if text.len() != TEXT_LEN {
            return Err(MacError::Length(text.len()));
        }
        let separator = text[2];
        if separator != b':' && separator != b'-' {
            return Err(MacError::Separator { at: 2 });
        }
        let mut bytes = [0; 6];
        for (index, octet) in bytes.iter_mut().enumerate() {
            let at = index * 3;
            *octet = digit(text, at)? << 4 | digit(text, at + 1)?;
            if text.get(at + 2).is_some_and(|found| *found != separator) {
                return Err(MacError::Separator { at: at + 2 });
            }
        }
        Ok(Self(bytes))
    }
}

/// The value of the hexadecimal digit at byte `at`, which must be inside `text`.
fn digit(text: &[u8], at: usize) -> Result<u8, MacError> {
    match text[at] {
        found @ b'0'..=b'9' => Ok(found - b'0'),
        found @ b'a'..=b'f' => Ok(found - b'a' + 10),
        found @ b'A'..=b'F' => Ok(found - b'A' + 10),
        _ => Err(MacError::Digit { at }),
    }
}

/// Why a text is not a MAC address. Positions count bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MacError {
    /// The text has another number of bytes than `02:00:5e:10:00:01`.
    #[error("a MAC address has 17 characters, like 02:00:5e:10:00:01, but this has {0}")]
    Length(usize),
    /// Something else than the one separator stands between two octets.
    #[error("a MAC address has ':' or '-' between its octets, and the same everywhere (character {at})")]
    Separator {
        /// Where it stands.
        at: usize,
    },
    /// Something else than a hexadecimal digit stands in an octet.
    #[error("a MAC address has two hexadecimal digits an octet (character {at})")]
    Digit {
        /// Where it stands.
        at: usize,
    },
}

/// Why an address cannot be a client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The broadcast address.
    #[error("the broadcast address cannot be a client's MAC")]
    Broadcast,
    /// A multicast address.
    #[error("{0} is a multicast address; a client's MAC must be unicast")]
    Group(Mac),
    /// The address of no station.
    #[error("the zero address cannot be a client's MAC")]
    Zero,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: Mac = Mac::from_bytes([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]);

    #[test]
    fn reads_both_separators_and_both_cases() {
        for text in ["02:00:5e:10:00:01", "02-00-5e-10-00-01", "02-00-5E-10-00-01", "02:00:5E:10:00:01"] {
            assert_eq!(text.parse(), Ok(SAMPLE), "{text}");
        }
    }

    #[test]
    fn prints_lower_case_with_colons() {
        assert_eq!(SAMPLE.to_string(), "02:00:5e:10:00:01");
        assert_eq!(format!("{SAMPLE:?}"), "Mac(02:00:5e:10:00:01)");
        assert_eq!(format!("{SAMPLE:>19}"), "  02:00:5e:10:00:01");
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for (text, error) in [
            ("", MacError::Length(0)),
            ("02:00:5e:10:00:0", MacError::Length(16)),
            ("02:00:5e:10:00:01 ", MacError::Length(18)),
            ("02005e100001", MacError::Length(12)),
            ("02:00-5e:10:00:01", MacError::Separator { at: 5 }),
            ("02:00:5e:10:00-01", MacError::Separator { at: 14 }),
            ("02.00.5e.10.00.01", MacError::Separator { at: 2 }),
            ("0g:00:5e:10:00:01", MacError::Digit { at: 1 }),
            ("02:00:5e:10:00: 1", MacError::Digit { at: 15 }),
            ("+2:00:5e:10:00:01", MacError::Digit { at: 0 }),
        ] {
            assert_eq!(text.parse::<Mac>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn knows_the_special_bits() {
        assert!(Mac::BROADCAST.is_group() && Mac::BROADCAST.is_broadcast());
        assert!(Mac::ZERO.is_zero() && !Mac::ZERO.is_group());
        let mdns = Mac::from_bytes([0x01, 0x00, 0x5e, 0, 0, 0xfb]);
        assert!(mdns.is_group() && !mdns.is_broadcast() && !mdns.is_locally_administered());
        assert!(SAMPLE.is_locally_administered() && !SAMPLE.is_group());
    }

    #[test]
    fn a_client_is_unicast_and_not_zero() {
        let multicast = Mac::from_bytes([0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(SAMPLE.check_client_identity(), Ok(()));
        assert_eq!(Mac::ZERO.check_client_identity(), Err(IdentityError::Zero));
        assert_eq!(Mac::BROADCAST.check_client_identity(), Err(IdentityError::Broadcast));
        assert_eq!(multicast.check_client_identity(), Err(IdentityError::Group(multicast)));
    }

    proptest! {
        #[test]
        fn printing_and_reading_round_trip(bytes: [u8; 6], upper: bool, dashes: bool) {
            let mac = Mac::from_bytes(bytes);
            let mut text = mac.to_string();
            if upper { text = text.to_uppercase(); }
            if dashes { text = text.replace(':', "-"); }
            prop_assert_eq!(text.parse(), Ok(mac));
        }

        #[test]
        fn reading_any_text_never_panics(text in ".{0,20}") {
            if let Ok(mac) = text.parse::<Mac>() {
                prop_assert_eq!(mac.to_string(), text.to_lowercase().replace('-', ":"));
            }
        }

        #[test]
        fn seventeen_hostile_bytes_never_panic(text in "[0-9a-fA-Fg:. -]{17}") {
            let _ = text.parse::<Mac>();
        }

        #[test]
        fn a_random_address_is_a_valid_identity(entropy: [u8; 6]) {
            let mac = Mac::random_local(entropy);
            prop_assert!(mac.is_locally_administered());
            prop_assert_eq!(mac.check_client_identity(), Ok(()));
        }

        #[test]
        fn packing_keeps_order_and_identity(a: [u8; 6], b: [u8; 6]) {
            let (a, b) = (Mac::from_bytes(a), Mac::from_bytes(b));
            prop_assert_eq!(a.cmp(&b), a.packed().cmp(&b.packed()));
            prop_assert!(a.packed() < 1 << 48);
        }
    }
}
