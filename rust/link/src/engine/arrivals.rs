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

/// What strangers of a kind may take of one turn of the loop.
const A_TURN: Duration = Duration::from_micros(250);
/// What they may take of all time: one part in so many, and so much after a pause.
const ONE_IN: u32 = 4;
const AFTER_A_PAUSE: Duration = Duration::from_millis(50);
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

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Arrival>,
    of_turn: Duration,
    of_time: Allowance,
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            of_turn: A_TURN,
            of_time: Allowance::new(now, ONE_IN, AFTER_A_PAUSE),
        }
    }

    fn open(&mut self, now: Instant) -> bool {
        !self.of_turn.is_zero() && self.of_time.allows(now)
    }
}

/// The strangers of an endpoint that accepts peers.
pub(super) struct Arrivals {
    identifiers: HashedConnectionIdGenerator,
    answering: Lane,
    first: Lane,
}

impl Arrivals {
    /// For an endpoint whose identifiers are made with `identifier_key`.
    pub(super) fn new(now: Instant, identifier_key: u64) -> Self {
        let identifiers = HashedConnectionIdGenerator::from_key(identifier_key);
        Self { identifiers, answering: Lane::new(now), first: Lane::new(now) }
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
        self.answering.of_turn = A_TURN;
        self.first.of_turn = A_TURN;
    }

    /// Gives a packet back that may be dealt with at once. Otherwise it waits, or is dropped where too many do.
    pub(super) fn offer(&mut self, now: Instant, kind: Kind, arrival: Arrival) -> Offer {
        let Some(lane) = self.lane(kind) else { return Offer::AtOnce(arrival) };
        if lane.waiting.is_empty() && lane.open(now) {
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
        if let Some(lane) = self.lane(kind) {
            lane.of_turn = lane.of_turn.saturating_sub(spent);
            lane.of_time.spend(spent);
        }
    }

    /// The next packet that waited and may be dealt with now.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Kind, Arrival)> {
        for kind in [Kind::Answering, Kind::First] {
            let Some(lane) = self.lane(kind) else { continue };
            if !lane.waiting.is_empty()
                && lane.open(now)
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
            .map(|lane| lane.of_time.next())
            .min()
    }

    fn lane(&mut self, kind: Kind) -> Option<&mut Lane> {
        match kind {
            Kind::Known => None,
            Kind::Answering => Some(&mut self.answering),
            Kind::First => Some(&mut self.first),
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
        assert!(matches!(arrivals.offer(now, Kind::First, arrival(0)), Offer::AtOnce(_)));
        arrivals.spend(Kind::First, A_TURN);
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

    #[test]
    fn strangers_get_their_share_of_time_and_no_more() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start, KEY);
        let mut taken = Duration::ZERO;
        for turn in 0..10_000 {
            let now = start + turn * Duration::from_micros(100);
            arrivals.begin_turn();
            let at_once = matches!(arrivals.offer(now, Kind::First, arrival(0)), Offer::AtOnce(_));
            if at_once || arrivals.next(now).is_some() {
                arrivals.spend(Kind::First, A_TURN);
                taken += A_TURN;
            }
        }
        // Of one second.
        assert!(taken > Duration::from_millis(280) && taken < Duration::from_millis(310), "{taken:?}");
    }
}
