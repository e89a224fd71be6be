//! One QUIC connection to a relay, without its congestion control's good manners.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ClientConfig, Dir, Event, StreamId, TransportConfig};
use softlan_peer::{Caller, Unbounded};

const PATIENCE: Duration = Duration::from_secs(5);
/// Packets made at once.
const BURST: usize = 10;

/// Why there is no connection.
#[derive(Debug)]
pub enum Refusal {
    /// This machine would not.
    Io(io::Error),
    /// The relay would not, in its words.
    Relay(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A peer in a room.
pub struct Peer {
    socket: UdpSocket,
    caller: Caller,
    stream: Option<StreamId>,
    heard: Vec<u8>,
    over: Option<String>,
    /// Its id in the room.
    pub peer_id: u16,
}

impl Peer {
    /// Connects, says hello and waits for the welcome; a gateway has no `mac`.
    pub fn join(relay: SocketAddrV4, room: &str, mac: Option<[u8; 6]>) -> Result<Self, Refusal> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(relay)?;
        let config = client_config().map_err(Refusal::Relay)?;
        let caller = Caller::call(Instant::now(), config, SocketAddr::V4(relay), "lanparty-relay.local")
            .map_err(|error| Refusal::Relay(error.to_string()))?;
        let mut peer = Self { socket, caller, stream: None, heard: Vec::new(), over: None, peer_id: 0 };
        peer.wait(|peer| !peer.caller.quic.is_handshaking())?;
        peer.hello(room, mac)?;
        peer.wait(|peer| peer.welcome().is_some())?;
        peer.peer_id = peer.welcome().unwrap_or(0);
        Ok(peer)
    }

    fn hello(&mut self, room: &str, mac: Option<[u8; 6]>) -> Result<(), Refusal> {
        let who = mac.map_or_else(
            || "\"role\": \"gateway\"".to_owned(),
            |mac| {
                let text: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("\"role\": \"client\", \"mac\": \"{}\"", text.join(":"))
            },
        );
        let body = format!(
            "{{\"type\": \"hello\", \"protocol\": 1, {who}, \"room\": \"{room}\", \"datagram_budget\": 1100}}"
        );
        let stream =
            self.caller.quic.streams().open(Dir::Bi).ok_or(Refusal::Relay("no stream".to_owned()))?;
        let mut message = (body.len() as u32).to_be_bytes().to_vec();
        message.extend_from_slice(body.as_bytes());
        self.caller.quic.send_stream(stream).write(&message).map_err(|e| Refusal::Relay(e.to_string()))?;
        self.stream = Some(stream);
        Ok(())
    }

    /// The peer id of a welcome, once one has come.
    fn welcome(&self) -> Option<u16> {
        let text = String::from_utf8_lossy(&self.heard);
        let rest = text.split("\"peer_id\":").nth(1)?;
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    fn wait(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Refusal> {
        let limit = Instant::now() + PATIENCE;
        while !done(self) {
            if let Some(words) = &self.over {
                return Err(Refusal::Relay(words.clone()));
            }
            if Instant::now() > limit {
                return Err(Refusal::Relay("no answer".to_owned()));
            }
            self.drive(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Puts a datagram into the queue; the oldest make room.
    pub fn post(&mut self, data: Bytes) {
        // Refused when it is too large or the connection is over, which `is_over` tells.
        let _ = self.caller.quic.datagrams().send(data, true);
    }

    /// Whether the relay has ended it.
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Why the relay has ended it.
    pub fn last_words(&self) -> Option<String> {
        self.over.clone()
    }

    /// Closes it.
    pub fn leave(mut self) -> io::Result<()> {
        self.caller.quic.close(Instant::now(), 0u32.into(), Bytes::new());
        self.drive(Duration::from_millis(1))
    }

    /// Sends what is to be sent and takes what comes, for about `pause`.
    pub fn drive(&mut self, pause: Duration) -> io::Result<()> {
        self.transmit()?;
        self.socket.set_read_timeout(Some(pause))?;
        let mut buffer = [0; 2048];
        // The first read waits, the others take what has come meanwhile.
        for _ in 0..64 {
            match self.socket.recv(&mut buffer) {
                Ok(size) => self.take(&buffer[..size])?,
                Err(error) if is_nothing(&error) => break,
                Err(error) => return Err(error),
            }
            self.socket.set_nonblocking(true)?;
        }
        self.socket.set_nonblocking(false)?;
        let now = Instant::now();
        self.caller.expire(now);
        self.caller.settle();
        while let Some(event) = self.caller.quic.poll() {
            match event {
                Event::ConnectionLost { reason } => self.over = Some(reason.to_string()),
                Event::DatagramReceived => while self.caller.quic.datagrams().recv().is_some() {},
                Event::Stream(_) => self.listen(),
                _ => {}
            }
        }
        self.transmit()
    }

    fn listen(&mut self) {
        let Some(stream) = self.stream else { return };
        let mut stream = self.caller.quic.recv_stream(stream);
        let Ok(mut chunks) = stream.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(4096) {
            if self.heard.len() < 65_536 {
                self.heard.extend_from_slice(&chunk.bytes);
            }
        }
        // More room for the relay to speak goes out with the next packet.
        let _ = chunks.finalize();
    }

    fn take(&mut self, data: &[u8]) -> io::Result<()> {
        let remote = self.socket.peer_addr()?;
        self.caller.take(Instant::now(), remote, None, None, BytesMut::from(data));
        Ok(())
    }

    fn transmit(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(BURST * 1500);
        while let Some(transmit) = self.caller.quic.poll_transmit(Instant::now(), BURST, &mut buffer) {
            let size = transmit.segment_size.unwrap_or(transmit.size);
            for packet in buffer[..transmit.size].chunks(size) {
                match self.socket.send(packet) {
                    Ok(_) => {}
                    // Nobody listens any more, or the queue is full: lost on the way.
                    Err(error) if is_nothing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.clear();
        }
        Ok(())
    }
}

fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::WouldBlock | E::TimedOut | E::ConnectionRefused | E::Interrupted)
}

/// A configuration that trusts anybody, for it is the attacked that matters here, and slows down for nobody.
pub fn client_config() -> Result<ClientConfig, String> {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(Unbounded))
        .datagram_receive_buffer_size(Some(1 << 20))
        .mtu_discovery_config(None)
        .keep_alive_interval(Some(Duration::from_millis(500)));
    softlan_peer::client_config(None, transport)
}
