//! The bridge's loop: frames between a port of this machine and the relay.
//!
//! The port outlives connections: while there is none, what the machine sends is dropped and counted, and the next connection is
//! attached to the same port, so that a player's adapter stays up through a reconnect.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use softlan_port::{AnyPort, FrameBatch, Port, PortCountersSnapshot, PortError};
use softlan_switch::{Counters, DropReason};
use softlan_wire::{
    EthernetFrame, HEADER_LEN, Mac, PeerId, is_loopback_message, turn_into_reply, write_header,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::cable::{Cable, Clock, Inbound, Received};
use crate::cam::{CamRefresher, refresh_frame};
use crate::connection::Connection;
use crate::engine::link::{Link, Sink};
use crate::frame_log::{FrameAction, FrameLog};
use crate::plane::DataPlane;

/// Loopback messages answered within a second; more go to the port. Whoever sends them must not have this peer's line for it.
const ANSWERS_A_SECOND: u32 = 100;
/// Spacing of refresh frames on the LAN.
const REFRESH_SPACING: Duration = Duration::from_millis(100);

/// What kind of bridge it is.
#[derive(Debug, Clone, Default)]
pub struct BridgeOptions {
    /// A gateway: its port is a LAN, of which only what concerns the room may leave.
    pub gateway: Option<GatewayOptions>,
    /// The MAC in whose name loopback messages are answered; `None`: they go to the port like any frame.
    pub loopback: Option<Mac>,
}

/// The gateway's part of a bridge.
#[derive(Debug, Clone, Default)]
pub struct GatewayOptions {
    /// How long a remote MAC may be quiet on the LAN before it is refreshed; `None`: never.
    pub cam_refresh: Option<Duration>,
}

/// A port and, from time to time, a relay. Dropping it closes the port.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
    failed: watch::Receiver<Option<String>>,
    up: tokio::sync::Mutex<Option<watch::Receiver<bool>>>,
}

#[derive(Debug)]
struct Shared {
    port: AnyPort,
    clock: Clock,
    counters: Arc<Counters>,
    log: Arc<FrameLog>,
    room: Arc<str>,
    link: Mutex<Option<Attached>>,
    loopback: Option<Mac>,
    /// Remote MACs; `None` on a client, whose port is one player's and not a LAN.
    remotes: Option<Mutex<CamRefresher>>,
}

#[derive(Debug)]
struct Attached {
    link: Arc<Link>,
    cable: Arc<Cable>,
    peer: PeerId,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.link.unplug();
    }
}

impl Bridge {
    /// Starts carrying frames of `port` on `plane`. Until [`attach`](Self::attach) they are dropped.
    pub fn start(plane: &DataPlane, port: AnyPort, options: BridgeOptions, log: Arc<FrameLog>) -> Self {
        let up = tokio::sync::Mutex::new(port.up());
        let remotes = options.gateway.map(|g| {
            let mut remotes = CamRefresher::new(g.cam_refresh);
            remotes.set_own(port.address());
            Mutex::new(remotes)
        });
        let is_gateway = remotes.is_some();
        let shared = Arc::new(Shared {
            port,
            clock: Clock::default(),
            counters: Arc::default(),
            log,
            room: "".into(),
            link: Mutex::new(None),
            loopback: options.loopback,
            remotes,
        });
        let (failure, failed) = watch::channel(None);
        let plane = plane.handle();
        let mut tasks = vec![plane.spawn(shared.clone().uplink(failure)).abort_handle()];
        if is_gateway {
            tasks.push(plane.spawn(shared.clone().refresh()).abort_handle());
        }
        Self { shared, tasks, failed, up }
    }

    /// What went over the tunnel and what was dropped, over all connections.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// What the port itself took, gave and lost, with stable names.
    pub fn port_counters(&self) -> PortCountersSnapshot {
        self.shared.port.counters()
    }

    /// Carries frames over `connection` as `peer` from now on, in place of any former connection.
    pub fn attach(&self, connection: &Connection, peer: PeerId) {
        let shared = &self.shared;
        // Every relay understands fragments: the protocol asks it of relays.
        let cable = Cable::new(connection, true, shared.counters.clone(), shared.clock);
        let downlink = Downlink {
            inbound: Inbound::new(None, shared.counters.clone()),
            frames: Vec::new(),
            answers: Answers { cable: cable.clone(), peer, second: 0, given: 0 },
            shared: shared.clone(),
        };
        // The former connection is unplugged before the new one speaks.
        *shared.link() = None;
        connection.link().plug(cable.clone(), Box::new(downlink));
        *shared.link() = Some(Attached { link: connection.link().clone(), cable, peer });
    }

    /// Stops using the present connection; the port stays open.
    pub fn detach(&self) {
        *self.shared.link() = None;
        if let Some(mut remotes) = self.shared.remotes() {
            remotes.clear();
        }
    }

    /// Gateways: a client with this MAC is in the room. False if it is the MAC of this machine on the LAN, for which nothing is
    /// taken off the LAN and in whose name nothing is said there.
    pub fn add_remote(&self, mac: Mac) -> bool {
        // Asked each time: somebody may give the interface another one.
        let own = self.shared.port.address();
        if let Some(mut remotes) = self.shared.remotes() {
            remotes.set_own(own);
            remotes.add(mac);
        }
        own != Some(mac)
    }

    /// Gateways: the client with this MAC has left.
    pub fn remove_remote(&self, mac: Mac) {
        if let Some(mut remotes) = self.shared.remotes() {
            remotes.remove(mac, self.shared.clock.now());
        }
    }

    /// Waits until the port has failed for good, and says why.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_closed) => "the bridge was closed".into(),
        }
    }

    /// Waits until the port's interface goes down or comes back, and says whether it is up. For ever, on a port that is always up.
    pub async fn up_changed(&self) -> bool {
        let mut up = self.up.lock().await;
        if let Some(up) = up.as_mut()
            && up.changed().await.is_ok()
        {
            return *up.borrow_and_update();
        }
        std::future::pending().await
    }

    /// Stops, and gives up the port.
    pub fn close(&self) {
        for task in &self.tasks {
            task.abort();
        }
        self.detach();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Option<Attached>> {
        // Held for plain reads and writes only.
        self.link.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn remotes(&self) -> Option<MutexGuard<'_, CamRefresher>> {
        Some(self.remotes.as_ref()?.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// From the port to the relay.
    async fn uplink(self: Arc<Self>, failure: watch::Sender<Option<String>>) {
        let mut batch = FrameBatch::new(HEADER_LEN);
        loop {
            if let Err(error) = self.port.recv(&mut batch).await {
                // Fails only when the receiver is gone, and then nobody asks.
                let _ = failure.send(Some(error.to_string()));
                return;
            }
            let link = self.link().as_ref().map(|link| (link.cable.clone(), link.peer));
            let now = self.clock.now();
            for datagram in batch.drain() {
                self.send_up(now, link.as_ref(), datagram);
            }
            // A LAN that never pauses must not keep the other tasks of this thread waiting.
            tokio::task::yield_now().await;
        }
    }

    fn send_up(&self, now: Duration, link: Option<&(Arc<Cable>, PeerId)>, mut datagram: BytesMut) {
        let drop_reason = if !self.concerns_the_room(&datagram[HEADER_LEN..]) {
            Some(DropReason::NotForRoom)
        } else if link.is_none() {
            Some(DropReason::NotConnected)
        } else {
            None
        };
        let wanted = self.log.wants(drop_reason.is_some());
        if wanted {
            let action = drop_reason.map_or(FrameAction::Passed("to-relay"), FrameAction::Dropped);
            let targets = usize::from(drop_reason.is_none());
            self.log.record(&self.room, link.map(|l| l.1), &datagram[HEADER_LEN..], action, targets);
        }
        match (drop_reason, link) {
            (None, Some((cable, peer))) => {
                let (header, _) = datagram.split_at_mut(HEADER_LEN);
                if let Ok(header) = header.try_into() {
                    write_header(header, *peer);
                }
                cable.send(now, datagram.freeze());
            }
            (reason, _) => self.counters.add_drops(reason.unwrap_or(DropReason::NotConnected), 1),
        }
    }

    /// A gateway hears its whole LAN. Unicast goes up only to a MAC of the room: what two LAN hosts say to each other is theirs.
    fn concerns_the_room(&self, frame: &[u8]) -> bool {
        let Some(remotes) = self.remotes() else { return true };
        match EthernetFrame::parse(frame) {
            Ok(frame) => frame.destination().is_group() || remotes.contains(frame.destination()),
            Err(_runt) => false,
        }
    }

    fn deliver(&self, now: Duration, frames: &mut Vec<Received>) {
        if frames.is_empty() {
            return;
        }
        let bytes: usize = frames.iter().map(|f| f.frame().len()).sum();
        self.counters.add_received(frames.len() as u64, bytes as u64);
        if let Some(mut remotes) = self.remotes() {
            for received in frames.iter() {
                if let Ok(frame) = EthernetFrame::parse(received.frame()) {
                    remotes.seen(frame.source(), now);
                }
            }
        }
        for received in frames.iter() {
            if self.log.wants(false) {
                let action = FrameAction::Passed("to-port");
                self.log.record(&self.room, Some(received.peer), received.frame(), action, 1);
            }
        }
        match self.port.send(frames.iter().map(Received::frame)) {
            Ok(outcome) => {
                self.counters.add_drops(DropReason::PortFull, outcome.refused as u64);
                self.counters.add_drops(DropReason::PortError, outcome.failed as u64);
            }
            Err(_) => self.counters.add_drops(DropReason::PortError, frames.len() as u64),
        }
        frames.clear();
    }

    /// Gateways: speaks for quiet remote MACs while connected.
    async fn refresh(self: Arc<Self>) {
        let mut tick = interval(REFRESH_SPACING);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.link().is_none() {
                continue;
            }
            let due = self.remotes().and_then(|mut remotes| remotes.due(self.clock.now()));
            if let Some(mac) = due {
                let frame = refresh_frame(mac);
                // A refusal is no loss: the MAC comes round again.
                let _: Result<_, PortError> = self.port.send([&frame[..]]);
            }
        }
    }
}

/// From the relay to the port.
struct Downlink {
    shared: Arc<Shared>,
    inbound: Inbound,
    frames: Vec<Received>,
    answers: Answers,
}

/// Answers to loopback messages. It has a cable of its own, because `Shared::link` must not be locked while a sink is.
struct Answers {
    cable: Arc<Cable>,
    peer: PeerId,
    /// Which second it is, and the answers given in it.
    second: u64,
    given: u32,
}

impl Answers {
    /// Sends a loopback message back. False if too many were sent back just now.
    fn give(&mut self, now: Duration, message: &[u8]) -> bool {
        if self.second != now.as_secs() {
            (self.second, self.given) = (now.as_secs(), 0);
        }
        if self.given >= ANSWERS_A_SECOND {
            return false;
        }
        self.given += 1;
        let mut header = [0; HEADER_LEN];
        write_header(&mut header, self.peer);
        let mut datagram = BytesMut::with_capacity(HEADER_LEN + message.len());
        datagram.extend_from_slice(&header);
        datagram.extend_from_slice(message);
        turn_into_reply(&mut datagram[HEADER_LEN..]);
        self.cable.send(now, datagram.freeze());
        true
    }
}

impl Downlink {
    /// Whether a frame was dealt with here and is nothing for the port.
    fn answered(&mut self, now: Duration, received: &Received) -> bool {
        let frame = received.frame();
        let Some(own) = self.shared.loopback else { return false };
        if !is_loopback_message(frame, own) || !self.answers.give(now, frame) {
            return false;
        }
        self.shared.counters.add_received(1, frame.len() as u64);
        if self.shared.log.wants(false) {
            let action = FrameAction::Passed("answered");
            self.shared.log.record(&self.shared.room, Some(received.peer), frame, action, 1);
        }
        true
    }
}

impl Sink for Downlink {
    fn deliver(&mut self, datagrams: &mut Vec<Bytes>) -> Result<(), (u32, String)> {
        let now = self.shared.clock.now();
        for datagram in datagrams.drain(..) {
            match self.inbound.accept(now, datagram) {
                Ok(Some(received)) if self.answered(now, &received) => {}
                Ok(Some(received)) => self.frames.push(received),
                Ok(None) => {}
                Err(_malformed) => self.shared.counters.add_drops(DropReason::Malformed, 1),
            }
        }
        // All together, so that segments of a flow can be joined.
        self.shared.deliver(now, &mut self.frames);
        Ok(())
    }
}
