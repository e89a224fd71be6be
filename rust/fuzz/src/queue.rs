//! The queue before a connection as a state machine: what goes in comes out, is dropped and counted, or waits; memory is bounded, and a
//! flow keeps its order; what may be marked is changed by the mark alone.
//!
//! Input: bytes of room in units of 256 and the age limit in units of 4 ms (a byte each), then steps: a byte whose low two bits say
//! what (push, push a burst, pop, pop some) and the others how long to wait before in quarter milliseconds; a push takes a byte for
//! the flow and two for the length. Flows from 128 on are IPv4 packets, whose ECN field is the flow's two bits below the highest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use etherparse::{IpEcn, IpNumber, Ipv4Header};

use crate::egress::{EgressQueue, Outcome, QueueLimits};
use crate::source::Source;

/// What a queued datagram costs beyond its bytes, at least, so that tiny ones cannot hold unbounded memory.
const LEAST_OVERHEAD: usize = 32;

/// Flows from here on are IPv4 packets.
const FIRST_IP_FLOW: u8 = 128;

/// A datagram's bytes, counted for as long as somebody holds on to them: what the queue says of its memory is held against this.
struct Held {
    bytes: Vec<u8>,
    sum: Arc<AtomicUsize>,
}

impl Held {
    fn datagram(bytes: Vec<u8>, sum: &Arc<AtomicUsize>) -> Bytes {
        sum.fetch_add(bytes.len(), Relaxed);
        Bytes::from_owner(Self { bytes, sum: sum.clone() })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes.len(), Relaxed);
    }
}

struct World {
    queue: EgressQueue,
    limits: QueueLimits,
    /// Bytes of the datagrams that somebody holds on to: between two steps, the queue alone. Small ones in a long queue are copied, and
    /// count here no longer; those are judged as they come out.
    held: Arc<AtomicUsize>,
    now: Duration,
    pushed: u64,
    popped: u64,
    dropped: u64,
    outcome: Outcome,
    /// Of those that came out: marked on the way, and marked before.
    marked: u64,
    marked_before: u64,
    /// The number last seen of each flow.
    seen: HashMap<u8, u32>,
}

/// Runs the steps, then empties the queue.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let limits = QueueLimits {
        bytes: usize::from(source.byte()) * 256,
        max_age: Duration::from_millis(u64::from(source.byte()) * 4),
    };
    let mut world = World {
        queue: EgressQueue::new(limits),
        limits,
        held: Arc::default(),
        now: Duration::ZERO,
        pushed: 0,
        popped: 0,
        dropped: 0,
        outcome: Outcome::default(),
        marked: 0,
        marked_before: 0,
        seen: HashMap::new(),
    };
    while !source.is_empty() && world.pushed < 20_000 {
        let step = source.byte();
        world.now += Duration::from_micros(250) * u32::from(step >> 2);
        match step & 3 {
            0 => world.push(source.byte(), usize::from(source.word()) % 9300),
            1 => {
                let (flow, len) = (source.byte(), usize::from(source.word()) % 1600);
                (0..32).for_each(|_| world.push(flow, len));
            }
            2 => world.pop(),
            _ => (0..8).for_each(|_| world.pop()),
        }
    }
    while !world.queue.is_empty() {
        world.pop();
    }
    assert_eq!(world.queue.bytes(), 0);
    assert_eq!(
        world.pushed,
        world.popped + world.dropped + world.outcome.late,
        "a datagram got lost uncounted"
    );
    let told = world.outcome.marked;
    assert!(
        (world.marked..=world.marked + world.marked_before).contains(&told),
        "a mark that nobody counted"
    );
    world.pop();
}

/// A datagram of the flow: overlay header, a frame of two MACs and a type, an IPv4 header if it is a flow of them, a number; cut to `len` bytes.
fn datagram(flow: u8, number: u32, len: usize, ecn: IpEcn) -> Vec<u8> {
    let mut datagram = vec![0x10, 0, 0, 1, 2, 0, 0, 0, 0, flow, 2, 0, 0, 0, 0, 9];
    if flow < FIRST_IP_FLOW {
        datagram.extend([0x88, 0xb5]);
    } else {
        let payload = len.saturating_sub(38).max(4) as u16;
        let header = Ipv4Header::new(payload, 64, IpNumber(253), [10, 0, 0, flow], [10, 0, 0, 9]);
        let mut header = Ipv4Header { ecn, ..header.expect("all lengths here are below 64 KiB") };
        header.header_checksum = header.calc_header_checksum();
        datagram.extend([0x08, 0x00]);
        datagram.extend(header.to_bytes());
    }
    datagram.extend(number.to_be_bytes());
    datagram.resize(len, 0);
    datagram
}

/// The ECN field that packets of the flow are sent with.
fn ecn_of(flow: u8) -> IpEcn {
    IpEcn::try_new(flow >> 5 & 3).expect("two bits")
}

/// Flow and number of a datagram, if it is long enough to have them.
fn flow_and_number(datagram: &[u8]) -> Option<(u8, u32)> {
    let flow = *datagram.get(9)?;
    let at = if flow < FIRST_IP_FLOW { 18 } else { 38 };
    Some((flow, u32::from_be_bytes(datagram.get(at..at + 4)?.try_into().ok()?)))
}

impl World {
    fn push(&mut self, flow: u8, len: usize) {
        let datagram = datagram(flow, self.pushed as u32, len, ecn_of(flow));
        self.pushed += 1;
        self.dropped += self.queue.push(self.now, Held::datagram(datagram, &self.held));
        assert!(self.queue.bytes() <= self.limits.bytes, "over the limit after a push");
        self.check_memory();
    }

    /// The queue says no less than what is there.
    fn check_memory(&self) {
        let waiting = self.pushed - self.popped - self.dropped - self.outcome.late;
        let least = self.held.load(Relaxed) + waiting as usize * LEAST_OVERHEAD;
        assert!(least <= self.queue.bytes(), "{least} bytes wait, and the queue says {}", self.queue.bytes());
        assert_eq!(waiting == 0, self.queue.is_empty());
    }

    fn pop(&mut self) {
        let before = self.queue.bytes();
        let Some(datagram) = self.queue.pop(self.now, &mut self.outcome) else {
            assert!(self.queue.is_empty(), "something waits and does not come out");
            return;
        };
        self.popped += 1;
        let cost = before - self.queue.bytes();
        assert!(
            datagram.len() + LEAST_OVERHEAD <= cost,
            "{} bytes came out that cost {cost}",
            datagram.len()
        );
        self.judge(datagram);
        self.check_memory();
    }

    /// What must hold for a datagram that came out.
    fn judge(&mut self, datagram: Bytes) {
        let Some((flow, number)) = flow_and_number(&datagram) else { return };
        let (own, is_ip) = (ecn_of(flow), flow >= FIRST_IP_FLOW);
        let sent_with = |ecn| self::datagram(flow, number, datagram.len(), ecn);
        if datagram == sent_with(own) {
            self.marked_before += u64::from(is_ip && own == IpEcn::CongestionExperienced);
        } else {
            assert!(is_ip && own != IpEcn::NotEct, "a datagram changed that may not be marked");
            assert_eq!(datagram, sent_with(IpEcn::CongestionExperienced), "more than a mark changed");
            self.marked += 1;
        }
        let before = self.seen.insert(flow, number);
        assert!(before.is_none_or(|before| before < number), "a flow's order is lost");
    }
}
