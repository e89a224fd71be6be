//! The relay's loop: a room's switch with the cables plugged into it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use softlan_switch::{
    Counters, DropReason, FloodKind, Limits, PlugError, Role, Settings, Switch, SwitchEvent, Verdict,
};
use softlan_wire::{Mac, PeerId};

use crate::cable::{Cable, Clock, Inbound};
use crate::connection::Connection;
use crate::engine::link::{Link, Sink};
use crate::frame_log::{FrameAction, FrameLog};
use crate::room_events::Bell;

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
        // Held for one batch, never across an await. A panic inside would have to come from the switch itself.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What the switch has to tell now, and whether something is still going on whose end is to be told.
    pub(crate) fn take_events(&self) -> (Vec<SwitchEvent>, bool) {
        let mut state = self.state();
        (state.switch.take_events(self.clock.now()), state.switch.is_restless())
    }

    /// Whether a station of the LAN behind the room's gateway has this address, which no client may have then.
    pub fn is_on_lan(&self, mac: Mac) -> bool {
        self.state().switch.lan_of(self.clock.now(), mac).is_some()
    }

    /// Plugs a peer in: from now on its frames are forwarded, until the connection ends or it is unplugged.
    ///
    /// # Errors
    /// [`PlugError`] when its id or MAC is in the room already or its MAC on the LAN, or there is a gateway.
    pub fn plug(
        self: &Arc<Self>,
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
        let receiver = Receiver {
            room: self.clone(),
            cable: cable.clone(),
            inbound: Inbound::new(Some(peer), counters.clone()),
            counters: counters.clone(),
            malformed_left: options.malformed_limit,
            options,
        };
        connection.link().plug(cable, Box::new(receiver));
        Ok(PluggedPeer { link: connection.link().clone(), counters })
    }

    /// Takes a peer out, unless its place is another cable's by now.
    fn unplug(&self, peer: PeerId, cable: &Arc<Cable>) {
        let mut state = self.state();
        if state.cables.get(&peer).is_some_and(|present| Arc::ptr_eq(present, cable)) {
            state.switch.unplug(self.clock.now(), peer);
            state.cables.remove(&peer);
            self.bell.ring();
        }
    }

    /// Decides one frame and hands it to the cables of its targets. `datagram` is header and frame.
    fn forward(&self, state: &mut State, now: Duration, from: PeerId, frame: &[u8], datagram: &Bytes) {
        let State { switch, cables, targets } = state;
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
    link: Arc<Link>,
    counters: Arc<Counters>,
}

impl PluggedPeer {
    /// What was received from the peer, sent to it, and dropped.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Takes the peer out of the room: membership, MACs, queues. The connection itself stays.
    pub fn unplug(&self) {
        self.link.unplug();
    }
}

impl Drop for PluggedPeer {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// What arrives from one peer. The peer is in the room as long as this exists.
struct Receiver {
    room: Arc<Room>,
    cable: Arc<Cable>,
    inbound: Inbound,
    counters: Arc<Counters>,
    malformed_left: u32,
    options: PeerOptions,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.room.unplug(self.options.peer, &self.cable);
    }
}

impl Sink for Receiver {
    fn deliver(&mut self, datagrams: &mut Vec<Bytes>) -> Result<(), (u32, String)> {
        let room = self.room.clone();
        let now = room.clock.now();
        // Once for all that came together.
        let mut state = room.state();
        for datagram in datagrams.drain(..) {
            self.take(&mut state, now, datagram)?;
        }
        Ok(())
    }
}

impl Receiver {
    fn take(&mut self, state: &mut State, now: Duration, datagram: Bytes) -> Result<(), (u32, String)> {
        let me = self.options.peer;
        match self.inbound.accept(now, datagram.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(received)) => {
                self.room.forward(state, now, me, received.frame(), &received.datagram);
                Ok(())
            }
            Err(_malformed) => {
                self.counters.add_drops(DropReason::Malformed, 1);
                if self.room.log.wants(true) {
                    let action = FrameAction::Dropped(DropReason::Malformed);
                    self.room.log.record(&self.room.name, Some(me), &datagram, action, 0);
                }
                self.malformed_left = self.malformed_left.saturating_sub(1);
                if self.malformed_left > 0 { Ok(()) } else { Err(self.options.malformed_close.clone()) }
            }
        }
    }
}
