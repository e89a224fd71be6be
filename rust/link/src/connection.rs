//! One QUIC connection as the control plane sees it: the control stream, the datagram budget, how it ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::cable::ControlTurn;
use crate::error::LinkError;

/// A live connection with its control stream. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Connection {
    quic: quinn::Connection,
    max_udp_payload: u16,
    control_turn: Arc<ControlTurn>,
    sender: Mutex<Option<SendStream>>,
    receiver: Mutex<Option<RecvStream>>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// `peer`, `local`, `timed-out`, `reset`, or `transport`.
    pub kind: &'static str,
    /// The application's close code, where the peer closed on purpose.
    pub code: Option<u64>,
    /// A sentence, empty where the peer gave none.
    pub reason: String,
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        let plain = |kind| Self { kind, code: None, reason: String::new() };
        match error {
            ConnectionError::ApplicationClosed(close) => Self {
                kind: "peer",
                code: Some(close.error_code.into_inner()),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::LocallyClosed => plain("local"),
            ConnectionError::TimedOut => plain("timed-out"),
            ConnectionError::Reset => plain("reset"),
            other => Self { kind: "transport", code: None, reason: other.to_string() },
        }
    }
}

/// How long a measured MTU must stay unchanged, beyond three round trips, to count as settled.
const MTU_QUIET: Duration = Duration::from_millis(60);

impl Connection {
    pub(crate) fn new(quic: quinn::Connection, max_udp_payload: u16) -> Self {
        Self {
            quic,
            max_udp_payload,
            control_turn: Arc::default(),
            sender: Mutex::new(None),
            receiver: Mutex::new(None),
        }
    }

    /// The QUIC connection underneath.
    pub(crate) fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Where the cable sees that control data waits.
    pub(crate) fn control_turn(&self) -> Arc<ControlTurn> {
        self.control_turn.clone()
    }

    /// A number that no other connection of this process has at the same time.
    pub fn id(&self) -> usize {
        self.quic.stable_id()
    }

    /// The peer's UDP address now; it changes when the peer migrates (RFC 9000 section 9).
    ///
    /// An IPv4 peer of an IPv6 socket has its IPv4 address, not the mapped one.
    pub fn remote_address(&self) -> SocketAddr {
        let address = self.quic.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// The smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// The largest datagram payload in bytes the path carries now, or `None` if the peer takes no datagrams.
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.quic.max_datagram_size()
    }

    /// `length` bytes that only the two ends of this TLS connection can know (RFC 8446 section 7.5, RFC 5705): what is proven with them
    /// is worth nothing on any other connection.
    ///
    /// # Errors
    /// [`LinkError::InvalidSetting`] for a length TLS cannot give (more than 255 hashes).
    pub fn export_keying_material(
        &self,
        label: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, LinkError> {
        // HKDF's bound (RFC 5869 section 2.3) for SHA-256, the shorter of TLS 1.3's hashes.
        if !(1..=255 * 32).contains(&length) {
            return Err(LinkError::InvalidSetting(format!(
                "exported keying material cannot be {length} bytes"
            )));
        }
        let mut output = vec![0; length];
        self.quic
            .export_keying_material(&mut output, label, context)
            .map_err(|_| LinkError::InvalidSetting("TLS cannot export keying material for this".into()))?;
        Ok(output)
    }

    /// Waits, `limit` at most, until path MTU discovery has settled, then gives the datagram budget in bytes.
    ///
    /// # Errors
    /// [`LinkError::NoDatagrams`] when the peer takes none, [`LinkError::Closed`] when the connection ended.
    pub async fn settled_datagram_budget(&self, limit: Duration) -> Result<usize, LinkError> {
        let deadline = Instant::now() + limit;
        let mut last = (0, 0);
        let mut since = Instant::now();
        while Instant::now() < deadline {
            if let Some(error) = self.quic.close_reason() {
                return Err(error.into());
            }
            let path = self.quic.stats().path;
            let seen = (path.current_mtu, path.sent_plpmtud_probes);
            if seen != last {
                (last, since) = (seen, Instant::now());
            }
            if path.current_mtu >= self.max_udp_payload || since.elapsed() > MTU_QUIET + 3 * path.rtt {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.quic.max_datagram_size().ok_or(LinkError::NoDatagrams)
    }

    /// Waits until nothing has arrived for `limit`, or the connection has ended. Peers keep connections alive, so silence means trouble
    /// well before the idle timeout is sure of it.
    pub async fn silence(&self, limit: Duration) {
        let arrived = || self.quic.stats().udp_rx.datagrams;
        let (mut last, mut since) = (arrived(), Instant::now());
        while self.quic.close_reason().is_none() && since.elapsed() < limit {
            sleep(limit / 5).await;
            let now = arrived();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }

    /// Opens the control stream (the joining side).
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn open_control(&self) -> Result<(), LinkError> {
        let (send, recv) = self.quic.open_bi().await?;
        self.set_control(send, recv).await;
        Ok(())
    }

    /// Waits for the control stream the peer opens (the relay's side).
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn accept_control(&self) -> Result<(), LinkError> {
        let (send, recv) = self.quic.accept_bi().await?;
        self.set_control(send, recv).await;
        Ok(())
    }

    async fn set_control(&self, send: SendStream, recv: RecvStream) {
        *self.sender.lock().await = Some(send);
        *self.receiver.lock().await = Some(recv);
    }

    /// The next bytes of the control stream, 1 to `limit` of them; `None` at its end.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the stream or the connection ended early or was never opened.
    pub async fn read_control(&self, limit: usize) -> Result<Option<Vec<u8>>, LinkError> {
        let mut receiver = self.receiver.lock().await;
        let stream = receiver.as_mut().ok_or_else(no_control)?;
        match stream.read_chunk(limit, true).await {
            Ok(chunk) => Ok(chunk.map(|c| c.bytes.to_vec())),
            Err(ReadError::ConnectionLost(error)) => Err(error.into()),
            Err(other) => Err(LinkError::Closed(other.to_string())),
        }
    }

    /// Writes all of `data` to the control stream.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the stream or the connection ended or was never opened.
    pub async fn write_control(&self, data: &[u8]) -> Result<(), LinkError> {
        let mut sender = self.sender.lock().await;
        let stream = sender.as_mut().ok_or_else(no_control)?;
        self.control_turn.ask(&self.quic);
        match stream.write_all(data).await {
            Ok(()) => Ok(()),
            Err(WriteError::ConnectionLost(error)) => Err(error.into()),
            Err(other) => Err(LinkError::Closed(other.to_string())),
        }
    }

    /// Ends our side of the control stream and waits, `limit` at most, until the peer has all of it: a last message
    /// survives the close that follows.
    pub async fn finish_control(&self, limit: Duration) {
        let mut sender = self.sender.lock().await;
        if let Some(stream) = sender.as_mut()
            && stream.finish().is_ok()
        {
            // Whatever the outcome, the connection is about to be closed.
            let _ = timeout(limit, stream.stopped()).await;
        }
    }

    /// Closes at once. `code` is one of `docs/protocol.md`, `reason` a sentence for the peer's user.
    pub fn close(&self, code: u32, reason: &str) {
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits until the connection has ended, and says how.
    pub async fn closed(&self) -> CloseReason {
        self.quic.closed().await.into()
    }
}

fn no_control() -> LinkError {
    LinkError::Closed("the control stream is not open".into())
}
