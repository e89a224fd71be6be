//! Splitting and joining against a slow reference that writes every frame of a flow from scratch.

use proptest::prelude::*;

use super::{
    join::{JoinKinds, Joiner},
    split::{MAX_SEGMENTS, SplitError, split},
    vnet::{Gso, PartialChecksum, VNET_HEADER_LEN, VnetHeader},
};
use crate::{FrameBatch, MAX_FRAME_LEN};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// A piece of a TCP stream (or of equal UDP datagrams), and how its frames look.
#[derive(Clone, Debug)]
struct Flow {
    v6: bool,
    udp: bool,
    tags: Vec<[u8; 4]>,
    /// IPv4 options, or an IPv6 destination options header; a multiple of 8.
    extra: Vec<u8>,
    id: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    size: usize,
}

/// RFC 1071 section 4.1, complemented.
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Flow {
    fn transport_at(&self) -> usize {
        14 + 4 * self.tags.len() + if self.v6 { 40 } else { 20 } + self.extra.len()
    }

    fn header_len(&self) -> usize {
        self.transport_at() + if self.udp { 8 } else { 20 + self.options.len() }
    }

    fn addresses(&self) -> Vec<u8> {
        (0..if self.v6 { 32 } else { 8 }).map(|byte| 10 + byte * 7).collect()
    }

    /// One frame with `payload`, its checksum complete, or with only the pseudo-header's sum in it.
    fn frame(&self, index: usize, payload: &[u8], flags: u8, partial: bool) -> Vec<u8> {
        let offset = (index * self.size) as u32;
        let mut transport = vec![0x30, 0x39, 0x00, 0x50];
        if self.udp {
            transport.extend((8 + payload.len() as u16).to_be_bytes());
            transport.extend([0, 0]);
        } else {
            transport.extend(self.sequence.wrapping_add(offset).to_be_bytes());
            transport.extend(self.acknowledgement.to_be_bytes());
            transport.extend([(((20 + self.options.len()) / 4) << 4) as u8, flags]);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0, 0, 0, 0]);
            transport.extend(&self.options);
        }
        let len = transport.len() + payload.len();
        let protocol = if self.udp { 17 } else { 6 };
        let mut pseudo = self.addresses();
        pseudo.extend((len as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        let mut sum = match partial {
            true => !checksum(&[&pseudo]),
            false => checksum(&[&pseudo, &transport, payload]),
        };
        if self.udp && !partial && sum == 0 {
            sum = 0xffff;
        }
        let at = if self.udp { 6 } else { 16 };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());

        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(self.tags.concat());
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x62, 0x34, 0x56, 0x78]);
            frame.extend(((self.extra.len() + len) as u16).to_be_bytes());
            frame.extend([if self.extra.is_empty() { protocol } else { 60 }, 64]);
            frame.extend(self.addresses());
            let mut extra = self.extra.clone();
            if !extra.is_empty() {
                extra[0] = protocol;
                extra[1] = (extra.len() / 8 - 1) as u8;
            }
            frame.extend(extra);
        } else {
            let mut ip = vec![0x45 + (self.extra.len() / 4) as u8, 0x02];
            ip.extend(((20 + self.extra.len() + len) as u16).to_be_bytes());
            ip.extend(self.id.wrapping_add(index as u16).to_be_bytes());
            ip.extend([0x40, 0, 64, protocol, 0, 0]);
            ip.extend(self.addresses());
            ip.extend(&self.extra);
            let sum = checksum(&[&ip]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(ip);
        }
        frame.extend(transport);
        frame.extend(payload);
        frame
    }

    /// Every frame as a sender without offloads would write it.
    fn frames(&self) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(self.size);
        let frames = self.payload.chunks(self.size).enumerate().map(|(index, part)| {
            let mut flags = self.flags;
            if index + 1 < count {
                flags &= !(FIN | PSH);
            }
            if index > 0 {
                flags &= !CWR;
            }
            self.frame(index, part, flags, false)
        });
        frames.collect()
    }

    /// The super-frame as a kernel hands it over.
    fn super_frame(&self) -> (VnetHeader, Vec<u8>) {
        let vnet = VnetHeader {
            partial: Some(PartialChecksum {
                start: self.transport_at() as u16,
                offset: if self.udp { 6 } else { 16 },
            }),
            gso: match (self.udp, self.v6) {
                (true, _) => Gso::Udp,
                (false, false) => Gso::Tcp4,
                (false, true) => Gso::Tcp6,
            },
            ecn: self.flags & CWR != 0,
            header_len: self.header_len() as u16,
            gso_size: self.size as u16,
        };
        (vnet, self.frame(0, &self.payload, self.flags, true))
    }
}

fn flows() -> impl Strategy<Value = Flow> {
    let tag = prop::sample::select(vec![[0x81, 0, 0x60, 5], [0x88, 0xa8, 0, 7], [0x91, 0, 1, 1]]);
    let shape = (any::<bool>(), prop::bool::weighted(0.2), prop::collection::vec(tag, 0..3), 0_usize..3);
    let flags =
        prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN | PSH, ACK | FIN, ACK | ECE | PSH, ACK | CWR]);
    let numbers = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u16>(), flags);
    let data = (0_usize..=10, 1_usize..1500, 1_usize..20_000, any::<u8>());
    (shape, numbers, data).prop_map(|((v6, udp, tags, extra), numbers, (options, size, len, seed))| {
        let (id, sequence, acknowledgement, window, flags) = numbers;
        let len = len.min(size * 100);
        let payload =
            (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect();
        Flow {
            v6,
            udp,
            tags,
            extra: vec![1; extra * 8],
            id,
            sequence,
            acknowledgement,
            flags,
            window,
            options: vec![1; options * 4],
            payload,
            size,
        }
    })
}

/// Flows whose frames can be joined.
fn joinable_flows() -> impl Strategy<Value = Flow> {
    flows().prop_map(|flow| Flow {
        // The kernel's segmentation does not look behind 0x9100.
        tags: flow.tags.iter().filter(|tag| tag[0] != 0x91).copied().collect(),
        extra: Vec::new(),
        flags: flow.flags & !CWR,
        payload: flow.payload[..flow.payload.len().min(flow.size * 60)].to_vec(),
        ..flow
    })
}

/// What the kernel would get for `frames`: a header and bytes for each message.
fn joined(frames: &[Vec<u8>], max_frame: usize) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut joiner = Joiner::new(frames.iter().map(Vec::as_slice), max_frame, JoinKinds::ALL);
    let mut messages = Vec::new();
    let mut parts = Vec::new();
    let mut count = 0;
    while let Some(message) = joiner.next(&mut parts) {
        assert_eq!(parts.len(), message.parts);
        count += message.frames;
        let mut bytes = message.headers().to_vec();
        parts.drain(..).for_each(|part| bytes.extend(part));
        messages.push((message.vnet, bytes));
    }
    assert_eq!(count, frames.len());
    messages
}

fn split_all(messages: &[(VnetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut batch = FrameBatch::new(8);
    for (vnet, bytes) in messages {
        // Through the bytes the kernel sees.
        let vnet = VnetHeader::decode(&vnet.encode());
        split(&vnet, &mut bytes.clone(), &mut batch).unwrap();
    }
    batch.frames().map(<[u8]>::to_vec).collect()
}

fn example() -> Flow {
    Flow {
        v6: false,
        udp: false,
        tags: Vec::new(),
        extra: Vec::new(),
        id: 0xfffe,
        sequence: u32::MAX - 2000,
        acknowledgement: 77,
        flags: ACK | PSH,
        window: 512,
        options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
        payload: (0..10_000_u32).map(|at| (at % 251) as u8).collect(),
        size: 1448,
    }
}

/// The example's frames with one changed and its checksums made right again.
fn changed(change: impl Fn(usize, &mut Flow)) -> Vec<Vec<u8>> {
    let whole = example();
    let count = whole.payload.len().div_ceil(whole.size);
    let frame = |index: usize| {
        let mut flow = whole.clone();
        if index + 1 < count {
            flow.flags &= !PSH;
        }
        change(index, &mut flow);
        let to = whole.payload.len().min((index + 1) * whole.size);
        let part = &whole.payload[index * whole.size..to];
        flow.frame(index, part, flow.flags, false)
    };
    (0..count).map(frame).collect()
}

#[test]
fn a_whole_run_becomes_one_super_frame() {
    let flow = example();
    assert_eq!(joined(&flow.frames(), 1514), [flow.super_frame()]);
}

/// The example as UDP.
fn datagrams() -> Flow {
    Flow { udp: true, size: 1200, flags: ACK, ..example() }
}

#[test]
fn datagrams_of_one_size_become_one_super_frame() {
    for v6 in [false, true] {
        for tags in [vec![], vec![[0x81, 0, 0, 9]], vec![[0x88, 0xa8, 0, 7], [0x81, 0, 0x60, 5]]] {
            let flow = Flow { v6, tags, ..datagrams() };
            assert_eq!(joined(&flow.frames(), 1514), [flow.super_frame()]);
        }
    }
}

#[test]
fn a_shorter_datagram_ends_a_run_and_a_longer_one_begins_another() {
    let mut frames = datagrams().frames();
    let count = frames.len();
    frames.extend(Flow { id: 0xfffe_u16.wrapping_add(count as u16), ..datagrams() }.frames());
    let messages = joined(&frames, 1514);
    assert_eq!(messages.len(), 2);
    assert_eq!(split_all(&messages), frames);
}

#[test]
fn datagrams_that_differ_are_not_joined() {
    let whole = datagrams().frames();
    for at in 0..datagrams().header_len() {
        let mut frames = whole.clone();
        frames[3][at] ^= 0x04;
        if at != 40 && at != 41 {
            repair_udp(&mut frames[3]);
        }
        if frames == whole {
            continue; // the IP checksum's own bytes
        }
        let messages = joined(&frames, 1514);
        assert!(messages.len() >= 2, "byte {at}");
        assert_eq!(split_all(&messages), frames, "byte {at}");
    }
}

#[test]
fn datagrams_without_a_checksum_are_not_joined() {
    let mut frames = datagrams().frames();
    frames.iter_mut().for_each(|frame| frame[40..42].fill(0));
    assert_eq!(joined(&frames, 1514).len(), frames.len());
}

#[test]
fn datagrams_whose_identification_stays_are_joined_where_it_means_nothing() {
    let with_id = |id: u16, dont_fragment: bool| {
        let mut frames = datagrams().frames();
        for frame in &mut frames {
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            frame[20] = if dont_fragment { 0x40 } else { 0 };
            repair_udp(frame);
        }
        frames
    };
    let frames = with_id(7, true);
    let messages = joined(&frames, 1514);
    assert_eq!(messages.len(), 1);
    let mut back = split_all(&messages);
    for (index, frame) in back.iter_mut().enumerate() {
        assert_eq!(frame[18..20], (7 + index as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&7_u16.to_be_bytes());
        repair_udp(frame);
    }
    assert_eq!(back, frames);
    // Where a router may fragment, two datagrams of one identification are not to be told from fragments of one.
    assert_eq!(joined(&with_id(7, false), 1514).len(), frames.len());
    // One way or the other, not both in one run.
    let mut mixed = with_id(7, true);
    mixed[3][18..20].copy_from_slice(&8_u16.to_be_bytes());
    repair_udp(&mut mixed[3]);
    assert!(joined(&mixed, 1514).len() > 1);
}

#[test]
fn unwanted_tags_and_datagrams_stay_alone() {
    let tagged = Flow { tags: vec![[0x81, 0, 0, 9]], ..example() };
    for (flow, kinds) in [
        (tagged, JoinKinds { tagged: false, ..JoinKinds::ALL }),
        (datagrams(), JoinKinds { udp: false, ..JoinKinds::ALL }),
        (datagrams(), JoinKinds::NONE),
    ] {
        let frames = flow.frames();
        let mut joiner = Joiner::new(frames.iter().map(Vec::as_slice), 1514, kinds);
        let message = joiner.next(&mut Vec::new()).unwrap();
        assert_eq!((message.frames, message.tagged), (1, false));
    }
}

/// Makes the checksums of an IPv4 UDP frame without tags and IP options right.
fn repair_udp(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[40..42].fill(0);
    let len = ((frame.len() - 34) as u32).to_be_bytes();
    let sum = checksum(&[&frame[26..34], &len, &[0, 0, 0, 17], &frame[34..]]);
    frame[40..42].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
}

#[test]
fn what_differs_is_not_joined() {
    let runs = |change: fn(usize, &mut Flow)| {
        let frames = changed(change);
        let messages = joined(&frames, 1514);
        assert_eq!(split_all(&messages), frames);
        messages.len()
    };
    assert_eq!(runs(|_, _| ()), 1);
    // From the third frame on something else: two runs.
    assert_eq!(runs(|index, flow| flow.acknowledgement += u32::from(index >= 3)), 2);
    assert_eq!(runs(|index, flow| flow.window += u16::from(index >= 3)), 2);
    assert_eq!(runs(|index, flow| flow.options[7] += u8::from(index >= 3)), 2);
    assert_eq!(runs(|index, flow| flow.id = flow.id.wrapping_add(u16::from(index >= 3))), 2);
    assert_eq!(runs(|index, flow| flow.sequence = flow.sequence.wrapping_add(u32::from(index >= 3))), 2);
    assert_eq!(runs(|index, flow| flow.flags |= if index >= 3 { ECE } else { 0 }), 2);
    // A push ends a run; the next begins another.
    assert_eq!(runs(|index, flow| flow.flags |= if index == 3 { PSH } else { 0 }), 2);
    assert_eq!(runs(|index, flow| flow.flags |= if index == 3 { FIN } else { 0 }), 2);
    // These travel alone, between two runs.
    for flag in [SYN, 0x04, 0x20, CWR] {
        let frames = changed(|index, flow| flow.flags |= if index == 3 { flag } else { 0 });
        assert_eq!(joined(&frames, 1514).len(), 3);
    }
    // One frame is tagged.
    assert_eq!(runs(|index, flow| flow.tags.extend((index == 3).then_some([0x81, 0, 0, 1]))), 3);
}

/// Makes the checksums of an IPv4 TCP frame without tags and IP options right.
fn repair(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[50..52].fill(0);
    let len = ((frame.len() - 34) as u32).to_be_bytes();
    let sum = checksum(&[&frame[26..34], &len, &[0, 0, 0, 6], &frame[34..]]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn every_header_byte_matters() {
    let flow = example();
    let whole = flow.frames();
    for at in 0..flow.header_len() {
        let mut frames = whole.clone();
        frames[3][at] ^= 0x04;
        repair(&mut frames[3]);
        if frames == whole {
            continue; // a checksum's own byte
        }
        let messages = joined(&frames, 1514);
        assert!(messages.len() >= 2, "byte {at}");
        assert_eq!(split_all(&messages), frames, "byte {at}");
    }
    // A reserved bit of TCP's, of the kind later standards give a meaning.
    let mut frames = whole;
    frames.iter_mut().for_each(|frame| {
        frame[46] |= 1;
        repair(frame);
    });
    assert_eq!(joined(&frames, 1514).len(), frames.len());
}

#[test]
fn a_checksum_written_the_other_way_is_kept() {
    // 0 and 0xffff say the same; what is split off a super-frame says 0.
    for at in [24, 50] {
        let mut frames = example().frames();
        let frame = &mut frames[2];
        // With the checksum itself in a word that was zero, it becomes 0: in the identification, or in the payload.
        let word = if at == 24 { 18 } else { 80 };
        frame[word..word + 2].fill(0);
        repair(frame);
        frame.copy_within(at..at + 2, word);
        repair(frame);
        assert_eq!(frame[at..at + 2], [0, 0]);
        if at == 24 {
            // The identification was changed: the others' must follow it.
            let id = u16::from_be_bytes([frame[18], frame[19]]);
            for (index, frame) in frames.iter_mut().enumerate() {
                let id = id.wrapping_add(index as u16).wrapping_sub(2);
                frame[18..20].copy_from_slice(&id.to_be_bytes());
                repair(frame);
            }
        }
        assert_eq!(joined(&frames, 1514).len(), 1, "{at}");
        frames[2][at..at + 2].fill(0xff);
        let messages = joined(&frames, 1514);
        assert_eq!(messages.len(), 3, "{at}");
        assert_eq!(split_all(&messages), frames);
    }
}

#[test]
fn a_udp_checksum_is_never_none() {
    let mut flow = example();
    (flow.udp, flow.payload, flow.size) = (true, vec![0; 3000], 1000);
    let first = flow.frames().remove(0);
    let sum = [first[40], first[41]];
    flow.payload[..2].copy_from_slice(&sum);
    let frames = split_all(&[flow.super_frame()]);
    assert_eq!(frames[0][40..42], [0xff, 0xff]);
    assert_eq!(frames, flow.frames());
}

#[test]
fn broken_frames_stay_broken_and_alone() {
    let whole = example().frames();
    for index in 0..whole.len() {
        // A byte of payload, of TCP, of IPv4.
        for at in [200, 14 + 20 + 9, 14 + 8] {
            let mut frames = whole.clone();
            frames[index][at] ^= 0x10;
            let messages = joined(&frames, 1514);
            assert!(messages.contains(&(VnetHeader::default(), frames[index].clone())), "{index} {at}");
            assert_eq!(split_all(&messages), frames);
        }
    }
}

#[test]
fn long_frames_and_unwanted_kinds_are_not_joined() {
    let frames = example().frames();
    assert_eq!(joined(&frames, 1513).len(), frames.len());
    // One 802.1Q tag is free, a second and a service tag are not.
    for (tags, longest) in [
        (vec![[0x81, 0, 0, 1]], 1514),
        (vec![[0x81, 0, 0, 2], [0x81, 0, 0, 1]], 1518),
        (vec![[0x88, 0xa8, 0, 1]], 1518),
    ] {
        let frames = Flow { tags, ..example() }.frames();
        assert_eq!(joined(&frames, longest).len(), 1);
        assert_eq!(joined(&frames, longest - 1).len(), frames.len());
    }
    let kinds = JoinKinds { tcp4: false, ..JoinKinds::ALL };
    let mut joiner = Joiner::new(frames.iter().map(Vec::as_slice), 1514, kinds);
    let message = joiner.next(&mut Vec::new()).unwrap();
    assert_eq!((message.frames, message.vnet), (1, VnetHeader::default()));
}

#[test]
fn padded_frames_are_not_joined() {
    let mut flow = example();
    (flow.size, flow.options) = (2, Vec::new());
    flow.payload.truncate(8);
    let mut frames = flow.frames();
    frames.iter_mut().for_each(|frame| frame.resize(60, 0));
    assert_eq!(joined(&frames, 1514).len(), 4);
}

#[test]
fn a_long_run_keeps_to_the_limits_of_ip() {
    let mut flow = example();
    flow.payload = vec![7; 1448 * 100];
    let messages = joined(&flow.frames(), 1514);
    assert_eq!(split_all(&messages), flow.frames());
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|(_, bytes)| bytes.len() <= 14 + 65535));
}

#[test]
fn refused() {
    let flow = example();
    let (vnet, bytes) = flow.super_frame();
    let mut batch = FrameBatch::new(0);
    let mut attempt = |vnet: VnetHeader, bytes: &[u8]| split(&vnet, &mut bytes.to_vec(), &mut batch);
    assert_eq!(attempt(VnetHeader::default(), &bytes[..13]), Err(SplitError::Runt));
    assert_eq!(attempt(VnetHeader::default(), &[0; MAX_FRAME_LEN + 1]), Err(SplitError::TooLong));
    assert_eq!(attempt(VnetHeader { gso_size: 0, ..vnet }, &bytes), Err(SplitError::SegmentSize));
    assert_eq!(attempt(VnetHeader { gso_size: 1, ..vnet }, &bytes), Err(SplitError::SegmentSize));
    assert!(flow.payload.len() > MAX_SEGMENTS);
    assert_eq!(attempt(VnetHeader { gso_size: 9500, ..vnet }, &bytes), Err(SplitError::TooLong));
    assert_eq!(attempt(VnetHeader { gso: Gso::Tcp6, ..vnet }, &bytes), Err(SplitError::Headers));
    assert_eq!(attempt(VnetHeader { gso: Gso::Udp, ..vnet }, &bytes), Err(SplitError::Headers));
    assert_eq!(attempt(VnetHeader { gso: Gso::Unknown(3), ..vnet }, &bytes), Err(SplitError::UnknownKind(3)));
    assert_eq!(attempt(vnet, &bytes[..bytes.len() - 1]), Err(SplitError::Headers));
    assert_eq!(attempt(vnet, &bytes[..40]), Err(SplitError::Headers));
    let outside = Some(PartialChecksum { start: 60, offset: 16 });
    let outside = VnetHeader { partial: outside, ..VnetHeader::default() };
    assert_eq!(attempt(outside, &bytes[..77]), Err(SplitError::ChecksumPlace));
    assert!(batch.is_empty());
}

#[test]
fn a_super_frame_longer_than_ip_can_say_is_split() {
    // IPv6 TCP with gso_max_size above 64 KiB ("BIG TCP") has a payload length of 0.
    let mut flow = example();
    (flow.v6, flow.payload) = (true, vec![9; 200_000]);
    let (vnet, mut bytes) = flow.super_frame();
    bytes[18..20].fill(0);
    let mut batch = FrameBatch::new(0);
    split(&vnet, &mut bytes, &mut batch).unwrap();
    assert_eq!(batch.frames().map(<[u8]>::to_vec).collect::<Vec<_>>(), flow.frames());
}

#[test]
fn padding_behind_a_super_frame_is_left_out() {
    let mut flow = example();
    flow.size = 40;
    flow.payload.truncate(100);
    let (vnet, mut bytes) = flow.super_frame();
    bytes.extend([0xaa; 6]);
    assert_eq!(split_all(&[(vnet, bytes)]), flow.frames());
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut flow = example();
    flow.udp = true;
    let (vnet, mut bytes) = flow.super_frame();
    bytes[40..42].fill(0);
    let frames = split_all(&[(VnetHeader { partial: None, ..vnet }, bytes)]);
    assert!(frames.iter().all(|frame| frame[40..42] == [0, 0]));
    assert_eq!(frames.len(), flow.frames().len());
}

proptest! {
    #[test]
    fn split_is_what_a_sender_without_offloads_writes(flow in flows()) {
        let frames = flow.frames();
        prop_assert_eq!(split_all(&[flow.super_frame()]), frames);
    }

    #[test]
    fn a_partial_checksum_is_finished(flow in flows()) {
        let size = flow.payload.len().min(1400);
        let flow = Flow { payload: flow.payload[..size].to_vec(), size, ..flow };
        let (vnet, bytes) = flow.super_frame();
        let vnet = VnetHeader { partial: vnet.partial, ..VnetHeader::default() };
        let complete = flow.frame(0, &flow.payload, flow.flags, false);
        let finished = split_all(&[(vnet, bytes)]);
        // RFC 1071: 0 and 0xffff are the same number; a finished checksum is never written as 0.
        let at = flow.transport_at() + if flow.udp { 6 } else { 16 };
        if complete[at..at + 2] != [0, 0] {
            prop_assert_eq!(&finished[0], &complete);
        }
    }

    #[test]
    fn joinable_frames_become_one_message_and_come_back(flow in joinable_flows()) {
        let frames = flow.frames();
        let messages = joined(&frames, MAX_FRAME_LEN);
        if frames.len() > 1 && frames.iter().all(|frame| !checksum_is_ffff(&flow, frame)) {
            prop_assert_eq!(&messages, &[flow.super_frame()]);
        }
        prop_assert_eq!(split_all(&messages), frames);
    }

    #[test]
    fn any_mixture_comes_back_in_order(
        mixed in prop::collection::vec(flows(), 1..4),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6),
        drops in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let mut frames: Vec<Vec<u8>> = mixed.iter().flat_map(Flow::frames).collect();
        for (frame, at, value) in cuts {
            let index = frame.index(frames.len());
            let at = at.index(frames[index].len());
            frames[index][at] = value;
        }
        for drop in drops {
            let (index, other) = (drop.index(frames.len()), frames.len() - 1);
            frames.swap(index, other);
        }
        prop_assert_eq!(split_all(&joined(&frames, MAX_FRAME_LEN)), frames);
    }

    #[test]
    fn garbage_is_refused_or_bounded(
        header: [u8; VNET_HEADER_LEN],
        mut frame in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut batch = FrameBatch::new(4);
        if let Ok(count) = split(&VnetHeader::decode(&header), &mut frame, &mut batch) {
            prop_assert_eq!(batch.len(), count);
        } else {
            prop_assert!(batch.is_empty());
        }
    }

    #[test]
    fn super_frames_with_a_few_wrong_bytes_are_refused_or_bounded(
        flow in flows(),
        changes in prop::collection::vec((0_usize..130, any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        gso_size: u16,
    ) {
        let (vnet, mut bytes) = flow.super_frame();
        let mut header = VnetHeader { gso_size, ..vnet }.encode();
        for (at, value) in changes {
            match at.checked_sub(VNET_HEADER_LEN) {
                None => header[at] = value,
                Some(at) => if let Some(byte) = bytes.get_mut(at) { *byte = value },
            }
        }
        for len in [bytes.len(), cut.index(bytes.len())] {
            let mut batch = FrameBatch::new(4);
            if let Ok(count) = split(&VnetHeader::decode(&header), &mut bytes[..len].to_vec(), &mut batch) {
                prop_assert!(count <= MAX_SEGMENTS);
                prop_assert!(batch.frames().all(|frame| frame.len() <= MAX_FRAME_LEN));
            } else {
                prop_assert!(batch.is_empty());
            }
            let frames = [bytes[..len].to_vec(), bytes[..len].to_vec()];
            let _ = joined(&frames, MAX_FRAME_LEN);
        }
    }
}

/// A sum of zero is written as 0 by TCP; 0xffff cannot occur in what the reference writes, but would not be joined.
fn checksum_is_ffff(flow: &Flow, frame: &[u8]) -> bool {
    let at = flow.transport_at() + 16;
    !flow.udp && frame[at..at + 2] == [0xff, 0xff]
}
