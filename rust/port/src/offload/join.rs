//! Makes super-frames of TCP segments, and of UDP datagrams, that follow each other, so that the kernel walks its stack once for many.
//!
//! Joining is exact: a segment joins only if splitting the super-frame ([`super::split`], or the kernel's own
//! segmentation) gives every frame back byte by byte. That includes checksums, which are verified before: a broken
//! segment must stay broken. One field may come back as another number: the identification of UDP datagrams that must not be
//! fragmented, which many senders leave at one value and nobody may read (RFC 6864 section 4.1).
//! Segments with IP options or IPv6 extension headers travel alone.

use super::{
    checksum::Sum,
    headers::{ETHERNET, Ip, TCP, UDP},
    vnet::{Gso, PartialChecksum, VnetHeader},
};

/// Segments of one super-frame at most.
pub const MAX_PARTS: usize = 64;

/// VLAN tags of a segment at most; these kinds of them, which the kernel's segmentation looks behind (`eth_type_vlan`).
const MAX_TAGS: usize = 2;
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// Bytes of headers of a super-frame at most: Ethernet with tags, IPv6, TCP with all options.
pub const MAX_HEADERS: usize = ETHERNET + 4 * MAX_TAGS + 40 + 60;

/// IP packets cannot be longer (RFC 791 section 3.1), and GSO over `virtio_net_hdr` knows no jumbograms.
const MAX_PACKET: usize = 65535;

const FIN_AND_PSH: u8 = 0x01 | 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// Where the fields are, counted from the transport header's first byte.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const UDP_HEADER: usize = 8;
/// "Don't fragment", in the first byte of IPv4's flags.
const DF: u8 = 0x40;

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
    /// Whether VLAN tags stand in front of its IP header; false for one whole frame.
    pub tagged: bool,
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
    /// UDP over either (Linux 6.2 and later).
    pub udp: bool,
    /// Any of them behind VLAN tags.
    pub tagged: bool,
}

impl JoinKinds {
    /// All of them.
    pub const ALL: Self = Self { tcp4: true, tcp6: true, udp: true, tagged: true };
    /// None: every frame travels alone.
    pub const NONE: Self = Self { tcp4: false, tcp6: false, udp: false, tagged: false };
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
            id_step: None,
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
        let wanted = match (segment.protocol, segment.ip) {
            (UDP, _) => self.kinds.udp,
            (_, Ip::V4) => self.kinds.tcp4,
            (_, Ip::V6) => self.kinds.tcp6,
        };
        (wanted && (self.kinds.tagged || !segment.is_tagged())).then_some(segment)
    }
}

fn alone<'a>(frame: &'a [u8], parts: &mut Vec<&'a [u8]>) -> Message {
    parts.push(frame);
    Message {
        vnet: VnetHeader::default(),
        header_len: 0,
        parts: 1,
        frames: 1,
        tagged: false,
        headers: [0; MAX_HEADERS],
    }
}

/// A frame that may be joined, as far as its headers tell.
#[derive(Clone, Copy, Debug)]
struct Segment {
    ip: Ip,
    /// TCP or UDP.
    protocol: u8,
    /// Where IP begins.
    network: u16,
    /// Where TCP or UDP begins.
    transport: u16,
    /// Where the payload begins.
    payload: u16,
    /// Where it ends: the frame's end.
    end: u16,
    /// TCP only, as are the flags.
    sequence: u32,
    id: u16,
    /// Without FIN and PSH.
    flags: u8,
    /// FIN and PSH: either ends a run.
    ends: u8,
}

impl Segment {
    fn of(frame: &[u8], max_frame: usize) -> Option<Self> {
        let tags = tags(frame);
        // One 802.1Q tag does not count against the interface's MTU (packet_extra_vlan_len_allowed in the kernel).
        let extra = if frame.get(ETHERNET - 2..ETHERNET) == Some(&TAGS[0]) { 4 } else { 0 };
        let longest = max_frame.saturating_add(extra).min(usize::from(u16::MAX));
        let network = ETHERNET + 4 * tags;
        if frame.len() > longest || frame.len() < network + 28 {
            return None;
        }
        let ip_header = &frame[network..];
        let (ip, protocol, transport, id) = match (frame[network - 2], frame[network - 1]) {
            (0x08, 0x00) => {
                // Version 4 without options, not a fragment (nor the reserved flag), no padding behind.
                let whole = u16::from_be_bytes([ip_header[6] & !DF, ip_header[7]]) == 0;
                let len = usize::from(u16::from_be_bytes([ip_header[2], ip_header[3]]));
                if ip_header[0] != 0x45 || !whole || len != ip_header.len() {
                    return None;
                }
                let id = u16::from_be_bytes([ip_header[4], ip_header[5]]);
                (Ip::V4, ip_header[9], network + 20, id)
            }
            (0x86, 0xdd) => {
                let len = usize::from(u16::from_be_bytes([ip_header[4], ip_header[5]]));
                if ip_header[0] >> 4 != 6 || len + 40 != ip_header.len() {
                    return None;
                }
                (Ip::V6, ip_header[6], network + 40, 0)
            }
            _ => return None,
        };
        let segment = Self {
            ip,
            protocol,
            network: network as u16,
            transport: transport as u16,
            payload: 0,
            end: frame.len() as u16,
            sequence: 0,
            id,
            flags: 0,
            ends: 0,
        };
        match protocol {
            TCP => segment.of_tcp(frame, transport),
            UDP => segment.of_udp(frame, transport),
            _ => None,
        }
    }

    fn of_tcp(self, frame: &[u8], transport: usize) -> Option<Self> {
        let tcp = frame.get(transport..transport + 20)?;
        let payload = transport + usize::from(tcp[12] >> 4) * 4;
        let flags = tcp[13] & !FIN_AND_PSH;
        // ECE repeats in every segment; CWR, URG, SYN, RST and the reserved bits mean something once.
        let plain = flags & !ECE == ACK && tcp[12] & 0x0f == 0;
        if payload < transport + 20 || payload >= frame.len() || !plain {
            return None;
        }
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        Some(Self { payload: payload as u16, sequence, flags, ends: tcp[13] & FIN_AND_PSH, ..self })
    }

    fn of_udp(self, frame: &[u8], transport: usize) -> Option<Self> {
        let udp = frame.get(transport..transport + UDP_HEADER)?;
        let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        // Without a checksum (zero, RFC 768) nothing says that the datagram is whole.
        let summed = udp[UDP_CHECKSUM..] != [0, 0];
        let payload = transport + UDP_HEADER;
        (summed && len == frame.len() - transport && payload < frame.len())
            .then_some(Self { payload: payload as u16, ..self })
    }

    fn payload_len(&self) -> usize {
        usize::from(self.end - self.payload)
    }

    fn is_tagged(&self) -> bool {
        usize::from(self.network) > ETHERNET
    }

    /// Where the checksum is, counted from the transport header.
    fn checksum(&self) -> usize {
        if self.protocol == UDP { UDP_CHECKSUM } else { TCP_CHECKSUM }
    }

    /// Whether all checksums are right, and written the one way a sender of segments writes them.
    fn is_whole(&self, frame: &[u8]) -> bool {
        let (network, transport) = (usize::from(self.network), usize::from(self.transport));
        let (addresses, ip_whole) = match self.ip {
            Ip::V4 => {
                let header = &frame[network..transport];
                (&header[12..20], header[10..12] != [0xff, 0xff] && Sum::of(header).is_whole())
            }
            Ip::V6 => (&frame[network + 8..network + 40], true),
        };
        let bytes = &frame[transport..];
        // In TCP 0xffff is another way to write 0, which splitting would not restore; in UDP it is the one way.
        ip_whole
            && (self.protocol == UDP || bytes[TCP_CHECKSUM..TCP_CHECKSUM + 2] != [0xff, 0xff])
            && Sum::pseudo_header(addresses, self.protocol, bytes.len()).plus(Sum::of(bytes)).is_whole()
    }
}

/// VLAN tags in front of the EtherType.
fn tags(frame: &[u8]) -> usize {
    let is_tag = |at: usize| frame.get(at..at + 2).is_some_and(|kind| TAGS.iter().any(|tag| kind == tag));
    (0..MAX_TAGS).take_while(|tag| is_tag(ETHERNET - 2 + 4 * tag)).count()
}

/// Segments found to follow each other.
struct Run<'a> {
    first: &'a [u8],
    segment: Segment,
    last: Segment,
    parts: usize,
    payload: usize,
    /// By how much the identification grows, once there are two.
    id_step: Option<u16>,
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
        self.id_step = Some(next.id.wrapping_sub(self.last.id));
        self.parts += 1;
        self.payload += next.payload_len();
        self.last = *next;
        self.open = next.ends == 0 && next.payload_len() == self.segment.payload_len();
        true
    }

    fn follows(&self, frame: &[u8], next: &Segment) -> bool {
        let (first, segment) = (self.first, &self.segment);
        let network = usize::from(segment.network);
        let transport = usize::from(segment.transport);
        let payload = usize::from(segment.payload);
        // A first segment with PSH or FIN stands alone. TCP's place of the payload tells its options' length.
        if self.last.ends != 0
            || (next.ip, next.protocol) != (segment.ip, segment.protocol)
            || (next.network, next.payload) != (segment.network, segment.payload)
            || next.flags != segment.flags
            || next.payload_len() > segment.payload_len()
            || payload - network + self.payload + next.payload_len() > MAX_PACKET
        {
            return false;
        }
        let same = |from: usize, to: usize| first[from..to] == frame[from..to];
        let ip_same = match segment.ip {
            // All but total length, identification and header checksum.
            Ip::V4 => {
                self.id_follows(next)
                    && same(0, network + 2)
                    && same(network + 6, network + 10)
                    && same(network + 12, transport)
            }
            // All but payload length.
            Ip::V6 => same(0, network + 4) && same(network + 6, transport),
        };
        // Ports, and for TCP: acknowledgement and data offset; window; urgent pointer and options (timestamps too).
        ip_same
            && same(transport, transport + 4)
            && (segment.protocol == UDP
                || next.sequence == self.last.sequence.wrapping_add(self.last.payload_len() as u32)
                    && same(transport + 8, transport + 13)
                    && same(transport + 14, transport + 16)
                    && same(transport + 18, payload))
    }

    /// Whether the identification counts up; for UDP that must not be fragmented it may stay the same as well.
    fn id_follows(&self, next: &Segment) -> bool {
        let step = next.id.wrapping_sub(self.last.id);
        let atomic =
            self.segment.protocol == UDP && self.first[usize::from(self.segment.network) + 6] & DF != 0;
        let may = step == 1 || step == 0 && atomic;
        may && self.id_step.is_none_or(|known| known == step)
    }

    fn message(&self) -> Message {
        let mut headers = [0; MAX_HEADERS];
        let network = usize::from(self.segment.network);
        let transport = usize::from(self.segment.transport);
        let header_len = usize::from(self.segment.payload);
        headers[..header_len].copy_from_slice(&self.first[..header_len]);
        let len = header_len - transport + self.payload;
        let addresses = match self.segment.ip {
            Ip::V4 => {
                let total = (transport - network + len) as u16;
                headers[network + 2..network + 4].copy_from_slice(&total.to_be_bytes());
                headers[network + 10..network + 12].fill(0);
                let checksum = Sum::of(&headers[network..transport]).checksum();
                headers[network + 10..network + 12].copy_from_slice(&checksum);
                network + 12..network + 20
            }
            Ip::V6 => {
                headers[network + 4..network + 6].copy_from_slice(&(len as u16).to_be_bytes());
                network + 8..network + 40
            }
        };
        if self.segment.protocol == UDP {
            headers[transport + 4..transport + 6].copy_from_slice(&(len as u16).to_be_bytes());
        } else {
            // PSH and FIN of the last segment; only that one can have them.
            headers[transport + 13] |= self.last.ends;
        }
        // CHECKSUM_PARTIAL (linux/skbuff.h): the field holds the pseudo-header's sum, not complemented.
        let pseudo = Sum::pseudo_header(&headers[addresses], self.segment.protocol, len).to_bytes();
        let field = transport + self.segment.checksum();
        headers[field..field + 2].copy_from_slice(&pseudo);
        let gso = match (self.segment.protocol, self.segment.ip) {
            (UDP, _) => Gso::Udp,
            (_, Ip::V4) => Gso::Tcp4,
            (_, Ip::V6) => Gso::Tcp6,
        };
        let partial = PartialChecksum { start: transport as u16, offset: self.segment.checksum() as u16 };
        Message {
            vnet: VnetHeader {
                partial: Some(partial),
                gso,
                ecn: false,
                header_len: header_len as u16,
                gso_size: self.segment.payload_len() as u16,
            },
            header_len,
            parts: self.parts,
            frames: self.parts,
            tagged: self.segment.is_tagged(),
            headers,
        }
    }
}
