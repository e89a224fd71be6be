//! The safety filters: frames that must not cross a room whoever they are for.
//!
//! A LAN party's guests bring misconfigured machines: a connection-sharing laptop answers DHCP and announces itself as an
//! IPv6 router, and everyone's traffic goes astray; a redirect in a router's name leads it astray on purpose. Such frames are stopped when they come from clients; the gateway's LAN may
//! have its servers. Frames that switches exchange with their neighbours end at every port, as 802.1D bridges do it.

use softlan_wire::ethernet::{MAX_TAGGED_LEN, MAX_UNTAGGED_LEN};
use softlan_wire::{EthernetFrame, Mac};

use crate::counters::DropReason;
use crate::inspect::{Suspect, inspect};
use crate::switch::Role;

/// Which filters are on; all of them by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters {
    /// Untagged frames above 1518 bytes, tagged ones above 1522.
    pub jumbo: bool,
    /// Source addresses that are nobody's or another's. Without it, a client may speak for stations behind it; they are
    /// not learned, so what is for them floods.
    pub source_check: bool,
    /// Destinations reserved for the protocols between neighbouring switches.
    pub switch_control: bool,
    /// DHCP server messages from clients.
    pub dhcp_server: bool,
    /// DHCPv6 server messages from clients.
    pub dhcpv6_server: bool,
    /// Router advertisements and redirects from clients: ICMPv6 and ICMP.
    pub router_advertisement: bool,
    /// ARP and RARP whose sender address is another's: of a client not its own, from the LAN a client's.
    pub arp_spoof: bool,
    /// IPv6 neighbour discovery that names another's address as its sender's.
    pub nd_spoof: bool,
    /// Frames that come back because two peers are connected outside the room as well.
    pub loops: bool,
}

impl Default for Filters {
    fn default() -> Self {
        Self::ALL
    }
}

/// Judges a frame of `len` bytes by everything but its source address, which takes a room to judge.
///
/// The order is that of `docs/protocol.md`: length, destination, content.
pub fn judge(filters: &Filters, role: Role, frame: &EthernetFrame<'_>, len: usize) -> Option<DropReason> {
    filters
        .judge_length(frame, len)
        .or_else(|| filters.judge_destination(frame.destination()))
        .or_else(|| filters.judge_content(role, frame))
}

impl Filters {
    /// Every filter on.
    pub const ALL: Self = Self {
        jumbo: true,
        source_check: true,
        switch_control: true,
        dhcp_server: true,
        dhcpv6_server: true,
        router_advertisement: true,
        arp_spoof: true,
        nd_spoof: true,
        loops: true,
    };

    /// The filters' names, as settings use them.
    pub const NAMES: [&'static str; 9] = [
        "jumbo",
        "source-check",
        "switch-control",
        "dhcp-server",
        "dhcpv6-server",
        "router-advertisement",
        "arp-spoof",
        "nd-spoof",
        "loop",
    ];

    /// Switches the filter of that name off; `false` when there is none.
    pub fn switch_off(&mut self, name: &str) -> bool {
        let filter = match name {
            "jumbo" => &mut self.jumbo,
            "source-check" => &mut self.source_check,
            "switch-control" => &mut self.switch_control,
            "dhcp-server" => &mut self.dhcp_server,
            "dhcpv6-server" => &mut self.dhcpv6_server,
            "router-advertisement" => &mut self.router_advertisement,
            "arp-spoof" => &mut self.arp_spoof,
            "nd-spoof" => &mut self.nd_spoof,
            "loop" => &mut self.loops,
            _ => return false,
        };
        *filter = false;
        true
    }

    /// Whether the frame is jumbo.
    #[inline]
    pub(crate) fn judge_length(&self, frame: &EthernetFrame<'_>, len: usize) -> Option<DropReason> {
        let most = if frame.is_tagged() { MAX_TAGGED_LEN } else { MAX_UNTAGGED_LEN };
        (self.jumbo && len > most).then_some(DropReason::Jumbo)
    }

    /// Whether the destination is one that no switch forwards.
    #[inline]
    pub(crate) fn judge_destination(&self, destination: Mac) -> Option<DropReason> {
        (self.switch_control && is_switch_control(destination)).then_some(DropReason::SwitchControl)
    }

    /// Whether the frame carries what only the LAN's servers and routers may say.
    #[inline]
    pub(crate) fn judge_content(&self, role: Role, frame: &EthernetFrame<'_>) -> Option<DropReason> {
        if matches!(role, Role::Gateway) {
            return None;
        }
        let (protocol, packet) = frame.protocol();
        let is_on = |on: bool, reason| on.then_some(reason);
        match inspect(protocol, packet)? {
            Suspect::DhcpServer => is_on(self.dhcp_server, DropReason::DhcpServer),
            Suspect::Dhcpv6Server => is_on(self.dhcpv6_server, DropReason::Dhcpv6Server),
            Suspect::Router => is_on(self.router_advertisement, DropReason::RouterAdvertisement),
            Suspect::CutIpv6 => is_on(self.router_advertisement, DropReason::RouterAdvertisement)
                .or(is_on(self.dhcpv6_server, DropReason::Dhcpv6Server)),
        }
    }
}

/// Addresses that end at the next switch: IEEE 802.1Q-2018, table 8-1 (01-80-C2-00-00-00 to -0F: spanning tree, pause,
/// LACP, 802.1X, LLDP), table 10-1 (-20 to -2F: GARP and MRP), and Cisco's 01-00-0C-CC-CC-CC (CDP, VTP, UDLD) and -CD (PVST+).
#[inline]
fn is_switch_control(destination: Mac) -> bool {
    const BRIDGE: u64 = Mac::from_bytes([0x01, 0x80, 0xc2, 0x00, 0x00, 0x00]).packed();
    const REGISTRATION: u64 = Mac::from_bytes([0x01, 0x80, 0xc2, 0x00, 0x00, 0x20]).packed();
    const CISCO: u64 = Mac::from_bytes([0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc]).packed();
    let address = destination.packed();
    matches!(address & !0x0f, BRIDGE | REGISTRATION) || address & !0x01 == CISCO
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Role = Role::Client(Mac::from_bytes([2, 0, 0, 0, 0, 1]));
    const NONE: Filters = Filters {
        jumbo: false,
        source_check: false,
        switch_control: false,
        dhcp_server: false,
        dhcpv6_server: false,
        router_advertisement: false,
        arp_spoof: false,
        nd_spoof: false,
        loops: false,
    };

    fn frame(destination: [u8; 6], from_type: &[u8], len: usize) -> Vec<u8> {
        let mut frame = [&destination[..], &[2, 0, 0, 0, 0, 1], from_type].concat();
        frame.resize(frame.len().max(len), 0);
        frame
    }

    fn judged(filters: &Filters, role: Role, bytes: &[u8]) -> Option<DropReason> {
        judge(filters, role, &EthernetFrame::parse(bytes).unwrap(), bytes.len())
    }

    /// An IPv4 UDP packet from its ethertype on, ports of a DHCP server.
    fn dhcp() -> Vec<u8> {
        let mut packet = vec![0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17];
        packet.resize(2 + 20, 0);
        packet.extend([0, 67, 0, 68, 0, 20, 0, 0]);
        packet.resize(2 + 40, 0);
        packet
    }

    /// An IPv6 redirect (RFC 4861, 4.5) that names its sender's own address, so that its addresses alone are nothing to object to.
    fn redirect() -> Vec<u8> {
        let message = [&[137, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 32], &[2, 1, 2, 0, 0, 0, 0, 1]].concat();
        ipv6(58, &message)
    }

    /// An IPv4 redirect for hosts (RFC 792) from its ethertype on.
    fn ipv4_redirect() -> Vec<u8> {
        let mut packet = vec![0x08, 0x00, 0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1];
        packet.resize(2 + 20, 0);
        packet.extend([5, 1, 0, 0, 10, 0, 0, 66]);
        packet.resize(2 + 56, 0);
        packet
    }

    /// An IPv6 packet from its ethertype on, its first payload bytes given.
    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, payload.len() as u8, next, 255];
        packet.resize(2 + 40, 0);
        packet.extend(payload);
        packet
    }

    #[test]
    fn lengths() {
        let on = Filters::default();
        for (start, most) in [(&[0x08, 0x00][..], 1518), (&[0x81, 0x00, 0, 5, 0x08, 0x00][..], 1522)] {
            let fits = frame([2; 6], start, most);
            let jumbo = frame([2; 6], start, most + 1);
            assert_eq!(on.judge_length(&EthernetFrame::parse(&fits).unwrap(), most), None);
            assert_eq!(judged(&on, Role::Gateway, &jumbo), Some(DropReason::Jumbo));
            assert_eq!(judged(&NONE, Role::Gateway, &jumbo), None);
        }
    }

    #[test]
    fn switch_control_addresses_and_their_neighbours() {
        let judged =
            |destination| Filters::default().judge_destination(Mac::from_bytes(destination)).is_some();
        for last in 0..=255 {
            let expected = matches!(last, 0x00..=0x0f | 0x20..=0x2f);
            assert_eq!(judged([0x01, 0x80, 0xc2, 0, 0, last]), expected, "{last:#x}");
            let expected = matches!(last, 0xcc | 0xcd);
            assert_eq!(judged([0x01, 0x00, 0x0c, 0xcc, 0xcc, last]), expected, "{last:#x}");
        }
        assert!(
            !judged([0x01, 0x80, 0xc2, 0, 1, 0])
                && !judged([0x00, 0x80, 0xc2, 0, 0, 0])
                && !judged([0xff; 6])
        );
        assert_eq!(NONE.judge_destination(Mac::from_bytes([0x01, 0x80, 0xc2, 0, 0, 0])), None);
    }

    #[test]
    fn servers_may_stand_behind_the_gateway_only() {
        let on = Filters::default();
        for (packet, reason) in [
            (dhcp(), DropReason::DhcpServer),
            (ipv6(17, &[2, 35, 2, 34, 0, 8, 0, 0]), DropReason::Dhcpv6Server),
            (ipv6(58, &[134, 0, 0, 0]), DropReason::RouterAdvertisement),
            (redirect(), DropReason::RouterAdvertisement),
            (ipv4_redirect(), DropReason::RouterAdvertisement),
            (ipv6(0, &[58, 9]), DropReason::RouterAdvertisement),
        ] {
            let tag = [0x81, 0x00, 0, 0];
            let snap = [0, 60, 0xaa, 0xaa, 0x03, 0, 0, 0];
            for start in
                [vec![], tag.to_vec(), tag.repeat(9), snap.to_vec(), [&tag[..], &snap, &tag].concat()]
            {
                let bytes = frame([0xff; 6], &[&start[..], &packet].concat(), 0);
                assert_eq!(judged(&on, CLIENT, &bytes), Some(reason), "behind {start:02x?}");
                assert_eq!(judged(&on, Role::Gateway, &bytes), None);
                assert_eq!(judged(&NONE, CLIENT, &bytes), None);
            }
        }
    }

    #[test]
    fn a_cut_chain_is_dropped_by_whichever_ipv6_filter_is_on() {
        let bytes = frame([0xff; 6], &ipv6(0, &[58, 9]), 0);
        let dhcpv6_only = Filters { dhcpv6_server: true, ..NONE };
        assert_eq!(judged(&dhcpv6_only, CLIENT, &bytes), Some(DropReason::Dhcpv6Server));
        let ra_only = Filters { router_advertisement: true, ..NONE };
        assert_eq!(judged(&ra_only, CLIENT, &bytes), Some(DropReason::RouterAdvertisement));
    }

    #[test]
    fn what_games_need_passes() {
        let on = Filters::default();
        for from_type in [
            &[0x08, 0x06, 0, 1][..],               // ARP
            &[0x00, 0x1e, 0xff, 0xff, 0, 30],      // IPX, 802.3 raw
            &[0x00, 0x20, 0xe0, 0xe0, 0x03, 0xff], // IPX, 802.2
            &[0x81, 0x37, 0xff, 0xff, 0, 30],      // IPX, Ethernet II
            &[0x88, 0x99, 1, 2],                   // a protocol nobody here knows
        ] {
            assert_eq!(judged(&on, CLIENT, &frame([0xff; 6], from_type, 60)), None, "{from_type:02x?}");
        }
    }
}
