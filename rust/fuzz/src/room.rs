//! Two rooms' switches under any sequence of events: each frame to whom it is for, or dropped for what the rules say (`rules.rs`) and counted,
//! tables bounded; what is told of loops, storms and full tables begins once, ends once, and names who is there. Each room is held to that by itself:
//! here they have nothing to meet in, and what keeps them apart in a relay is shown by rust/link/tests/party.rs.
//!
//! Input: a byte for the cap on addresses (low five bits) and the room's storm control (the others), one for the addresses' age in seconds,
//! two of filters switched off; then events: a byte whose low three bits say what, whose fourth says in which room, and whose fifth has what
//! there is to tell taken afterwards. Plug: id (high five bits: storm control), MAC (0: gateway), limits. Unplug: id. Wait: tenths of a second.
//! Frame: id, source, destination, length of the body (a byte each; the two addresses' top bit: the sender's own), the body. The hashes' secret
//! is made of the first four bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use softlan_switch::{Filters, Limits, Rate, Role, Settings, Switch, SwitchEvent};
use softlan_wire::{Mac, PeerId};

use crate::{
    rules::Record,
    source::{Source, secret},
};

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

struct Room {
    switch: Switch,
    settings: Settings,
    record: Record,
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
    let secret = secret(data.get(..4).unwrap_or(data));
    for (bit, name) in Filters::NAMES.iter().enumerate() {
        if off >> bit & 1 != 0 {
            settings.filters.switch_off(name);
        }
    }
    let mut rooms = [Room::new(settings, secret), Room::new(settings, secret)];
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
    fn new(settings: Settings, secret: [u64; 2]) -> Self {
        Self {
            switch: Switch::with_secret(settings, secret),
            settings,
            record: Record::new(settings),
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
        let members = &self.record.members;
        let is_free = !members.contains_key(&id) && members.values().all(|known| known.role != role);
        let is_valid = match role {
            Role::Gateway => true,
            Role::Client(mac) => mac.check_client_identity().is_ok() && !self.is_lans(now, mac),
        };
        let plugged = self.switch.plug(now, id, role, limits);
        assert_eq!(plugged.is_ok(), is_free && is_valid, "{plugged:?}");
        if let Ok(counters) = plugged {
            self.record.plug(now, id, role, limits, counters);
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
        let role = self.record.unplug(id);
        assert_eq!(self.switch.unplug(now, id), role.is_some());
        if let Some(Role::Client(own)) = role {
            self.former.insert(own, now);
        }
    }

    fn frame(&mut self, now: Duration, source: &mut Source<'_>, targets: &mut Vec<PeerId>) {
        let Some(from) = PeerId::new(u16::from(source.byte() % 8)) else { return };
        let own = match self.record.members.get(&from).map(|known| known.role) {
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
        let members = &self.record.members;
        assert!(!targets.contains(&from), "back to the sender");
        assert!(targets.iter().all(|target| members.contains_key(target)), "to a stranger");
        assert!(targets.is_sorted_by(|a, b| a < b), "twice to one peer");
        let blocked: Vec<_> = members.keys().copied().filter(|id| self.switch.is_blocked(*id)).collect();
        self.record.judge(now, from, &bytes, verdict, targets, &blocked);
    }

    /// Takes what there is to tell, which must go on from what was told before.
    fn take_events(&mut self, now: Duration) {
        let events = self.switch.take_events(now);
        assert!(!self.switch.has_events() && events.len() <= WAITING);
        let storm_drops = self.record.storm_drops();
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
        let is_here = |peer: &PeerId| self.record.members.contains_key(peer);
        let pairs = || told.loops.iter().chain(&told.conflicts).chain(&told.doubles);
        assert!(pairs().all(|(one, other)| is_here(one) && is_here(other)), "{told:?}");
        assert!(told.storms.iter().flatten().chain(&told.full).all(is_here), "{told:?}");
        assert!(self.settings.filters.loops || told.loops.is_empty(), "{told:?}");
        let is_in_loop = |peer| told.loops.iter().any(|(one, other)| [*one, *other].contains(peer));
        let mut members = self.record.members.keys();
        assert!(members.all(|id| !self.switch.is_blocked(*id) || is_in_loop(id)), "blocked without a loop");
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
            assert_eq!(told.dropped, self.record.storm_drops());
        }
    }

    fn check(&self) {
        assert!(self.switch.peers().iter().eq(self.record.members.keys()));
        assert!(self.switch.table().learned() <= self.settings.mac_cap);
        self.record.check();
    }
}
