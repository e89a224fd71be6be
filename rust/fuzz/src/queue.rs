//! The queue before a connection as a state machine: what goes in comes out, is dropped and counted, or waits; memory is bounded, and a
//! flow keeps its order; what may be marked is changed by the mark alone; what is asked for as new is of a flow that has sent little.
//!
//! Input: room (a byte, see [`room`]) and the age limit in units of 4 ms (a byte), of both of which the hash's secret is made; then steps: a
//! byte whose low two bits say what (push, push a burst, pop, pop some) and the others how long to wait before, for a push in quarter
//! milliseconds; for a pop the highest says that only new flows are asked, and the rest are half milliseconds. A push takes a byte for the flow
//! and two for the length. Flows from 128 on are IPv4 packets, whose ECN field is the flow's two bits below the highest.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use etherparse::{IpEcn, IpNumber, Ipv4Header};

use crate::egress::{EgressQueue, Outcome, QueueLimits};
use crate::source::{Source, secret};

/// What a queued datagram costs beyond its bytes, at least, so that tiny ones cannot hold unbounded memory.
const LEAST_OVERHEAD: usize = 32;

/// Flows from here on are IPv4 packets.
const FIRST_IP_FLOW: u8 = 128;

/// What a flow that was not waiting may send before it counts as bulk: a full frame with a tag, FCS counted.
const NEW_FLOWS_SHARE: usize = 1522;

/// A datagram as it arrives holds on to the whole buffer it came in. Of those of such a length (small, middling) no more may do so while they
/// wait than fit into so many bytes of queue; others are copied.
const COPIED: [(Range<usize>, usize); 2] = [(0..512, 16 * 1024), (512..1024, 256 * 1024)];

/// Datagrams that somebody holds on to: bytes of all, and how many of each length in [`COPIED`].
#[derive(Debug, Default)]
struct Sum {
    bytes: AtomicUsize,
    short: [AtomicUsize; COPIED.len()],
}

impl Sum {
    /// The count of those of this length, if there is one.
    fn of(&self, len: usize) -> Option<&AtomicUsize> {
        COPIED.iter().position(|(lens, _)| lens.contains(&len)).map(|at| &self.short[at])
    }
}

/// A datagram's bytes, counted for as long as somebody holds on to them: what the queue says of its memory is held against this.
struct Held {
    bytes: Vec<u8>,
    sum: Arc<Sum>,
}

impl Held {
    fn datagram(bytes: Vec<u8>, sum: &Arc<Sum>) -> Bytes {
        sum.bytes.fetch_add(bytes.len(), Relaxed);
        sum.of(bytes.len()).map(|count| count.fetch_add(1, Relaxed));
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
        self.sum.bytes.fetch_sub(self.bytes.len(), Relaxed);
        self.sum.of(self.bytes.len()).map(|count| count.fetch_sub(1, Relaxed));
    }
}

struct World {
    queue: EgressQueue,
    limits: QueueLimits,
    /// Bytes of the datagrams that somebody holds on to: between two steps, the queue alone. Small ones in a long queue are copied, and
    /// count here no longer; those are judged as they come out.
    held: Arc<Sum>,
    now: Duration,
    pushed: u64,
    popped: u64,
    dropped: u64,
    outcome: Outcome,
    /// Of those that came out: marked on the way, and marked before.
    marked: u64,
    marked_before: u64,
    /// By number.
    flows: Vec<Flow>,
    /// Nothing has come out since nothing waited.
    is_fresh: bool,
}

/// What is known of the datagrams of a flow that are long enough to say whose they are.
#[derive(Default)]
struct Flow {
    /// The number last seen.
    seen: Option<u32>,
    /// How many wait, and bytes that came out since none did. Of those that waited when something was dropped nothing is known: it may have been
    /// theirs, and the last.
    waiting: u64,
    sent: usize,
    /// How much had been dropped then.
    drops: u64,
}

/// Bytes of room: a byte below 128 in units of 256, else in units of 16 KiB, so that 255 is 2 MiB.
fn room(byte: u8) -> usize {
    let units = usize::from(byte);
    if units < 128 { units * 256 } else { (units - 127) * 16 * 1024 }
}

/// Runs the steps, then empties the queue.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let limits = QueueLimits {
        bytes: room(source.byte()),
        max_age: Duration::from_millis(u64::from(source.byte()) * 4),
    };
    let mut world = World {
        queue: EgressQueue::with_secret(limits, secret(data.get(..2).unwrap_or(data))),
        limits,
        held: Arc::default(),
        now: Duration::ZERO,
        pushed: 0,
        popped: 0,
        dropped: 0,
        outcome: Outcome::default(),
        marked: 0,
        marked_before: 0,
        flows: (0..256).map(|_| Flow::default()).collect(),
        is_fresh: true,
    };
    while !source.is_empty() && world.pushed < 20_000 {
        let step = source.byte();
        let (what, wait) = (step & 3, step >> 2);
        let is_pop = what > 1;
        let quarters = if is_pop { wait % 32 * 2 } else { wait };
        world.now += Duration::from_micros(250) * u32::from(quarters);
        let only_new = is_pop && wait >= 32;
        match what {
            0 => world.push(source.byte(), usize::from(source.word()) % 9300),
            1 => {
                let (flow, len) = (source.byte(), usize::from(source.word()) % 1600);
                (0..32).for_each(|_| world.push(flow, len));
            }
            2 => world.pop(only_new),
            _ => (0..8).for_each(|_| world.pop(only_new)),
        }
    }
    while !world.queue.is_empty() {
        world.pop(false);
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
    world.pop(false);
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
        if let Some((flow, _)) = flow_and_number(&datagram) {
            self.flow(flow).waiting += 1;
        }
        self.dropped += self.queue.push(self.now, Held::datagram(datagram, &self.held));
        assert!(self.queue.bytes() <= self.limits.bytes, "over the limit after a push");
        self.check_memory();
    }

    fn flow(&mut self, flow: u8) -> &mut Flow {
        let drops = self.dropped + self.outcome.late;
        let known = &mut self.flows[usize::from(flow)];
        if known.drops != drops {
            *known = Flow { seen: known.seen, drops, ..Flow::default() };
        }
        known
    }

    /// The queue says no less than what is there, and lets go of the buffers that most of it came in.
    fn check_memory(&self) {
        let waiting = self.pushed - self.popped - self.dropped - self.outcome.late;
        let least = self.held.bytes.load(Relaxed) + waiting as usize * LEAST_OVERHEAD;
        assert!(least <= self.queue.bytes(), "{least} bytes wait, and the queue says {}", self.queue.bytes());
        assert_eq!(waiting == 0, self.queue.is_empty());
        for (count, (lens, bytes)) in self.held.short.iter().zip(COPIED) {
            let (count, most) = (count.load(Relaxed), bytes / (lens.start + LEAST_OVERHEAD) + 1);
            assert!(count <= most, "{count} datagrams of {lens:?} bytes hold on to what they came in");
        }
    }

    fn pop(&mut self, only_new: bool) {
        let (before, late) = (self.queue.bytes(), self.outcome.late);
        let popped = if only_new {
            self.queue.pop_new(self.now, &mut self.outcome)
        } else {
            self.queue.pop(self.now, &mut self.outcome)
        };
        let Some(datagram) = popped else {
            let is_new = self.is_fresh && self.outcome.late == late;
            assert!(self.queue.is_empty() || only_new && !is_new, "something waits and does not come out");
            self.is_fresh |= !only_new;
            self.check_memory();
            return;
        };
        self.is_fresh = false;
        self.popped += 1;
        let cost = before - self.queue.bytes();
        assert!(
            datagram.len() + LEAST_OVERHEAD <= cost,
            "{} bytes came out that cost {cost}",
            datagram.len()
        );
        self.judge(datagram, only_new);
        self.check_memory();
    }

    /// What must hold for a datagram that came out.
    fn judge(&mut self, datagram: Bytes, only_new: bool) {
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
        let known = self.flow(flow);
        let before = known.seen.replace(number);
        assert!(before.is_none_or(|before| before < number), "a flow's order is lost");
        assert!(
            !only_new || known.sent < NEW_FLOWS_SHARE,
            "flow {flow} has sent {} bytes and is new",
            known.sent
        );
        known.waiting = known.waiting.saturating_sub(1);
        known.sent = if known.waiting == 0 { 0 } else { known.sent + datagram.len() };
    }
}
