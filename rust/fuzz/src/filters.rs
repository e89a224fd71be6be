//! The safety filters against two other readers: the reference of this crate, which must agree on everything, and `etherparse`,
//! a stranger's parser, for what is plainly a server's message or plainly not.
//!
//! Input: the frame.

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use softlan_switch::{DropReason, Filters, Role, judge};
use softlan_wire::{EthernetFrame, Mac, Runt, ethernet};

use crate::{flow::FlowHash, reference};

const CLIENT: Role = Role::Client(Mac::from_bytes([2, 0, 0, 0, 0, 1]));

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
    FlowHash::default().of(data);

    let judged = judge(&Filters::default(), CLIENT, &frame, data.len());
    assert_eq!(judged, reference::verdict(data), "the filters and their reference disagree");
    let gateway = judge(&Filters::default(), Role::Gateway, &frame, data.len());
    assert!(matches!(gateway, None | Some(DropReason::Jumbo | DropReason::SwitchControl)));
    if !matches!(judged, Some(DropReason::Jumbo | DropReason::SwitchControl)) {
        stranger(data, judged);
    }
}

/// What a strict parser reads whole must be judged by what it reads.
fn stranger(data: &[u8], judged: Option<DropReason>) {
    let Ok(packet) = SlicedPacket::from_ethernet(data) else { return };
    // MACsec, encrypted or not, is taken by none but a host that shares a key with the sender.
    if packet.link_exts.iter().any(|ext| matches!(ext, LinkExtSlice::Macsec(_))) {
        return;
    }
    let Some(net) = &packet.net else { return };
    let v6 = match net {
        NetSlice::Ipv4(_) => false,
        // A length of zero is no length to this parser; the filters believe it, and what they cannot see is suspect to them.
        NetSlice::Ipv6(ip) if ip.header().payload_length() == 0 => return,
        NetSlice::Ipv6(_) => true,
        NetSlice::Arp(_) => {
            assert_eq!(judged, None, "ARP");
            return;
        }
    };
    let expected = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => match (v6, udp.destination_port()) {
            (false, 68) => Some(DropReason::DhcpServer),
            (true, 546) => Some(DropReason::Dhcpv6Server),
            _ => None,
        },
        Some(TransportSlice::Icmpv6(icmp)) if v6 => {
            (icmp.type_u8() == 134).then_some(DropReason::RouterAdvertisement)
        }
        Some(TransportSlice::Tcp(_)) => None,
        // Fragments, and protocols that it does not read.
        _ => return,
    };
    assert_eq!(judged, expected, "a stranger reads {packet:?}");
}
