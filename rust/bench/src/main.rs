//! `softlan-load`: real peers that load a relay, and the bare UDP forwarder it is compared with. `benches/relay_alone.py` runs it.
//!
//! It prints one JSON object a line on stdout, a line a phase, and leaves all judging to its caller.

#[cfg(target_os = "linux")]
mod load;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    load::run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: softlan-load measures on Linux only");
    std::process::exit(1);
}
