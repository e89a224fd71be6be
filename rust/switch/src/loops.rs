//! Finds and breaks loops: frames that come back because two peers are connected to each other outside the room as well.
//!
//! A player bridges the virtual adapter with the LAN the gateway stands on, or two players bridge theirs with one LAN:
//! then each broadcast comes back through the other peer, is sent on again, and goes round for ever. The room is where
//! every circle passes, so it is broken here: a frame that arrives byte by byte as another peer brought it within the last
//! second is a copy, and dropped. Some copies come back through the peer that brought the frame in the first place, where
//! nothing tells them from a game that says the same thing twice; so they are dropped, within half a second, only while
//! there is evidence that this peer is part of a circle. Where all that is known is that somebody else brought its frames
//! back, which anybody can do on purpose, a piece of evidence is good for no more copies than a circle makes of one frame.
//! And once a loop is certain, one of its two ends gets no flooded frames any more, as a bridge port that spanning tree
//! blocks: what is flooded reaches it through the other end, and the switches between the two see each station in one place.
//!
//! What is known rests on evidence that no honest network gives: two peers with the same frame, a station that two
//! peers show in turn, a refresh frame of the gateway's that somebody else brings. Memory is fixed; a frame costs
//! one hash of its bytes, and only those that are flooded, or not their sender's to send, are looked at.

use std::time::Duration;

use softlan_wire::{EthernetFrame, Mac, PeerId};

use crate::events::{EventQueue, SwitchEvent};
use crate::hash::FoldState;

/// A frame that comes from another peer within this time is a copy. Any way round takes less: relays are closer, and queues
/// drop what waits for a tenth of a second.
const ROUND: Duration = Duration::from_secs(1);
/// A frame that comes from the same peer within this time is a copy while that peer is part of a loop. Shorter, because
/// games repeat themselves.
const REPEAT: Duration = Duration::from_millis(500);
/// How long after the last evidence peers count as part of a loop.
const HOLD: Duration = Duration::from_secs(10);
/// A loop is gone when there has been no evidence for so long: half of what a silent LAN takes to show one again (CAM refresh
/// frames come every minute), so that a quiet room does not keep an alarm.
const QUIET: Duration = Duration::from_secs(30);
/// Pieces of evidence, each within [`HOLD`] of the former, until a loop is told: one frame may be an accident.
const ENOUGH: u32 = 3;
/// The same when only one of the two is known to return frames: the other may be innocent.
const ENOUGH_OF_ONE: u32 = 6;
/// Copies of one frame that come back through the peer that said it, for each peer through which one came back as well: more would take a
/// loop in the LAN between the two.
const COPIES: u32 = 2;
/// Frames remembered. They need to be known for a second; when more are flooded than that, storm control is at work.
const SIGHTINGS: usize = 1024;
/// Frames that share a place, by their hash: were it one, two that collide would make the room forget each other in turn, and both
/// go round for ever.
const BUCKET: usize = 4;
/// Suspected pairs kept at once.
const SUSPICIONS: usize = 16;

/// Where a flooded frame was seen.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    hash: u64,
    at: Duration,
    peer: PeerId,
    /// Whether it was sent on, rather than dropped as not its sender's to send.
    passed: bool,
}

/// What a frame looks like to somebody who remembers the last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is new, or a repetition like any other. When it is sent on, [`Loops::passed`] takes this number.
    New(u64),
    /// It has come back: drop it.
    Copy,
}

/// Two peers that seem to be connected outside the room.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    peers: (PeerId, PeerId),
    evidence: u32,
    last: Duration,
    /// Whether both are known to return frames.
    is_mutual: bool,
    /// Which of them has brought frames of others back, in the order of `peers`.
    returned: (bool, bool),
    /// Copies that may still be dropped of the one that has not.
    copies: u32,
    is_told: bool,
}

impl Suspicion {
    /// One without any evidence yet.
    fn new(peers: (PeerId, PeerId), now: Duration) -> Self {
        Self {
            peers,
            evidence: 0,
            last: now,
            is_mutual: false,
            returned: (false, false),
            copies: 0,
            is_told: false,
        }
    }

    fn has(&self, peer: PeerId) -> bool {
        self.peers.0 == peer || self.peers.1 == peer
    }

    /// Whether there has been no evidence for so long that it is to be forgotten.
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) >= if self.is_told { QUIET } else { HOLD }
    }

    /// Whether there is more against a peer than that another one has brought its frames back.
    fn is_certain_of(&self, peer: PeerId) -> bool {
        let (older, younger) = self.returned;
        let has_returned = older && self.peers.0 == peer || younger && self.peers.1 == peer;
        self.has(peer) && (self.is_mutual || self.is_told || has_returned)
    }
}

/// The loop finder of a room.
#[derive(Debug)]
pub(crate) struct Loops {
    hash: FoldState,
    sightings: Box<[Option<Sighting>]>,
    suspicions: Vec<Suspicion>,
    /// Who brought somebody else's frame back last: where two do, the circle goes through these two.
    returner: Option<(PeerId, Duration)>,
    gateway: Option<PeerId>,
    blocked: Vec<PeerId>,
}

impl Loops {
    pub(crate) fn new(hash: FoldState) -> Self {
        Self {
            hash,
            sightings: vec![None; SIGHTINGS].into_boxed_slice(),
            suspicions: Vec::with_capacity(SUSPICIONS),
            returner: None,
            gateway: None,
            blocked: Vec::with_capacity(SUSPICIONS),
        }
    }

    /// Looks at a flooded frame that its sender may send. `owner` is the client whose source it is. `is_idempotent`: hearing it twice
    /// says no more than once (RARP).
    #[inline]
    pub(crate) fn look(
        &mut self,
        now: Duration,
        from: PeerId,
        frame: &EthernetFrame<'_>,
        owner: Option<PeerId>,
        is_idempotent: bool,
        events: &mut EventQueue,
    ) -> Seen {
        let hash = self.hash_of(frame.bytes());
        let Some(known) = self.known(now, hash) else { return Seen::New(hash) };
        if known.peer != from {
            self.suspect_both(now, known, from, frame.source(), owner, events);
            // One that was dropped when the other peer brought it is not a copy of anything that anybody got.
            return if known.passed { Seen::Copy } else { Seen::New(hash) };
        }
        let is_repeated = known.passed && now.saturating_sub(known.at) < REPEAT;
        if is_repeated && (is_idempotent || self.is_from_loop(now, from)) {
            return Seen::Copy;
        }
        Seen::New(hash)
    }

    /// Notes that a frame of this number was sent on.
    #[inline]
    pub(crate) fn passed(&mut self, now: Duration, from: PeerId, hash: u64) {
        if let Some(place) = self.place(hash) {
            *place = Some(Sighting { hash, at: now, peer: from, passed: true });
        }
    }

    /// Looks at a broadcast or multicast whose source is not its sender's but `owner`'s, or no client's. Says whether it has come
    /// back.
    pub(crate) fn look_foreign(
        &mut self,
        now: Duration,
        from: PeerId,
        frame: &EthernetFrame<'_>,
        owner: Option<PeerId>,
        events: &mut EventQueue,
    ) -> bool {
        let hash = self.hash_of(frame.bytes());
        match self.known(now, hash) {
            Some(known) if known.peer != from => {
                self.suspect_both(now, known, from, frame.source(), owner, events);
                true
            }
            Some(_) => false,
            None => {
                // Who may not send the frame may not make the room forget another one either.
                let is_kept = |kept: Sighting| kept.passed && now.saturating_sub(kept.at) < ROUND;
                if let Some(place) = self.place(hash).filter(|place| !place.is_some_and(is_kept)) {
                    *place = Some(Sighting { hash, at: now, peer: from, passed: false });
                }
                false
            }
        }
    }

    /// A station last heard at peer `home` at `heard` has shown itself at `from`. That is evidence once for each time it
    /// goes to and fro.
    pub(crate) fn look_flapping(
        &mut self,
        now: Duration,
        from: PeerId,
        (home, heard): (PeerId, Duration),
        source: Mac,
        events: &mut EventQueue,
    ) {
        let peers = pair(home, from);
        let was_since = self.suspicions.iter().find(|known| known.peers == peers).map(|known| known.last);
        if now.saturating_sub(heard) < ROUND && was_since.is_none_or(|last| heard > last) {
            self.suspect(now, peers, source, None, events);
        }
    }

    /// A refresh frame, which a gateway sends on its LAN in the name of `owner`, has come back into the room.
    pub(crate) fn look_refresh(
        &mut self,
        now: Duration,
        from: PeerId,
        source: Mac,
        owner: PeerId,
        events: &mut EventQueue,
    ) {
        match self.gateway.filter(|gateway| *gateway != from) {
            Some(gateway) => self.suspect(now, pair(gateway, from), source, None, events),
            None => self.suspect_returner(now, owner, from, source, events),
        }
    }

    /// Takes the evidence of one frame from two peers. Whoever owns its source has only sent it, and may be innocent; so may the
    /// gateway be, if the room had the frame from it before it came back.
    #[cold]
    fn suspect_both(
        &mut self,
        now: Duration,
        first: Sighting,
        second: PeerId,
        source: Mac,
        owner: Option<PeerId>,
        events: &mut EventQueue,
    ) {
        if owner == Some(second) {
            self.suspect_returner(now, second, first.peer, source, events);
        } else if owner == Some(first.peer) || first.passed && self.gateway == Some(first.peer) {
            self.suspect_returner(now, first.peer, second, source, events);
        } else {
            self.suspect(now, pair(first.peer, second), source, None, events);
        }
    }

    /// Takes evidence that a frame of `owner`'s came back through `returner`: with another one through which frames come back, or one
    /// that is known already, the circle is closed.
    pub(crate) fn suspect_returner(
        &mut self,
        now: Duration,
        owner: PeerId,
        returner: PeerId,
        source: Mac,
        events: &mut EventQueue,
    ) {
        let former = self.returner.replace((returner, now));
        let known = self
            .suspicions
            .iter()
            .find(|known| known.is_mutual && known.has(returner) && !known.is_over(now));
        if let Some(known) = known {
            let peers = known.peers;
            self.suspect(now, peers, source, None, events);
            return;
        }
        match former {
            Some((second, at)) if second != returner && now.saturating_sub(at) < ROUND => {
                self.suspect(now, pair(second, returner), source, None, events);
            }
            _ => {
                let peers = pair(owner, returner);
                let before = self.suspicions.iter().find(|known| known.peers == peers);
                // What the gateway's LAN says comes back through one peer alone, time and again: so it is that LAN it stands on.
                let is_mutual = self.gateway == Some(owner)
                    && before.is_some_and(|known| known.evidence + 1 >= ENOUGH_OF_ONE);
                self.suspect(now, peers, source, (!is_mutual).then_some(returner), events);
            }
        }
    }

    /// Takes evidence against two peers. `returner` is the one of them through which a frame came back; `None`: frames come back through both.
    #[cold]
    pub(crate) fn suspect(
        &mut self,
        now: Duration,
        peers: (PeerId, PeerId),
        source: Mac,
        returner: Option<PeerId>,
        events: &mut EventQueue,
    ) {
        let is_mutual = returner.is_none();
        if is_mutual {
            // A circle through several peers: what one of them was seen to return goes round through the others as well.
            for known in self.suspicions.iter_mut().filter(|known| known.has(peers.0) || known.has(peers.1)) {
                known.copies = known.copies.saturating_add(COPIES);
            }
        }
        let Some(suspicion) = self.suspicion(now, peers) else { return };
        if suspicion.is_over(now) && !suspicion.is_told {
            *suspicion = Suspicion::new(peers, now);
        }
        suspicion.evidence = suspicion.evidence.saturating_add(1);
        suspicion.copies = suspicion.copies.saturating_add(COPIES);
        suspicion.returned.0 |= returner == Some(peers.0);
        suspicion.returned.1 |= returner == Some(peers.1);
        suspicion.last = now;
        if is_mutual && !suspicion.is_mutual {
            suspicion.is_mutual = true;
            if suspicion.is_told {
                // What was told of one of them holds for both: it is told anew.
                suspicion.is_told = false;
                events.push(SwitchEvent::LoopGone { peers });
            }
        }
        let enough = if suspicion.is_mutual { ENOUGH } else { ENOUGH_OF_ONE };
        if suspicion.evidence >= enough && !suspicion.is_told {
            suspicion.is_told = true;
            let is_mutual = suspicion.is_mutual;
            events.push(SwitchEvent::LoopFound { peers, source, is_mutual });
        }
        self.block();
    }

    /// Settles who gets no flooded frames: of each two that are connected outside the room one, never the gateway.
    fn block(&mut self) {
        self.blocked.clear();
        for known in self.suspicions.iter().filter(|known| known.is_told && known.is_mutual) {
            let (older, younger) = known.peers;
            // Where circles touch, the end that is blocked breaks both: nobody may lose both ends.
            if self.blocked.contains(&older) || self.blocked.contains(&younger) {
                continue;
            }
            self.blocked.push(if self.gateway == Some(younger) { older } else { younger });
        }
    }

    /// The peers that get no flooded frames: what is flooded reaches them through the other end of their loop.
    #[inline]
    pub(crate) fn blocked(&self) -> &[PeerId] {
        &self.blocked
    }

    /// Says who the gateway is now.
    pub(crate) fn set_gateway(&mut self, gateway: Option<PeerId>) {
        self.gateway = gateway;
        self.block();
    }

    /// Forgets what has been quiet for long enough.
    pub(crate) fn settle(&mut self, now: Duration, events: &mut EventQueue) {
        self.suspicions.retain(|known| {
            let is_over = known.is_over(now);
            if is_over && known.is_told {
                events.push(SwitchEvent::LoopGone { peers: known.peers });
            }
            !is_over
        });
        self.block();
    }

    /// Forgets a peer that has left: its id may be given to another, and its next connection may say again what it has just said.
    pub(crate) fn forget(&mut self, peer: PeerId, events: &mut EventQueue) {
        for sighting in &mut self.sightings {
            if sighting.is_some_and(|sighting| sighting.peer == peer) {
                *sighting = None;
            }
        }
        if self.returner.is_some_and(|(returner, _)| returner == peer) {
            self.returner = None;
        }
        self.suspicions.retain(|known| {
            if known.has(peer) && known.is_told {
                events.push(SwitchEvent::LoopGone { peers: known.peers });
            }
            !known.has(peer)
        });
        self.block();
    }

    /// Whether a loop was told and is not gone.
    pub(crate) fn is_on(&self) -> bool {
        self.suspicions.iter().any(|known| known.is_told)
    }

    /// Whether a loop through these two was told and is not gone.
    pub(crate) fn is_told(&self, one: PeerId, other: PeerId) -> bool {
        self.suspicions.iter().any(|known| known.is_told && known.peers == pair(one, other))
    }

    /// Whether what a peer says again has gone round: on the first evidence, since one frame that goes round unnoticed is as bad as many.
    fn is_from_loop(&mut self, now: Duration, peer: PeerId) -> bool {
        let fresh = |known: &&mut Suspicion| known.has(peer) && now.saturating_sub(known.last) < HOLD;
        if self.suspicions.iter_mut().filter(fresh).any(|known| known.is_certain_of(peer)) {
            return true;
        }
        match self.suspicions.iter_mut().filter(fresh).find(|known| known.copies > 0) {
            Some(known) => {
                known.copies -= 1;
                true
            }
            None => false,
        }
    }

    /// The suspicion of a pair, a new one if need be; `None` when there are too many, all of them told.
    fn suspicion(&mut self, now: Duration, peers: (PeerId, PeerId)) -> Option<&mut Suspicion> {
        let at = match self.suspicions.iter().position(|known| known.peers == peers) {
            Some(at) => at,
            None => {
                if self.suspicions.len() >= SUSPICIONS {
                    let untold = self.suspicions.iter().enumerate().filter(|(_, known)| !known.is_told);
                    let (oldest, _) = untold.min_by_key(|(_, known)| known.last)?;
                    self.suspicions.swap_remove(oldest);
                }
                self.suspicions.push(Suspicion::new(peers, now));
                self.suspicions.len() - 1
            }
        };
        self.suspicions.get_mut(at)
    }

    /// The number of a frame: the same for copies, whose padding to 60 bytes by an Ethernet on the way does not count.
    #[inline]
    fn hash_of(&self, frame: &[u8]) -> u64 {
        let len = frame.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.hash.digest(&frame[..len])
    }

    #[inline]
    fn known(&mut self, now: Duration, hash: u64) -> Option<Sighting> {
        let is_it = |seen: &&Sighting| seen.hash == hash && now.saturating_sub(seen.at) < ROUND;
        self.bucket(hash).iter().flatten().find(is_it).copied()
    }

    /// Where a sighting of this number goes: in place of a former one, or of the oldest of its bucket.
    #[inline]
    fn place(&mut self, hash: u64) -> Option<&mut Option<Sighting>> {
        self.bucket(hash).iter_mut().min_by_key(|kept| match kept {
            Some(kept) if kept.hash == hash => (false, Duration::ZERO),
            Some(kept) => (true, kept.at),
            None => (true, Duration::ZERO),
        })
    }

    #[inline]
    fn bucket(&mut self, hash: u64) -> &mut [Option<Sighting>] {
        let first = hash as usize % (SIGHTINGS / BUCKET) * BUCKET;
        &mut self.sightings[first..first + BUCKET]
    }
}

fn pair(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    (a.min(b), a.max(b))
}
