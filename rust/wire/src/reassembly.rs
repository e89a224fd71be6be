//! Puts fragments together again, in any order, within strict bounds of number, memory and time.
//!
//! What is sent to a peer is chosen by others, so nothing here grows with the input: the frames being put together are
//! bounded in number and in bytes, and each in time; the oldest gives way.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::overlay::{Fragment, MAX_FRAME_LEN, PeerId};

/// The bounds of a [`Reassembler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Unfinished frames kept at once, at least 1. They are searched one by one: keep it in the tens.
    pub frames: usize,
    /// Bytes of buffers kept for unfinished frames.
    pub bytes: usize,
    /// How long after its first fragment an unfinished frame is dropped.
    pub timeout: Duration,
    /// Bytes of the largest frame.
    pub max_frame: usize,
}

impl Default for ReassemblyLimits {
    /// 64 frames, 128 KiB (64 full-size LAN frames and some), 500 ms, [`MAX_FRAME_LEN`].
    fn default() -> Self {
        Self { frames: 64, bytes: 128 * 1024, timeout: Duration::from_millis(500), max_frame: MAX_FRAME_LEN }
    }
}

/// Why a fragment's frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReassemblyError {
    /// The fragment has another number of siblings, or another size, than its siblings say.
    #[error("fragments of one frame contradict each other")]
    Contradiction,
    /// The frame would be longer than the limits allow.
    #[error("the fragments make a frame longer than allowed")]
    TooLong,
}

/// How many frames were dropped unfinished, since the reassembler was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyCounts {
    /// Frames whose time ran out.
    pub expired: u64,
    /// Frames that gave way to newer ones.
    pub evicted: u64,
    /// Frames whose fragments contradicted each other.
    pub contradicted: u64,
    /// Frames longer than allowed.
    pub too_long: u64,
    /// Fragments (not frames) that were there already.
    pub duplicates: u64,
}

impl ReassemblyCounts {
    /// All frames dropped; duplicates are not frames.
    pub const fn frames_dropped(&self) -> u64 {
        self.expired + self.evicted + self.contradicted + self.too_long
    }
}

/// Frames being put together, of one connection.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    /// Oldest first. Few, and the one wanted is nearly always the newest: a search from the back beats a hash, and
    /// nobody can choose keys that make it slow.
    unfinished: VecDeque<Unfinished>,
    /// Sum of the unfinished frames' buffers, in bytes.
    bytes: usize,
    counts: ReassemblyCounts,
}

#[derive(Debug)]
struct Unfinished {
    peer: PeerId,
    frame_id: u32,
    since: Duration,
    last: u8,
    /// Bit `i` is set when fragment `i` is there.
    received: u16,
    /// Bytes of every fragment but the last; 0 while only the last is there.
    part_len: usize,
    /// Bytes of the last fragment; 0 while it is not there.
    tail_len: usize,
    /// The frame as far as it is there; only the last fragment while `part_len` is not known.
    buffer: Vec<u8>,
}

impl Reassembler {
    /// A reassembler with nothing in it.
    pub fn new(limits: ReassemblyLimits) -> Self {
        let limits = ReassemblyLimits { frames: limits.frames.max(1), ..limits };
        Self { limits, unfinished: VecDeque::new(), bytes: 0, counts: ReassemblyCounts::default() }
    }

    /// Takes a fragment in; gives the frame if it was the one missing.
    ///
    /// `now` counts from any fixed start and does not go back. Frames whose time ran out are dropped first.
    ///
    /// # Errors
    /// The fragment's frame was dropped with everything of it that was here, and counted.
    pub fn push(&mut self, now: Duration, fragment: Fragment<'_>) -> Result<Option<Bytes>, ReassemblyError> {
        self.expire(now);
        let found = self
            .unfinished
            .iter()
            .rposition(|frame| frame.frame_id == fragment.frame_id && frame.peer == fragment.peer);
        let outcome = match found {
            None => self.begin(now, fragment).map(|()| None),
            Some(at) => self.join(at, fragment),
        };
        match outcome {
            Err(ReassemblyError::Contradiction) => self.counts.contradicted += 1,
            Err(ReassemblyError::TooLong) => self.counts.too_long += 1,
            Ok(_) => {}
        }
        outcome
    }

    /// Drops the frames whose time ran out; says how many.
    pub fn expire(&mut self, now: Duration) -> usize {
        let mut expired = 0;
        while self
            .unfinished
            .front()
            .is_some_and(|oldest| now.saturating_sub(oldest.since) > self.limits.timeout)
        {
            self.remove(0);
            expired += 1;
        }
        self.counts.expired += expired as u64;
        expired
    }

    /// Drops, uncounted, what is there of a peer's frames: its id may be given to another. Says how many.
    pub fn forget(&mut self, peer: PeerId) -> usize {
        let before = self.unfinished.len();
        self.unfinished.retain(|frame| frame.peer != peer);
        self.bytes = self.unfinished.iter().map(|frame| frame.buffer.len()).sum();
        before - self.unfinished.len()
    }

    /// What was dropped so far.
    pub const fn counts(&self) -> ReassemblyCounts {
        self.counts
    }

    /// How many frames are unfinished.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// Bytes of buffers held for unfinished frames; never above the limit.
    pub const fn bytes_held(&self) -> usize {
        self.bytes
    }

    /// Starts a frame with the first of its fragments to come.
    fn begin(&mut self, now: Duration, fragment: Fragment<'_>) -> Result<(), ReassemblyError> {
        let Fragment { peer, index, last, frame_id, part } = fragment;
        // The type allows what the wire does not: such a fragment could never be part of a frame.
        if last == 0 || last > 15 || index > last || part.is_empty() {
            return Err(ReassemblyError::Contradiction);
        }
        let is_tail = index == last;
        let part_len = if is_tail { 0 } else { part.len() };
        let len =
            if is_tail { self.tail_alone(last, part.len())? } else { self.buffer_len(last, part.len())? };
        while self.unfinished.len() >= self.limits.frames || self.bytes + len > self.limits.bytes {
            self.evict(0);
        }
        let mut frame = Unfinished {
            peer,
            frame_id,
            since: now,
            last,
            received: 1 << index,
            part_len,
            tail_len: if is_tail { part.len() } else { 0 },
            buffer: vec![0; len],
        };
        let start = part_len * usize::from(index);
        frame.buffer[start..start + part.len()].copy_from_slice(part);
        self.bytes += len;
        self.unfinished.push_back(frame);
        Ok(())
    }

    /// Adds a fragment to the frame at `at`.
    fn join(&mut self, mut at: usize, fragment: Fragment<'_>) -> Result<Option<Bytes>, ReassemblyError> {
        let Fragment { index, last, part, .. } = fragment;
        let frame = &self.unfinished[at];
        if !frame.agrees_with(&fragment) {
            self.remove(at);
            return Err(ReassemblyError::Contradiction);
        }
        if frame.received & 1 << index != 0 {
            self.counts.duplicates += 1;
            return Ok(None);
        }
        if index == last {
            if frame.part_len * usize::from(last) + part.len() > frame.buffer.len() {
                // The buffer has room for `last + 1` equal parts unless `max_frame` cut it short.
                self.remove(at);
                return Err(ReassemblyError::TooLong);
            }
        } else if frame.part_len == 0 {
            at = self.make_room_before_tail(at, part.len())?;
        }
        let frame = &mut self.unfinished[at];
        let start = frame.part_len * usize::from(index);
        frame.buffer[start..start + part.len()].copy_from_slice(part);
        frame.received |= 1 << index;
        if index == last {
            frame.tail_len = part.len();
        }
        if !frame.is_complete() {
            return Ok(None);
        }
        let Some(frame) = self.remove(at) else { return Ok(None) };
        let len = frame.len();
        let mut buffer = frame.buffer;
        buffer.truncate(len);
        Ok(Some(buffer.into()))
    }

    /// Gives the frame at `at`, of which only the last fragment is there, its full buffer now that the size of the others
    /// is known. Says where the frame stands afterwards, for older ones may have given way.
    fn make_room_before_tail(&mut self, mut at: usize, part_len: usize) -> Result<usize, ReassemblyError> {
        let frame = &self.unfinished[at];
        let (last, tail_len) = (frame.last, frame.tail_len);
        let start = part_len * usize::from(last);
        let len = start + tail_len;
        if len > self.limits.max_frame || len > self.limits.bytes {
            self.remove(at);
            return Err(ReassemblyError::TooLong);
        }
        let grow = len - tail_len;
        while self.bytes + grow > self.limits.bytes {
            // This frame fits the limit alone, so there is another one as long as it does not.
            let oldest = usize::from(at == 0);
            self.evict(oldest);
            at -= usize::from(oldest < at);
        }
        let frame = &mut self.unfinished[at];
        let mut buffer = vec![0; len];
        buffer[start..].copy_from_slice(&frame.buffer);
        frame.buffer = buffer;
        frame.part_len = part_len;
        self.bytes += grow;
        Ok(at)
    }

    /// Bytes of the buffer for `last + 1` parts of which none is longer than `part_len`.
    fn buffer_len(&self, last: u8, part_len: usize) -> Result<usize, ReassemblyError> {
        let most = self.limits.max_frame.min(self.limits.bytes);
        let before_tail = part_len * usize::from(last);
        // The last part has one byte at least.
        if before_tail + 1 > most {
            Err(ReassemblyError::TooLong)
        } else {
            Ok((before_tail + part_len).min(most))
        }
    }

    /// Bytes of the buffer for a last part that came before the others, which are no shorter.
    fn tail_alone(&self, last: u8, tail_len: usize) -> Result<usize, ReassemblyError> {
        let least = tail_len * (usize::from(last) + 1);
        if least > self.limits.max_frame.min(self.limits.bytes) {
            Err(ReassemblyError::TooLong)
        } else {
            Ok(tail_len)
        }
    }

    fn evict(&mut self, at: usize) {
        self.remove(at);
        self.counts.evicted += 1;
    }

    fn remove(&mut self, at: usize) -> Option<Unfinished> {
        let frame = self.unfinished.remove(at)?;
        self.bytes -= frame.buffer.len();
        Some(frame)
    }
}

impl Unfinished {
    /// Whether a fragment can belong to this frame, by the rules of sizes in `docs/protocol.md`.
    fn agrees_with(&self, fragment: &Fragment<'_>) -> bool {
        let len = fragment.part.len();
        let sizes_agree = if fragment.index == fragment.last {
            // The last is not longer than the others, and a second copy of it not different from the first.
            (self.part_len == 0 || len <= self.part_len) && (self.tail_len == 0 || len == self.tail_len)
        } else {
            (self.part_len == 0 || len == self.part_len) && len >= self.tail_len
        };
        fragment.last == self.last && fragment.index <= self.last && len > 0 && sizes_agree
    }

    fn is_complete(&self) -> bool {
        u32::from(self.received) == (1u32 << (self.last + 1)) - 1
    }

    /// Bytes of the frame, once it is complete.
    fn len(&self) -> usize {
        self.part_len * usize::from(self.last) + self.tail_len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fragment::fragments;
    use crate::overlay::{Datagram, decode};

    const NOW: Duration = Duration::from_secs(7);

    fn peer(value: u16) -> PeerId {
        PeerId::new(value).unwrap()
    }

    fn fragment(frame_id: u32, index: u8, last: u8, part: &[u8]) -> Fragment<'_> {
        Fragment { peer: peer(1), index, last, frame_id, part }
    }

    fn reassembler() -> Reassembler {
        Reassembler::new(ReassemblyLimits::default())
    }

    fn done(frame: &[u8]) -> Result<Option<Bytes>, ReassemblyError> {
        Ok(Some(Bytes::copy_from_slice(frame)))
    }

    #[test]
    fn parts_in_order_and_tail_first() {
        let mut reassembler = reassembler();
        assert_eq!(reassembler.push(NOW, fragment(1, 0, 2, b"abc")), Ok(None));
        assert_eq!(reassembler.push(NOW, fragment(1, 1, 2, b"def")), Ok(None));
        assert_eq!(reassembler.push(NOW, fragment(1, 2, 2, b"g")), done(b"abcdefg"));
        assert_eq!(reassembler.push(NOW, fragment(2, 2, 2, b"gh")), Ok(None));
        assert_eq!(reassembler.push(NOW, fragment(2, 1, 2, b"def")), Ok(None));
        assert_eq!(reassembler.push(NOW, fragment(2, 0, 2, b"abc")), done(b"abcdefgh"));
        assert_eq!((reassembler.unfinished(), reassembler.bytes_held()), (0, 0));
        assert_eq!(reassembler.counts(), ReassemblyCounts::default());
    }

    #[test]
    fn peers_do_not_share_frame_ids() {
        let mut reassembler = reassembler();
        for id in [1, 2] {
            let part = Fragment { peer: peer(id), ..fragment(9, 0, 1, b"ab") };
            assert_eq!(reassembler.push(NOW, part), Ok(None));
        }
        assert_eq!(reassembler.unfinished(), 2);
        assert_eq!(reassembler.forget(peer(1)), 1);
        assert_eq!((reassembler.unfinished(), reassembler.bytes_held()), (1, 4));
        let tail = Fragment { peer: peer(2), ..fragment(9, 1, 1, b"c") };
        assert_eq!(reassembler.push(NOW, tail), done(b"abc"));
    }

    #[test]
    fn a_duplicate_changes_nothing() {
        let mut reassembler = reassembler();
        assert_eq!(reassembler.push(NOW, fragment(1, 1, 1, b"c")), Ok(None));
        assert_eq!(reassembler.push(NOW, fragment(1, 1, 1, b"x")), Ok(None));
        assert_eq!(reassembler.push(NOW, fragment(1, 0, 1, b"ab")), done(b"abc"));
        assert_eq!(reassembler.counts(), ReassemblyCounts { duplicates: 1, ..Default::default() });
    }

    #[test]
    fn a_contradiction_drops_the_whole_frame() {
        for (first, second) in [
            (fragment(1, 0, 2, b"ab"), fragment(1, 1, 1, b"ab")), // another number of siblings
            (fragment(1, 0, 2, b"ab"), fragment(1, 1, 2, b"abc")), // another size
            (fragment(1, 0, 2, b"ab"), fragment(1, 0, 2, b"a")),  // a duplicate of another size
            (fragment(1, 0, 2, b"ab"), fragment(1, 2, 2, b"abc")), // a longer last one
            (fragment(1, 2, 2, b"ab"), fragment(1, 0, 2, b"a")),  // shorter than the last one
            (fragment(1, 2, 2, b"ab"), fragment(1, 2, 2, b"a")),  // a last one of another size
        ] {
            let mut reassembler = reassembler();
            assert_eq!(reassembler.push(NOW, first), Ok(None));
            assert_eq!(reassembler.push(NOW, second), Err(ReassemblyError::Contradiction), "{second:?}");
            assert_eq!((reassembler.unfinished(), reassembler.bytes_held()), (0, 0));
            assert_eq!(reassembler.counts().contradicted, 1);
            assert_eq!(reassembler.counts().frames_dropped(), 1);
        }
    }

    #[test]
    fn what_could_not_come_from_the_wire_is_a_contradiction() {
        for bad in [
            fragment(1, 0, 0, b"a"),
            fragment(1, 2, 1, b"a"),
            fragment(1, 0, 16, b"a"),
            fragment(1, 0, 1, b""),
        ] {
            assert_eq!(reassembler().push(NOW, bad), Err(ReassemblyError::Contradiction));
        }
    }

    #[test]
    fn a_frame_longer_than_allowed_is_dropped_as_early_as_it_shows() {
        let limits = ReassemblyLimits { max_frame: 10, ..Default::default() };
        for pieces in [
            vec![fragment(1, 0, 2, b"abcde")],  // 5 + 5 + at least 1
            vec![fragment(1, 1, 1, b"abcdef")], // the other is no shorter than the last
            vec![fragment(1, 0, 1, b"abcdefgh"), fragment(1, 1, 1, b"ijk")], // 8 + 3
            vec![fragment(1, 1, 1, b"ijk"), fragment(1, 0, 1, b"abcdefgh")],
        ] {
            let mut reassembler = Reassembler::new(limits);
            let (end, before) = pieces.split_last().unwrap();
            for piece in before {
                assert_eq!(reassembler.push(NOW, *piece), Ok(None));
            }
            assert_eq!(reassembler.push(NOW, *end), Err(ReassemblyError::TooLong));
            assert_eq!((reassembler.bytes_held(), reassembler.counts().too_long), (0, 1));
        }
        let mut exact = Reassembler::new(limits);
        assert_eq!(exact.push(NOW, fragment(1, 0, 1, b"abcdefgh")), Ok(None));
        assert_eq!(exact.push(NOW, fragment(1, 1, 1, b"ij")), done(b"abcdefghij"));
    }

    #[test]
    fn time_runs_out_after_the_first_fragment_not_the_latest() {
        let mut reassembler = reassembler();
        let timeout = ReassemblyLimits::default().timeout;
        assert_eq!(reassembler.push(NOW, fragment(1, 0, 2, b"a")), Ok(None));
        assert_eq!(reassembler.push(NOW + timeout, fragment(1, 1, 2, b"b")), Ok(None));
        assert_eq!(reassembler.expire(NOW + timeout), 0);
        assert_eq!(reassembler.expire(NOW + timeout + Duration::from_nanos(1)), 1);
        assert_eq!((reassembler.counts().expired, reassembler.bytes_held()), (1, 0));
    }

    #[test]
    fn the_oldest_gives_way_to_the_newest() {
        let mut reassembler = Reassembler::new(ReassemblyLimits { frames: 2, ..Default::default() });
        for id in 1..=3 {
            assert_eq!(reassembler.push(NOW, fragment(id, 0, 1, b"ab")), Ok(None));
        }
        assert_eq!((reassembler.unfinished(), reassembler.counts().evicted), (2, 1));
        assert_eq!(reassembler.push(NOW, fragment(2, 1, 1, b"c")), done(b"abc"));
        assert_eq!(reassembler.push(NOW, fragment(3, 1, 1, b"c")), done(b"abc"));
    }

    #[test]
    fn a_tail_that_grows_makes_others_give_way_but_not_itself() {
        let limits = ReassemblyLimits { bytes: 20, ..Default::default() };
        for tail_is_oldest in [true, false] {
            let mut reassembler = Reassembler::new(limits);
            let mut pieces = [fragment(1, 1, 1, b"z"), fragment(2, 0, 1, b"12345678")];
            if !tail_is_oldest {
                pieces.reverse();
            }
            for piece in pieces {
                assert_eq!(reassembler.push(NOW, piece), Ok(None));
            }
            assert_eq!(reassembler.push(NOW, fragment(1, 0, 1, b"abcdefgh")), done(b"abcdefghz"));
            assert_eq!((reassembler.counts().evicted, reassembler.bytes_held()), (1, 0));
        }
    }

    /// The datagrams of some frames, the first of each frame twice, in any order.
    fn shuffled() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Vec<u8>>)> {
        let frame = (proptest::collection::vec(any::<u8>(), 16..300), 28usize..160);
        proptest::collection::vec(frame, 1..12).prop_flat_map(|frames| {
            let mut datagrams = Vec::new();
            for (id, (frame, size)) in frames.iter().enumerate() {
                let cut: Vec<_> = fragments(peer(1), id as u32, frame, *size).unwrap().collect();
                datagrams.extend(
                    cut.iter().chain(&cut[..1]).map(|parts| [&parts.header[..], parts.part].concat()),
                );
            }
            let frames: Vec<_> = frames.into_iter().map(|(frame, _)| frame).collect();
            (Just(frames), Just(datagrams).prop_shuffle())
        })
    }

    fn any_limits() -> impl Strategy<Value = ReassemblyLimits> {
        (0usize..6, 0usize..600, 0u64..50, 0usize..400).prop_map(|(frames, bytes, timeout, max_frame)| {
            ReassemblyLimits { frames, bytes, timeout: Duration::from_millis(timeout), max_frame }
        })
    }

    proptest! {
        #[test]
        fn every_frame_comes_out_once_and_whole_in_any_order((frames, datagrams) in shuffled()) {
            let mut reassembler = reassembler();
            let mut out: Vec<Bytes> = Vec::new();
            for datagram in &datagrams {
                let Ok(Datagram::Fragment(fragment)) = decode(datagram) else { panic!("not a fragment") };
                out.extend(reassembler.push(NOW, fragment).unwrap());
            }
            let mut expected: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
            out.sort();
            expected.sort();
            prop_assert_eq!(out, expected);
            prop_assert_eq!(reassembler.counts().frames_dropped(), 0);
        }

        /// Whatever comes, and however small the limits: they hold after each step, and so does the account of frames.
        #[test]
        fn bounds_hold_for_any_fragments(
            limits in any_limits(),
            pushes in proptest::collection::vec((0u64..30, 1u16..3, 0u32..6, 0u8..17, 0u8..17, 0usize..90), 0..120),
        ) {
            let mut reassembler = Reassembler::new(limits);
            let (mut now, mut begun, mut finished) = (NOW, 0u64, 0u64);
            let bytes = [0xa5; 90];
            for (step, id, frame_id, index, last, len) in pushes {
                now += Duration::from_millis(step);
                reassembler.expire(now);
                let is_there = |reassembler: &Reassembler| {
                    reassembler.unfinished.iter().any(|frame| frame.peer == peer(id) && frame.frame_id == frame_id)
                };
                let was_there = is_there(&reassembler);
                let outcome = reassembler.push(now, Fragment { peer: peer(id), index, last, frame_id, part: &bytes[..len] });
                // A frame that was refused with its first fragment counts as begun: it was dropped.
                begun += u64::from(!was_there);
                if let Ok(Some(frame)) = &outcome {
                    finished += 1;
                    prop_assert!(frame.len() <= limits.max_frame && frame.iter().all(|byte| *byte == 0xa5));
                }
                if outcome != Ok(None) {
                    prop_assert!(!is_there(&reassembler));
                }
                prop_assert!(reassembler.unfinished() <= limits.frames.max(1));
                prop_assert!(reassembler.bytes_held() <= limits.bytes);
                let allocated: usize = reassembler.unfinished.iter().map(|frame| frame.buffer.capacity()).sum();
                prop_assert_eq!(reassembler.bytes_held(), allocated);
                prop_assert!(reassembler.unfinished.iter().all(|frame| now - frame.since <= limits.timeout));
                let dropped = reassembler.counts().frames_dropped();
                prop_assert_eq!(begun, finished + dropped + reassembler.unfinished() as u64);
            }
        }
    }
}
