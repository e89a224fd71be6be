//! `softlan-load`: real peers that load a relay, and the bare UDP forwarder it is compared with. `benches/relay_alone.py` runs it.
//!
//! It prints one JSON object a line on stdout, a line a phase, and leaves all judging to its caller.

#[cfg(target_os = "linux")]
mod arena;
#[cfg(target_os = "linux")]
mod batch;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod forward;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(target_os = "linux")]
mod phase;
#[cfg(target_os = "linux")]
mod poll;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod swarm;
#[cfg(target_os = "linux")]
mod traffic;
#[cfg(target_os = "linux")]
mod udp;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: softlan-load measures on Linux only");
    std::process::exit(1);
}
