//! The queue before a connection: what waits to be sent to one peer, as a pure machine.
//!
//! Flows share the line fairly, new and sparse ones go first, and each is kept from standing (FQ-CoDel, RFC 8290), so that a ping, a game
//! or an ARP request does not wait behind a download and the download itself learns early that the line is full: by a mark where its
//! packets may bear one (ECN, RFC 3168), else by a drop. Everything is bounded in bytes and in time, marks or not, and so is what waits in all queues of
//! an endpoint together ([`QueueTotal`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use softlan_wire::{Datagram, Ecn, HEADER_LEN, decode, ecn, mark_ce};

use crate::codel::Codel;
use crate::flow::{FlowHash, FlowPlaces, PLACES};

// The lists of flows hold places as bytes.
const _: () = assert!(PLACES <= 256);

/// Bytes a flow may send in its turn: a full frame.
const QUANTUM: i64 = 1522;
/// Memory a queued datagram costs beyond its bytes; without it, a flood of tiny frames would hold far more than it counts.
const OVERHEAD: usize = 64;
/// Behind so many bytes a small datagram waits long enough to be worth a copy, below so many bytes: as it came, it holds on to the 8 KiB that
/// arrived with it, and a peer that is slow to take a flood of them would hold on to fifty megabytes.
const LONG_QUEUE: usize = 16 * 1024;
const SMALL: usize = 512;
/// Behind so many bytes a datagram of a middling length is. Those of bulk flows are longer: a copy of each would cost most where there is most to do.
const STANDING_QUEUE: usize = 256 * 1024;
const MIDDLING: usize = 1024;
/// What a queue tells the total of: no less than this at a time, and nothing while it holds less.
const TOLD: usize = 16 * 1024;
/// What a queue may hold when all of them together hold too much.
const SHARE: usize = 64 * 1024;
/// Entries that the list of a flow without any may hold memory for.
const KEPT_ENTRIES: usize = 256;
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

/// Bytes that wait in several queues, as far as they tell: each of them up to [`TOLD`] bytes late.
#[derive(Debug)]
pub struct QueueTotal {
    waiting: AtomicUsize,
    limits: TotalLimits,
}

/// Bounds of a [`QueueTotal`], in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotalLimits {
    /// Beyond it, whatever waits behind others is copied, however long it is, so that it holds no more than itself. What was not copied may hold nine times
    /// as much.
    pub tight: usize,
    /// Beyond it, each queue may hold no more than a small share.
    pub full: usize,
}

impl Default for TotalLimits {
    fn default() -> Self {
        Self { tight: 32 * 1024 * 1024, full: 256 * 1024 * 1024 }
    }
}

impl Default for QueueTotal {
    fn default() -> Self {
        Self::new(TotalLimits::default())
    }
}

impl QueueTotal {
    /// With nothing waiting.
    pub const fn new(limits: TotalLimits) -> Self {
        Self { waiting: AtomicUsize::new(0), limits }
    }

    /// Bytes that wait, with what each datagram costs beyond its own.
    pub fn bytes(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn is_tight(&self) -> bool {
        self.bytes() > self.limits.tight
    }

    fn is_full(&self) -> bool {
        self.bytes() > self.limits.full
    }
}

/// One queue's part of a [`QueueTotal`], until it is dropped.
#[derive(Debug)]
struct Part {
    total: Arc<QueueTotal>,
    told: usize,
}

impl Part {
    #[inline]
    fn tell(&mut self, bytes: usize) {
        if bytes.abs_diff(self.told) >= TOLD {
            self.tell_now(bytes);
        }
    }

    #[cold]
    fn tell_now(&mut self, bytes: usize) {
        self.total.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.total.waiting.fetch_sub(std::mem::replace(&mut self.told, bytes), Ordering::Relaxed);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.total.waiting.fetch_sub(self.told, Ordering::Relaxed);
    }
}

/// What happened to datagrams on their way out; counts only grow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Dropped: they had waited too long, or their flow's queue stood and they could not be marked.
    pub late: u64,
    /// Handed over with a mark, because their flow's queue stood.
    pub marked: u64,
}

/// A flow-fair queue of datagrams (overlay header and whole frame).
#[derive(Debug)]
pub struct EgressQueue {
    limits: QueueLimits,
    places: FlowPlaces,
    /// By place.
    flows: Box<[Flow]>,
    /// Flows that had nothing waiting a while ago: they go first, once.
    new: VecDeque<u8>,
    old: VecDeque<u8>,
    bytes: usize,
    part: Part,
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
        Self::of(limits, Arc::default())
    }

    /// An empty queue, one of those of `total`.
    pub fn of(limits: QueueLimits, total: Arc<QueueTotal>) -> Self {
        Self::with_places(limits, FlowPlaces::default(), total)
    }

    /// One whose flows have the same places each time; see [`FlowHash::with_secret`].
    #[doc(hidden)]
    pub fn with_secret(limits: QueueLimits, secret: [u64; 2]) -> Self {
        Self::with_places(limits, FlowPlaces::new(FlowHash::with_secret(secret)), Arc::default())
    }

    fn with_places(limits: QueueLimits, places: FlowPlaces, total: Arc<QueueTotal>) -> Self {
        Self {
            limits,
            places,
            flows: (0..PLACES).map(|_| Flow::default()).collect(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            bytes: 0,
            part: Part { total, told: 0 },
        }
    }

    /// Takes a datagram in; gives the number of datagrams dropped to make room, from the fattest flow.
    pub fn push(&mut self, now: Duration, datagram: Bytes) -> u64 {
        let frame = datagram.get(HEADER_LEN..).unwrap_or_default();
        let at = self.places.of(frame, |place| {
            let flow = &self.flows[place];
            flow.listed.then_some(flow.waiting.len() as u32)
        });
        let flow = &mut self.flows[at];
        let is_to_copy = self.bytes > LONG_QUEUE && (datagram.len() < SMALL || self.part.total.is_tight())
            || self.bytes > STANDING_QUEUE && datagram.len() < MIDDLING;
        let datagram = if is_to_copy { Bytes::copy_from_slice(&datagram) } else { datagram };
        self.bytes += cost(&datagram);
        flow.bytes += cost(&datagram);
        flow.waiting.push_back(Waiting { datagram, since: now });
        if !flow.listed {
            flow.listed = true;
            flow.deficit = QUANTUM;
            self.new.push_back(at as u8);
        }
        self.part.tell(self.bytes);
        if self.bytes > self.limits.bytes {
            self.make_room(self.limits.bytes)
        } else if self.bytes > SHARE && self.part.total.is_full() {
            self.make_room(SHARE)
        } else {
            0
        }
    }

    /// Drops from the head of the flow that holds the most: the others are not at fault, and its sender learns of it soonest.
    #[cold]
    fn make_room(&mut self, limit: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > limit {
            let Some((at, fattest)) = self.flows.iter_mut().enumerate().max_by_key(|(_, flow)| flow.bytes)
            else {
                break;
            };
            let (before, dropped_before) = (fattest.bytes, dropped);
            let room = self.bytes - limit;
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
            self.places.taken(at, (dropped - dropped_before) as u32);
        }
        self.part.tell(self.bytes);
        dropped
    }

    /// The next datagram to send. What was dropped on the way, or marked, is added to `outcome`.
    pub fn pop(&mut self, now: Duration, outcome: &mut Outcome) -> Option<Bytes> {
        self.next(now, false, outcome)
    }

    /// The next datagram of a flow that was not waiting a moment ago: a ping, a game, an ARP request, or the first frame of anything. `None`
    /// where only others wait.
    pub fn pop_new(&mut self, now: Duration, outcome: &mut Outcome) -> Option<Bytes> {
        self.next(now, true, outcome)
    }

    fn next(&mut self, now: Duration, only_new: bool, outcome: &mut Outcome) -> Option<Bytes> {
        loop {
            let is_new = !self.new.is_empty();
            if only_new && !is_new {
                return None;
            }
            let at = *if is_new { &self.new } else { &self.old }.front()?;
            let flow = &mut self.flows[usize::from(at)];
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.rotate(is_new);
                continue;
            }
            let (before, waited) = (flow.bytes, flow.waiting.len());
            let next = next_of(flow, now, self.limits.max_age, outcome);
            self.bytes -= before - flow.bytes;
            self.part.tell(self.bytes);
            self.places.taken(usize::from(at), (waited - flow.waiting.len()) as u32);
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
                    if flow.waiting.capacity() > KEPT_ENTRIES {
                        flow.waiting = VecDeque::new();
                    }
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

    /// Datagrams that wait.
    pub fn len(&self) -> u64 {
        self.flows.iter().map(|flow| flow.waiting.len() as u64).sum()
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
fn next_of(flow: &mut Flow, now: Duration, max_age: Duration, outcome: &mut Outcome) -> Option<Bytes> {
    while let Some(next) = flow.take() {
        let sojourn = now.saturating_sub(next.since);
        // Too old is too old: who sets the field and does not heed marks gets no more room than anybody else (RFC 3168 section 7).
        if sojourn <= max_age {
            if !flow.codel.signals(now, sojourn, flow.bytes) {
                return Some(next.datagram);
            }
            if let Some(marked) = marked(next.datagram) {
                outcome.marked += 1;
                return Some(marked);
            }
        }
        outcome.late += 1;
    }
    None
}

/// The datagram with its frame marked "congestion experienced", if the frame's sender can be told that way. A fragment's bytes are no frame.
///
/// The bytes are other receivers' too, so the mark goes into a copy. Marks are few.
#[cold]
fn marked(datagram: Bytes) -> Option<Bytes> {
    let Ok(Datagram::Frame { frame, .. }) = decode(&datagram) else { return None };
    match ecn(frame)? {
        Ecn::NotEct => None,
        // By a queue before this one: it says what is to be said.
        Ecn::Ce => Some(datagram),
        Ecn::Ect0 | Ecn::Ect1 => {
            let mut copy = BytesMut::from(&datagram[..]);
            mark_ce(&mut copy[HEADER_LEN..]).then(|| copy.freeze())
        }
    }
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

    #[test]
    fn a_sparse_flow_overtakes_a_bulk_one_and_each_keeps_its_order() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let (bulk, game) = (1, 2);
        for n in 0..50 {
            assert_eq!(queue.push(MS, datagram(bulk, 1400, n)), 0);
        }
        let mut outcome = Outcome::default();
        assert_eq!(tag(queue.pop(MS, &mut outcome)), Some(0));
        assert_eq!(tag(queue.pop(MS, &mut outcome)), Some(1));
        queue.push(MS, datagram(game, 100, 200));
        queue.push(MS, datagram(game, 100, 201));
        let order: Vec<_> = std::iter::from_fn(|| tag(queue.pop(MS, &mut outcome))).collect();
        assert_eq!(&order[..2], [200, 201]);
        assert_eq!(order[2..], (2..50).collect::<Vec<_>>());
        assert_eq!((outcome, queue.is_empty(), queue.bytes()), (Outcome::default(), true, 0));
    }

    #[test]
    fn only_sparse_flows_are_new() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let (bulk, game) = (1, 2);
        let mut outcome = Outcome::default();
        for n in 0..5 {
            queue.push(MS, datagram(bulk, 1400, n));
        }
        // Nobody can tell yet what it will become; from its second full frame on it is not new.
        assert_eq!(tag(queue.pop_new(MS, &mut outcome)), Some(0));
        assert_eq!(tag(queue.pop_new(MS, &mut outcome)), Some(1));
        assert_eq!(tag(queue.pop_new(MS, &mut outcome)), None);
        queue.push(MS, datagram(game, 100, 200));
        assert_eq!(tag(queue.pop_new(MS, &mut outcome)), Some(200));
        assert_eq!(tag(queue.pop_new(MS, &mut outcome)), None);
        // The rest waits where it was, in its order, and the empty flow is taken off the list.
        let rest: Vec<_> = std::iter::from_fn(|| tag(queue.pop(MS, &mut outcome))).collect();
        assert_eq!((rest, queue.is_empty()), (vec![2, 3, 4], true));
        assert!(queue.new.is_empty() && queue.old.is_empty());
    }

    #[test]
    fn two_bulk_flows_share_by_bytes() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let (a, b) = (1, 2);
        for _ in 0..200 {
            queue.push(MS, datagram(a, 1400, 1));
        }
        for _ in 0..400 {
            queue.push(MS, datagram(b, 700, 2));
        }
        let mut outcome = Outcome::default();
        let mut bytes = [0; 3];
        for _ in 0..150 {
            let next = queue.pop(MS, &mut outcome).unwrap();
            bytes[usize::from(*next.last().unwrap())] += next.len();
        }
        let ratio = bytes[1] as f64 / bytes[2] as f64;
        assert!((0.9..1.1).contains(&ratio), "{bytes:?}");
    }

    #[test]
    fn a_full_queue_drops_from_the_fattest_flow_only() {
        let mut queue = EgressQueue::new(QueueLimits { bytes: 100_000, ..QueueLimits::default() });
        let (flood, game) = (1, 2);
        queue.push(MS, datagram(game, 100, 77));
        let dropped: u64 = (0..1000).map(|_| queue.push(MS, datagram(flood, 1400, 1))).sum();
        assert!(dropped > 900 && queue.bytes() <= 100_000);
        let mut outcome = Outcome::default();
        let kept = std::iter::from_fn(|| tag(queue.pop(MS, &mut outcome))).collect::<Vec<_>>();
        assert_eq!(kept.iter().filter(|tag| **tag == 77).count(), 1);
        assert_eq!(kept.len() as u64 + dropped, 1001);
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_counted() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        queue.push(Duration::ZERO, datagram(1, 1400, 1));
        queue.push(60 * MS, datagram(1, 1400, 2));
        let mut outcome = Outcome::default();
        assert_eq!(tag(queue.pop(130 * MS, &mut outcome)), Some(2));
        assert_eq!((outcome, queue.is_empty()), (Outcome { late: 1, marked: 0 }, true));
    }

    #[test]
    fn a_queue_that_stands_is_dropped_from_before_it_is_full() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let mut outcome = Outcome::default();
        // 2 in, 1 out a millisecond: it would grow without end.
        for ms in 0..400 {
            queue.push(ms * MS, datagram(1, 1400, 1));
            queue.push(ms * MS, datagram(1, 1400, 1));
            queue.pop(ms * MS, &mut outcome);
        }
        assert!(outcome.late > 0 && outcome.marked == 0);
    }

    #[test]
    fn a_datagram_larger_than_all_the_room_is_dropped_itself() {
        let mut queue = EgressQueue::new(QueueLimits { bytes: 1000, ..QueueLimits::default() });
        assert_eq!(queue.push(MS, datagram(1, 1400, 1)), 1);
        let mut outcome = Outcome::default();
        assert_eq!((queue.pop(MS, &mut outcome), queue.bytes()), (None, 0));
        queue.push(MS, datagram(1, 500, 2));
        assert_eq!(tag(queue.pop(MS, &mut outcome)), Some(2));
    }

    /// A whole frame's datagram with a TCP packet of IPv4, 1400 bytes, whose ECN field is `bits`.
    fn packet(bits: u8) -> Bytes {
        let mut datagram = vec![0x10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
        datagram.extend([0x45, bits, 0x05, 0x66, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        datagram.resize(1400, 0x5a);
        datagram.into()
    }

    /// A queue that stands for `ms` milliseconds because two come in while one goes out; gives what came out.
    fn standing(datagram: &Bytes, ms: u32, limits: QueueLimits) -> (Vec<Bytes>, Outcome) {
        let (mut queue, mut outcome) = (EgressQueue::new(limits), Outcome::default());
        let mut sent = Vec::new();
        for ms in 0..ms {
            queue.push(ms * MS, datagram.clone());
            queue.push(ms * MS, datagram.clone());
            sent.extend(queue.pop(ms * MS, &mut outcome));
        }
        (sent, outcome)
    }

    /// Nothing but CoDel acts.
    const ENDLESS: QueueLimits = QueueLimits { bytes: usize::MAX, max_age: Duration::MAX };

    #[test]
    fn a_standing_queue_is_marked_where_senders_heed_it_and_else_dropped_from_as_often() {
        let (sent, dropping) = standing(&packet(0b00), 2000, ENDLESS);
        assert!(dropping.late > 30 && dropping.marked == 0, "{dropping:?}");
        assert!(sent.iter().all(|datagram| datagram == &packet(0b00)));
        for bits in [0b01, 0b10] {
            let (sent, marking) = standing(&packet(bits), 2000, ENDLESS);
            assert_eq!(marking, Outcome { late: 0, marked: dropping.late });
            let (marked, plain): (Vec<_>, Vec<_>) =
                sent.iter().partition(|datagram| ecn(&datagram[HEADER_LEN..]) == Some(Ecn::Ce));
            assert_eq!(marked.len() as u64, marking.marked);
            assert!(plain.iter().all(|datagram| *datagram == &packet(bits)));
        }
    }

    #[test]
    fn what_bears_a_mark_already_is_sent_as_it_is() {
        let (sent, outcome) = standing(&packet(0b11), 500, ENDLESS);
        assert!(outcome.marked > 0 && outcome.late == 0, "{outcome:?}");
        assert!(sent.iter().all(|datagram| datagram == &packet(0b11)));
    }

    #[test]
    fn a_mark_is_made_in_a_copy() {
        let shared = packet(0b10);
        let before = shared.to_vec();
        let marked = marked(shared.clone()).unwrap();
        assert_eq!(shared, before);
        assert_ne!(marked, before);
        assert_eq!(marked[..HEADER_LEN], before[..HEADER_LEN]);
    }

    #[test]
    fn fragments_and_what_is_not_ip_are_dropped_as_ever() {
        // A fragment whose bytes would be a frame's with an ECN-capable packet, had it the header of a whole one.
        let fragment = [&[0x11, 0x01, 0, 1, 0, 0, 0, 7], &packet(0b10)[HEADER_LEN..]].concat();
        for datagram in [Bytes::from(fragment), datagram(1, 1400, 1)] {
            let (_, outcome) = standing(&datagram, 500, ENDLESS);
            assert!(outcome.late > 0 && outcome.marked == 0, "{outcome:?}");
        }
    }

    #[test]
    fn neither_age_nor_room_is_extended_for_who_may_be_marked() {
        let limits = QueueLimits { bytes: 400_000, ..QueueLimits::default() };
        let (mut queue, mut outcome) = (EgressQueue::new(limits), Outcome::default());
        let full: u64 = (0..400).map(|_| queue.push(MS, packet(0b10))).sum();
        assert!(full > 0 && queue.bytes() <= limits.bytes);
        assert_eq!(queue.pop(102 * MS, &mut outcome), None);
        assert_eq!((outcome.marked, outcome.late + full), (0, 400));
    }

    #[test]
    fn what_has_come_together_is_not_kept_together_for_long() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let arrived = Bytes::from(vec![0; 16 * 1024]);
        for (len, longest) in [(SMALL - 1, LONG_QUEUE), (MIDDLING - 1, STANDING_QUEUE)] {
            for _ in 0..900 {
                queue.push(MS, arrived.slice(..len));
            }
            let mut outcome = Outcome::default();
            let waiting: Vec<_> = std::iter::from_fn(|| queue.pop(MS, &mut outcome)).collect();
            let held: usize = waiting.iter().filter(|datagram| !datagram.is_unique()).map(Bytes::len).sum();
            assert!(waiting.len() == 900 && held <= longest + len, "{held}");
        }
    }

    #[test]
    fn all_queues_together_hold_no_more_than_they_may() {
        const QUEUES: usize = 8;
        let limits = TotalLimits { tight: 512 * 1024, full: 4 * 1024 * 1024 };
        let total = Arc::new(QueueTotal::new(limits));
        let mut queues: Vec<_> =
            (0..QUEUES).map(|_| EgressQueue::of(QueueLimits::default(), total.clone())).collect();
        let arrived = Bytes::from(vec![0; 8 * 1024]);
        let (mut dropped, mut most) = (0, 0);
        for _ in 0..900 {
            for queue in &mut queues {
                dropped += queue.push(MS, arrived.slice(..MIDDLING));
                most = most.max(queue.bytes());
            }
            let holds: usize = queues.iter().map(EgressQueue::bytes).sum();
            assert!(holds <= limits.full + QUEUES * (SHARE + TOLD), "{holds}");
            assert!(total.bytes().abs_diff(holds) <= QUEUES * TOLD);
        }
        // Until there is no room, each may hold what it could alone.
        assert!(dropped > 0 && most > 4 * SHARE, "{dropped} {most}");
        let held: usize = queues.iter().map(shared_bytes).sum();
        assert!(held <= limits.tight + QUEUES * (LONG_QUEUE + TOLD + MIDDLING), "{held}");
        // A queue that is emptied, or dropped, holds nothing any more.
        let mut outcome = Outcome::default();
        for queue in &mut queues[..QUEUES / 2] {
            while queue.pop(MS, &mut outcome).is_some() {}
        }
        assert!(total.bytes() > TOLD);
        drop(queues);
        assert_eq!((total.bytes(), outcome), (0, Outcome::default()));
    }

    /// Bytes of what waits as it came.
    fn shared_bytes(queue: &EgressQueue) -> usize {
        let waiting = queue.flows.iter().flat_map(|flow| &flow.waiting);
        waiting.filter(|next| !next.datagram.is_unique()).map(|next| next.datagram.len()).sum()
    }

    #[test]
    fn one_long_queue_is_no_trouble_to_a_total_with_room() {
        let total = Arc::<QueueTotal>::default();
        let mut queue = EgressQueue::of(QueueLimits::default(), total.clone());
        let full: u64 = (0..2000).map(|_| queue.push(MS, datagram(1, 1400, 1))).sum();
        assert!(full > 0 && queue.bytes() > QueueLimits::default().bytes - 32 * 1024);
        assert!(total.bytes().abs_diff(queue.bytes()) < TOLD);
    }

    #[test]
    fn a_flow_that_is_over_gives_its_memory_back() {
        let mut queue = EgressQueue::new(QueueLimits::default());
        let mut outcome = Outcome::default();
        for flow in 0..20 {
            for _ in 0..5000 {
                queue.push(MS, datagram(flow, 20, 1));
            }
            assert_eq!(queue.len(), 5000);
            while queue.pop(MS, &mut outcome).is_some() {}
        }
        assert_eq!((queue.len(), outcome), (0, Outcome::default()));
        assert!(queue.flows.iter().all(|flow| flow.waiting.capacity() <= KEPT_ENTRIES));
    }
}
