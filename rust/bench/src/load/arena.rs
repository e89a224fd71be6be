//! Frames as the overlay carries them, cut from shared blocks of memory so that none is allocated for.

use bytes::{Bytes, BytesMut};

/// Bytes of a block.
const BLOCK: usize = 256 * 1024;
/// The overlay header of a whole frame (`docs/protocol.md`).
const OVERLAY: usize = 4;
/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// Where the frame's number is, counted from the overlay header.
const NUMBER: usize = OVERLAY + HEADERS;
/// The shortest frame that has room for its number.
pub const SHORTEST: usize = HEADERS + 8;

/// A frame ready to be sent many times with different numbers.
#[derive(Debug)]
pub struct Template(Vec<u8>);

impl Template {
    /// An IPv4 UDP frame of `len` bytes; `peer` is the sender's id in its room.
    pub fn new(peer: u16, source: [u8; 6], destination: [u8; 6], len: usize) -> Self {
        let len = len.max(SHORTEST);
        let mut datagram = vec![0x5a; OVERLAY + len];
        datagram[..2].copy_from_slice(&[0x10, 0]);
        datagram[2..4].copy_from_slice(&peer.to_be_bytes());
        let frame = &mut datagram[OVERLAY..];
        frame[..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&source);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let packet = (len - 14) as u16;
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
        frame[16..18].copy_from_slice(&packet.to_be_bytes());
        frame[24..26].fill(0);
        frame[26..30].copy_from_slice(&[10, source[3], source[4], source[5]]);
        frame[30..34].copy_from_slice(&[10, destination[3], destination[4], destination[5]]);
        let sum: u32 =
            (14..34).step_by(2).map(|at| u32::from(frame[at]) << 8 | u32::from(frame[at + 1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        // A game's ports; no UDP checksum (RFC 768).
        frame[34..38].copy_from_slice(&[0x69, 0x87, 0x69, 0x87]);
        frame[38..40].copy_from_slice(&(packet - 20).to_be_bytes());
        frame[40..42].fill(0);
        Self(datagram)
    }
}

/// Memory the frames are cut from.
#[derive(Debug, Default)]
pub struct Arena(BytesMut);

impl Arena {
    /// The template's frame with `number` in it.
    pub fn frame(&mut self, template: &Template, number: u64) -> Bytes {
        let len = template.0.len();
        if self.0.capacity() < len {
            self.0.reserve(BLOCK);
        }
        self.0.extend_from_slice(&template.0);
        self.0[NUMBER..NUMBER + 8].copy_from_slice(&number.to_be_bytes());
        self.0.split().freeze()
    }

    /// A copy of `data`, for what wants to own it.
    pub fn copy(&mut self, data: &[u8]) -> BytesMut {
        if self.0.capacity() < data.len() {
            self.0.reserve(BLOCK.max(data.len()));
        }
        self.0.extend_from_slice(data);
        self.0.split()
    }
}

/// Sender and number of a whole frame made by [`Arena::frame`]; `None` for anything else.
pub fn number_of(datagram: &[u8]) -> Option<(u16, u64)> {
    if datagram.first() != Some(&0x10) {
        return None;
    }
    let sender = u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?);
    Some((sender, u64::from_be_bytes(datagram.get(NUMBER..NUMBER + 8)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_keeps_its_number_and_its_ip_header_is_right() {
        let template = Template::new(7, [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], 100);
        let mut arena = Arena::default();
        let frame = arena.frame(&template, 0x0102_0304_0506_0708);
        assert_eq!(frame.len(), 104);
        assert_eq!(number_of(&frame), Some((7, 0x0102_0304_0506_0708)));
        let sum: u32 = frame[18..38].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(number_of(&frame[..20]), None);
        assert_eq!(number_of(&[]), None);
    }
}
