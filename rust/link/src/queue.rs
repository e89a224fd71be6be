//! The queue before a connection: what waits to be sent to one peer, as a pure machine.
//!
//! Short in bytes and in time, so that a slow path makes drops and not delay; small frames (ARP, game packets, TCP ACKs) go first,
//! so that they do not wait behind a download.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

/// A datagram (overlay header and whole frame) that waits to be sent.
#[derive(Debug, Clone)]
struct Waiting {
    datagram: Bytes,
    since: Duration,
}

/// Bounds of an [`EgressQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Datagrams up to this many bytes use the express lane.
    pub express_size: usize,
    /// Bytes each lane may hold.
    pub lane_bytes: usize,
    /// A datagram that waited longer is dropped instead of sent.
    pub max_age: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { express_size: 256, lane_bytes: 512 * 1024, max_age: Duration::from_millis(100) }
    }
}

/// Two bounded first-in first-out lanes: express before bulk.
#[derive(Debug, Default)]
pub struct EgressQueue {
    limits: QueueLimits,
    express: Lane,
    bulk: Lane,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// Memory a queued datagram costs beyond its bytes; without it, a flood of tiny frames would hold far more than it counts.
const OVERHEAD: usize = 64;

impl EgressQueue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes a datagram in; `false` when its lane is full and the datagram is dropped.
    pub fn push(&mut self, now: Duration, datagram: Bytes) -> bool {
        let lane =
            if datagram.len() <= self.limits.express_size { &mut self.express } else { &mut self.bulk };
        let cost = datagram.len() + OVERHEAD;
        if lane.bytes + cost > self.limits.lane_bytes {
            return false;
        }
        lane.bytes += cost;
        lane.waiting.push_back(Waiting { datagram, since: now });
        true
    }

    /// The next datagram to send. `too_old` is raised by the number of datagrams dropped on the way because they waited too long.
    pub fn pop(&mut self, now: Duration, too_old: &mut u64) -> Option<Bytes> {
        let max_age = self.limits.max_age;
        for lane in [&mut self.express, &mut self.bulk] {
            while let Some(next) = lane.waiting.pop_front() {
                lane.bytes -= next.datagram.len() + OVERHEAD;
                if now.saturating_sub(next.since) <= max_age {
                    return Some(next.datagram);
                }
                *too_old += 1;
            }
        }
        None
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.express.waiting.is_empty() && self.bulk.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn frame(len: usize, tag: u8) -> Bytes {
        Bytes::from(vec![tag; len])
    }

    #[test]
    fn small_frames_overtake_large_ones_and_order_is_kept_within_a_lane() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        for (len, tag) in [(1400, 1), (1400, 2), (60, 3), (60, 4)] {
            assert!(queue.push(MS, frame(len, tag)));
        }
        let mut old = 0;
        let order: Vec<u8> = std::iter::from_fn(|| queue.pop(MS, &mut old)).map(|f| f[0]).collect();
        assert_eq!((order, old), (vec![3, 4, 1, 2], 0));
    }

    #[test]
    fn a_full_lane_refuses_and_recovers() {
        let limits = QueueLimits { lane_bytes: 4000, ..QueueLimits::default() };
        let mut queue = EgressQueue::new(limits);
        assert!(queue.push(MS, frame(1400, 1)));
        assert!(queue.push(MS, frame(1400, 2)));
        assert!(!queue.push(MS, frame(1400, 3)));
        assert!(queue.push(MS, frame(60, 4)), "the express lane has room of its own");
        let mut old = 0;
        assert!(queue.pop(MS, &mut old).is_some() && queue.pop(MS, &mut old).is_some());
        assert!(queue.push(MS, frame(1400, 5)));
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_counted() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        assert!(queue.push(Duration::ZERO, frame(1400, 1)));
        assert!(queue.push(60 * MS, frame(1400, 2)));
        let mut old = 0;
        assert_eq!(queue.pop(130 * MS, &mut old).unwrap()[0], 2);
        assert_eq!((old, queue.is_empty()), (1, true));
    }
}
