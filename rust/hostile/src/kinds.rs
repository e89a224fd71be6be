//! The datagrams no honest peer sends, made as `docs/protocol.md` forbids them.

use std::str::FromStr;

use bytes::Bytes;

use crate::dice::Dice;

const WHOLE: u8 = 0x10;
const FRAGMENT: u8 = 0x11;
/// Bytes of datagram that fit any QUIC packet.
const ROOM: usize = 1100;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Random bytes.
    Garbage,
    /// Datagrams without a byte, of which hundreds fit one packet.
    Empty,
    /// Good frames with the sender id of others.
    Foreign,
    /// Good headers with the source MAC of others.
    Spoofed,
    /// First fragments of frames whose rest never comes.
    Incomplete,
    /// Fragments that contradict the ones before.
    Contradictory,
    /// A gateway whose every frame comes from another MAC.
    Macs,
    /// Broadcasts.
    Broadcast,
    /// Unicast to MACs nobody has.
    Unknown,
    /// Frames longer than Ethernet's, in fragments.
    Oversized,
    /// Frames below 14 bytes.
    Runt,
    /// Good unicast to another player of the room.
    Unicast,
    /// The same to a client of another room.
    Elsewhere,
    /// Good frames in every way but that a client of another room is to have sent them, under its peer id there.
    Outsider,
}

const NAMES: [(&str, Kind); 14] = [
    ("garbage", Kind::Garbage),
    ("empty", Kind::Empty),
    ("foreign", Kind::Foreign),
    ("spoofed", Kind::Spoofed),
    ("incomplete", Kind::Incomplete),
    ("contradictory", Kind::Contradictory),
    ("macs", Kind::Macs),
    ("broadcast", Kind::Broadcast),
    ("unknown", Kind::Unknown),
    ("oversized", Kind::Oversized),
    ("runt", Kind::Runt),
    ("unicast", Kind::Unicast),
    ("elsewhere", Kind::Elsewhere),
    ("outsider", Kind::Outsider),
];

impl Kind {
    /// Whether only a gateway can do it.
    pub fn is_gateway(self) -> bool {
        self == Self::Macs
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, kind)| *kind).ok_or_else(|| format!("there is no kind {text}"))
    }
}

/// Whom to speak for.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    /// Another peer's id.
    pub peer_id: u16,
    /// Another player's MAC.
    pub mac: [u8; 6],
}

/// Parses "02:00:5e:00:00:01".
///
/// # Errors
/// In words, when it is no MAC.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{text} is no MAC"))
}

/// Makes one datagram after the other.
#[derive(Debug)]
pub struct Maker {
    kind: Kind,
    peer_id: u16,
    mac: [u8; 6],
    victim: Victim,
    count: u32,
}

impl Maker {
    /// For a peer that was admitted as `peer_id` with `mac`.
    pub fn new(kind: Kind, peer_id: u16, mac: [u8; 6], victim: Victim) -> Self {
        Self { kind, peer_id, mac, victim, count: 0 }
    }

    /// The next datagram.
    pub fn next(&mut self, dice: &mut Dice) -> Bytes {
        let number = self.count;
        self.count = self.count.wrapping_add(1);
        match self.kind {
            Kind::Garbage => {
                let mut data = vec![0; 1 + dice.below(ROOM as u64) as usize];
                dice.fill(&mut data);
                data.into()
            }
            Kind::Empty => Bytes::new(),
            Kind::Foreign => {
                let id = if number.is_multiple_of(2) { self.victim.peer_id } else { dice.next() as u16 };
                // Its own would be no other's.
                let id = if id == self.peer_id { self.victim.peer_id } else { id };
                whole(id, &frame([0xFF; 6], self.mac, 200))
            }
            Kind::Spoofed => whole(self.peer_id, &frame([0xFF; 6], self.victim.mac, 200)),
            // As many as a frame of 9216 bytes may have of these: of more, each would be refused at once.
            Kind::Incomplete => fragment(self.peer_id, 0, 7, number, &[0xA5; ROOM - 8]),
            Kind::Contradictory => {
                // Three to a frame: the second is of another size, the third of another count.
                let (index, last, size) = [(0, 3, 900), (1, 3, 700), (1, 7, 900)][(number % 3) as usize];
                fragment(self.peer_id, index, last, number / 3, &vec![0x5A; size])
            }
            Kind::Macs => {
                let source = dice.mac();
                whole(self.peer_id, &frame(self.victim.mac, source, 60))
            }
            Kind::Broadcast => whole(self.peer_id, &frame([0xFF; 6], self.mac, 1000)),
            Kind::Unknown => {
                let target = dice.mac();
                unicast(self.peer_id, self.mac, target)
            }
            Kind::Oversized => {
                // Nine fragments to a frame of 9000 bytes.
                let mut part = vec![0xC3; 1000];
                if number.is_multiple_of(9) {
                    part[..14].copy_from_slice(&frame([0xFF; 6], self.mac, 14));
                }
                fragment(self.peer_id, (number % 9) as u8, 8, number / 9, &part)
            }
            Kind::Runt => whole(self.peer_id, &[0; 5]),
            // Which of the two it is, is the victim's room.
            Kind::Unicast | Kind::Elsewhere => unicast(self.peer_id, self.mac, self.victim.mac),
            Kind::Outsider => whole(self.victim.peer_id, &frame([0xFF; 6], self.victim.mac, 200)),
        }
    }
}

/// A good frame of 1000 bytes from peer `peer_id`, whose MAC is `source`.
pub fn unicast(peer_id: u16, source: [u8; 6], target: [u8; 6]) -> Bytes {
    whole(peer_id, &frame(target, source, 1000))
}

fn frame(target: [u8; 6], source: [u8; 6], size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&target);
    bytes.extend_from_slice(&source);
    bytes.extend_from_slice(&[0x88, 0xB5]); // IEEE 802 local experimental EtherType 1
    bytes.resize(size, 0);
    bytes
}

fn whole(peer_id: u16, frame: &[u8]) -> Bytes {
    let mut data = vec![WHOLE, 0];
    data.extend_from_slice(&peer_id.to_be_bytes());
    data.extend_from_slice(frame);
    data.into()
}

fn fragment(peer_id: u16, index: u8, last: u8, frame_id: u32, part: &[u8]) -> Bytes {
    let mut data = vec![FRAGMENT, index << 4 | last];
    data.extend_from_slice(&peer_id.to_be_bytes());
    data.extend_from_slice(&frame_id.to_be_bytes());
    data.extend_from_slice(part);
    data.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn made(kind: &str) -> Bytes {
        let victim = Victim { peer_id: 9, mac: THEIRS };
        let mut maker = Maker::new(kind.parse().expect("a kind"), 7, MINE, victim);
        maker.next(&mut Dice::new())
    }

    #[test]
    fn what_is_for_another_room_names_somebody_there() {
        for (kind, id, target, source) in
            [("elsewhere", 7, THEIRS, MINE), ("outsider", 9, [0xFF; 6], THEIRS), ("unicast", 7, THEIRS, MINE)]
        {
            let datagram = made(kind);
            let expected = [&[WHOLE, 0, 0, id][..], &target, &source].concat();
            assert_eq!(datagram[..16], expected, "{kind}");
        }
    }

    #[test]
    fn every_kind_has_the_name_it_is_asked_for_by() {
        for (name, kind) in NAMES {
            assert_eq!((name.parse(), kind.name()), (Ok(kind), name));
        }
    }
}
