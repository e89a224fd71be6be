//! The seam between the tunnel and a machine: what every kind of port can do.

use std::future::Future;

use softlan_wire::Mac;
use tokio::sync::watch;

#[cfg(windows)]
use crate::WindowsTapPort;
use crate::{FrameBatch, MemoryPort, PortCountersSnapshot, PortError};
#[cfg(target_os = "linux")]
use crate::{PacketPort, TapPort};

/// What became of the frames given to [`Port::send`]; the sum is their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOutcome {
    /// Frames the machine took.
    pub accepted: usize,
    /// Frames refused because the machine's queue is full.
    pub refused: usize,
    /// Frames the machine cannot take: too long for the interface, too short, interface down.
    pub failed: usize,
}

impl SendOutcome {
    /// All frames the outcome speaks of.
    pub fn total(&self) -> usize {
        self.accepted + self.refused + self.failed
    }
}

/// Where frames enter and leave a machine.
///
/// Frames are Ethernet frames of [`MIN_FRAME_LEN`](crate::MIN_FRAME_LEN) to [`MAX_FRAME_LEN`](crate::MAX_FRAME_LEN)
/// bytes, without FCS, checksums complete. One task receives and one sends; more are safe and gain nothing.
pub trait Port: Send + Sync + 'static {
    /// Waits until frames are there and appends one or more to `batch`, at most a few hundred kilobytes a call.
    /// Nothing is lost when the future is dropped before it is ready.
    ///
    /// # Errors
    /// Only when no more frames can come: the interface is gone, the other end closed. An interface that is down is
    /// waited for.
    fn recv(&self, batch: &mut FrameBatch) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Hands frames to the machine, in order, without blocking. Frames that follow each other in one TCP stream cost
    /// less when they are given in one call, one after the other.
    ///
    /// # Errors
    /// Only when no frame can be sent any more; what happened to single frames is in the outcome.
    fn send<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<SendOutcome, PortError>;

    /// A few words for logs: `tap softlan0`.
    fn description(&self) -> String;

    /// The port's counters now.
    fn counters(&self) -> PortCountersSnapshot;

    /// The address that this machine itself has on the port's LAN now; `None` for a port that is no interface of a LAN.
    fn address(&self) -> Option<Mac> {
        None
    }

    /// Whether the port is up, and word of each change; `None` for a port that is always up.
    fn up(&self) -> Option<watch::Receiver<bool>> {
        None
    }
}

/// A port of any kind this system offers.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyPort {
    /// A virtual adapter of this machine.
    #[cfg(target_os = "linux")]
    Tap(TapPort),
    /// An existing interface, seen through AF_PACKET.
    #[cfg(target_os = "linux")]
    Packet(PacketPort),
    /// A TAP-Windows6 adapter of this machine.
    #[cfg(windows)]
    WindowsTap(WindowsTapPort),
    /// Channels inside this process.
    Memory(MemoryPort),
}

macro_rules! each {
    ($self:ident, $port:ident => $call:expr) => {
        match $self {
            #[cfg(target_os = "linux")]
            AnyPort::Tap($port) => $call,
            #[cfg(target_os = "linux")]
            AnyPort::Packet($port) => $call,
            #[cfg(windows)]
            AnyPort::WindowsTap($port) => $call,
            AnyPort::Memory($port) => $call,
        }
    };
}

impl Port for AnyPort {
    async fn recv(&self, batch: &mut FrameBatch) -> Result<(), PortError> {
        each!(self, port => port.recv(batch).await)
    }

    fn send<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<SendOutcome, PortError> {
        each!(self, port => port.send(frames))
    }

    fn description(&self) -> String {
        each!(self, port => port.description())
    }

    fn counters(&self) -> PortCountersSnapshot {
        each!(self, port => port.counters())
    }

    fn address(&self) -> Option<Mac> {
        each!(self, port => port.address())
    }

    fn up(&self) -> Option<watch::Receiver<bool>> {
        each!(self, port => port.up())
    }
}

#[cfg(target_os = "linux")]
impl From<TapPort> for AnyPort {
    fn from(port: TapPort) -> Self {
        Self::Tap(port)
    }
}

#[cfg(target_os = "linux")]
impl From<PacketPort> for AnyPort {
    fn from(port: PacketPort) -> Self {
        Self::Packet(port)
    }
}

#[cfg(windows)]
impl From<WindowsTapPort> for AnyPort {
    fn from(port: WindowsTapPort) -> Self {
        Self::WindowsTap(port)
    }
}

impl From<MemoryPort> for AnyPort {
    fn from(port: MemoryPort) -> Self {
        Self::Memory(port)
    }
}
