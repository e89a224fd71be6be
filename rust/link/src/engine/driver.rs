//! The loop itself.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    ConnectionEvent, ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointEvent, Incoming, Transmit, VarInt,
};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep_until};

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
const BURSTS_A_TURN: usize = 8;
/// Handshakes that have not finished. Above half of it, peers must prove their address first (RFC 9000 section 8.1.2).
const MAX_HANDSHAKES: usize = 512;
/// A handshake that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// An endpoint's loop and what only it needs.
pub(crate) struct Driver {
    engine: Arc<Engine>,
    socket: UdpIo,
    /// Where finished handshakes of peers go; `None` on an endpoint that accepts nobody.
    accepted: Option<mpsc::Sender<Arc<Link>>>,
    /// Handshakes of peers under way, by handle, and when they are given up.
    handshakes: HashMap<usize, Instant>,
    timers: Timers,
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
    pub(crate) fn new(engine: Arc<Engine>, socket: UdpIo, accepted: Option<mpsc::Sender<Arc<Link>>>) -> Self {
        let intake = Intake::new(&socket);
        Self {
            engine,
            socket,
            accepted,
            handshakes: HashMap::new(),
            timers: Timers::default(),
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
            let mut busy = self.read();
            let now = Instant::now();
            self.expire(now);
            busy |= self.turn();
            let mut woken = pin!(ready.wake.notified());
            let mut wait = pin!(poll_fn(|context| self.poll_wait(context, woken.as_mut(), timer.as_mut())));
            let at_once = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_ready())).await;
            if busy || at_once {
                // Ports and their bridges live on the same thread, as does the runtime's own look at the sockets.
                yield_now().await;
            } else {
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
        match self.timers.next().into_iter().chain(self.mute_until).min() {
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
            let mut incoming = Vec::new();
            {
                let Self { engine, intake, answer, socket, .. } = self;
                let mut core = engine.core();
                intake.each(|meta, packet| {
                    answer.clear();
                    let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                    match core.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, packet, answer) {
                        Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                            hand_over(&core, handle, event)
                        }
                        Some(DatagramEvent::NewConnection(new)) => incoming.push(new),
                        Some(DatagramEvent::Response(transmit)) => respond(socket, &transmit, answer),
                        None => {}
                    }
                });
            }
            for new in incoming {
                self.meet(now, new);
            }
            if !more {
                // Probably: the wait finds out.
                break;
            }
        }
        more
    }

    /// Decides about a peer's first packet.
    fn meet(&mut self, now: Instant, incoming: Incoming) {
        let mut core = self.engine.core();
        self.answer.clear();
        let answered = if self.handshakes.len() >= MAX_HANDSHAKES {
            Some(core.endpoint.refuse(incoming, &mut self.answer))
        } else if self.handshakes.len() >= MAX_HANDSHAKES / 2
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            core.endpoint.retry(incoming, &mut self.answer).ok()
        } else {
            match core.endpoint.accept(incoming, now, &mut self.answer, None) {
                Ok((handle, proto)) => {
                    let link = core.insert(&self.engine.ready, handle, proto);
                    self.handshakes.insert(handle.0, now + HANDSHAKE_LIMIT);
                    link.wake();
                    self.timers.arm(handle.0, now + HANDSHAKE_LIMIT);
                    None
                }
                Err(error) => error.response,
            }
        };
        drop(core);
        if let Some(transmit) = answered {
            respond(&self.socket, &transmit, &self.answer);
        }
    }

    /// Lets connections whose time has come notice it.
    fn expire(&mut self, now: Instant) {
        if self.timers.next().is_none_or(|next| next > now) {
            return;
        }
        let mut too_slow = Vec::new();
        let core = self.engine.core();
        while let Some(handle) = self.timers.due(now) {
            let Some(link) = core.link(handle) else { continue };
            link.state().proto.handle_timeout(now);
            link.wake();
            if self.handshakes.get(&handle).is_some_and(|limit| *limit <= now) {
                self.handshakes.remove(&handle);
                too_slow.push(link.clone());
            }
        }
        drop(core);
        for link in too_slow {
            link.close(VarInt::from_u32(0), Bytes::from_static(b"the handshake took too long"));
        }
    }

    /// Deals with every connection that has something to do: first what came, then what is to be sent, so that frames forwarded from one
    /// connection to another leave in the same turn. True when there is more to do.
    fn turn(&mut self) -> bool {
        self.collect();
        let mut links = std::mem::take(&mut self.links);
        for link in &links {
            self.take_in(link);
        }
        // Those that got something to send just now have nothing to be taken in.
        self.links = links;
        self.collect();
        links = std::mem::take(&mut self.links);
        let mut busy = false;
        let mut done = 0;
        for link in &links {
            if !self.flush() {
                break;
            }
            link.clear_mark();
            busy |= self.send(link);
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

    fn take_in(&mut self, link: &Arc<Link>) {
        let seen = link.look(&mut self.datagrams);
        if seen.connected || seen.ended {
            self.handshakes.remove(&link.handle());
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
        if seen.ended {
            link.unplug();
        }
    }

    /// Sends what the connection has, within its turn. True when it has more and there is room for it.
    fn send(&mut self, link: &Arc<Link>) -> bool {
        let mut busy = true;
        let deadline = {
            let mut state = link.state();
            for _ in 0..BURSTS_A_TURN {
                let burst = |size| self.socket.burst(size);
                let Some(transmit) = state.transmit(Instant::now(), burst, &mut self.burst) else {
                    busy = false;
                    break;
                };
                if !write(&self.socket, &transmit, &self.burst) {
                    self.unsent = Some(transmit);
                    break;
                }
            }
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
                core.remove(handle.0);
                self.handshakes.remove(&handle.0);
            }
        }
        if core.open == 0 {
            self.engine.idle.notify_waiters();
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

fn hand_over(core: &Core, handle: ConnectionHandle, event: ConnectionEvent) {
    if let Some(link) = core.link(handle.0) {
        link.state().proto.handle_event(event);
        link.wake();
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
