//! The overlay header: what stands before a frame, or a part of one, in a QUIC DATAGRAM.
//!
//! ```text
//! whole frame                               fragment
//!  0        1        2        3              0        1        2        3        4 .. 7
//! +--------+--------+-----------------+     +--------+--------+-----------------+-----------------+
//! | 0x10   | 0x00   | sender peer id  |     | 0x11   | ix|last| sender peer id  | frame id        |
//! +--------+--------+-----------------+     +--------+--------+-----------------+-----------------+
//! ```
//!
//! Decoding is strict: every bit that has no meaning yet must be zero, so that later versions can give it one.

use std::fmt;
use std::num::NonZeroU16;

use thiserror::Error;

/// The version of the overlay header, in the high four bits of its first byte.
pub const VERSION: u8 = 1;
/// Bytes of header before a whole frame.
pub const HEADER_LEN: usize = 4;
/// Bytes of header before a part of a frame.
pub const FRAGMENT_HEADER_LEN: usize = 8;
/// Bytes of the largest frame the tunnel carries, in fragments or whole: a 9000-byte jumbo with room for tags.
pub const MAX_FRAME_LEN: usize = 9216;
/// The largest number of fragments of one frame: an index has four bits.
pub const MAX_FRAGMENTS: usize = 16;

const KIND_FRAME: u8 = 0;
const KIND_FRAGMENT: u8 = 1;
const FIRST_BYTE_FRAME: u8 = VERSION << 4 | KIND_FRAME;
const FIRST_BYTE_FRAGMENT: u8 = VERSION << 4 | KIND_FRAGMENT;

/// Who sent a frame: a number from 1 to 65535, unique in its room while the peer is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(NonZeroU16);

impl PeerId {
    /// The id with this number; `None` for 0, which is nobody's.
    #[inline]
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number, 1 to 65535.
    #[inline]
    pub const fn value(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.0)
    }
}

/// What one datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A whole frame.
    Frame {
        /// Who sent it.
        peer: PeerId,
        /// The frame, 0 to [`MAX_FRAME_LEN`] bytes: whether it is long enough for a header is judged by who forwards it.
        frame: &'a [u8],
    },
    /// A part of a frame.
    Fragment(Fragment<'a>),
}

/// A part of a frame, and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Who sent the frame.
    pub peer: PeerId,
    /// Which part this is, 0 to `last`.
    pub index: u8,
    /// The index of the frame's last part, 1 to 15.
    pub last: u8,
    /// Tells the frames in flight on one connection apart.
    pub frame_id: u32,
    /// The bytes, 1 or more.
    pub part: &'a [u8],
}

/// Why a datagram is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The datagram has no bytes.
    #[error("the datagram is empty")]
    Empty,
    /// The datagram ends within its header.
    #[error("the datagram ends within its header ({len} bytes)")]
    Truncated {
        /// Bytes it has.
        len: usize,
    },
    /// The version is not the one spoken here.
    #[error("the overlay version is {found}, not {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The version is right, the kind is none of its kinds.
    #[error("there is no datagram kind {found}")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// The second byte of a whole frame's header is not zero.
    #[error("a reserved byte is 0x{found:02x}, not zero")]
    Reserved {
        /// The byte found.
        found: u8,
    },
    /// The sender is peer 0.
    #[error("the sender's peer id is 0")]
    PeerZero,
    /// The index is above that of the last fragment, or the frame has only one fragment.
    #[error("a fragment cannot have index {index} of last {last}")]
    FragmentIndex {
        /// The index found.
        index: u8,
        /// The index of the last fragment found.
        last: u8,
    },
    /// The fragment has no bytes of its frame.
    #[error("the fragment carries nothing")]
    FragmentEmpty,
    /// The frame, or the part, is longer than the tunnel carries.
    #[error("{len} bytes of frame are more than {MAX_FRAME_LEN}")]
    TooLong {
        /// Bytes after the header.
        len: usize,
    },
}

impl WireError {
    /// A stable name for logs and counters, lower case with dashes.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Truncated { .. } => "truncated",
            Self::Version { .. } => "version",
            Self::Kind { .. } => "kind",
            Self::Reserved { .. } => "reserved",
            Self::PeerZero => "peer-zero",
            Self::FragmentIndex { .. } => "fragment-index",
            Self::FragmentEmpty => "fragment-empty",
            Self::TooLong { .. } => "too-long",
        }
    }
}

/// Writes the header of a whole frame sent by `peer`.
#[inline]
pub const fn write_header(out: &mut [u8; HEADER_LEN], peer: PeerId) {
    let [high, low] = peer.value().to_be_bytes();
    *out = [FIRST_BYTE_FRAME, 0, high, low];
}

impl Fragment<'_> {
    /// The header that goes before `part`.
    ///
    /// Only the low four bits of `index` and `last` fit; [`crate::fragments`] never makes more.
    #[inline]
    pub const fn header(&self) -> [u8; FRAGMENT_HEADER_LEN] {
        let [high, low] = self.peer.value().to_be_bytes();
        let [a, b, c, d] = self.frame_id.to_be_bytes();
        [FIRST_BYTE_FRAGMENT, self.index << 4 | (self.last & 0x0f), high, low, a, b, c, d]
    }
}

/// Reads a datagram, borrowing the frame or part from it.
///
/// # Errors
/// Says what is malformed. Any input is fine: it never panics.
#[inline]
pub fn decode(datagram: &[u8]) -> Result<Datagram<'_>, WireError> {
    let &first = datagram.first().ok_or(WireError::Empty)?;
    let truncated = WireError::Truncated { len: datagram.len() };
    match first {
        FIRST_BYTE_FRAME => {
            let (header, frame) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(truncated)?;
            let &[_, reserved, high, low] = header;
            if reserved != 0 {
                return Err(WireError::Reserved { found: reserved });
            }
            let peer = PeerId::new(u16::from_be_bytes([high, low])).ok_or(WireError::PeerZero)?;
            check_length(frame)?;
            Ok(Datagram::Frame { peer, frame })
        }
        FIRST_BYTE_FRAGMENT => {
            let (header, part) = datagram.split_first_chunk::<FRAGMENT_HEADER_LEN>().ok_or(truncated)?;
            let &[_, place, high, low, a, b, c, d] = header;
            let (index, last) = (place >> 4, place & 0x0f);
            let peer = PeerId::new(u16::from_be_bytes([high, low])).ok_or(WireError::PeerZero)?;
            if last == 0 || index > last {
                return Err(WireError::FragmentIndex { index, last });
            }
            if part.is_empty() {
                return Err(WireError::FragmentEmpty);
            }
            check_length(part)?;
            Ok(Datagram::Fragment(Fragment {
                peer,
                index,
                last,
                frame_id: u32::from_be_bytes([a, b, c, d]),
                part,
            }))
        }
        _ if first >> 4 == VERSION => Err(WireError::Kind { found: first & 0x0f }),
        _ => Err(WireError::Version { found: first >> 4 }),
    }
}

#[inline]
fn check_length(bytes: &[u8]) -> Result<(), WireError> {
    if bytes.len() > MAX_FRAME_LEN { Err(WireError::TooLong { len: bytes.len() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(value: u16) -> PeerId {
        PeerId::new(value).unwrap()
    }

    #[test]
    fn bytes_are_those_of_the_protocol_document() {
        let mut header = [0xff; HEADER_LEN];
        write_header(&mut header, peer(0x0102));
        assert_eq!(header, [0x10, 0x00, 0x01, 0x02]);
        let fragment = Fragment { peer: peer(0x0102), index: 2, last: 5, frame_id: 0x0a0b_0c0d, part: b"x" };
        assert_eq!(fragment.header(), [0x11, 0x25, 0x01, 0x02, 0x0a, 0x0b, 0x0c, 0x0d]);
    }

    #[test]
    fn every_malformation_has_its_reason() {
        let long = {
            let mut long = vec![0x10, 0, 0, 1];
            long.resize(HEADER_LEN + MAX_FRAME_LEN + 1, 0);
            long
        };
        for (bytes, error, reason) in [
            (&[][..], WireError::Empty, "empty"),
            (&[0x10][..], WireError::Truncated { len: 1 }, "truncated"),
            (&[0x10, 0, 0][..], WireError::Truncated { len: 3 }, "truncated"),
            (&[0x11, 0x01, 0, 1, 0, 0, 0][..], WireError::Truncated { len: 7 }, "truncated"),
            (&[0x20, 0, 0, 1, 9][..], WireError::Version { found: 2 }, "version"),
            (&[0x00][..], WireError::Version { found: 0 }, "version"),
            (&[0x12, 0, 0, 1, 9][..], WireError::Kind { found: 2 }, "kind"),
            (&[0x10, 1, 0, 1, 9][..], WireError::Reserved { found: 1 }, "reserved"),
            (&[0x10, 0, 0, 0, 9][..], WireError::PeerZero, "peer-zero"),
            (&[0x11, 0x01, 0, 0, 0, 0, 0, 0, 9][..], WireError::PeerZero, "peer-zero"),
            (
                &[0x11, 0x21, 0, 1, 0, 0, 0, 0, 9][..],
                WireError::FragmentIndex { index: 2, last: 1 },
                "fragment-index",
            ),
            (
                &[0x11, 0x00, 0, 1, 0, 0, 0, 0, 9][..],
                WireError::FragmentIndex { index: 0, last: 0 },
                "fragment-index",
            ),
            (&[0x11, 0x01, 0, 1, 0, 0, 0, 0][..], WireError::FragmentEmpty, "fragment-empty"),
            (&long[..], WireError::TooLong { len: MAX_FRAME_LEN + 1 }, "too-long"),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:02x?}");
            assert_eq!(error.reason(), reason);
        }
        assert!(decode(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn short_frames_are_left_to_who_forwards() {
        assert_eq!(decode(&[0x10, 0, 0, 1]), Ok(Datagram::Frame { peer: peer(1), frame: &[] }));
    }

    #[test]
    fn a_peer_id_is_small_and_prints_as_its_number() {
        assert_eq!(PeerId::new(0), None);
        assert_eq!(size_of::<Option<PeerId>>(), 2);
        assert_eq!((peer(7).to_string(), format!("{:?}", peer(7))), ("7".into(), "PeerId(7)".into()));
    }

    proptest! {
        #[test]
        fn frames_round_trip(id in 1u16.., frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut header = [0; HEADER_LEN];
            write_header(&mut header, peer(id));
            let datagram = [&header[..], &frame].concat();
            prop_assert_eq!(decode(&datagram), Ok(Datagram::Frame { peer: peer(id), frame: &frame }));
        }

        #[test]
        fn fragments_round_trip(
            id in 1u16.., (index, last) in (1u8..16).prop_flat_map(|last| (0..=last, Just(last))),
            frame_id: u32, part in proptest::collection::vec(any::<u8>(), 1..200),
        ) {
            let fragment = Fragment { peer: peer(id), index, last, frame_id, part: &part };
            let datagram = [&fragment.header()[..], &part].concat();
            prop_assert_eq!(decode(&datagram), Ok(Datagram::Fragment(fragment)));
        }

        /// Whatever decodes encodes to the same bytes again, so no two datagrams mean the same and no bit is ignored.
        #[test]
        fn any_bytes_decode_without_a_panic_and_canonically(
            start in proptest::sample::select(vec![0x10u8, 0x11, 0x12, 0x20, 0]),
            rest in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..40),
        ) {
            let datagram = [&[start][..], &rest].concat();
            match decode(&datagram) {
                Err(error) => prop_assert!(!error.reason().is_empty() && !error.to_string().is_empty()),
                Ok(Datagram::Frame { peer, frame }) => {
                    let mut header = [0; HEADER_LEN];
                    write_header(&mut header, peer);
                    prop_assert_eq!([&header[..], frame].concat(), datagram);
                }
                Ok(Datagram::Fragment(fragment)) => {
                    prop_assert_eq!([&fragment.header()[..], fragment.part].concat(), datagram);
                }
            }
        }
    }
}
