//! One peer: a QUIC connection with a socket of its own, without any loop.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{ClientConfig, Dir, Event, StreamEvent, StreamId, TransportConfig, VarInt};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use softlan_peer::{Caller, Unbounded};

use crate::load::arena::Arena;
use crate::load::control::{self, Reader};
use crate::load::run::Fault;

/// UDP payload of a 1500-byte IPv4 path, as softlan's own peers look for.
const MAX_UDP_PAYLOAD: u16 = 1472;
/// What a datagram's payload is once the search has found that.
const FULL_BUDGET: usize = 1430;
/// How long the search may take before we make do with less.
const MTU_PATIENCE: Duration = Duration::from_secs(2);
/// Kernel buffers, a direction.
const SOCKET_BUFFER: usize = 4 << 20;
/// Packets handed to the kernel at once: what 64 KiB hold of full ones.
const GSO_SEGMENTS: usize = 40;
/// Super-packets taken from the kernel at once.
pub const RECEIVE_BATCH: usize = 8;
/// Room for one of them.
pub const SUPER_PACKET: usize = 1 << 16;

/// Buffers all peers share, one peer at a time.
#[derive(Debug)]
pub struct Workspace {
    receive: Vec<u8>,
    send: Vec<u8>,
    arena: Arena,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            receive: vec![0; RECEIVE_BATCH * SUPER_PACKET],
            send: Vec::with_capacity(SUPER_PACKET),
            arena: Arena::default(),
        }
    }
}

/// How far a peer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// Connected at this moment; waits for the MTU search.
    Measuring(Instant),
    Asked,
    Joined,
}

/// A peer of a room.
pub struct Peer {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its id in the room, 0 before the welcome.
    pub id: u16,
    /// Something happened that may want to be sent.
    pub dirty: bool,
    room: String,
    socket: UdpSocket,
    udp: UdpSocketState,
    caller: Caller,
    stream: Option<StreamId>,
    reader: Reader,
    stage: Stage,
}

impl Peer {
    /// Starts to connect to `relay` and to join `room`.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(
        now: Instant,
        relay: SocketAddr,
        config: ClientConfig,
        name: &str,
        room: String,
        mac: [u8; 6],
    ) -> Result<Self, Fault> {
        let socket = Socket::new(Domain::for_address(relay), Type::DGRAM, Some(Protocol::UDP))?;
        // Best effort: the kernel caps these.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        let local = if relay.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
        let local: SocketAddr = local.parse().map_err(|_| Fault::Protocol("no loopback".into()))?;
        socket.bind(&local.into())?;
        let socket: UdpSocket = socket.into();
        let udp = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let caller =
            Caller::call(now, config, relay, name).map_err(|error| Fault::Protocol(error.to_string()))?;
        Ok(Self {
            mac,
            id: 0,
            dirty: true,
            room,
            socket,
            udp,
            caller,
            stream: None,
            reader: Reader::default(),
            stage: Stage::Connecting,
        })
    }

    /// The socket, to be watched.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Whether the relay has welcomed it.
    pub fn joined(&self) -> bool {
        self.stage == Stage::Joined
    }

    /// Queues a datagram. `false` when QUIC holds enough.
    pub fn send(&mut self, datagram: Bytes) -> bool {
        self.dirty = true;
        self.caller.quic.datagrams().send(datagram, false).is_ok()
    }

    /// Reads what has arrived, one batch; `frames` gets each datagram.
    ///
    /// # Errors
    /// When the relay ended the connection or said no.
    pub fn receive(
        &mut self,
        now: Instant,
        workspace: &mut Workspace,
        frames: &mut impl FnMut(&[u8]),
    ) -> Result<(), Fault> {
        let Workspace { receive, arena, .. } = workspace;
        let mut meta = [RecvMeta::default(); RECEIVE_BATCH];
        let count = {
            let mut buffers = receive.chunks_exact_mut(SUPER_PACKET).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
                std::array::from_fn(|_| buffers.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            match self.udp.recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        };
        for (meta, buffer) in meta.iter().zip(receive.chunks_exact(SUPER_PACKET)).take(count) {
            for packet in buffer[..meta.len].chunks(meta.stride.max(1)) {
                let packet = arena.copy(packet);
                let ecn = meta.ecn.and_then(|mark| quinn_proto::EcnCodepoint::from_bits(mark as u8));
                self.caller.take(now, meta.addr, meta.dst_ip, ecn, packet);
            }
        }
        self.digest(now, frames)
    }

    /// Lets timers that are due fire.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn tick(&mut self, now: Instant, frames: &mut impl FnMut(&[u8])) -> Result<(), Fault> {
        let due = self.caller.expire(now);
        if due || matches!(self.stage, Stage::Measuring(_)) {
            return self.digest(now, frames);
        }
        Ok(())
    }

    /// Draws the consequences of what went in.
    fn digest(&mut self, now: Instant, frames: &mut impl FnMut(&[u8])) -> Result<(), Fault> {
        self.dirty = true;
        self.caller.settle();
        while let Some(event) = self.caller.quic.poll() {
            match event {
                Event::Connected => self.stage = Stage::Measuring(now),
                Event::ConnectionLost { reason } => return Err(Fault::Lost(reason.to_string())),
                Event::Stream(StreamEvent::Readable { id }) => self.read(id)?,
                _ => {}
            }
        }
        while let Some(datagram) = self.caller.quic.datagrams().recv() {
            frames(&datagram);
        }
        if let Stage::Measuring(since) = self.stage {
            let budget = self.caller.quic.datagrams().max_size().unwrap_or(0);
            if budget >= FULL_BUDGET || now.duration_since(since) > MTU_PATIENCE {
                self.ask(budget)?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, budget: usize) -> Result<(), Fault> {
        let gone = || Fault::Protocol("the control stream cannot be opened".into());
        let stream = self.caller.quic.streams().open(Dir::Bi).ok_or_else(gone)?;
        let hello = control::hello(&self.room, self.mac, budget);
        let written = self.caller.quic.send_stream(stream).write(&hello).map_err(|_| gone())?;
        if written != hello.len() {
            return Err(gone());
        }
        self.stream = Some(stream);
        self.stage = Stage::Asked;
        Ok(())
    }

    fn read(&mut self, stream: StreamId) -> Result<(), Fault> {
        let mut stream = self.caller.quic.recv_stream(stream);
        let Ok(mut chunks) = stream.read(true) else { return Ok(()) };
        let mut welcome = None;
        // Blocked, finished and reset all mean: no more now.
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            welcome = self.reader.feed(&chunk.bytes)?.or(welcome);
        }
        // Whether this wants to be sent is asked for all at once, later.
        let _ = chunks.finalize();
        if let Some(id) = welcome {
            self.id = id;
            self.stage = Stage::Joined;
        }
        Ok(())
    }

    /// Sends what QUIC has to send.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn flush(&mut self, now: Instant, workspace: &mut Workspace) -> Result<(), Fault> {
        self.dirty = false;
        let segments = self.udp.max_gso_segments().min(GSO_SEGMENTS);
        loop {
            workspace.send.clear();
            let Some(transmit) = self.caller.quic.poll_transmit(now, segments, &mut workspace.send) else {
                return Ok(());
            };
            let packet = quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn.and_then(|mark| quinn_udp::EcnCodepoint::from_bits(mark as u8)),
                contents: &workspace.send[..transmit.size],
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            };
            // A full socket loses the packet as a full line would; QUIC and the tally both see it.
            self.udp.send(UdpSockRef::from(&self.socket), &packet).or_else(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Ok(()),
                _ => Err(error),
            })?;
        }
    }

    /// Says goodbye.
    pub fn close(&mut self, now: Instant) {
        self.caller.quic.close(now, VarInt::from_u32(0), Bytes::from_static(b"the measurement is over"));
        self.dirty = true;
    }
}

/// How softlan's peers behave (`rust/link/src/transport.rs`), but for congestion control: what is under way is bounded by the traffic itself, so
/// that the relay is measured and not the sender's window.
pub fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(Duration::from_millis(100))
        .keep_alive_interval(Some(Duration::from_millis(500)))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(16 << 20))
        .datagram_send_buffer_size(8 << 20)
        // Loopback carries it; a fall-back after a burst of loss would measure something else.
        .initial_mtu(MAX_UDP_PAYLOAD)
        .min_mtu(MAX_UDP_PAYLOAD)
        .mtu_discovery_config(None)
        .congestion_controller_factory(Arc::new(Unbounded));
    transport
}
