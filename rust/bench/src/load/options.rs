//! The command line, parsed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::load::arena::SHORTEST;
use crate::load::phase::{Kind, Phase};
use crate::load::run::Fault;

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Load a relay with peers.
    Relay {
        /// Its address.
        address: SocketAddr,
        /// Its certificate's file (DER).
        certificate: PathBuf,
        /// The name in the certificate.
        name: String,
        /// Its process.
        pid: u32,
        /// Its core.
        relay_core: usize,
        /// Our core.
        core: usize,
        /// How many peers.
        peers: usize,
        /// In how many rooms.
        rooms: usize,
        /// How long each phase is measured.
        time: Duration,
        /// What to measure, in order.
        phases: Vec<Phase>,
    },
    /// Be the bare UDP forwarder.
    Forward {
        /// On this core.
        core: usize,
        /// With GSO and GRO.
        offloads: bool,
    },
    /// Load a bare UDP forwarder.
    Udp {
        /// Its address.
        address: SocketAddr,
        /// Its process.
        pid: u32,
        /// Our core.
        core: usize,
        /// Bytes of a packet.
        packet: usize,
        /// How long to measure.
        time: Duration,
    },
}

/// How it is called.
pub const USAGE: &str = "\
softlan-load relay --address IP:PORT --certificate FILE --pid PID [--name NAME] [--relay-core N] [--core N]
                   [--peers N] [--rooms N] [--seconds S] PHASE...
    PHASE is unicast:BYTES, broadcast:BYTES (either with :FRAMES under way, found by trial if not given) or idle
softlan-load forward [--core N] [--offloads on|off]
softlan-load udp --address IP:PORT --pid PID [--core N] [--packet BYTES] [--seconds S]";

/// Options by name, taken out one by one.
struct Given(HashMap<String, String>);

impl Given {
    fn take<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Fault> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Fault::Usage(format!("--{name} cannot be {text:?}")))
    }

    fn need<T: FromStr>(&mut self, name: &str) -> Result<T, Fault> {
        self.take(name)?.ok_or_else(|| Fault::Usage(format!("--{name} is needed")))
    }

    fn time(&mut self) -> Result<Duration, Fault> {
        let seconds = self.take("seconds")?.unwrap_or(3.0);
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) if (0.05..=600.0).contains(&seconds) => Ok(time),
            _ => Err(Fault::Usage(format!("--seconds cannot be {seconds}: 0.05 to 600"))),
        }
    }
}

/// Understands `arguments`, the program's name not among them.
///
/// # Errors
/// [`Fault::Usage`].
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, Fault> {
    let mut given = Given(HashMap::new());
    let mut words = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(name) => {
                let value =
                    arguments.next().ok_or_else(|| Fault::Usage(format!("{argument} needs a value")))?;
                given.0.insert(name.to_owned(), value);
            }
            None => words.push(argument),
        }
    }
    let (command, words) = words.split_first().ok_or_else(|| Fault::Usage("no command".into()))?;
    let parsed = match command.as_str() {
        "relay" => {
            let (peers, rooms) = (given.take("peers")?.unwrap_or(2), given.take("rooms")?.unwrap_or(1));
            if rooms == 0 || peers < rooms || peers > 1 << 16 {
                return Err(Fault::Usage(format!("{peers} peers in {rooms} rooms: a peer a room at least")));
            }
            Command::Relay {
                address: given.need("address")?,
                certificate: given.need("certificate")?,
                name: given.take("name")?.unwrap_or_else(|| "lanparty-relay.local".to_owned()),
                pid: given.need("pid")?,
                relay_core: given.take("relay-core")?.unwrap_or(0),
                core: given.take("core")?.unwrap_or(1),
                peers,
                rooms,
                time: given.time()?,
                phases: words.iter().map(|word| phase(word)).collect::<Result<_, _>>()?,
            }
        }
        "forward" => Command::Forward {
            core: given.take("core")?.unwrap_or(0),
            offloads: given.take::<String>("offloads")?.is_none_or(|text| text == "on"),
        },
        "udp" => Command::Udp {
            address: given.need("address")?,
            pid: given.need("pid")?,
            core: given.take("core")?.unwrap_or(1),
            packet: given.take("packet")?.unwrap_or(1400).clamp(8, 1472),
            time: given.time()?,
        },
        other => return Err(Fault::Usage(format!("there is no command {other:?}"))),
    };
    match given.0.keys().next() {
        Some(name) => Err(Fault::Usage(format!("{command} has no option --{name}"))),
        None => Ok(parsed),
    }
}

fn phase(word: &str) -> Result<Phase, Fault> {
    let wrong = || Fault::Usage(format!("{word:?} is no phase"));
    let mut parts = word.split(':');
    let kind = match parts.next() {
        Some("unicast") => Kind::Unicast,
        Some("broadcast") => Kind::Broadcast,
        Some("idle") => return Ok(Phase { kind: Kind::Idle, frame: 0, window: None }),
        _ => return Err(wrong()),
    };
    let frame = parts.next().and_then(|text| text.parse().ok()).unwrap_or(1400);
    let window = parts.next().map(|text| text.parse().map_err(|_| wrong())).transpose()?;
    if !(SHORTEST..=1400).contains(&frame) || window == Some(0) {
        return Err(Fault::Usage(format!(
            "{word:?}: frames have {SHORTEST} to 1400 bytes, windows at least one"
        )));
    }
    Ok(Phase { kind, frame, window })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Command, Fault> {
        parse(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn phases_and_defaults() {
        let command =
            parsed("relay --address 127.0.0.1:1 --certificate c --pid 9 unicast:100:32 broadcast idle");
        let Ok(Command::Relay { phases, peers: 2, rooms: 1, .. }) = command else { panic!("{command:?}") };
        assert_eq!((phases[0].kind, phases[0].frame, phases[0].window), (Kind::Unicast, 100, Some(32)));
        assert_eq!((phases[1].kind, phases[1].frame, phases[1].window), (Kind::Broadcast, 1400, None));
        assert_eq!(phases[2].kind, Kind::Idle);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "dance",
            "forward --speed 9",
            "forward --core",
            "udp --address 127.0.0.1:1 --pid 1 --seconds 0",
            "relay --address 127.0.0.1:1 --certificate c --pid 9 unicast:9",
            "relay --address 127.0.0.1:1 --certificate c --pid 9 unicast:100:0",
            "relay --address 127.0.0.1:1 --certificate c --pid 9 --peers 2 --rooms 3",
        ] {
            assert!(matches!(parsed(text), Err(Fault::Usage(_))), "{text:?}");
        }
    }
}
