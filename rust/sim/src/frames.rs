//! Frames that can be told from each other, and what is known of each one sent.

use std::collections::HashMap;

use softlan_wire::{EthernetFrame, Mac};

use crate::Broken;
use crate::books::holds;
use crate::random::Random;

/// The first local experimental EtherType (IEEE 802-2014, 9.2.4).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Where a frame's number stands.
const NUMBER_AT: usize = 14;
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

/// Every frame sent, by its number.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    sent: HashMap<u64, Sent>,
}

impl Frames {
    /// Makes a frame of `len` bytes (addresses and number at least) and remembers it.
    pub(crate) fn make(
        &mut self,
        random: &mut Random,
        (person, room, is_honest): (usize, usize, bool),
        (source, destination): (Mac, Mac),
        len: u64,
    ) -> Vec<u8> {
        let number = self.sent.len() as u64;
        let mut bytes = [&destination.bytes()[..], &source.bytes(), &EXPERIMENTAL].concat();
        bytes.extend(number.to_be_bytes());
        while (bytes.len() as u64) < len {
            bytes.extend(random.next().to_be_bytes());
        }
        bytes.truncate(len.max(LEAST) as usize);
        self.sent.insert(number, Sent { person, room, is_honest, bytes: bytes.clone() });
        bytes
    }

    /// Holds a frame that reached `person` in `room` to what was sent.
    pub(crate) fn check(&self, person: usize, room: usize, bytes: &[u8]) -> Result<(), Broken> {
        let number = bytes.get(NUMBER_AT..NUMBER_AT + 8).and_then(|number| number.try_into().ok());
        let sent = number.and_then(|number| self.sent.get(&u64::from_be_bytes(number)));
        let Some(sent) = sent else {
            return Err(Broken(format!("a frame reached {person} that nobody sent: {bytes:02x?}")));
        };
        let what = || EthernetFrame::parse(bytes).map(|frame| (frame.source(), frame.destination()));
        holds(sent.bytes == bytes, || format!("a frame changed on its way: {:?}", what()))?;
        holds(sent.room == room, || {
            format!("a frame of room {} reached room {room}: {:?}", sent.room, what())
        })?;
        holds(sent.person != person, || format!("a frame came back to its sender {person}: {:?}", what()))?;
        holds(sent.is_honest, || format!("a frame with a foreign source passed: {:?}", what()))
    }
}
