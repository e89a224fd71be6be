//! The one place for size arithmetic: QUIC datagram payload to TAP MTU and back.
//!
//! "Datagram" means the payload of one QUIC DATAGRAM frame (RFC 9221) in bytes, as the connection can carry it now;
//! "TAP MTU" the largest IP packet the virtual adapter hands over, in bytes, Ethernet header not counted.
//!
//! ```text
//! datagram = overlay header (4) + Ethernet header (14) + IP packet
//! ```

use crate::ethernet;
use crate::overlay::{FRAGMENT_HEADER_LEN, HEADER_LEN, MAX_FRAGMENTS, MAX_FRAME_LEN};

/// The least MTU of a room: every IPv6 link must carry 1280 bytes (RFC 8200, section 5).
pub const MIN_TAP_MTU: u16 = 1280;
/// The largest MTU of a room: that of Ethernet (RFC 894, RFC 2464).
pub const MAX_TAP_MTU: u16 = 1500;
/// The least datagram payload a peer may offer in `hello`, in bytes.
///
/// QUIC needs paths of 1200 bytes of UDP payload (RFC 9000, section 14), of which some 1162 are left for a datagram.
pub const MIN_DATAGRAM_BUDGET: usize = 1000;

// Every peer that may join can carry every frame, if need be in fragments.
const _: () = assert!(MAX_FRAGMENTS * (MIN_DATAGRAM_BUDGET - FRAGMENT_HEADER_LEN) >= MAX_FRAME_LEN);

/// Bytes of the largest frame that fits whole into a datagram; 0 if not even the header fits.
pub const fn whole_frame_capacity(datagram: usize) -> usize {
    datagram.saturating_sub(HEADER_LEN)
}

/// Bytes of a frame that one fragment of a datagram's size carries; 0 if not even the header fits.
pub const fn fragment_capacity(datagram: usize) -> usize {
    datagram.saturating_sub(FRAGMENT_HEADER_LEN)
}

/// The largest IP packet that travels in one datagram inside an untagged frame; between 0 and 65535, not clamped further.
pub const fn tap_mtu_for_datagram(datagram: usize) -> u16 {
    let mtu = whole_frame_capacity(datagram).saturating_sub(ethernet::HEADER_LEN);
    if mtu > u16::MAX as usize { u16::MAX } else { mtu as u16 }
}

/// The datagram that an IP packet of `mtu` bytes in an untagged frame fills exactly.
pub const fn datagram_for_tap_mtu(mtu: u16) -> usize {
    mtu as usize + ethernet::HEADER_LEN + HEADER_LEN
}

/// The MTU of a room, from the datagram budget of its first peer and the relay's configured MTU.
///
/// Always within [`MIN_TAP_MTU`] and [`MAX_TAP_MTU`]: what does not fit a datagram then travels as fragments.
pub const fn room_tap_mtu(first_budget: usize, configured: u16) -> u16 {
    let fits = tap_mtu_for_datagram(first_budget);
    let wanted = if fits < configured { fits } else { configured };
    if wanted < MIN_TAP_MTU {
        MIN_TAP_MTU
    } else if wanted > MAX_TAP_MTU {
        MAX_TAP_MTU
    } else {
        wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_paths() {
        // quinn on a 1500-byte path: 1434 bytes of payload.
        assert_eq!(tap_mtu_for_datagram(1434), 1416);
        assert_eq!(room_tap_mtu(1434, 1500), 1416);
        // At QUIC's minimum of 1200 bytes the payload is 1162, and the room must not go below IPv6's minimum.
        assert_eq!(tap_mtu_for_datagram(1162), 1144);
        assert_eq!(room_tap_mtu(1162, 1500), MIN_TAP_MTU);
        assert_eq!(room_tap_mtu(65535, 1500), MAX_TAP_MTU);
        assert_eq!(room_tap_mtu(65535, 9000), MAX_TAP_MTU);
        assert_eq!(room_tap_mtu(65535, 1400), 1400);
        assert_eq!(room_tap_mtu(1434, 1300), 1300);
        assert_eq!(room_tap_mtu(1434, 0), MIN_TAP_MTU);
    }

    #[test]
    fn extremes_saturate() {
        assert_eq!(whole_frame_capacity(3), 0);
        assert_eq!(fragment_capacity(7), 0);
        assert_eq!(tap_mtu_for_datagram(17), 0);
        assert_eq!(tap_mtu_for_datagram(usize::MAX), u16::MAX);
    }

    proptest! {
        #[test]
        fn there_and_back(mtu: u16) {
            prop_assert_eq!(tap_mtu_for_datagram(datagram_for_tap_mtu(mtu)), mtu);
            prop_assert_eq!(whole_frame_capacity(datagram_for_tap_mtu(mtu)), usize::from(mtu) + ethernet::HEADER_LEN);
        }

        #[test]
        fn a_room_is_always_within_bounds(budget: usize, configured: u16) {
            let mtu = room_tap_mtu(budget, configured);
            prop_assert!((MIN_TAP_MTU..=MAX_TAP_MTU).contains(&mtu));
            prop_assert!(mtu == MIN_TAP_MTU || datagram_for_tap_mtu(mtu) <= budget);
        }
    }
}
