//! Reassembly under fragments that anyone made up: memory stays bounded, every frame is accounted for, and what comes out was put in.
//!
//! Input: the limits (frames, KiB, 100 bytes of the largest frame: a byte each), then fragments: peer and step of time, frame id,
//! index and last, length of the part (a byte each, the length two), its seed. A step of 15 forgets the peer instead.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use softlan_wire::{Fragment, PeerId, Reassembler, ReassemblyLimits};

use crate::source::{Source, pattern};

/// Parts by whom, of which frame, and where in it.
type History = HashMap<(PeerId, u32, u8, u8), Vec<Vec<u8>>>;

/// What the check itself knows of the frames that are unfinished, oldest first.
#[derive(Default)]
struct Known(VecDeque<Unfinished>);

struct Unfinished {
    peer: PeerId,
    frame_id: u32,
    /// Bytes of each part that is there, by its index.
    parts: BTreeMap<u8, usize>,
}

impl Known {
    /// Bytes of all parts that are there.
    fn bytes(&self) -> usize {
        self.0.iter().flat_map(|frame| frame.parts.values()).sum()
    }

    /// Follows a push: so many gave way, and the fragment's frame is over or has one part more.
    fn follow(&mut self, fragment: &Fragment<'_>, expired: u64, evicted: u64, goes_on: bool) {
        let Fragment { peer, frame_id, index, part, .. } = *fragment;
        self.0.drain(..expired as usize);
        let is_own = |frame: &Unfinished| (frame.peer, frame.frame_id) == (peer, frame_id);
        // The oldest give way, but for the one that there is to be room for.
        for _ in 0..evicted {
            let oldest = usize::from(self.0.front().is_some_and(is_own));
            assert!(self.0.remove(oldest).is_some(), "more gave way than were there");
        }
        match self.0.iter().position(is_own) {
            Some(at) if goes_on => {
                self.0[at].parts.entry(index).or_insert(part.len());
            }
            Some(at) => drop(self.0.remove(at)),
            None if goes_on => {
                self.0.push_back(Unfinished { peer, frame_id, parts: [(index, part.len())].into() });
            }
            None => {}
        }
    }
}

/// Pushes what the input says and checks after each.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let limits = ReassemblyLimits {
        frames: usize::from(source.byte() % 80),
        bytes: usize::from(source.byte()) * 1024,
        timeout: Duration::from_millis(500),
        max_frame: usize::from(source.byte()) * 100,
    };
    let mut reassembler = Reassembler::new(limits);
    let mut now = Duration::ZERO;
    let mut history = History::new();
    let mut known = Known::default();
    while !source.is_empty() {
        let first = source.byte();
        let Some(peer) = PeerId::new(u16::from(first & 3) + 1) else { return };
        if first >> 4 == 15 {
            let before = reassembler.unfinished();
            let forgotten = reassembler.forget(peer);
            assert_eq!(reassembler.unfinished() + forgotten, before);
            history.retain(|key, _| key.0 != peer);
            known.0.retain(|frame| frame.peer != peer);
            check_memory(&reassembler, &limits, &known);
            continue;
        }
        now += Duration::from_millis(u64::from(first >> 4).pow(2) * 4);
        let frame_id = u32::from(source.byte() & 7);
        let place = source.byte();
        let len = usize::from(source.word()) % 1500;
        let part = pattern(source.byte(), len);
        let (index, last) = (place >> 4, place & 0x0f);
        history.entry((peer, frame_id, index, last)).or_default().push(part.clone());
        let fragment = Fragment { peer, index, last, frame_id, part: &part };
        push(&mut reassembler, &limits, now, fragment, &history, &mut known);
    }
    reassembler.expire(now + limits.timeout * 2);
    assert_eq!((reassembler.unfinished(), reassembler.bytes_held()), (0, 0), "something stays for ever");
}

fn push(
    reassembler: &mut Reassembler,
    limits: &ReassemblyLimits,
    now: Duration,
    fragment: Fragment<'_>,
    history: &History,
    known: &mut Known,
) {
    let (unfinished, counts) = (reassembler.unfinished(), reassembler.counts());
    let outcome = reassembler.push(now, fragment);
    let dropped = reassembler.counts().frames_dropped() - counts.frames_dropped();
    let balance = reassembler.unfinished() as i64 - unfinished as i64 + dropped as i64;
    match &outcome {
        // Joined one that was there, or began one.
        Ok(None) => assert!(matches!(balance, 0 | 1), "a frame got lost uncounted: {balance}"),
        Ok(Some(_)) => assert_eq!(balance, -1),
        Err(_) => assert!(dropped >= 1 && matches!(balance, 0 | 1)),
    }
    let (expired, evicted) =
        (reassembler.counts().expired - counts.expired, reassembler.counts().evicted - counts.evicted);
    known.follow(&fragment, expired, evicted, matches!(outcome, Ok(None)));
    check_memory(reassembler, limits, known);
    if let Ok(Some(frame)) = outcome {
        assert!(frame.len() <= limits.max_frame && frame.len() <= limits.bytes);
        was_put_in(&frame, &fragment, history);
    }
}

/// The limits hold, and the reassembler says no less than what is there.
fn check_memory(reassembler: &Reassembler, limits: &ReassemblyLimits, known: &Known) {
    assert!(reassembler.bytes_held() <= limits.bytes);
    assert!(reassembler.unfinished() <= limits.frames.max(1));
    assert_eq!(reassembler.unfinished(), known.0.len());
    let least = known.bytes();
    assert!(least <= reassembler.bytes_held(), "{least} bytes wait, said are {}", reassembler.bytes_held());
    if reassembler.unfinished() == 0 {
        assert_eq!(reassembler.bytes_held(), 0);
    }
}

/// Every piece of a finished frame is a part that came under its name and number.
fn was_put_in(frame: &[u8], finisher: &Fragment<'_>, history: &History) {
    let Fragment { peer, index, last, frame_id, part } = *finisher;
    let part_len = match index == last {
        true => (frame.len() - part.len()) / usize::from(last),
        false => part.len(),
    };
    let pieces: Vec<&[u8]> = frame.chunks(part_len).collect();
    assert_eq!(pieces.len(), usize::from(last) + 1);
    for (index, piece) in (0u8..).zip(pieces) {
        let came = history.get(&(peer, frame_id, index, last));
        assert!(came.is_some_and(|came| came.iter().any(|part| part == piece)), "part {index} never came");
    }
}
