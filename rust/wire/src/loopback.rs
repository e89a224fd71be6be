//! Loopback messages: a frame to one station that comes back as it went, so that a peer can measure the way to another.
//!
//! These are those of connectivity fault management (IEEE 802.1Q-2018, clause 21; formerly 802.1ag), as far as a single station needs
//! them: untagged, addressed to its own MAC, at the highest maintenance level.

use crate::ethernet::HEADER_LEN;
use crate::mac::Mac;

/// The EtherType of connectivity fault management, in bytes (IEEE 802.1Q-2018, table 21-2; `ETH_P_CFM`).
const CFM: [u8; 2] = [0x89, 0x02];
/// Maintenance level 7, which is the customer's own, and version 0 (21.4.1, 21.4.2).
const LEVEL_AND_VERSION: u8 = 7 << 5;
/// OpCodes (table 21-4).
const REPLY: u8 = 2;
const MESSAGE: u8 = 3;
/// The common header, the transaction identifier and an end TLV (21.7).
const LEAST_LEN: usize = HEADER_LEN + 4 + 4 + 1;

/// Whether `frame` asks the station `own` to send it back.
#[inline]
pub fn is_loopback_message(frame: &[u8], own: Mac) -> bool {
    // The type first: it tells almost every frame apart.
    frame.len() >= LEAST_LEN
        && frame[12..14] == CFM
        && frame[14] == LEVEL_AND_VERSION
        && frame[15] == MESSAGE
        && frame[..6] == own.bytes()
        && frame[6] & 1 == 0
}

/// Turns a loopback message, in place, into the reply to it (20.2.2): addresses change places, all else but the OpCode stays.
///
/// A frame too short to be one is left alone.
pub fn turn_into_reply(frame: &mut [u8]) {
    if frame.len() >= LEAST_LEN {
        let (destination, rest) = frame.split_at_mut(6);
        destination.swap_with_slice(&mut rest[..6]);
        frame[15] = REPLY;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 1]);

    fn message(to: Mac) -> Vec<u8> {
        let mut frame = Vec::from(to.bytes());
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 9, 0x89, 0x02, 0xe0, 3, 0, 4, 0, 0, 0, 7, 3, 0, 1, 0x55, 0]);
        frame
    }

    #[test]
    fn a_message_becomes_its_reply() {
        let mut frame = message(OWN);
        assert!(is_loopback_message(&frame, OWN));
        turn_into_reply(&mut frame);
        assert_eq!(frame[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
        assert_eq!(frame[12..], [0x89, 0x02, 0xe0, 2, 0, 4, 0, 0, 0, 7, 3, 0, 1, 0x55, 0]);
        assert!(!is_loopback_message(&frame, Mac::from_bytes([2, 0, 0, 0, 0, 9])), "a reply is not answered");
    }

    #[test]
    fn what_is_another_stations_business() {
        assert!(!is_loopback_message(&message(Mac::from_bytes([2, 0, 0, 0, 0, 2])), OWN));
        assert!(!is_loopback_message(&message(Mac::from_bytes([0xff; 6])), OWN));
        for (at, byte) in [(6, 0x01), (12, 0x08), (14, 0xc0), (14, 0xe1), (15, 1)] {
            let mut frame = message(OWN);
            frame[at] = byte;
            assert!(!is_loopback_message(&frame, OWN), "byte {at}");
        }
        assert!(!is_loopback_message(&message(OWN)[..LEAST_LEN - 1], OWN));
    }

    proptest! {
        #[test]
        fn any_bytes_keep_their_length(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let before = bytes.len();
            let _ = is_loopback_message(&bytes, OWN);
            turn_into_reply(&mut bytes);
            prop_assert_eq!(bytes.len(), before);
        }
    }
}
