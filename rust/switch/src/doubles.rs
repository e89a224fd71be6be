//! Notices when a gateway's LAN shows the MAC address of a client: of somebody who took a LAN station's address before that station was
//! heard, or whose own machine stands on that LAN as well.
//!
//! Once a client has an address it keeps it, and what the LAN says under it is dropped: which of the two is right cannot be known here. So it
//! is told, and people judge. Copies of what the room sent to that LAN, and refresh frames, are loops' affair and are not handed in.

use std::time::Duration;

use softlan_wire::{Mac, PeerId};

use crate::events::{EventQueue, SwitchEvent};

/// Frames until it is told: what was under way when the client came in may be one or two.
const ENOUGH: u32 = 3;
/// Frames closer together than this count once.
const APART: Duration = Duration::from_secs(1);
/// Clients remembered at once.
const DOUBLES: usize = 16;

/// A client whose address a gateway's LAN has shown.
#[derive(Clone, Copy, Debug)]
struct Double {
    peers: (PeerId, PeerId),
    evidence: u32,
    last: Duration,
    is_told: bool,
}

/// The clients of a room whose addresses a gateway's LAN shows.
#[derive(Debug)]
pub(crate) struct Doubles {
    /// A station that was not heard for so long is forgotten, here as in the address table.
    age: Duration,
    known: Vec<Double>,
}

impl Doubles {
    pub(crate) fn new(age: Duration) -> Self {
        Self { age, known: Vec::with_capacity(DOUBLES) }
    }

    /// Notes that a gateway brought a frame of its LAN's own from `mac`, which is `client`'s.
    pub(crate) fn hear(
        &mut self,
        now: Duration,
        gateway: PeerId,
        client: PeerId,
        mac: Mac,
        events: &mut EventQueue,
    ) {
        let age = self.age;
        let peers = (gateway.min(client), gateway.max(client));
        let Some(known) = self.double(now, peers) else { return };
        let silence = now.saturating_sub(known.last);
        if known.is_told {
            known.last = now;
            return;
        }
        if silence > age {
            known.evidence = 0;
        } else if known.evidence > 0 && silence < APART {
            return;
        }
        (known.evidence, known.last) = (known.evidence + 1, now);
        if known.evidence >= ENOUGH {
            known.is_told = true;
            events.push(SwitchEvent::MacConflict { peers, mac });
        }
    }

    /// What is known of a pair, something new if need be; `None` when there are too many, all of them told.
    fn double(&mut self, now: Duration, peers: (PeerId, PeerId)) -> Option<&mut Double> {
        let at = match self.known.iter().position(|known| known.peers == peers) {
            Some(at) => at,
            None => {
                if self.known.len() >= DOUBLES {
                    let untold = self.known.iter().enumerate().filter(|(_, known)| !known.is_told);
                    let (oldest, _) = untold.min_by_key(|(_, known)| known.last)?;
                    self.known.swap_remove(oldest);
                }
                self.known.push(Double { peers, evidence: 0, last: now, is_told: false });
                self.known.len() - 1
            }
        };
        self.known.get_mut(at)
    }

    /// Ends what the LAN has not shown for long enough.
    pub(crate) fn settle(&mut self, now: Duration, events: &mut EventQueue) {
        let age = self.age;
        self.end(events, |known| now.saturating_sub(known.last) > age);
    }

    /// Forgets a peer that has left.
    pub(crate) fn forget(&mut self, peer: PeerId, events: &mut EventQueue) {
        self.end(events, |known| known.peers.0 == peer || known.peers.1 == peer);
    }

    fn end(&mut self, events: &mut EventQueue, is_over: impl Fn(&Double) -> bool) {
        self.known.retain(|known| {
            let is_over = is_over(known);
            if is_over && known.is_told {
                events.push(SwitchEvent::MacSettled { peers: known.peers });
            }
            !is_over
        });
    }

    /// Whether one was told and is not over.
    pub(crate) fn is_on(&self) -> bool {
        self.known.iter().any(|known| known.is_told)
    }
}
