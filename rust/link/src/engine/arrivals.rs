//! Packets of strangers: told from those of connections by a look at their header, and kept from taking the loop.
//!
//! To find out what a first packet is worth, QUIC derives keys for it (RFC 9001 section 5.2), which takes longer than all that is done for a
//! packet of a connection. So strangers get a part of each turn and a part of all time, first in the order they come, then, when that is
//! spent, after the connections have had their turn. What cannot wait either is dropped unread: QUIC asks again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};
use quinn_udp::RecvMeta;

use super::allowance::Allowance;

/// What strangers may take of one turn of the loop.
const A_TURN: Duration = Duration::from_micros(250);
/// What they may take of all time: one part in so many, and so much after a pause.
const ONE_IN: u32 = 4;
const AFTER_A_PAUSE: Duration = Duration::from_millis(50);
/// Each kind has one part in so many of that for itself, and the rest is for either: a flood of one kind does not keep the other out.
const OWN: u32 = 4;
const COMMON: u32 = 2;
// No more than the whole.
const _: () = assert!(2 * COMMON + OWN <= OWN * COMMON);
/// Packets of a kind that may wait: a full party that comes all at once.
const WAITING: usize = 128;

/// A packet's long header form (RFC 9000 section 17.2).
const LONG_HEADER: u8 = 0x80;
/// A long header's type, of which Initial is zero in QUIC version 1.
const TYPE: u8 = 0x30;
/// Where a long header's destination identifier begins: after the first byte, the version, and its own length.
const DESTINATION: usize = 6;

/// Who a packet may be from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A connection, for all that can be told.
    Known,
    /// A peer whose handshake has begun or who answers a Retry: it names an identifier of ours.
    Answering,
    /// A stranger.
    First,
}

/// A packet that waits, and where it came from.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) meta: RecvMeta,
    pub(super) packet: BytesMut,
}

/// What becomes of a packet that has come.
#[derive(Debug)]
pub(super) enum Offer {
    AtOnce(Arrival),
    Later,
    Dropped,
}

/// A part of what strangers may take.
#[derive(Debug)]
struct Share {
    a_turn: Duration,
    of_turn: Duration,
    of_time: Allowance,
}

impl Share {
    fn new(now: Instant, part: u32) -> Self {
        let a_turn = A_TURN / part;
        Self { a_turn, of_turn: a_turn, of_time: Allowance::new(now, ONE_IN * part, AFTER_A_PAUSE / part) }
    }

    fn allows(&mut self, now: Instant) -> bool {
        !self.of_turn.is_zero() && self.of_time.allows(now)
    }

    /// Whether it allowed what was begun last, when it was asked.
    fn has_allowed(&self) -> bool {
        !self.of_turn.is_zero() && self.of_time.has_allowed()
    }

    fn spend(&mut self, spent: Duration) {
        self.of_turn = self.of_turn.saturating_sub(spent);
        self.of_time.spend(spent);
    }
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Arrival>,
    own: Share,
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), own: Share::new(now, OWN) }
    }
}

/// The strangers of an endpoint that accepts peers.
pub(super) struct Arrivals {
    identifiers: HashedConnectionIdGenerator,
    answering: Lane,
    first: Lane,
    common: Share,
}

impl Arrivals {
    /// For an endpoint whose identifiers are made with `identifier_key`.
    pub(super) fn new(now: Instant, identifier_key: u64) -> Self {
        let identifiers = HashedConnectionIdGenerator::from_key(identifier_key);
        let common = Share::new(now, COMMON);
        Self { identifiers, answering: Lane::new(now), first: Lane::new(now), common }
    }

    /// Whose a packet is, by its first bytes. Whoever forges them is in the same queue with fewer others.
    pub(super) fn kind_of(&self, packet: &[u8]) -> Kind {
        let Some(first) = packet.first() else { return Kind::Known };
        if first & LONG_HEADER == 0 {
            return Kind::Known;
        }
        let ours = self.identifiers.cid_len();
        let named = match packet.get(DESTINATION - 1..DESTINATION + ours) {
            Some([length, named @ ..]) if usize::from(*length) == ours => named,
            _ => return Kind::First,
        };
        match self.identifiers.validate(&ConnectionId::new(named)) {
            Err(_) => Kind::First,
            Ok(()) if first & TYPE == 0 => Kind::Answering,
            Ok(()) => Kind::Known,
        }
    }

    /// A new turn of the loop begins.
    pub(super) fn begin_turn(&mut self) {
        for share in [&mut self.answering.own, &mut self.first.own, &mut self.common] {
            share.of_turn = share.a_turn;
        }
    }

    /// Gives a packet back that may be dealt with at once. Otherwise it waits, or is dropped where too many do.
    pub(super) fn offer(&mut self, now: Instant, kind: Kind, arrival: Arrival) -> Offer {
        let Some((lane, common)) = self.lane(kind) else { return Offer::AtOnce(arrival) };
        if lane.waiting.is_empty() && (lane.own.allows(now) || common.allows(now)) {
            return Offer::AtOnce(arrival);
        }
        if lane.waiting.len() >= WAITING {
            return Offer::Dropped;
        }
        lane.waiting.push_back(arrival);
        Offer::Later
    }

    /// Notes how long a packet took.
    pub(super) fn spend(&mut self, kind: Kind, spent: Duration) {
        if let Some((lane, common)) = self.lane(kind) {
            let share = if lane.own.has_allowed() { &mut lane.own } else { common };
            share.spend(spent);
        }
    }

    /// The next packet that waited and may be dealt with now.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Kind, Arrival)> {
        for kind in [Kind::Answering, Kind::First] {
            let Some((lane, common)) = self.lane(kind) else { continue };
            if !lane.waiting.is_empty()
                && (lane.own.allows(now) || common.allows(now))
                && let Some(arrival) = lane.waiting.pop_front()
            {
                return Some((kind, arrival));
            }
        }
        None
    }

    /// When there is something to do for those that wait.
    pub(super) fn due(&self) -> Option<Instant> {
        [&self.answering, &self.first]
            .into_iter()
            .filter(|lane| !lane.waiting.is_empty())
            .map(|lane| lane.own.of_time.next().min(self.common.of_time.next()))
            .min()
    }

    /// A kind's lane, and the part that is for either.
    fn lane(&mut self, kind: Kind) -> Option<(&mut Lane, &mut Share)> {
        match kind {
            Kind::Known => None,
            Kind::Answering => Some((&mut self.answering, &mut self.common)),
            Kind::First => Some((&mut self.first, &mut self.common)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;

    fn packet(first: u8, destination: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 0, 0, 0, 1, destination.len() as u8];
        packet.extend_from_slice(destination);
        packet.resize(1200, 0);
        packet
    }

    fn arrival(number: u8) -> Arrival {
        Arrival { meta: RecvMeta::default(), packet: BytesMut::from(&packet(0xc0, &[number; 8])[..]) }
    }

    fn ours() -> ConnectionId {
        HashedConnectionIdGenerator::from_key(KEY).generate_cid()
    }

    #[test]
    fn strangers_are_told_by_the_identifier_they_name() {
        let arrivals = Arrivals::new(Instant::now(), KEY);
        let ours = ours();
        for (first, destination, kind) in [
            (0xc0, &[1u8; 8][..], Kind::First),
            (0xc0, &[1; 20], Kind::First),
            (0xc0, &[], Kind::First),
            (0xe0, &[1; 8], Kind::First),
            (0xc3, &ours, Kind::Answering),
            (0xe3, &ours, Kind::Known),
            (0x43, &[1; 8], Kind::Known),
        ] {
            assert_eq!(arrivals.kind_of(&packet(first, destination)), kind, "{first:02x} {destination:02x?}");
        }
    }

    #[test]
    fn no_packet_is_too_short_to_be_looked_at() {
        let arrivals = Arrivals::new(Instant::now(), KEY);
        let whole = packet(0xc0, &ours());
        for length in 0..32 {
            let kind = arrivals.kind_of(&whole[..length]);
            assert_eq!(kind == Kind::Answering, length >= DESTINATION + ours().len(), "{length}");
            arrivals.kind_of(&vec![0xff; length]);
        }
    }

    #[test]
    fn what_a_turn_has_no_time_for_waits_and_what_cannot_wait_is_dropped() {
        let now = Instant::now();
        let mut arrivals = Arrivals::new(now, KEY);
        for _ in 0..2 {
            assert!(matches!(arrivals.offer(now, Kind::First, arrival(0)), Offer::AtOnce(_)));
            arrivals.spend(Kind::First, A_TURN);
        }
        for number in 1..=WAITING {
            assert!(matches!(arrivals.offer(now, Kind::First, arrival(number as u8)), Offer::Later));
        }
        assert!(matches!(arrivals.offer(now, Kind::First, arrival(0)), Offer::Dropped));
        // Those that answer are kept apart, and connections are not asked.
        assert!(matches!(arrivals.offer(now, Kind::Answering, arrival(0)), Offer::AtOnce(_)));
        assert!(matches!(arrivals.offer(now, Kind::Known, arrival(0)), Offer::AtOnce(_)));
        assert!(arrivals.next(now).is_none());
        assert!(arrivals.due().is_some_and(|due| due <= now));
        // The next turn: in their order, and nobody goes before those that wait.
        arrivals.begin_turn();
        assert!(matches!(arrivals.offer(now, Kind::First, arrival(0)), Offer::Dropped));
        for number in 1..=WAITING {
            let (kind, next) = arrivals.next(now).expect("one that waits");
            assert_eq!((kind, next.packet[DESTINATION]), (Kind::First, number as u8));
        }
        assert!(arrivals.next(now).is_none() && arrivals.due().is_none());
    }

    /// What each kind gets of a second in which packets of `kinds` come all the time, each of which takes 50 µs, and the most that all get of a turn.
    fn taken_of_a_second(kinds: &[Kind]) -> ([Duration; 2], Duration) {
        let cost = Duration::from_micros(50);
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start, KEY);
        let (mut taken, mut most) = ([Duration::ZERO; 2], Duration::ZERO);
        for turn in 0..1000 {
            let now = start + turn * Duration::from_millis(1);
            arrivals.begin_turn();
            let before = taken;
            for kind in kinds.repeat(32) {
                let at_once = matches!(arrivals.offer(now, kind, arrival(0)), Offer::AtOnce(_));
                let next = if at_once { Some(kind) } else { arrivals.next(now).map(|(kind, _)| kind) };
                if let Some(kind) = next {
                    arrivals.spend(kind, cost);
                    taken[usize::from(kind == Kind::First)] += cost;
                }
            }
            most = most.max(taken[0] + taken[1] - before[0] - before[1]);
        }
        (taken, most)
    }

    #[test]
    fn strangers_get_their_share_of_time_and_no_more() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        // A quarter of a second, and what was there at first; of a turn, what is begun is finished.
        let ([answering, first], most) = taken_of_a_second(&[Kind::Answering, Kind::First]);
        let all = answering + first;
        assert!(all > ms(280) && all < ms(305) && most < A_TURN + us(150), "{all:?}, {most:?}");
        // One kind alone goes without the other's own part.
        for kind in [Kind::First, Kind::Answering] {
            let ([answering, first], most) = taken_of_a_second(&[kind]);
            let all = answering + first;
            assert!(all > ms(210) && all < ms(230) && most < A_TURN + us(100), "{kind:?}: {all:?}, {most:?}");
        }
    }

    #[test]
    fn a_flood_of_one_kind_leaves_the_other_its_own_part() {
        let now = Instant::now();
        let mut arrivals = Arrivals::new(now, KEY);
        while matches!(arrivals.offer(now, Kind::Answering, arrival(0)), Offer::AtOnce(_)) {
            arrivals.spend(Kind::Answering, Duration::from_micros(10));
        }
        assert!(matches!(arrivals.offer(now, Kind::First, arrival(0)), Offer::AtOnce(_)));
    }
}
