//! A UDP socket that speaks QUIC: the relay's, which accepts, and the joining side's, which connects.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AsyncUdpSocket, ClientConfig, EndpointConfig, Incoming, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::LinkError;
use crate::plain_udp::{PlainUdp, is_refused_option};
use crate::plane::DataPlane;
use crate::tls::{self, Trust};
use crate::transport::{TransportSettings, UdpKind};

/// Handshakes that have not finished. Above half of it, peers must prove their address first (RFC 9000 section 8.1.2).
const MAX_HANDSHAKES: usize = 512;
/// A handshake that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Finished handshakes waiting for the control plane.
const ACCEPT_BACKLOG: usize = 256;
/// Wanted kernel buffer a direction, in bytes: 20 ms at 1.6 Gbit/s. The kernel may give less (net.core.rmem_max).
const SOCKET_BUFFER: usize = 4 << 20;

/// An endpoint with a data plane of its own.
#[derive(Debug)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    transport: Arc<TransportConfig>,
    max_udp_payload: u16,
    plain_because: Option<String>,
    accepted: Mutex<mpsc::Receiver<Connection>>,
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
        let transport = settings.build()?;
        let crypto = tls::server_config(chain, key)?;
        let mut config = EndpointConfig::new(Arc::new(reset_key(key)));
        config.grease_quic_bit(false);
        let endpoint =
            Self::start(listen, config, Some(server_config(crypto, &transport)), transport, settings)?;
        Ok(endpoint)
    }

    /// The joining side's endpoint, bound to `local` (usually the unspecified address, port 0).
    ///
    /// # Errors
    /// [`LinkError::InvalidSetting`], or [`LinkError::Io`] when there is no socket to be had.
    pub fn client(local: SocketAddr, settings: &TransportSettings) -> Result<Self, LinkError> {
        let transport = settings.build()?;
        Self::start(local, EndpointConfig::default(), None, transport, settings)
    }

    fn start(
        local: SocketAddr,
        config: EndpointConfig,
        server: Option<ServerConfig>,
        transport: Arc<TransportConfig>,
        settings: &TransportSettings,
    ) -> Result<Self, LinkError> {
        let plane = DataPlane::start("softlan-data")?;
        let accepts = server.is_some();
        let (quic, plain_because) = {
            let _context = plane.handle().enter();
            let (socket, plain_because) = quic_socket(local, settings.udp)?;
            let runtime = Arc::new(TokioRuntime);
            (quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?, plain_because)
        };
        let (connections, accepted) = mpsc::channel(ACCEPT_BACKLOG);
        if accepts {
            plane.handle().spawn(accept_loop(quic.clone(), connections, settings.max_udp_payload));
        }
        Ok(Self {
            quic,
            transport,
            max_udp_payload: settings.max_udp_payload,
            plain_because,
            accepted: Mutex::new(accepted),
            plane,
        })
    }

    /// The data plane, for what moves frames on this endpoint's connections.
    pub fn plane(&self) -> &DataPlane {
        &self.plane
    }

    /// The bound address.
    ///
    /// # Errors
    /// [`LinkError::Io`] when the socket is gone.
    pub fn local_address(&self) -> Result<SocketAddr, LinkError> {
        Ok(self.quic.local_addr()?)
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
        self.quic.set_server_config(Some(server_config(crypto, &self.transport)));
        Ok(())
    }

    /// The next peer whose handshake is done; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Connection> {
        self.accepted.lock().await.recv().await
    }

    /// Connects to a relay that `trust` believes; its certificate must be for `server_name`, unless a pin stands in for names.
    ///
    /// # Errors
    /// A trust failure ([`LinkError::WrongPin`], [`LinkError::WrongName`], [`LinkError::Expired`]), [`LinkError::TimedOut`] after
    /// `limit`, or what else QUIC ended with.
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
        let connecting = {
            let _context = self.plane.handle().enter();
            self.quic.connect_with(config, address, server_name)?
        };
        let quic = match timeout(limit, connecting).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => return Err(verdict.explain(error.into())),
            Err(_elapsed) => return Err(LinkError::TimedOut),
        };
        if quic.max_datagram_size().is_none() {
            return Err(LinkError::NoDatagrams);
        }
        Ok(Connection::new(quic, self.max_udp_payload))
    }

    /// Closes every connection with `code` and `reason` and waits, `limit` at most, until the peers were told.
    pub async fn close(&self, code: u32, reason: &str, limit: Duration) {
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
        // Peers that do not answer any more are not worth waiting for.
        let _ = timeout(limit, self.quic.wait_idle()).await;
    }
}

fn server_config(crypto: QuicServerConfig, transport: &Arc<TransportConfig>) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport.clone()).migration(true).max_incoming(MAX_HANDSHAKES);
    config
}

/// Stateless resets (RFC 9000 section 10.3) from a key that a restarted relay has again while it keeps its certificate: its former
/// peers then learn at their next packet that their connections are gone, instead of waiting for a timeout.
fn reset_key(private_key: &[u8]) -> ring::hmac::Key {
    let root = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, private_key);
    let derived = ring::hmac::sign(&root, b"softlan stateless reset key");
    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, derived.as_ref())
}

async fn accept_loop(quic: quinn::Endpoint, connections: mpsc::Sender<Connection>, max_udp_payload: u16) {
    let handshakes = Arc::new(tokio::sync::Semaphore::new(MAX_HANDSHAKES));
    while let Some(incoming) = quic.accept().await {
        if handshakes.available_permits() < MAX_HANDSHAKES / 2
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            // `may_retry` was just asked: it cannot fail.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let connections = connections.clone();
        tokio::spawn(async move {
            if let Some(quic) = handshake(incoming).await {
                // The receiver is gone only when the endpoint closes, which closes the connection as well.
                let _ = connections.send(Connection::new(quic, max_udp_payload)).await;
            }
            drop(permit);
        });
    }
}

async fn handshake(incoming: Incoming) -> Option<quinn::Connection> {
    let connecting = incoming.accept().ok()?;
    timeout(HANDSHAKE_LIMIT, connecting).await.ok()?.ok()
}

/// The socket QUIC uses, and why it is a plain one if it is.
fn quic_socket(
    local: SocketAddr,
    kind: UdpKind,
) -> Result<(Arc<dyn AsyncUdpSocket>, Option<String>), LinkError> {
    let because = match kind {
        UdpKind::Plain => "the settings ask for it".to_owned(),
        UdpKind::Auto => match TokioRuntime.wrap_udp_socket(udp_socket(local)?) {
            Ok(socket) => return Ok((socket, None)),
            Err(error) if is_refused_option(&error) => {
                format!("this system refuses a socket option: {error}")
            }
            Err(error) => return Err(error.into()),
        },
    };
    Ok((Arc::new(PlainUdp::new(udp_socket(local)?)?), Some(because)))
}

/// A UDP socket for QUIC. An IPv6 one takes IPv4 as well; where the system has no IPv6, `[::]` falls back to `0.0.0.0`.
fn udp_socket(local: SocketAddr) -> Result<UdpSocket, LinkError> {
    let bound = bind(local);
    let fallback = match local {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Some(SocketAddr::from(([0, 0, 0, 0], v6.port()))),
        _ => None,
    };
    match (bound, fallback) {
        (Err(error), Some(v4)) if error.kind() != std::io::ErrorKind::AddrInUse => Ok(bind(v4)?),
        (result, _) => Ok(result?),
    }
}

fn bind(local: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() && local.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Best effort: the kernel caps these at its own limits, and a smaller buffer only drops earlier.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&local.into())?;
    Ok(socket.into())
}
