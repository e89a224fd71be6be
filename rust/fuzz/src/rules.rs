//! What a room's switch may answer to a frame, by what the check itself knows of the room: the steps of `docs/protocol.md`, "What the relay does
//! with a frame", a second time. Nothing is asked of the switch here but who is blocked.
//!
//! Up to the address table an answer is foreseen to the letter; behind it each reason is tied to what it needs: a copy somebody brought, a
//! limit and what has passed under it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use softlan_switch::{Counters, DropReason, FloodKind, Limits, Rate, Role, Settings, Verdict};
use softlan_wire::{Mac, PeerId};

use crate::reference;

/// A frame that another peer brought within this time is a copy.
const ROUND: Duration = Duration::from_secs(1);
/// A frame that the same peer brought within this time may be one.
const REPEAT: Duration = Duration::from_millis(500);
/// How long evidence of a loop counts against repetitions.
const HOLD: Duration = Duration::from_secs(10);
/// A sighting stays for certain while no more frames than this came since, itself among them: so many share a place.
const KEPT: u64 = 4;
const RARP: usize = 0x8035;

/// What the check itself knows of a member, present or gone.
#[derive(Debug)]
pub struct Known {
    pub role: Role,
    limits: Limits,
    since: Duration,
    counters: Arc<Counters>,
    frames: u64,
    bytes: u64,
    drops: [u64; DropReason::COUNT],
    total: Passed,
    group: Passed,
    unknown: Passed,
}

/// What has passed under a limit.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    frames: u64,
    bytes: u64,
    longest: u64,
    /// With what may have passed before it was dropped for having nobody to go to.
    most_frames: u64,
    most_bytes: u64,
}

impl Passed {
    fn add(&mut self, len: u64, is_sent: bool) {
        self.most_frames += 1;
        self.most_bytes += len;
        if is_sent {
            self.frames += 1;
            self.bytes += len;
            self.longest = self.longest.max(len);
        }
    }

    /// Whether a rate can have refused `len` bytes: not while what has passed leaves room for it in the burst.
    fn may_refuse(&self, rate: Option<Rate>, len: u64) -> bool {
        rate.is_some_and(|rate| self.most_bytes > rate.burst_bytes.saturating_sub(len))
    }

    /// The same of a number of frames a second.
    fn may_storm(&self, frames: Option<u32>) -> bool {
        frames.is_some_and(|frames| self.most_frames >= u64::from(frames))
    }

    /// Whether a peer that may send so many itself has used its share of the room up.
    fn may_be_beyond_share(&self, own: Option<u32>) -> bool {
        own.is_none_or(|frames| self.most_frames >= u64::from(share(frames)))
    }

    /// No more has passed than the rate gives, the burst, and one frame above it.
    fn check_rate(&self, rate: Option<Rate>, elapsed: Duration) {
        let Some(rate) = rate else { return };
        let gained = u128::from(rate.bits_per_second) * elapsed.as_nanos();
        let most = u128::from(rate.burst_bytes.max(self.longest)) * 8_000_000_000 + gained;
        assert!(
            u128::from(self.bytes) * 8_000_000_000 <= most,
            "{self:?} passed {rate:?} within {elapsed:?}"
        );
    }

    fn check_storm(&self, frames: Option<u32>, elapsed: Duration) {
        let Some(frames) = frames else { return };
        assert!(self.frames <= most(frames, elapsed), "{self:?} passed {frames} within {elapsed:?}");
    }
}

/// Frames that a number a second lets pass at most.
fn most(frames: u32, elapsed: Duration) -> u64 {
    let nanos = u128::from(frames) * (elapsed.as_nanos() + 1_000_000_000);
    u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX)
}

/// What a peer may send when the room's number is used up, of so many that it may send itself: a twentieth, and one at least.
fn share(own: u32) -> u32 {
    own / 20 + u32::from(!own.is_multiple_of(20))
}

impl Known {
    fn new(now: Duration, role: Role, limits: Limits, counters: Arc<Counters>) -> Self {
        let none = Passed::default();
        let (frames, bytes, drops) = (0, 0, [0; DropReason::COUNT]);
        Self {
            role,
            limits,
            since: now,
            counters,
            frames,
            bytes,
            drops,
            total: none,
            group: none,
            unknown: none,
        }
    }

    /// Broadcasts and multicasts that must have been charged to the room.
    fn beyond_share(&self, now: Duration) -> u64 {
        let shared = self.limits.storm.map_or(0, |own| most(share(own), now.saturating_sub(self.since)));
        self.group.frames.saturating_sub(shared)
    }

    /// Counters say what came, and for what it was dropped.
    fn check(&self) {
        let counted = self.counters.snapshot();
        assert_eq!((counted.frames_received, counted.bytes_received), (self.frames, self.bytes));
        assert_eq!(counted.drops, self.drops, "in the order of {:?}", DropReason::ALL);
    }
}

/// When a frame came, byte for byte but for padding.
#[derive(Debug, Default)]
struct Seen {
    by: BTreeMap<PeerId, Duration>,
    /// Who brought it last of those for whom it was flooded, when, and how many frames had come before that moment.
    flooded: Option<(PeerId, Duration, u64)>,
}

/// Where a frame goes that nothing speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    To(PeerId),
    /// Back to where it came from.
    Back,
    Everyone(FloodKind),
}

/// What the check knows of a room.
#[derive(Debug)]
pub struct Record {
    settings: Settings,
    pub members: BTreeMap<PeerId, Known>,
    gone: Vec<Known>,
    /// Stations that the present gateway showed, and when last.
    stations: BTreeMap<Mac, Duration>,
    /// All that it ever showed: while they fit into the table, it knows the others for certain.
    shown: BTreeSet<Mac>,
    seen: HashMap<Vec<u8>, Seen>,
    /// Frames that came, and those before the present moment.
    arrivals: u64,
    moment: (Duration, u64),
    /// When something last happened that no honest network does.
    evidence: Option<Duration>,
    /// Of all members together.
    group: Passed,
}

/// A frame and where it came from.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    now: Duration,
    from: PeerId,
    bytes: &'a [u8],
    source: Mac,
    destination: Mac,
}

impl Record {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            members: BTreeMap::new(),
            gone: Vec::new(),
            stations: BTreeMap::new(),
            shown: BTreeSet::new(),
            seen: HashMap::new(),
            arrivals: 0,
            moment: (Duration::ZERO, 0),
            evidence: None,
            group: Passed::default(),
        }
    }

    pub fn plug(&mut self, now: Duration, id: PeerId, role: Role, limits: Limits, counters: Arc<Counters>) {
        if let Role::Client(own) = role {
            self.stations.remove(&own);
        }
        self.members.insert(id, Known::new(now, role, limits, counters));
    }

    /// What the member was, if it was one.
    pub fn unplug(&mut self, id: PeerId) -> Option<Role> {
        let known = self.members.remove(&id)?;
        let role = known.role;
        if role == Role::Gateway {
            self.stations.clear();
            self.shown.clear();
        }
        for seen in self.seen.values_mut() {
            seen.flooded.take_if(|(by, ..)| *by == id);
        }
        self.gone.push(known);
        Some(role)
    }

    fn owner(&self, mac: Mac) -> Option<PeerId> {
        self.members.iter().find(|(_, known)| known.role == Role::Client(mac)).map(|(id, _)| *id)
    }

    fn gateway(&self) -> Option<PeerId> {
        self.members.iter().find(|(_, known)| known.role == Role::Gateway).map(|(id, _)| *id)
    }

    /// Holds the answer to a frame to the rules, and remembers the frame. `blocked`: who gets no flooded frames.
    pub fn judge(
        &mut self,
        now: Duration,
        from: PeerId,
        bytes: &[u8],
        verdict: Verdict,
        targets: &[PeerId],
        blocked: &[PeerId],
    ) {
        assert!(!matches!(verdict, Verdict::Dropped(_)) || targets.is_empty(), "dropped and yet sent");
        let Some(known) = self.members.get_mut(&from) else {
            assert_eq!(verdict, Verdict::Dropped(DropReason::NotConnected));
            return;
        };
        known.frames += 1;
        known.bytes += bytes.len() as u64;
        if let Verdict::Dropped(reason) = verdict {
            known.drops[reason as usize] += 1;
        }
        if bytes.len() < 14 {
            assert_eq!(verdict, Verdict::Dropped(DropReason::Runt));
            return;
        }
        let mac = |at: usize| Mac::from_bytes([0, 1, 2, 3, 4, 5].map(|octet: usize| bytes[at + octet]));
        let arrival = Arrival { now, from, bytes, source: mac(6), destination: mac(0) };
        self.judge_arrival(&arrival, verdict, targets, blocked);
        self.remember(&arrival, verdict);
    }

    fn judge_arrival(
        &mut self,
        arrival: &Arrival<'_>,
        verdict: Verdict,
        targets: &[PeerId],
        blocked: &[PeerId],
    ) {
        let is_loop = verdict == Verdict::Dropped(DropReason::Loop);
        assert!(!is_loop || self.settings.filters.loops, "a loop, with nothing on that looks for one");
        if let Some(reason) = self.fault(arrival) {
            if reason == DropReason::SourceForeign && self.settings.filters.loops && !self.is_control(arrival)
            {
                self.evidence = Some(arrival.now);
                let is_group = arrival.destination.is_group();
                if self.is_refresh(arrival) || is_group && self.must_be_anothers(arrival) {
                    assert!(is_loop, "{verdict:?}, and it has come back");
                    return;
                }
                if is_loop {
                    assert!(is_group && self.is_anothers(arrival), "nobody brought it before");
                    return;
                }
            }
            assert_eq!(verdict, Verdict::Dropped(reason));
            return;
        }
        let way = match self.way(arrival) {
            Way::To(gateway) if is_about_unknown(verdict) && self.may_have_forgotten(gateway) => {
                Way::Everyone(FloodKind::Unknown)
            }
            Way::Back if is_about_unknown(verdict) && self.may_have_forgotten(arrival.from) => {
                Way::Everyone(FloodKind::Unknown)
            }
            way => way,
        };
        match way {
            Way::Back => assert_eq!(verdict, Verdict::Dropped(DropReason::SamePort)),
            Way::To(target) => match verdict {
                Verdict::Dropped(reason) => {
                    assert_eq!(reason, DropReason::LimitTotal, "it was for {target}");
                    self.judge_limit(arrival, reason, None);
                }
                sent => assert_eq!((sent, targets), (Verdict::Unicast, &[target][..])),
            },
            Way::Everyone(kind) => {
                self.judge_flood(arrival, kind, verdict, targets, blocked);
                if self.is_anothers(arrival) {
                    self.evidence = Some(arrival.now);
                }
            }
        }
        let is_through = matches!(
            verdict,
            Verdict::Unicast | Verdict::Flood(_) | Verdict::Dropped(DropReason::NoTarget | DropReason::Loop)
        );
        if is_through {
            self.take(arrival, way, !is_loop);
        }
    }

    /// What the frame's bytes and its source alone have it dropped for.
    fn fault(&mut self, arrival: &Arrival<'_>) -> Option<DropReason> {
        let &Arrival { now, from, bytes, source, .. } = arrival;
        let (filters, found) = (self.settings.filters, reference::find(bytes));
        if filters.jumbo && found.is_jumbo() {
            return Some(DropReason::Jumbo);
        }
        let (owner, role) = (self.owner(source), self.members[&from].role);
        let fault = match role {
            _ if source.is_group() || source.is_zero() => Some(DropReason::SourceInvalid),
            Role::Client(own) => (own != source).then_some(DropReason::SourceForeign),
            Role::Gateway => owner.map(|_| DropReason::SourceForeign),
        };
        if fault.is_none() && role == Role::Gateway && !self.is_control(arrival) {
            self.stations.insert(source, now);
            self.shown.insert(source);
        }
        if let Some(fault) = fault.filter(|_| filters.source_check) {
            return Some(fault);
        }
        if self.is_control(arrival) {
            return Some(DropReason::SwitchControl);
        }
        let from_lan = role == Role::Gateway;
        let content = if from_lan { None } else { found.content(&filters) };
        content.or_else(|| {
            found.claims(&filters, from_lan, |claimed| match role {
                Role::Client(own) if filters.source_check => claimed != own.bytes(),
                // Without the check there may be stations behind a client, as behind a gateway.
                _ => self.members.iter().any(|(id, known)| {
                    *id != from && matches!(known.role, Role::Client(own) if own.bytes() == claimed)
                }),
            })
        })
    }

    fn is_control(&self, arrival: &Arrival<'_>) -> bool {
        self.settings.filters.switch_control && reference::is_switch_control(arrival.bytes)
    }

    /// Whether it is what a gateway says on its LAN in a client's name.
    fn is_refresh(&self, arrival: &Arrival<'_>) -> bool {
        reference::ethertype(arrival.bytes) == RARP
            && arrival.destination.is_broadcast()
            && self.owner(arrival.source).is_some()
    }

    fn way(&self, arrival: &Arrival<'_>) -> Way {
        let &Arrival { now, from, destination, .. } = arrival;
        if destination.is_group() {
            let is_broadcast = destination.is_broadcast();
            return Way::Everyone(if is_broadcast { FloodKind::Broadcast } else { FloodKind::Multicast });
        }
        let is_old = |last: &Duration| now.saturating_sub(*last) > self.settings.mac_age;
        let station = self.stations.get(&destination).filter(|last| !is_old(last));
        match self.owner(destination).or_else(|| station.and_then(|_| self.gateway())) {
            Some(target) if target == from => Way::Back,
            Some(target) => Way::To(target),
            None => Way::Everyone(FloodKind::Unknown),
        }
    }

    /// Whether the table may have had no room for a station of this peer's.
    fn may_have_forgotten(&self, peer: PeerId) -> bool {
        self.members[&peer].role == Role::Gateway && self.shown.len() > self.settings.mac_cap
    }

    fn judge_flood(
        &self,
        arrival: &Arrival<'_>,
        kind: FloodKind,
        verdict: Verdict,
        targets: &[PeerId],
        blocked: &[PeerId],
    ) {
        let others = self.members.keys().copied().filter(|id| *id != arrival.from);
        let mut expected = others.filter(|id| !blocked.contains(id));
        assert!(
            blocked.iter().all(|id| self.settings.filters.loops && self.members[id].role != Role::Gateway)
        );
        let must_be_copy = self.settings.filters.loops && self.must_be_copy(arrival);
        assert!(
            !must_be_copy || verdict == Verdict::Dropped(DropReason::Loop),
            "{verdict:?}, and it has come back"
        );
        match verdict {
            Verdict::Flood(flooded) => {
                assert_eq!(flooded, kind);
                assert!(
                    !targets.is_empty() && expected.eq(targets.iter().copied()),
                    "{targets:?} and not those"
                );
            }
            Verdict::Dropped(DropReason::NoTarget) => assert_eq!(self.members.len(), 1),
            Verdict::Dropped(DropReason::Loop) => {
                let is_alone = self.members.len() > 1 && expected.next().is_none();
                assert!(is_alone || self.is_copy(arrival), "nobody brought it before");
            }
            Verdict::Dropped(reason) => self.judge_limit(arrival, reason, Some(kind)),
            Verdict::Unicast => panic!("to {targets:?} alone, and nobody there is known to have it"),
        }
    }

    /// A limit refuses nothing before it is used up. `kind`: why the frame would have been flooded.
    fn judge_limit(&self, arrival: &Arrival<'_>, reason: DropReason, kind: Option<FloodKind>) {
        let (known, len) = (&self.members[&arrival.from], arrival.bytes.len() as u64);
        let is_unknown = kind == Some(FloodKind::Unknown);
        let is_group = kind.is_some() && !is_unknown;
        let may_be = match reason {
            DropReason::LimitTotal => known.total.may_refuse(known.limits.total, len),
            DropReason::LimitBroadcast => is_group && known.group.may_refuse(known.limits.broadcast, len),
            DropReason::LimitUnknown => is_unknown && known.unknown.may_refuse(known.limits.unknown, len),
            DropReason::Storm => {
                let is_its_own = known.group.may_storm(known.limits.storm);
                let is_the_rooms = self.group.may_storm(self.settings.storm)
                    && known.group.may_be_beyond_share(known.limits.storm);
                is_group && (is_its_own || is_the_rooms)
            }
            _ => false,
        };
        assert!(may_be, "dropped as {reason} without a reason");
    }

    /// Charges the limits for what has passed them.
    fn take(&mut self, arrival: &Arrival<'_>, way: Way, is_sent: bool) {
        let len = arrival.bytes.len() as u64;
        let Some(known) = self.members.get_mut(&arrival.from) else { return };
        let elapsed = arrival.now.saturating_sub(known.since);
        known.total.add(len, is_sent);
        known.total.check_rate(known.limits.total, elapsed);
        match way {
            Way::Everyone(FloodKind::Unknown) => {
                known.unknown.add(len, is_sent);
                known.unknown.check_rate(known.limits.unknown, elapsed);
            }
            Way::Everyone(_) => {
                known.group.add(len, is_sent);
                known.group.check_rate(known.limits.broadcast, elapsed);
                known.group.check_storm(known.limits.storm, elapsed);
                self.group.add(len, is_sent);
                self.check_room(arrival.now);
            }
            Way::To(_) | Way::Back => {}
        }
    }

    /// What all have sent beyond their shares is no more than the room's storm control lets pass.
    fn check_room(&self, now: Duration) {
        let Some(frames) = self.settings.storm else { return };
        let known = self.members.values().chain(&self.gone);
        let charged: u64 = known.map(|known| known.beyond_share(now)).sum();
        assert!(charged <= most(frames, now), "{charged} passed {frames} until {now:?}");
    }

    /// Whether another peer brought the same frame a moment ago.
    fn is_anothers(&self, arrival: &Arrival<'_>) -> bool {
        let is_it =
            |(by, at): (&PeerId, &Duration)| *by != arrival.from && arrival.now.saturating_sub(*at) < ROUND;
        self.seen.get(unpadded(arrival.bytes)).is_some_and(|seen| seen.by.iter().any(is_it))
    }

    /// Whether it was flooded for another peer a moment ago, and that cannot have been forgotten.
    fn must_be_anothers(&self, arrival: &Arrival<'_>) -> bool {
        self.flooded(arrival).is_some_and(|(by, ago)| by != arrival.from && ago < ROUND)
    }

    /// For whom the frame was flooded last, and how long ago, if that cannot have been forgotten.
    fn flooded(&self, arrival: &Arrival<'_>) -> Option<(PeerId, Duration)> {
        let (by, at, before) = self.seen.get(unpadded(arrival.bytes))?.flooded?;
        (self.arrivals - before <= KEPT).then_some((by, arrival.now.saturating_sub(at)))
    }

    /// Whether a frame can be a copy of one that was here before.
    fn is_copy(&self, arrival: &Arrival<'_>) -> bool {
        let &Arrival { now, from, bytes, .. } = arrival;
        let since = |then: &Duration| now.saturating_sub(*then);
        let seen = self.seen.get(unpadded(bytes));
        let is_repeated =
            seen.is_some_and(|seen| seen.by.get(&from).is_some_and(|last| since(last) < REPEAT));
        let is_suspect = self.evidence.is_some_and(|last| since(&last) < HOLD);
        self.is_anothers(arrival) || is_repeated && (is_suspect || reference::ethertype(bytes) == RARP)
    }

    /// Whether it can be nothing else: another peer's, or one of this peer's that says no more than the first did.
    fn must_be_copy(&self, arrival: &Arrival<'_>) -> bool {
        let is_rarp = reference::ethertype(arrival.bytes) == RARP;
        self.must_be_anothers(arrival)
            || is_rarp && self.flooded(arrival).is_some_and(|(by, ago)| by == arrival.from && ago < REPEAT)
    }

    fn remember(&mut self, arrival: &Arrival<'_>, verdict: Verdict) {
        let &Arrival { now, from, bytes, .. } = arrival;
        if self.moment.0 != now {
            self.moment = (now, self.arrivals);
        }
        let seen = self.seen.entry(unpadded(bytes).to_vec()).or_default();
        seen.by.insert(from, now);
        if matches!(verdict, Verdict::Flood(_)) {
            seen.flooded = Some((from, now, self.moment.1));
        }
        self.arrivals += 1;
    }

    /// Every counter says what came.
    pub fn check(&self) {
        self.members.values().chain(&self.gone).for_each(Known::check);
        if self.shown.len() <= self.settings.mac_cap
            && let Some(gateway) = self.gateway()
        {
            assert_eq!(self.members[&gateway].counters.snapshot().mac_table_full, 0, "there was room");
        }
    }

    /// How many frames storms have cost.
    pub fn storm_drops(&self) -> u64 {
        let known = self.members.values().chain(&self.gone);
        known.map(|known| known.drops[DropReason::Storm as usize]).sum()
    }
}

/// Whether the answer is one to a frame for a station that the switch does not know.
const fn is_about_unknown(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Flood(_)
            | Verdict::Dropped(
                DropReason::Loop | DropReason::LimitTotal | DropReason::LimitUnknown | DropReason::NoTarget
            )
    )
}

/// The frame without what an Ethernet on the way may have added to it.
fn unpadded(frame: &[u8]) -> &[u8] {
    let len = frame.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &frame[..len]
}
