//! The queue before a connection: what waits to be sent to one peer, as a pure machine.
//!
//! Flows share the line fairly, new and sparse ones go first, and each is kept from standing (FQ-CoDel, RFC 8290), so that a ping, a game
//! or an ARP request does not wait behind a download and the download itself learns early that the line is full. Everything
//! is bounded in bytes and in time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use softlan_wire::HEADER_LEN;

use crate::codel::Codel;
use crate::flow::FlowHash;

/// Flows are told apart by a hash of this many values. With a hundred of them, one in three shares its queue with another.
const FLOWS: usize = 128;
/// Bytes a flow may send in its turn: a full frame.
const QUANTUM: i64 = 1522;
/// Memory a queued datagram costs beyond its bytes; without it, a flood of tiny frames would hold far more than it counts.
const OVERHEAD: usize = 64;
/// Behind so many bytes a small datagram waits long enough to be worth a copy, below so many bytes: as it came, it holds on to the 64 KiB that
/// arrived with it, and a peer that is slow to take a flood of them would hold on to hundreds of megabytes.
const LONG_QUEUE: usize = 16 * 1024;
const SMALL: usize = 512;
/// Datagrams dropped at once from the fattest flow when there is no room, so that finding it is paid for.
const BATCH_DROP: usize = 16;

/// Bounds of an [`EgressQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes all flows may hold together.
    pub bytes: usize,
    /// A datagram that waited longer is dropped instead of sent, whatever its flow.
    pub max_age: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { bytes: 1024 * 1024, max_age: Duration::from_millis(100) }
    }
}

/// A flow-fair queue of datagrams (overlay header and whole frame).
#[derive(Debug)]
pub struct EgressQueue {
    limits: QueueLimits,
    hash: FlowHash,
    flows: Box<[Flow]>,
    /// Flows that had nothing waiting a while ago: they go first, once.
    new: VecDeque<u8>,
    old: VecDeque<u8>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Flow {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    deficit: i64,
    listed: bool,
    codel: Codel,
}

#[derive(Debug)]
struct Waiting {
    datagram: Bytes,
    since: Duration,
}

fn cost(datagram: &Bytes) -> usize {
    datagram.len() + OVERHEAD
}

impl Flow {
    fn take(&mut self) -> Option<Waiting> {
        let next = self.waiting.pop_front()?;
        self.bytes -= cost(&next.datagram);
        Some(next)
    }
}

impl EgressQueue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            hash: FlowHash::default(),
            flows: (0..FLOWS).map(|_| Flow::default()).collect(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes a datagram in; gives the number of datagrams dropped to make room, from the fattest flow.
    pub fn push(&mut self, now: Duration, datagram: Bytes) -> u64 {
        let frame = datagram.get(HEADER_LEN..).unwrap_or_default();
        let at = (self.hash.of(frame) % FLOWS as u64) as u8;
        let flow = &mut self.flows[usize::from(at)];
        let is_to_copy = self.bytes > LONG_QUEUE && datagram.len() < SMALL;
        let datagram = if is_to_copy { Bytes::copy_from_slice(&datagram) } else { datagram };
        self.bytes += cost(&datagram);
        flow.bytes += cost(&datagram);
        flow.waiting.push_back(Waiting { datagram, since: now });
        if !flow.listed {
            flow.listed = true;
            flow.deficit = QUANTUM;
            self.new.push_back(at);
        }
        if self.bytes > self.limits.bytes { self.make_room() } else { 0 }
    }

    /// Drops from the head of the flow that holds the most: the others are not at fault, and its sender learns of it soonest.
    #[cold]
    fn make_room(&mut self) -> u64 {
        let mut dropped = 0;
        while self.bytes > self.limits.bytes {
            let Some(fattest) = self.flows.iter_mut().max_by_key(|flow| flow.bytes) else { break };
            let before = fattest.bytes;
            let room = self.bytes - self.limits.bytes;
            for _ in 0..BATCH_DROP {
                // Its last one stays, unless that alone is too much: a flow is not to be starved by the rule against fat ones.
                if fattest.waiting.len() <= 1 && before - fattest.bytes >= room || fattest.take().is_none() {
                    break;
                }
                dropped += 1;
            }
            if fattest.bytes == before {
                break;
            }
            self.bytes -= before - fattest.bytes;
        }
        dropped
    }

    /// The next datagram to send. `late` is raised by the number of datagrams dropped on the way because they had waited too long.
    pub fn pop(&mut self, now: Duration, late: &mut u64) -> Option<Bytes> {
        loop {
            let is_new = !self.new.is_empty();
            let at = *if is_new { &self.new } else { &self.old }.front()?;
            let flow = &mut self.flows[usize::from(at)];
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.rotate(is_new);
                continue;
            }
            let before = flow.bytes;
            let next = next_of(flow, now, self.limits.max_age, late);
            self.bytes -= before - flow.bytes;
            match next {
                Some(datagram) => {
                    flow.deficit -= datagram.len() as i64;
                    return Some(datagram);
                }
                // A new flow that is empty waits at the end of the old ones once, or it could stay new for ever by sending just
                // enough (RFC 8290 section 4.2).
                None if is_new && !self.old.is_empty() => self.rotate(true),
                None => {
                    flow.listed = false;
                    if is_new { &mut self.new } else { &mut self.old }.pop_front();
                }
            }
        }
    }

    /// Moves the flow whose turn it was to the end of the old ones.
    fn rotate(&mut self, is_new: bool) {
        let list = if is_new { &mut self.new } else { &mut self.old };
        if let Some(at) = list.pop_front() {
            self.old.push_back(at);
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait, with what each datagram costs beyond its own.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The first datagram of a flow that is worth sending.
fn next_of(flow: &mut Flow, now: Duration, max_age: Duration, late: &mut u64) -> Option<Bytes> {
    while let Some(next) = flow.take() {
        let sojourn = now.saturating_sub(next.since);
        if sojourn <= max_age && !flow.codel.drops(now, sojourn, flow.bytes) {
            return Some(next.datagram);
        }
        *late += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A datagram of `len` bytes of the flow `flow`, marked with `tag` in its last byte.
    fn datagram(flow: u8, len: usize, tag: u8) -> Bytes {
        let mut datagram = vec![0; len];
        datagram[HEADER_LEN..HEADER_LEN + 14]
            .copy_from_slice(&[2, 0, 0, 0, 0, flow, 2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
        *datagram.last_mut().unwrap() = tag;
        datagram.into()
    }

    fn tag(datagram: Option<Bytes>) -> Option<u8> {
        datagram.and_then(|d| d.last().copied())
    }

    /// Two flows that do not share a queue, for whatever secret the hash drew.
    fn two_flows(queue: &EgressQueue) -> (u8, u8) {
        let slot = |flow| queue.hash.of(&datagram(flow, 100, 0)[HEADER_LEN..]) % FLOWS as u64;
        let other = (2..255).find(|flow| slot(*flow) != slot(1)).unwrap();
        (1, other)
    }

    #[test]
    fn a_sparse_flow_overtakes_a_bulk_one_and_each_keeps_its_order() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let (bulk, game) = two_flows(&queue);
        for n in 0..50 {
            assert_eq!(queue.push(MS, datagram(bulk, 1400, n)), 0);
        }
        let mut late = 0;
        assert_eq!(tag(queue.pop(MS, &mut late)), Some(0));
        assert_eq!(tag(queue.pop(MS, &mut late)), Some(1));
        queue.push(MS, datagram(game, 100, 200));
        queue.push(MS, datagram(game, 100, 201));
        let order: Vec<_> = std::iter::from_fn(|| tag(queue.pop(MS, &mut late))).collect();
        assert_eq!(&order[..2], [200, 201]);
        assert_eq!(order[2..], (2..50).collect::<Vec<_>>());
        assert_eq!((late, queue.is_empty(), queue.bytes()), (0, true, 0));
    }

    #[test]
    fn two_bulk_flows_share_by_bytes() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let (a, b) = two_flows(&queue);
        for _ in 0..200 {
            queue.push(MS, datagram(a, 1400, 1));
        }
        for _ in 0..400 {
            queue.push(MS, datagram(b, 700, 2));
        }
        let mut late = 0;
        let mut bytes = [0; 3];
        for _ in 0..150 {
            let next = queue.pop(MS, &mut late).unwrap();
            bytes[usize::from(*next.last().unwrap())] += next.len();
        }
        let ratio = bytes[1] as f64 / bytes[2] as f64;
        assert!((0.9..1.1).contains(&ratio), "{bytes:?}");
    }

    #[test]
    fn a_full_queue_drops_from_the_fattest_flow_only() {
        let mut queue = EgressQueue::new(QueueLimits { bytes: 100_000, ..QueueLimits::default() });
        let (flood, game) = two_flows(&queue);
        queue.push(MS, datagram(game, 100, 77));
        let dropped: u64 = (0..1000).map(|_| queue.push(MS, datagram(flood, 1400, 1))).sum();
        assert!(dropped > 900 && queue.bytes() <= 100_000);
        let mut late = 0;
        let kept = std::iter::from_fn(|| tag(queue.pop(MS, &mut late))).collect::<Vec<_>>();
        assert_eq!(kept.iter().filter(|tag| **tag == 77).count(), 1);
        assert_eq!(kept.len() as u64 + dropped, 1001);
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_counted() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        queue.push(Duration::ZERO, datagram(1, 1400, 1));
        queue.push(60 * MS, datagram(1, 1400, 2));
        let mut late = 0;
        assert_eq!(tag(queue.pop(130 * MS, &mut late)), Some(2));
        assert_eq!((late, queue.is_empty()), (1, true));
    }

    #[test]
    fn a_queue_that_stands_is_dropped_from_before_it_is_full() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let mut late = 0;
        // 2 in, 1 out a millisecond: it would grow without end.
        for ms in 0..400 {
            queue.push(ms * MS, datagram(1, 1400, 1));
            queue.push(ms * MS, datagram(1, 1400, 1));
            queue.pop(ms * MS, &mut late);
        }
        assert!(late > 0);
    }

    #[test]
    fn a_datagram_larger_than_all_the_room_is_dropped_itself() {
        let mut queue = EgressQueue::new(QueueLimits { bytes: 1000, ..QueueLimits::default() });
        assert_eq!(queue.push(MS, datagram(1, 1400, 1)), 1);
        let mut late = 0;
        assert_eq!((queue.pop(MS, &mut late), queue.bytes()), (None, 0));
        queue.push(MS, datagram(1, 500, 2));
        assert_eq!(tag(queue.pop(MS, &mut late)), Some(2));
    }
}
