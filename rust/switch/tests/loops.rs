//! Loops: a room whose peers are connected outside of it as well, played through in virtual time.
//!
//! Ann, Bob and a gateway are in the room; what stands behind them is a list of cables. Whatever a peer is handed goes on to
//! the LANs its adapter is bridged with, and from there to everybody else on them, some milliseconds later.

#![allow(clippy::unwrap_used)] // A test that cannot go on should say where.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use softlan_switch::{DropReason, Limits, Role, Settings, Switch, SwitchEvent, Verdict};
use softlan_wire::{Mac, PeerId};

const ANN: u16 = 1;
const BOB: u16 = 2;
const GATEWAY: u16 = 3;
const PRINTER: Mac = Mac::from_bytes([0, 0x11, 0x22, 0x33, 0x44, 0x55]);

fn own(id: u16) -> Mac {
    Mac::from_bytes([2, 0, 0, 0, 0, id as u8])
}

fn peer(id: u16) -> PeerId {
    PeerId::new(id).unwrap()
}

fn frame(source: Mac, destination: Mac, ethertype: u16, mark: u32) -> Vec<u8> {
    let mut frame = [destination.bytes(), source.bytes()].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0xee]);
    frame.extend(mark.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// The gateway's refresh frame for a client: a broadcast RARP request by which it asks for its own address.
fn refresh(mac: Mac) -> Vec<u8> {
    let mut frame = [Mac::BROADCAST.bytes(), mac.bytes()].concat();
    frame.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    frame.extend(mac.bytes());
    frame.extend([0; 4]);
    frame.extend(mac.bytes());
    frame.resize(60, 0);
    frame
}

struct World {
    switch: Switch,
    now: Duration,
    /// Which peers stand on each LAN.
    lans: Vec<Vec<u16>>,
    /// How long a frame takes from a LAN into the room and back.
    trip: Duration,
    /// Frames on their way to the room, by peer.
    uplink: VecDeque<(Duration, u16, Vec<u8>)>,
    /// Frames each peer was handed.
    delivered: BTreeMap<u16, Vec<Vec<u8>>>,
    drops: BTreeMap<DropReason, u64>,
    handled: u64,
    events: Vec<SwitchEvent>,
}

impl World {
    fn new(lans: &[&[u16]]) -> Self {
        Self::of(&[ANN, BOB, GATEWAY], lans)
    }

    fn of(peers: &[u16], lans: &[&[u16]]) -> Self {
        let mut switch = Switch::new(Settings::default());
        let now = Duration::from_secs(100);
        for &id in peers {
            let role = if id == GATEWAY { Role::Gateway } else { Role::Client(own(id)) };
            switch.plug(now, peer(id), role, Limits::default()).unwrap();
        }
        Self {
            switch,
            now,
            lans: lans.iter().map(|lan| lan.to_vec()).collect(),
            trip: Duration::from_millis(7),
            uplink: VecDeque::new(),
            delivered: BTreeMap::new(),
            drops: BTreeMap::new(),
            handled: 0,
            events: Vec::new(),
        }
    }

    /// A peer's own machine says something: into the room, and onto the LANs that the adapter is bridged with.
    fn says(&mut self, id: u16, bytes: &[u8]) {
        self.uplink.push_back((self.now + self.trip, id, bytes.to_vec()));
        self.put_on_lans(id, bytes);
    }

    /// A station of a LAN says something.
    fn on_lan(&mut self, lan: usize, bytes: &[u8]) {
        for id in self.lans[lan].clone() {
            self.uplink.push_back((self.now + self.trip, id, bytes.to_vec()));
        }
    }

    fn put_on_lans(&mut self, from: u16, bytes: &[u8]) {
        for lan in self.lans.clone() {
            for id in lan.iter().filter(|_| lan.contains(&from)).filter(|id| **id != from) {
                self.uplink.push_back((self.now + self.trip, *id, bytes.to_vec()));
            }
        }
    }

    /// Lets time pass; panics when frames multiply.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut targets = Vec::new();
        while self.uplink.front().is_some_and(|(due, ..)| *due <= end) {
            let Some((due, from, bytes)) = self.uplink.pop_front() else { break };
            self.now = self.now.max(due);
            self.handled += 1;
            assert!(self.handled < 100_000, "frames multiply");
            match self.switch.forward(self.now, peer(from), &bytes, &mut targets) {
                Verdict::Dropped(reason) => *self.drops.entry(reason).or_default() += 1,
                Verdict::Unicast | Verdict::Flood(_) => {
                    for target in targets.iter().map(|target| target.value()) {
                        self.delivered.entry(target).or_default().push(bytes.clone());
                        self.put_on_lans(target, &bytes);
                    }
                }
            }
        }
        self.now = end;
        self.events.extend(self.switch.take_events(self.now));
    }

    fn copies(&self, to: u16, bytes: &[u8]) -> usize {
        self.delivered.get(&to).map_or(0, |frames| frames.iter().filter(|frame| *frame == bytes).count())
    }

    /// The loops told: the two peers, and whether frames come back through both.
    fn told(&self) -> Vec<(u16, u16, bool)> {
        self.events
            .iter()
            .filter_map(|event| match event {
                SwitchEvent::LoopFound { peers: (one, other), is_mutual, .. } => {
                    Some((one.value(), other.value(), *is_mutual))
                }
                _ => None,
            })
            .collect()
    }

    /// The loops told that go through both peers.
    fn loops(&self) -> Vec<(u16, u16)> {
        self.told().into_iter().filter(|told| told.2).map(|told| (told.0, told.1)).collect()
    }
}

const STEP: Duration = Duration::from_millis(300);

#[test]
fn a_lan_bridged_back_to_a_client_is_found_from_what_lan_stations_say() {
    let mut world = World::new(&[&[ANN, GATEWAY]]);
    for mark in 0..40 {
        let said = frame(PRINTER, Mac::BROADCAST, 0x0800, mark);
        world.on_lan(0, &said);
        world.run(STEP);
        // The very first ones may go round once before it is known where.
        let copies = world.copies(BOB, &said);
        assert!((1..=2).contains(&copies), "Bob got {copies} of frame {mark}");
        assert!(mark < 3 || copies == 1, "frame {mark} goes round");
    }
    assert_eq!(world.loops(), [(ANN, GATEWAY)]);
    assert!(world.drops[&DropReason::Loop] + world.drops[&DropReason::SourceForeign] >= 40);
    // Ann hears the LAN where she stands on it; only what is for her alone comes through the room.
    assert!(world.switch.is_blocked(peer(ANN)) && world.delivered[&ANN].len() <= 6);
    let to_ann = frame(own(BOB), own(ANN), 0x0800, 999);
    world.says(BOB, &to_ann);
    world.run(STEP);
    assert_eq!(world.copies(ANN, &to_ann), 1);
    // The circle is opened: quiet, and after a while told.
    world.lans = vec![vec![GATEWAY]];
    for mark in 100..300 {
        world.on_lan(0, &frame(PRINTER, Mac::BROADCAST, 0x0800, mark));
        world.run(Duration::from_millis(350));
    }
    assert_eq!(world.events[1..], [SwitchEvent::LoopGone { peers: (peer(ANN), peer(GATEWAY)) }]);
    assert!(!world.switch.is_restless());
}

#[test]
fn it_is_found_from_what_any_player_says_and_names_the_right_two() {
    for speaker in [ANN, BOB] {
        let mut world = World::new(&[&[ANN, GATEWAY]]);
        for mark in 0..40 {
            let said = frame(own(speaker), Mac::BROADCAST, 0x0800, mark);
            world.says(speaker, &said);
            world.run(STEP);
            // Ann is cut off from what is flooded, as soon as it is known that she hears it on the LAN.
            let listener = if speaker == ANN { BOB } else { GATEWAY };
            let copies = world.copies(listener, &said);
            assert!((1..=2).contains(&copies), "{copies} of frame {mark}");
            assert!(mark < 3 || copies == 1, "frame {mark} goes round: {copies}");
        }
        // What Ann says comes back through the gateway, and more is not known until somebody else speaks.
        assert_eq!(world.told(), [(ANN, GATEWAY, speaker == BOB)], "{speaker} spoke");
        for mark in 100..105 {
            world.says(BOB, &frame(own(BOB), Mac::BROADCAST, 0x0800, mark));
            world.run(STEP);
        }
        assert_eq!(world.loops(), [(ANN, GATEWAY)], "{speaker} spoke first");
    }
}

#[test]
fn two_clients_bridged_with_a_lan_elsewhere_are_named() {
    let mut world = World::new(&[&[ANN, BOB], &[GATEWAY]]);
    for mark in 0..20 {
        world.on_lan(0, &frame(PRINTER, Mac::BROADCAST, 0x0800, mark));
        world.says(ANN, &frame(own(ANN), Mac::BROADCAST, 0x0800, mark));
        world.run(STEP);
    }
    assert_eq!(world.loops(), [(ANN, BOB)]);
    assert!(world.handled < 20 * 20);
}

#[test]
fn refresh_frames_that_come_back_are_broken_and_tell_on_the_bridge() {
    let mut world = World::new(&[&[ANN, GATEWAY]]);
    // The gateway speaks for both clients on its LAN, as it does when they join and once a minute.
    for mac in [own(ANN), own(BOB), own(BOB), own(BOB)] {
        world.put_on_lans(GATEWAY, &refresh(mac));
        world.run(STEP);
    }
    assert!(world.handled < 20, "refresh frames go round: {}", world.handled);
    assert_eq!(world.loops(), [(ANN, GATEWAY)]);
}

#[test]
fn a_lan_that_returns_a_players_frames_is_told_with_the_player() {
    let mut world = World::new(&[]);
    for mark in 0..10 {
        let said = frame(own(BOB), Mac::BROADCAST, 0x0800, mark);
        world.says(BOB, &said);
        world.run(Duration::from_millis(10));
        world.uplink.push_back((world.now, GATEWAY, said));
        world.run(STEP);
    }
    assert_eq!(world.told(), [(BOB, GATEWAY, false)]);
    assert!(!world.switch.is_blocked(peer(BOB)));
    assert_eq!(world.drops[&DropReason::Loop], 10);
}

#[test]
fn a_station_that_two_peers_show_in_turn_gives_a_bridge_away() {
    let mut world = World::new(&[]);
    for mark in 0..5 {
        world.uplink.push_back((world.now, GATEWAY, frame(PRINTER, own(BOB), 0x0800, mark)));
        world.uplink.push_back((world.now, ANN, frame(PRINTER, own(BOB), 0x0800, 100 + mark)));
        world.run(STEP);
    }
    assert_eq!(world.loops(), [(ANN, GATEWAY)]);
    assert_eq!((world.copies(BOB, &frame(PRINTER, own(BOB), 0x0800, 100)), world.drops.len()), (0, 1));
}

#[test]
fn what_honest_networks_do_trips_nothing() {
    let mut world = World::new(&[&[GATEWAY], &[ANN]]);
    for mark in 0..200 {
        // A game that says the same thing ten times a second, ARP that tries again, a guest that announces itself.
        world.says(ANN, &frame(own(ANN), Mac::BROADCAST, 0x0800, 1));
        world.on_lan(0, &frame(PRINTER, Mac::BROADCAST, 0x0806, 2));
        world.on_lan(0, &frame(PRINTER, own(BOB), 0x0800, 3));
        world.says(BOB, &frame(own(BOB), PRINTER, 0x0800, 4));
        if mark % 20 == 0 {
            // CAM refresh on the gateway's LAN, which a packet socket does not see again; RARP of a guest's own.
            world.put_on_lans(GATEWAY, &refresh(own(ANN)));
            world.says(BOB, &refresh(own(BOB)));
            world.says(BOB, &refresh(own(BOB)));
        }
        if mark == 100 {
            // Ann's connection breaks; the next one says again at once what the last one said.
            assert!(world.switch.unplug(world.now, peer(ANN)));
            world.switch.plug(world.now, peer(9), Role::Client(own(ANN)), Limits::default()).unwrap();
            world.switch.unplug(world.now, peer(9));
            world.switch.plug(world.now, peer(ANN), Role::Client(own(ANN)), Limits::default()).unwrap();
        }
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.events, []);
    let to_bob: usize = world.delivered[&BOB].iter().filter(|frame| frame[6..12] != PRINTER.bytes()).count();
    assert_eq!((to_bob, world.copies(BOB, &frame(PRINTER, Mac::BROADCAST, 0x0806, 2))), (200, 200));
    assert_eq!(world.drops, BTreeMap::from([(DropReason::Loop, 10)]), "only RARP said twice at once");
}

#[test]
fn a_liar_can_neither_stop_a_players_frames_nor_have_the_player_cut_off() {
    let mut world = World::new(&[]);
    for mark in 0..20 {
        // Ann says first, in Bob's name, what Bob is about to say.
        let said = frame(own(BOB), Mac::BROADCAST, 0x0800, mark);
        world.uplink.push_back((world.now, ANN, said.clone()));
        world.uplink.push_back((world.now, BOB, said.clone()));
        world.run(STEP);
        assert_eq!(world.copies(GATEWAY, &said), 1);
    }
    // Nor by saying again what Bob has said, or what the LAN says.
    for mark in 100..120 {
        let said = frame(own(BOB), Mac::BROADCAST, 0x0800, mark);
        world.uplink.push_back((world.now, BOB, said.clone()));
        world.uplink.push_back((world.now, ANN, said.clone()));
        let said = frame(PRINTER, Mac::BROADCAST, 0x0800, mark);
        world.uplink.push_back((world.now, GATEWAY, said.clone()));
        world.uplink.push_back((world.now, ANN, said.clone()));
        world.run(STEP);
        assert_eq!(world.copies(BOB, &said), 1);
    }
    assert_eq!(world.told(), [(ANN, BOB, false), (ANN, GATEWAY, true)]);
    assert!(!world.switch.is_blocked(peer(BOB)) && !world.switch.is_blocked(peer(GATEWAY)));
}

/// Who says again what another has said, seldom enough not to be told, cuts next to nothing of what that one repeats.
#[test]
fn one_copy_now_and_then_costs_a_game_that_repeats_itself_a_frame_or_two() {
    let mut world = World::new(&[]);
    let said = frame(own(BOB), Mac::BROADCAST, 0x8137, 7);
    for tenth in 0..1000 {
        world.uplink.push_back((world.now, BOB, said.clone()));
        if tenth % 105 == 0 {
            world.uplink.push_back((world.now, ANN, said.clone()));
        }
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.events, []);
    let copies = world.copies(GATEWAY, &said);
    assert!(copies >= 1000 - 2 * 10, "{copies} of 1000");
    // More of it is told, and then the two are held to what a loop is held to, until it is over.
    for mark in 100..106 {
        let said = frame(own(BOB), Mac::BROADCAST, 0x8137, mark);
        world.uplink.push_back((world.now, BOB, said.clone()));
        world.uplink.push_back((world.now, ANN, said));
        world.run(STEP);
    }
    assert_eq!(world.told(), [(ANN, BOB, false)]);
}

/// One frame that both brought says nothing any more of who returns frames a while later, however seldom the room is looked after.
#[test]
fn what_was_known_of_two_is_forgotten_as_a_whole() {
    let mut world = World::new(&[]);
    let start = world.now;
    let said = frame(PRINTER, Mac::BROADCAST, 0x0800, 1);
    world.uplink.extend([(start, ANN, said.clone()), (start, BOB, said)]);
    for mark in 0..5 {
        let at = start + Duration::from_secs(11) + STEP * mark;
        let said = frame(own(BOB), Mac::BROADCAST, 0x0800, mark);
        world.uplink.extend([(at, BOB, said.clone()), (at, ANN, said)]);
    }
    world.run(Duration::from_secs(15));
    assert_eq!(world.told(), []);
}

#[test]
fn padding_on_the_way_makes_no_other_frame() {
    let mut world = World::new(&[]);
    let said = frame(own(BOB), Mac::BROADCAST, 0x0800, 7);
    world.uplink.push_back((world.now, BOB, said[..26].to_vec()));
    world.uplink.push_back((world.now, GATEWAY, said));
    world.run(STEP);
    assert_eq!(world.drops, BTreeMap::from([(DropReason::Loop, 1)]));
}

#[test]
fn the_filter_can_be_switched_off() {
    let mut filters = softlan_switch::Filters::default();
    assert!(filters.switch_off("loop"));
    let mut world = World::new(&[]);
    world.switch = Switch::new(Settings { filters, ..Settings::default() });
    for id in [ANN, BOB] {
        world.switch.plug(world.now, peer(id), Role::Client(own(id)), Limits::default()).unwrap();
    }
    let said = frame(own(BOB), Mac::BROADCAST, 0x0800, 7);
    world.uplink.push_back((world.now, BOB, said.clone()));
    world.uplink.push_back((world.now, ANN, said));
    world.run(STEP);
    assert_eq!(world.drops, BTreeMap::from([(DropReason::SourceForeign, 1)]));
}

/// Clients 1, 2, 4 and 5 beside the gateway, 3.
const PEERS: [u16; 5] = [1, 2, GATEWAY, 4, 5];

/// A frame that somebody says: who (a peer, or a station of a LAN), which one, and how long after the one before.
type Said = (u16, bool, u32, u64);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However peers are wired together, frames do not multiply, the gateway and whoever stands alone are never cut off
    /// or accused; and where nothing is wired together nothing is found, whatever anybody repeats.
    #[test]
    fn any_wiring_is_told_from_none(
        wiring in proptest::array::uniform5(0usize..4),
        trip in 1u64..80,
        said in proptest::collection::vec((0u16..5, any::<bool>(), 0u32..6, 0u64..700), 1..60),
    ) {
        // Three LANs; whoever has the number 3 stands on none.
        let lans: Vec<Vec<u16>> = (0..3)
            .map(|lan| PEERS.into_iter().zip(wiring).filter(|(_, on)| *on == lan).map(|(id, _)| id).collect())
            .collect();
        let lan_refs: Vec<&[u16]> = lans.iter().map(Vec::as_slice).collect();
        let is_alone = |id: u16| !lans.iter().any(|lan| lan.contains(&id) && lan.len() > 1);
        let mut world = World::of(&PEERS, &lan_refs);
        world.trip = Duration::from_millis(trip);
        check_wiring(&mut world, &said, is_alone)?;
    }
}

fn check_wiring(
    world: &mut World,
    said: &[Said],
    is_alone: impl Fn(u16) -> bool,
) -> Result<(), TestCaseError> {
    for (who, is_station, mark, pause) in said {
        let id = PEERS[usize::from(*who)];
        let lan = world.lans.iter().position(|lan| lan.contains(&id)).filter(|_| *is_station);
        match lan {
            Some(lan) => {
                let station = Mac::from_bytes([0, 0x11, 0, 0, 0, lan as u8]);
                world.on_lan(lan, &frame(station, Mac::BROADCAST, 0x0800, *mark));
            }
            None => world.says(id, &frame(own(id), Mac::BROADCAST, 0x0800, *mark)),
        }
        world.run(Duration::from_millis(*pause));
        for id in PEERS {
            let is_blocked = world.switch.is_blocked(peer(id));
            prop_assert!(!is_blocked || id != GATEWAY && !is_alone(id), "{id} is cut off");
        }
    }
    world.run(Duration::from_secs(5));
    prop_assert!(world.uplink.is_empty(), "{} frames still go round after 5 s", world.uplink.len());
    prop_assert!(world.handled <= said.len() as u64 * 60, "{} frames out of {}", world.handled, said.len());
    if PEERS.into_iter().all(&is_alone) {
        prop_assert_eq!(&world.events, &[]);
        prop_assert!(!world.drops.contains_key(&DropReason::Loop));
    } else {
        for (one, other, is_mutual) in world.told() {
            let has_two = !is_alone(one) && !is_alone(other);
            prop_assert!(!is_mutual || has_two, "{one} and {other} are accused");
        }
    }
    Ok(())
}
