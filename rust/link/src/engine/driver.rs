//! The loop itself.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ConnectionEvent, ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointEvent, Incoming, Transmit, VarInt,
};
use quinn_udp::RecvMeta;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep_until};

use super::allowance::Allowance;
use super::arrivals::{Arrival, Arrivals, Kind, Offer};
use super::door::{Door, Verdict};
use super::intake::Intake;
use super::link::Link;
use super::timers::Timers;
use super::{Core, Engine};
use crate::udp::UdpIo;

/// How long a socket that cannot be read is left alone: its interface is gone for a moment, or the system short of memory.
const MUTE: Duration = Duration::from_millis(10);
/// Reads of the socket before what came is dealt with: a read is up to eight bursts.
const READS_A_TURN: usize = 4;
/// Bursts of one connection before the others get their turn.
const BURSTS_A_TURN: usize = 4;

/// Datagrams that the list of those on their way to their sink may keep memory for: far more than a turn brings of a line at full speed.
const KEPT_DATAGRAMS: usize = 16 * 1024;

/// How long a connection that has ended may take to drain. QUIC would take three of the peer's own timeouts for it, which may be 16 s each if the
/// peer says so (`max_ack_delay`, RFC 9000 section 18.2), and keep it all the while.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// What a packet to an address that is not the connection's takes of an allowance of a second each second: 64 at once, and as many a second.
const OFF_PATH_PACE: Duration = Duration::from_nanos(1_000_000_000 / 64);

/// What an endpoint that accepts peers needs for that.
pub(crate) struct Reception {
    /// Where finished handshakes go.
    pub(crate) accepted: mpsc::Sender<Arc<Link>>,
    /// The endpoint's identifiers are made with it.
    pub(crate) identifier_key: u64,
}

/// An endpoint's loop and what only it needs.
pub(crate) struct Driver {
    engine: Arc<Engine>,
    socket: UdpIo,
    /// Where finished handshakes of peers go; `None` on an endpoint that accepts nobody, as below.
    accepted: Option<mpsc::Sender<Arc<Link>>>,
    arrivals: Option<Arrivals>,
    door: Door,
    timers: Timers,
    /// For answers to path challenges (RFC 9000 section 8.2), which may name an address that never asked for them, and are longer than those.
    off_path: Allowance,
    intake: Intake,
    /// The socket cannot be read until then.
    mute_until: Option<Instant>,
    /// The burst being built or, while the socket takes no more, the one to send first.
    burst: Vec<u8>,
    unsent: Option<Transmit>,
    /// An answer of the endpoint itself: Retry, Version Negotiation, stateless reset.
    answer: Vec<u8>,
    // Kept between turns so that they allocate nothing.
    handles: Vec<usize>,
    links: Vec<Arc<Link>>,
    datagrams: Vec<Bytes>,
    endpoint_events: Vec<EndpointEvent>,
}

impl Driver {
    /// `reception` is `None` on an endpoint that accepts nobody.
    pub(crate) fn new(engine: Arc<Engine>, socket: UdpIo, reception: Option<Reception>) -> Self {
        let now = Instant::now();
        let intake = Intake::new(&socket);
        let arrivals = reception.as_ref().map(|reception| Arrivals::new(now, reception.identifier_key));
        Self {
            engine,
            socket,
            accepted: reception.map(|reception| reception.accepted),
            arrivals,
            door: Door::new(now),
            timers: Timers::default(),
            off_path: Allowance::new(now, 1, Duration::from_secs(1)),
            intake,
            mute_until: None,
            burst: Vec::new(),
            unsent: None,
            answer: Vec::new(),
            handles: Vec::new(),
            links: Vec::new(),
            datagrams: Vec::new(),
            endpoint_events: Vec::new(),
        }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let ready = self.engine.ready.clone();
        let mut timer = pin!(sleep_until(Instant::now().into()));
        loop {
            if self.socket.is_to_renew() {
                self.socket.renew(Instant::now());
            }
            let mut busy = self.read();
            self.expire(Instant::now());
            self.take_in();
            // Ports and their bridges live on the same thread, as does the runtime's own look at the sockets: what they have goes out with what was
            // forwarded, and does not wait for another turn.
            yield_now().await;
            busy |= self.send();
            self.attend();
            let mut woken = pin!(ready.wake.notified());
            let mut wait = pin!(poll_fn(|context| self.poll_wait(context, woken.as_mut(), timer.as_mut())));
            let at_once = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_ready())).await;
            if !busy && !at_once {
                wait.await;
            }
        }
    }

    /// Ready when there is something to do.
    fn poll_wait(
        &self,
        context: &mut Context<'_>,
        woken: Pin<&mut impl Future<Output = ()>>,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<()> {
        if woken.poll(context).is_ready()
            || self.mute_until.is_none() && self.socket.poll_readable(context).is_ready()
        {
            return Poll::Ready(());
        }
        if self.unsent.is_some() && self.socket.poll_writable(context).is_ready() {
            return Poll::Ready(());
        }
        let strangers = self.arrivals.as_ref().and_then(Arrivals::due);
        match self.timers.next().into_iter().chain(self.mute_until).chain(strangers).min() {
            None => Poll::Pending,
            Some(deadline) => {
                if timer.deadline() != deadline.into() {
                    timer.as_mut().reset(deadline.into());
                }
                timer.poll(context)
            }
        }
    }

    /// Gives packets to their connections. True when more may be waiting.
    fn read(&mut self) -> bool {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.begin_turn();
        }
        if self.mute_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.mute_until = None;
        let mut more = true;
        for _ in 0..READS_A_TURN {
            more = match self.intake.read(&self.socket) {
                Ok(more) => more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.mute_until = Some(Instant::now() + MUTE);
                    return false;
                }
            };
            let now = Instant::now();
            let Self { engine, socket, intake, arrivals, door, timers, answer, .. } = self;
            let mut entrance = Entrance { engine, core: &mut engine.core(), socket, door, timers, answer };
            intake.each(|meta, packet| {
                if is_unanswerable(meta) {
                    return;
                }
                let Some(arrivals) = arrivals else { return entrance.take(now, meta, packet) };
                let kind = arrivals.kind_of(&packet);
                if kind == Kind::Known {
                    return entrance.take(now, meta, packet);
                }
                match arrivals.offer(now, kind, Arrival { meta: *meta, packet }) {
                    Offer::AtOnce(arrival) => entrance.take_timed(arrivals, kind, arrival),
                    Offer::Later => {}
                    Offer::Dropped => engine.door.note_dropped(),
                }
            });
            if !more {
                // Probably: the wait finds out.
                break;
            }
        }
        more
    }

    /// Deals with strangers that had to wait until the connections had their turn, within what is left for them.
    fn attend(&mut self) {
        let Self { engine, socket, arrivals: Some(arrivals), door, timers, answer, .. } = self else {
            return;
        };
        let Some(first) = arrivals.next(Instant::now()) else { return };
        let mut entrance = Entrance { engine, core: &mut engine.core(), socket, door, timers, answer };
        let mut next = Some(first);
        while let Some((kind, arrival)) = next {
            entrance.take_timed(arrivals, kind, arrival);
            next = arrivals.next(Instant::now());
        }
    }

    /// Lets connections whose time has come notice it.
    fn expire(&mut self, now: Instant) {
        if self.timers.next().is_none_or(|next| next > now) {
            return;
        }
        let mut too_slow = Vec::new();
        let mut core = self.engine.core();
        while let Some(handle) = self.timers.due(now) {
            let Some(link) = core.link(handle) else { continue };
            if link.state().is_forgotten(now) {
                core.endpoint.handle_event(ConnectionHandle(handle), EndpointEvent::drained());
                self.engine.forget(&mut core, &mut self.door, handle);
                continue;
            }
            link.state().proto.handle_timeout(now);
            link.wake();
            if self.door.give_up(now, handle, &self.engine.door) {
                too_slow.push(link.clone());
            }
        }
        drop(core);
        for link in too_slow {
            link.close(VarInt::from_u32(0), Bytes::from_static(b"the handshake took too long"));
        }
    }

    /// Hands on what has come.
    fn take_in(&mut self) {
        self.collect();
        let links = std::mem::take(&mut self.links);
        for link in &links {
            self.take_in_of(link);
        }
        self.links = links;
    }

    /// Lets every connection that has something to say send, those included that got it just now: frames forwarded from one connection to another
    /// leave in the same turn. True when there is more to do.
    fn send(&mut self) -> bool {
        let looked_at = self.links.len();
        self.collect();
        let mut links = std::mem::take(&mut self.links);
        // Most of these were only given something to send. One may have been plugged in meanwhile, and have waited for that with what came early.
        for link in &links[looked_at..] {
            self.take_in_of(link);
        }
        let mut busy = false;
        let mut done = 0;
        for link in &links {
            if !self.flush() {
                break;
            }
            link.clear_mark();
            busy |= self.send_of(link);
            done += 1;
        }
        // While the socket has no room, the rest keeps its turn.
        links.drain(..done);
        self.links = links;
        busy
    }

    /// Adds the connections that are marked to `links`.
    fn collect(&mut self) {
        self.engine.ready.take(&mut self.handles);
        if self.handles.is_empty() {
            return;
        }
        let core = self.engine.core();
        self.links.extend(self.handles.drain(..).filter_map(|handle| core.link(handle).cloned()));
    }

    fn take_in_of(&mut self, link: &Arc<Link>) {
        let seen = link.look(&mut self.datagrams);
        if seen.connected || seen.ended {
            self.door.leave(link.handle(), &self.engine.door);
        }
        if seen.connected
            && let Some(accepted) = &self.accepted
        {
            // Full when the control plane is far behind. It is closed only when the endpoint is.
            if accepted.try_send(link.clone()).is_err() {
                link.close(VarInt::from_u32(0), Bytes::from_static(b"the relay is busy"));
            }
        }
        link.deliver(&mut self.datagrams);
        if self.datagrams.capacity() > KEPT_DATAGRAMS {
            self.datagrams = Vec::new();
        }
        if seen.ended {
            link.unplug();
        }
    }

    /// Sends what the connection has, within its turn. True when it has more and there is room for it.
    fn send_of(&mut self, link: &Arc<Link>) -> bool {
        let mut busy = true;
        let deadline = {
            let mut state = link.state();
            if state.is_gone() {
                return false;
            }
            if state.has_early() {
                // Nothing else may come for a while.
                drop(state);
                self.take_in_of(link);
                state = link.state();
            }
            for _ in 0..BURSTS_A_TURN {
                let burst = |size| self.socket.burst(size);
                let Some(transmit) = state.transmit(Instant::now(), burst, &mut self.burst) else {
                    busy = false;
                    break;
                };
                if transmit.destination != state.proto.remote_address() {
                    if !self.off_path.allows(Instant::now()) {
                        // Lost on its first hop, for all that QUIC can tell.
                        continue;
                    }
                    self.off_path.spend(OFF_PATH_PACE);
                }
                if !write(&self.socket, &transmit, &self.burst) {
                    self.unsent = Some(transmit);
                    break;
                }
            }
            state.limit_draining(DRAIN_LIMIT);
            while let Some(event) = state.proto.poll_endpoint_events() {
                self.endpoint_events.push(event);
            }
            state.deadline()
        };
        if let Some(deadline) = deadline {
            self.timers.arm(link.handle(), deadline);
        }
        if !self.endpoint_events.is_empty() {
            self.settle(link);
        }
        if busy {
            link.wake();
        }
        busy && self.unsent.is_none()
    }

    /// Sends the burst that the socket had no room for. False when there still is none.
    fn flush(&mut self) -> bool {
        match &self.unsent {
            Some(transmit) if !write(&self.socket, transmit, &self.burst) => false,
            _ => {
                self.unsent = None;
                true
            }
        }
    }

    /// Tells the endpoint what a connection has for it: new identifiers, its end.
    fn settle(&mut self, link: &Arc<Link>) {
        let handle = ConnectionHandle(link.handle());
        let mut core = self.engine.core();
        for event in self.endpoint_events.drain(..) {
            let drained = event.is_drained();
            if let Some(answer) = core.endpoint.handle_event(handle, event) {
                link.state().proto.handle_event(answer);
                link.wake();
            }
            if drained {
                self.engine.forget(&mut core, &mut self.door, handle.0);
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let links: Vec<_> = {
            let mut core = self.engine.core();
            core.stopped = true;
            core.all().cloned().collect()
        };
        for link in links {
            link.abandon();
        }
        self.engine.idle.notify_waiters();
    }
}

/// Whether a packet names a source that nothing can be sent to, or came to more machines than this one. Answers to it would fail, or go where nobody
/// asked for them.
fn is_unanswerable(meta: &RecvMeta) -> bool {
    meta.addr.port() == 0 || meta.dst_ip.is_some_and(|to| to.to_canonical().is_multicast())
}

/// Where packets come in: what it takes to give them to their connections, and to meet strangers.
struct Entrance<'a> {
    engine: &'a Engine,
    core: &'a mut Core,
    socket: &'a UdpIo,
    door: &'a mut Door,
    timers: &'a mut Timers,
    answer: &'a mut Vec<u8>,
}

impl Entrance<'_> {
    fn take(&mut self, now: Instant, meta: &RecvMeta, packet: BytesMut) {
        self.answer.clear();
        let size = packet.len();
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        match self.core.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, packet, self.answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => self.hand_over(handle, size, event),
            Some(DatagramEvent::NewConnection(new)) => self.meet(now, new),
            Some(DatagramEvent::Response(transmit)) => respond(self.socket, &transmit, self.answer),
            None => {}
        }
    }

    /// Takes a stranger's packet, at the expense of the strangers.
    fn take_timed(&mut self, arrivals: &mut Arrivals, kind: Kind, arrival: Arrival) {
        let begun = Instant::now();
        self.take(begun, &arrival.meta, arrival.packet);
        arrivals.spend(kind, begun.elapsed());
    }

    fn hand_over(&self, handle: ConnectionHandle, size: usize, event: ConnectionEvent) {
        if let Some(link) = self.core.link(handle.0) {
            link.state().take(size, event);
            link.wake();
        }
    }

    /// Decides about a peer's first packet.
    fn meet(&mut self, now: Instant, incoming: Incoming) {
        self.answer.clear();
        let (remote, proven) = (incoming.remote_address(), incoming.remote_address_validated());
        let answered = match self.door.judge(now, remote, proven, &self.engine.door) {
            Verdict::Later => {
                self.core.endpoint.ignore(incoming);
                None
            }
            // Whoever has not proven the address may be asked to (quinn-proto's `Incoming::may_retry`).
            Verdict::Prove => self.core.endpoint.retry(incoming, self.answer).ok(),
            Verdict::Begin => self.begin(now, incoming),
            Verdict::Replace(handle) => {
                self.door.leave(handle, &self.engine.door);
                if let Some(link) = self.core.link(handle) {
                    link.close(VarInt::from_u32(0), Bytes::from_static(b"too many handshakes"));
                }
                self.begin(now, incoming)
            }
        };
        if let Some(transmit) = answered {
            respond(self.socket, &transmit, self.answer);
        }
    }

    /// Begins a handshake; gives what the peer is told in place of it, if that cannot be.
    fn begin(&mut self, now: Instant, incoming: Incoming) -> Option<Transmit> {
        let (remote, proven) = (incoming.remote_address(), incoming.remote_address_validated());
        match self.core.endpoint.accept(incoming, now, self.answer, None) {
            Ok((handle, proto)) => {
                let link = self.core.insert(&self.engine.ready, handle, proto);
                let limit = self.door.enter(now, handle.0, remote, proven, &self.engine.door);
                self.timers.arm(handle.0, limit);
                link.wake();
                None
            }
            Err(error) => error.response,
        }
    }
}

/// Sends an answer of the endpoint itself. One that finds no room is lost, as any packet may be.
fn respond(socket: &UdpIo, transmit: &Transmit, contents: &[u8]) {
    let _ = write(socket, transmit, contents);
}

/// False when the socket has no room.
fn write(socket: &UdpIo, transmit: &Transmit, contents: &[u8]) -> bool {
    let transmit = quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents: &contents[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    };
    socket.send(&transmit).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_answered_that_would_go_astray() {
        let meta = |from: &str, to: &str| {
            let mut meta = RecvMeta::default();
            (meta.addr, meta.dst_ip) = (from.parse().unwrap(), Some(to.parse().unwrap()));
            meta
        };
        for (from, to, unanswerable) in [
            ("192.0.2.7:443", "192.0.2.1", false),
            ("192.0.2.7:0", "192.0.2.1", true),
            ("[2001:db8::7]:443", "2001:db8::1", false),
            ("[2001:db8::7]:443", "ff02::1", true),
            ("192.0.2.7:443", "224.0.0.1", true),
            ("[::ffff:192.0.2.7]:443", "::ffff:224.0.0.1", true),
        ] {
            assert_eq!(is_unanswerable(&meta(from, to)), unanswerable, "{from} {to}");
        }
        let unknown = RecvMeta { addr: "192.0.2.7:443".parse().unwrap(), ..RecvMeta::default() };
        assert!(!is_unanswerable(&unknown));
    }
}
