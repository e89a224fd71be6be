//! Joining frames: splitting what was joined gives every frame back, byte by byte and in order.
//!
//! Input: a flow (see [`Flow::read`]), then changes to its frames, 5 bytes each: which frame, where (2; the top bit: within
//! the headers), what is xored in, and a byte whose lowest bit makes the checksums right again, and whose next drops, and next
//! doubles the frame.

use softlan_port::{
    FrameBatch, MAX_FRAME_LEN,
    offload::{
        checksum::Sum,
        join::{JoinKinds, Joiner, MAX_PARTS},
        split::split,
        vnet::VnetHeader,
    },
};

use crate::source::{Source, pattern};

/// Builds the frames, joins and splits them.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let mut frames = Flow::read(&mut source).frames();
    while !source.is_empty() && !frames.is_empty() {
        let at = usize::from(source.byte()) % frames.len();
        let place = match usize::from(source.word()) {
            header if header & 0x8000 != 0 => (header & 0x7fff) % frames[at].len().min(80),
            anywhere => anywhere % frames[at].len(),
        };
        frames[at][place] ^= source.byte();
        let deed = source.byte();
        if deed & 1 != 0 {
            repair(&mut frames[at]);
        }
        if deed & 2 != 0 {
            frames.remove(at);
        } else if deed & 4 != 0 && frames.len() < 300 {
            frames.insert(at, frames[at].clone());
        }
    }
    comes_back(&frames);
}

/// Joins `frames`, for a kernel that takes both kinds of super-frame and for one that takes one, and splits the result.
pub fn comes_back(frames: &[Vec<u8>]) {
    let tcp4 = frames.len().is_multiple_of(2);
    for kinds in [JoinKinds::ALL, JoinKinds { tcp4, tcp6: !tcp4, udp: !tcp4, tagged: tcp4 }] {
        let mut joiner = Joiner::new(frames.iter().map(Vec::as_slice), MAX_FRAME_LEN, kinds);
        let mut batch = FrameBatch::new(0);
        let (mut parts, mut count) = (Vec::new(), 0);
        while let Some(message) = joiner.next(&mut parts) {
            assert!(parts.len() == message.parts && message.parts <= MAX_PARTS);
            let mut bytes = message.headers().to_vec();
            parts.drain(..).for_each(|part| bytes.extend(part));
            assert!(message.frames == 1 || bytes.len() <= 14 + 65535 + 40);
            // Through the bytes that the kernel sees.
            let vnet = VnetHeader::decode(&message.vnet.encode());
            let made = split(&vnet, &mut bytes, &mut batch).expect("what was joined splits");
            assert_eq!(made, message.frames);
            count += made;
        }
        assert_eq!(count, frames.len());
        let same = batch.frames().zip(frames).all(|(came, went)| came == went || is_renumbered(came, went));
        assert!(same && batch.len() == frames.len(), "other frames came back");
    }
}

/// Whether the frames differ in what a joined UDP datagram of IPv4 that may not be fragmented can lose: its identification, which means
/// nothing there (RFC 6864 section 4.1), and the header checksum with it, which is right all the same.
fn is_renumbered(came: &[u8], went: &[u8]) -> bool {
    const MAY_NOT_FRAGMENT: u8 = 0x40;
    let ip = ip_at(went);
    if came.len() != went.len() || went.len() < ip + 20 {
        return false;
    }
    if went[ip - 2..ip] != [0x08, 0x00] || went[ip + 6] & MAY_NOT_FRAGMENT == 0 || went[ip + 9] != UDP {
        return false;
    }
    // RFC 1071: all words of a header that is whole add up to nothing.
    let words = came[ip..ip + 20].chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let skipped = |index: usize| matches!(index.wrapping_sub(ip), 4 | 5 | 10 | 11);
    words.sum::<u32>() % 0xffff == 0
        && came.iter().zip(went).enumerate().all(|(index, (came, went))| came == went || skipped(index))
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where IP begins, behind any tags.
fn ip_at(frame: &[u8]) -> usize {
    let mut at = 12;
    while frame.get(at..at + 2).is_some_and(|tpid| matches!(tpid, [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]))
    {
        at += 4;
    }
    at + 2
}

/// A TCP stream's piece, or datagrams of one UDP flow.
struct Flow {
    v6: bool,
    udp: bool,
    /// In front of the EtherType.
    tags: &'static [u8],
    flags: u8,
    options: usize,
    sequence: u32,
    id: u16,
    size: usize,
    payload: Vec<u8>,
}

impl Flow {
    /// Shape (bit 0: IPv6; bits 1 to 4: words of TCP's options; bit 5: a tag; bit 6: UDP; bit 7: a tag before that of bit 5), TCP's flags (of
    /// UDP bit 0: the identification stays, bit 1: it may be fragmented), sequence (4), identification (2), segment size (2), bytes of
    /// payload (2), their seed.
    fn read(source: &mut Source<'_>) -> Self {
        let shape = source.byte();
        let (flags, sequence, id) = (source.byte(), source.long(), source.word());
        let size = usize::from(source.word()) % 1448 + 1;
        let len = usize::from(source.word()).min(size * 150);
        Self {
            v6: shape & 1 != 0,
            udp: shape & 0x40 != 0,
            tags: match shape & 0xa0 {
                0 => &[],
                0x20 => &[0x81, 0x00, 0x60, 0x05],
                0x80 => &[0x88, 0xa8, 0x00, 0x07],
                _ => &[0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x60, 0x05],
            },
            flags,
            options: usize::from(shape >> 1 & 0x0f) % 11 * 4,
            sequence,
            id,
            size,
            payload: pattern(source.byte(), len),
        }
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(self.size);
        let frame = |(index, part): (usize, &[u8])| {
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            frame.extend(self.tags);
            let (protocol, header) = if self.udp { (UDP, 8) } else { (TCP, 20 + self.options) };
            let len = (header + part.len()) as u16;
            if self.v6 {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(pattern(1, 32));
            } else {
                let stays = self.udp && self.flags & 1 != 0;
                let may_fragment = self.udp && self.flags & 2 != 0;
                let step = if stays { 0 } else { index as u16 };
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + len).to_be_bytes());
                frame.extend(self.id.wrapping_add(step).to_be_bytes());
                frame.extend([if may_fragment { 0 } else { 0x40 }, 0, 64, protocol, 0, 0]);
                frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            }
            frame.extend([0x30, 0x39, 0, 80]);
            if self.udp {
                frame.extend(len.to_be_bytes());
                frame.extend([0, 0]);
            } else {
                let last = index + 1 == count;
                frame.extend(self.sequence.wrapping_add((index * self.size) as u32).to_be_bytes());
                frame.extend([1, 2, 3, 4, (((20 + self.options) / 4) << 4) as u8]);
                frame.push(if last { self.flags } else { self.flags & !0x09 });
                frame.extend([1, 0, 0, 0, 0, 0]);
                frame.extend(vec![1; self.options]);
            }
            frame.extend(part);
            repair(&mut frame);
            frame
        };
        self.payload.chunks(self.size).enumerate().map(frame).collect()
    }
}

/// Makes the checksums right of a frame that still has the place for them.
fn repair(frame: &mut [u8]) {
    let ip = ip_at(frame);
    let is_v6 = frame.get(ip - 2..ip) == Some(&[0x86, 0xdd]);
    let (addresses, at, protocol) =
        if is_v6 { (ip + 8..ip + 40, ip + 40, ip + 6) } else { (ip + 12..ip + 20, ip + 20, ip + 9) };
    let is_udp = frame.get(protocol) == Some(&UDP);
    let (protocol, field, shortest) = if is_udp { (UDP, at + 6, 8) } else { (TCP, at + 16, 20) };
    if frame.len() < at + shortest {
        return;
    }
    if !is_v6 {
        frame[ip + 10..ip + 12].fill(0);
        let sum = Sum::of(&frame[ip..at]).checksum();
        frame[ip + 10..ip + 12].copy_from_slice(&sum);
    }
    frame[field..field + 2].fill(0);
    let sum = Sum::pseudo_header(&frame[addresses], protocol, frame.len() - at)
        .plus(Sum::of(&frame[at..]))
        .checksum();
    // In UDP zero is no checksum (RFC 768).
    let sum = if is_udp && sum == [0, 0] { [0xff, 0xff] } else { sum };
    frame[field..field + 2].copy_from_slice(&sum);
}
