//! The frame-carrying half of a connection: frames in order of urgency out ([`Cable`]), datagrams checked and reassembled in
//! ([`Inbound`]).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::Datagrams;
use softlan_switch::{Counters, DropReason};
use softlan_wire::{
    Datagram, HEADER_LEN, PeerId, Reassembler, ReassemblyLimits, WireError, decode, fragments, write_header,
};

use crate::connection::Connection;
use crate::engine::ReadyMark;
use crate::queue::{EgressQueue, Outcome, QueueLimits};

/// Time since a start of our own, as the pure parts take it.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Time since the clock was made.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What is sent to one peer: frames in order of urgency, taken by the connection's loop as the line takes them.
#[derive(Debug)]
pub struct Cable {
    mark: Arc<ReadyMark>,
    takes_fragments: bool,
    counters: Arc<Counters>,
    clock: Clock,
    /// `None` once nothing is sent any more.
    queue: Mutex<Option<EgressQueue>>,
    next_frame_id: AtomicU32,
}

/// Bytes that QUIC may be given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// For whatever is next.
    pub(crate) for_all: usize,
    /// Beyond that, for flows that were not waiting a moment ago.
    pub(crate) for_new: usize,
    /// What each datagram takes of it beyond its own bytes.
    pub(crate) packet_cost: usize,
}

/// What one [`Cable::fill`] moved, so that the counters are raised once.
#[derive(Debug, Default)]
struct Moved {
    frames: u64,
    bytes: u64,
    datagrams: u64,
    fragments: u64,
    too_big: u64,
    queue: Outcome,
}

impl Cable {
    /// A cable over `connection`; `counters` count what it sends and drops.
    pub(crate) fn new(
        connection: &Connection,
        takes_fragments: bool,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> Arc<Self> {
        let mark = connection.link().mark().clone();
        let queue = EgressQueue::of(QueueLimits::default(), mark.queue_total().clone());
        Arc::new(Self {
            mark,
            takes_fragments,
            counters,
            clock,
            queue: Mutex::new(Some(queue)),
            next_frame_id: AtomicU32::new(0),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Option<EgressQueue>> {
        // The queue is consistent between any two statements that could panic.
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Queues a datagram (overlay header and whole frame). A full queue drops from its fattest flow, counted; one that is closed drops all.
    pub fn send(&self, now: Duration, datagram: Bytes) {
        let dropped = match &mut *self.queue() {
            Some(queue) => queue.push(now, datagram),
            None => return self.counters.add_drops(DropReason::NotConnected, 1),
        };
        if dropped > 0 {
            self.counters.add_drops(DropReason::QueueFull, dropped);
        }
        self.mark.set();
    }

    /// Sends nothing any more: what waits is dropped and counted, and so is what comes.
    pub(crate) fn close(&self) {
        let waiting = self.queue().take().map_or(0, |queue| queue.len());
        if waiting > 0 {
            self.counters.add_drops(DropReason::NotConnected, waiting);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue().as_ref().is_none_or(EgressQueue::is_empty)
    }

    /// Moves the most urgent frames to QUIC until `room` is used, in fragments where they have to be.
    pub(crate) fn fill(&self, datagrams: &mut Datagrams<'_>, room: Room) {
        let Some(budget) = datagrams.max_size() else { return };
        let now = self.clock.now();
        let mut moved = Moved::default();
        let mut used = 0;
        let mut locked = self.queue();
        let Some(queue) = &mut *locked else { return };
        loop {
            let next = if used < room.for_all {
                queue.pop(now, &mut moved.queue)
            } else if used < room.for_all + room.for_new {
                queue.pop_new(now, &mut moved.queue)
            } else {
                None
            };
            let Some(datagram) = next else { break };
            used += datagram.len() + room.packet_cost;
            if datagram.len() > budget {
                self.fill_fragments(datagrams, &datagram, budget, &mut moved);
                continue;
            }
            let frame_len = datagram.len().saturating_sub(HEADER_LEN);
            // Older ones are never thrown out for it: `room` is far below what QUIC holds.
            if datagrams.send(datagram, true).is_ok() {
                moved.frames += 1;
                moved.bytes += frame_len as u64;
                moved.datagrams += 1;
            }
        }
        drop(locked);
        self.count(&moved);
    }

    fn fill_fragments(
        &self,
        datagrams: &mut Datagrams<'_>,
        datagram: &[u8],
        budget: usize,
        moved: &mut Moved,
    ) {
        let id = self.next_frame_id.fetch_add(1, Ordering::Relaxed);
        let parts = match decode(datagram) {
            Ok(Datagram::Frame { peer, frame }) if self.takes_fragments => fragments(peer, id, frame, budget),
            // Only this crate makes what is queued: it is a frame, for a peer that takes it whole or not at all.
            _ => {
                moved.too_big += 1;
                return;
            }
        };
        let Ok(parts) = parts else {
            moved.too_big += 1;
            return;
        };
        let count = parts.len() as u64;
        for part in parts {
            let mut bytes = BytesMut::with_capacity(part.header.len() + part.part.len());
            bytes.extend_from_slice(&part.header);
            bytes.extend_from_slice(part.part);
            if datagrams.send(bytes.freeze(), true).is_err() {
                // Half a frame is none.
                moved.too_big += 1;
                return;
            }
        }
        moved.frames += 1;
        moved.bytes += datagram.len().saturating_sub(HEADER_LEN) as u64;
        moved.datagrams += count;
        moved.fragments += count;
    }

    fn count(&self, moved: &Moved) {
        if moved.frames > 0 {
            self.counters.add_sent(moved.frames, moved.bytes);
            self.counters.add_datagrams_sent(moved.datagrams, moved.fragments);
        }
        if moved.queue.marked > 0 {
            self.counters.add_marked_ce(moved.queue.marked);
        }
        for (reason, count) in
            [(DropReason::TooBig, moved.too_big), (DropReason::QueueDelay, moved.queue.late)]
        {
            if count > 0 {
                self.counters.add_drops(reason, count);
            }
        }
    }
}

/// A whole frame from the tunnel, still with its overlay header in front.
#[derive(Debug, Clone)]
pub struct Received {
    /// Whom the header names as the sender.
    pub peer: PeerId,
    /// Header and frame.
    pub datagram: Bytes,
}

impl Received {
    /// The frame alone.
    pub fn frame(&self) -> &[u8] {
        &self.datagram[HEADER_LEN..]
    }
}

/// Why a datagram cannot be used. On the relay's side it is the sending peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not an overlay datagram.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It names another peer as its sender.
    #[error("the datagram names peer {0} as its sender")]
    ForeignPeer(PeerId),
}

/// Checks and reassembles what arrives on one connection.
#[derive(Debug)]
pub struct Inbound {
    only_from: Option<PeerId>,
    reassembler: Reassembler,
    counters: Arc<Counters>,
    abandoned: u64,
}

impl Inbound {
    /// With bounded memory: the protocol's 64 unfinished frames. `only_from` names the one peer that may send here: on the relay each
    /// connection is one peer's, while a peer hears all others through the relay.
    pub fn new(only_from: Option<PeerId>, counters: Arc<Counters>) -> Self {
        let reassembler = Reassembler::new(ReassemblyLimits::default());
        Self { only_from, reassembler, counters, abandoned: 0 }
    }

    /// Takes a datagram; gives a frame when it was a whole one, or the last missing fragment of one.
    ///
    /// # Errors
    /// [`Malformed`]; the caller counts it, because only it knows what follows.
    pub fn accept(&mut self, now: Duration, datagram: Bytes) -> Result<Option<Received>, Malformed> {
        let decoded = decode(&datagram).inspect_err(|_| self.counters.add_datagrams_received(1, 0))?;
        let peer = match &decoded {
            Datagram::Frame { peer, .. } => *peer,
            Datagram::Fragment(fragment) => fragment.peer,
        };
        self.counters.add_datagrams_received(1, matches!(decoded, Datagram::Fragment(_)).into());
        if self.only_from.is_some_and(|only| only != peer) {
            return Err(Malformed::ForeignPeer(peer));
        }
        match decoded {
            Datagram::Frame { .. } => Ok(Some(Received { peer, datagram })),
            Datagram::Fragment(fragment) => {
                let outcome = self.reassembler.push(now, fragment);
                self.count_abandoned();
                // What contradicts its siblings is counted as abandoned by the reassembler.
                let Ok(Some(frame)) = outcome else { return Ok(None) };
                let mut bytes = BytesMut::with_capacity(HEADER_LEN + frame.len());
                let mut header = [0; HEADER_LEN];
                write_header(&mut header, peer);
                bytes.extend_from_slice(&header);
                bytes.extend_from_slice(&frame);
                Ok(Some(Received { peer, datagram: bytes.freeze() }))
            }
        }
    }

    /// The frames that are being put together.
    pub fn reassembler(&self) -> &Reassembler {
        &self.reassembler
    }

    fn count_abandoned(&mut self) {
        let total = self.reassembler.counts().frames_dropped();
        if total > self.abandoned {
            self.counters.add_drops(DropReason::Reassembly, total - self.abandoned);
            self.abandoned = total;
        }
    }
}
