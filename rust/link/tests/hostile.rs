//! What a hostile peer can put into datagrams, kind by kind: each costs bounded memory and is counted, and honest frames in
//! between come through. No sockets: what is tested is the end of a connection that checks and reassembles.
#![allow(clippy::unwrap_used)] // A test that cannot go on should say where.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use softlan_link::cable::{Inbound, Malformed};
use softlan_switch::{Counters, DropReason};
use softlan_wire::{PeerId, Reassembler, ReassemblyLimits, WireError, decode, fragments};

const ME: u16 = 7;

fn peer(id: u16) -> PeerId {
    PeerId::new(id).unwrap()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn inbound() -> (Inbound, Arc<Counters>) {
    let counters = Arc::<Counters>::default();
    (Inbound::new(Some(peer(ME)), counters.clone()), counters)
}

fn whole(id: u16, frame: &[u8]) -> Bytes {
    [&[0x10, 0][..], &id.to_be_bytes(), frame].concat().into()
}

/// The fragments of a frame, as datagrams of at most `size` bytes.
fn parts(id: u16, frame_id: u32, frame: &[u8], size: usize) -> Vec<Bytes> {
    let cut = fragments(peer(id), frame_id, frame, size).unwrap();
    cut.map(|part| [&part.header[..], part.part].concat().into()).collect()
}

fn drops(counters: &Counters, reason: DropReason) -> u64 {
    counters.snapshot().drops_for(reason)
}

#[test]
fn fragments_that_never_complete_are_given_up_and_counted() {
    let (mut inbound, counters) = inbound();
    for number in 0..50u32 {
        let first = parts(ME, number, &[0xaa; 1500], 1000).swap_remove(0);
        assert!(inbound.accept(at(0), first).unwrap().is_none());
    }
    // They are looked at when the next fragment comes, and whole frames go on meanwhile.
    assert!(inbound.accept(at(400), whole(ME, &[1; 60])).unwrap().is_some());
    assert_eq!(drops(&counters, DropReason::Reassembly), 0);
    let honest = parts(ME, 1000, &[0xbb; 1500], 1000);
    let frames: Vec<_> =
        honest.into_iter().filter_map(|part| inbound.accept(at(600), part).unwrap()).collect();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].frame(), [0xbb; 1500]);
    assert_eq!(drops(&counters, DropReason::Reassembly), 50);
    assert_eq!((counters.snapshot().datagrams_received, counters.snapshot().fragments_received), (53, 52));
}

#[test]
fn a_flood_of_fragments_is_bounded_counted_and_does_not_keep_honest_frames_out() {
    let (mut inbound, counters) = inbound();
    let mut through = 0;
    for number in 0..100_000u32 {
        let lone = parts(ME, number, &[0xaa; 9000], 1200).swap_remove(number as usize % 8);
        assert!(inbound.accept(at(u64::from(number) / 100), lone).unwrap().is_none());
        if number % 1000 == 0 {
            let honest = parts(ME, u32::MAX - number, &[0xbb; 1500], 1000);
            let now = at(u64::from(number) / 100);
            through += honest.into_iter().filter_map(|part| inbound.accept(now, part).unwrap()).count();
        }
    }
    assert_eq!(through, 100);
    // All but the few still held were dropped, each under its name.
    let dropped = drops(&counters, DropReason::Reassembly);
    assert!((100_000 - 64..=100_000).contains(&dropped), "{dropped}");
    assert_eq!(counters.snapshot().fragments_received, 100_200);
}

#[test]
fn the_memory_of_a_fragment_flood_is_bounded_whatever_the_pieces() {
    let limits = ReassemblyLimits::default();
    let mut reassembler = Reassembler::new(limits);
    let mut state = 1u64;
    for number in 0..200_000u32 {
        // Sizes, indices and numbers of fragments as a liar would choose them (a multiplicative sequence, Knuth's MMIX).
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [a, b, c, d, ..] = state.to_be_bytes();
        let last = a % 15 + 1;
        let mut datagram = vec![0x11, (b % (last + 1)) << 4 | last, 0, ME as u8];
        datagram.extend((number / 3).to_be_bytes());
        datagram.resize(9 + usize::from(c) * usize::from(d) % 1400, 0xee);
        if let Ok(softlan_wire::Datagram::Fragment(fragment)) = decode(&datagram) {
            let _ = reassembler.push(at(u64::from(number) / 50), fragment);
        }
        assert!(reassembler.unfinished() <= limits.frames && reassembler.bytes_held() <= limits.bytes);
    }
    assert!(reassembler.counts().frames_dropped() > 10_000);
}

#[test]
fn empty_datagrams_and_garbage_are_malformed_and_counted() {
    let (mut inbound, counters) = inbound();
    assert_eq!(inbound.accept(at(0), Bytes::new()).unwrap_err(), Malformed::Wire(WireError::Empty));
    for garbage in
        [&[0x10][..], &[0x20, 0, 0, 7, 1], &[0x10, 1, 0, 7, 1], &[0x10, 0, 0, 0, 1], &[0x11, 0x21, 0, 7]]
    {
        assert!(inbound.accept(at(0), Bytes::copy_from_slice(garbage)).is_err(), "{garbage:02x?}");
    }
    assert_eq!(counters.snapshot().datagrams_received, 6);
    assert!(inbound.accept(at(0), whole(ME, &[1; 60])).unwrap().is_some());
}

#[test]
fn nobody_speaks_under_anothers_id_whole_or_in_pieces() {
    let (mut inbound, counters) = inbound();
    for other in [1, ME + 1, 65535] {
        let foreign = Malformed::ForeignPeer(peer(other));
        assert_eq!(inbound.accept(at(0), whole(other, &[1; 60])).unwrap_err(), foreign);
        for part in parts(other, 5, &[0xaa; 1500], 1000) {
            assert_eq!(inbound.accept(at(0), part).unwrap_err(), foreign);
        }
    }
    // None of it took a place among the unfinished frames.
    let mine = parts(ME, 5, &[0xbb; 1500], 1000);
    let frames: Vec<_> = mine.into_iter().filter_map(|part| inbound.accept(at(0), part).unwrap()).collect();
    assert_eq!(frames[0].frame(), [0xbb; 1500]);
    assert_eq!((counters.snapshot().datagrams_received, drops(&counters, DropReason::Reassembly)), (11, 0));
}
