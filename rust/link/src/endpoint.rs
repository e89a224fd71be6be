//! A UDP socket that speaks QUIC: the relay's, which accepts, and the joining side's, which connects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    ClientConfig, EndpointConfig, HashedConnectionIdGenerator, RandomConnectionIdGenerator, ServerConfig,
    TransportConfig, VarInt,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::engine::Engine;
use crate::engine::driver::{Driver, Reception};
use crate::engine::link::Link;
use crate::error::LinkError;
use crate::plane::DataPlane;
use crate::tls::{self, Trust};
use crate::transport::{JOINING_CONTROL_WINDOW, RELAY_CONTROL_WINDOW, TransportSettings};
use crate::udp::UdpIo;

/// Bytes of a joining side's connection identifiers, which the relay sends with each packet (RFC 9000 section 5.1 lets an endpoint choose). Such an
/// endpoint has hardly more than one connection, so that two tell it from its predecessors, and every byte less is one more for frames.
const CLIENT_IDENTIFIER_LEN: usize = 2;
/// Finished handshakes waiting for the control plane.
const ACCEPT_BACKLOG: usize = 1024;

/// An endpoint with a data plane of its own.
#[derive(Debug)]
pub struct Endpoint {
    engine: Arc<Engine>,
    local_address: SocketAddr,
    plain_because: Option<String>,
    transport: Arc<TransportConfig>,
    max_udp_payload: u16,
    accepted: Mutex<mpsc::Receiver<Arc<Link>>>,
    // Last, so that it stops after what runs on it is dropped.
    plane: DataPlane,
}

impl Endpoint {
    /// The relay's endpoint: listens on `listen` with a certificate chain (DER, leaf first) and its key (DER).
    ///
    /// # Errors
    /// [`LinkError::BadCertificate`], [`LinkError::InvalidSetting`], or [`LinkError::Io`] when the address cannot be had.
    pub fn server(
        listen: SocketAddr,
        chain: Vec<Vec<u8>>,
        key: &[u8],
        settings: &TransportSettings,
    ) -> Result<Self, LinkError> {
        let transport = settings.build(RELAY_CONTROL_WINDOW)?;
        let crypto = tls::server_config(chain, key)?;
        let kept = KeptKeys::of(key);
        let mut config = EndpointConfig::new(Arc::new(kept.resets));
        config
            .grease_quic_bit(false)
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(kept.identifiers)));
        let server = Some((server_config(crypto, &transport), kept.identifiers));
        Self::start(listen, config, server, transport, settings)
    }

    /// The joining side's endpoint, bound to `local` (usually the unspecified address, port 0).
    ///
    /// # Errors
    /// [`LinkError::InvalidSetting`], or [`LinkError::Io`] when there is no socket to be had.
    pub fn client(local: SocketAddr, settings: &TransportSettings) -> Result<Self, LinkError> {
        let transport = settings.build(JOINING_CONTROL_WINDOW)?;
        let mut config = EndpointConfig::default();
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CLIENT_IDENTIFIER_LEN)));
        Self::start(local, config, None, transport, settings)
    }

    fn start(
        local: SocketAddr,
        config: EndpointConfig,
        server: Option<(ServerConfig, u64)>,
        transport: Arc<TransportConfig>,
        settings: &TransportSettings,
    ) -> Result<Self, LinkError> {
        let plane = DataPlane::start("softlan-data")?;
        let (connections, accepted) = mpsc::channel(ACCEPT_BACKLOG);
        let (server, reception) = match server {
            None => (None, None),
            Some((server, identifier_key)) => {
                (Some(server), Some(Reception { accepted: connections, identifier_key }))
            }
        };
        let socket = {
            let _context = plane.handle().enter();
            UdpIo::bind(local, settings.udp)?
        };
        let local_address = socket.local_address()?;
        let plain_because = socket.plain_because().map(str::to_owned);
        let server = server.map(Arc::new);
        let proto = quinn_proto::Endpoint::new(Arc::new(config), server, !socket.may_fragment(), None);
        let engine = Engine::new(proto);
        plane.handle().spawn(Driver::new(engine.clone(), socket, reception).run());
        Ok(Self {
            engine,
            local_address,
            plain_because,
            transport,
            max_udp_payload: settings.max_udp_payload,
            accepted: Mutex::new(accepted),
            plane,
        })
    }

    /// The data plane, for what moves frames on this endpoint's connections.
    pub fn plane(&self) -> &DataPlane {
        &self.plane
    }

    /// The bound address.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// What became of peers' first packets, by name, and how many handshakes are `unfinished` now.
    pub fn handshakes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.engine.door.snapshot().into_iter()
    }

    /// Why the socket is a plain one, without ECN and offloads; `None` when it is not.
    pub fn plain_because(&self) -> Option<&str> {
        self.plain_because.as_deref()
    }

    /// Uses another certificate for connections from now on; the present ones stay.
    ///
    /// # Errors
    /// [`LinkError::BadCertificate`]; the former certificate then stays in use.
    pub fn replace_certificate(&self, chain: Vec<Vec<u8>>, key: &[u8]) -> Result<(), LinkError> {
        let crypto = tls::server_config(chain, key)?;
        self.engine.set_server_config(server_config(crypto, &self.transport));
        Ok(())
    }

    /// The next peer whose handshake is done; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Connection> {
        let link = self.accepted.lock().await.recv().await?;
        Some(Connection::new(link, self.max_udp_payload))
    }

    /// Connects to a relay that `trust` believes; its certificate must be for `server_name`, unless a pin stands in for names.
    ///
    /// # Errors
    /// A trust failure ([`LinkError::WrongPin`], [`LinkError::WrongName`], [`LinkError::Expired`], [`LinkError::Unverified`]),
    /// [`LinkError::BadCertificate`] where `trust` cannot be used, [`LinkError::TimedOut`] after `limit`, or what else QUIC ended with.
    pub async fn connect(
        &self,
        address: SocketAddr,
        server_name: &str,
        trust: Trust<'_>,
        limit: Duration,
    ) -> Result<Connection, LinkError> {
        let (crypto, verdict) = tls::client_config(trust)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        let address = match (address, self.local_address) {
            // An IPv6 socket reaches IPv4 by mapped addresses (RFC 4291 section 2.5.5.2).
            (SocketAddr::V4(v4), SocketAddr::V6(_)) => {
                SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
            }
            _ => address,
        };
        // From here on it is closed when this future is dropped.
        let connection =
            Connection::new(self.engine.connect(config, address, server_name)?, self.max_udp_payload);
        let connected = connection.link().wait_for(|state| match &state.ended {
            Some(error) => Some(Err(error.clone())),
            None => state.connected.then_some(Ok(())),
        });
        match timeout(limit, connected).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(verdict.explain(error.into())),
            Err(_elapsed) => return Err(LinkError::TimedOut),
        }
        if connection.max_datagram_size().is_none() {
            return Err(LinkError::NoDatagrams);
        }
        Ok(connection)
    }

    /// Closes every connection with `code` and `reason` and waits, `limit` at most, until the peers were told.
    pub async fn close(&self, code: u32, reason: &str, limit: Duration) {
        self.engine.close(VarInt::from_u32(code), &Bytes::copy_from_slice(reason.as_bytes()));
        // Peers that do not answer any more are not worth waiting for.
        let _ = timeout(limit, self.engine.wait_idle()).await;
    }
}

fn server_config(crypto: QuicServerConfig, transport: &Arc<TransportConfig>) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport.clone()).migration(true);
    config
}

/// What a restarted relay has again while it keeps its certificate.
///
/// Stateless resets (RFC 9000 section 10.3) tell its former peers at their next packet that their connections are gone, so that they need not
/// wait for a timeout. They come only for identifiers that the endpoint knows for its own, for which the key of those must be the same, too.
struct KeptKeys {
    resets: ring::hmac::Key,
    identifiers: u64,
}

impl KeptKeys {
    fn of(private_key: &[u8]) -> Self {
        let root = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, private_key);
        let derived = |what: &[u8]| ring::hmac::sign(&root, what);
        let identifiers = derived(b"softlan connection identifiers");
        let resets = derived(b"softlan stateless reset key");
        Self {
            resets: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, resets.as_ref()),
            identifiers: identifiers.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte)),
        }
    }
}
