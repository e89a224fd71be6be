//! Finds the IP and transport headers of a frame that is to be split.

/// IP protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// IP protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// More tags than any switch stacks.
const MAX_TAGS: usize = 4;
/// More IPv6 extension headers than RFC 8200 section 4.1 recommends to send.
const MAX_EXTENSIONS: usize = 8;

/// Which IP header a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

/// Where the headers of a whole (not IP-fragmented) TCP or UDP packet begin, in bytes from the frame's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub ip: Ip,
    pub network: usize,
    pub transport: usize,
    pub protocol: u8,
}

impl Layout {
    /// Finds the headers. `None`: something else, or cut short. All offsets of a layout lie within the frame, and the
    /// fixed parts of the IP header do too.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let mut network = ETHERNET;
        let mut ethertype = word(frame, network - 2)?;
        for _ in 0..MAX_TAGS {
            if !ETHERTYPES_VLAN.contains(&ethertype) {
                break;
            }
            network += 4;
            ethertype = word(frame, network - 2)?;
        }
        match ethertype {
            ETHERTYPE_IPV4 => Self::of_ipv4(frame, network),
            ETHERTYPE_IPV6 => Self::of_ipv6(frame, network),
            _ => None,
        }
    }

    fn of_ipv4(frame: &[u8], network: usize) -> Option<Self> {
        let header = frame.get(network..network + 20)?;
        let len = usize::from(header[0] & 0x0f) * 4;
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        let transport = network + len;
        if header[0] >> 4 != 4 || len < 20 || fragment || transport > frame.len() {
            return None;
        }
        Some(Self { ip: Ip::V4, network, transport, protocol: header[9] })
    }

    fn of_ipv6(frame: &[u8], network: usize) -> Option<Self> {
        let header = frame.get(network..network + 40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let mut protocol = header[6];
        let mut transport = network + 40;
        for _ in 0..MAX_EXTENSIONS {
            // Hop-by-hop, routing and destination options (RFC 8200 section 4); a fragment header is not whole.
            if !matches!(protocol, 0 | 43 | 60) {
                break;
            }
            let extension = frame.get(transport..transport + 8)?;
            protocol = extension[0];
            transport += (usize::from(extension[1]) + 1) * 8;
        }
        (transport <= frame.len()).then_some(Self { ip: Ip::V6, network, transport, protocol })
    }

    /// Source and destination address, 8 or 32 bytes.
    pub fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        match self.ip {
            Ip::V4 => &frame[self.network + 12..self.network + 20],
            Ip::V6 => &frame[self.network + 8..self.network + 40],
        }
    }

    /// Where the IP packet ends: later bytes are Ethernet padding. The frame's end when the header says 0, as it does
    /// for packets longer than 65535 bytes. `None` when the header says more than there is.
    pub fn end(&self, frame: &[u8]) -> Option<usize> {
        let (said, from) = match self.ip {
            Ip::V4 => (word(frame, self.network + 2)?, self.network),
            Ip::V6 => (word(frame, self.network + 4)?, self.network + 40),
        };
        match usize::from(said) {
            0 => Some(frame.len()),
            said => Some(from + said).filter(|end| *end <= frame.len()),
        }
    }
}

/// The 16-bit number at `at`.
pub(crate) fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}
