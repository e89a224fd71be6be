//! Looks into IP packets for what only a LAN's servers and routers may say: DHCP and DHCPv6 server messages, router
//! advertisements, redirects.
//!
//! The receiver of a packet is lenient, so the reader here is suspicious: it follows the header chain as a host would, believes
//! no byte beyond the packet's own length (padding could fake the ports that the next fragment brings), and reports a
//! chain that ends before the answer is known.

use softlan_wire::EtherType;

use crate::nd::{ADVERTISE_ROUTER, REDIRECT};

/// What a packet is, or may hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// IPv4 UDP to the DHCP client port, or UDP cut before its ports.
    DhcpServer,
    /// IPv6 UDP to the DHCPv6 client port, or UDP cut before its ports.
    Dhcpv6Server,
    /// A router's advertisement or redirect by ICMP or ICMPv6, or one of these cut before its type.
    Router,
    /// An IPv6 packet whose header chain ends before the protocol is known.
    CutIpv6,
}

/// ICMP's number as a protocol (RFC 792).
const ICMP: u8 = 1;
const PROTOCOL_UDP: u8 = 17;
/// ICMPv6's number as a next header (RFC 4443, 2.1).
pub(crate) const ICMPV6: u8 = 58;
/// The UDP port at which DHCP clients listen (RFC 2131, 4.1), to servers and relay agents alone. A server answers from port 67, but
/// no client looks at that.
const DHCP_CLIENT_PORT: u16 = 68;
/// The UDP port at which DHCPv6 clients listen (RFC 8415, 7.2), whatever port a server answers from.
const DHCPV6_CLIENT_PORT: u16 = 546;
/// ICMP types by which routers tell hosts about routers: redirects (RFC 792), router advertisements (RFC 1256, 3).
const ICMP_REDIRECT: u8 = 5;
const ICMP_ADVERTISE_ROUTER: u8 = 9;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
/// Extension headers followed at most. RFC 8200 (4.1) knows seven occurrences in a sane packet; more is somebody hiding.
const MAX_EXTENSIONS: usize = 16;

/// What there is to suspect about the packet of a client.
#[inline]
pub(crate) fn inspect(protocol: EtherType, packet: &[u8]) -> Option<Suspect> {
    match protocol {
        EtherType::IPV4 => inspect_ipv4(packet),
        EtherType::IPV6 => inspect_ipv6(packet),
        _ => None,
    }
}

/// IPv4 (RFC 791, 3.1). A packet too short to have a protocol is taken by no host and passes.
#[inline]
fn inspect_ipv4(packet: &[u8]) -> Option<Suspect> {
    let suspect = match *packet.get(9)? {
        PROTOCOL_UDP => Suspect::DhcpServer,
        ICMP => Suspect::Router,
        _ => return None,
    };
    let Some(&[version_ihl, _, len_high, len_low, _, _, fragment_high, fragment_low, ..]) =
        packet.first_chunk::<IPV4_HEADER_LEN>()
    else {
        return Some(suspect);
    };
    match u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff {
        0 => {}
        // 8 bytes into the datagram: no sender cuts there, and a lenient reassembly might let it overlap the UDP header
        // (RFC 1858, 3.2.2 and RFC 3128 drop the same).
        1 => return Some(suspect),
        // A later fragment has neither ports nor type, and is nothing without the first one, which is judged by its own.
        _ => return None,
    }
    let total_len = usize::from(u16::from_be_bytes([len_high, len_low]));
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    let payload = packet.get(header_len..total_len.min(packet.len())).unwrap_or_default();
    // Without its ports or type it is a first fragment too short for them (RFC 1858, 3), or a packet cut short.
    let is_it = if suspect == Suspect::Router {
        payload.first().is_none_or(|kind| matches!(*kind, ICMP_REDIRECT | ICMP_ADVERTISE_ROUTER))
    } else {
        destination_port(payload).is_none_or(|port| port == DHCP_CLIENT_PORT)
    };
    is_it.then_some(suspect)
}

/// IPv6, as RFC 7113 asks of a router advertisement guard: the chain is followed to its end whatever stands in it, and a
/// packet that does not show it whole is suspect.
#[inline]
fn inspect_ipv6(packet: &[u8]) -> Option<Suspect> {
    match upper_layer(packet) {
        Upper::Protocol { number: ICMPV6, payload, .. } => {
            (payload.first().is_none_or(|kind| matches!(*kind, ADVERTISE_ROUTER | REDIRECT)))
                .then_some(Suspect::Router)
        }
        Upper::Protocol { number: PROTOCOL_UDP, payload, .. } => destination_port(payload)
            .is_none_or(|port| port == DHCPV6_CLIENT_PORT)
            .then_some(Suspect::Dhcpv6Server),
        // TCP, no next header (59), encrypted (50), whatever: nothing that is looked for. A later fragment is nothing
        // without the first one, which must show the whole chain (RFC 7112) and is judged.
        Upper::Protocol { .. } | Upper::LaterFragment => None,
        Upper::Cut => Some(Suspect::CutIpv6),
    }
}

/// What the header chain of an IPv6 packet leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upper<'a> {
    /// A protocol that is no extension header, and what it carries; in the first of several fragments as much as is there.
    Protocol {
        /// The protocol's number.
        number: u8,
        /// What follows, within the packet's own length.
        payload: &'a [u8],
        /// Whether the chain has a fragment header.
        is_fragment: bool,
    },
    /// A fragment that is not the first.
    LaterFragment,
    /// The chain ends before the protocol is known, or never.
    Cut,
}

/// Follows the extension headers of an IPv6 packet (RFC 8200).
#[inline]
pub(crate) fn upper_layer(packet: &[u8]) -> Upper<'_> {
    let Some((header, rest)) = packet.split_first_chunk::<IPV6_HEADER_LEN>() else {
        return Upper::Cut;
    };
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut rest = &rest[..payload_len.min(rest.len())];
    let mut next = header[6];
    let mut is_fragment = false;
    // One more turn than extensions, for what they lead to.
    for _ in 0..=MAX_EXTENSIONS {
        let len = match next {
            // Hop-by-hop, routing, destination options (RFC 8200, 4), mobility (RFC 6275), HIP (RFC 7401), shim6 (RFC 5533) and
            // the two for experiments (RFC 3692): all begin with the next header and their length in 8 bytes, the first not
            // counted (RFC 6564; RFC 7045 lists them).
            0 | 43 | 60 | 135 | 139 | 140 | 253 | 254 => {
                rest.get(1).map(|units| (usize::from(*units) + 1) * 8)
            }
            // Authentication header: length in 4 bytes, the first two not counted (RFC 4302, 2.2).
            51 => rest.get(1).map(|units| (usize::from(*units) + 2) * 4),
            44 => match rest.first_chunk::<8>() {
                Some(fragment) if u16::from_be_bytes([fragment[2], fragment[3]]) >> 3 != 0 => {
                    return Upper::LaterFragment;
                }
                Some(_) => {
                    is_fragment = true;
                    Some(8)
                }
                None => None,
            },
            number => return Upper::Protocol { number, payload: rest, is_fragment },
        };
        let Some((extension, behind)) = len.and_then(|len| rest.split_at_checked(len)) else {
            return Upper::Cut;
        };
        next = extension[0];
        rest = behind;
    }
    Upper::Cut
}

/// The destination port of a UDP datagram (RFC 768), if it is there.
#[inline]
fn destination_port(udp: &[u8]) -> Option<u16> {
    let &[_, _, high, low] = udp.first_chunk::<4>()?;
    Some(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UDP: u8 = PROTOCOL_UDP;
    const ICMPV6: u8 = 58;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;

    fn udp((source, destination): (u16, u16), payload: usize) -> Vec<u8> {
        let mut udp =
            [source.to_be_bytes(), destination.to_be_bytes(), [0, 8 + payload as u8], [0, 0]].concat();
        udp.resize(8 + payload, 0x55);
        udp
    }

    /// `fragment` holds the flags and, in units of 8 bytes, the offset.
    fn ipv4(protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + options;
        let mut packet = vec![0; header_len];
        packet[0] = 0x40 | (header_len / 4) as u8;
        packet[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet.extend_from_slice(payload);
        packet
    }

    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = next;
        packet.extend_from_slice(payload);
        packet
    }

    /// An extension header of a kind, `units` longer than the shortest, and what follows it.
    fn extension(kind: u8, units: u8, next: u8, rest: &[u8]) -> (u8, Vec<u8>) {
        let (units, len) = match kind {
            FRAGMENT => (0, 8),
            AUTHENTICATION => (units + 1, (usize::from(units) + 3) * 4),
            _ => (units, (usize::from(units) + 1) * 8),
        };
        let mut header = vec![0; len];
        header[..2].copy_from_slice(&[next, units]);
        header.extend_from_slice(rest);
        (kind, header)
    }

    fn router_advertisement() -> Vec<u8> {
        [&[ADVERTISE_ROUTER, 0][..], &[0; 14]].concat()
    }

    fn redirect() -> Vec<u8> {
        [&[REDIRECT, 0][..], &[0; 38]].concat()
    }

    fn v4(packet: &[u8]) -> Option<Suspect> {
        inspect(EtherType::IPV4, packet)
    }

    fn v6(packet: &[u8]) -> Option<Suspect> {
        inspect(EtherType::IPV6, packet)
    }

    #[test]
    fn dhcp_servers_show_and_dhcp_clients_do_not() {
        assert_eq!(v4(&ipv4(UDP, 0, 0, &udp((67, 68), 9))), Some(Suspect::DhcpServer));
        assert_eq!(v4(&ipv4(UDP, 40, 0x4000, &udp((67, 68), 9))), Some(Suspect::DhcpServer));
        // A client takes an offer from any port (4011 is that of PXE's boot servers).
        for source in [0, 68, 1024, 4011] {
            assert_eq!(v4(&ipv4(UDP, 0, 0, &udp((source, 68), 9))), Some(Suspect::DhcpServer));
        }
        assert_eq!(v4(&ipv4(UDP, 0, 0, &udp((68, 67), 9))), None);
        assert_eq!(v4(&ipv4(UDP, 40, 0, &udp((68, 67), 9))), None);
        assert_eq!(v4(&ipv4(6, 0, 0, &udp((67, 68), 9))), None);
        // The same bytes mean something only as IPv4.
        assert_eq!(inspect(EtherType::ARP, &ipv4(UDP, 0, 0, &udp((67, 68), 9))), None);
    }

    #[test]
    fn what_ipv4_routers_say_shows() {
        for kind in 0..=u8::MAX {
            let expected = matches!(kind, 5 | 9).then_some(Suspect::Router);
            assert_eq!(v4(&ipv4(ICMP, 0, 0, &[kind, 1, 0, 0, 10, 0, 0, 66])), expected, "ICMP {kind}");
            assert_eq!(v4(&ipv4(ICMP, 40, 0x2000, &[kind, 1, 0, 0, 10, 0, 0, 66])), expected, "ICMP {kind}");
        }
        // Cut before the type, or where nobody cuts.
        assert_eq!(v4(&ipv4(ICMP, 0, 0x2000, &[])), Some(Suspect::Router));
        assert_eq!(v4(&ipv4(ICMP, 0, 1, &[0; 8])), Some(Suspect::Router));
        assert_eq!(v4(&ipv4(ICMP, 0, 185, &[5; 8])), None);
    }

    #[test]
    fn a_first_ipv4_fragment_is_judged_by_its_ports() {
        let more = 0x2000;
        assert_eq!(v4(&ipv4(UDP, 0, more, &udp((67, 68), 8))), Some(Suspect::DhcpServer));
        assert_eq!(v4(&ipv4(UDP, 0, more, &udp((5000, 5001), 8))), None);
        assert_eq!(v4(&ipv4(UDP, 0, more, &[0, 67])), Some(Suspect::DhcpServer));
        assert_eq!(v4(&ipv4(UDP, 0, more, &[])), Some(Suspect::DhcpServer));
        assert_eq!(v4(&ipv4(6, 0, more, &[])), None);
    }

    #[test]
    fn later_ipv4_fragments_pass_unless_they_could_overlap() {
        assert_eq!(v4(&ipv4(UDP, 0, 185, &udp((67, 68), 8))), None);
        assert_eq!(v4(&ipv4(UDP, 0, 0x2000 | 2, &udp((67, 68), 8))), None);
        assert_eq!(v4(&ipv4(UDP, 0, 1, &udp((9, 9), 8))), Some(Suspect::DhcpServer));
        assert_eq!(v4(&ipv4(6, 0, 1, &udp((9, 9), 8))), None);
    }

    #[test]
    fn padding_is_not_believed() {
        // The packet ends before the ports; innocent ones stand in the padding behind it.
        let mut packet = ipv4(UDP, 0, 0x2000, &[]);
        packet.extend(udp((5000, 5001), 8));
        assert_eq!(v4(&packet), Some(Suspect::DhcpServer));
        let mut packet = ipv6(FRAGMENT, &extension(FRAGMENT, 0, 60, &[]).1);
        packet.extend(extension(60, 0, 59, &[]).1);
        assert_eq!(v6(&packet), Some(Suspect::CutIpv6));
    }

    #[test]
    fn ipv6_servers_and_routers_show() {
        assert_eq!(v6(&ipv6(ICMPV6, &router_advertisement())), Some(Suspect::Router));
        assert_eq!(v6(&ipv6(ICMPV6, &redirect())), Some(Suspect::Router));
        assert_eq!(v6(&ipv6(UDP, &udp((547, 546), 4))), Some(Suspect::Dhcpv6Server));
        for source in [0, 546, 1024] {
            assert_eq!(v6(&ipv6(UDP, &udp((source, 546), 4))), Some(Suspect::Dhcpv6Server));
        }
        assert_eq!(v6(&ipv6(UDP, &udp((546, 547), 4))), None);
        for harmless in [128, 129, 133, 135, 136, 143] {
            assert_eq!(v6(&ipv6(ICMPV6, &[harmless, 0, 0, 0])), None, "ICMPv6 {harmless}");
        }
        assert_eq!(v6(&ipv6(6, &[])), None);
        assert_eq!(v6(&ipv6(59, &[])), None);
    }

    #[test]
    fn ipv6_cut_before_the_answer_is_suspect() {
        assert_eq!(v6(&[0x60; 39]), Some(Suspect::CutIpv6));
        assert_eq!(v6(&ipv6(ICMPV6, &[])), Some(Suspect::Router));
        assert_eq!(v6(&ipv6(UDP, &[2, 35, 2])), Some(Suspect::Dhcpv6Server));
        assert_eq!(v6(&ipv6(0, &[])), Some(Suspect::CutIpv6));
        assert_eq!(v6(&ipv6(0, &[ICMPV6, 1, 0, 0, 0, 0, 0, 0])), Some(Suspect::CutIpv6));
    }

    #[test]
    fn later_ipv6_fragments_pass() {
        for message in [router_advertisement(), redirect()] {
            let (kind, mut fragment) = extension(FRAGMENT, 0, ICMPV6, &message);
            fragment[3] = 1; // more fragments, offset 0
            assert_eq!(v6(&ipv6(kind, &fragment)), Some(Suspect::Router));
            fragment[3] = 8; // offset 8 bytes
            assert_eq!(v6(&ipv6(kind, &fragment)), None);
        }
    }

    #[test]
    fn more_extensions_than_anyone_needs_are_suspect() {
        for (count, expected) in [(MAX_EXTENSIONS, None), (MAX_EXTENSIONS + 1, Some(Suspect::CutIpv6))] {
            let (first, chain) =
                (0..count).fold((6, vec![0; 20]), |(next, rest), _| extension(60, 0, next, &rest));
            assert_eq!(v6(&ipv6(first, &chain)), expected);
        }
    }

    fn chain() -> impl Strategy<Value = Vec<(u8, u8)>> {
        let kind =
            proptest::sample::select(vec![0, 43, 60, 135, 139, 140, 253, 254, FRAGMENT, AUTHENTICATION]);
        proptest::collection::vec((kind, 0u8..4), 0..=MAX_EXTENSIONS)
    }

    fn behind(chain: &[(u8, u8)], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (first, payload) =
            chain.iter().rev().fold((protocol, payload.to_vec()), |(next, rest), (kind, units)| {
                extension(*kind, *units, next, &rest)
            });
        ipv6(first, &payload)
    }

    proptest! {
        #[test]
        fn any_bytes_are_inspected_without_a_panic(
            packet in proptest::collection::vec(prop_oneof![Just(0u8), Just(44), Just(60), any::<u8>()], 0..120),
        ) {
            for protocol in [EtherType::IPV4, EtherType::IPV6, EtherType::ARP] {
                inspect(protocol, &packet);
            }
        }

        #[test]
        fn no_chain_of_extensions_hides_anything(chain in chain()) {
            for message in [router_advertisement(), redirect()] {
                prop_assert_eq!(v6(&behind(&chain, ICMPV6, &message)), Some(Suspect::Router));
            }
            let dhcp = behind(&chain, UDP, &udp((547, 546), 4));
            prop_assert_eq!(v6(&dhcp), Some(Suspect::Dhcpv6Server));
            prop_assert_eq!(v6(&behind(&chain, UDP, &udp((5353, 5353), 4))), None);
            prop_assert_eq!(v6(&behind(&chain, 6, &[0; 20])), None);
        }

        /// Cut anywhere, by the frame's end or by the packet's own length, a forbidden packet stays suspect.
        #[test]
        fn no_cut_hides_anything(chain in chain(), cut: prop::sample::Index, by_length: bool) {
            for (protocol, message) in [(ICMPV6, router_advertisement()), (ICMPV6, redirect()), (UDP, udp((547, 546), 4))] {
                let whole = behind(&chain, protocol, &message);
                let mut packet = whole.clone();
                let len = cut.index(whole.len() - 40) + 40;
                if by_length {
                    packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
                } else {
                    packet.truncate(len);
                }
                prop_assert!(v6(&packet).is_some());
            }
            for (protocol, message) in [(UDP, udp((67, 68), 4)), (ICMP, vec![5, 1, 0, 0, 10, 0, 0, 66])] {
                let whole = ipv4(protocol, 4 * (chain.len() % 11), 0, &message);
                prop_assert!(v4(&whole[..10 + cut.index(whole.len() - 10)]).is_some());
            }
        }

        /// Fragmented at any place, the first fragment of a forbidden packet is suspect.
        #[test]
        fn no_fragmentation_hides_anything(chain in chain(), cut: prop::sample::Index, options in 0usize..=10) {
            for (protocol, payload) in [(ICMPV6, router_advertisement()), (ICMPV6, redirect()), (UDP, udp((547, 546), 16))] {
                let whole = behind(&chain, protocol, &payload);
                let part = &whole[40..][..8 * cut.index((whole.len() - 40) / 8)];
                let (kind, mut fragment) = extension(FRAGMENT, 0, whole[6], part);
                fragment[3] = 1;
                prop_assert!(v6(&ipv6(kind, &fragment)).is_some());
            }
            let datagram = udp((67, 68), 32);
            let part = &datagram[..8 * cut.index(datagram.len() / 8)];
            prop_assert!(v4(&ipv4(UDP, options * 4, 0x2000, part)).is_some());
        }
    }
}
