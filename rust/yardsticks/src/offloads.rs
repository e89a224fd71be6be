//! An end of the bare tunnel on softlan's own ports: super-frames from and to the machine, many datagrams a system call.
//!
//! It is softlan's data path with crypto, QUIC and queues taken out: what is left is what ports and UDP cost.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use softlan_port::{AnyPort, FrameBatch, PacketOptions, PacketSocket, Port, PortError, TapDevice};
use softlan_wire::Mac;
use tokio::io::{Interest, unix::AsyncFd};

use crate::Outcome;
use crate::relay::HELLO;
use crate::udp::{MAX_SEGMENT, MAX_SEGMENTS, MAX_SEND, RECEIVE_BUFFER, Udp, part};

/// Receives that are gathered for one write, so that segments of one flow can be joined.
const RECEIVES: usize = 8;

/// Carries frames between the port and the relay until it is ended. `port` is `tap:NAME` for a new TAP with that MAC
/// and MTU, or the name of an interface.
pub fn run(relay: SocketAddrV4, port: &str, mac: Mac, mtu: u16) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let port: AnyPort = match port.strip_prefix("tap:") {
            Some(name) => TapDevice::create(Some(name), mac, mtu)?.into_port()?.into(),
            None => PacketSocket::open(port, PacketOptions::default())?.into_port()?.into(),
        };
        let socket = Udp::connect(relay, true)?;
        // SAFETY: the socket is open and stays the same until the AsyncFd, its owner from here on, is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(io::Error::from)?;
        println!("ready");
        let greet = async {
            loop {
                socket.get_ref().send_one(HELLO, None);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            ended = outwards(&port, socket.get_ref()) => ended?,
            ended = inwards(&socket, &port) => ended?,
            () = greet => {}
        }
        Ok(())
    })
}

async fn outwards(port: &AnyPort, socket: &Udp) -> Result<(), PortError> {
    let mut batch = FrameBatch::new(0);
    loop {
        port.recv(&mut batch).await?;
        let mut parts: Vec<libc::iovec> = Vec::with_capacity(MAX_SEGMENTS);
        let (mut segment, mut bytes) = (0, 0);
        for frame in batch.frames() {
            // A datagram shorter than the others may only be the last of a send.
            let short = parts.last().is_some_and(|last| last.iov_len < segment);
            let full = parts.len() == MAX_SEGMENTS || bytes + frame.len() > MAX_SEND;
            if !parts.is_empty() && (short || full || frame.len() > segment || segment > MAX_SEGMENT) {
                socket.send(&mut parts, segment, None);
                parts.clear();
            }
            if parts.is_empty() {
                (segment, bytes) = (frame.len(), 0);
            }
            parts.push(part(frame));
            bytes += frame.len();
        }
        if !parts.is_empty() {
            socket.send(&mut parts, segment, None);
        }
        batch.clear();
        // Else a full port would keep the other direction from its turn.
        tokio::task::yield_now().await;
    }
}

async fn inwards(socket: &AsyncFd<Udp>, port: &AnyPort) -> io::Result<()> {
    let mut buffers = vec![[0_u8; RECEIVE_BUFFER]; RECEIVES];
    loop {
        let mut ready = socket.readable().await?;
        let mut came = Vec::with_capacity(RECEIVES);
        for buffer in &mut buffers {
            match socket.get_ref().recv(buffer)? {
                Some(received) => came.push(received),
                None => {
                    ready.clear_ready();
                    break;
                }
            }
        }
        let frames = came
            .iter()
            .zip(&buffers)
            .flat_map(|(received, buffer)| buffer[..received.len].chunks(received.segment.max(1)));
        port.send(frames).map_err(io::Error::other)?;
        tokio::task::yield_now().await;
    }
}
