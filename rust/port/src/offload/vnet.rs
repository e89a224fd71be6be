//! The kernel's note on a frame: `struct virtio_net_hdr` (`linux/virtio_net.h`, VIRTIO 1.2 section 5.1.6).

/// Bytes of the header on TAP (`TUNSETVNETHDRSZ`) and AF_PACKET (`PACKET_VNET_HDR`).
pub const VNET_HEADER_LEN: usize = 10;

const FLAG_NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of super-frame a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// An ordinary frame.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one size, over IPv4 or IPv6.
    Udp,
    /// Something this crate does not know, or never asked for.
    Unknown(u8),
}

/// A partial checksum: the field at `start + offset` is to be finished over the bytes from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the checksummed bytes begin, counted from the frame's first byte.
    pub start: u16,
    /// Where the field is, counted from `start`.
    pub offset: u16,
}

/// The header's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// A checksum left to finish.
    pub partial: Option<PartialChecksum>,
    /// Which kind of super-frame.
    pub gso: Gso,
    /// Whether the super-frame's first segment carries CWR (RFC 3168 section 6.1.2).
    pub ecn: bool,
    /// Bytes of Ethernet, IP and transport headers: a hint for the kernel's memory layout only.
    pub header_len: u16,
    /// Payload bytes a segment.
    pub gso_size: u16,
}

impl VnetHeader {
    /// Reads the header. Fields are in the machine's byte order ("legacy" virtio), as neither TAP nor AF_PACKET were
    /// told otherwise.
    pub fn decode(bytes: &[u8; VNET_HEADER_LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let partial = (bytes[0] & FLAG_NEEDS_CHECKSUM != 0)
            .then(|| PartialChecksum { start: word(6), offset: word(8) });
        let gso = match bytes[1] & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::Tcp4,
            GSO_TCPV6 => Gso::Tcp6,
            GSO_UDP_L4 => Gso::Udp,
            other => Gso::Unknown(other),
        };
        Self { partial, gso, ecn: bytes[1] & GSO_ECN != 0, header_len: word(2), gso_size: word(4) }
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[1] = match self.gso {
            Gso::None => GSO_NONE,
            Gso::Tcp4 => GSO_TCPV4,
            Gso::Tcp6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
            Gso::Unknown(kind) => kind,
        };
        if self.ecn {
            bytes[1] |= GSO_ECN;
        }
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        if let Some(partial) = self.partial {
            bytes[0] = FLAG_NEEDS_CHECKSUM;
            bytes[6..8].copy_from_slice(&partial.start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&partial.offset.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ordinary_frame_is_all_zero() {
        assert_eq!(VnetHeader::default().encode(), [0; VNET_HEADER_LEN]);
        assert_eq!(VnetHeader::decode(&[0; VNET_HEADER_LEN]), VnetHeader::default());
    }

    #[test]
    fn data_valid_is_no_partial_checksum() {
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[0] = 2; // VIRTIO_NET_HDR_F_DATA_VALID
        assert_eq!(VnetHeader::decode(&bytes).partial, None);
    }

    proptest! {
        #[test]
        fn what_is_decoded_encodes_the_same(bytes: [u8; VNET_HEADER_LEN]) {
            let header = VnetHeader::decode(&bytes);
            prop_assert_eq!(VnetHeader::decode(&header.encode()), header);
        }
    }
}
