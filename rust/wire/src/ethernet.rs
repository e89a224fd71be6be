//! The Ethernet header: addresses, VLAN tags and the ethertype, read in place from a borrowed frame.
//!
//! Frames are Ethernet II or IEEE 802.3 frames without preamble and without FCS.

use std::fmt;

use thiserror::Error;

use crate::mac::Mac;

/// Bytes of an untagged header: two addresses and the type (IEEE 802.3-2018, 3.1.1; `ETH_HLEN` in `linux/if_ether.h`).
pub const HEADER_LEN: usize = 14;
/// Bytes of one VLAN tag: TPID and TCI (IEEE 802.1Q-2018, 9.3; `VLAN_HLEN` in `linux/if_vlan.h`).
pub const TAG_LEN: usize = 4;
/// Bytes a frame has at least on copper, without FCS (`ETH_ZLEN`). A tunnel carries shorter ones: TAP adapters do not pad.
pub const MIN_WIRE_LEN: usize = 60;
/// Bytes of the largest basic frame, FCS counted (IEEE 802.3-2018, 3.2.7: 1518). Untagged frames above it are jumbo.
///
/// Frames here carry no FCS, so 4 bytes more than the standard's payload pass; they are left as slack.
pub const MAX_UNTAGGED_LEN: usize = 1518;
/// Bytes of the largest Q-tagged frame, FCS counted (IEEE 802.3-2018, 3.2.7: 1522). Tagged frames above it are jumbo.
pub const MAX_TAGGED_LEN: usize = 1522;

/// Type values from here on are protocols; lower ones are 802.3 lengths (IEEE 802.3-2018, 3.2.6; `ETH_P_802_3_MIN`).
const FIRST_TYPE: u16 = 0x0600;
/// An LLC header that announces SNAP: DSAP and SSAP 0xaa, unnumbered information (IEEE 802-2014, 9.4).
const LLC_SNAP: [u8; 3] = [0xaa, 0xaa, 0x03];
/// SNAP organizations whose protocol id is an ethertype: RFC 1042 and IEEE 802.1H bridge tunnel.
const SNAP_ETHERTYPE_OUIS: [[u8; 3]; 2] = [[0, 0, 0], [0, 0, 0xf8]];

/// The two bytes after the addresses (and tags): which protocol the payload speaks, or an 802.3 length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: Self = Self(0x0800);
    /// ARP (RFC 826).
    pub const ARP: Self = Self(0x0806);
    /// IPv6 (RFC 2464).
    pub const IPV6: Self = Self(0x86dd);
    /// RARP (RFC 903), used to announce a MAC to switches.
    pub const RARP: Self = Self(0x8035);
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// Service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: Self = Self(0x88a8);
    /// Outer VLAN tag of switches older than 802.1ad (`ETH_P_QINQ1` in `linux/if_ether.h`).
    pub const OLD_QINQ: Self = Self(0x9100);

    /// The 16-bit value.
    #[inline]
    pub const fn value(self) -> u16 {
        self.0
    }

    /// Whether the value is the length of an 802.3 frame (below 0x0600) rather than a protocol.
    #[inline]
    pub const fn is_length(self) -> bool {
        self.0 < FIRST_TYPE
    }

    /// Whether a VLAN tag follows.
    #[inline]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::SERVICE_VLAN | Self::OLD_QINQ)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtherType({self})")
    }
}

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Which kind of tag: 0x8100, 0x88a8 or 0x9100.
    pub tpid: EtherType,
    /// Priority (3 bits), drop eligible (1 bit), VLAN id (12 bits).
    pub tci: u16,
}

impl Tag {
    /// The VLAN id, 0 to 4095; 0 is a tag that only carries a priority.
    pub const fn vlan_id(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// The tags of a frame, outermost first.
#[derive(Clone, Debug)]
pub struct Tags<'a> {
    tags: &'a [u8],
}

impl Iterator for Tags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        let (tag, rest) = self.tags.split_first_chunk::<TAG_LEN>()?;
        self.tags = rest;
        let [a, b, c, d] = *tag;
        Some(Tag { tpid: EtherType(u16::from_be_bytes([a, b])), tci: u16::from_be_bytes([c, d]) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.tags.len() / TAG_LEN;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Tags<'_> {}

/// A frame of at least 14 bytes, its header found.
///
/// Every whole tag is stepped over however many there are, so that none can hide a protocol from a filter by
/// standing deeper than some bound; the walk ends with the frame. A tag cut short by the frame's end is no tag:
/// its TPID is then the ethertype.
#[derive(Clone, Copy, Debug)]
pub struct EthernetFrame<'a> {
    bytes: &'a [u8],
    /// Where the ethertype stands: 12, and 4 more for each tag.
    type_at: usize,
}

/// A frame shorter than its 14-byte header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a frame of {len} bytes is shorter than an Ethernet header (14 bytes)")]
pub struct Runt {
    /// Bytes the frame has.
    pub len: usize,
}

impl<'a> EthernetFrame<'a> {
    /// Finds the header of a frame.
    ///
    /// # Errors
    /// [`Runt`] below 14 bytes. Nothing else about a frame is judged here.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Runt> {
        if bytes.len() < HEADER_LEN {
            return Err(Runt { len: bytes.len() });
        }
        Ok(Self { bytes, type_at: HEADER_LEN - 2 + tags_len(&bytes[HEADER_LEN - 2..]) })
    }

    /// The destination address.
    #[inline]
    pub fn destination(&self) -> Mac {
        self.mac_at(0)
    }

    /// The source address.
    #[inline]
    pub fn source(&self) -> Mac {
        self.mac_at(6)
    }

    /// The VLAN tags, outermost first.
    pub fn tags(&self) -> Tags<'a> {
        Tags { tags: &self.bytes[HEADER_LEN - 2..self.type_at] }
    }

    /// Whether the frame has a VLAN tag.
    #[inline]
    pub fn is_tagged(&self) -> bool {
        self.type_at > HEADER_LEN - 2
    }

    /// The ethertype after the tags, or the 802.3 length.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        EtherType(u16::from_be_bytes([self.bytes[self.type_at], self.bytes[self.type_at + 1]]))
    }

    /// What follows the ethertype, padding included.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.type_at + 2..]
    }

    /// The whole frame.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The protocol and the packet that a lenient host finds in the frame: also behind LLC/SNAP, and behind tags and
    /// LLC/SNAP in any alternation.
    ///
    /// Filters must look here: Windows takes IP in SNAP as well as in Ethernet II, and stacked tags and SNAP
    /// headers are the known way around a switch's DHCP and router advertisement guards (CERT VU#855201,
    /// CVE-2021-27853, CVE-2021-27861). The 802.3 length is not believed, for those hosts do not either.
    #[inline]
    pub fn protocol(&self) -> (EtherType, &'a [u8]) {
        let (mut ethertype, mut payload) = (self.ethertype(), self.payload());
        while ethertype.is_length() {
            let Some(inner) = snap_ethertype(payload) else { break };
            // Each turn uses up at least the 8 bytes of LLC and SNAP, so the walk ends.
            let skip = tags_len(inner);
            ethertype = EtherType(u16::from_be_bytes([inner[skip], inner[skip + 1]]));
            payload = &inner[skip + 2..];
        }
        (ethertype, payload)
    }

    #[inline]
    fn mac_at(&self, at: usize) -> Mac {
        let mut octets = [0; 6];
        octets.copy_from_slice(&self.bytes[at..at + 6]);
        Mac::from_bytes(octets)
    }
}

/// How many bytes of whole tags stand at the start of `bytes`, an ethertype after each of them.
#[inline]
fn tags_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    // A tag counts only if the ethertype that must follow it is there too.
    while let Some([a, b, _, _, _, _]) = bytes.get(at..at + TAG_LEN + 2) {
        if !EtherType(u16::from_be_bytes([*a, *b])).is_tag() {
            break;
        }
        at += TAG_LEN;
    }
    at
}

/// What stands from the ethertype on (2 bytes at least), if an 802.3 payload begins with LLC and an ethertype in SNAP.
fn snap_ethertype(payload: &[u8]) -> Option<&[u8]> {
    let rest = payload.strip_prefix(&LLC_SNAP)?;
    let (oui, rest) = rest.split_first_chunk::<3>()?;
    (SNAP_ETHERTYPE_OUIS.contains(oui) && rest.len() >= 2).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESSES: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    const SNAP: [u8; 6] = [0xaa, 0xaa, 0x03, 0, 0, 0];

    fn frame(parts: &[&[u8]]) -> Vec<u8> {
        let mut frame = ADDRESSES.to_vec();
        parts.iter().for_each(|part| frame.extend_from_slice(part));
        frame
    }

    #[test]
    fn finds_an_untagged_header() {
        let bytes = frame(&[&[0x08, 0x00], b"packet"]);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!(frame.destination(), Mac::from_bytes([1, 2, 3, 4, 5, 6]));
        assert_eq!(frame.source(), Mac::from_bytes([7, 8, 9, 10, 11, 12]));
        assert_eq!(frame.ethertype(), EtherType::IPV4);
        assert_eq!(frame.payload(), b"packet");
        assert!(!frame.is_tagged());
        assert_eq!(frame.tags().count(), 0);
    }

    #[test]
    fn steps_over_tags_of_every_kind() {
        let bytes = frame(&[
            &[0x88, 0xa8, 0x60, 0x05],
            &[0x91, 0x00, 0, 7],
            &[0x81, 0x00, 0, 6],
            &[0x86, 0xdd],
            b"x",
        ]);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert!(frame.is_tagged());
        let tags: Vec<Tag> = frame.tags().collect();
        assert_eq!(tags[0], Tag { tpid: EtherType::SERVICE_VLAN, tci: 0x6005 });
        assert_eq!(tags.iter().map(|tag| tag.vlan_id()).collect::<Vec<_>>(), [5, 7, 6]);
        assert_eq!((frame.ethertype(), frame.payload()), (EtherType::IPV6, &b"x"[..]));
    }

    #[test]
    fn no_depth_of_tags_hides_a_protocol() {
        let tags = [0x81, 0x00, 0, 0].repeat(300);
        let bytes = frame(&[&tags, &[0x86, 0xdd], b"x"]);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!(frame.tags().len(), 300);
        assert_eq!(frame.protocol(), (EtherType::IPV6, &b"x"[..]));
    }

    #[test]
    fn a_tag_cut_short_is_no_tag() {
        for cut in 0..4 {
            let bytes = frame(&[&[0x81, 0x00], &[0, 5, 0x08][..cut.min(3)]]);
            let frame = EthernetFrame::parse(&bytes).unwrap();
            assert!(!frame.is_tagged());
            assert_eq!(frame.ethertype(), EtherType::VLAN);
        }
    }

    #[test]
    fn a_runt_says_its_length() {
        assert_eq!(EthernetFrame::parse(&[0; 13]).unwrap_err(), Runt { len: 13 });
        assert_eq!(EthernetFrame::parse(&[]).unwrap_err(), Runt { len: 0 });
        assert!(EthernetFrame::parse(&[0; 14]).is_ok());
    }

    #[test]
    fn tells_lengths_from_types() {
        assert!(
            EtherType(0x0000).is_length() && EtherType(0x05dc).is_length() && EtherType(0x05ff).is_length()
        );
        assert!(!EtherType(0x0600).is_length());
        assert_eq!(EtherType::IPV6.to_string(), "0x86dd");
    }

    #[test]
    fn finds_ip_behind_snap_and_tags_in_any_alternation() {
        let length: [u8; 2] = [0x00, 0x40];
        let tag: [u8; 4] = [0x81, 0x00, 0, 0];
        for parts in [
            vec![&length[..], &SNAP, &[0x08, 0x00], b"ip"],
            vec![&tag[..], &length, &SNAP, &[0x08, 0x00], b"ip"],
            vec![&length[..], &SNAP, &tag, &[0x08, 0x00], b"ip"],
            vec![&length[..], &SNAP, &tag, &length, &SNAP, &[0x08, 0x00], b"ip"],
            vec![&length[..], &[0xaa, 0xaa, 0x03, 0, 0, 0xf8], &[0x08, 0x00], b"ip"],
        ] {
            let bytes = frame(&parts);
            let frame = EthernetFrame::parse(&bytes).unwrap();
            assert_eq!(frame.protocol(), (EtherType::IPV4, &b"ip"[..]));
        }
    }

    #[test]
    fn other_802_3_frames_stay_what_they_are() {
        // IPX as Novell frames it: no LLC, the packet begins with its unused checksum ff ff.
        let bytes = frame(&[&[0x00, 0x1e], &[0xff, 0xff, 0, 30]]);
        let ipx = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!(ipx.protocol(), (EtherType(30), &[0xff, 0xff, 0, 30][..]));
        let bytes = frame(&[&[0x00, 0x1e], &SNAP, &[0x08]]);
        let cut = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!(cut.protocol().0, EtherType(30));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_panic_and_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            match EthernetFrame::parse(&bytes) {
                Err(Runt { len }) => prop_assert!(len == bytes.len() && len < HEADER_LEN),
                Ok(frame) => {
                    let header = HEADER_LEN + TAG_LEN * frame.tags().len();
                    prop_assert_eq!(header + frame.payload().len(), bytes.len());
                    prop_assert!(frame.tags().all(|tag| tag.tpid.is_tag()));
                    prop_assert!(bytes.ends_with(frame.protocol().1));
                }
            }
        }

        #[test]
        fn what_is_built_is_found_again(
            tags in proptest::collection::vec((prop_oneof![Just(0x8100u16), Just(0x88a8), Just(0x9100)], any::<u16>()), 0..6),
            ethertype in any::<u16>().prop_filter("not a tag", |value| !EtherType(*value).is_tag()),
            payload in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = ADDRESSES.to_vec();
            for (tpid, tci) in &tags {
                bytes.extend_from_slice(&tpid.to_be_bytes());
                bytes.extend_from_slice(&tci.to_be_bytes());
            }
            bytes.extend_from_slice(&ethertype.to_be_bytes());
            bytes.extend_from_slice(&payload);
            let frame = EthernetFrame::parse(&bytes).unwrap();
            let found: Vec<_> = frame.tags().map(|tag| (tag.tpid.value(), tag.tci)).collect();
            prop_assert_eq!(found, tags);
            prop_assert_eq!(frame.ethertype(), EtherType(ethertype));
            prop_assert_eq!(frame.payload(), &payload[..]);
        }
    }
}
