//! Reads frames the slow way, to check what a port made of them.

/// The TCP or UDP packet in a frame.
#[derive(Debug)]
pub struct Packet {
    pub vlan: Option<u16>,
    pub protocol: u8,
    pub payload: usize,
}

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Checks lengths and all checksums; `None` when the frame is not TCP or UDP.
pub fn check(frame: &[u8]) -> Option<Packet> {
    let mut at = 12;
    let mut vlan = None;
    if word(frame, at) == 0x8100 {
        vlan = Some(word(frame, at + 2) & 0xfff);
        at += 4;
    }
    let ip = &frame[at + 2..];
    let (protocol, addresses, transport) = match word(frame, at) {
        0x0800 => {
            let header = usize::from(ip[0] & 15) * 4;
            assert_eq!(sum(&[&ip[..header]]), 0xffff, "IPv4 checksum");
            (ip[9], &ip[12..20], &ip[header..usize::from(word(ip, 2))])
        }
        0x86dd => (ip[6], &ip[8..40], &ip[40..40 + usize::from(word(ip, 4))]),
        _ => return None,
    };
    let header = match protocol {
        6 => usize::from(transport[12] >> 4) * 4,
        17 => {
            assert_eq!(usize::from(word(transport, 4)), transport.len(), "UDP length");
            8
        }
        _ => return None,
    };
    let len = (transport.len() as u32).to_be_bytes();
    assert_eq!(sum(&[addresses, &len, &[0, 0, 0, protocol], transport]), 0xffff, "transport checksum");
    Some(Packet { vlan, protocol, payload: transport.len() - header })
}

/// Consecutive TCP segments over IPv4, `count` of `size` payload bytes.
pub fn segments(count: usize, size: usize) -> Vec<Vec<u8>> {
    let segment = |index: usize| {
        let mut ip = vec![0x45, 0];
        ip.extend(((40 + size) as u16).to_be_bytes());
        ip.extend((1000 + index as u16).to_be_bytes());
        ip.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let header = (!sum(&[&ip])).to_be_bytes();
        ip[10..12].copy_from_slice(&header);
        let mut tcp = vec![0x30, 0x39, 0, 80];
        tcp.extend(((index * size) as u32).to_be_bytes());
        tcp.extend([0, 0, 0, 1, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
        tcp.extend((0..size).map(|at| (at + index) as u8));
        let pseudo = [0, 6, 0, 0, ((20 + size) >> 8) as u8, (20 + size) as u8];
        let whole = (!sum(&[&ip[12..20], &pseudo, &tcp])).to_be_bytes();
        tcp[16..18].copy_from_slice(&whole);
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], ip.as_slice(), &tcp].concat()
    };
    (0..count).map(segment).collect()
}

/// UDP datagrams over IPv4 of one flow, `count` of `size` payload bytes.
pub fn datagrams(count: usize, size: usize) -> Vec<Vec<u8>> {
    let datagram = |index: usize| {
        let mut ip = vec![0x45, 0];
        ip.extend(((28 + size) as u16).to_be_bytes());
        ip.extend((1000 + index as u16).to_be_bytes());
        ip.extend([0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let header = (!sum(&[&ip])).to_be_bytes();
        ip[10..12].copy_from_slice(&header);
        let len = ((8 + size) as u16).to_be_bytes();
        let mut udp = [&[0x30, 0x39, 0, 80], len.as_slice(), &[0, 0]].concat();
        udp.extend((0..size).map(|at| (at + index) as u8));
        let whole = !sum(&[&ip[12..20], &[0, 17], &len, &udp]);
        udp[6..8].copy_from_slice(&if whole == 0 { 0xffff } else { whole }.to_be_bytes());
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], ip.as_slice(), &udp].concat()
    };
    (0..count).map(datagram).collect()
}

/// The frames behind a VLAN tag.
pub fn tagged(frames: &[Vec<u8>], tag: [u8; 4]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| [&frame[..12], &tag, &frame[12..]].concat()).collect()
}
