//! One connection as the loop drives it: QUIC's state, where its datagrams go, and where it gets them from.

use std::fmt;
use std::iter;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, ConnectionEvent, Event, StreamEvent, StreamId, Transmit, VarInt,
};
use tokio::sync::Notify;

use super::ReadyMark;
use super::control_turn::{ControlTurn, Counted};
use crate::cable::{Cable, Room};
use crate::calm::Calm;
use crate::transport::QUIC_DATAGRAM_BUFFER;

/// How much time's worth of datagrams QUIC may hold that cannot be sent yet: behind them even the most urgent frame waits.
const FEED: Duration = Duration::from_millis(1);
/// Bytes QUIC may hold beyond that: two full datagrams, so that it notices that its window is what holds it back.
const SPARE_FEED: usize = 3 * 1024;
/// What a packet adds to a datagram, at most: first byte, connection identifier, packet number, tag, frame header (RFC 9000 sections 17.3 and 12.4, RFC 9221
/// section 4).
const PACKET_COST: usize = 1 + 8 + 4 + 16 + 9;
/// Bytes QUIC may hold at most: what one system call takes.
const MOST_FEED: usize = 64 * 1024;
/// Room that QUIC keeps back in an empty buffer: one datagram costs so much beyond its bytes, at most.
const DATAGRAM_COST: usize = 64;
/// A timer that is due sooner may be the pacer's.
const PACING: Duration = Duration::from_millis(2);
/// Datagrams kept for a connection that nobody has plugged in yet, and bytes of them: as many full ones. More are lost: before its admission nobody has a
/// claim to memory.
const EARLY: usize = 32;
const EARLY_BYTES: usize = EARLY * 1536;
/// So many bytes of packets may come before their datagrams are taken from QUIC, which keeps the memory of the longest list of them that it ever had: an
/// empty one is two bytes in a packet and 32 in the list.
const GATHER: usize = 32 * 1024;
/// Datagrams that the list of those gathered may keep memory for.
const KEPT_ENTRIES: usize = 64;

/// Takes what arrives on a connection. Called in the loop: it must not block.
pub(crate) trait Sink: Send {
    /// Takes all of `datagrams`, in their order. An error closes the connection with a code and a sentence.
    fn deliver(&mut self, datagrams: &mut Vec<Bytes>) -> Result<(), (u32, String)>;
}

/// One connection. It lives until QUIC has drained it and nobody asks for it any more.
pub(crate) struct Link {
    mark: Arc<ReadyMark>,
    met_at: SocketAddr,
    state: Mutex<State>,
    /// Never locked while `state` is.
    sink: Mutex<Option<Box<dyn Sink>>>,
    /// Something that an awaiting task may be waiting for has happened.
    changed: Notify,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("handle", &self.mark.handle).finish_non_exhaustive()
    }
}

/// What the state lock guards.
pub(crate) struct State {
    pub(crate) proto: Connection,
    /// Finished the handshake.
    pub(crate) connected: bool,
    /// How it ended, once it has.
    pub(crate) ended: Option<ConnectionError>,
    /// The one stream a connection has.
    pub(crate) control_stream: Option<StreamId>,
    /// What was read from it and is not as much yet as its reader waits for.
    pub(crate) control_read: Vec<u8>,
    /// The peer has all that was written to it, its end included, or wants no more.
    pub(crate) control_arrived: bool,
    cable: Option<Arc<Cable>>,
    /// Datagrams that were taken from QUIC and not delivered yet; of a connection that is not plugged in, those that wait for it.
    gathered: Vec<Bytes>,
    /// Bytes of packets since QUIC was last asked for datagrams.
    ungathered: usize,
    control: ControlTurn,
    held_until: Option<Instant>,
    /// When it is to be forgotten although QUIC has not drained it; set once it has ended.
    forget_at: Option<Instant>,
    /// The endpoint has forgotten it: its handle may be another connection's.
    gone: bool,
}

/// What a look at a connection's input found.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The handshake has just been finished.
    pub(crate) connected: bool,
    /// The connection has just ended.
    pub(crate) ended: bool,
}

impl State {
    /// Takes a packet of `size` bytes.
    pub(super) fn take(&mut self, size: usize, packet: ConnectionEvent) {
        self.proto.handle_event(packet);
        self.ungathered += size;
        if self.ungathered >= GATHER {
            self.ungathered = 0;
            let mut datagrams = self.proto.datagrams();
            self.gathered.extend(iter::from_fn(|| datagrams.recv()));
        }
    }

    /// Adds the datagrams that have come to `into`.
    fn hand_out(&mut self, into: &mut Vec<Bytes>) {
        self.ungathered = 0;
        into.append(&mut self.gathered);
        if self.gathered.capacity() > KEPT_ENTRIES {
            self.gathered = Vec::new();
        }
        let mut datagrams = self.proto.datagrams();
        into.extend(iter::from_fn(|| datagrams.recv()));
    }

    /// Notes that a control message is about to be written.
    pub(crate) fn ask_for_control(&mut self) {
        self.control.ask(Instant::now(), counted(&self.proto));
    }

    /// Gives QUIC the next datagrams to send, as many as it may hold.
    fn top_up(&mut self, now: Instant) {
        self.held_until = None;
        let Some(cable) = &self.cable else { return };
        if cable.is_empty() {
            return;
        }
        self.held_until = self.control.until(now, || counted(&self.proto));
        if self.held_until.is_some() {
            return;
        }
        let feed = feed(&self.proto);
        let mut datagrams = self.proto.datagrams();
        let held = QUIC_DATAGRAM_BUFFER.saturating_sub(datagrams.send_buffer_space());
        let for_all = feed.for_all.saturating_sub(held);
        let for_new = (feed.for_all + feed.for_new).saturating_sub(held + for_all);
        if for_all + for_new > 0 {
            cable.fill(&mut datagrams, Room { for_all, for_new, ..feed });
        }
    }

    /// The next packets to send, in `buffer`: a burst of as many as `burst` allows for their size.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        burst: impl Fn(usize) -> usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.top_up(now);
        buffer.clear();
        let packets = burst(self.proto.current_mtu().into());
        let transmit = self.proto.poll_transmit(now, packets, buffer);
        if transmit.is_some() || !self.had_a_chance(now) {
            return transmit;
        }
        self.top_up(now);
        buffer.clear();
        self.proto.poll_transmit(now, packets, buffer)
    }

    /// Whether datagrams have stepped back for long enough: QUIC, which has just sent nothing, would have sent a packet of the control stream if
    /// it had one. In doubt it would not.
    fn had_a_chance(&mut self, now: Instant) -> bool {
        if self.held_until.is_none() {
            return false;
        }
        // Held back by the pacer, it asks to be called again soon.
        let is_paced = self.proto.poll_timeout().is_some_and(|at| at < now + PACING);
        let is_sent = self.proto.datagrams().send_buffer_space() + DATAGRAM_COST >= QUIC_DATAGRAM_BUFFER;
        let calm = calm(&self.proto);
        let fits = calm.as_ref().is_none_or(|calm| calm.room() > 2 * u64::from(self.proto.current_mtu()));
        !is_paced && is_sent && fits && self.control.had_its_turn(now, calm.is_some())
    }

    /// When the loop should look again, if nothing happens before.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        self.proto.poll_timeout().into_iter().chain(self.held_until).chain(self.forget_at).min()
    }

    /// Whether what came early waits although it is plugged in by now. Its sink is there before its cable is.
    pub(super) fn has_early(&self) -> bool {
        self.cable.is_some() && !self.gathered.is_empty()
    }

    /// A connection that has ended is given `limit` from now on to drain, if it has not been given that before.
    pub(super) fn limit_draining(&mut self, limit: Duration) {
        if self.ended.is_some() {
            self.forget_at.get_or_insert_with(|| Instant::now() + limit);
        }
    }

    /// Whether it is to be forgotten now; it is `gone` then.
    pub(super) fn is_forgotten(&mut self, now: Instant) -> bool {
        self.gone |= self.forget_at.is_some_and(|at| at <= now);
        self.gone
    }

    /// Whether the endpoint has forgotten it: nothing of it may reach the endpoint any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    fn end(&mut self, reason: ConnectionError) {
        self.ended.get_or_insert(reason);
        self.replace_cable(None);
        self.gathered = Vec::new();
    }

    fn replace_cable(&mut self, cable: Option<Arc<Cable>>) {
        if let Some(former) = std::mem::replace(&mut self.cable, cable) {
            former.close();
        }
    }
}

/// Bytes of datagrams QUIC may hold now: what it may send at once, so that all else waits where the most urgent goes first.
fn feed(proto: &Connection) -> Room {
    let rate = proto.congestion_state().window() as f64 / proto.rtt().as_secs_f64().max(1e-6);
    let paced = ((rate * FEED.as_secs_f64()) as usize).min(MOST_FEED);
    match calm(proto) {
        Some(calm) => {
            let (room, kept) = (calm.room() as usize, calm.kept() as usize);
            // At least a packet's worth, or small frames would travel alone where the rate is low.
            let for_all = paced.max(proto.current_mtu().into()).min(room.saturating_sub(kept));
            Room { for_all, for_new: kept.min(room), packet_cost: PACKET_COST }
        }
        None => Room { for_all: paced + SPARE_FEED, for_new: 0, packet_cost: 0 },
    }
}

/// The controller, where it is the one that tells what is in flight.
fn calm(proto: &Connection) -> Option<Box<Calm>> {
    // The only way to a controller's own state.
    proto.congestion_state().clone_box().into_any().downcast::<Calm>().ok()
}

fn counted(proto: &Connection) -> Counted {
    let stats = proto.stats();
    Counted {
        stream_frames: stats.frame_tx.stream,
        lost_packets: stats.path.lost_packets,
        rtt: stats.path.rtt,
    }
}

impl Link {
    pub(super) fn new(mark: Arc<ReadyMark>, proto: Connection) -> Arc<Self> {
        let met_at = proto.remote_address();
        let state = State {
            proto,
            connected: false,
            ended: None,
            control_stream: None,
            control_read: Vec::new(),
            control_arrived: false,
            cable: None,
            gathered: Vec::new(),
            ungathered: 0,
            control: ControlTurn::default(),
            held_until: None,
            forget_at: None,
            gone: false,
        };
        Arc::new(Self {
            mark,
            met_at,
            state: Mutex::new(state),
            sink: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // quinn-proto leaves a connection in order before anything of ours can panic.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn sink(&self) -> MutexGuard<'_, Option<Box<dyn Sink>>> {
        self.sink.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn mark(&self) -> &Arc<ReadyMark> {
        &self.mark
    }

    /// Lets the loop look at it soon.
    pub(crate) fn wake(&self) {
        self.mark.set();
    }

    /// The peer's address when the handshake began.
    pub(crate) fn met_at(&self) -> SocketAddr {
        self.met_at
    }

    /// QUIC's number for it; used again after it is gone.
    pub(super) fn handle(&self) -> usize {
        self.mark.handle
    }

    pub(super) fn clear_mark(&self) {
        self.mark.clear();
    }

    /// From now on datagrams go to `sink` and come from `cable`. Those that came earlier are delivered first.
    pub(crate) fn plug(&self, cable: Arc<Cable>, sink: Box<dyn Sink>) {
        *self.sink() = Some(sink);
        {
            let mut state = self.state();
            if state.ended.is_none() {
                state.replace_cable(Some(cable));
            } else {
                cable.close();
            }
        }
        self.wake();
    }

    /// Datagrams go nowhere and come from nowhere, from now on.
    pub(crate) fn unplug(&self) {
        self.state().replace_cable(None);
        // Dropped without the lock: a sink may do things of its own then.
        let sink = self.sink().take();
        drop(sink);
    }

    /// Closes at once.
    pub(crate) fn close(&self, code: VarInt, reason: Bytes) {
        {
            let mut state = self.state();
            if state.ended.is_none() {
                state.proto.close(Instant::now(), code, reason);
                state.end(ConnectionError::LocallyClosed);
            }
        }
        self.changed.notify_waiters();
        self.unplug();
        self.wake();
    }

    /// No loop drives it any more.
    pub(super) fn abandon(&self) {
        self.state().end(ConnectionError::LocallyClosed);
        self.changed.notify_waiters();
        self.unplug();
    }

    /// Waits until `look` finds something. It is called at once, and again whenever something has changed.
    pub(crate) async fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // From here on a notification of all waiters is not missed, polled or not.
            let changed = self.changed.notified();
            if let Some(found) = look(&mut self.state()) {
                return found;
            }
            changed.await;
        }
    }

    /// Takes what QUIC has for us: events, and datagrams into `datagrams`, which the caller delivers.
    pub(super) fn look(&self, datagrams: &mut Vec<Bytes>) -> Seen {
        let mut seen = Seen::default();
        let mut changed = false;
        {
            let mut state = self.state();
            while let Some(event) = state.proto.poll() {
                match event {
                    Event::Connected => {
                        state.connected = true;
                        seen.connected = state.ended.is_none();
                        changed = true;
                    }
                    Event::ConnectionLost { reason } => {
                        seen.ended = state.ended.is_none();
                        state.end(reason);
                        changed = true;
                    }
                    Event::Stream(event) => {
                        state.control_arrived |=
                            matches!(event, StreamEvent::Finished { .. } | StreamEvent::Stopped { .. });
                        changed = true;
                    }
                    Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
                }
            }
            state.hand_out(datagrams);
        }
        if changed {
            self.changed.notify_waiters();
        }
        seen
    }

    /// Hands what came to the sink. Leaves `datagrams` empty.
    pub(super) fn deliver(&self, datagrams: &mut Vec<Bytes>) {
        if datagrams.is_empty() {
            return;
        }
        let outcome = match self.sink().as_mut() {
            Some(sink) => sink.deliver(datagrams),
            None => {
                let mut room = EARLY_BYTES;
                let early = datagrams.iter().take(EARLY).take_while(|datagram| {
                    let left = room.checked_sub(datagram.len());
                    room = left.unwrap_or(0);
                    left.is_some()
                });
                // Copied, so that a few of them do not hold on to all that came with them.
                self.state().gathered = early.map(|datagram| Bytes::copy_from_slice(datagram)).collect();
                Ok(())
            }
        };
        datagrams.clear();
        if let Err((code, reason)) = outcome {
            self.close(VarInt::from_u32(code), reason.into());
        }
    }
}
