//! The bridge's loop: frames between a port of this machine and the relay.
//!
//! The port outlives connections: while there is none, what the machine sends is dropped and counted, and the next connection is
//! attached to the same port, so that a player's adapter stays up through a reconnect.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use softlan_port::{AnyPort, FrameBatch, Port, PortCountersSnapshot, PortError};
use softlan_switch::{Counters, DropReason, Rate, TokenBucket};
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
    way: Way,
}

/// The way up while there is a relay.
#[derive(Debug, Clone)]
struct Way {
    cable: Arc<Cable>,
    peer: PeerId,
    /// What of its storm control the relay has told.
    storm_limit: Option<u32>,
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
    ///
    /// `storm_limit` is how many broadcasts and multicasts a second the relay takes from this peer (`welcome`, `docs/protocol.md`): of those
    /// above that and a quarter nothing is sent, so that a storm does not fill the line before the relay can drop it. The
    /// quarter is for the relay to see that there is one, because it is the relay that tells people. `None`: all are sent.
    pub fn attach(&self, connection: &Connection, peer: PeerId, storm_limit: Option<u32>) {
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
        let way = Way { cable, peer, storm_limit };
        *shared.link() = Some(Attached { link: connection.link().clone(), way });
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
        let mut storm = StormBound::default();
        loop {
            if let Err(error) = self.port.recv(&mut batch).await {
                // Fails only when the receiver is gone, and then nobody asks.
                let _ = failure.send(Some(error.to_string()));
                return;
            }
            let way = self.link().as_ref().map(|attached| attached.way.clone());
            let now = self.clock.now();
            if let Some(way) = &way {
                storm.hold_to(now, way.storm_limit);
            }
            for datagram in batch.drain() {
                self.send_up(now, way.as_ref(), &mut storm, datagram);
            }
            // A LAN that never pauses must not keep the other tasks of this thread waiting.
            tokio::task::yield_now().await;
        }
    }

    fn send_up(&self, now: Duration, way: Option<&Way>, storm: &mut StormBound, mut datagram: BytesMut) {
        let frame = &datagram[HEADER_LEN..];
        let drop_reason = if !self.concerns_the_room(frame) {
            Some(DropReason::NotForRoom)
        } else if way.is_none() {
            Some(DropReason::NotConnected)
        } else if storm.is_too_many(now, frame) {
            Some(DropReason::Storm)
        } else {
            None
        };
        let wanted = self.log.wants(drop_reason.is_some());
        if wanted {
            let action = drop_reason.map_or(FrameAction::Passed("to-relay"), FrameAction::Dropped);
            let targets = usize::from(drop_reason.is_none());
            self.log.record(&self.room, way.map(|way| way.peer), &datagram[HEADER_LEN..], action, targets);
        }
        match (drop_reason, way) {
            (None, Some(way)) => {
                let (header, _) = datagram.split_at_mut(HEADER_LEN);
                if let Ok(header) = header.try_into() {
                    write_header(header, way.peer);
                }
                way.cable.send(now, datagram.freeze());
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

/// Storm control of what the port sends: of the loop in a LAN, or the machine gone wrong, as much as the relay would take.
#[derive(Debug, Default)]
struct StormBound {
    /// What the relay has told.
    limit: Option<u32>,
    bucket: Option<TokenBucket>,
}

impl StormBound {
    /// Holds to a quarter more than `limit` from now on. What it holds to already goes on as it is, so that no reconnect is worth a burst.
    fn hold_to(&mut self, now: Duration, limit: Option<u32>) {
        if self.limit == limit {
            return;
        }
        self.limit = limit;
        self.bucket = limit.map(|frames| {
            let frames = frames.saturating_add(frames.div_ceil(4));
            TokenBucket::new(now, Rate::of_frames(frames))
        });
    }

    /// Whether a frame is one broadcast or multicast too many; takes it if not.
    #[inline]
    fn is_too_many(&mut self, now: Duration, frame: &[u8]) -> bool {
        let Some(bucket) = &mut self.bucket else { return false };
        let is_group = frame.first_chunk().is_some_and(|to| Mac::from_bytes(*to).is_group());
        is_group && !bucket.try_take(now, 1)
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

#[cfg(test)]
mod tests {
    use super::*;

    const BROADCAST: [u8; 60] = [0xff; 60];
    const MDNS: [u8; 60] = [0x33; 60];
    const UNICAST: [u8; 60] = [0x02; 60];

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// How many of so many frames pass.
    fn passed(storm: &mut StormBound, now: Duration, frame: &[u8], count: u32) -> u32 {
        (0..count).map(|_| u32::from(!storm.is_too_many(now, frame))).sum()
    }

    #[test]
    fn a_storm_is_held_to_a_quarter_more_than_the_relay_takes() {
        let mut storm = StormBound::default();
        storm.hold_to(at(0), Some(2000));
        assert_eq!(passed(&mut storm, at(0), &BROADCAST, 100_000), 2500);
        // Ten seconds of 10,000 a second, both kinds; what is for one station passes whatever the storm.
        let mut both = [0; 2];
        for milli in 1..=10_000 {
            both[0] += passed(&mut storm, at(milli), &BROADCAST, 5);
            both[1] += passed(&mut storm, at(milli), &MDNS, 5);
            assert_eq!(passed(&mut storm, at(milli), &UNICAST, 5), 5);
        }
        assert_eq!(both.iter().sum::<u32>(), 25_000);
        // Too short to be for anybody: nothing to count.
        assert_eq!(passed(&mut storm, at(10_000), &[0xff; 5], 5), 5);
    }

    #[test]
    fn what_the_relay_takes_counts_from_when_it_says_so() {
        let mut storm = StormBound::default();
        assert_eq!(passed(&mut storm, at(0), &BROADCAST, 10_000), 10_000);
        storm.hold_to(at(0), Some(1));
        assert_eq!(passed(&mut storm, at(0), &BROADCAST, 10), 2);
        // The same from the next connection is no new beginning; another number is one.
        storm.hold_to(at(100), Some(1));
        assert_eq!(passed(&mut storm, at(100), &BROADCAST, 10), 0);
        storm.hold_to(at(100), Some(u32::MAX));
        assert_eq!(passed(&mut storm, at(100), &BROADCAST, 10), 10);
        storm.hold_to(at(100), Some(0));
        assert_eq!(
            passed(&mut storm, at(100), &BROADCAST, 10),
            1,
            "as at the relay: on account, and none after it"
        );
        storm.hold_to(at(100), None);
        assert_eq!(passed(&mut storm, at(100), &BROADCAST, 10), 10);
    }
}
