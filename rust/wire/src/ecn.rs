//! Explicit congestion notification (RFC 3168): the two bits with which an IP packet says that its sender can be told of a full line without
//! a loss, read and set in place in an Ethernet frame.

use crate::ethernet::{EtherType, EthernetFrame};

/// Bytes of an IPv4 header without options (RFC 791 section 3.1).
const IPV4_HEADER: usize = 20;
/// Where its header checksum stands.
const IPV4_CHECKSUM: usize = 10;
/// Bytes of the IPv6 header (RFC 8200 section 3).
const IPV6_HEADER: usize = 40;
/// Both bits: congestion experienced.
const CE: u8 = 0b11;
/// Where the field stands in the second byte of either header: the low end of IPv4's type of service (RFC 3168 section 5), and of IPv6's
/// traffic class, which begins four bits earlier.
const IPV4_SHIFT: u8 = 0;
const IPV6_SHIFT: u8 = 4;

/// The values of the field (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The sender is told by losses only.
    NotEct,
    /// ECN-capable, code point 01 (RFC 9331 gives it a meaning of its own).
    Ect1,
    /// ECN-capable, code point 10: what TCP sets.
    Ect0,
    /// A queue on the way stood.
    Ce,
}

impl Ecn {
    const fn of_bits(bits: u8) -> Self {
        match bits & CE {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// An IP header in a frame: where it begins, and where in its second byte the field stands.
struct Header {
    at: usize,
    shift: u8,
}

impl Header {
    /// The frame's IP header, behind any VLAN tags, if it is a whole one and says nothing that the frame contradicts.
    ///
    /// IP behind LLC/SNAP is not looked for: hardly anything sends it, and a packet that is not marked is dropped, which is as good a sign.
    #[inline]
    fn find(frame: &[u8]) -> Option<Self> {
        let parsed = EthernetFrame::parse(frame).ok()?;
        let packet = parsed.payload();
        let at = frame.len() - packet.len();
        match parsed.ethertype() {
            EtherType::IPV4 => is_ipv4(packet).then_some(Self { at, shift: IPV4_SHIFT }),
            EtherType::IPV6 => is_ipv6(packet).then_some(Self { at, shift: IPV6_SHIFT }),
            _ => None,
        }
    }
}

#[inline]
fn is_ipv4(packet: &[u8]) -> bool {
    let Some(header) = packet.first_chunk::<IPV4_HEADER>() else { return false };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] >> 4 == 4 && header_len >= IPV4_HEADER && (header_len..=packet.len()).contains(&total_len)
}

#[inline]
fn is_ipv6(packet: &[u8]) -> bool {
    let Some(header) = packet.first_chunk::<IPV6_HEADER>() else { return false };
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    header[0] >> 4 == 6 && IPV6_HEADER + payload_len <= packet.len()
}

/// The ECN field of the IP packet in `frame`; `None` for anything but a sound IP header.
#[inline]
pub fn ecn(frame: &[u8]) -> Option<Ecn> {
    let header = Header::find(frame)?;
    Some(Ecn::of_bits(frame[header.at + 1] >> header.shift))
}

/// Marks the IP packet in `frame` "congestion experienced" if its sender can be told so. Gives whether it bears the mark now; if not, the frame
/// is as it was.
///
/// The checksum of an IPv4 header is corrected, not made anew: one that was wrong stays wrong. Those of TCP and UDP do not cover the field.
#[inline]
pub fn mark_ce(frame: &mut [u8]) -> bool {
    let Some(header) = Header::find(frame) else { return false };
    let packet = &mut frame[header.at..];
    match Ecn::of_bits(packet[1] >> header.shift) {
        Ecn::NotEct => return false,
        Ecn::Ce => return true,
        Ecn::Ect0 | Ecn::Ect1 => {}
    }
    let before = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] |= CE << header.shift;
    if header.shift == IPV4_SHIFT {
        let after = u16::from_be_bytes([packet[0], packet[1]]);
        let checksum = u16::from_be_bytes([packet[IPV4_CHECKSUM], packet[IPV4_CHECKSUM + 1]]);
        packet[IPV4_CHECKSUM..IPV4_CHECKSUM + 2]
            .copy_from_slice(&corrected(checksum, before, after).to_be_bytes());
    }
    true
}

/// The Internet checksum of data of which one word has changed (RFC 1624 section 3, equation 3).
#[inline]
fn corrected(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word.
    fn checksum(header: &[u8]) -> u16 {
        let mut sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn addresses_and_tags(tags: &[(u16, u16)]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (tpid, tci) in tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame
    }

    /// A frame with an IPv4 packet, its header checksum made from scratch.
    fn ipv4(tags: &[(u16, u16)], tos: u8, varying: [u8; 14], options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header_len = IPV4_HEADER + options.len();
        let [a, b, c, d, ttl, protocol, rest @ ..] = varying;
        let mut header = vec![0x40 | (header_len / 4) as u8, tos];
        header.extend(((header_len + payload.len()) as u16).to_be_bytes());
        header.extend([a, b, c, d, ttl, protocol, 0, 0]);
        header.extend(rest);
        header.extend(options);
        let sum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        [addresses_and_tags(tags), vec![0x08, 0x00], header, payload.to_vec()].concat()
    }

    fn ipv6(tags: &[(u16, u16)], class: u8, varying: [u8; 37], payload: &[u8]) -> Vec<u8> {
        let [flow_a, flow_b, flow_c, rest @ ..] = varying;
        let mut header = vec![0x60 | class >> 4, class << 4 | flow_a & 0x0f, flow_b, flow_c];
        header.extend((payload.len() as u16).to_be_bytes());
        header.extend(rest);
        [addresses_and_tags(tags), vec![0x86, 0xdd], header, payload.to_vec()].concat()
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: equation 3 gives 0x0000 where the one before it gave 0xffff.
        assert_eq!(corrected(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_known_packet_is_marked_byte_for_byte() {
        let header = [0x45, 0x02, 0, 0x28, 0x1c, 0x46, 0x40, 0, 0x40, 0x06, 0, 0];
        let varying = [0x1c, 0x46, 0x40, 0, 0x40, 0x06, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut frame = ipv4(&[], header[1], varying, &[], &[0x5a; 20]);
        assert_eq!(ecn(&frame), Some(Ecn::Ect0));
        let before = frame.clone();
        assert!(mark_ce(&mut frame));
        assert_eq!(ecn(&frame), Some(Ecn::Ce));
        let changed: Vec<_> = (0..frame.len()).filter(|at| frame[*at] != before[*at]).collect();
        assert_eq!(changed, [15, 25], "the type of service and the low byte of the checksum");
    }

    #[test]
    fn what_is_not_sound_ip_is_left_alone() {
        let varying = [0, 0, 0x40, 0, 64, 6, 10, 0, 0, 1, 10, 0, 0, 2];
        let sound = ipv4(&[(0x8100, 5)], 0x02, varying, &[], &[7; 30]);
        // Where the IP header begins: 12 of addresses, 4 of tag, 2 of type.
        for (at, byte, what) in [
            (16, 0x88, "another protocol"),
            (18, 0x55, "version 5"),
            (18, 0x44, "a header below 20 bytes"),
            (18, 0x4f, "options beyond the total length"),
            (20, 0x7f, "longer than the frame"),
            (21, 0x13, "shorter than its header"),
            (19, 0xfc, "not capable"),
        ] {
            let mut frame = sound.clone();
            frame[at] = byte;
            let before = frame.clone();
            assert!(!mark_ce(&mut frame), "{what}");
            assert_eq!(frame, before, "{what}");
        }
        for cut in 0..sound.len() {
            let mut frame = sound[..cut].to_vec();
            assert!(!mark_ce(&mut frame), "cut to {cut}");
            assert_eq!(frame, sound[..cut]);
        }
        let mut padded = sound.clone();
        padded.extend([0; 20]);
        assert!(mark_ce(&mut padded));
    }

    fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
        prop::collection::vec((prop::sample::select(vec![0x8100_u16, 0x88a8, 0x9100]), any::<u16>()), 0..4)
    }

    fn is_capable(byte: u8) -> bool {
        byte & 3 != 0
    }

    /// Written without the rest of this crate: a walk over two bytes at a time, and every bound by hand. Where the byte with the field
    /// stands, and which of its bits are the field's.
    fn slow(frame: &[u8]) -> Option<(usize, u8)> {
        let word = |at: usize| -> Option<usize> {
            Some(usize::from(*frame.get(at)?) * 256 + usize::from(*frame.get(at + 1)?))
        };
        let mut at = 12;
        loop {
            let (value, next) = (word(at)?, word(at + 4));
            match value {
                0x8100 | 0x88a8 | 0x9100 if next.is_some() => at += 4,
                0x0800 => {
                    let (version, header) = (frame.get(at + 2)? / 16, frame.get(at + 2)? % 16 * 4);
                    let total = word(at + 4)?;
                    let fits = at + 2 + total <= frame.len() && total >= usize::from(header);
                    return (version == 4 && header >= 20 && fits && at + 22 <= frame.len())
                        .then_some((at + 3, 0x03));
                }
                0x86dd => {
                    let total = 40 + word(at + 6)?;
                    return (frame.get(at + 2)? / 16 == 6 && at + 2 + total <= frame.len())
                        .then_some((at + 3, 0x30));
                }
                _ => return None,
            }
        }
    }

    proptest! {
        #[test]
        fn a_marked_ipv4_packet_is_the_one_built_with_the_mark(
            tags in tags(), tos: u8, varying: [u8; 14],
            options in (0_usize..11).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4)),
            payload in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut frame = ipv4(&tags, tos, varying, &options, &payload);
            let before = frame.clone();
            prop_assert_eq!(mark_ce(&mut frame), is_capable(tos));
            let expected = if is_capable(tos) { ipv4(&tags, tos | 3, varying, &options, &payload) } else { before };
            prop_assert_eq!(frame, expected);
        }

        #[test]
        fn a_marked_ipv6_packet_is_the_one_built_with_the_mark(
            tags in tags(), class: u8, varying in prop::collection::vec(any::<u8>(), 37),
            payload in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let varying: [u8; 37] = varying.try_into().unwrap();
            let mut frame = ipv6(&tags, class, varying, &payload);
            let before = frame.clone();
            prop_assert_eq!(mark_ce(&mut frame), is_capable(class));
            let expected = if is_capable(class) { ipv6(&tags, class | 3, varying, &payload) } else { before };
            prop_assert_eq!(frame, expected);
        }

        #[test]
        fn a_wrong_checksum_stays_as_wrong(tos in prop::sample::select(vec![1_u8, 2]), varying: [u8; 14], wrong in 1_u16..0xffff) {
            let mut frame = ipv4(&[], tos, varying, &[], &[]);
            let sum = u16::from_be_bytes([frame[24], frame[25]]).wrapping_add(wrong).to_be_bytes();
            frame[24..26].copy_from_slice(&sum);
            let was_whole = checksum(&frame[14..34]) == 0;
            prop_assert!(mark_ce(&mut frame));
            prop_assert_eq!(checksum(&frame[14..34]) == 0, was_whole);
        }

        #[test]
        fn any_bytes_are_read_as_the_slow_one_reads_them(
            start in prop::sample::select(vec![vec![], vec![0x81, 0, 0, 5], vec![0x88, 0xa8, 0, 5, 0x81, 0, 0, 1]]),
            kind in prop::sample::select(vec![[0x08, 0x00, 0x45], [0x08, 0x00, 0x46], [0x86, 0xdd, 0x60], [0x86, 0xdd, 0x6f], [0x81, 0, 0]]),
            field: u8,
            length in prop_oneof![0_u16..80, any::<u16>()],
            rest in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..90),
        ) {
            let mut frame = [&addresses_and_tags(&[]), &start, &kind[..], &[field], &length.to_be_bytes(), &rest].concat();
            let before = frame.clone();
            let place = slow(&frame);
            prop_assert_eq!(ecn(&frame).is_some(), place.is_some());
            let marked = mark_ce(&mut frame);
            let capable = place.is_some_and(|(at, bits)| before[at] & bits != 0);
            prop_assert_eq!(marked, capable);
            match place {
                Some((at, bits)) if capable => {
                    prop_assert_eq!(frame[at], before[at] | bits);
                    prop_assert_eq!(ecn(&frame), Some(Ecn::Ce));
                    // Nothing else changes but an IPv4 header checksum.
                    let is_checksum = |place: usize| bits == 0x03 && (at + 9..at + 11).contains(&place);
                    prop_assert!((0..frame.len()).all(|n| n == at || is_checksum(n) || frame[n] == before[n]));
                }
                _ => prop_assert_eq!(frame, before),
            }
        }
    }
}
