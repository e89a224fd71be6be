//! From the command line to the measurement.

use std::process::ExitCode;

use serde_json::json;

use crate::load::machine;
use crate::load::options::{self, Command, USAGE};
use crate::load::phase::{Watched, measure};
use crate::load::swarm::{Relay, Swarm};
use crate::load::{forward, udp};

/// Why nothing can be measured.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The relay, or what should be one, does not behave.
    #[error("{0}")]
    Protocol(String),
    /// The relay said no.
    #[error("the relay refuses: {0}")]
    Refused(String),
    /// A connection ended.
    #[error("a connection was lost: {0}")]
    Lost(String),
}

/// The program.
pub fn main() -> ExitCode {
    match options::parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {fault}");
            if matches!(fault, Fault::Usage(_)) {
                eprintln!("{USAGE}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Fault> {
    match command {
        Command::Forward { core, offloads } => forward::forward(core, offloads),
        Command::Udp { address, pid, core, packet, time } => {
            machine::pin(core)?;
            println!("{}", udp::measure(address, pid, packet, time)?);
            Ok(())
        }
        Command::Relay { address, certificate, name, pid, relay_core, core, peers, rooms, time, phases } => {
            machine::pin(core)?;
            let relay = Relay { address, certificate: std::fs::read(certificate)?, name };
            let before = machine::resident(pid)?;
            let mut swarm = Swarm::join(&relay, peers, rooms)?;
            println!(
                "{}",
                json!({ "phase": "joined", "peers": peers, "rooms": rooms, "resident_before_bytes": before })
            );
            let watched = Watched { pid, core: relay_core, time, rooms };
            for phase in phases {
                println!("{}", measure(&mut swarm, phase, &watched)?);
            }
            swarm.leave();
            Ok(())
        }
    }
}
