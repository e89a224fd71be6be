//! Cutting frames and putting them together: whatever the order and however many copies, the frame comes back once, byte by byte.
//!
//! Input: length of the frame (2 bytes), size of a datagram (2), seed of its content, then a byte for each delivery: which of the
//! fragments not yet delivered, or with its top bit set one delivered before. What was not named comes last, in order.

use std::time::Duration;

use softlan_wire::{
    Datagram, FRAGMENT_HEADER_LEN, Fragment, MAX_FRAGMENTS, MAX_FRAME_LEN, PeerId, Reassembler,
    ReassemblyLimits, decode, fragments,
};

use crate::source::{Source, pattern};

/// Cuts a frame, delivers the datagrams as told, and compares.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let len = usize::from(source.word()) % (MAX_FRAME_LEN + 2);
    let size = usize::from(source.word());
    let frame = pattern(source.byte(), len);
    let Some(peer) = PeerId::new(7) else { return };
    let capacity = size.saturating_sub(FRAGMENT_HEADER_LEN);
    let Ok(cut) = fragments(peer, 0xfeed, &frame, size) else {
        assert!(!(2..=MAX_FRAME_LEN).contains(&len) || capacity * MAX_FRAGMENTS < len);
        return;
    };
    let datagrams: Vec<Vec<u8>> = cut.map(|made| [&made.header[..], made.part].concat()).collect();
    assert!((2..=MAX_FRAGMENTS).contains(&datagrams.len()));
    assert!(datagrams.iter().all(|datagram| datagram.len() <= size));
    assert_eq!(datagrams.len(), len.div_ceil(capacity).max(2), "more fragments than it takes");

    let parts: Vec<Fragment<'_>> = datagrams
        .iter()
        .map(|datagram| match decode(datagram) {
            Ok(Datagram::Fragment(fragment)) => fragment,
            other => panic!("a fragment decodes as {other:?}"),
        })
        .collect();
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    let (mut left, mut delivered): (Vec<usize>, Vec<usize>) = ((0..parts.len()).collect(), Vec::new());
    let (mut copies, mut whole) = (0, None);
    while !left.is_empty() {
        let pick = usize::from(source.byte());
        let at = if pick & 0x80 != 0 && !delivered.is_empty() && !source.is_empty() {
            copies += 1;
            delivered[pick % delivered.len()]
        } else {
            let at = left.remove(pick % left.len());
            delivered.push(at);
            at
        };
        let got = reassembler.push(Duration::ZERO, parts[at]);
        let got = got.expect("fragments of one frame agree");
        assert_eq!(got.is_some(), left.is_empty(), "complete too early or too late");
        whole = got;
    }
    assert_eq!(whole.as_deref(), Some(&frame[..]));
    assert_eq!((reassembler.unfinished(), reassembler.bytes_held()), (0, 0));
    assert_eq!((reassembler.counts().duplicates, reassembler.counts().frames_dropped()), (copies, 0));
}
