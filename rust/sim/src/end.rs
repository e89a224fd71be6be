//! One end of a connection: what arrives there, what the real thing makes of it, and what it is to make of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use softlan_link::cable::{Inbound, Received};
use softlan_switch::{Counters, DropReason};
use softlan_wire::{Datagram, Fragment, PeerId, decode};

use crate::books::{Stage, holds, same};
use crate::pieces::Pieces;
use crate::{Broken, Sabotage};

/// An end, with books of its own beside the counters that operators see.
#[derive(Debug)]
pub(crate) struct End {
    only_from: Option<PeerId>,
    inbound: Inbound,
    pub(crate) counters: Arc<Counters>,
    /// Datagrams: used, malformed, too late.
    arrived: Stage,
    fragments: u64,
    /// Frames that came whole,
    whole: u64,
    /// and in fragments.
    pieces: Pieces,
}

impl End {
    /// The relay's end hears one peer alone, a peer's end all others.
    pub(crate) fn new(only_from: Option<PeerId>, counters: Arc<Counters>) -> Self {
        Self {
            only_from,
            inbound: Inbound::new(only_from, counters.clone()),
            counters,
            arrived: Stage::default(),
            fragments: 0,
            whole: 0,
            pieces: Pieces::default(),
        }
    }

    /// Takes a datagram of a connection that is gone.
    pub(crate) fn come_too_late(&mut self) {
        self.arrived.entered += 1;
        self.arrived.drop_one("connection-gone");
    }

    /// Takes a datagram; gives the frame that it is, or is the last part of. `fault` is built in on purpose.
    pub(crate) fn accept(
        &mut self,
        now: Duration,
        datagram: Bytes,
        fault: Option<Sabotage>,
    ) -> Result<Option<Received>, Broken> {
        self.arrived.entered += 1;
        let before = self.inbound.reassembler().counts();
        let mut accepted = self.inbound.accept(now, datagram.clone());
        let said = decode(&datagram);
        let is_fragment = matches!(said, Ok(Datagram::Fragment(_)));
        if fault == Some(if is_fragment { Sabotage::Unfinished } else { Sabotage::Unread }) {
            accepted = accepted.map(|_| None);
        }
        self.fragments += u64::from(is_fragment);
        let said = said.ok().filter(|said| {
            let (Datagram::Frame { peer, .. } | Datagram::Fragment(Fragment { peer, .. })) = said;
            self.only_from.is_none_or(|only| only == *peer)
        });
        let (Some(said), Ok(received)) = (said, &accepted) else {
            // As the relay does, which has to know what follows.
            self.counters.add_drops(DropReason::Malformed, 1);
            self.arrived.drop_one("malformed");
            holds(said.is_none() && accepted.is_err(), || {
                format!("sound: {}, told: {:?}", said.is_some(), accepted.as_ref().err())
            })?;
            return Ok(None);
        };
        self.arrived.left += 1;
        let is_due = match said {
            Datagram::Frame { .. } => {
                self.whole += 1;
                true
            }
            Datagram::Fragment(fragment) => {
                let gave_way = self.inbound.reassembler().counts().evicted - before.evicted;
                self.pieces.take(now, &fragment, gave_way)?
            }
        };
        holds(received.is_some() == is_due, || {
            let what =
                if is_due { "nothing came, and a frame was due" } else { "a frame came before it was due" };
            format!("{what}, of {:02x?}", &datagram[..datagram.len().min(18)])
        })?;
        self.check_pieces("unfinished frames")?;
        Ok(accepted.unwrap_or_default())
    }

    /// Frames that were given up before their last fragment came.
    pub(crate) fn given_up(&self) -> u64 {
        self.pieces.frames.drops()
    }

    /// Frames that came out of it.
    pub(crate) fn frames(&self) -> u64 {
        self.whole + self.pieces.frames.left
    }

    /// Whether anything malformed has arrived.
    pub(crate) fn has_malformed(&self) -> bool {
        self.arrived.dropped.contains_key("malformed")
    }

    fn check_pieces(&self, name: &str) -> Result<(), Broken> {
        let (reassembler, told) = (self.inbound.reassembler(), self.counters.snapshot());
        let unfinished = reassembler.unfinished() as u64;
        same(name, unfinished, self.pieces.unfinished(), &self.pieces)?;
        same(
            &format!("{name}, given up"),
            told.drops_for(DropReason::Reassembly),
            self.pieces.frames.drops(),
            &self.pieces,
        )?;
        let held = reassembler.bytes_held();
        holds(unfinished <= 64 && held <= 128 * 1024, || format!("{name}: {unfinished}, {held} bytes"))
    }

    /// Closes the books of an end at which nothing arrives any more.
    pub(crate) fn close(&self, name: &str) -> Result<(), Broken> {
        let told = self.counters.snapshot();
        self.arrived.close(&format!("{name}, arrived"), 0)?;
        let used = self.arrived.entered - self.arrived.dropped.get("connection-gone").copied().unwrap_or(0);
        same(&format!("{name}, datagrams told"), told.datagrams_received, used, &told)?;
        same(&format!("{name}, fragments told"), told.fragments_received, self.fragments, &told)?;
        let unfinished = self.inbound.reassembler().unfinished() as u64;
        self.pieces.frames.close(&format!("{name}, frames in fragments"), unfinished)?;
        self.check_pieces(name)
    }
}
