//! Frames that can be told from each other, and what is known of each one sent.

use std::collections::{HashMap, HashSet};

use softlan_wire::{Ecn, EtherType, EthernetFrame, Mac, ecn, mark_ce};

use crate::Broken;
use crate::books::holds;
use crate::random::Random;

/// The first local experimental EtherType (IEEE 802-2014, 9.2.4).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// An IP protocol for experiments (RFC 3692), which no filter knows.
const EXPERIMENTAL_IP: u8 = 253;
/// Bytes of a frame's number, which stands behind the headers.
const NUMBER: usize = 8;
/// Bytes of the shortest frame made here: addresses, type and number.
pub(crate) const LEAST: u64 = 22;

/// What is known of a frame.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) person: usize,
    pub(crate) room: usize,
    /// Whether the switch may let it pass: its source is its sender's.
    pub(crate) is_honest: bool,
    bytes: Vec<u8>,
}

impl Sent {
    /// The frame as it is once a queue has marked it; as it was if it may not be.
    fn marked(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        mark_ce(&mut bytes);
        bytes
    }
}

/// Every frame sent, by its number.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    sent: HashMap<u64, Sent>,
    /// Those that a queue said it marked.
    marked: HashSet<u64>,
}

/// What a frame carries: a packet with these bits in its ECN field, or no packet at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Payload {
    Plain,
    Ipv4(u8),
    Ipv6(u8),
}

impl Payload {
    pub(crate) fn any(random: &mut Random) -> Self {
        let bits = random.within(0..4) as u8;
        match random.within(0..4) {
            0 => Self::Ipv4(bits),
            1 => Self::Ipv6(bits),
            _ => Self::Plain,
        }
    }

    /// From the ethertype on, the header before `len` bytes.
    fn header(self, len: usize) -> Vec<u8> {
        match self {
            Self::Plain => EXPERIMENTAL.to_vec(),
            Self::Ipv4(bits) => {
                let mut header =
                    [0x45, bits, 0, 0, 0, 0, 0x40, 0, 64, EXPERIMENTAL_IP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
                header[2..4].copy_from_slice(&((20 + len) as u16).to_be_bytes());
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                [&[0x08, 0x00][..], &header].concat()
            }
            Self::Ipv6(bits) => {
                let [high, low] = (len as u16).to_be_bytes();
                let header = [0x60, bits << 4, 0, 0, high, low, EXPERIMENTAL_IP, 64];
                [&[0x86, 0xdd][..], &header, &[0xfd; 32]].concat()
            }
        }
    }
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header.as_chunks().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
    let sum = words.sum::<u32>();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The number of a frame made here.
fn number(bytes: &[u8]) -> Option<u64> {
    let frame = EthernetFrame::parse(bytes).ok()?;
    let header = match frame.ethertype() {
        EtherType::IPV4 => 20,
        EtherType::IPV6 => 40,
        _ => 0,
    };
    frame.payload().get(header..header + NUMBER)?.try_into().ok().map(u64::from_be_bytes)
}

impl Frames {
    /// Makes a frame of `len` bytes (addresses and number at least) and remembers it.
    pub(crate) fn make(
        &mut self,
        random: &mut Random,
        (person, room, is_honest): (usize, usize, bool),
        (source, destination): (Mac, Mac),
        payload: Payload,
        len: u64,
    ) -> Vec<u8> {
        let number = self.sent.len() as u64;
        // Less the longest headers, so that no frame is longer than was asked for, unless it would have no number.
        let rest = (len as usize).saturating_sub(14 + 40).max(NUMBER);
        let mut bytes = [destination.bytes(), source.bytes()].concat();
        bytes.extend(payload.header(rest));
        let end = bytes.len() + rest;
        bytes.extend(number.to_be_bytes());
        while bytes.len() < end {
            bytes.extend(random.next().to_be_bytes());
        }
        bytes.truncate(end);
        self.sent.insert(number, Sent { person, room, is_honest, bytes: bytes.clone() });
        bytes
    }

    /// Takes note of a frame that a queue marked.
    pub(crate) fn note_marked(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        holds(ecn(bytes) == Some(Ecn::Ce), || format!("told as marked, and is not: {bytes:02x?}"))?;
        self.marked.extend(number(bytes));
        Ok(())
    }

    /// Holds a frame that reached `person` in `room` to what was sent.
    pub(crate) fn check(&self, person: usize, room: usize, bytes: &[u8]) -> Result<(), Broken> {
        let Some((number, sent)) = number(bytes).and_then(|number| Some((number, self.sent.get(&number)?)))
        else {
            return Err(Broken(format!("a frame reached {person} that nobody sent: {bytes:02x?}")));
        };
        let what = || EthernetFrame::parse(bytes).map(|frame| (frame.source(), frame.destination()));
        let is_as_sent = sent.bytes == bytes || self.marked.contains(&number) && sent.marked() == bytes;
        holds(is_as_sent, || format!("a frame changed on its way: {:?}", what()))?;
        holds(sent.room == room, || {
            format!("a frame of room {} reached room {room}: {:?}", sent.room, what())
        })?;
        holds(sent.person != person, || format!("a frame came back to its sender {person}: {:?}", what()))?;
        holds(sent.is_honest, || format!("a frame with a foreign source passed: {:?}", what()))
    }
}
