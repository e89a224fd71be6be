//! One room's forwarding as a pure machine: who may send what, and who gets it.
//!
//! In go the time, the sender and a frame; out come a verdict and the receivers ([`Switch::forward`]). The crate opens no
//! socket, reads no clock and takes no lock: time is a [`std::time::Duration`] since any start the caller likes, and a
//! room's switch belongs to one thread at a time. Only the [`Counters`] are shared. The order in which a frame is judged
//! and the names of the reasons are those of `docs/protocol.md`.
#![forbid(unsafe_code)]

mod claims;
mod conflicts;
pub mod counters;
mod doubles;
pub mod events;
pub mod filters;
mod hash;
mod inspect;
pub mod limits;
mod loops;
mod nd;
mod storm;
pub mod switch;
pub mod table;

/// For fuzzing, which holds it against a reader of its own.
#[doc(hidden)]
pub use claims::judge as judge_claims;
pub use counters::{Counters, CountersSnapshot, DropReason};
pub use events::{Subject, SwitchEvent};
pub use filters::{Filters, judge};
pub use limits::{Limits, Rate, TokenBucket};
pub use switch::{FloodKind, PlugError, Role, Settings, Switch, Verdict};
pub use table::MacTable;
