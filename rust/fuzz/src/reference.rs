//! What the filters must say about a client's frame, written a second time: plain, slow, and without a look at `rust/switch`.
//!
//! The rules are those of `docs/protocol.md` ("What the relay does with a frame", 2, 4 and 5) and of the RFCs named there. One
//! deliberate bound is shared with the filters: more than 16 extension headers are somebody hiding.

use softlan_switch::DropReason;

/// The big-endian number of two bytes at `at`, if they are there.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?))
}

/// What a lenient host finds behind tags and LLC/SNAP in any alternation, and whether the frame begins with a tag.
struct Found<'a> {
    kind: usize,
    packet: &'a [u8],
    tagged: bool,
}

fn find(frame: &[u8]) -> Found<'_> {
    let mut at = 12;
    let mut tagged = false;
    let mut snap_seen = false;
    loop {
        let kind = number(frame, at).unwrap_or(0);
        let rest = &frame[at + 2..];
        if [0x8100, 0x88a8, 0x9100].contains(&kind) && rest.len() >= 4 {
            tagged |= !snap_seen;
            at += 4;
            continue;
        }
        let snap = [[0xaa, 0xaa, 3, 0, 0, 0], [0xaa, 0xaa, 3, 0, 0, 0xf8]];
        if kind < 0x600 && rest.len() >= 8 && snap.iter().any(|start| rest.starts_with(start)) {
            snap_seen = true;
            at += 2 + 6;
            continue;
        }
        return Found { kind, packet: rest, tagged };
    }
}

/// What the frame of a client is dropped for when every filter is on; its source address is not looked at.
pub fn verdict(frame: &[u8]) -> Option<DropReason> {
    let found = find(frame);
    if frame.len() > if found.tagged { 1522 } else { 1518 } {
        return Some(DropReason::Jumbo);
    }
    match frame[..6] {
        [0x01, 0x80, 0xc2, 0, 0, 0x00..=0x0f | 0x20..=0x2f] => return Some(DropReason::SwitchControl),
        [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc | 0xcd] => return Some(DropReason::SwitchControl),
        _ => {}
    }
    match found.kind {
        0x0800 => ipv4(found.packet),
        0x86dd => ipv6(found.packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<DropReason> {
    let is_udp = packet.len() > 9 && packet[9] == 17;
    if !is_udp {
        return None;
    }
    let guilty = Some(DropReason::DhcpServer);
    if packet.len() < 20 {
        return guilty;
    }
    let offset = number(packet, 6)? % 0x2000;
    if offset > 1 {
        return None;
    }
    let start = usize::from(packet[0] % 16) * 4;
    let end = packet.len().min(number(packet, 2)?);
    if offset == 1 || end < start + 4 {
        return guilty;
    }
    if number(packet, start + 2)? == 68 { guilty } else { None }
}

fn ipv6(packet: &[u8]) -> Option<DropReason> {
    let hidden = Some(DropReason::RouterAdvertisement);
    if packet.len() < 40 {
        return hidden;
    }
    let end = packet.len().min(40 + number(packet, 4)?);
    let packet = &packet[..end];
    let (mut next, mut at) = (packet[6], 40);
    for _ in 0..17 {
        let len = match next {
            17 if end < at + 4 => return Some(DropReason::Dhcpv6Server),
            17 => {
                return if number(packet, at + 2)? == 546 { Some(DropReason::Dhcpv6Server) } else { None };
            }
            58 if end == at => return hidden,
            58 => return if packet[at] == 134 { hidden } else { None },
            44 if end < at + 8 => return hidden,
            44 if number(packet, at + 2)? > 7 => return None,
            44 => 8,
            0 | 43 | 60 | 135 | 139 | 140 | 253 | 254 | 51 if end < at + 2 => return hidden,
            51 => usize::from(packet[at + 1]) * 4 + 8,
            0 | 43 | 60 | 135 | 139 | 140 | 253 | 254 => usize::from(packet[at + 1]) * 8 + 8,
            _ => return None,
        };
        if end < at + len {
            return hidden;
        }
        next = packet[at];
        at += len;
    }
    hidden
}
