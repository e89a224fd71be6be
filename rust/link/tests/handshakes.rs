//! Strangers at the door, over real UDP sockets on loopback: who begins handshakes and leaves them, and floods of first packets.
#![allow(clippy::unwrap_used)] // A test that cannot go on should say where.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::TransportConfig;
use softlan_link::{Connection, Endpoint, LinkError, TransportSettings, Trust};
use softlan_peer::{Caller, client_config};
use tokio::time::{sleep, timeout};

const NAME: &str = "lanparty-relay.local";
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that no silence ends during a test, and that are never silent.
fn patient() -> TransportSettings {
    TransportSettings {
        idle_timeout: Duration::from_secs(60),
        keep_alive: Some(Duration::from_millis(50)),
        ..TransportSettings::default()
    }
}

struct Relay {
    endpoint: Endpoint,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Relay {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.into()]).unwrap();
        let (certificate, key) = (made.cert.der().to_vec(), made.signing_key.serialize_der());
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), certificate, key)
    }

    fn listen(address: SocketAddr, certificate: Vec<u8>, key: Vec<u8>) -> Self {
        let endpoint = Endpoint::server(address, vec![certificate.clone()], &key, &patient()).unwrap();
        Self { endpoint, certificate, key }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    fn count(&self, name: &str) -> u64 {
        self.endpoint.handshakes().find(|(known, _)| *known == name).unwrap().1
    }

    /// Waits until `counter` has reached `count`.
    async fn counts(&self, counter: &str, count: u64) {
        let limit = Instant::now() + PATIENCE;
        while self.count(counter) < count {
            let told: Vec<_> = self.endpoint.handshakes().collect();
            assert!(Instant::now() < limit, "{counter} does not reach {count}: {told:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// An honest peer at `address`: its endpoint, and both ends of its connection.
    async fn join(&self, address: Ipv4Addr) -> Result<(Endpoint, Connection, Connection), LinkError> {
        let endpoint = Endpoint::client((address, 0).into(), &patient()).unwrap();
        let roots = std::slice::from_ref(&self.certificate);
        let connection = endpoint.connect(self.address(), NAME, Trust::Roots(roots), PATIENCE).await?;
        Ok((endpoint, connection, self.endpoint.accept().await.unwrap()))
    }
}

/// Begins a handshake and says no more than it must.
struct Silent {
    socket: UdpSocket,
    caller: Caller,
    relay: SocketAddr,
}

impl Silent {
    fn call(from: Ipv4Addr, relay: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let config = client_config(None, TransportConfig::default()).unwrap();
        let caller = Caller::call(Instant::now(), config, relay, NAME).unwrap();
        let mut silent = Self { socket, caller, relay };
        silent.say();
        silent
    }

    fn say(&mut self) {
        let mut packet = Vec::new();
        let transmit = self.caller.quic.poll_transmit(Instant::now(), 1, &mut packet).unwrap();
        self.socket.send_to(&packet[..transmit.size], self.relay).unwrap();
    }

    /// Reads the answer; a Retry is heeded. Says whether it was one (RFC 9000 section 17.2: the type is in these two bits).
    fn is_asked_for_proof(&mut self) -> bool {
        let mut packet = [0; 2048];
        let (size, from) = self.socket.recv_from(&mut packet).unwrap();
        let retry = packet[0] & 0x30 == 0x30;
        if retry {
            self.caller.take(Instant::now(), from, None, None, BytesMut::from(&packet[..size]));
            self.say();
        }
        retry
    }
}

#[tokio::test]
async fn one_address_holds_so_many_unfinished_handshakes_and_others_get_in() {
    let relay = Relay::start();
    let mut silent = Vec::new();
    let mut asked = 0;
    for _ in 0..100 {
        let mut next = Silent::call(Ipv4Addr::LOCALHOST, relay.address());
        asked += u64::from(next.is_asked_for_proof());
        silent.push(next);
    }
    // Sixteen without proof, sixty-four with one, and the rest hears nothing.
    relay.counts("held_back", 20).await;
    assert_eq!((asked, relay.count("retries")), (84, 84));
    assert_eq!((relay.count("begun"), relay.count("unfinished"), relay.count("displaced")), (80, 80, 0));

    let (_endpoint, connection, _far) = relay.join(Ipv4Addr::new(127, 0, 0, 2)).await.unwrap();
    assert!(connection.max_datagram_size().is_some());
    assert_eq!((relay.count("begun"), relay.count("unfinished")), (81, 80));
}

#[tokio::test]
async fn a_few_addresses_that_fill_every_place_keep_nobody_out() {
    let relay = Relay::start();
    let mut silent = Vec::new();
    // Each has 64 places when it has proven that it is there, 16 more before that, and 256 of all are kept from those who have not.
    while relay.count("unfinished") < 512 {
        let dealt_with = ["begun", "held_back", "dropped"].map(|counter| relay.count(counter));
        let last = (silent.len() % 10) as u8 + 1;
        let mut next = Silent::call(Ipv4Addr::new(127, 0, 1, last), relay.address());
        next.is_asked_for_proof();
        silent.push(next);
        assert!(silent.len() < 1000, "{:?}", relay.endpoint.handshakes().collect::<Vec<_>>());
        // One at a time: strangers get a part of the relay's time and no more.
        while ["begun", "held_back", "dropped"].map(|counter| relay.count(counter)) == dealt_with {
            sleep(Duration::from_micros(200)).await;
        }
    }
    let (_endpoint, connection, _far) = relay.join(Ipv4Addr::new(127, 0, 0, 2)).await.unwrap();
    assert!(connection.max_datagram_size().is_some());
    assert!(relay.count("displaced") > 0 && relay.count("unfinished") <= 512);
}

#[tokio::test]
async fn a_flood_of_first_packets_is_counted_and_keeps_nobody_out() {
    const EACH: u8 = 10;
    let relay = Relay::start();
    let before = relay.join(Ipv4Addr::LOCALHOST).await.unwrap();
    let address = relay.address();
    let flood = std::thread::spawn(move || {
        for last in 1..=200 {
            for _ in 0..EACH {
                Silent::call(Ipv4Addr::new(127, 0, 1, last), address);
            }
        }
    });
    let after = relay.join(Ipv4Addr::new(127, 0, 0, 2)).await.unwrap();
    flood.join().unwrap();
    // All that the kernel had room for; unproven addresses get no more than their pace.
    relay.counts("retries", 1).await;
    assert!(relay.count("unfinished") <= 256);
    assert!(
        relay.count("retries") + relay.count("dropped") + relay.count("begun") <= 200 * u64::from(EACH) + 10
    );
    for (_endpoint, near, far) in [before, after] {
        near.open_control().await.unwrap();
        near.write_control(b"still here").await.unwrap();
        far.accept_control().await.unwrap();
        assert_eq!(far.read_control(10, 10).await.unwrap().unwrap(), b"still here");
    }
}

#[tokio::test]
async fn a_relay_that_comes_back_with_its_key_ends_its_former_connections_at_the_next_packet() {
    let former = Relay::start();
    let (_endpoint, near, _far) = former.join(Ipv4Addr::LOCALHOST).await.unwrap();
    let address = former.address();
    // As if killed: nothing is told to anybody.
    former.endpoint.plane().stop();
    let (certificate, key) = (former.certificate.clone(), former.key.clone());
    drop(former);
    let _relay = Relay::listen(address, certificate, key);
    assert_eq!(timeout(PATIENCE, near.closed()).await.unwrap().kind, "reset");
}
