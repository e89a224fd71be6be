//! One QUIC connection to a relay, without its congestion control's good manners, and on request without those of reading.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ClientConfig, Dir, Event, StreamEvent, StreamId, TransportConfig};
use softlan_peer::{Caller, Unbounded};

const PATIENCE: Duration = Duration::from_secs(5);
/// Packets made at once.
const BURST: usize = 10;
/// How often a peer that reads nothing takes a packet: often enough to be taken for one that is there.
const SELDOM: Duration = Duration::from_millis(500);
/// What one that means to stop reading lets the relay send on streams: a welcome, and then no more.
const NARROW: u32 = 4096;

/// The name of the relay's own certificate.
pub const NAME: &str = "lanparty-relay.local";

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
    arrived: bool,
    over: Option<String>,
    /// When it takes a packet again, if it takes but one now and then.
    seldom: Option<Instant>,
    /// Its id in the room.
    pub peer_id: u16,
}

impl Peer {
    /// Connects, says hello and waits for the welcome; a gateway has no `mac`.
    pub fn join(relay: SocketAddrV4, room: &str, mac: Option<[u8; 6]>) -> Result<Self, Refusal> {
        Self::join_with(client_config(), relay, room, mac)
    }

    /// The same for a peer that is to [`stop_reading`](Self::stop_reading) some time.
    pub fn join_narrow(relay: SocketAddrV4, room: &str, mac: [u8; 6]) -> Result<Self, Refusal> {
        let mut transport = transport();
        transport.stream_receive_window(NARROW.into()).receive_window(NARROW.into());
        Self::join_with(softlan_peer::client_config(None, transport), relay, room, Some(mac))
    }

    fn join_with(
        config: Result<ClientConfig, String>,
        relay: SocketAddrV4,
        room: &str,
        mac: Option<[u8; 6]>,
    ) -> Result<Self, Refusal> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(relay)?;
        let config = config.map_err(Refusal::Relay)?;
        let caller = Caller::call(Instant::now(), config, SocketAddr::V4(relay), NAME)
            .map_err(|error| Refusal::Relay(error.to_string()))?;
        let mut peer = Self {
            socket,
            caller,
            stream: None,
            heard: Vec::new(),
            arrived: false,
            over: None,
            seldom: None,
            peer_id: 0,
        };
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
        self.stream = Some(stream);
        match self.say(&framed(&body)) {
            0 => Err(Refusal::Relay("no room on the stream".to_owned())),
            _ => Ok(()),
        }
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

    /// Puts bytes on the control stream; gives how many it has room for.
    pub fn say(&mut self, data: &[u8]) -> usize {
        // Refused when the window is used up or the connection is over, which `is_over` tells.
        self.stream.map_or(0, |stream| self.caller.quic.send_stream(stream).write(data).unwrap_or(0))
    }

    /// Says nothing more on the control stream.
    pub fn fall_silent(&mut self) {
        if let Some(stream) = self.stream {
            // Refused when that was done before, or the connection is over.
            let _ = self.caller.quic.send_stream(stream).finish();
        }
    }

    /// Whether the relay has all that was said, once it is told that there is no more.
    pub fn has_arrived(&self) -> bool {
        self.arrived
    }

    /// Reads nothing of the control stream from now on, and throws all packets away but one now and then.
    pub fn stop_reading(&mut self) {
        self.seldom = Some(Instant::now());
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

    /// Sends what is to be sent and takes what comes, for about `pause`, which may be zero.
    pub fn drive(&mut self, pause: Duration) -> io::Result<()> {
        self.transmit()?;
        if pause.is_zero() {
            self.socket.set_nonblocking(true)?;
        } else {
            self.socket.set_read_timeout(Some(pause))?;
        }
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
                Event::Stream(StreamEvent::Finished { .. }) => self.arrived = true,
                Event::Stream(_) => self.listen(),
                _ => {}
            }
        }
        self.transmit()
    }

    fn listen(&mut self) {
        let (Some(stream), None) = (self.stream, self.seldom) else { return };
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
        if let Some(next) = &mut self.seldom {
            let now = Instant::now();
            if now < *next {
                return Ok(());
            }
            *next = now + SELDOM;
        }
        let remote = self.socket.peer_addr()?;
        self.caller.take(Instant::now(), remote, None, None, BytesMut::from(data));
        Ok(())
    }

    /// Sends what is to be sent.
    pub fn transmit(&mut self) -> io::Result<()> {
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

/// A control message of this body.
pub fn framed(body: &str) -> Vec<u8> {
    let mut message = (body.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(body.as_bytes());
    message
}

/// Whether an error of a socket says no more than that there was nothing to take, or no room for what was sent.
pub fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::WouldBlock | E::TimedOut | E::ConnectionRefused | E::Interrupted)
}

/// A configuration that trusts anybody, for it is the attacked that matters here, and slows down for nobody.
pub fn client_config() -> Result<ClientConfig, String> {
    softlan_peer::client_config(None, transport())
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(Unbounded))
        .datagram_receive_buffer_size(Some(1 << 20))
        .mtu_discovery_config(None)
        .keep_alive_interval(Some(Duration::from_millis(500)));
    transport
}
