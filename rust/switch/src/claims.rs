//! Which MAC addresses a frame's payload claims as its sender's: ARP and neighbour discovery.
//!
//! Every host of a LAN believes the address in an ARP or ND packet, not the one in the Ethernet header, so checking the
//! header alone would leave everybody's traffic open to whoever says "that is me". Addresses are judged by who owns them in
//! the room, and never compared with the Ethernet source: a LAN's proxies, VRRP routers (RFC 5798, 7.3) and access
//! points rightly send the one under the other. Which IP address belongs to whom the relay does not know.

use softlan_wire::{EtherType, Mac};

use crate::counters::DropReason;
use crate::filters::Filters;
use crate::nd::{EndsNowhere, Message, REDIRECT, SOURCE_ADDRESS, TARGET_ADDRESS};

/// Whether a frame claims an address that `is_foreign` says is not its sender's to claim. `from_lan`: it comes from a gateway.
#[inline]
pub fn judge(
    filters: &Filters,
    from_lan: bool,
    (protocol, packet): (EtherType, &[u8]),
    is_foreign: impl Fn(Mac) -> bool,
) -> Option<DropReason> {
    match protocol {
        EtherType::ARP | EtherType::RARP if filters.arp_spoof => {
            arp_sender(packet).is_some_and(is_foreign).then_some(DropReason::ArpSpoof)
        }
        EtherType::IPV6 if filters.nd_spoof => {
            nd_is_foreign(packet, from_lan, is_foreign).then_some(DropReason::NdSpoof)
        }
        _ => None,
    }
}

/// The sender's hardware address of an ARP or RARP packet (RFC 826, RFC 903): 6 bytes from the ninth on. What has hardware
/// addresses of another length is taken by no host on an Ethernet.
#[inline]
fn arp_sender(packet: &[u8]) -> Option<Mac> {
    let [_, _, _, _, hardware_len, _, _, _, sender @ ..] = packet.first_chunk::<14>()?;
    (*hardware_len == 6).then_some(Mac::from_bytes(*sender))
}

fn nd_is_foreign(packet: &[u8], from_lan: bool, is_foreign: impl Fn(Mac) -> bool) -> bool {
    let Some(message) = Message::of(packet) else { return false };
    if message.kind == REDIRECT && from_lan {
        // A router of the LAN may send a host to a player, whose address it then names (RFC 4861, 8.2).
        return false;
    }
    if message.is_fragment {
        // Whoever sends these in fragments hides the options.
        return true;
    }
    for option in message.options() {
        match option {
            Ok((SOURCE_ADDRESS | TARGET_ADDRESS, rest)) => {
                if rest.first_chunk::<6>().is_some_and(|address| is_foreign(Mac::from_bytes(*address))) {
                    return true;
                }
            }
            Ok(_) => {}
            // No host takes it; from a client there is no reason to carry it.
            Err(EndsNowhere) => return !from_lan,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inspect::ICMPV6;
    use crate::nd::{ADVERTISE_NEIGHBOUR, ADVERTISE_ROUTER, SOLICIT_NEIGHBOUR, SOLICIT_ROUTER};

    const OWN: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 2]);
    const ON: Filters = Filters::ALL;

    fn arp(hardware_len: u8, sender: Mac) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, hardware_len, 4, 0, 2];
        packet.extend(sender.bytes());
        packet.resize(28, 7);
        packet
    }

    fn option(kind: u8, address: Mac) -> Vec<u8> {
        [&[kind, 1][..], &address.bytes()].concat()
    }

    /// An ND message with options, behind the given extension headers.
    fn nd(kind: u8, chain: &[u8], options: &[u8]) -> Vec<u8> {
        let fixed = match kind {
            SOLICIT_ROUTER => 8,
            ADVERTISE_ROUTER => 16,
            REDIRECT => 40,
            _ => 24,
        };
        let mut message = vec![0; fixed];
        message[0] = kind;
        message.extend(options);
        let mut packet = vec![0; 40];
        packet[4..6].copy_from_slice(&((chain.len() + message.len()) as u16).to_be_bytes());
        packet[6] = if chain.is_empty() { ICMPV6 } else { 60 };
        packet.extend(chain);
        packet.extend(message);
        packet
    }

    fn judged(from_lan: bool, protocol: EtherType, packet: &[u8]) -> Option<DropReason> {
        judge(&ON, from_lan, (protocol, packet), |mac| if from_lan { mac == OTHER } else { mac != OWN })
    }

    #[test]
    fn arp_speaks_for_its_sender_alone() {
        for protocol in [EtherType::ARP, EtherType::RARP] {
            assert_eq!(judged(false, protocol, &arp(6, OWN)), None);
            assert_eq!(judged(false, protocol, &arp(6, OTHER)), Some(DropReason::ArpSpoof));
            assert_eq!(judged(true, protocol, &arp(6, OTHER)), Some(DropReason::ArpSpoof));
            assert_eq!(judged(true, protocol, &arp(6, OWN)), None);
        }
        // Too short for an address, or of another kind: nobody's.
        assert_eq!(judged(false, EtherType::ARP, &arp(6, OTHER)[..13]), None);
        assert_eq!(judged(false, EtherType::ARP, &arp(8, OTHER)), None);
        assert_eq!(judged(false, EtherType::IPV4, &arp(6, OTHER)), None);
        let off = Filters { arp_spoof: false, nd_spoof: false, ..ON };
        assert_eq!(judge(&off, false, (EtherType::ARP, &arp(6, OTHER)), |_| true), None);
        let hidden = nd(SOLICIT_NEIGHBOUR, &[], &option(1, OTHER));
        assert_eq!(judge(&off, false, (EtherType::IPV6, &hidden), |_| true), None);
    }

    #[test]
    fn every_nd_message_speaks_for_its_sender_alone() {
        for kind in SOLICIT_ROUTER..=REDIRECT {
            for at in [1, 2] {
                let padding = [14, 1, 0, 0, 0, 0, 0, 0]; // a nonce (RFC 3971, 5.3.2), to be stepped over
                let foreign = [&padding[..], &option(at, OTHER)].concat();
                assert_eq!(judged(false, EtherType::IPV6, &nd(kind, &[], &option(at, OWN))), None);
                assert_eq!(
                    judged(false, EtherType::IPV6, &nd(kind, &[], &foreign)),
                    Some(DropReason::NdSpoof)
                );
                let from_lan = judged(true, EtherType::IPV6, &nd(kind, &[], &foreign));
                assert_eq!(from_lan, (kind != REDIRECT).then_some(DropReason::NdSpoof));
            }
        }
        assert_eq!(judged(false, EtherType::IPV6, &nd(SOLICIT_NEIGHBOUR, &[], &[])), None);
        // An echo request is none of these, whatever it holds.
        assert_eq!(judged(false, EtherType::IPV6, &nd(128, &[], &option(1, OTHER))), None);
    }

    #[test]
    fn nothing_hides_an_option() {
        let foreign = option(2, OTHER);
        let destination_options = [ICMPV6, 0, 1, 4, 0, 0, 0, 0];
        let hidden = nd(ADVERTISE_NEIGHBOUR, &destination_options, &foreign);
        assert_eq!(judged(false, EtherType::IPV6, &hidden), Some(DropReason::NdSpoof));
        // The first fragment of a neighbour advertisement, from whomever.
        let mut fragment = nd(ADVERTISE_NEIGHBOUR, &[ICMPV6, 0, 0, 1, 0, 0, 0, 9], &[]);
        fragment[6] = 44;
        for from_lan in [false, true] {
            assert_eq!(judged(from_lan, EtherType::IPV6, &fragment), Some(DropReason::NdSpoof));
        }
        // Options that end nowhere: a client has no reason for them, and no host of the LAN takes them.
        for broken in [&[14, 0][..], &[14, 2, 0, 0, 0, 0, 0, 0], &[1, 1, 2, 0]] {
            let packet = nd(SOLICIT_NEIGHBOUR, &[], broken);
            assert_eq!(judged(false, EtherType::IPV6, &packet), Some(DropReason::NdSpoof));
            assert_eq!(judged(true, EtherType::IPV6, &packet), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(
            packet in proptest::collection::vec(prop_oneof![Just(0u8), Just(58), Just(135), any::<u8>()], 0..120),
            from_lan: bool,
        ) {
            for protocol in [EtherType::ARP, EtherType::RARP, EtherType::IPV6] {
                judged(from_lan, protocol, &packet);
            }
        }

        /// A foreign address is found behind any other options.
        #[test]
        fn a_foreign_option_is_found_behind_any_others(lens in proptest::collection::vec((3u8..200, 1u8..5), 0..8)) {
            let mut options = Vec::new();
            for (kind, units) in lens {
                options.extend([kind, units]);
                options.resize(options.len() + usize::from(units) * 8 - 2, 0xee);
            }
            options.extend(option(1, OTHER));
            prop_assert_eq!(judged(false, EtherType::IPV6, &nd(SOLICIT_NEIGHBOUR, &[], &options)), Some(DropReason::NdSpoof));
        }
    }
}
