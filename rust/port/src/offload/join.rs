//! Makes super-frames of TCP segments that follow each other, so that the kernel walks its stack once for many.
//!
//! Joining is exact: a segment joins only if splitting the super-frame ([`super::split`], or the kernel's own
//! segmentation) gives every frame back byte by byte. That includes checksums, which are verified before: a broken
//! segment must stay broken. Segments with VLAN tags, IP options or IPv6 extension headers travel alone.

use super::{
    checksum::Sum,
    headers::{ETHERNET, Ip, TCP},
    vnet::{Gso, PartialChecksum, VnetHeader},
};

/// Segments of one super-frame at most.
pub const MAX_PARTS: usize = 64;

/// Bytes of headers of a super-frame at most: Ethernet, IPv6, TCP with all options.
pub const MAX_HEADERS: usize = ETHERNET + 40 + 60;

/// IP packets cannot be longer (RFC 791 section 3.1), and GSO over `virtio_net_hdr` knows no jumbograms.
const MAX_PACKET: usize = 65535;

const FIN_AND_PSH: u8 = 0x01 | 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// One thing to hand to the kernel: a `virtio_net_hdr`, then headers, then payload slices.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The note for the kernel.
    pub vnet: VnetHeader,
    /// Bytes of `headers` in use: 0 when the message is one whole frame.
    pub header_len: usize,
    /// Slices the message added to `parts`.
    pub parts: usize,
    /// Frames the message stands for.
    pub frames: usize,
    headers: [u8; MAX_HEADERS],
}

impl Message {
    /// The headers in front of the parts: empty for one whole frame.
    pub fn headers(&self) -> &[u8] {
        &self.headers[..self.header_len]
    }
}

/// Walks over frames and gives them back as messages: whole frames, and super-frames where frames can be joined.
#[derive(Debug)]
pub struct Joiner<'a, I> {
    frames: I,
    /// The frame that ended the run before it.
    held: Option<(&'a [u8], Option<Segment>)>,
    /// Longest frame that may become a segment, in bytes.
    max_frame: usize,
    kinds: JoinKinds,
}

/// Which super-frames the other side takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinKinds {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
}

impl JoinKinds {
    /// All of them.
    pub const ALL: Self = Self { tcp4: true, tcp6: true };
    /// None: every frame travels alone.
    pub const NONE: Self = Self { tcp4: false, tcp6: false };
}

impl<'a, I: Iterator<Item = &'a [u8]>> Joiner<'a, I> {
    /// Over `frames`; frames longer than `max_frame` bytes are not joined.
    pub fn new(
        frames: impl IntoIterator<Item = &'a [u8], IntoIter = I>,
        max_frame: usize,
        kinds: JoinKinds,
    ) -> Self {
        Self { frames: frames.into_iter(), held: None, max_frame, kinds }
    }

    /// The next message; its payload slices are appended to `parts`, at most [`MAX_PARTS`].
    pub fn next(&mut self, parts: &mut Vec<&'a [u8]>) -> Option<Message> {
        let (frame, segment) = match self.held.take() {
            Some(held) => held,
            None => {
                let frame = self.frames.next()?;
                (frame, self.segment(frame))
            }
        };
        let Some(first) = segment else { return Some(alone(frame, parts)) };
        let mut run = Run {
            first: frame,
            segment: first,
            last: first,
            parts: 1,
            payload: first.payload_len(),
            open: first.ends == 0,
        };
        let start = parts.len();
        parts.push(&frame[usize::from(first.payload)..usize::from(first.end)]);
        while run.open && run.parts < MAX_PARTS {
            let Some(frame) = self.frames.next() else { break };
            let segment = self.segment(frame);
            match segment {
                Some(next) if run.takes(frame, &next) => {
                    parts.push(&frame[usize::from(next.payload)..usize::from(next.end)]);
                }
                _ => {
                    self.held = Some((frame, segment));
                    break;
                }
            }
        }
        if run.parts == 1 {
            parts.truncate(start);
            return Some(alone(run.first, parts));
        }
        Some(run.message())
    }

    fn segment(&self, frame: &[u8]) -> Option<Segment> {
        let segment = Segment::of(frame, self.max_frame)?;
        let wanted = match segment.ip {
            Ip::V4 => self.kinds.tcp4,
            Ip::V6 => self.kinds.tcp6,
        };
        wanted.then_some(segment)
    }
}

fn alone<'a>(frame: &'a [u8], parts: &mut Vec<&'a [u8]>) -> Message {
    parts.push(frame);
    Message { vnet: VnetHeader::default(), header_len: 0, parts: 1, frames: 1, headers: [0; MAX_HEADERS] }
}

/// A frame that may be joined, as far as its headers tell.
#[derive(Clone, Copy, Debug)]
struct Segment {
    ip: Ip,
    /// Where TCP begins.
    transport: u16,
    /// Where the payload begins.
    payload: u16,
    /// Where it ends: the frame's end.
    end: u16,
    sequence: u32,
    id: u16,
    /// Without FIN and PSH.
    flags: u8,
    /// FIN and PSH: either ends a run.
    ends: u8,
}

impl Segment {
    fn of(frame: &[u8], max_frame: usize) -> Option<Self> {
        if frame.len() > max_frame.min(usize::from(u16::MAX)) || frame.len() < ETHERNET + 40 {
            return None;
        }
        let ip_header = &frame[ETHERNET..];
        let (ip, transport, id) = match (frame[12], frame[13]) {
            (0x08, 0x00) => {
                // Version 4 without options, TCP, not a fragment (nor the reserved flag), no padding behind.
                let whole = u16::from_be_bytes([ip_header[6], ip_header[7]]) & !0x4000 == 0;
                let len = usize::from(u16::from_be_bytes([ip_header[2], ip_header[3]]));
                if ip_header[0] != 0x45 || ip_header[9] != TCP || !whole || len != ip_header.len() {
                    return None;
                }
                (Ip::V4, ETHERNET + 20, u16::from_be_bytes([ip_header[4], ip_header[5]]))
            }
            (0x86, 0xdd) => {
                let len = usize::from(u16::from_be_bytes([ip_header[4], ip_header[5]]));
                if ip_header[0] >> 4 != 6 || ip_header[6] != TCP || len + 40 != ip_header.len() {
                    return None;
                }
                (Ip::V6, ETHERNET + 40, 0)
            }
            _ => return None,
        };
        let tcp = frame.get(transport..transport + 20)?;
        let payload = transport + usize::from(tcp[12] >> 4) * 4;
        let flags = tcp[13] & !FIN_AND_PSH;
        // ECE repeats in every segment; CWR, URG, SYN, RST and the reserved bits mean something once.
        let plain = flags & !ECE == ACK && tcp[12] & 0x0f == 0;
        if payload < transport + 20 || payload >= frame.len() || !plain {
            return None;
        }
        Some(Self {
            ip,
            transport: transport as u16,
            payload: payload as u16,
            end: frame.len() as u16,
            sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            id,
            flags,
            ends: tcp[13] & FIN_AND_PSH,
        })
    }

    fn payload_len(&self) -> usize {
        usize::from(self.end - self.payload)
    }

    /// Whether all checksums are right, and written the one way a sender of segments writes them.
    fn is_whole(&self, frame: &[u8]) -> bool {
        let transport = usize::from(self.transport);
        let (addresses, ip_whole) = match self.ip {
            Ip::V4 => {
                let header = &frame[ETHERNET..transport];
                (&header[12..20], header[10..12] != [0xff, 0xff] && Sum::of(header).is_whole())
            }
            Ip::V6 => (&frame[ETHERNET + 8..ETHERNET + 40], true),
        };
        let tcp = &frame[transport..];
        // 0xffff is another way to write 0, which splitting would not restore.
        ip_whole
            && tcp[16..18] != [0xff, 0xff]
            && Sum::pseudo_header(addresses, TCP, tcp.len()).plus(Sum::of(tcp)).is_whole()
    }
}

/// Segments found to follow each other.
struct Run<'a> {
    first: &'a [u8],
    segment: Segment,
    last: Segment,
    parts: usize,
    payload: usize,
    /// Whether one more may follow: the last was of full size, without PSH or FIN, and its checksums are right.
    open: bool,
}

impl Run<'_> {
    /// Takes the segment if it follows the run.
    fn takes(&mut self, frame: &[u8], next: &Segment) -> bool {
        if !self.follows(frame, next) {
            return false;
        }
        // The first's checksums matter, and cost a pass over it, only now that a second may join it.
        if self.parts == 1 && !self.segment.is_whole(self.first) {
            self.open = false;
            return false;
        }
        if !next.is_whole(frame) {
            return false;
        }
        self.parts += 1;
        self.payload += next.payload_len();
        self.last = *next;
        self.open = next.ends == 0 && next.payload_len() == self.segment.payload_len();
        true
    }

    fn follows(&self, frame: &[u8], next: &Segment) -> bool {
        let (first, segment) = (self.first, &self.segment);
        let transport = usize::from(segment.transport);
        let payload = usize::from(segment.payload);
        // A first segment with PSH or FIN stands alone.
        if self.last.ends != 0
            || next.ip != segment.ip
            || next.payload != segment.payload
            || next.flags != segment.flags
            || next.sequence != self.last.sequence.wrapping_add(self.last.payload_len() as u32)
            || next.payload_len() > segment.payload_len()
            || payload - ETHERNET + self.payload + next.payload_len() > MAX_PACKET
        {
            return false;
        }
        let same = |from: usize, to: usize| first[from..to] == frame[from..to];
        let ip_same = match segment.ip {
            // All but total length, identification and header checksum.
            Ip::V4 => {
                next.id == self.last.id.wrapping_add(1)
                    && same(0, ETHERNET + 2)
                    && same(ETHERNET + 6, ETHERNET + 10)
                    && same(ETHERNET + 12, transport)
            }
            // All but payload length.
            Ip::V6 => same(0, ETHERNET + 4) && same(ETHERNET + 6, transport),
        };
        // Ports; acknowledgement and data offset; window; urgent pointer and options (timestamps too).
        ip_same
            && same(transport, transport + 4)
            && same(transport + 8, transport + 13)
            && same(transport + 14, transport + 16)
            && same(transport + 18, payload)
    }

    fn message(&self) -> Message {
        let mut headers = [0; MAX_HEADERS];
        let transport = usize::from(self.segment.transport);
        let header_len = usize::from(self.segment.payload);
        headers[..header_len].copy_from_slice(&self.first[..header_len]);
        let tcp_len = header_len - transport + self.payload;
        let addresses = match self.segment.ip {
            Ip::V4 => {
                let total = (transport - ETHERNET + tcp_len) as u16;
                headers[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
                headers[ETHERNET + 10..ETHERNET + 12].fill(0);
                let checksum = Sum::of(&headers[ETHERNET..transport]).checksum();
                headers[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum);
                ETHERNET + 12..ETHERNET + 20
            }
            Ip::V6 => {
                headers[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
                ETHERNET + 8..ETHERNET + 40
            }
        };
        // PSH and FIN of the last segment; only that one can have them.
        headers[transport + 13] |= self.last.ends;
        // CHECKSUM_PARTIAL (linux/skbuff.h): the field holds the pseudo-header's sum, not complemented.
        let pseudo = Sum::pseudo_header(&headers[addresses], TCP, tcp_len).to_bytes();
        headers[transport + 16..transport + 18].copy_from_slice(&pseudo);
        let gso = match self.segment.ip {
            Ip::V4 => Gso::Tcp4,
            Ip::V6 => Gso::Tcp6,
        };
        Message {
            vnet: VnetHeader {
                partial: Some(PartialChecksum { start: transport as u16, offset: 16 }),
                gso,
                ecn: false,
                header_len: header_len as u16,
                gso_size: self.segment.payload_len() as u16,
            },
            header_len,
            parts: self.parts,
            frames: self.parts,
            headers,
        }
    }
}
