//! QUIC over a plain UDP socket, as it is used where the system refuses the socket options quinn's own needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_udp::Transmit;
use softlan_switch::{Counters, DropReason};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::cable::{Cable, Clock};
use crate::engine::link::Sink;
use crate::udp::{FIRST_PAUSE, UdpIo};
use crate::{Connection, Endpoint, TransportSettings, Trust, UdpKind};

const NAME: &str = "lanparty-relay.local";
const PATIENCE: Duration = Duration::from_secs(10);

fn settings(udp: UdpKind) -> TransportSettings {
    TransportSettings { udp, keep_alive: Some(Duration::from_millis(500)), ..Default::default() }
}

/// One end of a connection, with what arrives on it.
struct End {
    connection: Connection,
    cable: Arc<Cable>,
    clock: Clock,
    arrived: UnboundedReceiver<Bytes>,
}

struct Collect(UnboundedSender<Bytes>);

impl Sink for Collect {
    fn deliver(&mut self, datagrams: &mut Vec<Bytes>) -> Result<(), (u32, String)> {
        for datagram in datagrams.drain(..) {
            // The test may have ended.
            let _ = self.0.send(datagram);
        }
        Ok(())
    }
}

impl End {
    fn new(connection: Connection) -> Self {
        let (sender, arrived) = unbounded_channel();
        let clock = Clock::default();
        let cable = Cable::new(&connection, true, Arc::default(), clock);
        connection.link().plug(cable.clone(), Box::new(Collect(sender)));
        Self { connection, cable, clock, arrived }
    }

    fn send(&self, datagram: Vec<u8>) {
        self.cable.send(self.clock.now(), datagram.into());
    }

    async fn receive(&mut self) -> Bytes {
        timeout(PATIENCE, self.arrived.recv()).await.unwrap().unwrap()
    }
}

/// Two endpoints with a connection between them: the near end, the far end.
async fn connected(local: &str, near: UdpKind, far: UdpKind) -> (Endpoint, Endpoint, End, End) {
    let key = rcgen::generate_simple_self_signed(vec![NAME.into()]).unwrap();
    let certificate = key.cert.der().to_vec();
    let local: SocketAddr = local.parse().unwrap();
    let chain = vec![certificate.clone()];
    let server = Endpoint::server(local, chain, &key.signing_key.serialize_der(), &settings(far)).unwrap();
    let client = Endpoint::client(local, &settings(near)).unwrap();
    let address = server.local_address();
    let (near, far) = tokio::join!(
        client.connect(address, NAME, Trust::Roots(std::slice::from_ref(&certificate)), PATIENCE),
        server.accept()
    );
    (client, server, End::new(near.unwrap()), End::new(far.unwrap()))
}

async fn echo(near: &mut End, far: &mut End, count: u32, len: usize) {
    for number in 0..count {
        let mut data = vec![number as u8; len];
        data[..4].copy_from_slice(&number.to_be_bytes());
        near.send(data.clone());
        let there = far.receive().await;
        assert_eq!(there, data);
        far.send(there.to_vec());
        assert_eq!(near.receive().await, data);
    }
}

#[tokio::test]
async fn datagrams_go_both_ways_between_plain_sockets() {
    let (client, server, mut near, mut far) = connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Plain).await;
    assert!(client.plain_because().is_some() && server.plain_because().is_some());
    echo(&mut near, &mut far, 500, 1100).await;
}

#[tokio::test]
async fn a_plain_socket_speaks_with_one_that_is_not() {
    let (client, server, mut near, mut far) = connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Auto).await;
    assert!(client.plain_because().is_some() && server.plain_because().is_none());
    echo(&mut near, &mut far, 200, 1100).await;
    let (_client, _server, mut near, mut far) = connected("127.0.0.1:0", UdpKind::Auto, UdpKind::Plain).await;
    echo(&mut near, &mut far, 200, 1100).await;
}

#[tokio::test]
async fn the_path_mtu_is_found_as_far_as_allowed() {
    let (_client, _server, mut near, mut far) =
        connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Plain).await;
    let budget = near.connection.settled_datagram_budget(PATIENCE).await.unwrap();
    assert!(budget > 1400, "{budget}");
    echo(&mut near, &mut far, 10, budget).await;
}

#[tokio::test]
async fn a_burst_is_received_in_full() {
    let (_client, _server, near, mut far) = connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Plain).await;
    for round in 0..50_u8 {
        for number in 0..20_u8 {
            near.send(vec![round, number]);
        }
        for _ in 0..20 {
            assert_eq!(far.receive().await[0], round);
        }
    }
}

/// Sends to a port that nothing can be sent to (EINVAL): one packet, or a burst of two.
#[cfg(target_os = "linux")]
async fn fail(socket: &UdpIo, burst: bool) {
    std::future::poll_fn(|context| socket.poll_writable(context)).await.unwrap();
    let destination = SocketAddr::from(([127, 0, 0, 1], 0));
    let segment_size = burst.then_some(600);
    let transmit = Transmit { destination, ecn: None, contents: &[0; 1200], segment_size, src_ip: None };
    socket.send(&transmit).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn bursts_end_neither_for_a_packet_that_cannot_be_sent_nor_for_good() {
    let mut socket = UdpIo::bind("127.0.0.1:0".parse().unwrap(), UdpKind::Auto).unwrap();
    let (whole, start) = (socket.burst(1200), Instant::now());
    assert!(whole > 1);
    // Whoever says that they are at port 0 has our answer fail.
    fail(&socket, false).await;
    assert_eq!(socket.burst(1200), whole);
    // An address of ours that is gone for a moment fails bursts.
    fail(&socket, true).await;
    assert!(socket.burst(1200) == 1 && socket.is_to_renew());
    for (seconds, packets) in [(0, 1), (1, whole)] {
        socket.renew(start + seconds * FIRST_PAUSE);
        assert_eq!(socket.burst(1200), packets);
    }
    // At once again: twice as long.
    fail(&socket, true).await;
    for (seconds, packets) in [(2, 1), (3, whole), (6, whole), (7, whole)] {
        socket.renew(start + seconds * FIRST_PAUSE);
        assert_eq!(socket.burst(1200), packets, "{seconds}");
    }
    assert!(!socket.is_to_renew(), "it has gone well for a while");
}

#[tokio::test]
async fn what_waits_when_a_cable_ends_is_counted() {
    let (_client, _server, near, _far) = connected("127.0.0.1:0", UdpKind::Auto, UdpKind::Auto).await;
    let counters = Arc::new(Counters::default());
    let cable = Cable::new(&near.connection, true, counters.clone(), near.clock);
    for _ in 0..3 {
        cable.send(near.clock.now(), Bytes::from_static(&[0; 100]));
    }
    cable.close();
    assert_eq!(counters.drops(DropReason::NotConnected), 3);
    cable.send(near.clock.now(), Bytes::from_static(&[0; 100]));
    cable.close();
    assert_eq!((counters.drops(DropReason::NotConnected), cable.is_empty()), (4, true));
}

#[tokio::test]
async fn a_connection_that_ends_or_is_unplugged_closes_its_cable() {
    let (_client, _server, near, far) = connected("127.0.0.1:0", UdpKind::Auto, UdpKind::Auto).await;
    // What it drops of one datagram, once it drops what waits.
    let on = |end: &End| {
        let counters = Arc::new(Counters::default());
        let cable = Cable::new(&end.connection, true, counters.clone(), end.clock);
        end.connection.link().plug(cable.clone(), Box::new(Collect(unbounded_channel().0)));
        move || {
            let before = counters.drops(DropReason::NotConnected);
            cable.send(Duration::ZERO, Bytes::from_static(&[0; 100]));
            counters.drops(DropReason::NotConnected) - before
        }
    };
    let (at_near, at_far) = (on(&near), on(&far));
    near.connection.link().unplug();
    assert_eq!((at_near(), at_far()), (1, 0));
    near.connection.close(0, "");
    timeout(PATIENCE, far.connection.closed()).await.unwrap();
    assert_eq!(at_far(), 1);
    // Plugged in too late.
    assert_eq!(on(&far)(), 1);
}
