//! One room of 64 peers: what a frame costs to be judged, beside a switch of hash maps and lists. `benches/parts.py` shows the ratios.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use softlan_switch::{DropReason, FloodKind, Limits, Role, Settings, Switch, Verdict};
use softlan_wire::{Mac, PeerId};

const PEERS: u16 = 64;

fn peer(id: u16) -> PeerId {
    PeerId::new(id).expect("not zero")
}

fn client(id: u16) -> Mac {
    Mac::from_bytes([2, 0, 0x5e, 0, 0, id as u8])
}

/// An IPv4 UDP frame.
fn frame(source: Mac, destination: Mac, ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut frame = [destination.bytes(), source.bytes()].concat();
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((len as u16 - 14).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    frame.extend((len as u16 - 34).to_be_bytes());
    frame.resize(len, 0);
    frame
}

/// No filters, no limits, no counters.
struct Naive {
    macs: HashMap<[u8; 6], PeerId>,
    peers: Vec<PeerId>,
}

impl Naive {
    fn forward(&mut self, from: PeerId, frame: &[u8]) -> Vec<PeerId> {
        let mac = |at: usize| frame[at..at + 6].try_into().expect("six bytes");
        self.macs.insert(mac(6), from);
        match self.macs.get::<[u8; 6]>(&mac(0)) {
            Some(peer) => vec![*peer],
            None => self.peers.iter().copied().filter(|peer| *peer != from).collect(),
        }
    }
}

fn forward(c: &mut Criterion) {
    let game = (27015, 27015);
    let cases = [
        ("unicast", frame(client(1), client(2), game, 1400), Verdict::Unicast),
        (
            "broadcast to 63",
            frame(client(1), Mac::BROADCAST, game, 100),
            Verdict::Flood(FloodKind::Broadcast),
        ),
        (
            "unknown to 63",
            frame(client(1), Mac::from_bytes([0, 0x11, 0x22, 0x33, 0x44, 0x55]), game, 100),
            Verdict::Flood(FloodKind::Unknown),
        ),
        (
            "a DHCP server's answer, dropped",
            frame(client(1), client(2), (67, 68), 342),
            Verdict::Dropped(DropReason::DhcpServer),
        ),
        (
            "another's source, dropped",
            frame(client(3), client(2), game, 100),
            Verdict::Dropped(DropReason::SourceForeign),
        ),
    ];
    for (name, frame, verdict) in cases {
        let mut switch = Switch::new(Settings::default());
        let mut naive = Naive { macs: HashMap::new(), peers: Vec::new() };
        for id in 1..=PEERS {
            let role = Role::Client(client(id));
            switch.plug(Duration::ZERO, peer(id), role, Limits::default()).expect("there is room");
            naive.macs.insert(client(id).bytes(), peer(id));
            naive.peers.push(peer(id));
        }
        let mut targets = Vec::new();
        assert_eq!(switch.forward(Duration::ZERO, peer(1), &frame, &mut targets), verdict, "{name}");
        let mut group = c.benchmark_group(format!("switch: {name}"));
        // A frame each 100 microseconds, so that nothing that goes by rate wakes up.
        let mut now = Duration::ZERO;
        group.bench_function("softlan", |b| {
            b.iter(|| {
                now += Duration::from_micros(100);
                switch.forward(now, peer(1), black_box(&frame), &mut targets)
            });
        });
        group.bench_function("naive", |b| b.iter(|| naive.forward(peer(1), black_box(&frame)).len()));
        group.finish();
    }
}

criterion_group!(switch, forward);
criterion_main!(switch);
