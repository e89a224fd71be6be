//! The safety filters and the marks of ECN against two other readers: the reference of this crate, which must agree on everything, and
//! `etherparse`, a stranger's parser, for what is plainly a server's message or plainly not.
//!
//! Input: the frame.

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use softlan_switch::{DropReason, Filters, Role, judge, judge_claims};
use softlan_wire::{Ecn, EthernetFrame, Mac, Runt, ecn, ethernet, mark_ce};

use crate::{flow::FlowHash, reference, source::secret};

const OWN: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 1]);
const CLIENT: Role = Role::Client(OWN);

/// Parses and judges the frame.
pub fn check(data: &[u8]) {
    let frame = match EthernetFrame::parse(data) {
        Err(Runt { len }) => {
            assert!(len == data.len() && len < ethernet::HEADER_LEN);
            return;
        }
        Ok(frame) => frame,
    };
    let header = ethernet::HEADER_LEN + ethernet::TAG_LEN * frame.tags().len();
    assert_eq!(header + frame.payload().len(), data.len());
    assert_eq!(frame.is_tagged(), frame.tags().len() > 0);
    assert!(frame.tags().all(|tag| tag.tpid.is_tag()));
    assert!(data.ends_with(frame.protocol().1));
    FlowHash::with_secret(secret(&[])).of(data);

    let judged = judge(&Filters::default(), CLIENT, &frame, data.len());
    let found = reference::find(data);
    let expected = found.verdict(&Filters::default());
    assert_eq!(judged, expected, "the filters and their reference disagree");
    let gateway = judge(&Filters::default(), Role::Gateway, &frame, data.len());
    assert!(matches!(gateway, None | Some(DropReason::Jumbo | DropReason::SwitchControl)));
    if !matches!(judged, Some(DropReason::Jumbo | DropReason::SwitchControl)) {
        stranger(data, judged);
    }
    claims(&found, &frame);
    marks(data);
}

/// What a frame claims: of a client anything but its own address is another's, of the LAN a client's.
fn claims(found: &reference::Found<'_>, frame: &EthernetFrame<'_>) {
    let (filters, protocol) = (Filters::default(), frame.protocol());
    for from_lan in [false, true] {
        let judged = judge_claims(&filters, from_lan, protocol, |claimed| (claimed == OWN) == from_lan);
        let expected = found.claims(&filters, from_lan, |claimed| (claimed == OWN.bytes()) == from_lan);
        assert_eq!(judged, expected, "the claims and their reference disagree; from a gateway: {from_lan}");
    }
}

/// A mark changes the field and what an IPv4 header's checksum takes for it, in an IP packet whose sender can be told so, and nothing else ever.
fn marks(data: &[u8]) {
    let mut marked = data.to_vec();
    let (read, bears) = (ecn(data), mark_ce(&mut marked));
    let Some((at, mask)) = reference::ecn_place(data) else {
        assert!(read.is_none() && !bears && marked == data, "{read:?}, and yet no IP packet");
        return;
    };
    // One for the field's lower bit, wherever it stands.
    let field = (data[at] & mask) / (mask / 3);
    assert_eq!(read, Some([Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce][usize::from(field)]));
    assert_eq!(bears, field != 0);
    if matches!(field, 1 | 2) {
        assert_eq!(marked[at], data[at] | mask);
        marked[at] = data[at];
        if mask == 0x03 {
            let checksum = at + 9..at + 11;
            // RFC 1071: what the header adds up to, right or wrong, stays as it was.
            let words = |frame: &[u8]| {
                let words = frame[at - 1..at + 19].chunks_exact(2);
                words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>()
            };
            let mark = u32::from((data[at] | mask) - data[at]);
            let sums = [words(data), words(&marked) + mark].map(|sum| sum % 0xffff);
            assert_eq!(sums[0], sums[1], "the checksum says something else");
            marked[checksum.clone()].copy_from_slice(&data[checksum]);
        }
    }
    assert!(marked == data, "more than a mark changed");
}

/// What a strict parser reads whole must be judged by what it reads.
fn stranger(data: &[u8], judged: Option<DropReason>) {
    let Ok(packet) = SlicedPacket::from_ethernet(data) else { return };
    // MACsec, encrypted or not, is taken by none but a host that shares a key with the sender.
    if packet.link_exts.iter().any(|ext| matches!(ext, LinkExtSlice::Macsec(_))) {
        return;
    }
    let Some(net) = &packet.net else { return };
    let (v6, hides) = match net {
        NetSlice::Ipv4(_) => (false, false),
        // A length of zero is no length to this parser; the filters believe it, and what they cannot see is suspect to them.
        NetSlice::Ipv6(ip) if ip.header().payload_length() == 0 => return,
        NetSlice::Ipv6(ip) => (true, ip.extensions().clone().into_iter().count() > reference::MAX_EXTENSIONS),
        NetSlice::Arp(_) => {
            assert_eq!(judged, None, "ARP");
            return;
        }
    };
    let found = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => match (v6, udp.destination_port()) {
            (false, 68) => Some(DropReason::DhcpServer),
            (true, 546) => Some(DropReason::Dhcpv6Server),
            _ => None,
        },
        Some(TransportSlice::Icmpv6(icmp)) if v6 => {
            [134, 137].contains(&icmp.type_u8()).then_some(DropReason::RouterAdvertisement)
        }
        Some(TransportSlice::Icmpv4(icmp)) if !v6 => {
            [5, 9].contains(&icmp.type_u8()).then_some(DropReason::RouterAdvertisement)
        }
        Some(TransportSlice::Tcp(_)) => None,
        // Fragments, and protocols that it does not read.
        _ => return,
    };
    // The stranger follows any number of extension headers; to the filters, who needs more than they follow has something to hide.
    let expected = if hides { Some(DropReason::RouterAdvertisement) } else { found };
    assert_eq!(judged, expected, "a stranger reads {packet:?}");
}
