//! Reassembly under fragments that anyone made up: memory stays bounded, every frame is accounted for, and what comes out was put in.
//!
//! Input: the limits (frames, KiB, 100 bytes of the largest frame: a byte each), then fragments: peer and step of time, frame id,
//! index and last, length of the part (a byte each, the length two), its seed. A step of 15 forgets the peer instead.

use std::collections::HashMap;
use std::time::Duration;

use softlan_wire::{Fragment, PeerId, Reassembler, ReassemblyLimits};

use crate::source::{Source, pattern};

/// Parts by whom, of which frame, and where in it.
type History = HashMap<(PeerId, u32, u8, u8), Vec<Vec<u8>>>;

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
    while !source.is_empty() {
        let first = source.byte();
        let Some(peer) = PeerId::new(u16::from(first & 3) + 1) else { return };
        if first >> 4 == 15 {
            let before = reassembler.unfinished();
            let forgotten = reassembler.forget(peer);
            assert_eq!(reassembler.unfinished() + forgotten, before);
            history.retain(|key, _| key.0 != peer);
            continue;
        }
        now += Duration::from_millis(u64::from(first >> 4).pow(2) * 4);
        let frame_id = u32::from(source.byte() & 7);
        let place = source.byte();
        let len = usize::from(source.word()) % 1500;
        let part = pattern(source.byte(), len);
        let (index, last) = (place >> 4, place & 0x0f);
        history.entry((peer, frame_id, index, last)).or_default().push(part.clone());
        push(&mut reassembler, &limits, now, Fragment { peer, index, last, frame_id, part: &part }, &history);
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
    assert!(reassembler.bytes_held() <= limits.bytes);
    assert!(reassembler.unfinished() <= limits.frames.max(1));
    if reassembler.unfinished() == 0 {
        assert_eq!(reassembler.bytes_held(), 0);
    }
    if let Ok(Some(frame)) = outcome {
        assert!(frame.len() <= limits.max_frame && frame.len() <= limits.bytes);
        was_put_in(&frame, &fragment, history);
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
