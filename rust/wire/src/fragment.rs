//! Cuts a frame that does not fit one datagram into fragments; [`crate::reassembly`] puts them together again.

use std::iter::FusedIterator;

use thiserror::Error;

use crate::budget::fragment_capacity;
use crate::overlay::{FRAGMENT_HEADER_LEN, Fragment, MAX_FRAGMENTS, MAX_FRAME_LEN, PeerId};

/// One fragment to send: `header` and `part`, one after the other, make the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentParts<'a> {
    /// The overlay header.
    pub header: [u8; FRAGMENT_HEADER_LEN],
    /// The bytes of the frame, 1 or more.
    pub part: &'a [u8],
}

/// Why a frame cannot be cut into fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// A frame travels as two fragments at least, so it needs two bytes.
    #[error("a frame of {len} bytes is too short for fragments")]
    FrameTooShort {
        /// Bytes of the frame.
        len: usize,
    },
    /// The frame is longer than the tunnel carries.
    #[error("a frame of {len} bytes is longer than the tunnel carries ({MAX_FRAME_LEN})")]
    FrameTooLong {
        /// Bytes of the frame.
        len: usize,
    },
    /// Sixteen fragments of this size are not enough for the frame.
    #[error(
        "a frame of {len} bytes does not fit {MAX_FRAGMENTS} fragments in datagrams of {datagram_size} bytes"
    )]
    DatagramTooSmall {
        /// Bytes of the frame.
        len: usize,
        /// Bytes one datagram carries.
        datagram_size: usize,
    },
}

/// Cuts `frame` into as few fragments as datagrams of `datagram_size` bytes allow (but two at least), of equal size
/// except that the last may be shorter.
///
/// Equal sizes keep every fragment clear of the limit, which may shrink while they are on their way.
/// `frame_id` must differ from those of the frames in flight on the same connection: a counter does.
///
/// # Errors
/// See [`FragmentError`]. Frames of 2 to [`MAX_FRAME_LEN`] bytes always fit datagrams of
/// [`crate::MIN_DATAGRAM_BUDGET`] bytes or more.
pub fn fragments(
    peer: PeerId,
    frame_id: u32,
    frame: &[u8],
    datagram_size: usize,
) -> Result<Fragments<'_>, FragmentError> {
    let len = frame.len();
    if len < 2 {
        return Err(FragmentError::FrameTooShort { len });
    }
    if len > MAX_FRAME_LEN {
        return Err(FragmentError::FrameTooLong { len });
    }
    let capacity = fragment_capacity(datagram_size);
    if capacity == 0 || capacity * MAX_FRAGMENTS < len {
        return Err(FragmentError::DatagramTooSmall { len, datagram_size });
    }
    let count = len.div_ceil(capacity).max(2);
    // ceil(len / ceil(len / count)) is `count` again for every count made this way, so no fragment ends up empty.
    let part_len = len.div_ceil(count);
    debug_assert_eq!(len.div_ceil(part_len), count);
    Ok(Fragments { peer, frame_id, rest: frame, part_len, index: 0, last: (count - 1) as u8 })
}

/// The fragments of one frame, in order; made by [`fragments`].
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    peer: PeerId,
    frame_id: u32,
    rest: &'a [u8],
    part_len: usize,
    index: u8,
    last: u8,
}

impl<'a> Iterator for Fragments<'a> {
    type Item = FragmentParts<'a>;

    #[inline]
    fn next(&mut self) -> Option<FragmentParts<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (part, rest) = self.rest.split_at(self.part_len.min(self.rest.len()));
        let Self { peer, frame_id, index, last, .. } = *self;
        self.rest = rest;
        self.index += 1;
        Some(FragmentParts { header: Fragment { peer, index, last, frame_id, part }.header(), part })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.len().div_ceil(self.part_len);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Fragments<'_> {}
impl FusedIterator for Fragments<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::budget::MIN_DATAGRAM_BUDGET;
    use crate::overlay::{Datagram, decode};

    fn peer() -> PeerId {
        PeerId::new(3).unwrap()
    }

    fn sizes(frame: usize, datagram: usize) -> Vec<usize> {
        fragments(peer(), 1, &vec![0; frame], datagram).unwrap().map(|parts| parts.part.len()).collect()
    }

    #[test]
    fn parts_are_equal_and_few() {
        assert_eq!(sizes(1514, 1434), [757, 757]);
        assert_eq!(sizes(1515, 1434), [758, 757]);
        assert_eq!(sizes(9216, 1000), [922, 922, 922, 922, 922, 922, 922, 922, 922, 918]);
        assert_eq!(sizes(14, 1434), [7, 7]);
        assert_eq!(sizes(2, 9), [1, 1]);
        assert_eq!(sizes(16, 9).len(), 16);
    }

    #[test]
    fn says_what_cannot_be_cut() {
        let cut = |len: usize, datagram| fragments(peer(), 1, &vec![0; len], datagram).map(|_| ());
        assert_eq!(cut(0, 1000), Err(FragmentError::FrameTooShort { len: 0 }));
        assert_eq!(cut(1, 1000), Err(FragmentError::FrameTooShort { len: 1 }));
        assert_eq!(cut(9217, 1434), Err(FragmentError::FrameTooLong { len: 9217 }));
        assert_eq!(cut(17, 9), Err(FragmentError::DatagramTooSmall { len: 17, datagram_size: 9 }));
        assert_eq!(cut(17, 8), Err(FragmentError::DatagramTooSmall { len: 17, datagram_size: 8 }));
        assert_eq!(cut(17, 0), Err(FragmentError::DatagramTooSmall { len: 17, datagram_size: 0 }));
        assert_eq!(cut(9216, MIN_DATAGRAM_BUDGET), Ok(()));
    }

    proptest! {
        #[test]
        fn fragments_fit_decode_and_concatenate(
            frame in proptest::collection::vec(any::<u8>(), 2..2000), datagram in 9usize..2100, frame_id: u32,
        ) {
            let Ok(cut) = fragments(peer(), frame_id, &frame, datagram) else {
                prop_assert!((datagram - FRAGMENT_HEADER_LEN) * MAX_FRAGMENTS < frame.len());
                return Ok(());
            };
            let count = cut.len();
            prop_assert!((2..=MAX_FRAGMENTS).contains(&count));
            let mut joined = Vec::new();
            let mut lens = Vec::new();
            for (place, FragmentParts { header, part }) in cut.enumerate() {
                let bytes = [&header[..], part].concat();
                prop_assert!(bytes.len() <= datagram);
                let expected = Fragment { peer: peer(), index: place as u8, last: (count - 1) as u8, frame_id, part };
                prop_assert_eq!(decode(&bytes), Ok(Datagram::Fragment(expected)));
                joined.extend_from_slice(part);
                lens.push(part.len());
            }
            prop_assert_eq!(lens.len(), count);
            prop_assert_eq!(joined, frame);
            prop_assert!(lens[..count - 1].iter().all(|len| *len == lens[0]) && lens[count - 1] <= lens[0]);
        }
    }
}
