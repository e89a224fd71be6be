//! The queue before a connection as a state machine: what goes in comes out, is dropped and counted, or waits; memory is bounded, and a
//! flow keeps its order.
//!
//! Input: bytes of room in units of 256 and the age limit in units of 4 ms (a byte each), then steps: a byte whose low two bits say
//! what (push, push a burst, pop, pop some) and the others how long to wait before in quarter milliseconds; a push takes a byte for
//! the flow and two for the length.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use crate::egress::{EgressQueue, QueueLimits};
use crate::source::Source;

/// What a queued datagram costs beyond its bytes, at least, so that tiny ones cannot hold unbounded memory.
const LEAST_OVERHEAD: usize = 32;

struct World {
    queue: EgressQueue,
    limits: QueueLimits,
    now: Duration,
    pushed: u64,
    popped: u64,
    dropped: u64,
    late: u64,
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
        now: Duration::ZERO,
        pushed: 0,
        popped: 0,
        dropped: 0,
        late: 0,
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
    assert_eq!(world.pushed, world.popped + world.dropped + world.late, "a datagram got lost uncounted");
    world.pop();
}

impl World {
    /// A datagram of the flow: overlay header, a frame of two MACs and a type, a number; cut to `len` bytes.
    fn push(&mut self, flow: u8, len: usize) {
        let mut datagram = vec![0; len.max(22)];
        datagram[4..18].copy_from_slice(&[2, 0, 0, 0, 0, flow, 2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
        datagram[18..22].copy_from_slice(&(self.pushed as u32).to_be_bytes());
        if len < 22 {
            datagram.truncate(len);
        }
        self.pushed += 1;
        self.dropped += self.queue.push(self.now, Bytes::from(datagram));
        assert!(self.queue.bytes() <= self.limits.bytes, "over the limit after a push");
        let waiting = self.pushed - self.popped - self.dropped - self.late;
        assert!(waiting as usize * LEAST_OVERHEAD <= self.queue.bytes(), "datagrams that cost nothing");
        assert_eq!(waiting == 0, self.queue.is_empty());
    }

    fn pop(&mut self) {
        let Some(datagram) = self.queue.pop(self.now, &mut self.late) else {
            assert!(self.queue.is_empty(), "something waits and does not come out");
            return;
        };
        self.popped += 1;
        let &[flow, .., a, b, c, d] = datagram.get(9..22).unwrap_or_default() else { return };
        let number = u32::from_be_bytes([a, b, c, d]);
        let before = self.seen.insert(flow, number);
        assert!(before.is_none_or(|before| before < number), "a flow's order is lost");
    }
}
