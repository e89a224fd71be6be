//! What must be said about a frame by its bytes alone, written a second time: plain, slow, and without a look at what it is held against.
//!
//! The rules are those of `docs/protocol.md` ("What the relay does with a frame", 2, 4 and 5) and of the RFCs named there. Two
//! deliberate bounds are shared with the filters: more than 16 extension headers are somebody hiding, and so are, from a client, options of
//! neighbour discovery that end nowhere.

use softlan_switch::{DropReason, Filters};

/// The big-endian number of two bytes at `at`, if they are there.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?))
}

/// What a lenient host finds behind tags and LLC/SNAP in any alternation, and whether the frame begins with a tag.
pub struct Found<'a> {
    frame: &'a [u8],
    kind: usize,
    packet: &'a [u8],
    tagged: bool,
    /// For IPv6.
    walked: Option<Walked<'a>>,
}

/// Reads a frame of 14 bytes at least.
pub fn find(frame: &[u8]) -> Found<'_> {
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
        let walked = (kind == 0x86dd).then(|| walk(rest));
        return Found { frame, kind, packet: rest, tagged, walked };
    }
}

/// The EtherType behind the frame's tags, or its 802.3 length.
pub fn ethertype(frame: &[u8]) -> usize {
    let mut at = 12;
    while [0x8100, 0x88a8, 0x9100].contains(&number(frame, at).unwrap_or(0)) && frame.len() >= at + 6 {
        at += 4;
    }
    number(frame, at).unwrap_or(0)
}

/// Whether the destination ends at the next switch.
pub fn is_switch_control(frame: &[u8]) -> bool {
    matches!(
        frame[..6],
        [0x01, 0x80, 0xc2, 0, 0, 0x00..=0x0f | 0x20..=0x2f] | [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc | 0xcd]
    )
}

impl Found<'_> {
    /// Whether the frame is longer than Ethernet allows.
    pub fn is_jumbo(&self) -> bool {
        self.frame.len() > if self.tagged { 1522 } else { 1518 }
    }

    /// What a client's frame is dropped for by its length, destination and content, but for claims.
    pub fn verdict(&self, filters: &Filters) -> Option<DropReason> {
        if filters.jumbo && self.is_jumbo() {
            return Some(DropReason::Jumbo);
        }
        if filters.switch_control && is_switch_control(self.frame) {
            return Some(DropReason::SwitchControl);
        }
        self.content(filters)
    }

    /// Servers' and routers' messages in a client's frame.
    pub fn content(&self, filters: &Filters) -> Option<DropReason> {
        match &self.walked {
            None if self.kind == 0x0800 => match ipv4(self.packet) {
                Some(17) if filters.dhcp_server => Some(DropReason::DhcpServer),
                Some(1) if filters.router_advertisement => Some(DropReason::RouterAdvertisement),
                _ => None,
            },
            None => None,
            Some(walked) => {
                let (dhcp, router) = ipv6(walked);
                if router && filters.router_advertisement {
                    Some(DropReason::RouterAdvertisement)
                } else if dhcp && filters.dhcpv6_server {
                    Some(DropReason::Dhcpv6Server)
                } else {
                    None
                }
            }
        }
    }

    /// What a frame is dropped for because it claims an address that `is_anothers` says its sender may not claim; `from_lan`: a gateway's.
    pub fn claims(
        &self,
        filters: &Filters,
        from_lan: bool,
        is_anothers: impl Fn(&[u8]) -> bool,
    ) -> Option<DropReason> {
        match (&self.walked, self.kind) {
            (None, 0x0806 | 0x8035) if filters.arp_spoof => {
                let has_sender = self.packet.len() >= 14 && self.packet[4] == 6;
                (has_sender && is_anothers(&self.packet[8..14])).then_some(DropReason::ArpSpoof)
            }
            (Some(walked), _) if filters.nd_spoof => {
                discovery(walked, from_lan, is_anothers).then_some(DropReason::NdSpoof)
            }
            _ => None,
        }
    }
}

/// The protocol of an IPv4 packet that is, or may be, to a DHCP client (17), or a router's advertisement or redirect (1).
fn ipv4(packet: &[u8]) -> Option<u8> {
    let protocol = *packet.get(9)?;
    let least = match protocol {
        17 => 4,
        1 => 1,
        _ => return None,
    };
    if packet.len() < 20 {
        return Some(protocol);
    }
    let word = |at| number(packet, at).unwrap_or(0);
    let offset = word(6) % 0x2000;
    let start = usize::from(packet[0] % 16) * 4;
    let end = packet.len().min(word(2));
    let is_it = match offset {
        0 if end < start + least => true,
        0 if protocol == 17 => word(start + 2) == 68,
        0 => [5, 9].contains(&packet[start]),
        offset => offset == 1,
    };
    is_it.then_some(protocol)
}

/// Whether an IPv6 packet is, or may be: to a DHCPv6 client; a router's advertisement or redirect.
fn ipv6(walked: &Walked<'_>) -> (bool, bool) {
    match walked {
        Walked::Hidden => (true, true),
        Walked::Later => (false, false),
        Walked::To { protocol: 17, bytes, .. } => (number(bytes, 2).is_none_or(|port| port == 546), false),
        Walked::To { protocol: 58, bytes, .. } => {
            (false, bytes.first().is_none_or(|kind| [134, 137].contains(kind)))
        }
        Walked::To { .. } => (false, false),
    }
}

/// Where the header chain of an IPv6 packet leads.
enum Walked<'a> {
    /// It ends too early, or never.
    Hidden,
    /// It is a fragment behind the first.
    Later,
    /// To this, in the first of several fragments or not.
    To { protocol: u8, bytes: &'a [u8], in_fragments: bool },
}

/// More of them are somebody hiding (RFC 8200 section 4.1 knows seven in a sane packet).
pub const MAX_EXTENSIONS: usize = 16;

fn walk(packet: &[u8]) -> Walked<'_> {
    if packet.len() < 40 {
        return Walked::Hidden;
    }
    let end = packet.len().min(40 + number(packet, 4).unwrap_or(0));
    let packet = &packet[..end];
    let (mut next, mut at, mut in_fragments) = (packet[6], 40, false);
    for _ in 0..=MAX_EXTENSIONS {
        let len = match next {
            44 if end < at + 8 => return Walked::Hidden,
            44 if number(packet, at + 2).is_some_and(|offset| offset > 7) => return Walked::Later,
            44 => {
                in_fragments = true;
                8
            }
            0 | 43 | 60 | 135 | 139 | 140 | 253 | 254 | 51 if end < at + 2 => return Walked::Hidden,
            51 => usize::from(packet[at + 1]) * 4 + 8,
            0 | 43 | 60 | 135 | 139 | 140 | 253 | 254 => usize::from(packet[at + 1]) * 8 + 8,
            protocol => return Walked::To { protocol, bytes: &packet[at..], in_fragments },
        };
        if end < at + len {
            return Walked::Hidden;
        }
        next = packet[at];
        at += len;
    }
    Walked::Hidden
}

/// Whether a message of neighbour discovery (RFC 4861, 4) may not be said, for an address in it or for hiding one.
fn discovery(walked: &Walked<'_>, from_lan: bool, is_anothers: impl Fn(&[u8]) -> bool) -> bool {
    let &Walked::To { protocol: 58, bytes, in_fragments } = walked else { return false };
    let mut at = match bytes.first() {
        Some(133) => 8,
        Some(134) => 16,
        Some(135 | 136) => 24,
        // A router of the LAN names a player when it redirects to it.
        Some(137) if from_lan => return false,
        Some(137) => 40,
        _ => return false,
    };
    if in_fragments {
        return true;
    }
    while at + 2 <= bytes.len() {
        let (kind, len) = (bytes[at], usize::from(bytes[at + 1]) * 8);
        if [1, 2].contains(&kind) && at + 8 <= bytes.len() && is_anothers(&bytes[at + 2..at + 8]) {
            return true;
        }
        if len == 0 || at + len > bytes.len() {
            return !from_lan;
        }
        at += len;
    }
    false
}

/// Where the ECN field of the frame's IP packet stands: the byte, and its bits in there (RFC 3168 section 5); `None` for anything but a sound
/// IP header behind tags.
pub fn ecn_place(frame: &[u8]) -> Option<(usize, u8)> {
    let mut at = 12;
    while [0x8100, 0x88a8, 0x9100].contains(&number(frame, at)?) && frame.len() >= at + 6 {
        at += 4;
    }
    let (kind, at) = (number(frame, at)?, at + 2);
    let packet = &frame[at..];
    let version = packet.first()? / 16;
    match (kind, version) {
        (0x0800, 4) => {
            let (header, total) = (usize::from(packet[0] % 16) * 4, number(packet, 2)?);
            (header >= 20 && header <= total && total <= packet.len()).then_some((at + 1, 0x03))
        }
        (0x86dd, 6) => (40 + number(packet, 4)? <= packet.len()).then_some((at + 1, 0x30)),
        _ => None,
    }
}
