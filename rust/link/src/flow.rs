//! Which flow a frame belongs to: what must keep its order, and what a queue shares a line between; and which of a queue's places a flow has.

use std::hash::{BuildHasher, RandomState};

use softlan_wire::{EtherType, EthernetFrame};

/// IP protocols whose first four bytes are two ports: TCP, UDP, UDP-Lite, SCTP (IANA protocol numbers).
const WITH_PORTS: [u8; 4] = [6, 17, 136, 132];

/// Hashes frames by flow, with a secret of its own: who can choose addresses and ports must not be able to choose whose queue they
/// share.
#[derive(Debug, Clone)]
pub struct FlowHash {
    seed: u64,
    factor: u64,
}

impl Default for FlowHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self::with_secret([random.hash_one(0u8), random.hash_one(1u8)])
    }
}

impl FlowHash {
    /// One with a known secret, two numbers that look random, so that fuzzing and simulation can play again what they found. Everything else takes
    /// the default.
    #[doc(hidden)]
    pub const fn with_secret([seed, factor]: [u64; 2]) -> Self {
        // An even factor would lose the highest bits.
        Self { seed, factor: factor | 1 }
    }

    /// The hash of the frame's flow: addresses, protocol and ports of an IP packet (a fragment of one has no ports), else the two MACs and
    /// the EtherType.
    #[inline]
    pub fn of(&self, frame: &[u8]) -> u64 {
        let Ok(frame) = EthernetFrame::parse(frame) else { return self.seed };
        let packet = frame.payload();
        match frame.ethertype() {
            EtherType::IPV4 => self.ipv4(packet),
            EtherType::IPV6 => self.ipv6(packet),
            _ => None,
        }
        .unwrap_or_else(|| {
            let macs =
                self.mix(self.seed, frame.source().packed() << 16 | u64::from(frame.ethertype().value()));
            self.mix(macs, frame.destination().packed())
        })
    }

    /// RFC 791 section 3.1.
    #[inline]
    fn ipv4(&self, packet: &[u8]) -> Option<u64> {
        let header = packet.first_chunk::<20>()?;
        let protocol = header[9];
        let fragmented = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        let options_end = usize::from(header[0] & 0x0f) * 4;
        let ports = if fragmented { 0 } else { ports(protocol, packet.get(options_end..)?) };
        let addresses = self.mix(self.seed, u64::from_be_bytes(*header.last_chunk()?));
        Some(self.mix(addresses, u64::from(protocol) << 32 | u64::from(ports)))
    }

    /// RFC 8200 section 3. Behind an extension header no ports are looked for: such packets are few, and stay in order all the same.
    #[inline]
    fn ipv6(&self, packet: &[u8]) -> Option<u64> {
        let (header, rest) = packet.split_first_chunk::<40>()?;
        let mut hash = self.seed;
        for word in header[8..].as_chunks().0 {
            hash = self.mix(hash, u64::from_be_bytes(*word));
        }
        Some(self.mix(hash, u64::from(header[6]) << 32 | u64::from(ports(header[6], rest))))
    }

    /// One multiplication folded from 128 bits to 64.
    #[inline]
    fn mix(&self, state: u64, word: u64) -> u64 {
        let product = u128::from(state ^ word) * u128::from(self.factor);
        product as u64 ^ (product >> 64) as u64
    }
}

/// Places in a set: a flow may have any one of the set its hash names.
const WAYS: usize = 8;
const SETS: usize = 16;
/// Places for flows.
pub const PLACES: usize = WAYS * SETS;

/// Gives each flow that waits a place of its own. Hashed to one place each, two of nine flows would meet as often as one time in four, and a
/// ping that meets a download waits behind it; in sets of eight, flows do not meet before there are dozens.
///
/// Where more of a set's flows wait than it has places, those that came late share its first one, and do so until nothing of them waits in there: a flow
/// keeps its order.
#[derive(Debug)]
pub struct FlowPlaces {
    hash: FlowHash,
    /// The flow each place was last given to, by another part of its hash.
    tags: [u32; PLACES],
    /// By set, how many datagrams must leave its first place until none is left in there of a flow that came late.
    late: [u32; SETS],
}

impl Default for FlowPlaces {
    fn default() -> Self {
        Self::new(FlowHash::default())
    }
}

impl FlowPlaces {
    /// Places without any flow.
    pub const fn new(hash: FlowHash) -> Self {
        Self { hash, tags: [0; PLACES], late: [0; SETS] }
    }

    /// The place of the frame's flow, below [`PLACES`], into which it is put at the end. `waiting` tells how many wait in a place, and `None` of one that is
    /// free.
    #[inline]
    pub fn of(&mut self, frame: &[u8], waiting: impl Fn(usize) -> Option<u32>) -> usize {
        let hash = self.hash.of(frame);
        let (set, tag) = (hash as usize % SETS, (hash >> 32) as u32);
        let first = set * WAYS;
        let tags = &mut self.tags[first..first + WAYS];
        if let Some(way) = tags.iter().position(|known| *known == tag) {
            return first + way;
        }
        if self.late[set] == 0
            && let Some(way) = (0..WAYS).find(|way| waiting(first + way).is_none())
        {
            tags[way] = tag;
            return first + way;
        }
        self.late[set] = waiting(first).unwrap_or(0) + 1;
        first
    }

    /// So many have left a place, its oldest.
    #[inline]
    pub fn taken(&mut self, place: usize, count: u32) {
        if place.is_multiple_of(WAYS) {
            let late = &mut self.late[place / WAYS];
            *late = late.saturating_sub(count);
        }
    }
}

#[inline]
fn ports(protocol: u8, segment: &[u8]) -> u32 {
    match segment.first_chunk() {
        Some(ports) if WITH_PORTS.contains(&protocol) => u32::from_be_bytes(*ports),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(source: u8, protocol: u8, source_port: u16, fragment: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        let mut header = [0x45, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, source, 10, 0, 0, 9];
        header[6..8].copy_from_slice(&fragment.to_be_bytes());
        frame.extend(header);
        frame.extend(source_port.to_be_bytes());
        frame.extend([0, 80, 1, 2, 3, 4]);
        frame
    }

    #[test]
    fn ports_and_addresses_tell_flows_apart_and_nothing_else_does() {
        let hash = FlowHash::default();
        let of = |frame: Vec<u8>| hash.of(&frame);
        let one = of(ipv4(1, 6, 1000, 0));
        assert_eq!(one, of(ipv4(1, 6, 1000, 0)));
        assert_ne!(one, of(ipv4(1, 6, 1001, 0)));
        assert_ne!(one, of(ipv4(2, 6, 1000, 0)));
        assert_ne!(one, of(ipv4(1, 17, 1000, 0)));
        let mut later = ipv4(1, 6, 1000, 0);
        *later.last_mut().unwrap() ^= 1;
        assert_eq!(one, of(later));
    }

    #[test]
    fn all_fragments_of_a_packet_are_one_flow() {
        let hash = FlowHash::default();
        assert_eq!(hash.of(&ipv4(1, 17, 1000, 0x2000)), hash.of(&ipv4(1, 17, 7777, 0x0010)));
    }

    #[test]
    fn each_queue_hashes_in_a_way_of_its_own() {
        let frame = ipv4(1, 6, 1000, 0);
        assert_ne!(FlowHash::default().of(&frame), FlowHash::default().of(&frame));
    }

    #[test]
    fn a_known_secret_hashes_the_same_again() {
        let frame = ipv4(1, 6, 1000, 0);
        assert_eq!(FlowHash::with_secret([5, 6]).of(&frame), FlowHash::with_secret([5, 6]).of(&frame));
        assert_ne!(FlowHash::with_secret([5, 6]).of(&frame), FlowHash::with_secret([7, 6]).of(&frame));
    }

    #[test]
    fn flows_do_not_meet_while_there_is_room() {
        for _ in 0..200 {
            let mut places = FlowPlaces::default();
            let mut taken = [false; PLACES];
            for flow in 1..=16 {
                let mut of =
                    |taken: &[bool]| places.of(&ipv4(flow, 6, 1000, 0), |place| taken[place].then_some(1));
                let place = of(&taken);
                assert!(!taken[place], "flow {flow}");
                taken[place] = true;
                assert_eq!(of(&taken), place);
            }
        }
    }

    /// A set whose places all have their flow with one datagram each; gives the flows of the set that came late as well.
    fn full_set(places: &mut FlowPlaces, waiting: &mut [u32; PLACES]) -> (Vec<u16>, Vec<u16>) {
        let mut flows = (0..u16::MAX)
            .filter(|number| (places.hash.of(&ipv4(1, 6, *number, 0)) as usize).is_multiple_of(SETS))
            .collect::<Vec<_>>();
        let late = flows.split_off(WAYS);
        for (flow, place) in flows.iter().zip(0..) {
            assert_eq!(put(places, waiting, *flow), place);
        }
        (flows, late)
    }

    fn put(places: &mut FlowPlaces, waiting: &mut [u32; PLACES], flow: u16) -> usize {
        let known = *waiting;
        let place = places.of(&ipv4(1, 6, flow, 0), |place| (known[place] > 0).then_some(known[place]));
        waiting[place] += 1;
        place
    }

    fn take(places: &mut FlowPlaces, waiting: &mut [u32; PLACES], place: usize) {
        waiting[place] -= 1;
        places.taken(place, 1);
    }

    #[test]
    fn who_shares_a_place_keeps_it_until_nothing_of_it_waits_there() {
        let (mut places, mut waiting) = (FlowPlaces::default(), [0; PLACES]);
        let (own, late) = full_set(&mut places, &mut waiting);
        assert_eq!(put(&mut places, &mut waiting, late[0]), 0);
        // Another place gets free: who came late stays, and so does who comes now.
        take(&mut places, &mut waiting, 3);
        assert_eq!(put(&mut places, &mut waiting, late[0]), 0);
        assert_eq!(put(&mut places, &mut waiting, late[1]), 0);
        assert_eq!(put(&mut places, &mut waiting, own[3]), 3);
        for _ in 0..waiting[0] {
            take(&mut places, &mut waiting, 0);
        }
        assert_eq!(put(&mut places, &mut waiting, late[2]), 0);
        take(&mut places, &mut waiting, 3);
        assert_eq!(put(&mut places, &mut waiting, late[0]), 3);
    }

    #[test]
    fn a_place_that_never_empties_is_not_shared_for_ever() {
        let (mut places, mut waiting) = (FlowPlaces::default(), [0; PLACES]);
        let (own, late) = full_set(&mut places, &mut waiting);
        assert_eq!(put(&mut places, &mut waiting, late[0]), 0);
        take(&mut places, &mut waiting, 5);
        // A download, whose place holds something at any time.
        for _ in 0..2 {
            put(&mut places, &mut waiting, own[0]);
            assert_eq!(put(&mut places, &mut waiting, own[0]), 0);
            take(&mut places, &mut waiting, 0);
        }
        assert_eq!(put(&mut places, &mut waiting, late[1]), 5);
    }

    #[test]
    fn anything_has_a_flow() {
        let hash = FlowHash::default();
        for len in 0..80 {
            let mut frame = ipv4(1, 6, 1000, 0);
            frame.resize(len, 0xff);
            hash.of(&frame);
            if len > 13 {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                hash.of(&frame);
            }
        }
    }
}
