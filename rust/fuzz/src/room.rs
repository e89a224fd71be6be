//! Two rooms' switches under any sequence of events: never to the sender, everything forwarded or dropped and counted, tables bounded;
//! what is told of loops, storms and full tables begins once, ends once, and names who is there. Each room is held to that by itself:
//! here they have nothing to meet in, and what keeps them apart in a relay is shown by rust/link/tests/party.rs.
//!
//! Input: a byte for the cap on addresses (low five bits) and the room's storm control (the others), one for the addresses' age in seconds,
//! two of filters switched off; then events: a byte whose low three bits say what, whose fourth says in which room, and whose fifth has what
//! there is to tell taken afterwards. Plug: id (high five bits: storm control), MAC (0: gateway), limits. Unplug: id. Wait: tenths of a second.
//! Frame: id, source, destination, length of the body (a byte each; the two addresses' top bit: the sender's own), the body.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use softlan_switch::{
    Counters, DropReason, Filters, FloodKind, Limits, Rate, Role, Settings, Switch, SwitchEvent, Verdict,
};
use softlan_wire::{EthernetFrame, Mac, PeerId};

use crate::{reference, source::Source};

/// A few addresses of each kind.
fn mac(number: u8) -> Mac {
    match number % 24 {
        0 => Mac::ZERO,
        1 => Mac::BROADCAST,
        2 => Mac::from_bytes([0x33, 0x33, 0, 0, 0, 1]),
        3 => Mac::from_bytes([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        number => Mac::from_bytes([2, 0, 0, 0, 0, number]),
    }
}

/// What the check itself knows of a member, present or gone.
struct Known {
    role: Role,
    counters: Arc<Counters>,
    forwarded: u64,
    dropped: u64,
    bytes: u64,
}

struct Room {
    switch: Switch,
    settings: Settings,
    /// Whether the filter called `loop` is on, if this switch has one.
    breaks_loops: bool,
    members: BTreeMap<PeerId, Known>,
    gone: Vec<Known>,
    /// Addresses that were a client's, and until when.
    former: BTreeMap<Mac, Duration>,
    told: Told,
}

/// Events that may wait to be taken (`rust/switch/src/events.rs`); more are lost.
const WAITING: usize = 64;
/// After so long without a frame everything is over.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// What a room has told: what is on now, and how many frames storms have cost.
#[derive(Debug, Default)]
struct Told {
    loops: BTreeSet<(PeerId, PeerId)>,
    conflicts: BTreeSet<(PeerId, PeerId)>,
    doubles: BTreeSet<(PeerId, PeerId)>,
    storms: BTreeSet<Option<PeerId>>,
    full: BTreeSet<PeerId>,
    dropped: u64,
    /// More came than waits for a reader who does not read: the rest cannot be held to anything.
    incomplete: bool,
}

/// Plays the events.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let first = source.byte();
    let mut settings = Settings {
        mac_cap: usize::from(first) % 32,
        storm: storm(first >> 5, 4),
        mac_age: Duration::from_secs(u64::from(source.byte())),
        ..Settings::default()
    };
    let off = source.word();
    for (bit, name) in Filters::NAMES.iter().enumerate() {
        if off >> bit & 1 != 0 {
            settings.filters.switch_off(name);
        }
    }
    let breaks_loops =
        Filters::NAMES.iter().position(|name| *name == "loop").is_some_and(|bit| off >> bit & 1 == 0);
    let mut rooms = [Room::new(settings, breaks_loops), Room::new(settings, breaks_loops)];
    let mut now = Duration::from_secs(1);
    let mut targets = Vec::new();
    while !source.is_empty() {
        let event = source.byte();
        let room = &mut rooms[usize::from(event >> 3 & 1)];
        match event & 7 {
            0 => room.plug(now, &mut source),
            1 => room.unplug(now, &mut source),
            2 => now += Duration::from_millis(u64::from(source.byte()) * 100),
            _ => room.frame(now, &mut source, &mut targets),
        }
        if event >> 4 & 1 != 0 {
            room.take_events(now);
        }
        room.check();
    }
    for room in &mut rooms {
        room.end(now + FOR_EVER);
    }
}

/// Storm control out of a few bits; zero is none.
fn storm(bits: u8, times: u32) -> Option<u32> {
    (bits != 0).then(|| u32::from(bits) * times)
}

impl Room {
    fn new(settings: Settings, breaks_loops: bool) -> Self {
        let switch = Switch::new(settings);
        Self {
            switch,
            settings,
            breaks_loops,
            members: BTreeMap::new(),
            gone: Vec::new(),
            former: BTreeMap::new(),
            told: Told::default(),
        }
    }

    fn plug(&mut self, now: Duration, source: &mut Source<'_>) {
        let first = source.byte();
        let Some(id) = PeerId::new(u16::from(first % 8)) else { return };
        let role = match source.byte() {
            0 => Role::Gateway,
            number => Role::Client(mac(number)),
        };
        let rate = |bits: u8| {
            (bits & 0x0f != 0).then(|| Rate {
                bits_per_second: u64::from(bits) * 4000,
                burst_bytes: u64::from(bits >> 4) * 500,
            })
        };
        let limits = Limits {
            total: rate(source.byte()),
            broadcast: rate(source.byte()),
            unknown: rate(source.byte()),
            storm: storm(first >> 3, 1),
        };
        let is_free =
            !self.members.contains_key(&id) && self.members.values().all(|known| known.role != role);
        let is_valid = match role {
            Role::Gateway => true,
            Role::Client(mac) => mac.check_client_identity().is_ok() && !self.is_lans(now, mac),
        };
        let plugged = self.switch.plug(now, id, role, limits);
        assert_eq!(plugged.is_ok(), is_free && is_valid, "{plugged:?}");
        if let Ok(counters) = plugged {
            self.members.insert(id, Known { role, counters, forwarded: 0, dropped: 0, bytes: 0 });
        }
    }

    /// Whether no client can have an address: the LAN has shown it, and it was no client's within a station's age before.
    fn is_lans(&self, now: Duration, mac: Mac) -> bool {
        let is_recent = |from: Duration, to: Duration| to.saturating_sub(from) <= self.settings.mac_age;
        self.switch.table().heard(mac).is_some_and(|(_, last)| {
            is_recent(last, now) && !self.former.get(&mac).is_some_and(|left| is_recent(*left, last))
        })
    }

    fn unplug(&mut self, now: Duration, source: &mut Source<'_>) {
        let Some(id) = PeerId::new(u16::from(source.byte() % 8)) else { return };
        let known = self.members.remove(&id);
        assert_eq!(self.switch.unplug(now, id), known.is_some());
        if let Some(Role::Client(own)) = known.as_ref().map(|known| known.role) {
            self.former.insert(own, now);
        }
        self.gone.extend(known);
    }

    fn frame(&mut self, now: Duration, source: &mut Source<'_>, targets: &mut Vec<PeerId>) {
        let Some(from) = PeerId::new(u16::from(source.byte() % 8)) else { return };
        let own = match self.members.get(&from).map(|known| known.role) {
            Some(Role::Client(own)) => own,
            _ => mac(20),
        };
        let address = |byte: u8| if byte & 0x80 != 0 { own } else { mac(byte) };
        let (sender, destination) = (address(source.byte()), address(source.byte()));
        let len = usize::from(source.byte()) * 7;
        let mut bytes = [&destination.bytes()[..], &sender.bytes(), source.bytes(len)].concat();
        // Most bodies are cut by the input's end: full length where it said so.
        bytes.resize(12 + len, 0);
        let verdict = self.switch.forward(now, from, &bytes, targets);
        self.judge(from, &bytes, verdict, targets);
        match (self.members.get_mut(&from), verdict) {
            (None, verdict) => assert_eq!(verdict, Verdict::Dropped(DropReason::NotConnected)),
            (Some(known), verdict) => {
                known.bytes += bytes.len() as u64;
                match verdict {
                    Verdict::Dropped(_) => known.dropped += 1,
                    _ => known.forwarded += 1,
                }
            }
        }
    }

    /// What must hold for one frame.
    fn judge(&self, from: PeerId, bytes: &[u8], verdict: Verdict, targets: &[PeerId]) {
        assert!(!targets.contains(&from), "back to the sender");
        assert!(targets.iter().all(|target| self.members.contains_key(target)), "to a stranger");
        assert!(targets.is_sorted_by(|a, b| a < b), "twice to one peer");
        if matches!(verdict, Verdict::Dropped(_)) {
            assert!(targets.is_empty(), "dropped and yet sent");
            return;
        }
        assert!(!targets.is_empty(), "forwarded to nobody");
        let frame = EthernetFrame::parse(bytes).expect("a runt was forwarded");
        let (source, destination) = (frame.source(), frame.destination());
        let owner =
            |mac| self.members.iter().find(|(_, known)| known.role == Role::Client(mac)).map(|(id, _)| *id);
        let is_client = match self.members[&from].role {
            Role::Client(own) => {
                assert!(source == own || !self.settings.filters.source_check, "spoofed");
                true
            }
            Role::Gateway => {
                let foreign = owner(source).is_some() || source.is_group() || source.is_zero();
                assert!(!foreign || !self.settings.filters.source_check, "a client's address from the LAN");
                false
            }
        };
        if is_client && self.settings.filters == Filters::default() {
            assert_eq!(reference::verdict(bytes), None, "the filters let it through");
        }
        match verdict {
            Verdict::Unicast => match owner(destination) {
                Some(owner) => assert_eq!(targets, [owner]),
                None => assert!(targets.len() == 1 && self.members[&targets[0]].role == Role::Gateway),
            },
            Verdict::Flood(kind) => {
                // One end of a loop gets nothing flooded while the other does.
                let others = self.members.len() - 1;
                let least = if self.breaks_loops { 1 } else { others };
                assert!((least..=others).contains(&targets.len()), "a flood that misses someone");
                let expected = match destination {
                    Mac::BROADCAST => FloodKind::Broadcast,
                    group if group.is_group() => FloodKind::Multicast,
                    _ => FloodKind::Unknown,
                };
                assert_eq!(kind, expected);
                assert_eq!(owner(destination), None, "a client's frame went to everyone");
            }
            Verdict::Dropped(_) => unreachable!("handled above"),
        }
    }

    /// Takes what there is to tell, which must go on from what was told before.
    fn take_events(&mut self, now: Duration) {
        let events = self.switch.take_events(now);
        assert!(!self.switch.has_events() && events.len() <= WAITING);
        let storm_drops = self.storm_drops();
        let told = &mut self.told;
        told.incomplete |= events.len() == WAITING;
        if told.incomplete {
            return;
        }
        for event in events {
            let goes_on = match event {
                SwitchEvent::LoopFound { peers, .. } => peers.0 < peers.1 && told.loops.insert(peers),
                SwitchEvent::LoopGone { peers } => told.loops.remove(&peers),
                SwitchEvent::StormBegan { peer } => told.storms.insert(peer),
                SwitchEvent::StormEnded { peer, dropped } => {
                    told.dropped += dropped;
                    dropped > 0 && told.storms.remove(&peer)
                }
                SwitchEvent::TableFull { peer } => told.full.insert(peer),
                SwitchEvent::TableEased { peer } => told.full.remove(&peer),
                SwitchEvent::AddressConflict { peers, .. } => {
                    peers.0 < peers.1 && told.conflicts.insert(peers)
                }
                SwitchEvent::AddressSettled { peers } => told.conflicts.remove(&peers),
                SwitchEvent::MacConflict { peers, .. } => peers.0 < peers.1 && told.doubles.insert(peers),
                SwitchEvent::MacSettled { peers } => told.doubles.remove(&peers),
            };
            assert!(goes_on, "{event:?} does not follow from {told:?}");
        }
        let is_here = |peer: &PeerId| self.members.contains_key(peer);
        let pairs = || told.loops.iter().chain(&told.conflicts).chain(&told.doubles);
        assert!(pairs().all(|(one, other)| is_here(one) && is_here(other)), "{told:?}");
        assert!(told.storms.iter().flatten().chain(&told.full).all(is_here), "{told:?}");
        assert!(self.breaks_loops || told.loops.is_empty(), "{told:?}");
        assert!(told.dropped <= storm_drops, "{told:?}");
    }

    /// Nothing has happened for long: everything that was told is over, and its frames were all counted.
    fn end(&mut self, now: Duration) {
        self.take_events(now);
        self.take_events(now);
        assert!(!self.switch.is_restless());
        let told = &self.told;
        if !told.incomplete {
            assert!(told.loops.is_empty() && told.storms.is_empty() && told.full.is_empty(), "{told:?}");
            assert!(told.conflicts.is_empty() && told.doubles.is_empty(), "{told:?}");
            assert_eq!(told.dropped, self.storm_drops());
        }
    }

    fn storm_drops(&self) -> u64 {
        let known = self.members.values().chain(&self.gone);
        known.map(|known| known.counters.snapshot().drops_for(DropReason::Storm)).sum()
    }

    fn check(&self) {
        assert!(self.switch.peers().iter().eq(self.members.keys()));
        assert!(self.switch.table().learned() <= self.settings.mac_cap);
        for known in self.members.values().chain(&self.gone) {
            let counted = known.counters.snapshot();
            assert_eq!(counted.frames_received, known.forwarded + known.dropped);
            assert_eq!((counted.drops_total(), counted.bytes_received), (known.dropped, known.bytes));
        }
    }
}
