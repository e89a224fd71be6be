//! Connections that come to nothing, from addresses that answer: handshakes that are begun and left, and connections that say no hello.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event,
};

use crate::peer;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long it stays after the last one.
const LINGER: Duration = Duration::from_secs(1);
/// And how much longer for handshakes that are to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No further than a first packet, and a second one where the relay asks for the address to be proven (Retry, RFC 9000 section 8.1.2).
    Handshakes,
    /// To the end of the handshake.
    Silent,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "handshakes" => Ok(Self::Handshakes),
            "silent" => Ok(Self::Silent),
            _ => Err(format!("there is no half of a connection called {text}")),
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    retried: u64,
    established: u64,
    ended: u64,
    last_words: String,
}

/// Begins `count` connections, `rate` a second, from each of `addresses` in turn; from any if there are none.
pub fn begin(
    relay: SocketAddrV4,
    kind: Kind,
    count: u64,
    rate: f64,
    addresses: &[Ipv4Addr],
) -> Result<(), Box<dyn Error>> {
    let config = peer::client_config()?;
    let any = [Ipv4Addr::UNSPECIFIED];
    let addresses = if addresses.is_empty() { &any } else { addresses };
    let mut places =
        addresses.iter().map(|address| Place::at(*address, relay, kind)).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut last = start;
    while tally.sent < count
        || last.elapsed() < LINGER
        || kind == Kind::Silent && tally.established < count && last.elapsed() < LINGER + PATIENCE
    {
        let due = ((start.elapsed().as_secs_f64() * rate) as u64).min(count);
        for _ in 0..due.saturating_sub(tally.sent).min(16) {
            places[tally.sent as usize % addresses.len()].begin(&config)?;
            tally.sent += 1;
            last = Instant::now();
        }
        for place in &mut places {
            place.go_on(&mut tally)?;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let Tally { sent, retried, established, ended, last_words } = tally;
    println!(
        "{{\"sent\": {sent}, \"retried\": {retried}, \"established\": {established}, \"ended\": {ended}, \
         \"seconds\": {:.3}, \"last_words\": {last_words:?}}}",
        (last - start).as_secs_f64(),
    );
    Ok(())
}

/// An address and what was begun from it, all from one port: connections have numbers of their own.
struct Place {
    kind: Kind,
    relay: SocketAddr,
    socket: UdpSocket,
    endpoint: Endpoint,
    connections: HashMap<ConnectionHandle, Connection>,
    looked: Instant,
}

impl Place {
    fn at(address: Ipv4Addr, relay: SocketAddrV4, kind: Kind) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.connect(relay)?;
        socket.set_nonblocking(true)?;
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let (connections, looked) = (HashMap::new(), Instant::now());
        Ok(Self { kind, relay: relay.into(), socket, endpoint, connections, looked })
    }

    fn begin(&mut self, config: &ClientConfig) -> Result<(), Box<dyn Error>> {
        let (handle, mut connection) =
            self.endpoint.connect(Instant::now(), config.clone(), self.relay, peer::NAME)?;
        transmit(&self.socket, &mut connection)?;
        self.connections.insert(handle, connection);
        Ok(())
    }

    /// Takes what has come, as far as this kind listens, and answers.
    fn go_on(&mut self, tally: &mut Tally) -> io::Result<()> {
        let mut buffer = [0; 2048];
        let mut answer = Vec::new();
        for _ in 0..256 {
            let size = match self.socket.recv(&mut buffer) {
                Ok(size) => size,
                Err(error) if peer::is_nothing(&error) => break,
                Err(error) => return Err(error),
            };
            let packet = &buffer[..size];
            let retry = is_retry(packet);
            tally.retried += u64::from(retry);
            if self.kind == Kind::Handshakes && !retry {
                continue;
            }
            answer.clear();
            let now = Instant::now();
            let event =
                self.endpoint.handle(now, self.relay, None, None, BytesMut::from(packet), &mut answer);
            if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event
                && let Some(connection) = self.connections.get_mut(&handle)
            {
                connection.handle_event(event);
                self.settle(handle, tally)?;
            }
        }
        if self.kind == Kind::Silent && self.looked.elapsed() > TICK {
            self.looked = Instant::now();
            let handles: Vec<_> = self.connections.keys().copied().collect();
            for handle in handles {
                self.settle(handle, tally)?;
            }
        }
        Ok(())
    }

    /// Lets a connection say what it has to say, and forgets one that is over.
    fn settle(&mut self, handle: ConnectionHandle, tally: &mut Tally) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&handle) else { return Ok(()) };
        let now = Instant::now();
        if self.kind == Kind::Silent && connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        let mut over = false;
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => tally.established += 1,
                Event::ConnectionLost { reason } => {
                    tally.ended += 1;
                    tally.last_words = reason.to_string();
                    over = true;
                }
                _ => {}
            }
        }
        transmit(&self.socket, connection)?;
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(handle, event) {
                connection.handle_event(answer);
            }
        }
        if over {
            self.connections.remove(&handle);
        }
        Ok(())
    }
}

/// Whether a packet is a Retry of QUIC version 1 (RFC 9000 section 17.2.5).
fn is_retry(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xF0 == 0xF0)
}

fn transmit(socket: &UdpSocket, connection: &mut Connection) -> io::Result<()> {
    let mut packet = Vec::with_capacity(1500);
    while let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut packet) {
        match socket.send(&packet[..transmit.size]) {
            Ok(_) => {}
            // Nobody listens any more, or the queue is full: lost on the way.
            Err(error) if peer::is_nothing(&error) => {}
            Err(error) => return Err(error),
        }
        packet.clear();
    }
    Ok(())
}
