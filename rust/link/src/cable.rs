//! The frame-carrying half of a connection: frames in order of urgency out ([`Cable`]), datagrams checked and reassembled in
//! ([`Inbound`]).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn::SendDatagramError;
use softlan_switch::{Counters, DropReason};
use softlan_wire::{
    Datagram, HEADER_LEN, PeerId, Reassembler, ReassemblyLimits, WireError, decode, fragments, write_header,
};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::queue::{EgressQueue, QueueLimits};
use crate::transport::QUIC_DATAGRAM_BUFFER;

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

/// Control data written and not yet on its way. QUIC sends datagrams before stream data, so a saturated cable would starve the
/// control stream; the pump holds back while this says that a message waits.
#[derive(Debug, Default)]
pub(crate) struct ControlTurn {
    /// The number of STREAM frames sent at which the waiting message is on its way; 0: nothing waits.
    wanted: AtomicU64,
}

impl ControlTurn {
    /// Notes that a message is about to be written on `quic`.
    pub(crate) fn ask(&self, quic: &quinn::Connection) {
        self.wanted.store(quic.stats().frame_tx.stream + 1, Ordering::Relaxed);
    }

    fn waits(&self, quic: &quinn::Connection) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted == 0 {
            return false;
        }
        if quic.stats().frame_tx.stream >= wanted {
            self.wanted.store(0, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// The longest the pump holds back for the control stream.
const CONTROL_HOLD: Duration = Duration::from_millis(50);
/// How often a saturated pump lets QUIC's buffer run empty once, so that lost control data can be sent again.
const BREATHER_INTERVAL: Duration = Duration::from_millis(100);

/// How much time's worth of datagrams QUIC may hold: behind them even the most urgent frame waits. A little more than the runtime's timer can
/// oversleep, so that the line does not run dry meanwhile.
const FEED: Duration = Duration::from_millis(4);
/// Bytes QUIC may always hold: a few full datagrams.
const LEAST_FEED: usize = 8 * 1024;
/// How long a measured rate is good for.
const FEED_MEMORY: Duration = Duration::from_millis(10);

/// How many bytes of datagrams QUIC may hold at the connection's present rate.
#[derive(Debug, Clone, Copy)]
struct Feed {
    measured: Duration,
    limit: usize,
}

/// What is sent to one peer: a queue, and the pump that empties it into QUIC.
#[derive(Debug)]
pub struct Cable {
    quic: quinn::Connection,
    control: Arc<ControlTurn>,
    takes_fragments: bool,
    counters: Arc<Counters>,
    clock: Clock,
    queue: Mutex<EgressQueue>,
    filled: Notify,
    next_frame_id: AtomicU32,
}

impl Cable {
    /// A cable over `connection`; `counters` count what it sends and drops. Its [`pump`](Self::pump) must be spawned.
    pub fn new(
        connection: &Connection,
        takes_fragments: bool,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            quic: connection.quic().clone(),
            control: connection.control_turn(),
            takes_fragments,
            counters,
            clock,
            queue: Mutex::new(EgressQueue::new(QueueLimits::default())),
            filled: Notify::new(),
            next_frame_id: AtomicU32::new(0),
        })
    }

    fn queue(&self) -> MutexGuard<'_, EgressQueue> {
        // The queue is consistent between any two statements that could panic.
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Queues a datagram (overlay header and whole frame). A full queue drops from its fattest flow, counted.
    pub fn send(&self, now: Duration, datagram: Bytes) {
        let (dropped, was_empty) = {
            let mut queue = self.queue();
            let was_empty = queue.is_empty();
            (queue.push(now, datagram), was_empty)
        };
        if dropped > 0 {
            self.counters.add_drops(DropReason::QueueFull, dropped);
        }
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Moves datagrams from the queue to QUIC until the connection ends.
    pub async fn pump(self: Arc<Self>) {
        let mut last_breather = self.clock.now();
        let mut feed = Feed { measured: last_breather, limit: LEAST_FEED };
        loop {
            self.filled.notified().await;
            let mut budget = self.quic.max_datagram_size().unwrap_or(0);
            // Room first, then the frame: the most urgent one is chosen at the last moment.
            while let Some(datagram) = self.next_after(&mut feed).await {
                let now = self.clock.now();
                if self.control.waits(&self.quic) || now.saturating_sub(last_breather) > BREATHER_INTERVAL {
                    self.hold_back().await;
                    last_breather = self.clock.now();
                }
                if !self.transmit(datagram, &mut budget).await {
                    return;
                }
            }
        }
    }

    async fn next_after(&self, feed: &mut Feed) -> Option<Bytes> {
        self.wait_for_room(feed).await;
        self.next()
    }

    /// Waits until QUIC holds less than its feed. Fast connections are never held up here: QUIC's own buffer bounds theirs.
    async fn wait_for_room(&self, feed: &mut Feed) {
        let now = self.clock.now();
        if now.saturating_sub(feed.measured) >= FEED_MEMORY {
            let path = self.quic.stats().path;
            let bytes = path.cwnd as f64 * FEED.as_secs_f64() / path.rtt.as_secs_f64().max(1e-6);
            *feed = Feed { measured: now, limit: (bytes as usize).clamp(LEAST_FEED, QUIC_DATAGRAM_BUFFER) };
        }
        if feed.limit == QUIC_DATAGRAM_BUFFER {
            return;
        }
        while QUIC_DATAGRAM_BUFFER.saturating_sub(self.quic.datagram_send_buffer_space()) > feed.limit {
            if self.quic.close_reason().is_some() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn next(&self) -> Option<Bytes> {
        let mut late = 0;
        let next = self.queue().pop(self.clock.now(), &mut late);
        if late > 0 {
            self.counters.add_drops(DropReason::QueueDelay, late);
        }
        next
    }

    /// Lets QUIC send what it has, its stream data included.
    async fn hold_back(&self) {
        let drained = async {
            // On a fast path the driver only needs its turn; on a slow one polling the clock would burn a core.
            for _ in 0..8 {
                if self.is_drained() {
                    return;
                }
                yield_now().await;
            }
            while !self.is_drained() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        // Nothing to do about a path that is stuck: the next turn will come.
        let _ = timeout(CONTROL_HOLD, drained).await;
    }

    fn is_drained(&self) -> bool {
        // quinn keeps a few bytes of its own a datagram; half of a small datagram's worth is "empty".
        self.quic.datagram_send_buffer_space() + 64 >= QUIC_DATAGRAM_BUFFER && !self.control.waits(&self.quic)
    }

    /// Sends one datagram, in fragments where it has to be. `false` when the connection has ended.
    async fn transmit(&self, datagram: Bytes, budget: &mut usize) -> bool {
        let frame_len = datagram.len().saturating_sub(HEADER_LEN);
        if datagram.len() <= *budget {
            match self.quic.send_datagram_wait(datagram.clone()).await {
                Ok(()) => {
                    self.counters.add_sent(1, frame_len as u64);
                    self.counters.add_datagrams_sent(1, 0);
                    return true;
                }
                Err(SendDatagramError::TooLarge) => {
                    // The path's MTU fell since the budget was read: the frame goes on in fragments, at once.
                    *budget = self.quic.max_datagram_size().unwrap_or(0);
                }
                Err(_) => return self.quic.close_reason().is_none(),
            }
        } else {
            // It may have grown instead: the MTU search is still under way at first.
            *budget = self.quic.max_datagram_size().unwrap_or(0);
            if datagram.len() <= *budget {
                return Box::pin(self.transmit(datagram, budget)).await;
            }
        }
        self.transmit_fragments(&datagram, *budget).await
    }

    async fn transmit_fragments(&self, datagram: &[u8], budget: usize) -> bool {
        let Ok(Datagram::Frame { peer, frame }) = decode(datagram) else {
            // Only this crate makes what is queued; a datagram that is none is not worth a connection.
            self.counters.add_drops(DropReason::Malformed, 1);
            return true;
        };
        if !self.takes_fragments {
            self.counters.add_drops(DropReason::TooBig, 1);
            return true;
        }
        let id = self.next_frame_id.fetch_add(1, Ordering::Relaxed);
        let Ok(parts) = fragments(peer, id, frame, budget) else {
            self.counters.add_drops(DropReason::TooBig, 1);
            return true;
        };
        let count = parts.len() as u64;
        for part in parts {
            let mut bytes = BytesMut::with_capacity(part.header.len() + part.part.len());
            bytes.extend_from_slice(&part.header);
            bytes.extend_from_slice(part.part);
            match self.quic.send_datagram_wait(bytes.freeze()).await {
                Ok(()) => {}
                Err(SendDatagramError::TooLarge) => {
                    // Half a frame is none; the next one uses the smaller budget.
                    self.counters.add_drops(DropReason::TooBig, 1);
                    return true;
                }
                Err(_) => return self.quic.close_reason().is_none(),
            }
        }
        self.counters.add_sent(1, frame.len() as u64);
        self.counters.add_datagrams_sent(count, count);
        true
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

    fn count_abandoned(&mut self) {
        let total = self.reassembler.counts().frames_dropped();
        if total > self.abandoned {
            self.counters.add_drops(DropReason::Reassembly, total - self.abandoned);
            self.abandoned = total;
        }
    }
}
