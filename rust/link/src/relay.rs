//! The relay's loop: a room's switch with the cables plugged into it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use softlan_switch::{
    Counters, DropReason, FloodKind, Limits, PlugError, Role, Settings, Switch, SwitchEvent, Verdict,
};
use softlan_wire::PeerId;
use tokio::task::AbortHandle;

use crate::cable::{Cable, Clock, Inbound};
use crate::connection::Connection;
use crate::frame_log::{FrameAction, FrameLog};
use crate::plane::DataPlane;
use crate::room_events::Bell;

/// Datagrams taken from one connection before the others get their turn.
const BATCH: usize = 64;

/// What the control plane decided about one peer.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// Its id in the room.
    pub peer: PeerId,
    /// What it may speak for.
    pub role: Role,
    /// Its rate limits.
    pub limits: Limits,
    /// Whether it understands fragments.
    pub takes_fragments: bool,
    /// Malformed datagrams after which it is disconnected.
    pub malformed_limit: u32,
    /// The code and sentence of that disconnection (`docs/protocol.md`, codes).
    pub malformed_close: (u32, String),
}

/// A room: a switch and its cables. Rooms share nothing.
#[derive(Debug)]
pub struct Room {
    name: Arc<str>,
    clock: Clock,
    log: Arc<FrameLog>,
    pub(crate) bell: Bell,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    switch: Switch,
    cables: HashMap<PeerId, Arc<Cable>>,
    /// Kept between frames so that a flood allocates nothing.
    targets: Vec<PeerId>,
}

impl Room {
    /// An empty room. `name` is for the frame log.
    pub fn new(name: &str, settings: Settings, log: Arc<FrameLog>) -> Arc<Self> {
        let state = State { switch: Switch::new(settings), cables: HashMap::new(), targets: Vec::new() };
        let bell = Bell::default();
        Arc::new(Self { name: name.into(), clock: Clock::default(), log, bell, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Held for one frame's decision, never across an await. A panic inside would have to come from the switch itself.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What the switch has to tell now, and whether something is still going on whose end is to be told.
    pub(crate) fn take_events(&self) -> (Vec<SwitchEvent>, bool) {
        let mut state = self.state();
        (state.switch.take_events(self.clock.now()), state.switch.is_restless())
    }

    /// Plugs a peer in: from now on its frames are forwarded, on `plane`, until the connection ends or it is unplugged.
    ///
    /// # Errors
    /// [`PlugError`] when its id or MAC is in the room already, or there is a gateway.
    pub fn plug(
        self: &Arc<Self>,
        plane: &DataPlane,
        connection: &Connection,
        options: PeerOptions,
    ) -> Result<PluggedPeer, PlugError> {
        let peer = options.peer;
        let (counters, cable) = {
            let mut state = self.state();
            let counters = state.switch.plug(self.clock.now(), peer, options.role, options.limits)?;
            let cable = Cable::new(connection, options.takes_fragments, counters.clone(), self.clock);
            state.cables.insert(peer, cable.clone());
            (counters, cable)
        };
        let pump = plane.handle().spawn(cable.pump()).abort_handle();
        let receiver = Receiver {
            room: self.clone(),
            quic: connection.quic().clone(),
            inbound: Inbound::new(Some(peer), counters.clone()),
            counters: counters.clone(),
            malformed_left: options.malformed_limit,
            options,
        };
        let receive = plane.handle().spawn(receiver.run()).abort_handle();
        Ok(PluggedPeer { room: self.clone(), peer, counters, tasks: [pump, receive] })
    }

    fn unplug(&self, peer: PeerId) {
        let mut state = self.state();
        state.switch.unplug(peer);
        state.cables.remove(&peer);
        self.bell.ring();
    }

    /// Decides one frame and hands it to the cables of its targets. `datagram` is header and frame.
    fn forward(&self, from: PeerId, frame: &[u8], datagram: &Bytes) {
        let now = self.clock.now();
        let mut guard = self.state();
        let State { switch, cables, targets } = &mut *guard;
        targets.clear();
        let verdict = switch.forward(now, from, frame, targets);
        if switch.has_events() {
            self.bell.ring();
        }
        for target in targets.iter() {
            if let Some(cable) = cables.get(target) {
                cable.send(now, datagram.clone());
            }
        }
        if self.log.wants(matches!(verdict, Verdict::Dropped(_))) {
            let action = match verdict {
                Verdict::Unicast => FrameAction::Passed("unicast"),
                Verdict::Flood(FloodKind::Broadcast) => FrameAction::Passed("broadcast"),
                Verdict::Flood(FloodKind::Multicast) => FrameAction::Passed("multicast"),
                Verdict::Flood(FloodKind::Unknown) => FrameAction::Passed("unknown"),
                Verdict::Dropped(reason) => FrameAction::Dropped(reason),
            };
            self.log.record(&self.name, Some(from), frame, action, targets.len());
        }
    }
}

/// A peer in a room, until [`unplug`](Self::unplug) or drop.
#[derive(Debug)]
pub struct PluggedPeer {
    room: Arc<Room>,
    peer: PeerId,
    counters: Arc<Counters>,
    tasks: [AbortHandle; 2],
}

impl PluggedPeer {
    /// What was received from the peer, sent to it, and dropped.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Takes the peer out of the room: membership, MACs, queues. The connection itself stays.
    pub fn unplug(&self) {
        for task in &self.tasks {
            task.abort();
        }
        self.room.unplug(self.peer);
    }
}

impl Drop for PluggedPeer {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// What arrives from one peer.
struct Receiver {
    room: Arc<Room>,
    quic: quinn::Connection,
    inbound: Inbound,
    counters: Arc<Counters>,
    malformed_left: u32,
    options: PeerOptions,
}

impl Receiver {
    async fn run(mut self) {
        let mut in_batch = 0;
        while let Ok(datagram) = self.quic.read_datagram().await {
            if !self.take(datagram) {
                let (code, reason) = &self.options.malformed_close;
                self.quic.close(quinn::VarInt::from_u32(*code), reason.as_bytes());
                break;
            }
            in_batch += 1;
            if in_batch >= BATCH {
                in_batch = 0;
                tokio::task::yield_now().await;
            }
        }
        // The control plane hears of the end by itself; frames must stop going there now.
        self.room.unplug(self.options.peer);
    }

    /// `false` when the peer has sent too many malformed datagrams.
    fn take(&mut self, datagram: Bytes) -> bool {
        let me = self.options.peer;
        match self.inbound.accept(self.room.clock.now(), datagram.clone()) {
            Ok(None) => true,
            Ok(Some(received)) => {
                self.room.forward(me, received.frame(), &received.datagram);
                true
            }
            Err(_malformed) => {
                self.counters.add_drops(DropReason::Malformed, 1);
                if self.room.log.wants(true) {
                    let action = FrameAction::Dropped(DropReason::Malformed);
                    self.room.log.record(&self.room.name, Some(me), &datagram, action, 0);
                }
                self.malformed_left = self.malformed_left.saturating_sub(1);
                self.malformed_left > 0
            }
        }
    }
}
