//! The overlay header: any datagram is refused with a reason, or means exactly one thing.
//!
//! Input: the datagram.

use softlan_wire::{Datagram, HEADER_LEN, MAX_FRAME_LEN, decode, write_header};

/// Decodes; what decodes must encode to the same bytes, so that no bit is ignored.
pub fn check(data: &[u8]) {
    match decode(data) {
        Err(error) => assert!(!error.reason().is_empty() && !error.to_string().is_empty()),
        Ok(Datagram::Frame { peer, frame }) => {
            assert!(frame.len() <= MAX_FRAME_LEN);
            let mut header = [0; HEADER_LEN];
            write_header(&mut header, peer);
            assert_eq!([&header[..], frame].concat(), data);
        }
        Ok(Datagram::Fragment(fragment)) => {
            assert!(fragment.index <= fragment.last && (1..=15).contains(&fragment.last));
            assert!((1..=MAX_FRAME_LEN).contains(&fragment.part.len()));
            assert_eq!([&fragment.header()[..], fragment.part].concat(), data);
        }
    }
}
