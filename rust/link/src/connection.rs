//! One QUIC connection as the control plane sees it: the control stream, the datagram budget, how it ended.

use std::mem::take;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{
    ConnectionError, ConnectionStats, Dir, ReadError, ReadableError, StreamId, VarInt, WriteError,
};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::link::{Link, State};
use crate::error::LinkError;

/// A live connection with its control stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Connection {
    link: Arc<Link>,
    id: usize,
    max_udp_payload: u16,
    /// One writer at a time: a message is not to be torn by another.
    writing: tokio::sync::Mutex<()>,
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

/// The IPv4 address that an IPv6 socket has in its mapped form (RFC 4291 section 2.5.5.2).
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How often somebody who waits for a sign of life looks for it.
const LISTENING_STEP: Duration = Duration::from_millis(10);

/// A count that grows with whatever the peer says. What arrives and is not the peer's own, as anybody's rubbish or the resets of a relay
/// that does not know the connection, is not among it.
fn signs_of_life(stats: &ConnectionStats) -> u64 {
    let frames = &stats.frame_rx;
    frames.acks + frames.ping + frames.datagram + frames.stream
}

/// How long a measured MTU must stay unchanged, beyond three round trips, to count as settled.
const MTU_QUIET: Duration = Duration::from_millis(60);

impl Connection {
    pub(crate) fn new(link: Arc<Link>, max_udp_payload: u16) -> Self {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { link, id, max_udp_payload, writing: tokio::sync::Mutex::default() }
    }

    /// What the loop drives.
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// A number that no other connection of this process has.
    pub fn id(&self) -> usize {
        self.id
    }

    /// The peer's UDP address now; it changes when the peer migrates (RFC 9000 section 9).
    ///
    /// An IPv4 peer of an IPv6 socket has its IPv4 address, not the mapped one. A single packet with a forged source changes it too, until the path is
    /// found not to answer (section 9.3.2): nothing may be granted or counted by it.
    pub fn remote_address(&self) -> SocketAddr {
        unmapped(self.link.state().proto.remote_address())
    }

    /// The peer's UDP address during the handshake, which it has proven by finishing that (RFC 9000 section 8.1); it never changes.
    pub fn proven_address(&self) -> SocketAddr {
        unmapped(self.link.met_at())
    }

    /// Whether it is over, however it ended.
    pub fn ended(&self) -> bool {
        self.link.state().ended.is_some()
    }

    /// The smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.link.state().proto.rtt()
    }

    /// The largest datagram payload in bytes the path carries now, or `None` if the peer takes no datagrams.
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.link.state().proto.datagrams().max_size()
    }

    /// QUIC's counters, or why there is no connection any more.
    fn stats(&self) -> Result<ConnectionStats, ConnectionError> {
        let state = self.link.state();
        match &state.ended {
            Some(error) => Err(error.clone()),
            None => Ok(state.proto.stats()),
        }
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
        let state = self.link.state();
        state
            .proto
            .crypto_session()
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
            let path = self.stats()?.path;
            let seen = (path.current_mtu, path.sent_plpmtud_probes);
            if seen != last {
                (last, since) = (seen, Instant::now());
            }
            if path.current_mtu >= self.max_udp_payload || since.elapsed() > MTU_QUIET + 3 * path.rtt {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.max_datagram_size().ok_or(LinkError::NoDatagrams)
    }

    /// Waits until nothing has arrived for `limit`, or the connection has ended. Peers keep connections alive, so silence means trouble
    /// well before the idle timeout is sure of it.
    pub async fn silence(&self, limit: Duration) {
        let (mut last, mut since) = (None, Instant::now());
        while since.elapsed() < limit {
            let Ok(stats) = self.stats() else { return };
            let arrived = Some(signs_of_life(&stats));
            if arrived != last {
                (last, since) = (arrived, Instant::now());
            }
            sleep(limit / 5).await;
        }
    }

    /// Asks the peer for a sign of life (PING, RFC 9000 section 19.2) and waits, `limit` at most, until it says anything. `false` where it
    /// did not, or the connection has ended.
    pub async fn heard(&self, limit: Duration) -> bool {
        let before = {
            let mut state = self.link.state();
            state.proto.ping();
            signs_of_life(&state.proto.stats())
        };
        self.link.wake();
        let deadline = Instant::now() + limit;
        while let Ok(stats) = self.stats() {
            if signs_of_life(&stats) != before {
                return true;
            }
            if Instant::now() >= deadline {
                break;
            }
            sleep(LISTENING_STEP.min(limit)).await;
        }
        false
    }

    /// Opens the control stream (the joining side).
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn open_control(&self) -> Result<(), LinkError> {
        self.find_control(|state| state.proto.streams().open(Dir::Bi)).await
    }

    /// Waits for the control stream the peer opens (the relay's side).
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn accept_control(&self) -> Result<(), LinkError> {
        self.find_control(|state| state.proto.streams().accept(Dir::Bi)).await
    }

    async fn find_control(
        &self,
        mut find: impl FnMut(&mut State) -> Option<StreamId>,
    ) -> Result<(), LinkError> {
        let found = self.link.wait_for(|state| match (find(state), &state.ended) {
            (Some(stream), _) => {
                state.control_stream = Some(stream);
                Some(Ok(()))
            }
            (None, Some(error)) => Some(Err(error.clone().into())),
            (None, None) => None,
        });
        found.await
    }

    /// The next bytes of the control stream: at least `least` of them, or what is left at its end, and at most `limit`; `None` at its end. Whoever
    /// waits for a message's bytes is not woken for each of them.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the stream or the connection ended early or was never opened.
    pub async fn read_control(&self, least: usize, limit: usize) -> Result<Option<Vec<u8>>, LinkError> {
        let wanted = least.clamp(1, limit.max(1))..=limit;
        self.link.wait_for(|state| read(state, &wanted, || self.link.wake())).await
    }

    /// Writes all of `data` to the control stream.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the stream or the connection ended or was never opened.
    pub async fn write_control(&self, data: &[u8]) -> Result<(), LinkError> {
        let _turn = self.writing.lock().await;
        let mut left = data;
        while !left.is_empty() {
            let written = self.link.wait_for(|state| write(state, left)).await?;
            left = &left[written..];
            self.link.wake();
        }
        Ok(())
    }

    /// Ends our side of the control stream and waits, `limit` at most, until the peer has all of it: a last message
    /// survives the close that follows.
    pub async fn finish_control(&self, limit: Duration) {
        let _turn = self.writing.lock().await;
        let finished = {
            let mut state = self.link.state();
            let stream = state.control_stream;
            stream.is_some_and(|stream| state.proto.send_stream(stream).finish().is_ok())
        };
        if finished {
            self.link.wake();
            let arrived =
                self.link.wait_for(|state| (state.control_arrived || state.ended.is_some()).then_some(()));
            // Whatever the outcome, the connection is about to be closed.
            let _ = timeout(limit, arrived).await;
        }
    }

    /// Closes at once. `code` is one of `docs/protocol.md`, `reason` a sentence for the peer's user.
    pub fn close(&self, code: u32, reason: &str) {
        self.link.close(VarInt::from_u32(code), Bytes::copy_from_slice(reason.as_bytes()));
    }

    /// Waits until the connection has ended, and says how.
    pub async fn closed(&self) -> CloseReason {
        self.link.wait_for(|state| state.ended.clone()).await.into()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close(0, "");
    }
}

/// Tries to read from the control stream. What has come is taken from QUIC, so that the peer may send more, and kept until it is as much as is `wanted`;
/// calls `wake` when QUIC has something to tell the peer because of it.
fn read(
    state: &mut State,
    wanted: &RangeInclusive<usize>,
    wake: impl FnOnce(),
) -> Option<Result<Option<Vec<u8>>, LinkError>> {
    let Some(stream) = state.control_stream else { return Some(Err(no_control())) };
    let State { proto, control_read: read, .. } = state;
    let mut receiver = proto.recv_stream(stream);
    let mut chunks = match receiver.read(true) {
        Ok(chunks) => chunks,
        // Its end has been seen.
        Err(ReadableError::ClosedStream) => {
            return Some(Ok(Some(take(read)).filter(|rest| !rest.is_empty())));
        }
        Err(other) => return Some(Err(LinkError::Closed(other.to_string()))),
    };
    let stopped = loop {
        match wanted.end().saturating_sub(read.len()) {
            0 => break None,
            room => match chunks.next(room) {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk.bytes),
                other => break Some(other),
            },
        }
    };
    if chunks.finalize().should_transmit() {
        wake();
    }
    match stopped {
        Some(Err(ReadError::Blocked)) if read.len() < *wanted.start() => {
            state.ended.clone().map(|error| Err(error.into()))
        }
        None | Some(Err(ReadError::Blocked)) => Some(Ok(Some(take(read)))),
        Some(Err(other)) => Some(Err(LinkError::Closed(other.to_string()))),
        Some(Ok(_)) => Some(Ok(Some(take(read)).filter(|rest| !rest.is_empty()))),
    }
}

/// Tries to write to the control stream; the number of bytes it took.
fn write(state: &mut State, data: &[u8]) -> Option<Result<usize, LinkError>> {
    let Some(stream) = state.control_stream else { return Some(Err(no_control())) };
    if let Some(error) = &state.ended {
        return Some(Err(error.clone().into()));
    }
    state.ask_for_control();
    match state.proto.send_stream(stream).write(data) {
        Ok(written) => Some(Ok(written)),
        Err(WriteError::Blocked) => None,
        Err(other) => Some(Err(LinkError::Closed(other.to_string()))),
    }
}

fn no_control() -> LinkError {
    LinkError::Closed("the control stream is not open".into())
}
