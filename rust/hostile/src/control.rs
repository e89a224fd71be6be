//! What peers may say on their control streams, as often as they may and oftener, in one piece and byte by byte.
//!
//! Each message is a `stats` of the protocol that says how much its connection has said with it. A relay shows the last one it read
//! (`reported` in its status), and so tells itself how much of an attack has arrived.

use std::error::Error;
use std::io;
use std::net::SocketAddrV4;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::peer::{Peer, Refusal, framed};

/// Bytes of a message that is sent as a whole: 20 a second are just within what a relay takes.
const WHOLE: usize = 790;
/// Bytes of one that drips.
const DRIPPED: usize = 500;
/// Refused that often, it gives up.
const ENOUGH: u64 = 100;
/// How long it stays after its last word has arrived, so that the relay can be asked what it has heard.
const LINGER: Duration = Duration::from_millis(1500);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Message by message.
    Messages,
    /// A packet for each byte.
    Drips,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "messages" => Ok(Self::Messages),
            "drips" => Ok(Self::Drips),
            _ => Err(format!("control messages do not go as {text}")),
        }
    }
}

/// One peer that talks.
struct Talker {
    peer: Peer,
    began: Instant,
    /// Messages, or bytes, over this connection.
    said: u64,
    message: Vec<u8>,
    /// Bytes of it that are said.
    at: usize,
}

impl Talker {
    /// Says more until `due` is said or the stream has no room; gives how many messages or bytes that were.
    fn go_on(&mut self, kind: Kind, due: u64) -> io::Result<u64> {
        let before = self.said;
        while self.said < due {
            if self.at == self.message.len() {
                self.message = match kind {
                    Kind::Messages => stats(self.said + 1, WHOLE),
                    Kind::Drips => stats(self.said + DRIPPED as u64, DRIPPED),
                };
                self.at = 0;
            }
            let end = if kind == Kind::Drips { self.at + 1 } else { self.message.len() };
            let written = self.peer.say(&self.message[self.at..end]);
            self.at += written;
            match kind {
                _ if written == 0 => break,
                Kind::Messages => self.said += u64::from(self.at == self.message.len()),
                Kind::Drips => {
                    self.said += 1;
                    self.peer.transmit()?;
                }
            }
        }
        Ok(self.said - before)
    }
}

/// A message of `size` bytes that says `said`.
fn stats(said: u64, size: usize) -> Vec<u8> {
    let start = format!(
        "{{\"type\": \"stats\", \"counters\": {{\"frames_received\": {said}}}, \"interval_s\": 10, \"more\": \""
    );
    framed(&format!("{start:x<width$}\"}}", width = size - 4 - 2))
}

/// Lets `peers` at once say `count` messages or bytes together, each `rate` a second, over as many connections as it takes.
pub fn flood(
    relay: SocketAddrV4,
    room: &str,
    kind: Kind,
    peers: usize,
    count: u64,
    rate: f64,
) -> Result<(), Box<dyn Error>> {
    let mut dice = Dice::new();
    let start = Instant::now();
    let mut talkers: Vec<Talker> = Vec::with_capacity(peers);
    let (mut sent, mut connections, mut refused) = (0u64, 0u64, 0u64);
    let mut last_words = String::new();
    while sent < count && refused <= ENOUGH {
        if talkers.len() < peers {
            match Peer::join(relay, room, Some(dice.mac())) {
                Ok(peer) => {
                    connections += 1;
                    let began = Instant::now();
                    talkers.push(Talker { peer, began, said: 0, message: Vec::new(), at: 0 });
                }
                Err(Refusal::Io(error)) => return Err(error.into()),
                Err(Refusal::Relay(words)) => {
                    refused += 1;
                    last_words = words;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        for talker in &mut talkers {
            let due = ((talker.began.elapsed().as_secs_f64() * rate) as u64).min(talker.said + 64);
            sent += talker.go_on(kind, due.min(talker.said + count.saturating_sub(sent)))?;
            talker.peer.drive(Duration::ZERO)?;
        }
        talkers.retain(|talker| {
            let Some(words) = talker.peer.last_words() else { return true };
            last_words = words;
            false
        });
        std::thread::sleep(Duration::from_micros(500));
    }
    let seconds = start.elapsed().as_secs_f64();
    talkers.iter_mut().for_each(|talker| talker.peer.fall_silent());
    let latest = Instant::now() + PATIENCE;
    let mut end = latest;
    while Instant::now() < end {
        for talker in &mut talkers {
            talker.peer.drive(Duration::ZERO)?;
        }
        if end == latest && talkers.iter().all(|talker| talker.peer.has_arrived() || talker.peer.is_over()) {
            end = Instant::now() + LINGER;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for talker in talkers {
        talker.peer.leave()?;
    }
    println!(
        "{{\"sent\": {sent}, \"connections\": {connections}, \"refused\": {refused}, \"seconds\": {seconds:.3}, \
         \"last_words\": {last_words:?}}}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length_and_say_how_much_was_said() {
        for (said, size) in [(1, WHOLE), (98_765_432, DRIPPED)] {
            let message = stats(said, size);
            let (length, body) = message.split_at(4);
            assert_eq!((message.len(), length), (size, &(size as u32 - 4).to_be_bytes()[..]));
            let body = std::str::from_utf8(body).expect("text");
            assert!(body.contains(&format!("\"frames_received\": {said}}}")), "{body}");
            assert!(body.starts_with('{') && body.ends_with("x\"}"), "{body}");
        }
    }
}
