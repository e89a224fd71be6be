//! Where Ethernet frames enter and leave a machine.
//!
//! A [`Port`] is one end of a cable: a virtual adapter (`TapPort`, `WindowsTapPort`), an interface of a real LAN ([`PacketPort`]) or a
//! pair of channels ([`MemoryPort`]). The crate hides what the kernel does for speed: super-frames of up to 64 KiB are
//! split into the frames they stand for on the way in and made again on the way out ([`offload`]), partial checksums
//! are finished, VLAN tags put back. It decides nothing about frames: that is the switch's business.

mod counters;
mod error;
mod frame_batch;
#[cfg(target_os = "linux")]
mod interface;
mod memory;
pub mod offload;
#[cfg(target_os = "linux")]
mod packet;
mod port;
#[cfg(target_os = "linux")]
mod tap;
#[cfg(windows)]
mod tap_windows;
// Pure: tested wherever the tests run.
#[cfg(all(test, not(windows)))]
#[path = "tap_windows/sleep.rs"]
mod tap_windows_sleep;

pub use counters::{PortCounters, PortCountersSnapshot};
pub use error::PortError;
pub use frame_batch::FrameBatch;
#[cfg(target_os = "linux")]
pub use interface::{Interface, InterfaceFacts};
pub use memory::{MemoryPort, MemoryWire};
#[cfg(target_os = "linux")]
pub use packet::{PacketOptions, PacketPort, PacketSocket};
pub use port::{AnyPort, Port, SendOutcome};
#[cfg(target_os = "linux")]
pub use tap::{TapDevice, TapOffloads, TapPort};
#[cfg(windows)]
pub use tap_windows::{MAX_WRITE, WindowsTap, WindowsTapOptions, WindowsTapPort};

/// The longest frame a port takes or gives, in bytes, header included and without FCS (the overlay's own limit).
pub const MAX_FRAME_LEN: usize = 9216;

/// The shortest frame a port takes or gives: an Ethernet header, in bytes.
pub const MIN_FRAME_LEN: usize = 14;
