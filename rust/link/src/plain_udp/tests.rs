//! QUIC over a plain UDP socket, as it is used where the system refuses the socket options quinn's own needs.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::{Connection, Endpoint, TransportSettings, Trust, UdpKind};

const NAME: &str = "lanparty-relay.local";
const PATIENCE: Duration = Duration::from_secs(10);

fn settings(udp: UdpKind) -> TransportSettings {
    TransportSettings { udp, keep_alive: Some(Duration::from_millis(500)), ..Default::default() }
}

/// Two endpoints with a connection between them: the near end, the far end.
async fn connected(local: &str, near: UdpKind, far: UdpKind) -> (Endpoint, Endpoint, Connection, Connection) {
    let key = rcgen::generate_simple_self_signed(vec![NAME.into()]).unwrap();
    let certificate = key.cert.der().to_vec();
    let local: SocketAddr = local.parse().unwrap();
    let chain = vec![certificate.clone()];
    let server = Endpoint::server(local, chain, &key.signing_key.serialize_der(), &settings(far)).unwrap();
    let client = Endpoint::client(local, &settings(near)).unwrap();
    let address = server.local_address().unwrap();
    let (near, far) = tokio::join!(
        client.connect(address, NAME, Trust::Roots(std::slice::from_ref(&certificate)), PATIENCE),
        server.accept()
    );
    (client, server, near.unwrap(), far.unwrap())
}

async fn echo(near: &Connection, far: &Connection, count: u32, len: usize) {
    for number in 0..count {
        let mut data = vec![number as u8; len];
        data[..4].copy_from_slice(&number.to_be_bytes());
        near.quic().send_datagram(data.clone().into()).unwrap();
        let there = timeout(PATIENCE, far.quic().read_datagram()).await.unwrap().unwrap();
        assert_eq!(there, data);
        far.quic().send_datagram(there).unwrap();
        let back = timeout(PATIENCE, near.quic().read_datagram()).await.unwrap().unwrap();
        assert_eq!(back, data);
    }
}

#[tokio::test]
async fn datagrams_go_both_ways_between_plain_sockets() {
    let (client, server, near, far) = connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Plain).await;
    assert!(client.plain_because().is_some() && server.plain_because().is_some());
    echo(&near, &far, 500, 1100).await;
}

#[tokio::test]
async fn a_plain_socket_speaks_with_one_that_is_not() {
    let (client, server, near, far) = connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Auto).await;
    assert!(client.plain_because().is_some() && server.plain_because().is_none());
    echo(&near, &far, 200, 1100).await;
    let (_client, _server, near, far) = connected("127.0.0.1:0", UdpKind::Auto, UdpKind::Plain).await;
    echo(&near, &far, 200, 1100).await;
}

#[tokio::test]
async fn the_path_mtu_is_found_as_far_as_allowed() {
    let (_client, _server, near, far) = connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Plain).await;
    let budget = near.settled_datagram_budget(PATIENCE).await.unwrap();
    assert!(budget > 1400, "{budget}");
    echo(&near, &far, 10, budget).await;
}

#[tokio::test]
async fn a_burst_is_received_in_full() {
    let (_client, _server, near, far) = connected("127.0.0.1:0", UdpKind::Plain, UdpKind::Plain).await;
    for round in 0..50_u8 {
        for number in 0..20_u8 {
            near.quic().send_datagram(vec![round, number].into()).unwrap();
        }
        for _ in 0..20 {
            let got = timeout(PATIENCE, far.quic().read_datagram()).await.unwrap().unwrap();
            assert_eq!(got[0], round);
        }
    }
}
