//! Checksums, splitting and joining, each beside what one would write without care. `benches/parts.py` shows the ratios.

use std::collections::VecDeque;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use softlan_port::FrameBatch;
use softlan_port::offload::{
    checksum::Sum,
    join::{JoinKinds, Joiner},
    split::split,
    vnet::VnetHeader,
};

/// RFC 1071 section 4.1, word by word.
fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Segments of one flow over IPv4, made here with the naive sum: `count` of `size` payload bytes.
fn frames(udp: bool, count: usize, size: usize) -> Vec<Vec<u8>> {
    let frame = |index: usize| {
        let header = if udp { 8 } else { 20 };
        let mut ip = vec![0x45, 0];
        ip.extend(((20 + header + size) as u16).to_be_bytes());
        ip.extend((index as u16).to_be_bytes());
        ip.extend([0x40, 0, 64, if udp { 17 } else { 6 }, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = !naive_sum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut transport = vec![0x30, 0x39, 0, 80];
        if udp {
            transport.extend(((8 + size) as u16).to_be_bytes());
            transport.extend([0, 0]);
        } else {
            transport.extend(((index * size) as u32).to_be_bytes());
            transport.extend([0, 0, 0, 1, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
        }
        transport.resize(header + size, 0x5a);
        let pseudo = [&ip[12..20], &[0, ip[9]], &((header + size) as u16).to_be_bytes()].concat();
        let sum = !naive_sum(&[pseudo, transport.clone()].concat());
        let at = if udp { 6 } else { 16 };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], ip.as_slice(), &transport].concat()
    };
    (0..count).map(frame).collect()
}

/// What the kernel would get for the frames.
fn super_frame(frames: &[Vec<u8>]) -> (VnetHeader, Vec<u8>) {
    let mut parts = Vec::new();
    let mut joiner = Joiner::new(frames.iter().map(Vec::as_slice), 1514, JoinKinds::ALL);
    let message = joiner.next(&mut parts).expect("frames");
    assert_eq!(message.frames, frames.len());
    (message.vnet, [message.headers(), &parts.concat()].concat())
}

fn checksums(c: &mut Criterion) {
    for len in [60, 1460, 65_000] {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
        let mut group = c.benchmark_group(format!("checksum of {len} B"));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function("softlan", |b| b.iter(|| Sum::of(black_box(&bytes)).checksum()));
        group.bench_function("naive", |b| b.iter(|| !naive_sum(black_box(&bytes))));
        group.finish();
    }
}

/// Splits into vectors of their own, the slow sum over each.
fn naive_split(vnet: &VnetHeader, bytes: &[u8]) -> Vec<Vec<u8>> {
    let (headers, payload) = bytes.split_at(usize::from(vnet.header_len));
    let part = |(index, part): (usize, &[u8])| {
        let mut frame = [headers, part].concat();
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[18..20].copy_from_slice(&(index as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = !naive_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let at = 34 + usize::from(vnet.partial.expect("a super-frame").offset);
        frame[at..at + 2].fill(0);
        let pseudo = [&frame[26..34], &[0, frame[23]], &(total - 20).to_be_bytes(), &frame[34..]].concat();
        let sum = !naive_sum(&pseudo);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    payload.chunks(vnet.gso_size.into()).enumerate().map(part).collect()
}

fn splits(c: &mut Criterion) {
    for (name, udp) in [("TCP", false), ("UDP", true)] {
        let frames = frames(udp, 44, 1400);
        let (vnet, bytes) = super_frame(&frames);
        let mut group = c.benchmark_group(format!("split {name} into 44 of 1400 B"));
        group.throughput(Throughput::Elements(44));
        let mut batch = FrameBatch::new(8);
        // Of a super-frame nothing is changed in place: the same one will do each time.
        let mut frame = bytes.clone();
        group.bench_function("softlan", |b| {
            b.iter(|| {
                batch.clear();
                split(&vnet, black_box(&mut frame), &mut batch).expect("a good one")
            });
        });
        group.bench_function("naive", |b| b.iter(|| naive_split(&vnet, black_box(&bytes)).len()));
        group.finish();
    }
}

/// As on the way to a tunnel, where frames wait in queues while others come.
fn queued(c: &mut Criterion) {
    let (vnet, mut frame) = super_frame(&frames(false, 44, 1400));
    let mut group = c.benchmark_group("split TCP, 6 super-frames waiting");
    group.throughput(Throughput::Elements(44));
    let (mut batch, mut waiting) = (FrameBatch::new(8), VecDeque::new());
    group.bench_function("softlan", |b| {
        b.iter(|| {
            split(&vnet, black_box(&mut frame), &mut batch).expect("a good one");
            waiting.extend(batch.drain());
            while waiting.len() > 6 * 44 {
                waiting.pop_front();
            }
        });
    });
    // A new allocation for each frame, which waits as well.
    let mut waiting = VecDeque::new();
    group.bench_function("naive", |b| {
        b.iter(|| {
            waiting.extend(naive_split(&vnet, black_box(&frame)));
            while waiting.len() > 6 * 44 {
                waiting.pop_front();
            }
        });
    });
    group.finish();
}

fn joins(c: &mut Criterion) {
    let (tcp, udp) = (frames(false, 22, 1200), frames(true, 22, 1200));
    let lone: Vec<Vec<u8>> = tcp.into_iter().zip(udp).flat_map(|(a, b)| [a, b]).collect();
    let cases = [("44 TCP of 1400 B", frames(false, 44, 1400)), ("44 UDP of 1200 B", frames(true, 44, 1200))];
    for (name, frames) in &cases {
        let mut group = c.benchmark_group(format!("join {name}"));
        group.throughput(Throughput::Elements(frames.len() as u64));
        let mut parts = Vec::new();
        group.bench_function("softlan", |b| {
            b.iter(|| {
                parts.clear();
                let mut joiner =
                    Joiner::new(black_box(frames).iter().map(Vec::as_slice), 1514, JoinKinds::ALL);
                let message = joiner.next(&mut parts).expect("frames");
                message.frames
            });
        });
        // A copy of every payload into one buffer, after the slow sum over each.
        group.bench_function("naive", |b| {
            b.iter(|| {
                let mut joined = Vec::new();
                for frame in black_box(frames) {
                    if naive_sum(&frame[14..34]) == 0xffff && naive_sum(&frame[34..]) != 1 {
                        joined.extend_from_slice(&frame[54..]);
                    }
                }
                joined.len()
            });
        });
        group.finish();
    }
    // What looking for joins costs where there are none.
    let mut group = c.benchmark_group("join 44 that do not follow each other");
    group.throughput(Throughput::Elements(lone.len() as u64));
    let mut parts = Vec::new();
    group.bench_function("softlan", |b| {
        b.iter(|| {
            let mut joiner = Joiner::new(black_box(&lone).iter().map(Vec::as_slice), 1514, JoinKinds::ALL);
            let mut messages = 0;
            while joiner.next(&mut parts).is_some() {
                parts.clear();
                messages += 1;
            }
            messages
        });
    });
    group.finish();
}

criterion_group!(offload, checksums, splits, queued, joins);
criterion_main!(offload);
