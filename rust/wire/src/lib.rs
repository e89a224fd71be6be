//! Bytes to types and back: MAC addresses, Ethernet headers, ECN marks, the overlay header, fragments and the size budget.
//!
//! This crate is pure: it does no I/O, reads no clock and holds no `unsafe`. What the bytes mean on the
//! tunnel is written down in `docs/protocol.md`; what is done with a frame is up to `softlan-switch` and
//! `softlan-link`.
#![forbid(unsafe_code)]

pub mod budget;
pub mod ecn;
pub mod ethernet;
pub mod fragment;
pub mod loopback;
pub mod mac;
pub mod overlay;
pub mod reassembly;

pub use budget::{
    MAX_TAP_MTU, MIN_DATAGRAM_BUDGET, MIN_TAP_MTU, datagram_for_tap_mtu, fragment_capacity, room_tap_mtu,
    tap_mtu_for_datagram, whole_frame_capacity,
};
pub use ecn::{Ecn, ecn, mark_ce};
pub use ethernet::{EtherType, EthernetFrame, Runt, Tag, Tags};
pub use fragment::{FragmentError, FragmentParts, Fragments, fragments};
pub use loopback::{is_loopback_message, turn_into_reply};
pub use mac::{IdentityError, Mac, MacError};
pub use overlay::{
    Datagram, FRAGMENT_HEADER_LEN, Fragment, HEADER_LEN, MAX_FRAGMENTS, MAX_FRAME_LEN, PeerId, VERSION,
    WireError, decode, write_header,
};
pub use reassembly::{Reassembler, ReassemblyCounts, ReassemblyError, ReassemblyLimits};
