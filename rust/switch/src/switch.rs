//! A room's switch: peers are plugged in and out, and every frame gets a verdict and its receivers.

use std::sync::Arc;
use std::time::Duration;

use softlan_wire::{EtherType, EthernetFrame, IdentityError, Mac, PeerId};
use thiserror::Error;

use crate::claims;
use crate::conflicts::{self, Conflicts};
use crate::counters::{Counters, DropReason};
use crate::doubles::Doubles;
use crate::events::{EventQueue, SwitchEvent};
use crate::filters::Filters;
use crate::hash::FoldState;
use crate::limits::{Buckets, Class, Limits, TokenBucket};
use crate::loops::{Loops, Seen};
use crate::storm::{Gust, StormControl, share};
use crate::table::{Heard, MacTable};

/// How a switch behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which filters are on.
    pub filters: Filters,
    /// How long a learned station is remembered without a frame from it; 300 s by default, as in IEEE 802.1Q-2018, table 8-6.
    pub mac_age: Duration,
    /// How many learned stations are remembered at most; 4096 by default.
    pub mac_cap: usize,
    /// Broadcasts and multicasts a second of all peers together; `None`, the default, is no limit. When they are used up each peer
    /// still has a twentieth of its own limit.
    pub storm: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { filters: Filters::default(), mac_age: Duration::from_secs(300), mac_cap: 4096, storm: None }
    }
}

/// The table has room again when nothing has found it full for so long.
const TABLE_QUIET: Duration = Duration::from_secs(60);

/// What a peer is in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One machine, with the one address that is its own.
    Client(Mac),
    /// A LAN, with as many addresses as it likes, learned from its frames.
    Gateway,
}

/// Where a frame goes, or why it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the one peer that has the destination.
    Unicast,
    /// To every peer but the sender.
    Flood(FloodKind),
    /// To nobody.
    Dropped(DropReason),
}

/// Why a frame goes to everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloodKind {
    /// The destination is the broadcast address.
    Broadcast,
    /// The destination is a multicast address.
    Multicast,
    /// The destination is a station the switch does not know.
    Unknown,
}

impl FloodKind {
    /// A stable name for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a peer cannot be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlugError {
    /// The id is in use.
    #[error("peer {0} is plugged in already")]
    PeerPresent(PeerId),
    /// The room has a gateway.
    #[error("the room has a gateway already, peer {0}")]
    GatewayPresent(PeerId),
    /// Another client has the address.
    #[error("{mac} is the address of peer {owner}")]
    MacTaken {
        /// The address.
        mac: Mac,
        /// Who has it.
        owner: PeerId,
    },
    /// The LAN behind the gateway has the address.
    #[error("{mac} is the address of a station on the LAN behind gateway {gateway}")]
    MacOnLan {
        /// The address.
        mac: Mac,
        /// The gateway.
        gateway: PeerId,
    },
    /// No client can have the address.
    #[error(transparent)]
    Mac(#[from] IdentityError),
}

/// The switch of one room.
#[derive(Debug)]
pub struct Switch {
    filters: Filters,
    table: MacTable,
    /// In ascending order, so that a peer is found by halving and a flood is two copies.
    peers: Vec<PeerId>,
    /// What belongs to the peer at the same place of `peers`.
    members: Vec<Member>,
    /// All peers together, but for the share of each.
    storm: StormControl,
    loops: Loops,
    conflicts: Conflicts,
    doubles: Doubles,
    /// The gateway that found the table full, and when it did last.
    table_full: Option<(PeerId, Duration)>,
    events: EventQueue,
}

#[derive(Debug)]
struct Member {
    role: Role,
    buckets: Buckets,
    storm: StormControl,
    /// Broadcasts and multicasts that pass when the room's number is used up.
    share: Option<TokenBucket>,
    counters: Arc<Counters>,
}

impl Switch {
    /// A switch without peers.
    pub fn new(settings: Settings) -> Self {
        Self::with_hashes(settings, FoldState::random)
    }

    /// A switch whose hashes have a known secret, two numbers that look random, so that fuzzing and simulation can play again what they found.
    /// Everything else takes [`new`](Self::new): who knows the secret can choose addresses that meet in the table.
    #[doc(hidden)]
    pub fn with_secret(settings: Settings, secret: [u64; 2]) -> Self {
        Self::with_hashes(settings, || FoldState::with_secret(secret))
    }

    fn with_hashes(settings: Settings, hash: impl Fn() -> FoldState) -> Self {
        Self {
            filters: settings.filters,
            table: MacTable::with_hashes(settings.mac_age, settings.mac_cap, hash(), hash()),
            peers: Vec::new(),
            members: Vec::new(),
            storm: StormControl::new(Duration::ZERO, settings.storm),
            loops: Loops::new(hash()),
            conflicts: Conflicts::default(),
            doubles: Doubles::new(settings.mac_age),
            table_full: None,
            events: EventQueue::default(),
        }
    }

    /// Plugs a peer in, its limits untouched so far. Gives the peer's counters, which the caller may keep and add to.
    ///
    /// # Errors
    /// See [`PlugError`]; the switch is as it was.
    pub fn plug(
        &mut self,
        now: Duration,
        peer: PeerId,
        role: Role,
        limits: Limits,
    ) -> Result<Arc<Counters>, PlugError> {
        let Err(place) = self.peers.binary_search(&peer) else { return Err(PlugError::PeerPresent(peer)) };
        match role {
            Role::Client(mac) => {
                mac.check_client_identity()?;
                if let Some(gateway) = self.lan_of(now, mac) {
                    return Err(PlugError::MacOnLan { mac, gateway });
                }
                self.table.register(mac, peer).map_err(|owner| PlugError::MacTaken { mac, owner })?;
            }
            Role::Gateway => {
                if let Some(present) = self.gateway() {
                    return Err(PlugError::GatewayPresent(present));
                }
            }
        }
        let counters = Arc::new(Counters::default());
        let member = Member {
            role,
            buckets: Buckets::new(now, limits),
            storm: StormControl::new(now, limits.storm),
            share: share(now, limits.storm),
            counters: Arc::clone(&counters),
        };
        self.peers.insert(place, peer);
        self.members.insert(place, member);
        self.loops.set_gateway(self.gateway());
        Ok(counters)
    }

    /// Plugs a peer out and forgets its addresses, except that a client's was one: see [`lan_of`](Self::lan_of). Says whether it was there.
    pub fn unplug(&mut self, now: Duration, peer: PeerId) -> bool {
        let Ok(place) = self.peers.binary_search(&peer) else { return false };
        self.peers.remove(place);
        let mut member = self.members.remove(place);
        self.table.purge(now, peer);
        self.loops.forget(peer, &mut self.events);
        self.conflicts.forget(peer, &mut self.events);
        self.doubles.forget(peer, &mut self.events);
        self.loops.set_gateway(self.gateway());
        if let Some(dropped) = member.storm.end() {
            self.events.push(SwitchEvent::StormEnded { peer: Some(peer), dropped });
        }
        if self.table_full.take_if(|(gateway, _)| *gateway == peer).is_some() {
            self.events.push(SwitchEvent::TableEased { peer });
        }
        true
    }

    /// What has set in or ended since the last call, in that order. A storm or loop ends here, when `now` is long enough after its
    /// last frame; so call it from time to time while [`is_restless`](Self::is_restless).
    pub fn take_events(&mut self, now: Duration) -> Vec<SwitchEvent> {
        self.loops.settle(now, &mut self.events);
        self.conflicts.settle(now, &mut self.events);
        self.doubles.settle(now, &mut self.events);
        if let Some(dropped) = self.storm.settle(now) {
            self.events.push(SwitchEvent::StormEnded { peer: None, dropped });
        }
        for (peer, member) in self.peers.iter().zip(&mut self.members) {
            if let Some(dropped) = member.storm.settle(now) {
                self.events.push(SwitchEvent::StormEnded { peer: Some(*peer), dropped });
            }
        }
        let eased = self.table_full.take_if(|(_, last)| now.saturating_sub(*last) >= TABLE_QUIET);
        if let Some((peer, _)) = eased {
            self.events.push(SwitchEvent::TableEased { peer });
        }
        self.events.take()
    }

    /// Whether there are events to take.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether a peer gets no flooded frames, because they reach it outside the room.
    pub fn is_blocked(&self, peer: PeerId) -> bool {
        self.loops.blocked().contains(&peer)
    }

    /// Whether something has set in that has not ended.
    pub fn is_restless(&self) -> bool {
        self.loops.is_on()
            || self.conflicts.is_on()
            || self.doubles.is_on()
            || self.table_full.is_some()
            || self.storm.is_on()
            || self.members.iter().any(|member| member.storm.is_on())
    }

    /// The peers plugged in, in ascending order.
    pub fn peers(&self) -> &[PeerId] {
        &self.peers
    }

    /// What a peer is; `None` if it is not plugged in.
    pub fn role(&self, peer: PeerId) -> Option<Role> {
        let place = self.peers.binary_search(&peer).ok()?;
        Some(self.members[place].role)
    }

    /// The peer that is the room's gateway.
    pub fn gateway(&self) -> Option<PeerId> {
        let place = self.members.iter().position(|member| member.role == Role::Gateway)?;
        Some(self.peers[place])
    }

    /// The gateway whose LAN has a station with this address, so that no client can be plugged in with it: it would take over what is
    /// for that station. `None` also where the address was a client's so short a time ago that what was heard may be the client's own.
    pub fn lan_of(&self, now: Duration, mac: Mac) -> Option<PeerId> {
        self.table.lan_of(now, mac)
    }

    /// The room's addresses.
    pub const fn table(&self) -> &MacTable {
        &self.table
    }

    /// Judges a frame from a peer and puts its receivers into `targets`, whose former content is gone.
    ///
    /// Counts the frame, and its drop, on the sender's counters: frames received are exactly those forwarded (a verdict
    /// that is not `Dropped`) and those dropped here. What the receivers' queues then drop is theirs to count.
    /// A frame from a peer that is not plugged in is [`DropReason::NotConnected`] and counted nowhere.
    ///
    /// Nothing is allocated, except that `targets` grows to the size of the room and the address table to that of the LAN.
    pub fn forward(
        &mut self,
        now: Duration,
        from: PeerId,
        frame: &[u8],
        targets: &mut Vec<PeerId>,
    ) -> Verdict {
        targets.clear();
        let Ok(place) = self.peers.binary_search(&from) else {
            return Verdict::Dropped(DropReason::NotConnected);
        };
        let verdict = self.decide(now, place, frame, targets);
        let counters = &self.members[place].counters;
        counters.add_received(1, frame.len() as u64);
        if let Verdict::Dropped(reason) = verdict {
            counters.add_drops(reason, 1);
        }
        verdict
    }

    /// The steps of `docs/protocol.md`, "What the relay does with a frame", in their order. `place` is the sender's.
    #[inline]
    fn decide(&mut self, now: Duration, place: usize, bytes: &[u8], targets: &mut Vec<PeerId>) -> Verdict {
        let (from, role) = (self.peers[place], self.members[place].role);
        let Ok(frame) = EthernetFrame::parse(bytes) else {
            return Verdict::Dropped(DropReason::Runt);
        };
        if let Some(reason) = self.filters.judge_length(&frame, bytes.len()) {
            return Verdict::Dropped(reason);
        }
        let (source, destination) = (frame.source(), frame.destination());
        let control = self.filters.judge_destination(destination);
        let source_fault = match role {
            _ if source.is_group() || source.is_zero() => Some(DropReason::SourceInvalid),
            Role::Client(own) => (source != own).then_some(DropReason::SourceForeign),
            // What a neighbouring switch says for itself is not learned: it is no station that anyone sends to.
            Role::Gateway if control.is_some() => {
                self.table.registered(source).map(|_| DropReason::SourceForeign)
            }
            Role::Gateway => match self.table.hear(now, source, from) {
                Heard::Registered(_) => Some(DropReason::SourceForeign),
                Heard::Learned => None,
                // What is for a station that was not learned floods as unknown.
                Heard::Displaced | Heard::Full => {
                    self.note_full_table(now, place);
                    None
                }
            },
        };
        match source_fault.filter(|_| self.filters.source_check).or(control) {
            Some(DropReason::SourceForeign) if control.is_none() && self.filters.loops => {
                return Verdict::Dropped(self.judge_foreign(now, from, role, &frame));
            }
            Some(reason) => return Verdict::Dropped(reason),
            None => {}
        }
        if let Some(reason) = self.judge_content(from, role, &frame) {
            return Verdict::Dropped(reason);
        }
        let (class, verdict, target) = if destination.is_group() {
            let kind = if destination.is_broadcast() { FloodKind::Broadcast } else { FloodKind::Multicast };
            (Class::Group, Verdict::Flood(kind), None)
        } else {
            match self.table.find(now, destination) {
                Some(target) if target == from => return Verdict::Dropped(DropReason::SamePort),
                Some(target) => (Class::Unicast, Verdict::Unicast, Some(target)),
                None => (Class::Unknown, Verdict::Flood(FloodKind::Unknown), None),
            }
        };
        let mut seen = None;
        if target.is_none() && self.filters.loops {
            let is_idempotent = frame.ethertype() == EtherType::RARP;
            let owner = self.table.registered(source);
            match self.loops.look(now, from, &frame, owner, is_idempotent, &mut self.events) {
                Seen::Copy => return Verdict::Dropped(DropReason::Loop),
                Seen::New(hash) => seen = Some(hash),
            }
        }
        if class == Class::Group && self.is_storm(now, place) {
            return Verdict::Dropped(DropReason::Storm);
        }
        let member = &mut self.members[place];
        if let Some(reason) = member.buckets.judge(now, class, bytes.len() as u64) {
            return Verdict::Dropped(reason);
        }
        if class == Class::Group {
            member.storm.take();
            if self.storm.allows(now) {
                self.storm.take();
            } else if let Some(share) = &mut member.share {
                share.take(1);
            }
        }
        // Only what passes counts: what was dropped took nobody's address away.
        if let Some(address) = conflicts::claimed(frame.protocol()) {
            let is_lan = matches!(role, Role::Gateway);
            self.conflicts.hear(now, from, is_lan, address, &mut self.events);
        }
        match target {
            Some(target) => targets.push(target),
            None if self.peers.len() == 1 => return Verdict::Dropped(DropReason::NoTarget),
            None => {
                targets.extend_from_slice(&self.peers[..place]);
                targets.extend_from_slice(&self.peers[place + 1..]);
                let blocked = self.loops.blocked();
                if !blocked.is_empty() {
                    targets.retain(|target| !blocked.contains(target));
                    if targets.is_empty() {
                        return Verdict::Dropped(DropReason::Loop);
                    }
                }
                if let Some(hash) = seen {
                    self.loops.passed(now, from, hash);
                }
            }
        }
        verdict
    }

    /// What a frame carries that its sender may not say.
    #[inline]
    fn judge_content(&self, from: PeerId, role: Role, frame: &EthernetFrame<'_>) -> Option<DropReason> {
        self.filters.judge_content(role, frame).or_else(|| {
            let from_lan = matches!(role, Role::Gateway);
            claims::judge(&self.filters, from_lan, frame.protocol(), |mac| match role {
                Role::Client(own) if self.filters.source_check => mac != own,
                // Without the source check a client may speak for stations behind it, but for no other client.
                _ => self.table.registered(mac).is_some_and(|owner| owner != from),
            })
        })
    }

    /// A frame whose source is not its sender's: has it come back, or does its sender lie?
    #[cold]
    fn judge_foreign(
        &mut self,
        now: Duration,
        from: PeerId,
        role: Role,
        frame: &EthernetFrame<'_>,
    ) -> DropReason {
        let (source, events) = (frame.source(), &mut self.events);
        let owner = self.table.registered(source);
        if frame.ethertype() == EtherType::RARP && frame.destination().is_broadcast() && owner.is_some() {
            // A gateway speaks on its LAN for the room's clients like this (CAM refresh), and nobody else does.
            if let Some(owner) = owner {
                self.loops.look_refresh(now, from, source, owner, events);
            }
            return DropReason::Loop;
        }
        let is_group = frame.destination().is_group();
        if is_group && self.loops.look_foreign(now, from, frame, owner, events) {
            return DropReason::Loop;
        }
        if let Some(home) = self.table.heard(source).filter(|(home, _)| *home != from) {
            self.loops.look_flapping(now, from, home, source, events);
        }
        // A loop that was told says already where such frames come from.
        if let (Role::Gateway, Some(client)) = (role, owner)
            && !self.loops.is_told(from, client)
        {
            self.doubles.hear(now, from, client, source, events);
        }
        DropReason::SourceForeign
    }

    /// Whether a broadcast or multicast is one too many; of those that pass nothing is taken yet.
    #[inline]
    fn is_storm(&mut self, now: Duration, place: usize) -> bool {
        let member = &mut self.members[place];
        let whose = match member.storm.judge(now) {
            Gust::Began => Some(self.peers[place]),
            Gust::Dropped => return true,
            Gust::Passes if self.storm.allows(now) => return false,
            Gust::Passes if member.share.as_mut().is_some_and(|share| share.allows(now, 1)) => return false,
            Gust::Passes => match self.storm.drop_one(now) {
                Gust::Began => None,
                _ => return true,
            },
        };
        self.events.push(SwitchEvent::StormBegan { peer: whose });
        true
    }

    #[cold]
    fn note_full_table(&mut self, now: Duration, place: usize) {
        let peer = self.peers[place];
        self.members[place].counters.add_mac_table_full();
        if self.table_full.replace((peer, now)).is_none() {
            self.events.push(SwitchEvent::TableFull { peer });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rate;

    const NOW: Duration = Duration::from_secs(1000);
    const ANN: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 1]);
    const BOB: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 2]);
    const PRINTER: Mac = Mac::from_bytes([0, 0x11, 0x22, 0x33, 0x44, 0x55]);
    const NAS: Mac = Mac::from_bytes([0, 0x11, 0x22, 0x33, 0x44, 0x66]);
    const MDNS: Mac = Mac::from_bytes([0x01, 0x00, 0x5e, 0, 0, 0xfb]);
    const SPANNING_TREE: Mac = Mac::from_bytes([0x01, 0x80, 0xc2, 0, 0, 0]);

    fn peer(value: u16) -> PeerId {
        PeerId::new(value).unwrap()
    }

    /// Ann is peer 1, Bob 2, the gateway 3.
    fn party(settings: Settings) -> Switch {
        let mut switch = Switch::new(settings);
        for (id, role) in [(3, Role::Gateway), (1, Role::Client(ANN)), (2, Role::Client(BOB))] {
            switch.plug(NOW, peer(id), role, Limits::default()).unwrap();
        }
        switch
    }

    fn frame(source: Mac, destination: Mac) -> Vec<u8> {
        let mut frame = [destination.bytes(), source.bytes()].concat();
        frame.extend([0x08, 0x06]);
        frame.resize(60, 0);
        frame
    }

    /// Verdict and receivers of a frame.
    fn sent(switch: &mut Switch, now: Duration, from: u16, bytes: &[u8]) -> (Verdict, Vec<u16>) {
        // What was in the list before must not matter.
        let mut targets = vec![peer(99)];
        let verdict = switch.forward(now, peer(from), bytes, &mut targets);
        (verdict, targets.into_iter().map(PeerId::value).collect())
    }

    fn dropped(reason: DropReason) -> (Verdict, Vec<u16>) {
        (Verdict::Dropped(reason), vec![])
    }

    #[test]
    fn unicast_goes_to_its_owner_and_the_rest_to_everyone_else() {
        let mut switch = party(Settings::default());
        let mut from = |from, source, destination| sent(&mut switch, NOW, from, &frame(source, destination));
        assert_eq!(from(1, ANN, BOB), (Verdict::Unicast, vec![2]));
        assert_eq!(from(1, ANN, Mac::BROADCAST), (Verdict::Flood(FloodKind::Broadcast), vec![2, 3]));
        assert_eq!(from(2, BOB, MDNS), (Verdict::Flood(FloodKind::Multicast), vec![1, 3]));
        assert_eq!(from(1, ANN, PRINTER), (Verdict::Flood(FloodKind::Unknown), vec![2, 3]));
        assert_eq!(from(3, PRINTER, BOB), (Verdict::Unicast, vec![2]));
        assert_eq!(from(1, ANN, PRINTER), (Verdict::Unicast, vec![3]));
        assert_eq!(from(3, NAS, PRINTER), dropped(DropReason::SamePort));
        assert_eq!(from(1, ANN, ANN), dropped(DropReason::SamePort));
    }

    #[test]
    fn learned_stations_age_by_the_settings() {
        let mut switch = party(Settings { mac_age: Duration::from_secs(10), ..Settings::default() });
        sent(&mut switch, NOW, 3, &frame(PRINTER, ANN));
        let to_printer = frame(ANN, PRINTER);
        assert_eq!(sent(&mut switch, NOW + Duration::from_secs(10), 1, &to_printer).0, Verdict::Unicast);
        let later = NOW + Duration::from_secs(11);
        assert_eq!(sent(&mut switch, later, 1, &to_printer).0, Verdict::Flood(FloodKind::Unknown));
        assert_eq!(sent(&mut switch, later, 1, &frame(ANN, BOB)).0, Verdict::Unicast);
    }

    #[test]
    fn a_full_table_floods_and_counts() {
        let mut switch = party(Settings { mac_cap: 1, ..Settings::default() });
        sent(&mut switch, NOW, 3, &frame(PRINTER, ANN));
        sent(&mut switch, NOW, 3, &frame(NAS, ANN));
        assert_eq!(sent(&mut switch, NOW, 1, &frame(ANN, NAS)).0, Verdict::Flood(FloodKind::Unknown));
        assert_eq!((switch.table().learned(), switch.table().refused()), (1, 1));
    }

    #[test]
    fn sources_must_be_the_senders_own() {
        let mut switch = party(Settings::default());
        let mut from = |from, source| sent(&mut switch, NOW, from, &frame(source, Mac::BROADCAST));
        assert_eq!(from(1, BOB), dropped(DropReason::SourceForeign));
        assert_eq!(from(1, PRINTER), dropped(DropReason::SourceForeign));
        assert_eq!(from(1, MDNS), dropped(DropReason::SourceInvalid));
        assert_eq!(from(1, Mac::ZERO), dropped(DropReason::SourceInvalid));
        assert_eq!(from(3, Mac::ZERO), dropped(DropReason::SourceInvalid));
        assert_eq!(from(3, Mac::BROADCAST), dropped(DropReason::SourceInvalid));
        assert_eq!(from(3, ANN), dropped(DropReason::SourceForeign));
        assert_eq!(switch.table().learned(), 0);
    }

    #[test]
    fn without_the_source_check_nothing_is_learned_that_should_not_be() {
        // The loop finder would take the one frame from two peers for what it usually is.
        let filters = Filters { source_check: false, loops: false, ..Filters::default() };
        let mut switch = party(Settings { filters, ..Settings::default() });
        for (from, source) in [(1, PRINTER), (1, Mac::ZERO), (1, MDNS), (3, MDNS), (3, Mac::ZERO), (3, ANN)] {
            let verdict = sent(&mut switch, NOW, from, &frame(source, Mac::BROADCAST)).0;
            assert_eq!(verdict, Verdict::Flood(FloodKind::Broadcast));
        }
        assert_eq!(switch.table().learned(), 0);
        assert_eq!(sent(&mut switch, NOW, 2, &frame(BOB, ANN)), (Verdict::Unicast, vec![1]));
    }

    #[test]
    fn the_first_reason_in_the_protocols_order_counts() {
        let mut switch = party(Settings::default());
        let mut all_wrong = frame(Mac::ZERO, SPANNING_TREE);
        all_wrong.resize(1519, 0);
        let mut check =
            |from, bytes: &[u8], reason| assert_eq!(sent(&mut switch, NOW, from, bytes), dropped(reason));
        check(1, &all_wrong[..13], DropReason::Runt);
        check(1, &[], DropReason::Runt);
        check(1, &all_wrong, DropReason::Jumbo);
        check(1, &all_wrong[..1518], DropReason::SourceInvalid);
        check(3, &frame(Mac::ZERO, SPANNING_TREE), DropReason::SourceInvalid);
        check(1, &frame(BOB, SPANNING_TREE), DropReason::SourceForeign);
        check(3, &frame(BOB, SPANNING_TREE), DropReason::SourceForeign);
        check(3, &frame(PRINTER, SPANNING_TREE), DropReason::SwitchControl);
        let mut advertisement = frame(ANN, ANN);
        advertisement[12..14].copy_from_slice(&[0x86, 0xdd]);
        advertisement[20] = 58;
        check(1, &advertisement, DropReason::RouterAdvertisement);
        assert_eq!(switch.table().learned(), 0, "a neighbouring switch was learned");
    }

    #[test]
    fn limits_hold_by_class_and_come_before_no_target() {
        let tight = Some(Rate { bits_per_second: 8, burst_bytes: 60 });
        let mut switch = Switch::new(Settings::default());
        let limits = Limits { broadcast: tight, unknown: tight, ..Limits::default() };
        let counters = switch.plug(NOW, peer(1), Role::Client(ANN), limits).unwrap();
        let mut from = |destination| sent(&mut switch, NOW, 1, &frame(ANN, destination)).0;
        assert_eq!(from(MDNS), Verdict::Dropped(DropReason::NoTarget));
        assert_eq!(from(Mac::BROADCAST), Verdict::Dropped(DropReason::LimitBroadcast));
        assert_eq!(from(BOB), Verdict::Dropped(DropReason::NoTarget));
        assert_eq!(from(BOB), Verdict::Dropped(DropReason::LimitUnknown));
        switch.plug(NOW, peer(2), Role::Client(BOB), Limits { total: tight, ..Limits::default() }).unwrap();
        let mut from =
            |from, source, destination| sent(&mut switch, NOW, from, &frame(source, destination)).0;
        for _ in 0..100 {
            assert_eq!(from(1, ANN, BOB), Verdict::Unicast);
        }
        assert_eq!(from(2, BOB, ANN), Verdict::Unicast);
        assert_eq!(from(2, BOB, ANN), Verdict::Dropped(DropReason::LimitTotal));
        assert_eq!(counters.snapshot().drops_total(), 4);
        assert_eq!(
            (counters.snapshot().frames_received, counters.snapshot().bytes_received),
            (104, 104 * 60)
        );
    }

    #[test]
    fn plugging_in_says_what_is_wrong_and_changes_nothing() {
        let mut switch = party(Settings::default());
        let mut plug = |id, role| switch.plug(NOW, peer(id), role, Limits::default()).map(|_| ());
        assert_eq!(plug(1, Role::Client(PRINTER)), Err(PlugError::PeerPresent(peer(1))));
        assert_eq!(plug(4, Role::Gateway), Err(PlugError::GatewayPresent(peer(3))));
        assert_eq!(plug(4, Role::Client(ANN)), Err(PlugError::MacTaken { mac: ANN, owner: peer(1) }));
        assert_eq!(plug(4, Role::Client(MDNS)), Err(PlugError::Mac(IdentityError::Group(MDNS))));
        assert_eq!(switch.peers(), [peer(1), peer(2), peer(3)]);
        assert_eq!((switch.gateway(), switch.role(peer(2))), (Some(peer(3)), Some(Role::Client(BOB))));
    }

    #[test]
    fn plugging_out_forgets_the_peers_addresses() {
        let mut switch = party(Settings::default());
        sent(&mut switch, NOW, 3, &frame(PRINTER, ANN));
        assert!(switch.unplug(NOW, peer(3)) && switch.unplug(NOW, peer(2)) && !switch.unplug(NOW, peer(2)));
        assert_eq!(switch.table().learned(), 0);
        assert_eq!(sent(&mut switch, NOW, 2, &frame(BOB, ANN)), dropped(DropReason::NotConnected));
        assert_eq!(sent(&mut switch, NOW, 1, &frame(ANN, BOB)), dropped(DropReason::NoTarget));
        assert!(switch.plug(NOW, peer(5), Role::Client(BOB), Limits::default()).is_ok());
        assert!(switch.plug(NOW, peer(6), Role::Gateway, Limits::default()).is_ok());
        assert_eq!(sent(&mut switch, NOW, 1, &frame(ANN, BOB)), (Verdict::Unicast, vec![5]));
        assert_eq!(sent(&mut switch, NOW, 1, &frame(ANN, PRINTER)).1, [5, 6]);
    }

    #[test]
    fn nobody_takes_the_address_of_a_lan_station() {
        let mut switch = party(Settings::default());
        sent(&mut switch, NOW, 3, &frame(PRINTER, ANN));
        let refused = PlugError::MacOnLan { mac: PRINTER, gateway: peer(3) };
        let plug = |switch: &mut Switch, seconds| {
            let now = NOW + Duration::from_secs(seconds);
            switch.plug(now, peer(4), Role::Client(PRINTER), Limits::default()).map(|_| ())
        };
        for seconds in [0, 300] {
            assert_eq!(plug(&mut switch, seconds), Err(refused));
        }
        assert_eq!(switch.peers(), [peer(1), peer(2), peer(3)]);
        assert_eq!(sent(&mut switch, NOW, 1, &frame(ANN, PRINTER)), (Verdict::Unicast, vec![3]));
        // A station that has been silent so long is forgotten, and whoever has an address first keeps it.
        assert_eq!(plug(&mut switch, 301), Ok(()));
        assert_eq!(sent(&mut switch, NOW, 1, &frame(ANN, PRINTER)), (Verdict::Unicast, vec![4]));
        assert_eq!(sent(&mut switch, NOW, 3, &frame(PRINTER, ANN)), dropped(DropReason::SourceForeign));
    }

    #[test]
    fn a_client_whose_frames_the_lan_shows_when_it_has_left_comes_back() {
        let mut switch = party(Settings::default());
        let at = |seconds| NOW + Duration::from_secs(seconds);
        switch.unplug(NOW, peer(1));
        // Ann's last frames come back by a loop, and her machine, bridged with the LAN, goes on.
        for seconds in [0, 200] {
            sent(&mut switch, at(seconds), 3, &frame(ANN, BOB));
            assert_eq!(switch.lan_of(at(seconds), ANN), None);
        }
        assert!(switch.plug(at(201), peer(4), Role::Client(ANN), Limits::default()).is_ok());
        assert_eq!(sent(&mut switch, at(201), 2, &frame(BOB, ANN)), (Verdict::Unicast, vec![4]));
        // Once it has been the LAN's alone for long enough it is the LAN's.
        switch.unplug(at(202), peer(4));
        sent(&mut switch, at(503), 3, &frame(ANN, BOB));
        assert_eq!(switch.lan_of(at(503), ANN), Some(peer(3)));
    }

    #[test]
    fn who_comes_and_goes_under_many_addresses_is_remembered_within_bounds() {
        let mut switch = party(Settings::default());
        for number in 0..5000u32 {
            let [_, b, c, d] = number.to_be_bytes();
            let role = Role::Client(Mac::from_bytes([6, 0, 0, b, c, d]));
            switch.plug(NOW, peer(4), role, Limits::default()).unwrap();
            switch.unplug(NOW, peer(4));
        }
        assert!(switch.table().former() <= 1000, "{}", switch.table().former());
    }
}
