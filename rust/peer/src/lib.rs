//! The joining end of one QUIC connection, without a socket, a loop or congestion control: what loads, attacks or tests a relay brings its
//! own sockets, and is to measure the relay and not its own manners. Nothing here is part of any package.

mod unbounded;
mod who;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint,
    EndpointConfig,
};

pub use unbounded::Unbounded;
pub use who::client_config;

/// One connection and the endpoint that is there for it alone.
pub struct Caller {
    /// The connection.
    pub quic: Connection,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    answer: Vec<u8>,
}

impl Caller {
    /// Begins a handshake with `relay`; nothing is sent before `quic` is asked.
    ///
    /// # Errors
    /// When the configuration, the address or the name cannot be used.
    pub fn call(
        now: Instant,
        config: ClientConfig,
        relay: SocketAddr,
        name: &str,
    ) -> Result<Self, ConnectError> {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let (handle, quic) = endpoint.connect(now, config, relay, name)?;
        Ok(Self { quic, endpoint, handle, answer: Vec::new() })
    }

    /// Takes a packet that came from `from` to `to`.
    pub fn take(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        packet: BytesMut,
    ) {
        self.answer.clear();
        // Answers of the endpoint itself are for strangers, of whom there are none.
        if let Some(DatagramEvent::ConnectionEvent(_, event)) =
            self.endpoint.handle(now, from, to, ecn, packet, &mut self.answer)
        {
            self.quic.handle_event(event);
        }
    }

    /// Tells the endpoint what the connection has for it.
    pub fn settle(&mut self) {
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(answer);
            }
        }
    }

    /// Lets a timer that is due fire; says whether one was.
    pub fn expire(&mut self, now: Instant) -> bool {
        let due = self.quic.poll_timeout().is_some_and(|at| at <= now);
        if due {
            self.quic.handle_timeout(now);
        }
        due
    }
}
