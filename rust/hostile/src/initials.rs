//! First packets of connections nobody means to have, from addresses nobody has.
//!
//! Needs CAP_NET_RAW. The sources are in 198.18.0.0/15 (RFC 2544, for benchmarks): whoever runs this sees to it that answers to
//! them are routed somewhere harmless.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{Endpoint, EndpointConfig};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dice::Dice;
use crate::peer;

const IPPROTO_RAW: i32 = 255;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Half-made connections an endpoint is burdened with before it is thrown away.
const EACH: u64 = 1000;

/// Makes `count` valid Initials, each for a connection of its own, then sends them at `rate` a second.
pub fn flood(relay: SocketAddrV4, count: u64, rate: f64) -> Result<(), Box<dyn Error>> {
    let making = Instant::now();
    let mut packets = make(relay, count)?;
    let made = making.elapsed();
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
    let target = SocketAddr::V4(relay).into();
    let mut dice = Dice::new();
    let start = Instant::now();
    let (mut sent, mut bytes, mut failed) = (0u64, 0u64, 0u64);
    let mut waiting = packets.iter_mut();
    'all: loop {
        let due = (start.elapsed().as_secs_f64() * rate) as u64;
        // What could not be sent in time is made up for in small portions, so that the rate is even.
        for _ in 0..due.saturating_sub(sent).min(64) {
            let Some(packet) = waiting.next() else { break 'all };
            address(packet, relay, &mut dice);
            match socket.send_to(packet, &target) {
                Ok(_) => bytes += packet.len() as u64,
                Err(_) => failed += 1,
            }
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    println!(
        "{{\"sent\": {sent}, \"bytes\": {bytes}, \"failed\": {failed}, \"seconds\": {:.3}, \"making_s\": {:.3}}}",
        start.elapsed().as_secs_f64(),
        made.as_secs_f64()
    );
    Ok(())
}

/// Whole IPv4 packets, but for the source.
fn make(relay: SocketAddrV4, count: u64) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut packets = Vec::with_capacity(count as usize);
    let config = peer::client_config()?;
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
    for number in 1..=count {
        let now = Instant::now();
        let (_, mut connection) = endpoint.connect(now, config.clone(), SocketAddr::V4(relay), peer::NAME)?;
        let mut initial = Vec::with_capacity(1500);
        let transmit = connection.poll_transmit(now, 1, &mut initial).ok_or("no Initial was made")?;
        let mut packet = vec![0; IPV4_HEADER + UDP_HEADER];
        packet.extend_from_slice(&initial[..transmit.size]);
        let udp_size = (UDP_HEADER + transmit.size) as u16;
        packet[0] = 0x45;
        packet[8] = 64;
        packet[9] = 17;
        packet[16..20].copy_from_slice(&relay.ip().octets());
        packet[22..24].copy_from_slice(&relay.port().to_be_bytes());
        // A checksum of zero is none (RFC 768); the kernel fills in IPv4's length, identification and checksum (raw(7)).
        packet[24..26].copy_from_slice(&udp_size.to_be_bytes());
        packets.push(packet);
        if number.is_multiple_of(EACH) {
            endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        }
    }
    Ok(packets)
}

fn address(packet: &mut [u8], _relay: SocketAddrV4, dice: &mut Dice) {
    let random = dice.next();
    let source = Ipv4Addr::new(198, 18 | (random & 1) as u8, (random >> 8) as u8, (random >> 16) as u8);
    packet[12..16].copy_from_slice(&source.octets());
    let port = 1024 + (random >> 24) as u16 % 60_000;
    packet[20..22].copy_from_slice(&port.to_be_bytes());
}
