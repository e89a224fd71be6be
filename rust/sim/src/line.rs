//! One direction of a connection: the real queue and fragments before a line that loses, delays, reorders, duplicates,
//! shrinks and goes dark.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use softlan_link::queue::{EgressQueue, Outcome, QueueLimits};
use softlan_wire::{Datagram, decode, fragments};

use crate::Broken;
use crate::books::{Stage, holds};
use crate::random::Random;

/// How bad the lines of a run are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss_permille: u64,
    pub(crate) duplicate_permille: u64,
    pub(crate) jitter_ms: u64,
}

/// A line, and the sender's queue before it.
#[derive(Debug)]
pub(crate) struct Line {
    weather: Weather,
    delay: Duration,
    nanos_per_byte: u64,
    queue: EgressQueue,
    limits: QueueLimits,
    next_frame_id: u32,
    /// Bytes of the largest datagram the path carries, and what the sender believes it to be.
    pub(crate) path_size: usize,
    pub(crate) known_size: usize,
    /// Until when nothing passes.
    pub(crate) dark_until: Duration,
    pub(crate) is_pumping: bool,
    /// The frame that the queue marked when it gave up the last one, whatever became of it then.
    pub(crate) marked: Option<Bytes>,
    /// Frames: queued, sent, dropped.
    pub(crate) egress: Stage,
    /// Datagrams: put on the line (copies included), arrived, lost.
    pub(crate) wire: Stage,
    /// Copies among them, and those that arrive before one that went earlier.
    pub(crate) duplicated: u64,
    pub(crate) overtook: u64,
    /// When the last of those under way arrives.
    latest: Duration,
}

/// A datagram on its way: when it arrives, and what it is.
pub(crate) type Arrival = (Duration, Bytes);

impl Line {
    pub(crate) fn new(random: &mut Random, weather: Weather) -> Self {
        let limits = QueueLimits::default();
        Self {
            weather,
            delay: Duration::from_millis(random.within(1..60)),
            // 80 Mbit/s down to 1 Mbit/s.
            nanos_per_byte: *random.pick(&[100, 800, 8000]).unwrap_or(&800),
            queue: EgressQueue::with_secret(limits, [random.clone().next(); 2]),
            limits,
            next_frame_id: random.next() as u32,
            path_size: 1434,
            known_size: 1434,
            dark_until: Duration::ZERO,
            is_pumping: false,
            marked: None,
            egress: Stage::default(),
            wire: Stage::default(),
            duplicated: 0,
            overtook: 0,
            latest: Duration::ZERO,
        }
    }

    /// Queues header and frame.
    pub(crate) fn send(&mut self, now: Duration, datagram: Bytes) -> Result<(), Broken> {
        self.egress.entered += 1;
        let dropped = self.queue.push(now, datagram);
        self.egress.drop_many("queue-full", dropped);
        holds(self.queue.bytes() <= self.limits.bytes, || {
            format!("a queue holds {} bytes", self.queue.bytes())
        })
    }

    /// Takes one frame out of the queue and onto the line. Gives what will arrive, and when the line is free again; `None`: the queue is
    /// empty.
    pub(crate) fn pump(&mut self, now: Duration, random: &mut Random) -> Option<(Vec<Arrival>, Duration)> {
        let mut outcome = Outcome::default();
        // Now and then the window has room for new flows alone, and for the others a moment later.
        let new = if random.happens(300) { self.queue.pop_new(now, &mut outcome) } else { None };
        let next = new.or_else(|| self.queue.pop(now, &mut outcome));
        self.egress.drop_many("queue-delay", outcome.late);
        let datagram = next?;
        self.marked = (outcome.marked > 0).then(|| datagram.clone());
        let mut arrivals = Vec::new();
        let mut free = now;
        if datagram.len() <= self.known_size {
            self.egress.left += 1;
            self.put(&mut free, datagram, random, &mut arrivals);
            return Some((arrivals, free));
        }
        let parts = match decode(&datagram) {
            Ok(Datagram::Frame { peer, frame }) => {
                fragments(peer, self.next_frame_id, frame, self.known_size).ok()
            }
            _ => None,
        };
        let Some(parts) = parts else {
            self.egress.drop_one("too-big");
            return Some((arrivals, free));
        };
        self.egress.left += 1;
        self.next_frame_id = self.next_frame_id.wrapping_add(1);
        for part in parts {
            let mut bytes = BytesMut::with_capacity(part.header.len() + part.part.len());
            bytes.put_slice(&part.header);
            bytes.put_slice(part.part);
            self.put(&mut free, bytes.freeze(), random, &mut arrivals);
        }
        Some((arrivals, free))
    }

    /// Puts one datagram on the line; `free` is when it is free, before and after.
    pub(crate) fn put(
        &mut self,
        free: &mut Duration,
        datagram: Bytes,
        random: &mut Random,
        arrivals: &mut Vec<Arrival>,
    ) {
        *free += Duration::from_nanos(datagram.len() as u64 * self.nanos_per_byte);
        let copies = 1 + u64::from(random.happens(self.weather.duplicate_permille));
        self.duplicated += copies - 1;
        for _ in 0..copies {
            self.wire.entered += 1;
            if *free < self.dark_until {
                self.wire.drop_one("dark");
            } else if datagram.len() > self.path_size {
                self.wire.drop_one("above-path-mtu");
            } else if random.happens(self.weather.loss_permille) {
                self.wire.drop_one("lost");
            } else {
                let jitter = Duration::from_micros(random.within(0..self.weather.jitter_ms * 1000 + 1));
                let due = *free + self.delay + jitter;
                self.overtook += u64::from(due < self.latest);
                self.latest = self.latest.max(due);
                arrivals.push((due, datagram.clone()));
            }
        }
    }

    /// Empties the queue of a connection that is gone.
    pub(crate) fn give_up(&mut self, now: Duration) {
        let mut outcome = Outcome::default();
        while self.queue.pop(now, &mut outcome).is_some() {
            self.egress.drop_one("connection-gone");
        }
        self.egress.drop_many("queue-delay", outcome.late);
    }

    /// Closes the books of a line on which nothing is under way.
    pub(crate) fn close(&self, name: &str) -> Result<(), Broken> {
        holds(self.queue.is_empty(), || {
            format!("{name}: {} bytes are left in the queue", self.queue.bytes())
        })?;
        self.egress.close(&format!("{name}, frames"), 0)?;
        self.wire.close(&format!("{name}, datagrams"), 0)
    }
}
