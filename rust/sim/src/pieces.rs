//! What an end is to make of fragments: the rules of `docs/protocol.md` read a second time, without care for memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use softlan_wire::{Fragment, MAX_FRAME_LEN, PeerId};

use crate::Broken;
use crate::books::{Stage, holds};

/// How long after its first fragment a frame is given up.
const TIMEOUT: Duration = Duration::from_millis(500);
/// So many unfinished frames have room whatever their size: 128 KiB of the largest. Of fewer, none has to give way.
const ROOM: usize = 128 * 1024 / MAX_FRAME_LEN;

/// The frames being put together at one end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// Oldest first.
    open: VecDeque<Open>,
    /// Frames: begun, finished, given up.
    pub(crate) frames: Stage,
}

#[derive(Debug)]
struct Open {
    peer: PeerId,
    frame_id: u32,
    since: Duration,
    last: u8,
    /// Bytes of each part that is there.
    parts: BTreeMap<u8, usize>,
}

impl Pieces {
    /// How many frames are unfinished.
    pub(crate) fn unfinished(&self) -> u64 {
        self.open.len() as u64
    }

    /// Takes note of a fragment, before which the end says that so many of the oldest frames gave way. Tells whether it finishes its frame.
    pub(crate) fn take(
        &mut self,
        now: Duration,
        fragment: &Fragment<'_>,
        gave_way: u64,
    ) -> Result<bool, Broken> {
        while self.open.front().is_some_and(|oldest| now - oldest.since > TIMEOUT) {
            self.open.pop_front();
            self.frames.drop_one("expired");
        }
        let Fragment { peer, frame_id, last, .. } = *fragment;
        let is_this = |frame: &Open| frame.peer == peer && frame.frame_id == frame_id;
        if !self.open.iter().any(is_this) {
            self.frames.entered += 1;
            self.open.push_back(Open { peer, frame_id, since: now, last, parts: BTreeMap::new() });
        }
        holds(gave_way == 0 || self.open.len() > ROOM, || {
            format!("{gave_way} frames gave way for no more than {}", self.open.len())
        })?;
        for _ in 0..gave_way {
            let oldest = self.open.iter().position(|frame| !is_this(frame));
            oldest.and_then(|at| self.open.remove(at));
            self.frames.drop_one("evicted");
        }
        let Some(at) = self.open.iter().position(is_this) else { return Ok(false) };
        let frame = &mut self.open[at];
        if let Some(reason) = frame.add(fragment) {
            self.open.remove(at);
            self.frames.drop_one(reason);
            return Ok(false);
        }
        let is_finished = frame.parts.len() == usize::from(last) + 1;
        if is_finished {
            self.open.remove(at);
            self.frames.left += 1;
        }
        Ok(is_finished)
    }
}

impl Open {
    /// Adds a part; the reason if that ends the frame.
    fn add(&mut self, fragment: &Fragment<'_>) -> Option<&'static str> {
        let (last, len) = (self.last, fragment.part.len());
        let before = self.parts.insert(fragment.index, len);
        let tail = self.parts.get(&last).copied();
        let mut others = self.parts.range(..last).map(|(_, len)| *len);
        let each = others.next();
        let is_uneven = others.any(|len| Some(len) != each) || each.is_some_and(|each| tail > Some(each));
        if fragment.last != last || before.is_some_and(|before| before != len) || is_uneven {
            return Some("contradicted");
        }
        // A last part is no longer than any other, and has one byte at least.
        let least = each.or(tail).unwrap_or(0) * usize::from(last) + tail.unwrap_or(1);
        (least > MAX_FRAME_LEN).then_some("too-long")
    }
}
