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
/// nothing there (RFC 6864 section 4.1), and the header checksum with it.
fn is_renumbered(came: &[u8], went: &[u8]) -> bool {
    const MAY_NOT_FRAGMENT: u8 = 0x40;
    const UDP: u8 = 17;
    let mut at = 12;
    while went.get(at..at + 2).is_some_and(|tpid| matches!(tpid, [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]))
    {
        at += 4;
    }
    let ip = at + 2;
    if came.len() != went.len() || went.len() < ip + 20 {
        return false;
    }
    if went[at..ip] != [0x08, 0x00] || went[ip + 6] & MAY_NOT_FRAGMENT == 0 || went[ip + 9] != UDP {
        return false;
    }
    let skipped = |index: usize| matches!(index.wrapping_sub(ip), 4 | 5 | 10 | 11);
    came.iter().zip(went).enumerate().all(|(index, (came, went))| came == went || skipped(index))
}

/// A TCP stream's piece.
struct Flow {
    v6: bool,
    flags: u8,
    options: usize,
    sequence: u32,
    id: u16,
    size: usize,
    payload: Vec<u8>,
}

impl Flow {
    /// Shape (bit 0: IPv6; the rest: words of options), flags, sequence (4), identification (2), segment size (2), bytes of payload
    /// (2), their seed.
    fn read(source: &mut Source<'_>) -> Self {
        let shape = source.byte();
        let (flags, sequence, id) = (source.byte(), source.long(), source.word());
        let size = usize::from(source.word()) % 1448 + 1;
        let len = usize::from(source.word()).min(size * 150);
        Self {
            v6: shape & 1 != 0,
            flags,
            options: usize::from(shape >> 1) % 11 * 4,
            sequence,
            id,
            size,
            payload: pattern(source.byte(), len),
        }
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(self.size);
        let frame = |(index, part): (usize, &[u8])| {
            let last = index + 1 == count;
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            let tcp_len = 20 + self.options + part.len();
            if self.v6 {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((tcp_len as u16).to_be_bytes());
                frame.extend([6, 64]);
                frame.extend(pattern(1, 32));
            } else {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + tcp_len as u16).to_be_bytes());
                frame.extend(self.id.wrapping_add(index as u16).to_be_bytes());
                frame.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            }
            frame.extend([0x30, 0x39, 0, 80]);
            frame.extend(self.sequence.wrapping_add((index * self.size) as u32).to_be_bytes());
            frame.extend([1, 2, 3, 4, (((20 + self.options) / 4) << 4) as u8]);
            frame.push(if last { self.flags } else { self.flags & !0x09 });
            frame.extend([1, 0, 0, 0, 0, 0]);
            frame.extend(vec![1; self.options]);
            frame.extend(part);
            repair(&mut frame);
            frame
        };
        self.payload.chunks(self.size).enumerate().map(frame).collect()
    }
}

/// Makes the checksums right of a frame that still has the place for them.
fn repair(frame: &mut [u8]) {
    let (addresses, at) = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ..] => (22..54, 54),
        _ => (26..34, 34),
    };
    if frame.len() < at + 20 {
        return;
    }
    if at == 34 {
        frame[24..26].fill(0);
        let sum = Sum::of(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum);
    }
    frame[at + 16..at + 18].fill(0);
    let sum = Sum::pseudo_header(&frame[addresses], 6, frame.len() - at).plus(Sum::of(&frame[at..]));
    frame[at + 16..at + 18].copy_from_slice(&sum.checksum());
}
