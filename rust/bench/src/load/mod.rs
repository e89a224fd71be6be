//! The peers, their traffic, and what is measured of it.

mod arena;
mod batch;
mod control;
mod forward;
mod machine;
mod options;
mod peer;
mod phase;
mod poll;
pub mod run;
mod swarm;
mod traffic;
mod udp;
