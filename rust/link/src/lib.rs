//! QUIC connections as the cables of the switch.
//!
//! The crate owns everything that happens between a UDP socket and a frame: endpoint set-up ([`endpoint`], [`transport`], [`tls`]),
//! the loop that drives QUIC (`engine`), the control stream ([`connection`]), the frame-carrying half of a connection ([`cable`], [`queue`]), and the two loops that
//! move frames: the relay's ([`relay`]) and the bridge's between a port and the relay ([`bridge`]). What may join, and under what
//! limits, is decided above it.

pub mod bridge;
pub mod cable;
pub mod calm;
pub mod cam;
pub mod codel;
pub mod connection;
pub mod endpoint;
mod engine;
pub mod error;
pub mod flow;
pub mod frame_log;
pub mod plane;
pub mod queue;
pub mod relay;
mod room_events;
pub mod tls;
pub mod transport;
mod udp;

pub use bridge::{Bridge, BridgeOptions};
pub use connection::{CloseReason, Connection};
pub use endpoint::Endpoint;
pub use error::{LinkError, harmless};
pub use frame_log::{FrameLog, FrameLogMode, FrameRecord};
pub use relay::{PeerOptions, PluggedPeer, Room};
pub use tls::Trust;
pub use transport::{Congestion, TransportSettings, UdpKind};
