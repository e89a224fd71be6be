//! A relay and its peers over real UDP sockets on loopback, with memory ports in place of adapters.
#![allow(clippy::unwrap_used)] // A test that cannot go on should say where.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use softlan_link::{
    Bridge, BridgeOptions, Connection, Endpoint, FrameLog, FrameLogMode, PeerOptions, PluggedPeer, Room,
    TransportSettings, Trust,
};
use softlan_port::{MemoryPort, MemoryWire};
use softlan_switch::{DropReason, Limits, Role, Settings};
use softlan_wire::{Mac, PeerId};
use tokio::time::{sleep, timeout};

const NAME: &str = "lanparty-relay.local";
const PATIENCE: Duration = Duration::from_secs(10);

fn mac(last: u8) -> Mac {
    Mac::from_bytes([2, 0, 0, 0, 0, last])
}

/// An Ethernet frame of `len` bytes between two test MACs; `fill` marks it.
fn frame(to: Mac, from: Mac, len: usize, fill: u8) -> Bytes {
    let mut frame = vec![fill; len];
    frame[..6].copy_from_slice(&to.bytes());
    frame[6..12].copy_from_slice(&from.bytes());
    frame[12..14].copy_from_slice(&[0x88, 0xb5]); // local experimental EtherType (IEEE 802)
    frame.into()
}

struct Relay {
    endpoint: Endpoint,
    certificate: Vec<u8>,
    room: Arc<Room>,
    log: Arc<FrameLog>,
}

impl Relay {
    fn start() -> Self {
        Self::showing(&rcgen::CertificateParams::new(vec![NAME.into()]).unwrap())
    }

    fn showing(params: &rcgen::CertificateParams) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let endpoint = Endpoint::server(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            vec![certificate.clone()],
            &key.serialize_der(),
            &TransportSettings::default(),
        )
        .unwrap();
        let log = Arc::new(FrameLog::new(FrameLogMode::Full));
        let room = Room::new("TEST", Settings::default(), log.clone());
        Self { endpoint, certificate, room, log }
    }

    fn plug(&self, connection: &Connection, peer: u16, role: Role) -> PluggedPeer {
        let options = PeerOptions {
            peer: PeerId::new(peer).unwrap(),
            role,
            limits: Limits::default(),
            takes_fragments: true,
            malformed_limit: 5,
            malformed_close: (11, "too many malformed datagrams".into()),
        };
        self.room.plug(connection, options).unwrap()
    }

    /// A peer that is connected and plugged in; both ends of its connection.
    async fn join(&self, peer: u16, role: Role) -> Peer {
        let settings =
            TransportSettings { keep_alive: Some(Duration::from_millis(500)), ..Default::default() };
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &settings).unwrap();
        let address = self.endpoint.local_address();
        let (near, far) = tokio::join!(
            endpoint.connect(address, NAME, Trust::Roots(std::slice::from_ref(&self.certificate)), PATIENCE),
            self.endpoint.accept()
        );
        let far = far.unwrap();
        let plugged = self.plug(&far, peer, role);
        Peer { endpoint, near: near.unwrap(), far, plugged, id: PeerId::new(peer).unwrap() }
    }
}

struct Peer {
    endpoint: Endpoint,
    near: Connection,
    far: Connection,
    plugged: PluggedPeer,
    id: PeerId,
}

impl Peer {
    fn bridge(&self) -> (Bridge, MemoryWire) {
        let (port, wire) = MemoryPort::new(1024);
        let log = Arc::new(FrameLog::new(FrameLogMode::Off));
        let bridge = Bridge::start(self.endpoint.plane(), port.into(), BridgeOptions::default(), log);
        bridge.attach(&self.near, self.id, None);
        (bridge, wire)
    }
}

async fn receive(wire: &mut MemoryWire) -> Bytes {
    timeout(PATIENCE, wire.from_port.recv()).await.expect("a frame arrives").expect("the port is open")
}

async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the condition becomes true");
}

#[tokio::test]
async fn frames_cross_the_relay_whole_and_in_fragments() {
    let relay = Relay::start();
    let (ann, ben) = (relay.join(1, Role::Client(mac(1))).await, relay.join(2, Role::Client(mac(2))).await);
    let ((_ann, to), (ben_bridge, mut from)) = (ann.bridge(), ben.bridge());

    for (len, fill) in [(60, 1), (1400, 2), (1514, 3), (1522 - 4, 4)] {
        let sent = frame(mac(2), mac(1), len, fill);
        to.to_port.send(sent.clone()).await.unwrap();
        assert_eq!(receive(&mut from).await, sent, "{len} bytes");
    }
    let counted = ben_bridge.counters().snapshot();
    assert_eq!(counted.frames_received, 4);
    assert!(counted.fragments_received >= 4, "at 1200 or 1472 bytes of UDP payload, two frames do not fit");
    assert_eq!(ann.plugged.counters().snapshot().frames_received, 4);
    assert_eq!(ben.plugged.counters().snapshot().frames_sent, 4);
}

#[tokio::test]
async fn a_broadcast_reaches_all_others_and_never_its_sender() {
    let relay = Relay::start();
    let peers = [
        relay.join(1, Role::Client(mac(1))).await,
        relay.join(2, Role::Client(mac(2))).await,
        relay.join(3, Role::Gateway).await,
    ];
    let mut bridges: Vec<_> = peers.iter().map(Peer::bridge).collect();
    let sent = frame(Mac::BROADCAST, mac(1), 100, 7);
    bridges[0].1.to_port.send(sent.clone()).await.unwrap();
    for (_, wire) in &mut bridges[1..] {
        assert_eq!(receive(wire).await, sent);
    }
    // What goes back to the sender would be there by the time a later frame has made the round.
    bridges[1].1.to_port.send(frame(mac(1), mac(2), 100, 8)).await.unwrap();
    assert_eq!(receive(&mut bridges[0].1).await[50], 8);
}

#[tokio::test]
async fn a_loopback_message_comes_back_and_does_not_reach_the_port() {
    let relay = Relay::start();
    let (ann, ben) = (relay.join(1, Role::Client(mac(1))).await, relay.join(2, Role::Client(mac(2))).await);
    let (_ann_bridge, mut ann_wire) = ann.bridge();
    let (port, mut ben_wire) = MemoryPort::new(1024);
    let options = BridgeOptions { loopback: Some(mac(2)), ..Default::default() };
    let log = Arc::new(FrameLog::new(FrameLogMode::Off));
    let bridge = Bridge::start(ben.endpoint.plane(), port.into(), options, log);
    bridge.attach(&ben.near, ben.id, None);

    let mut message = frame(mac(2), mac(1), 1400, 7).to_vec();
    message[12..20].copy_from_slice(&[0x89, 0x02, 0xe0, 3, 0, 4, 0, 0]);
    ann_wire.to_port.send(message.clone().into()).await.unwrap();
    let reply = receive(&mut ann_wire).await;
    assert_eq!((&reply[..6], &reply[6..12]), (&mac(1).bytes()[..], &mac(2).bytes()[..]));
    assert_eq!(reply[12..20], [0x89, 0x02, 0xe0, 2, 0, 4, 0, 0]);
    assert_eq!(reply[20..], message[20..]);

    // More than are answered within a second: the rest is ordinary traffic.
    message.truncate(60);
    for _ in 0..400 {
        ann_wire.to_port.send(message.clone().into()).await.unwrap();
    }
    assert_eq!(receive(&mut ben_wire).await, message);
    assert_eq!(ben.plugged.counters().drops(DropReason::Malformed), 0);
}

#[tokio::test]
async fn a_drop_is_counted_and_logged_with_its_reason() {
    let relay = Relay::start();
    let (ann, _ben) = (relay.join(1, Role::Client(mac(1))).await, relay.join(2, Role::Client(mac(2))).await);
    let (_bridge, wire) = ann.bridge();
    wire.to_port.send(frame(mac(2), mac(9), 100, 1)).await.unwrap();

    let (records, lost) = timeout(PATIENCE, relay.log.next_batch()).await.unwrap();
    assert_eq!((records.len(), lost), (1, 0));
    assert_eq!(records[0].action, softlan_link::frame_log::FrameAction::Dropped(DropReason::SourceForeign));
    assert_eq!(records[0].addresses.map(|a| (a.0, a.1)), Some((mac(9), mac(2))));
    assert_eq!(ann.plugged.counters().drops(DropReason::SourceForeign), 1);
}

#[tokio::test]
async fn speaking_in_anothers_name_is_malformed_and_ends_the_connection() {
    let relay = Relay::start();
    let (ann, ben) = (relay.join(1, Role::Client(mac(1))).await, relay.join(2, Role::Client(mac(2))).await);
    let (port, wire) = MemoryPort::new(64);
    let log = Arc::new(FrameLog::new(FrameLogMode::Off));
    let liar = Bridge::start(ann.endpoint.plane(), port.into(), BridgeOptions::default(), log);
    liar.attach(&ann.near, ben.id, None);
    for _ in 0..5 {
        wire.to_port.send(frame(mac(2), mac(1), 100, 1)).await.unwrap();
    }
    let closed = timeout(PATIENCE, ann.near.closed()).await.unwrap();
    assert_eq!((closed.kind, closed.code), ("peer", Some(11)));
    assert_eq!(ann.plugged.counters().drops(DropReason::Malformed), 5);
    assert_eq!(ann.plugged.counters().snapshot().frames_received, 0);
    assert!(ben.near.max_datagram_size().is_some(), "the other peer is untouched");
}

#[tokio::test]
async fn a_storm_on_a_lan_ends_at_its_gateway() {
    let relay = Relay::start();
    let (gateway, ben) = (relay.join(1, Role::Gateway).await, relay.join(2, Role::Client(mac(2))).await);
    let (_ben, mut from) = ben.bridge();
    let (port, lan) = MemoryPort::new(1024);
    let log = Arc::new(FrameLog::new(FrameLogMode::Drops));
    let options = BridgeOptions {
        gateway: Some(softlan_link::bridge::GatewayOptions::default()),
        ..Default::default()
    };
    let bridge = Bridge::start(gateway.endpoint.plane(), port.into(), options, log.clone());
    assert!(bridge.add_remote(mac(2)));
    let begun = Instant::now();
    bridge.attach(&gateway.near, gateway.id, Some(8));

    for fill in 0..200 {
        lan.to_port.send(frame(Mac::BROADCAST, mac(9), 100, fill)).await.unwrap();
    }
    // Unicast passes, whatever the storm.
    lan.to_port.send(frame(mac(2), mac(9), 100, 250)).await.unwrap();
    while receive(&mut from).await[50] != 250 {}
    let dropped = || bridge.counters().drops(DropReason::Storm);
    let came = || gateway.plugged.counters().snapshot().frames_received;
    until(|| dropped() + came() == 201).await;
    // Of the broadcasts ten at once and ten a second: eight, and a quarter.
    assert!((11..=11 + 10 * (begun.elapsed().as_secs() + 1)).contains(&came()), "{}", came());
    let (records, _) = timeout(PATIENCE, log.next_batch()).await.unwrap();
    assert_eq!(records[0].action, softlan_link::frame_log::FrameAction::Dropped(DropReason::Storm));
}

#[tokio::test]
async fn a_bridge_outlives_its_connection() {
    let relay = Relay::start();
    let ben = relay.join(2, Role::Client(mac(2))).await;
    let (_ben_bridge, mut from) = ben.bridge();
    let ann = relay.join(1, Role::Client(mac(1))).await;
    let (bridge, to) = ann.bridge();

    bridge.detach();
    to.to_port.send(frame(mac(2), mac(1), 100, 1)).await.unwrap();
    until(|| bridge.counters().drops(DropReason::NotConnected) == 1).await;

    ann.plugged.unplug();
    let address = relay.endpoint.local_address();
    let (near, far) = tokio::join!(
        ann.endpoint.connect(address, NAME, Trust::Roots(std::slice::from_ref(&relay.certificate)), PATIENCE),
        relay.endpoint.accept()
    );
    let (near, far) = (near.unwrap(), far.unwrap());
    let _plugged = relay.plug(&far, 3, Role::Client(mac(1)));
    bridge.attach(&near, PeerId::new(3).unwrap(), None);
    to.to_port.send(frame(mac(2), mac(1), 100, 2)).await.unwrap();
    assert_eq!(receive(&mut from).await[50], 2);
}

#[tokio::test]
async fn the_control_stream_lives_while_data_saturates() {
    let relay = Relay::start();
    let (ann, ben) = (relay.join(1, Role::Client(mac(1))).await, relay.join(2, Role::Client(mac(2))).await);
    let ((bridge, to), (_ben, mut from)) = (ann.bridge(), ben.bridge());
    let flood = tokio::spawn(async move {
        let sent = frame(mac(2), mac(1), 1400, 1);
        while to.to_port.send(sent.clone()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let drain = tokio::spawn(async move { while from.from_port.recv().await.is_some() {} });
    until(|| bridge.counters().snapshot().frames_sent > 1000).await;

    let message = vec![0x5a; 60_000];
    let written = async {
        ann.near.open_control().await?;
        ann.near.write_control(&message).await
    };
    let all_read = async {
        ann.far.accept_control().await.expect("the control stream opens");
        let mut read = 0;
        while read < message.len() {
            let piece = ann.far.read_control(1, 65536).await;
            read += piece.unwrap().expect("the stream is open").len();
        }
    };
    // More than the relay takes before it is read.
    let both = async { tokio::join!(written, all_read) };
    timeout(PATIENCE, both).await.expect("control data arrives").0.unwrap();
    flood.abort();
    drain.abort();
}

#[tokio::test]
async fn trust_failures_say_what_is_wrong() {
    let relay = Relay::start();
    let address = relay.endpoint.local_address();
    let endpoint =
        Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &TransportSettings::default()).unwrap();
    let strangers = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519].map(|algorithm| {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec![NAME.into()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    });

    let kind = async |name: &str, root: &[u8]| {
        endpoint.connect(address, name, Trust::Roots(&[root.to_vec()]), PATIENCE).await.unwrap_err().kind()
    };
    // The relay's subject, but keys of their own.
    for stranger in &strangers {
        assert_eq!(kind(NAME, stranger).await, "wrong-pin");
    }
    assert_eq!(kind("other.example", &relay.certificate).await, "wrong-name");
    assert_eq!(kind(NAME, b"no certificate").await, "bad-certificate");
}

#[tokio::test]
async fn one_authority_that_cannot_be_read_leaves_the_others() {
    let relay = Relay::start();
    let endpoint =
        Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &TransportSettings::default()).unwrap();
    let roots = [b"no certificate".to_vec(), relay.certificate.clone()];
    let (link, _) = tokio::join!(
        endpoint.connect(relay.endpoint.local_address(), NAME, Trust::Roots(&roots), PATIENCE),
        timeout(PATIENCE, relay.endpoint.accept()),
    );
    link.expect("the other one is the relay's");
}

#[tokio::test]
async fn a_certificate_that_is_no_server_s_is_not_called_another_relay_s() {
    // What `openssl req -x509` makes if not told otherwise.
    let mut params = rcgen::CertificateParams::new(vec![NAME.into()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let relay = Relay::showing(&params);
    let endpoint =
        Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &TransportSettings::default()).unwrap();
    let trust = Trust::Roots(std::slice::from_ref(&relay.certificate));
    let error = endpoint.connect(relay.endpoint.local_address(), NAME, trust, PATIENCE).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), ("unverified", "CaUsedAsEndEntity"));
}

#[tokio::test]
async fn nobody_listening_is_a_time_out() {
    let endpoint =
        Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &TransportSettings::default()).unwrap();
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let root = rcgen::generate_simple_self_signed(vec![NAME.into()]).unwrap().cert.der().to_vec();
    let limit = Duration::from_millis(300);
    let result = endpoint.connect(unused.local_addr().unwrap(), NAME, Trust::Roots(&[root]), limit).await;
    assert_eq!(result.unwrap_err().kind(), "timed-out");
}

#[tokio::test]
async fn a_peer_that_is_there_gives_a_sign_of_life_when_asked() {
    let relay = Relay::start();
    let ann = relay.join(1, Role::Client(mac(1))).await;
    assert!(ann.near.heard(PATIENCE).await);
    ann.far.close(0, "");
    ann.near.closed().await;
    assert!(!ann.near.heard(PATIENCE).await);
}

#[tokio::test]
async fn the_budget_settles_above_quics_minimum() {
    let relay = Relay::start();
    let ann = relay.join(1, Role::Client(mac(1))).await;
    let budget = ann.near.settled_datagram_budget(PATIENCE).await.unwrap();
    assert!((1400..=1472).contains(&budget), "{budget} bytes");
}

#[tokio::test]
async fn rooms_do_not_hear_each_other() {
    let relay = Relay::start();
    let ann = relay.join(1, Role::Client(mac(1))).await;
    let (_bridge, to) = ann.bridge();

    let elsewhere = Room::new("OTHER", Settings::default(), Arc::new(FrameLog::new(FrameLogMode::Off)));
    let settings = TransportSettings { keep_alive: Some(Duration::from_millis(500)), ..Default::default() };
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &settings).unwrap();
    let address = relay.endpoint.local_address();
    let (near, far) = tokio::join!(
        endpoint.connect(address, NAME, Trust::Roots(std::slice::from_ref(&relay.certificate)), PATIENCE),
        relay.endpoint.accept()
    );
    let (near, far) = (near.unwrap(), far.unwrap());
    let options = PeerOptions {
        peer: PeerId::new(2).unwrap(),
        role: Role::Client(mac(2)),
        limits: Limits::default(),
        takes_fragments: true,
        malformed_limit: 5,
        malformed_close: (11, String::new()),
    };
    let plugged = elsewhere.plug(&far, options).unwrap();
    to.to_port.send(frame(Mac::BROADCAST, mac(1), 100, 1)).await.unwrap();
    until(|| ann.plugged.counters().snapshot().frames_received == 1).await;
    assert_eq!(ann.plugged.counters().drops(DropReason::NoTarget), 1);
    assert_eq!(plugged.counters().snapshot().frames_sent, 0);
    drop(near);
}

#[tokio::test]
async fn a_pin_stands_in_for_name_and_chain() {
    let relay = Relay::start();
    let address = relay.endpoint.local_address();
    let endpoint =
        Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &TransportSettings::default()).unwrap();
    let key = rustls::pki_types::CertificateDer::from(relay.certificate.as_slice());
    let key = rustls::server::ParsedCertificate::try_from(&key).unwrap().subject_public_key_info();
    let pin: [u8; 32] =
        ring::digest::digest(&ring::digest::SHA256, key.as_ref()).as_ref().try_into().unwrap();
    let connect =
        async |pins: &[[u8; 32]]| endpoint.connect(address, "any.name", Trust::Pins(pins), PATIENCE).await;
    assert!(connect(&[pin]).await.is_ok());
    assert!(connect(&[[7; 32], pin]).await.is_ok());
    let wrong = connect(&[[7; 32]]).await.unwrap_err();
    assert_eq!(wrong.kind(), "wrong-pin");
    assert!(wrong.to_string().contains("the pin of its key is"), "{wrong}");
    assert_eq!(connect(&[]).await.unwrap_err().kind(), "bad-certificate");
}
