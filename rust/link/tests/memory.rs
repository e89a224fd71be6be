//! What a stranger's connection keeps of the relay's memory after whatever was sent on it. One at a time: it is counted what the process allocates.
#![allow(clippy::unwrap_used)] // A test that cannot go on should say where.
#![cfg(target_os = "linux")] // Bursts as large as these are its sockets'.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{Dir, TransportConfig};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use softlan_link::{Connection, Endpoint, TransportSettings};
use softlan_peer::{Caller, Unbounded, client_config};

const NAME: &str = "lanparty-relay.local";
const CONNECTIONS: usize = 6;
const PACKETS: usize = 400;
/// An empty DATAGRAM is two bytes (RFC 9221 section 4): about so many fill a packet of 1200 bytes.
const EMPTY_DATAGRAMS: usize = 580;
const KIB: usize = 1024;

/// The system's allocator, and what of it is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn count(taken: usize, given_back: usize) {
    let before = IN_USE.fetch_add(taken, Ordering::Relaxed);
    MOST.fetch_max(before + taken, Ordering::Relaxed);
    IN_USE.fetch_sub(given_back, Ordering::Relaxed);
}

// SAFETY: all of it is the system's own; what is added allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn relay() -> Endpoint {
    let made = rcgen::generate_simple_self_signed(vec![NAME.into()]).unwrap();
    let (certificate, key) = (made.cert.der().to_vec(), made.signing_key.serialize_der());
    let settings =
        TransportSettings { idle_timeout: Duration::from_secs(60), ..TransportSettings::default() };
    Endpoint::server((Ipv4Addr::LOCALHOST, 0).into(), vec![certificate], &key, &settings).unwrap()
}

/// A connection that has said no hello.
fn stranger(relay: SocketAddr) -> (UdpSocket, Caller) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut transport = TransportConfig::default();
    transport.mtu_discovery_config(None).congestion_controller_factory(Arc::new(Unbounded));
    let config = client_config(None, transport).unwrap();
    let mut caller = Caller::call(Instant::now(), config, relay, NAME).unwrap();
    let mut packet = Vec::new();
    let mut quiet = false;
    while caller.quic.is_handshaking() || !quiet {
        while let Some(sent) = caller.quic.poll_transmit(Instant::now(), 1, &mut packet) {
            socket.send_to(&packet[..sent.size], relay).unwrap();
            packet.clear();
        }
        let mut answer = [0; 2048];
        match socket.recv_from(&mut answer) {
            Ok((size, from)) => {
                caller.take(Instant::now(), from, None, None, BytesMut::from(&answer[..size]));
                quiet = false;
            }
            Err(_nothing) => quiet = true,
        }
        caller.expire(Instant::now());
        caller.settle();
    }
    (socket, caller)
}

/// Makes the packets that a connection is to send.
type Make = fn(&mut Caller) -> Vec<Vec<u8>>;

/// The packets that the caller would send now.
fn packets(caller: &mut Caller) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut packet = Vec::new();
    while caller.quic.poll_transmit(Instant::now(), 1, &mut packet).is_some() {
        packets.push(std::mem::take(&mut packet));
    }
    packets
}

/// As many empty datagrams as fit packets.
fn empty_datagrams(caller: &mut Caller) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < PACKETS {
        for _ in 0..EMPTY_DATAGRAMS {
            caller.quic.datagrams().send(Bytes::new(), true).unwrap();
        }
        all.extend(packets(caller));
    }
    all
}

/// A stream without its beginning, `piece` bytes in a packet with a datagram of `beside` bytes, each of which comes with others that are soon forgotten.
fn pieces_of_a_stream(caller: &mut Caller, piece: usize, beside: usize) -> Vec<Vec<u8>> {
    let stream = caller.quic.streams().open(Dir::Bi).unwrap();
    let mut all = Vec::new();
    while let Ok(written) = caller.quic.send_stream(stream).write(&vec![7; piece]) {
        caller.quic.datagrams().send(vec![0; beside].into(), true).unwrap();
        all.extend(packets(caller));
        if written < piece {
            break;
        }
        for _ in 0..14 {
            caller.quic.datagrams().send(Bytes::from_static(&[0; 1100]), true).unwrap();
        }
        all.extend(packets(caller));
    }
    all.split_off(1)
}

/// Has the relay find all of `packets` in its socket at once.
fn burst(relay: &Endpoint, socket: &UdpSocket, packets: &[Vec<u8>]) {
    let (go_on, held) = channel::<()>();
    let (tell, stands) = channel();
    relay.plane().handle().spawn(async move {
        tell.send(()).unwrap();
        let _ = held.recv();
    });
    stands.recv().unwrap();
    let udp = UdpSocketState::new(UdpSockRef::from(socket)).unwrap();
    let alike = packets.chunk_by(|one, next| one.len() == next.len());
    for some in alike.flat_map(|run| run.chunks(udp.max_gso_segments().min(40))) {
        let sent = Transmit {
            destination: relay.local_address(),
            ecn: None,
            contents: &some.concat(),
            segment_size: Some(some[0].len()),
            src_ip: None,
        };
        udp.try_send(UdpSockRef::from(socket), &sent).unwrap();
    }
    drop(go_on);
}

/// So many turns of its loop that nothing is left to read.
async fn settle(relay: &Endpoint) {
    for _ in 0..40 {
        relay.plane().handle().spawn(async {}).await.unwrap();
    }
}

/// A relay with strangers, their sockets, and the packets that `make` made for each.
async fn besieged(make: Make) -> (Endpoint, Vec<Connection>, Vec<(UdpSocket, Vec<Vec<u8>>)>) {
    let relay = relay();
    let (mut connections, mut strangers) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let address = relay.local_address();
        let stranger = move || {
            let (socket, mut caller) = stranger(address);
            let packets = make(&mut caller);
            (socket, packets)
        };
        strangers.push(tokio::task::spawn_blocking(stranger).await.unwrap());
        connections.push(relay.accept().await.unwrap());
    }
    settle(&relay).await;
    (relay, connections, strangers)
}

/// One test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn a_strangers_connection_keeps_little_whatever_was_sent_on_it() {
    let _alone = ALONE.lock().await;
    let (relay, connections, strangers) = besieged(empty_datagrams).await;
    let before = IN_USE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    for (socket, packets) in &strangers {
        burst(&relay, socket, packets);
        settle(&relay).await;
    }
    let kept = IN_USE.load(Ordering::Relaxed).saturating_sub(before);
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most > 100 * KIB, "nothing has arrived: {most}");
    assert!(connections.iter().all(|connection| !connection.ended()));
    assert!(
        kept < CONNECTIONS * 256 * KIB,
        "{} KiB a connection, {} at most",
        kept / KIB / CONNECTIONS,
        most / KIB
    );
}

#[tokio::test]
async fn a_stream_that_is_not_read_keeps_little_of_what_it_came_with() {
    let _alone = ALONE.lock().await;
    let makes: [Make; 4] = [
        |caller| pieces_of_a_stream(caller, 500, 0),
        |caller| pieces_of_a_stream(caller, 1050, 0),
        |caller| pieces_of_a_stream(caller, 50, 450),
        |caller| pieces_of_a_stream(caller, 50, 1000),
    ];
    for make in makes {
        let (relay, connections, strangers) = besieged(make).await;
        let before = IN_USE.load(Ordering::Relaxed);
        for (socket, packets) in &strangers {
            for some in packets.chunks(100) {
                for packet in some {
                    socket.send_to(packet, relay.local_address()).unwrap();
                }
                settle(&relay).await;
            }
        }
        let kept = IN_USE.load(Ordering::Relaxed).saturating_sub(before) / CONNECTIONS;
        assert!(connections.iter().all(|connection| !connection.ended()));
        assert!(kept > 12 * KIB, "nothing has arrived: {kept}");
        println!("{} KiB a connection", kept / KIB);
        assert!(kept < 512 * KIB, "{} KiB a connection", kept / KIB);
    }
}
