//! The load for the bare UDP forwarder: two sockets that send each other numbered packets through it.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::load::machine;
use crate::load::peer::{RECEIVE_BATCH, SUPER_PACKET};
use crate::load::phase::TOLERATED_LOSS;
use crate::load::poll::Poll;
use crate::load::run::Fault;
use crate::load::traffic::{Flow, Tally};

/// Packets under way each way that are tried.
const WINDOWS: [u64; 6] = [16, 32, 64, 128, 256, 512];
const TRIAL: Duration = Duration::from_millis(300);
const SOCKET_BUFFER: usize = 4 << 20;

/// A UDP socket on loopback with large buffers.
///
/// # Errors
/// What the kernel said.
pub fn socket() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Best effort: the kernel caps these.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    Ok(socket.into())
}

struct Pair {
    forwarder: SocketAddr,
    ends: [(UdpSocket, UdpSocketState); 2],
    flows: [Flow; 2],
    poll: Poll,
    packet: usize,
    send: Vec<u8>,
    receive: Vec<u8>,
}

/// Sends packets of `packet` bytes through `forwarder`, process `pid`, for `time` and says what was seen.
///
/// # Errors
/// What the kernel said, or when the forwarder does not forward.
pub fn measure(forwarder: SocketAddr, pid: u32, packet: usize, time: Duration) -> Result<Value, Fault> {
    let end = || -> io::Result<_> {
        let socket = socket()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok((socket, state))
    };
    let mut pair = Pair {
        forwarder,
        ends: [end()?, end()?],
        flows: [Flow::new(0, 1, 1), Flow::new(1, 1, 1)],
        poll: Poll::new()?,
        packet: packet.max(8),
        send: Vec::new(),
        receive: vec![0; RECEIVE_BATCH * SUPER_PACKET],
    };
    for (number, (socket, _)) in pair.ends.iter().enumerate() {
        pair.poll.add(socket, number)?;
        // What the forwarder learns the address from; too short to count.
        socket.send_to(&[0], forwarder)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut best = (WINDOWS[0], 0.0);
    for window in WINDOWS {
        pair.flows.iter_mut().for_each(|flow| flow.set_window(window));
        pair.run(TRIAL / 3)?;
        let (tally, cpu) = (pair.tally(), machine::cpu_time(pid)?);
        pair.run(TRIAL)?;
        let tally = pair.tally() - tally;
        let rate = tally.delivered as f64 / (machine::cpu_time(pid)? - cpu).as_secs_f64().max(1e-3);
        if (tally.missing as f64) < TOLERATED_LOSS / 2.0 * tally.delivered as f64 && rate > best.1 {
            best = (window, rate);
        }
    }
    pair.flows.iter_mut().for_each(|flow| flow.set_window(best.0));
    pair.run(TRIAL)?;
    let (tally, cpu, started) = (pair.tally(), machine::cpu_time(pid)?, Instant::now());
    pair.run(time)?;
    let tally = pair.tally() - tally;
    if tally.delivered == 0 {
        return Err(Fault::Protocol("the forwarder forwards nothing".into()));
    }
    Ok(json!({
        "phase": "udp",
        "frame_bytes": pair.packet,
        "window": best.0,
        "seconds": started.elapsed().as_secs_f64(),
        "delivered": tally.delivered,
        "missing": tally.missing,
        "relay_cpu_s": (machine::cpu_time(pid)? - cpu).as_secs_f64(),
    }))
}

impl Pair {
    fn tally(&self) -> Tally {
        self.flows[0].tally() + self.flows[1].tally()
    }

    fn run(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        let mut last_heard = Instant::now();
        let mut ready = Vec::new();
        while Instant::now() < until {
            for sender in 0..2 {
                self.fill(sender)?;
            }
            ready.clear();
            self.poll.wait(Duration::from_millis(1), &mut ready)?;
            for &receiver in &ready {
                self.hear(receiver)?;
            }
            if !ready.is_empty() {
                last_heard = Instant::now();
            } else if last_heard.elapsed() > Duration::from_millis(50) {
                self.flows.iter_mut().for_each(Flow::look);
                last_heard = Instant::now();
            }
        }
        Ok(())
    }

    fn fill(&mut self, sender: usize) -> io::Result<()> {
        let (socket, state) = &self.ends[sender];
        let most = (65_000 / self.packet).min(state.max_gso_segments()).max(1) as u64;
        let mut room = self.flows[sender].room();
        while room > 0 {
            let count = room.min(most);
            room -= count;
            self.send.clear();
            self.send.resize(count as usize * self.packet, 0);
            for packet in self.send.chunks_exact_mut(self.packet) {
                packet[..8].copy_from_slice(&self.flows[sender].send().to_be_bytes());
            }
            let transmit = quinn_udp::Transmit {
                destination: self.forwarder,
                ecn: None,
                contents: &self.send,
                segment_size: (count > 1).then_some(self.packet),
                src_ip: None,
            };
            // A full socket loses packets as a full line would: the tally sees it.
            state.send(UdpSockRef::from(socket), &transmit).or_else(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(())
    }

    fn hear(&mut self, receiver: usize) -> io::Result<()> {
        let (socket, state) = &self.ends[receiver];
        let mut meta = [RecvMeta::default(); RECEIVE_BATCH];
        let count = {
            let mut buffers = self.receive.chunks_exact_mut(SUPER_PACKET).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
                std::array::from_fn(|_| buffers.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            match state.recv(UdpSockRef::from(socket), &mut slices, &mut meta) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        };
        let flow = &mut self.flows[1 - receiver];
        for (meta, buffer) in meta.iter().zip(self.receive.chunks_exact(SUPER_PACKET)).take(count) {
            for packet in buffer[..meta.len].chunks(meta.stride.max(1)) {
                if let Some(number) = packet.first_chunk::<8>() {
                    flow.hear(0, u64::from_be_bytes(*number));
                }
            }
        }
        Ok(())
    }
}
