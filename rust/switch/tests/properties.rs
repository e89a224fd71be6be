//! The invariants of a room, for any sequence of peers coming and going, frames and waits.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use softlan_switch::{
    Counters, CountersSnapshot, DropReason, Filters, FloodKind, Limits, Rate, Role, Settings, Subject,
    Switch, SwitchEvent, Verdict,
};
use softlan_wire::{EthernetFrame, Mac, PeerId};

/// Addresses of clients (low numbers), of LAN stations, and some that are nobody's.
fn mac(number: u8) -> Mac {
    match number {
        0 => Mac::ZERO,
        1 => Mac::BROADCAST,
        2 => Mac::from_bytes([0x33, 0x33, 0, 0, 0, 1]),
        3 => Mac::from_bytes([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        _ => Mac::from_bytes([2, 0, 0, 0, 0, number]),
    }
}

const FIRST_STATION: u8 = 4;
const STATIONS: u8 = 12;
const PEERS: u16 = 7;

fn peer(value: u16) -> PeerId {
    PeerId::new(value).expect("ids start at 1")
}

#[derive(Clone, Debug)]
enum Step {
    Plug { id: u16, mac: Option<u8>, limits: Limits },
    Unplug { id: u16 },
    Wait { millis: u64 },
    Frame { from: u16, honest: bool, source: u8, destination: u8, body: Vec<u8>, cut: usize },
}

fn limits() -> impl Strategy<Value = Limits> {
    let rate = || {
        proptest::option::weighted(
            0.3,
            (1000u64..1_000_000, 0u64..4000)
                .prop_map(|(bits_per_second, burst_bytes)| Rate { bits_per_second, burst_bytes }),
        )
    };
    let storm = proptest::option::weighted(0.3, 0u32..20);
    (rate(), rate(), rate(), storm).prop_map(|(total, broadcast, unknown, storm)| Limits {
        total,
        broadcast,
        unknown,
        storm,
    })
}

/// EtherType and fixed part of an ARP packet for IPv4.
const ARP: [u8; 9] = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0];

/// What stands after the addresses: the beginnings that filters look at, and anything behind them.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let start = proptest::sample::select(vec![
        vec![0x08, 0x06],
        [&ARP[..], &[1; 12]].concat(),
        vec![0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17],
        vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 58, 255],
        vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 0, 255],
        vec![0x81, 0x00, 0, 7, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 17, 255],
        vec![0x00, 0x1e, 0xff, 0xff],
    ]);
    let len = prop_oneof![8 => 0usize..100, 1 => 1400usize..1540];
    (start, len, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)).prop_map(
        |(mut body, len, fill, rest)| {
            body.extend(rest);
            body.resize(body.len().max(len), fill);
            body
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let station = || FIRST_STATION..FIRST_STATION + STATIONS;
    let any_mac = || prop_oneof![1 => 0..FIRST_STATION, 4 => station()];
    let client = proptest::option::weighted(0.8, station());
    prop_oneof![
        2 => (1..=PEERS, client, limits()).prop_map(|(id, mac, limits)| Step::Plug { id, mac, limits }),
        1 => (1..=PEERS).prop_map(|id| Step::Unplug { id }),
        1 => (0u64..4000).prop_map(|millis| Step::Wait { millis }),
        12 => (1..=PEERS, any::<bool>(), any_mac(), any_mac(), body(), prop_oneof![9 => Just(usize::MAX), 1 => 0usize..20])
            .prop_map(|(from, honest, source, destination, body, cut)| {
                Step::Frame { from, honest, source, destination, body, cut }
            }),
    ]
}

/// What the test itself knows of a member.
struct Known {
    role: Role,
    counters: Arc<Counters>,
    forwarded: u64,
    dropped: BTreeMap<DropReason, u64>,
    bytes: u64,
}

impl Known {
    fn check(&self) {
        let CountersSnapshot { frames_received, bytes_received, drops, frames_sent, .. } =
            self.counters.snapshot();
        assert_eq!(frames_received, self.forwarded + drops.iter().sum::<u64>());
        assert_eq!((bytes_received, frames_sent), (self.bytes, 0));
        for reason in DropReason::ALL {
            assert_eq!(drops[reason as usize], self.dropped.get(&reason).copied().unwrap_or(0), "{reason}");
        }
    }
}

fn run(settings: Settings, steps: Vec<Step>) {
    let mut switch = Switch::new(settings);
    let mut members: BTreeMap<PeerId, Known> = BTreeMap::new();
    let mut gone: Vec<Known> = Vec::new();
    let mut now = Duration::from_secs(1);
    let mut targets = Vec::new();
    let mut open = HashSet::new();
    // Addresses that were a client's, and until when.
    let mut former = BTreeMap::new();
    for step in steps {
        match step {
            Step::Wait { millis } => now += Duration::from_millis(millis),
            Step::Plug { id, mac: client, limits } => {
                let role = client.map_or(Role::Gateway, |number| Role::Client(mac(number)));
                let is_free =
                    !members.contains_key(&peer(id)) && members.values().all(|known| known.role != role);
                let is_lans =
                    client.map(mac).is_some_and(|mac| is_lans(&settings, &switch, &former, now, mac));
                let plugged = switch.plug(now, peer(id), role, limits);
                assert_eq!(plugged.is_ok(), is_free && !is_lans);
                if let Ok(counters) = plugged {
                    let known = Known { role, counters, forwarded: 0, dropped: BTreeMap::new(), bytes: 0 };
                    members.insert(peer(id), known);
                }
            }
            Step::Unplug { id } => {
                let known = members.remove(&peer(id));
                assert_eq!(switch.unplug(now, peer(id)), known.is_some());
                if let Some(Role::Client(own)) = known.as_ref().map(|known| known.role) {
                    former.insert(own, now);
                }
                gone.extend(known);
            }
            Step::Frame { from, honest, source, destination, body, cut } => {
                let from = peer(from);
                let source = match members.get(&from).map(|known| known.role) {
                    Some(Role::Client(own)) if honest => own,
                    _ => mac(source),
                };
                let mut bytes = [&mac(destination).bytes()[..], &source.bytes(), &body].concat();
                if honest && body.starts_with(&ARP) {
                    // One's own MAC, and one of a few IP addresses, so that two claim the same now and then.
                    bytes[22..31].copy_from_slice(&[&source.bytes()[..], &[10, 0, 0]].concat());
                    bytes[31] %= 3;
                }
                bytes.truncate(cut);
                let verdict = switch.forward(now, from, &bytes, &mut targets);
                let blocked: Vec<_> = members.keys().copied().filter(|id| switch.is_blocked(*id)).collect();
                check_frame(&settings, &members, from, &bytes, verdict, &targets, &blocked);
                match (members.get_mut(&from), verdict) {
                    (None, verdict) => assert_eq!(verdict, Verdict::Dropped(DropReason::NotConnected)),
                    (Some(known), Verdict::Dropped(reason)) => *known.dropped.entry(reason).or_default() += 1,
                    (Some(known), _) => known.forwarded += 1,
                }
                if let Some(known) = members.get_mut(&from) {
                    known.bytes += bytes.len() as u64;
                }
            }
        }
        assert!(switch.peers().iter().eq(members.keys()));
        assert!(switch.table().learned() <= settings.mac_cap);
        check_events(&mut open, switch.take_events(now));
        assert_eq!(switch.is_restless(), !open.is_empty());
        members.values().chain(&gone).for_each(Known::check);
    }
}

/// Whether no client can have an address, because the LAN has shown it and it was no client's within a station's age before.
fn is_lans(
    settings: &Settings,
    switch: &Switch,
    former: &BTreeMap<Mac, Duration>,
    now: Duration,
    mac: Mac,
) -> bool {
    let is_recent = |from: Duration, to: Duration| to.saturating_sub(from) <= settings.mac_age;
    switch.table().heard(mac).is_some_and(|(_, last)| {
        is_recent(last, now) && !former.get(&mac).is_some_and(|left| is_recent(*left, last))
    })
}

/// Whatever sets in sets in once, and ends once.
fn check_events(open: &mut HashSet<Subject>, events: Vec<SwitchEvent>) {
    for event in events {
        let subject = event.subject();
        let goes_on = if event.is_beginning() { open.insert(subject) } else { open.remove(&subject) };
        assert!(goes_on, "{event:?} out of turn; open: {open:?}");
    }
}

/// What must hold for one frame.
fn check_frame(
    settings: &Settings,
    members: &BTreeMap<PeerId, Known>,
    from: PeerId,
    bytes: &[u8],
    verdict: Verdict,
    targets: &[PeerId],
    blocked: &[PeerId],
) {
    assert!(!targets.contains(&from), "back to the sender");
    assert!(targets.iter().all(|target| members.contains_key(target)), "to a stranger");
    assert!(targets.is_sorted_by(|a, b| a < b), "twice to one peer");
    let (Verdict::Unicast | Verdict::Flood(_)) = verdict else {
        assert!(targets.is_empty(), "dropped and yet sent");
        return;
    };
    let frame = EthernetFrame::parse(bytes).expect("a runt was forwarded");
    let (source, destination) = (frame.source(), frame.destination());
    let owner = |mac| members.iter().find(|(_, known)| known.role == Role::Client(mac)).map(|(id, _)| *id);
    if settings.filters.source_check {
        assert!(!source.is_group() && !source.is_zero());
        match members[&from].role {
            Role::Client(own) => assert_eq!(source, own),
            Role::Gateway => assert_eq!(owner(source), None, "a client's address from the LAN"),
        }
    }
    match verdict {
        Verdict::Unicast => {
            assert_eq!(targets.len(), 1);
            match owner(destination) {
                Some(owner) => assert_eq!(targets, [owner]),
                None => assert_eq!(members[&targets[0]].role, Role::Gateway, "a station nobody registered"),
            }
        }
        Verdict::Flood(kind) => {
            // A frame may be the last piece of evidence of a loop, so judge whom it reached by what is known after it.
            let missed = members.keys().filter(|id| **id != from && !targets.contains(id));
            assert!(missed.clone().all(|id| blocked.contains(id)), "a flood that misses someone");
            assert!(blocked.iter().all(|id| settings.filters.loops && members[id].role != Role::Gateway));
            assert!(!targets.is_empty());
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

fn settings() -> impl Strategy<Value = Settings> {
    let storm = proptest::option::weighted(0.3, 0u32..40);
    (any::<[bool; 9]>(), 0u64..10, 0usize..8, any::<bool>(), storm).prop_map(
        |(on, age, mac_cap, all, storm)| {
            let mut filters = Filters::default();
            for (name, on) in Filters::NAMES.into_iter().zip(on) {
                if !on && !all {
                    assert!(filters.switch_off(name));
                }
            }
            Settings { filters, mac_age: Duration::from_secs(age), mac_cap, storm }
        },
    )
}

proptest! {
    #[test]
    fn a_room_keeps_its_invariants(settings in settings(), steps in proptest::collection::vec(step(), 0..150)) {
        run(settings, steps);
    }

    /// Arbitrary bytes as frames: nothing panics, everything is accounted for.
    #[test]
    fn any_bytes_are_forwarded_or_dropped(frames in proptest::collection::vec((1u16..=3, proptest::collection::vec(any::<u8>(), 0..90)), 0..60)) {
        let mut switch = Switch::new(Settings::default());
        let roles = [Role::Client(mac(5)), Role::Client(mac(6)), Role::Gateway];
        let counters: Vec<_> = (1..).zip(roles)
            .map(|(id, role)| switch.plug(Duration::ZERO, peer(id), role, Limits::default()).expect("ids and roles differ"))
            .collect();
        let (mut targets, mut forwarded) = (Vec::new(), 0);
        for (from, bytes) in &frames {
            let verdict = switch.forward(Duration::ZERO, peer(*from), bytes, &mut targets);
            forwarded += u64::from(!matches!(verdict, Verdict::Dropped(_)));
        }
        let mut sum = CountersSnapshot::default();
        counters.iter().for_each(|counters| sum += counters.snapshot());
        prop_assert_eq!(sum.frames_received, frames.len() as u64);
        prop_assert_eq!(sum.frames_received, forwarded + sum.drops_total());
    }
}
