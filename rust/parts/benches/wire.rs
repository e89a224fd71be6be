//! Header, fragments, reassembly, Ethernet parsing and ECN marks, each beside what one would write without care. `benches/parts.py` shows the ratios.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use softlan_wire::{
    Datagram, EthernetFrame, Fragment, HEADER_LEN, PeerId, Reassembler, ReassemblyLimits, decode, fragments,
    mark_ce, write_header,
};

/// Payload of a datagram on a path that carries QUIC's least.
const SMALL_DATAGRAM: usize = 1162;

fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 5, 8, 0, 0x45];
    frame.resize(len, 0x5a);
    frame
}

fn peer() -> PeerId {
    PeerId::new(7).expect("not zero")
}

/// What fragments look like on their way.
fn datagrams(frame: &[u8], id: u32) -> Vec<Vec<u8>> {
    let parts = fragments(peer(), id, frame, SMALL_DATAGRAM).expect("it fits");
    parts.map(|part| [part.header.as_slice(), part.part].concat()).collect()
}

fn header(c: &mut Criterion) {
    let frame = frame(1400);
    let mut group = c.benchmark_group("overlay header");
    let mut datagram = [&[0; HEADER_LEN], frame.as_slice()].concat();
    group.bench_function("softlan", |b| {
        b.iter(|| {
            // The room for it is kept in front of each frame.
            let head = datagram.first_chunk_mut::<HEADER_LEN>().expect("room");
            write_header(head, black_box(peer()));
            matches!(decode(black_box(&datagram)), Ok(Datagram::Frame { .. }))
        });
    });
    group.bench_function("naive", |b| {
        b.iter(|| {
            let mut datagram = vec![0x10, 0];
            datagram.extend(black_box(7_u16).to_be_bytes());
            datagram.extend_from_slice(black_box(&frame));
            datagram[0] >> 4 == 1 && u16::from_be_bytes([datagram[2], datagram[3]]) != 0
        });
    });
    group.finish();
}

fn cut(c: &mut Criterion) {
    let frame = frame(1514);
    let mut group = c.benchmark_group("fragments of 1514 B");
    group.bench_function("softlan", |b| {
        b.iter(|| {
            // As a cable makes them: each a datagram of its own, for QUIC to hold.
            for part in fragments(peer(), 1, black_box(&frame), SMALL_DATAGRAM).expect("it fits") {
                let mut bytes = BytesMut::with_capacity(part.header.len() + part.part.len());
                bytes.extend_from_slice(&part.header);
                bytes.extend_from_slice(part.part);
                black_box(bytes.freeze());
            }
        });
    });
    group.bench_function("naive", |b| {
        b.iter(|| black_box(datagrams(black_box(&frame), 1)));
    });
    group.finish();
}

type Unfinished = HashMap<(u16, u32), BTreeMap<u8, Vec<u8>>>;

/// Without limits, with a copy for each part and a map for each frame.
fn naive_push(unfinished: &mut Unfinished, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
    let key = (fragment.peer.value(), fragment.frame_id);
    let parts = unfinished.entry(key).or_default();
    parts.insert(fragment.index, fragment.part.to_vec());
    if parts.len() <= usize::from(fragment.last) {
        return None;
    }
    unfinished.remove(&key).map(|parts| parts.into_values().flatten().collect())
}

fn reassembly(c: &mut Criterion) {
    let datagrams = datagrams(&frame(1514), 1);
    let parts: Vec<Fragment<'_>> = datagrams
        .iter()
        .filter_map(|datagram| match decode(datagram) {
            Ok(Datagram::Fragment(fragment)) => Some(fragment),
            _ => None,
        })
        .collect();
    assert_eq!(parts.len(), 2);
    let mut group = c.benchmark_group("reassembly of 1514 B");
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    let mut id = 0_u32;
    group.bench_function("softlan", |b| {
        b.iter(|| {
            id = id.wrapping_add(1);
            let push =
                |part: &Fragment<'_>| reassembler.push(Duration::ZERO, Fragment { frame_id: id, ..*part });
            parts.iter().map(push).filter(|outcome| matches!(outcome, Ok(Some(_)))).count()
        });
    });
    let mut unfinished = Unfinished::new();
    group.bench_function("naive", |b| {
        b.iter(|| {
            id = id.wrapping_add(1);
            let push = |part: &Fragment<'_>| naive_push(&mut unfinished, &Fragment { frame_id: id, ..*part });
            parts.iter().filter_map(push).count()
        });
    });
    group.finish();
}

fn ethernet(c: &mut Criterion) {
    let frame = frame(1400);
    let mut group = c.benchmark_group("Ethernet frame with a tag");
    group.bench_function("softlan", |b| {
        b.iter(|| {
            let parsed = EthernetFrame::parse(black_box(&frame)).expect("long enough");
            let (ethertype, payload) = parsed.protocol();
            (parsed.destination(), parsed.source(), ethertype, payload.len())
        });
    });
    group.bench_function("naive", |b| {
        b.iter(|| {
            let frame = black_box(&frame);
            let (destination, source) = (frame[..6].to_vec(), frame[6..12].to_vec());
            let mut rest = frame[12..].to_vec();
            while rest[..2] == [0x81, 0] {
                rest.drain(..4);
            }
            (destination, source, u16::from_be_bytes([rest[0], rest[1]]), rest.len() - 2)
        });
    });
    group.finish();
}

/// Where the type of service stands behind one tag.
const TOS: usize = 19;

fn mark(c: &mut Criterion) {
    let mut frame = frame(1400);
    frame[TOS - 1..TOS + 19]
        .copy_from_slice(&[0x45, 2, 5, 0x66, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let mut group = c.benchmark_group("ECN mark behind a tag");
    group.bench_function("softlan", |b| {
        b.iter(|| {
            frame[TOS] = 2;
            mark_ce(black_box(&mut frame))
        });
    });
    group.bench_function("naive", |b| {
        b.iter(|| {
            frame[TOS] = 2;
            let frame = black_box(&mut frame);
            let mut header = frame[TOS - 1..TOS + 19].to_vec();
            header[1] |= 3;
            header[10..12].fill(0);
            let mut sum: u32 =
                header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            frame[TOS - 1..TOS + 19].copy_from_slice(&header);
        });
    });
    group.finish();
}

criterion_group!(wire, header, cut, reassembly, ethernet, mark);
criterion_main!(wire);
