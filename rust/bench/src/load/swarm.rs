//! All peers of a measurement on one thread: who can be read, who must send, whose timer is due.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use softlan_peer::client_config;

use crate::load::peer::{Peer, Workspace, transport};
use crate::load::poll::Poll;
use crate::load::run::Fault;
use crate::load::traffic::room_of;

/// How many handshakes may be under way.
const AT_ONCE: usize = 16;
/// How long all peers together may take to join, for each of them and in any case.
const JOIN_EACH: Duration = Duration::from_millis(100);
const JOIN_LEAST: Duration = Duration::from_secs(20);
/// How often timers are looked at; what QUIC waits for here is coarser.
const TICK: Duration = Duration::from_millis(1);

/// Where the relay is and how to know it.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Its address.
    pub address: SocketAddr,
    /// Its certificate (DER).
    pub certificate: Vec<u8>,
    /// The name in it.
    pub name: String,
}

/// Peers, their sockets and their buffers.
pub struct Swarm {
    /// The peers, by index.
    pub peers: Vec<Peer>,
    poll: Poll,
    workspace: Workspace,
    ready: Vec<usize>,
    next_tick: Instant,
}

impl Swarm {
    /// Connects `peers` peers in `rooms` rooms and waits for the last welcome.
    ///
    /// # Errors
    /// When one of them is refused or lost, or it takes too long.
    pub fn join(relay: &Relay, peers: usize, rooms: usize) -> Result<Self, Fault> {
        let config = client_config(Some(&relay.certificate), transport()).map_err(Fault::Protocol)?;
        let mut swarm = Self {
            peers: Vec::with_capacity(peers),
            poll: Poll::new()?,
            workspace: Workspace::default(),
            ready: Vec::new(),
            next_tick: Instant::now(),
        };
        let deadline = Instant::now() + JOIN_LEAST.max(JOIN_EACH * peers as u32);
        loop {
            let joined = swarm.peers.iter().filter(|peer| peer.joined()).count();
            if joined == peers {
                return Ok(swarm);
            }
            if Instant::now() > deadline {
                return Err(Fault::Protocol(format!("only {joined} of {peers} peers joined in time")));
            }
            while swarm.peers.len() < peers && swarm.peers.len() - joined < AT_ONCE {
                let number = swarm.peers.len();
                let room = format!("LOAD{}", room_of(number, peers, rooms));
                let mac = [2, 0, 0x5e, (number >> 16) as u8, (number >> 8) as u8, number as u8];
                let peer = Peer::new(Instant::now(), relay.address, config.clone(), &relay.name, room, mac)?;
                swarm.poll.add(peer.socket(), number)?;
                swarm.peers.push(peer);
            }
            swarm.turn(TICK, &mut |_, _| ())?;
        }
    }

    /// Sends what is to be sent, waits at most `limit` for something to arrive, and hands each datagram with its receiver's index to `frames`.
    ///
    /// # Errors
    /// When a peer lost its connection.
    pub fn turn(&mut self, limit: Duration, frames: &mut impl FnMut(usize, &[u8])) -> Result<(), Fault> {
        self.flush()?;
        self.ready.clear();
        self.poll.wait(limit, &mut self.ready)?;
        let now = Instant::now();
        for &number in &self.ready {
            if let Some(peer) = self.peers.get_mut(number) {
                peer.receive(now, &mut self.workspace, &mut |datagram| frames(number, datagram))?;
            }
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            for (number, peer) in self.peers.iter_mut().enumerate() {
                peer.tick(now, &mut |datagram| frames(number, datagram))?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let now = Instant::now();
        for peer in self.peers.iter_mut().filter(|peer| peer.dirty) {
            peer.flush(now, &mut self.workspace)?;
        }
        Ok(())
    }

    /// Closes all connections.
    pub fn leave(mut self) {
        let now = Instant::now();
        for peer in &mut self.peers {
            peer.close(now);
        }
        // The relay notices by itself where a goodbye gets lost.
        let _ = self.flush();
    }
}
