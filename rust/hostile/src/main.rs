//! A peer that means harm: it speaks real QUIC to a relay of one's own and then sends what no honest peer would. `benches/hostile.py` and
//! `tests/e2e/test_hostile.py` start it on machines of the lab; it is no part of what people install.
//!
//! ```text
//! softlan-hostile datagrams RELAY ROOM KIND COUNT RATE [VICTIM-PEER-ID VICTIM-MAC]
//! softlan-hostile control   RELAY ROOM messages|drips PEERS COUNT RATE
//! softlan-hostile readers   RELAY ROOM PEERS COUNT RATE VISITS
//! softlan-hostile halves    RELAY handshakes|silent COUNT RATE [ADDRESS ...]
//! softlan-hostile initials  RELAY COUNT RATE
//! ```
//! RELAY is IPv4:PORT, RATE a second. It prints one JSON object about what it did.

mod control;
mod dice;
mod halves;
mod initials;
mod kinds;
mod peer;
mod readers;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::kinds::{Kind, Maker, Victim};
use crate::peer::{Peer, Refusal};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["datagrams", relay, room, kind, count, rate, victim @ ..] => {
            let victim = match victim {
                [id, mac] => Victim { peer_id: id.parse()?, mac: kinds::mac(mac)? },
                _ => Victim { peer_id: 1, mac: [2, 0, 0, 0, 0, 1] },
            };
            datagrams(relay.parse()?, room, Kind::from_str(kind)?, count.parse()?, rate.parse()?, victim)
        }
        ["control", relay, room, kind, peers, count, rate] => {
            control::flood(relay.parse()?, room, kind.parse()?, peers.parse()?, count.parse()?, rate.parse()?)
        }
        ["readers", relay, room, peers, count, rate, visits] => {
            let (peers, count, rate) = (peers.parse()?, count.parse()?, rate.parse()?);
            readers::starve(relay.parse()?, room, peers, count, rate, visits.parse()?)
        }
        ["halves", relay, kind, count, rate, addresses @ ..] => {
            let addresses =
                addresses.iter().map(|address| address.parse()).collect::<Result<Vec<Ipv4Addr>, _>>()?;
            halves::begin(relay.parse()?, kind.parse()?, count.parse()?, rate.parse()?, &addresses)
        }
        ["initials", relay, count, rate] => initials::flood(relay.parse()?, count.parse()?, rate.parse()?),
        _ => Err("usage: softlan-hostile datagrams|control|readers|halves|initials RELAY ...; see rust/hostile/src/main.rs".into()),
    }
}

/// Sends `count` datagrams, over as many connections as it takes when the relay ends them.
fn datagrams(
    relay: SocketAddrV4,
    room: &str,
    kind: Kind,
    count: u64,
    rate: f64,
    victim: Victim,
) -> Result<(), Box<dyn Error>> {
    let mut dice = Dice::new();
    let start = Instant::now();
    let (mut sent, mut connections, mut refused, mut bytes) = (0u64, 0u64, 0u64, 0u64);
    let mut last_words = String::new();
    while sent < count {
        let mac = dice.mac();
        let mut peer = match Peer::join(relay, room, (!kind.is_gateway()).then_some(mac)) {
            Ok(peer) => peer,
            Err(Refusal::Io(error)) => return Err(error.into()),
            Err(Refusal::Relay(words)) => {
                refused += 1;
                last_words = words;
                if refused > 200 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        connections += 1;
        let mut maker = Maker::new(kind, peer.peer_id, mac, victim);
        let began = Instant::now();
        let before = sent;
        while sent < count && !peer.is_over() {
            let due = (began.elapsed().as_secs_f64() * rate) as u64;
            let batch = due.saturating_sub(sent - before).min(256).min(count - sent);
            for _ in 0..batch {
                let datagram = maker.next(&mut dice);
                bytes += datagram.len() as u64;
                peer.post(datagram);
            }
            sent += batch;
            peer.drive(Duration::from_micros(500))?;
        }
        if let Some(words) = peer.last_words() {
            last_words = words;
        }
        peer.leave()?;
    }
    println!(
        "{{\"kind\": \"{kind}\", \"sent\": {sent}, \"bytes\": {bytes}, \"connections\": {connections}, \"refused\": {refused}, \
         \"seconds\": {:.3}, \"last_words\": {last_words:?}}}",
        start.elapsed().as_secs_f64(),
        kind = kind.name(),
    );
    Ok(())
}
