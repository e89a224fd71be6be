//! What a hostile or broken peer can send a room, kind by kind: each is bounded, counted under its own name, and nobody
//! else's frames suffer.

#![allow(clippy::unwrap_used)] // A test that cannot go on should say where.

use std::sync::Arc;
use std::time::Duration;

use softlan_switch::{Counters, DropReason, Limits, Rate, Role, Settings, Switch, SwitchEvent, Verdict};
use softlan_wire::{Mac, PeerId};

const ANN: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 1]);
const BOB: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 2]);
const START: Duration = Duration::from_secs(50);

fn peer(id: u16) -> PeerId {
    PeerId::new(id).unwrap()
}

fn frame(source: Mac, destination: Mac, rest: &[u8]) -> Vec<u8> {
    let mut frame = [destination.bytes(), source.bytes()].concat();
    frame.extend(rest);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Ann is peer 1 with these limits, Bob 2, the gateway 3.
fn room(settings: Settings, limits: Limits) -> (Switch, [Arc<Counters>; 3]) {
    let mut switch = Switch::new(settings);
    let plugged = [(1, Role::Client(ANN), limits), (2, Role::Client(BOB), Limits::default())];
    let [ann, bob] = plugged.map(|(id, role, limits)| switch.plug(START, peer(id), role, limits).unwrap());
    let gateway = switch.plug(START, peer(3), Role::Gateway, limits).unwrap();
    (switch, [ann, bob, gateway])
}

fn drops(counters: &Counters, reason: DropReason) -> u64 {
    counters.snapshot().drops[reason as usize]
}

#[test]
fn arp_and_neighbour_discovery_in_anothers_name_are_dropped() {
    let (mut switch, [ann, _, gateway]) = room(Settings::default(), Limits::default());
    let mut targets = Vec::new();
    let arp =
        |sender: Mac| [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..], &sender.bytes(), &[192, 168, 88, 2]].concat();
    let advertisement = |target: Mac| {
        let mut packet = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255];
        packet.resize(2 + 40, 0);
        packet.extend([136, 0, 0, 0]);
        packet.resize(2 + 40 + 24, 0);
        packet.extend([2, 1]);
        packet.extend(target.bytes());
        packet
    };
    let tagged = |rest: Vec<u8>| [&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5][..], &rest].concat();
    let router = Mac::from_bytes([0, 0x11, 0x22, 0, 0, 1]);
    let virtual_router = Mac::from_bytes([0, 0, 0x5e, 0, 1, 9]);
    let mut said = |from: u16, source: Mac, rest: &[u8]| {
        switch.forward(START, peer(from), &frame(source, Mac::BROADCAST, rest), &mut targets)
    };
    let spoof = |reason| Verdict::Dropped(reason);
    for other in [BOB, router] {
        assert_eq!(said(1, ANN, &arp(other)), spoof(DropReason::ArpSpoof));
        assert_eq!(said(1, ANN, &tagged(arp(other))), spoof(DropReason::ArpSpoof));
        assert_eq!(said(1, ANN, &advertisement(other)), spoof(DropReason::NdSpoof));
        assert_eq!(said(1, ANN, &tagged(advertisement(other))), spoof(DropReason::NdSpoof));
    }
    assert_eq!(said(3, router, &arp(BOB)), spoof(DropReason::ArpSpoof));
    assert_eq!(said(3, router, &advertisement(BOB)), spoof(DropReason::NdSpoof));
    // One's own, gratuitous or not, and what a LAN's proxies and VRRP routers say.
    assert!(!matches!(said(1, ANN, &arp(ANN)), Verdict::Dropped(_)));
    assert!(!matches!(said(1, ANN, &advertisement(ANN)), Verdict::Dropped(_)));
    assert!(!matches!(said(3, router, &arp(virtual_router)), Verdict::Dropped(_)));
    assert!(!matches!(said(3, virtual_router, &advertisement(router)), Verdict::Dropped(_)));
    assert_eq!((drops(&ann, DropReason::ArpSpoof), drops(&ann, DropReason::NdSpoof)), (4, 4));
    assert_eq!((drops(&gateway, DropReason::ArpSpoof), drops(&gateway, DropReason::NdSpoof)), (1, 1));
}

#[test]
fn an_address_that_two_claim_is_told_and_nothing_is_dropped() {
    let (mut switch, [ann, bob, gateway]) = room(Settings::default(), Limits::default());
    let router = Mac::from_bytes([0, 0x11, 0x22, 0, 0, 1]);
    let claim = |mac: Mac, ip: [u8; 4]| [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..], &mac.bytes(), &ip].concat();
    let mut targets = Vec::new();
    let mut told = Vec::new();
    // Bob answers for the router's address, under his own MAC, to Ann; the router says what it always says. Ann has her own.
    for second in 0..30 {
        let now = START + Duration::from_secs(second);
        for (from, mac, ip) in
            [(3, router, [192, 168, 88, 1]), (2, BOB, [192, 168, 88, 1]), (1, ANN, [192, 168, 88, 51])]
        {
            // Each a little different, as no loop is meant.
            let said = [&claim(mac, ip)[..], &[0; 18], &[second as u8]].concat();
            let verdict = switch.forward(now, peer(from), &frame(mac, Mac::BROADCAST, &said), &mut targets);
            assert!(!matches!(verdict, Verdict::Dropped(_)), "{verdict:?}");
        }
        told.extend(switch.take_events(now));
    }
    let (peers, address) = ((peer(2), peer(3)), [192, 168, 88, 1].into());
    assert_eq!(told, [SwitchEvent::AddressConflict { peers, address }]);
    assert!(switch.is_restless());
    assert!([ann, bob, gateway].iter().all(|counters| counters.snapshot().drops_total() == 0));
    // What is dropped claims nothing: Bob in Ann's name.
    let forged = frame(BOB, Mac::BROADCAST, &claim(ANN, [192, 168, 88, 51]));
    for second in 30..40 {
        let now = START + Duration::from_secs(second);
        let verdict = switch.forward(now, peer(2), &forged, &mut targets);
        assert_eq!(verdict, Verdict::Dropped(DropReason::ArpSpoof));
        let own = frame(ANN, Mac::BROADCAST, &claim(ANN, [192, 168, 88, 51]));
        switch.forward(now, peer(1), &own, &mut targets);
        assert_eq!(switch.take_events(now), []);
    }
    let later = START + Duration::from_secs(41);
    assert!(switch.unplug(later, peer(2)));
    assert_eq!(switch.take_events(later), [SwitchEvent::AddressSettled { peers }]);
    assert!(!switch.is_restless());
}

/// A player who said the router's MAC before the router was heard, and one whose machine stands on the LAN.
#[test]
fn a_clients_mac_that_the_lan_shows_is_told_to_both() {
    let (mut switch, _) = room(Settings::default(), Limits::default());
    let mut targets = Vec::new();
    let mut at = |switch: &mut Switch, millis: u64, from: u16, said: &[u8]| {
        let now = START + Duration::from_millis(millis);
        let verdict = switch.forward(now, peer(from), said, &mut targets);
        (verdict, switch.take_events(now))
    };
    let foreign = Verdict::Dropped(DropReason::SourceForeign);
    let unicast = frame(ANN, BOB, &[8, 0]);
    // What was under way when Ann came in, however much, is not told.
    for millis in 0..900 {
        assert_eq!(at(&mut switch, millis, 3, &unicast), (foreign, vec![]));
    }
    // Nor are copies of what the room sent to the LAN, on whose account loops are told.
    for second in 1..6 {
        let said = frame(ANN, Mac::BROADCAST, &[8, 0, second]);
        at(&mut switch, u64::from(second) * 1000, 1, &said);
        let (verdict, events) = at(&mut switch, u64::from(second) * 1000 + 1, 3, &said);
        assert_eq!((verdict, events), (Verdict::Dropped(DropReason::Loop), vec![]));
    }
    let peers = (peer(1), peer(3));
    let said = |mark: u8| frame(ANN, Mac::BROADCAST, &[8, 6, mark]);
    assert_eq!(at(&mut switch, 60_000, 3, &said(1)), (foreign, vec![]));
    let told = vec![SwitchEvent::MacConflict { peers, mac: ANN }];
    assert_eq!(at(&mut switch, 120_000, 3, &said(2)), (foreign, told));
    assert_eq!(at(&mut switch, 180_000, 3, &said(3)), (foreign, vec![]));
    assert!(switch.is_restless());
    // Nobody else's frames give it away.
    for second in 200..210 {
        assert_eq!(at(&mut switch, second * 1000, 2, &unicast), (foreign, vec![]));
    }
    let over = START + Duration::from_secs(481);
    assert_eq!(switch.take_events(over), [SwitchEvent::MacSettled { peers }]);
    assert!(!switch.is_restless());
}

#[test]
fn a_storm_is_held_to_its_rate_told_twice_and_keeps_unicast_flowing() {
    let limits = Limits { storm: Some(500), ..Limits::default() };
    let (mut switch, [ann, bob, _]) = room(Settings { storm: Some(700), ..Settings::default() }, limits);
    let mut targets = Vec::new();
    let mut passed = 0;
    for number in 0..100_000u32 {
        let now = START + Duration::from_micros(u64::from(number) * 100);
        let said = frame(ANN, Mac::BROADCAST, &[&[8, 0, 1][..], &number.to_be_bytes()].concat());
        passed +=
            u32::from(!matches!(switch.forward(now, peer(1), &said, &mut targets), Verdict::Dropped(_)));
        let unicast = frame(BOB, ANN, &[8, 0, 7]);
        assert_eq!(switch.forward(now, peer(2), &unicast, &mut targets), Verdict::Unicast);
        // Bob's own broadcasts, twenty a second, pass beside Ann's.
        if number % 500 == 0 {
            let said = frame(BOB, Mac::BROADCAST, &[&[8, 0, 2][..], &number.to_be_bytes()].concat());
            assert!(!matches!(switch.forward(now, peer(2), &said, &mut targets), Verdict::Dropped(_)));
        }
    }
    // 10 s at 500 a second, and a second's worth at once.
    assert!((5400..=5501).contains(&passed), "{passed}");
    assert_eq!(drops(&ann, DropReason::Storm), 100_000 - u64::from(passed));
    assert_eq!(bob.snapshot().drops_total(), 0);
    let end = START + Duration::from_secs(10);
    assert_eq!(switch.take_events(end), [SwitchEvent::StormBegan { peer: Some(peer(1)) }]);
    assert!(switch.is_restless());
    let dropped = 100_000 - u64::from(passed);
    let over = SwitchEvent::StormEnded { peer: Some(peer(1)), dropped };
    assert_eq!(switch.take_events(end + Duration::from_secs(6)), [over]);
    assert!(!switch.is_restless());
}

#[test]
fn many_small_storms_make_one_of_the_room() {
    let settings = Settings { storm: Some(100), ..Settings::default() };
    let mut switch = Switch::new(settings);
    let limits = Limits { storm: Some(50), ..Limits::default() };
    for id in 1..=10 {
        let mac = Mac::from_bytes([2, 0, 0, 0, 1, id]);
        switch.plug(START, peer(id.into()), Role::Client(mac), limits).unwrap();
    }
    let (mut targets, mut passed) = (Vec::new(), 0);
    for number in 0..400u32 {
        let id = (number % 10) as u8 + 1;
        let said = frame(Mac::from_bytes([2, 0, 0, 0, 1, id]), Mac::BROADCAST, &number.to_be_bytes());
        passed += u32::from(!matches!(
            switch.forward(START, peer(id.into()), &said, &mut targets),
            Verdict::Dropped(_)
        ));
    }
    // The room's, and the share of each: a twentieth of its own.
    assert_eq!(passed, 100 + 10 * 3);
    assert_eq!(switch.take_events(START), [SwitchEvent::StormBegan { peer: None }]);
}

/// Sixteen who each keep to their own limit and have twice the room's together, and one who asks for names and games.
#[test]
fn many_small_storms_cost_nobody_else_a_frame() {
    let mut switch = Switch::new(Settings { storm: Some(4000), ..Settings::default() });
    let limits = Limits { storm: Some(500), ..Limits::default() };
    let mac = |id: u8| Mac::from_bytes([2, 0, 0, 0, 1, id]);
    let plugged = [1..=17, 18..=18].map(|ids| {
        ids.map(|id| switch.plug(START, peer(id.into()), Role::Client(mac(id)), limits).unwrap())
            .collect::<Vec<_>>()
    });
    let gateway =
        switch.plug(START, peer(100), Role::Gateway, Limits { storm: Some(2000), ..limits }).unwrap();
    let mut targets = Vec::new();
    let mut say = |now, id: u8, source: Mac, number: u32| {
        let said = frame(source, Mac::BROADCAST, &[&[8, 0][..], &number.to_be_bytes()].concat());
        let verdict = switch.forward(now, peer(id.into()), &said, &mut targets);
        u64::from(!matches!(verdict, Verdict::Dropped(_)))
    };
    let mut passed = 0;
    for milli in 0..20_000 {
        let now = START + Duration::from_millis(milli.into());
        if milli % 2 == 0 {
            passed += (1..=16).map(|id| say(now, id, mac(id), milli)).sum::<u64>();
        }
        if milli % 100 == 0 {
            passed += say(now, 17, mac(17), milli);
        }
        // All that somebody's machine looks for when it comes in, at once.
        if milli == 10_000 {
            passed += (0..25).map(|number| say(now, 18, mac(18), number)).sum::<u64>();
        }
        // A LAN of a few hundred machines.
        if milli % 10 == 0 {
            passed += say(now, 100, Mac::from_bytes([0, 0x11, 0x22, 0, 0, 1]), milli);
        }
    }
    let innocent = [&plugged[0][16], &plugged[1][0], &gateway];
    assert_eq!(innocent.map(|counters| drops(counters, DropReason::Storm)), [0; 3]);
    assert!(plugged[0][..16].iter().map(|counters| drops(counters, DropReason::Storm)).sum::<u64>() > 60_000);
    // No more than the room's 4000 a second and the shares of all, and a second's worth at once.
    assert!(passed <= 21 * (4000 + 18 * 25 + 100), "{passed}");
    assert!(passed > 20 * (4000 + 16 * 25), "{passed}");
}

#[test]
fn a_mac_flood_is_counted_told_once_and_throws_nobody_out() {
    let settings = Settings { mac_cap: 256, ..Settings::default() };
    let (mut switch, [_, _, gateway]) = room(settings, Limits::default());
    let mut targets = Vec::new();
    let printer = Mac::from_bytes([0, 0x11, 0x22, 0, 0, 1]);
    for seconds in [0, 2] {
        let now = START + Duration::from_secs(seconds);
        switch.forward(now, peer(3), &frame(printer, ANN, &[8, 0]), &mut targets);
    }
    for number in 0..100_000u32 {
        let now = START + Duration::from_secs(3) + Duration::from_micros(u64::from(number) * 100);
        let [a, b, c, d] = number.to_be_bytes();
        let made_up = Mac::from_bytes([4, 0, a, b, c, d]);
        switch.forward(now, peer(3), &frame(made_up, ANN, &[8, 0]), &mut targets);
        assert_eq!(
            switch.forward(now, peer(1), &frame(ANN, printer, &[8, 0]), &mut targets),
            Verdict::Unicast
        );
    }
    assert_eq!(gateway.snapshot().mac_table_full, 100_000 - 255);
    assert_eq!(gateway.snapshot().drops_total(), 0);
    assert_eq!(switch.table().learned(), 256);
    let later = START + Duration::from_secs(14);
    assert_eq!(switch.take_events(later), [SwitchEvent::TableFull { peer: peer(3) }]);
    let eased = SwitchEvent::TableEased { peer: peer(3) };
    assert_eq!(switch.take_events(later + Duration::from_secs(61)), [eased]);
}

#[test]
fn a_frame_flood_is_held_to_the_total_limit() {
    let total = Some(Rate { bits_per_second: 1_000_000, burst_bytes: 65536 });
    let (mut switch, [ann, ..]) = room(Settings::default(), Limits { total, ..Limits::default() });
    let (mut targets, mut passed) = (Vec::new(), 0);
    let unicast = frame(ANN, BOB, &[8, 0]);
    for number in 0..1_000_000u64 {
        let now = START + Duration::from_micros(number * 10);
        if switch.forward(now, peer(1), &unicast, &mut targets) == Verdict::Unicast {
            passed += 60;
        }
    }
    // 10 s at 125 000 bytes a second, and the burst.
    assert!((1_250_000..=1_320_000).contains(&passed), "{passed}");
    assert_eq!(drops(&ann, DropReason::LimitTotal), 1_000_000 - passed / 60);
}

#[test]
fn frames_cross_no_room_and_strangers_send_nothing() {
    let (mut here, [ann, ..]) = room(Settings::default(), Limits::default());
    let mut there = Switch::new(Settings::default());
    let carol = Mac::from_bytes([2, 0, 0, 0, 0, 9]);
    let counters = there.plug(START, peer(7), Role::Client(carol), Limits::default()).unwrap();
    let mut targets = Vec::new();
    // A peer id of another room, or of nobody, is nothing here.
    for stranger in [7, 4, 65535] {
        let said = frame(ANN, Mac::BROADCAST, &[8, 0]);
        let verdict = here.forward(START, peer(stranger), &said, &mut targets);
        assert_eq!((verdict, targets.len()), (Verdict::Dropped(DropReason::NotConnected), 0));
    }
    // An address of another room is unknown in this one: it floods here, and only here.
    here.forward(START, peer(1), &frame(ANN, carol, &[8, 0]), &mut targets);
    assert_eq!(targets, [peer(2), peer(3)]);
    assert_eq!((ann.snapshot().drops_total(), counters.snapshot().frames_received), (0, 0));
}

#[test]
fn empty_and_short_frames_are_runts() {
    let (mut switch, [ann, ..]) = room(Settings::default(), Limits::default());
    let mut targets = Vec::new();
    for len in 0..14 {
        let verdict = switch.forward(START, peer(1), &vec![0xff; len], &mut targets);
        assert_eq!(verdict, Verdict::Dropped(DropReason::Runt));
    }
    assert_eq!(drops(&ann, DropReason::Runt), 14);
}
