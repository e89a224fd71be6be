//! Notices when two peers claim one IP address: two players who set the same one, or one who answers for another's to listen in.
//!
//! Nothing is dropped for it. Whose an address is cannot be known here: leases move, players set addresses by hand, and routers rightly
//! answer for others; cutting off the wrong one would do the attacker's work. So it is told, and people judge.
//!
//! A claim is what hosts remember somebody by: an ARP packet's sender address (RFC 826), a neighbour advertisement's target (RFC 4861, 4.4),
//! the source address of a solicitation or a router's advertisement that says its sender's link-layer address beside it. Probes for an
//! address that is not in use yet claim nothing (RFC 5227, 2.1.1: their sender is 0.0.0.0; RFC 4862, 5.4.2: their source is ::). One
//! peer's claim after another's is a lease that moved; that the first then claims it again is a conflict. Stations behind one gateway are
//! one peer: what they settle is their LAN's affair.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use softlan_wire::{EtherType, PeerId};

use crate::events::{EventQueue, SwitchEvent};
use crate::nd::{
    ADVERTISE_NEIGHBOUR, ADVERTISE_ROUTER, Message, SOLICIT_NEIGHBOUR, SOLICIT_ROUTER, SOURCE_ADDRESS,
};

/// Claims by two peers belong together within this time: hosts ask for each other at least so often while they talk
/// (RFC 1122, 2.3.2.1: a minute is a usual age in an ARP cache). A conflict without a claim for so long is over.
const TOGETHER: Duration = Duration::from_secs(60);
/// Addresses remembered of one peer: far more than a player's machine has, so that who makes them up crowds out nobody else's.
const ADDRESSES_OF_ONE: usize = 16;
/// Addresses remembered of a gateway: the hosts of its LAN.
const ADDRESSES_OF_LAN: usize = 1024;
/// Conflicts told at once; of two peers one at a time.
const CONFLICTS: usize = 16;

/// What an ARP packet for IPv4 has between its hardware type and its operation: protocol, lengths of the two addresses (RFC 826).
const ARP_FOR_IPV4: [u8; 4] = [8, 0, 6, 4];
/// Hardware types that hosts take on an Ethernet: Ethernet, and IEEE 802 networks (IANA, "Hardware Types"; RFC 1042).
const ARP_ETHERNET: [u8; 2] = [0, 1];
const ARP_IEEE_802: [u8; 2] = [0, 6];

/// The address a packet claims for its sender.
#[inline]
pub(crate) fn claimed((protocol, packet): (EtherType, &[u8])) -> Option<IpAddr> {
    match protocol {
        EtherType::ARP => arp_claim(packet),
        EtherType::IPV6 => nd_claim(packet),
        _ => None,
    }
}

fn arp_claim(packet: &[u8]) -> Option<IpAddr> {
    let (hardware, packet) = packet.split_first_chunk::<2>()?;
    let packet = packet.first_chunk::<16>()?;
    if ![ARP_ETHERNET, ARP_IEEE_802].contains(hardware) || !packet.starts_with(&ARP_FOR_IPV4) {
        return None;
    }
    let [.., a, b, c, d] = *packet;
    let address = Ipv4Addr::new(a, b, c, d);
    (!address.is_unspecified() && !address.is_multicast() && !address.is_broadcast())
        .then_some(address.into())
}

#[inline]
fn nd_claim(packet: &[u8]) -> Option<IpAddr> {
    let message = Message::of(packet)?;
    let header = packet.first_chunk::<40>()?;
    // A hop limit below 255 has been through a router, and no host takes it (RFC 4861, 7.1.2).
    if header[7] != 255 || message.is_fragment {
        return None;
    }
    let address = match message.kind {
        ADVERTISE_NEIGHBOUR => message.bytes.get(8..)?,
        // Whoever hears these remembers the address beside the option (RFC 4861, 6.2.6, 6.3.4 and 7.2.3).
        SOLICIT_ROUTER | ADVERTISE_ROUTER | SOLICIT_NEIGHBOUR if has_source_address(message) => &header[8..],
        _ => return None,
    };
    let address = Ipv6Addr::from(*address.first_chunk::<16>()?);
    (!address.is_unspecified() && !address.is_multicast()).then_some(address.into())
}

fn has_source_address(message: Message<'_>) -> bool {
    message.options().any(|option| matches!(option, Ok((SOURCE_ADDRESS, _))))
}

/// Who claimed an address first, and who else has since.
#[derive(Clone, Copy, Debug)]
struct Claim {
    holder: PeerId,
    last: Duration,
    other: Option<(PeerId, Duration)>,
}

#[derive(Clone, Copy, Debug)]
struct Conflict {
    peers: (PeerId, PeerId),
    last: Duration,
}

/// The addresses of a room as its peers claim them, and the conflicts among them.
#[derive(Debug, Default)]
pub(crate) struct Conflicts {
    /// With the standard library's keyed hash: whoever claims addresses chooses them.
    claims: HashMap<IpAddr, Claim>,
    /// How many of them each peer holds.
    held: HashMap<PeerId, usize>,
    told: Vec<Conflict>,
    /// When old claims were thrown out last.
    swept: Duration,
}

impl Conflicts {
    /// Notes that a peer claims an address. `is_lan`: it is a gateway.
    #[cold]
    pub(crate) fn hear(
        &mut self,
        now: Duration,
        peer: PeerId,
        is_lan: bool,
        address: IpAddr,
        events: &mut EventQueue,
    ) {
        let Some(claim) = self.claims.get_mut(&address) else {
            return self.remember(now, peer, is_lan, address);
        };
        if claim.holder != peer {
            if now.saturating_sub(claim.last) > TOGETHER {
                // Whoever had it has not been heard with it for long: it has moved.
                let former = claim.holder;
                self.let_go(former, address);
                self.remember(now, peer, is_lan, address);
            } else if claim
                .other
                .is_none_or(|(known, last)| known == peer || now.saturating_sub(last) > TOGETHER)
            {
                claim.other = Some((peer, now));
            }
            return;
        }
        claim.last = now;
        if let Some((other, _)) = claim.other.filter(|(_, last)| now.saturating_sub(*last) <= TOGETHER) {
            self.found(now, (peer.min(other), peer.max(other)), address, events);
        }
    }

    fn found(&mut self, now: Duration, peers: (PeerId, PeerId), address: IpAddr, events: &mut EventQueue) {
        if let Some(known) = self.told.iter_mut().find(|known| known.peers == peers) {
            known.last = now;
        } else if self.told.len() < CONFLICTS {
            self.told.push(Conflict { peers, last: now });
            events.push(SwitchEvent::AddressConflict { peers, address });
        }
    }

    fn remember(&mut self, now: Duration, peer: PeerId, is_lan: bool, address: IpAddr) {
        let most = if is_lan { ADDRESSES_OF_LAN } else { ADDRESSES_OF_ONE };
        if self.held.get(&peer).is_some_and(|held| *held >= most) {
            // Looking for old ones costs a walk through all; not for each address that somebody makes up.
            if now.saturating_sub(self.swept) < TOGETHER {
                return;
            }
            self.sweep(now);
            if self.held.get(&peer).is_some_and(|held| *held >= most) {
                return;
            }
        }
        self.claims.insert(address, Claim { holder: peer, last: now, other: None });
        *self.held.entry(peer).or_default() += 1;
    }

    fn let_go(&mut self, holder: PeerId, address: IpAddr) {
        self.claims.remove(&address);
        self.held.entry(holder).and_modify(|held| *held = held.saturating_sub(1));
    }

    fn sweep(&mut self, now: Duration) {
        self.swept = now;
        self.keep(|claim| now.saturating_sub(claim.last) <= TOGETHER);
    }

    fn keep(&mut self, is_kept: impl Fn(&Claim) -> bool) {
        self.held.clear();
        let held = &mut self.held;
        self.claims.retain(|_, claim| {
            let stays = is_kept(claim);
            if stays {
                *held.entry(claim.holder).or_default() += 1;
            }
            stays
        });
    }

    /// Ends the conflicts that nobody has renewed for long enough.
    pub(crate) fn settle(&mut self, now: Duration, events: &mut EventQueue) {
        self.end(events, |known| now.saturating_sub(known.last) >= TOGETHER);
    }

    /// Forgets a peer that has left.
    pub(crate) fn forget(&mut self, peer: PeerId, events: &mut EventQueue) {
        self.keep(|claim| claim.holder != peer);
        for claim in self.claims.values_mut() {
            claim.other = claim.other.filter(|(other, _)| *other != peer);
        }
        self.end(events, |known| known.peers.0 == peer || known.peers.1 == peer);
    }

    fn end(&mut self, events: &mut EventQueue, is_over: impl Fn(&Conflict) -> bool) {
        self.told.retain(|known| {
            let is_over = is_over(known);
            if is_over {
                events.push(SwitchEvent::AddressSettled { peers: known.peers });
            }
            !is_over
        });
    }

    /// Whether a conflict was told and is not over.
    pub(crate) const fn is_on(&self) -> bool {
        !self.told.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inspect::ICMPV6;

    const ANN: u16 = 1;
    const BEN: u16 = 2;
    const LAN: u16 = 9;

    fn peer(value: u16) -> PeerId {
        PeerId::new(value).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 88, last])
    }

    fn arp(operation: u8, sender: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1];
        packet.extend(sender);
        packet.resize(46, 0);
        packet
    }

    /// An IPv6 packet from an address.
    fn ipv6(source: Ipv6Addr, (hop_limit, next): (u8, u8), payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, hop_limit];
        packet.extend(source.octets());
        packet.extend([0xff; 16]);
        packet.extend(payload);
        packet
    }

    fn advertisement(hop_limit: u8, kind: u8, target: Ipv6Addr) -> Vec<u8> {
        let message = [&[kind, 0, 0, 0, 0x60, 0, 0, 0][..], &target.octets()].concat();
        ipv6(Ipv6Addr::UNSPECIFIED, (hop_limit, ICMPV6), &message)
    }

    /// A message of this kind from an address, with `fixed` bytes before an option of that kind.
    fn with_option(kind: u8, fixed: usize, source: Ipv6Addr, option: u8) -> Vec<u8> {
        let mut message = vec![0; fixed];
        message[0] = kind;
        message.extend([14, 1, 0, 0, 0, 0, 0, 0]); // a nonce (RFC 3971, 5.3.2), to be stepped over
        message.extend([option, 1, 2, 0, 0, 0, 0, 1]);
        ipv6(source, (255, ICMPV6), &message)
    }

    #[derive(Default)]
    struct Room(Conflicts, EventQueue);

    impl Room {
        fn claim(&mut self, seconds: u64, who: u16, last: u8) -> Vec<SwitchEvent> {
            self.0.hear(at(seconds), peer(who), who == LAN, address(last), &mut self.1);
            self.1.take()
        }

        fn settle(&mut self, seconds: u64) -> Vec<SwitchEvent> {
            self.0.settle(at(seconds), &mut self.1);
            self.1.take()
        }
    }

    fn conflict(one: u16, other: u16, last: u8) -> Vec<SwitchEvent> {
        vec![SwitchEvent::AddressConflict { peers: (peer(one), peer(other)), address: address(last) }]
    }

    fn settled(one: u16, other: u16) -> Vec<SwitchEvent> {
        vec![SwitchEvent::AddressSettled { peers: (peer(one), peer(other)) }]
    }

    #[test]
    fn what_claims_an_address() {
        let claim = |packet: &[u8]| claimed((EtherType::ARP, packet));
        for operation in [1, 2] {
            assert_eq!(claim(&arp(operation, [192, 168, 88, 7])), Some(address(7)));
        }
        // A probe, and what no host has for its own.
        for nobodys in [[0; 4], [255; 4], [224, 0, 0, 251]] {
            assert_eq!(claim(&arp(1, nobodys)), None);
        }
        assert_eq!(claim(&arp(1, [192, 168, 88, 7])[..17]), None);
        assert_eq!(claimed((EtherType::IPV4, &arp(1, [192, 168, 88, 7]))), None);
        let host: Ipv6Addr = "fe80::7".parse().unwrap();
        let advertised = |packet: &[u8]| claimed((EtherType::IPV6, packet));
        assert_eq!(advertised(&advertisement(255, 136, host)), Some(host.into()));
        assert_eq!(advertised(&advertisement(254, 136, host)), None);
        assert_eq!(advertised(&advertisement(255, 135, host)), None);
        assert_eq!(advertised(&advertisement(255, 136, "ff02::1".parse().unwrap())), None);
        assert_eq!(advertised(&advertisement(255, 136, host)[..63]), None);
    }

    /// What hosts believe as well, and who wants to be believed may choose.
    #[test]
    fn no_other_form_of_a_claim_goes_unnoticed() {
        // ARP of IEEE 802 networks, which Ethernet hosts take (RFC 1042; Linux, `arp_process`).
        let mut packet = arp(2, [192, 168, 88, 7]);
        for (kind, claim) in [(1, Some(address(7))), (6, Some(address(7))), (15, None)] {
            packet[1] = kind;
            assert_eq!(claimed((EtherType::ARP, &packet)), claim, "hardware type {kind}");
        }
        let host: Ipv6Addr = "fe80::7".parse().unwrap();
        let heard = |packet: &[u8]| claimed((EtherType::IPV6, packet));
        // Behind extension headers.
        let plain = advertisement(255, 136, host);
        let behind = |next: u8| [&[ICMPV6, 0, next, 0, 0, 0, 0, 0][..], &plain[40..]].concat();
        assert_eq!(heard(&ipv6(host, (255, 60), &behind(1))), Some(host.into()));
        // In a fragment no host takes it (RFC 6980).
        assert_eq!(heard(&ipv6(host, (255, 44), &behind(0))), None);
        // By one's own link-layer address beside somebody's source address: in solicitations, and a router's advertisement.
        for (kind, fixed) in [(133, 8), (134, 16), (135, 24)] {
            assert_eq!(heard(&with_option(kind, fixed, host, 1)), Some(host.into()), "ICMPv6 {kind}");
            assert_eq!(heard(&with_option(kind, fixed, host, 2)), None, "ICMPv6 {kind}");
            // Detection of duplicates: it asks whether the address is free (RFC 4862, 5.4.2).
            assert_eq!(heard(&with_option(kind, fixed, Ipv6Addr::UNSPECIFIED, 1)), None);
        }
        // A redirect is a router's to say, and its source is the router's that the host knows.
        assert_eq!(heard(&with_option(137, 40, host, 1)), None);
        // A solicitation without the option is nothing that anybody remembers.
        assert_eq!(heard(&with_option(135, 24, host, 14)), None);
    }

    #[test]
    fn two_who_keep_claiming_one_address_are_told_once_until_one_stops() {
        let mut room = Room::default();
        assert_eq!([room.claim(0, ANN, 7), room.claim(1, BEN, 7)], [vec![], vec![]]);
        assert!(!room.0.is_on());
        assert_eq!(room.claim(2, ANN, 7), conflict(ANN, BEN, 7));
        for second in 3..50 {
            assert_eq!([room.claim(second, BEN, 7), room.claim(second, ANN, 7)], [vec![], vec![]]);
        }
        // Of the same two another address is not told beside the first.
        room.claim(50, ANN, 8);
        room.claim(51, BEN, 8);
        assert_eq!(room.claim(52, ANN, 8), []);
        assert_eq!(room.settle(111), []);
        assert_eq!(room.settle(112), settled(ANN, BEN));
        assert!(!room.0.is_on());
        assert_eq!(room.settle(1000), []);
    }

    #[test]
    fn a_lease_that_moves_is_no_conflict() {
        let mut room = Room::default();
        for second in 0..100 {
            assert_eq!(room.claim(second, ANN, 7), []);
        }
        for second in 100..1000 {
            assert_eq!(room.claim(second, BEN, 7), []);
        }
        // And back, as long after.
        for second in 1061..1200 {
            assert_eq!(room.claim(second, ANN, 7), []);
        }
        assert_eq!(room.claim(1200, BEN, 7), []);
        assert_eq!(room.claim(1261, ANN, 7), [], "Ben said it once, and long ago");
    }

    #[test]
    fn the_lan_is_one_and_can_be_in_conflict_with_a_player() {
        let mut room = Room::default();
        for second in 0..10 {
            assert_eq!(room.claim(second, LAN, 1), []);
        }
        assert_eq!(room.claim(10, ANN, 1), []);
        assert_eq!(room.claim(11, LAN, 1), conflict(ANN, LAN, 1));
        // Whoever leaves ends it, and what is said afterwards begins anew.
        room.0.forget(peer(ANN), &mut room.1);
        assert_eq!(room.1.take(), settled(ANN, LAN));
        assert_eq!(room.claim(12, LAN, 1), []);
        room.0.forget(peer(LAN), &mut room.1);
        assert_eq!((room.0.claims.len(), room.0.held.len()), (0, 0));
    }

    #[test]
    fn who_makes_addresses_up_crowds_out_nobody() {
        let mut room = Room::default();
        for number in 0..100_000u32 {
            room.0.hear(at(1), peer(BEN), false, Ipv4Addr::from(0x0a00_0000 + number).into(), &mut room.1);
        }
        assert_eq!(room.0.claims.len(), ADDRESSES_OF_ONE);
        assert_eq!([room.claim(2, ANN, 7), room.claim(3, BEN, 7)], [vec![], vec![]]);
        assert_eq!(room.claim(4, ANN, 7), conflict(ANN, BEN, 7));
        // Those he says no more are forgotten, and make room for one that he really has.
        assert_eq!(room.settle(100), settled(ANN, BEN));
        assert_eq!([room.claim(100, BEN, 50), room.claim(101, ANN, 50)], [vec![], vec![]]);
        assert_eq!(room.claim(102, BEN, 50), conflict(ANN, BEN, 50));
        assert!(room.0.claims.len() <= 3, "{:?}", room.0.claims);
        for number in 0..100_000u32 {
            room.0.hear(at(200), peer(LAN), true, Ipv4Addr::from(0x0b00_0000 + number).into(), &mut room.1);
        }
        assert!(room.0.claims.len() <= ADDRESSES_OF_LAN + 2 * ADDRESSES_OF_ONE);
    }

    #[test]
    fn so_many_conflicts_and_no_more_are_told_at_once() {
        let mut room = Room::default();
        let told: usize = (10..60)
            .map(|who| {
                let last = who as u8;
                [room.claim(0, who, last), room.claim(1, BEN, last), room.claim(2, who, last)].concat().len()
            })
            .sum();
        assert_eq!((told, room.settle(62).len(), room.0.is_on()), (CONFLICTS, CONFLICTS, false));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Claim(u16, u8),
        Leave(u16),
    }

    proptest! {
        /// Whatever is claimed by whomever: what begins ends once, of peers that are two, and the books of who holds what are right.
        #[test]
        fn what_begins_ends_once(steps in proptest::collection::vec(prop_oneof![
            1 => (0u64..40).prop_map(Step::Wait),
            12 => (1u16..6, 0u8..30).prop_map(|(who, last)| Step::Claim(who, last)),
            1 => (1u16..6).prop_map(Step::Leave),
        ], 0..300)) {
            let (mut room, mut now, mut open) = (Room::default(), 0, Vec::new());
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += seconds,
                    Step::Claim(who, last) => room.0.hear(at(now), peer(who), who == 5, address(last), &mut room.1),
                    Step::Leave(who) => room.0.forget(peer(who), &mut room.1),
                }
                for event in [room.1.take(), room.settle(now)].concat() {
                    match event {
                        SwitchEvent::AddressConflict { peers, .. } => {
                            prop_assert!(peers.0 < peers.1 && !open.contains(&peers));
                            open.push(peers);
                        }
                        SwitchEvent::AddressSettled { peers } => {
                            let place = open.iter().position(|known| *known == peers);
                            prop_assert!(place.is_some());
                            open.swap_remove(place.unwrap());
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                prop_assert_eq!(room.0.is_on(), !open.is_empty());
                for who in 1..6 {
                    let holds = room.0.claims.values().filter(|claim| claim.holder == peer(who)).count();
                    prop_assert_eq!(room.0.held.get(&peer(who)).copied().unwrap_or(0), holds);
                    prop_assert!(who == 5 || holds <= ADDRESSES_OF_ONE);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(packet in proptest::collection::vec(prop_oneof![Just(58u8), any::<u8>()], 0..80)) {
            for protocol in [EtherType::ARP, EtherType::IPV6, EtherType::IPV4] {
                let _ = claimed((protocol, &packet));
            }
        }
    }
}
