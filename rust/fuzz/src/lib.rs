//! What must hold for any input: one function a target, called by libFuzzer (`fuzz_targets/`) and by the replay of the corpus
//! (`tests/replay.rs`).
//!
//! A check panics when a promise is broken. Inputs are bytes that each module says how it reads; seeds are made by `seeds.py`.

pub mod cost;
pub mod filters;
pub mod fragments;
pub mod join;
pub mod overlay;
pub mod queue;
pub mod reassembly;
mod reference;
pub mod room;
mod rules;
pub mod source;
pub mod split;

// The egress queue, built in from rust/link without QUIC: the paths `crate::codel` and `crate::flow` in it are these.
#[allow(dead_code, missing_docs)]
#[path = "../../link/src/codel.rs"]
mod codel;
#[allow(dead_code, missing_docs)]
#[path = "../../link/src/queue.rs"]
mod egress;
#[allow(dead_code, missing_docs)]
#[path = "../../link/src/flow.rs"]
mod flow;

/// A target's name and its check.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("filters", filters::check),
    ("fragments", fragments::check),
    ("join", join::check),
    ("overlay", overlay::check),
    ("queue", queue::check),
    ("reassembly", reassembly::check),
    ("room", room::check),
    ("split", split::check),
];
