//! The one set of tunnel counters: control `stats`, diagnostics and metrics all read these.
//!
//! "Received" and "sent" are as seen by the part that counts, over the tunnel; bytes are those of frames, overlay
//! header not counted. Counters only ever grow.

use std::fmt;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Makes [`DropReason`] and everything that must list each reason once.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident: $name:literal, $counter:literal;)+) => {
        /// Why a frame or datagram was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $reason,)+
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$reason),+];
            /// How many reasons there are.
            pub const COUNT: usize = [$(stringify!($reason)),+].len();

            /// The stable name, as in `docs/protocol.md`: lower case with dashes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)+ }
            }

            /// The name of the counter of this reason: `drop_` and the name with underscores.
            pub const fn counter_name(self) -> &'static str {
                match self { $(Self::$reason => $counter,)+ }
            }
        }
    };
}

drop_reasons! {
    /// A datagram that does not decode.
    Malformed: "malformed", "drop_malformed";
    /// A frame shorter than its header.
    Runt: "runt", "drop_runt";
    /// A frame longer than Ethernet allows without jumbo frames.
    Jumbo: "jumbo", "drop_jumbo";
    /// A source address no station can have: multicast or zero.
    SourceInvalid: "source-invalid", "drop_source_invalid";
    /// A source address that is another's: not the client's own, or a client's on the gateway's side.
    SourceForeign: "source-foreign", "drop_source_foreign";
    /// A destination meant for the next switch only: spanning tree, LACP, LLDP, GVRP, CDP and kin.
    SwitchControl: "switch-control", "drop_switch_control";
    /// A client answering as a DHCP server.
    DhcpServer: "dhcp-server", "drop_dhcp_server";
    /// A client answering as a DHCPv6 server.
    Dhcpv6Server: "dhcpv6-server", "drop_dhcpv6_server";
    /// A client speaking as a router: router advertisements and redirects, ICMPv6 and ICMP.
    RouterAdvertisement: "router-advertisement", "drop_router_advertisement";
    /// ARP or RARP that names another's address as its sender's.
    ArpSpoof: "arp-spoof", "drop_arp_spoof";
    /// IPv6 neighbour discovery that names another's address as its sender's.
    NdSpoof: "nd-spoof", "drop_nd_spoof";
    /// The frame came back: two peers are connected outside the room as well.
    Loop: "loop", "drop_loop";
    /// The destination is on the sender's own side of the switch.
    SamePort: "same-port", "drop_same_port";
    /// More broadcasts and multicasts a second than the sender, or the room, may have.
    Storm: "storm", "drop_storm";
    /// Over the sender's limit for everything.
    LimitTotal: "limit-total", "drop_limit_total";
    /// Over the sender's limit for broadcast and multicast.
    LimitBroadcast: "limit-broadcast", "drop_limit_broadcast";
    /// Over the sender's limit for unicast to unknown stations.
    LimitUnknown: "limit-unknown", "drop_limit_unknown";
    /// Nobody else is in the room.
    NoTarget: "no-target", "drop_no_target";
    /// The receiver's queue had no room left.
    QueueFull: "queue-full", "drop_queue_full";
    /// The frame waited too long in the receiver's queue, or the queue stood for too long (RFC 8289) and the frame could not be marked.
    QueueDelay: "queue-delay", "drop_queue_delay";
    /// The receiver cannot take fragments and the frame needs them.
    TooBig: "too-big", "drop_too_big";
    /// A frame of which not all fragments came in time, or whose fragments contradicted each other.
    Reassembly: "reassembly", "drop_reassembly";
    /// There is no connection: a bridge without a relay, a sender that is not plugged in, or what waited when a connection ended.
    NotConnected: "not-connected", "drop_not_connected";
    /// The gateway saw a unicast between LAN hosts, which is not for the room; never sent.
    NotForRoom: "not-for-room", "drop_not_for_room";
    /// The machine's queue refused the frame.
    PortFull: "port-full", "drop_port_full";
    /// The machine refused the frame for another reason.
    PortError: "port-error", "drop_port_error";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Makes [`Counters`] and [`CountersSnapshot`] from one list of the counters that are not drops.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident;)+) => {
        /// Counters that several threads add to and read.
        ///
        /// Relaxed atomics: each counter is exact, a [`Counters::snapshot`] may see one of two that grow together earlier.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $field: AtomicU64,)+
            drops: [AtomicU64; DropReason::COUNT],
        }

        /// The values of [`Counters`] at one time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CountersSnapshot {
            $($(#[doc = $doc])+ pub $field: u64,)+
            /// Drops, in the order of [`DropReason::ALL`].
            pub drops: [u64; DropReason::COUNT],
        }

        impl Counters {
            /// The values now.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot {
                    $($field: self.$field.load(Relaxed),)+
                    drops: self.drops.each_ref().map(|drops| drops.load(Relaxed)),
                }
            }
        }

        impl CountersSnapshot {
            /// Every counter with its stable name, drops last, always in the same order.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                let drops = self.drops;
                [$((stringify!($field), self.$field)),+]
                    .into_iter()
                    .chain(DropReason::ALL.into_iter().map(move |reason| (reason.counter_name(), drops[reason as usize])))
            }

            /// What was added since an earlier snapshot of the same counters.
            pub fn since(&self, earlier: &Self) -> Self {
                let mut drops = self.drops;
                drops.iter_mut().zip(earlier.drops).for_each(|(now, then)| *now = now.saturating_sub(then));
                Self { $($field: self.$field.saturating_sub(earlier.$field),)+ drops }
            }
        }

        impl AddAssign for CountersSnapshot {
            /// Adds counter by counter: the sum of several connections, or of those that are gone.
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)+
                self.drops.iter_mut().zip(other.drops).for_each(|(sum, drops)| *sum += drops);
            }
        }
    };
}

counters! {
    /// Frames that came over the tunnel, dropped ones included.
    frames_received;
    /// Bytes of those frames.
    bytes_received;
    /// Frames sent over the tunnel.
    frames_sent;
    /// Bytes of those frames.
    bytes_sent;
    /// QUIC DATAGRAMs that came, malformed ones included.
    datagrams_received;
    /// QUIC DATAGRAMs sent.
    datagrams_sent;
    /// Fragments among the datagrams that came.
    fragments_received;
    /// Fragments among the datagrams sent.
    fragments_sent;
    /// Frames that were marked "congestion experienced" (RFC 3168) in a queue that stood, where others would have been dropped.
    frames_marked_ce;
    /// Frames of a gateway's new stations that found the room's address table full. The frames themselves passed.
    mac_table_full;
}

impl Counters {
    /// Counts frames that came, and their bytes.
    #[inline]
    pub fn add_received(&self, frames: u64, bytes: u64) {
        self.frames_received.fetch_add(frames, Relaxed);
        self.bytes_received.fetch_add(bytes, Relaxed);
    }

    /// Counts a frame of a station that found the address table full.
    pub fn add_mac_table_full(&self) {
        self.mac_table_full.fetch_add(1, Relaxed);
    }

    /// Counts frames sent, and their bytes.
    #[inline]
    pub fn add_sent(&self, frames: u64, bytes: u64) {
        self.frames_sent.fetch_add(frames, Relaxed);
        self.bytes_sent.fetch_add(bytes, Relaxed);
    }

    /// Counts datagrams that came, and how many of them were fragments.
    #[inline]
    pub fn add_datagrams_received(&self, datagrams: u64, fragments: u64) {
        self.datagrams_received.fetch_add(datagrams, Relaxed);
        if fragments > 0 {
            self.fragments_received.fetch_add(fragments, Relaxed);
        }
    }

    /// Counts datagrams sent, and how many of them were fragments.
    #[inline]
    pub fn add_datagrams_sent(&self, datagrams: u64, fragments: u64) {
        self.datagrams_sent.fetch_add(datagrams, Relaxed);
        if fragments > 0 {
            self.fragments_sent.fetch_add(fragments, Relaxed);
        }
    }

    /// Counts frames that were marked in place of being dropped.
    #[inline]
    pub fn add_marked_ce(&self, frames: u64) {
        self.frames_marked_ce.fetch_add(frames, Relaxed);
    }

    /// Counts drops for one reason.
    #[inline]
    pub fn add_drops(&self, reason: DropReason, frames: u64) {
        self.drops[reason as usize].fetch_add(frames, Relaxed);
    }

    /// How many were dropped for this reason so far.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }
}

impl CountersSnapshot {
    /// How many were dropped for this reason.
    pub const fn drops_for(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// How many were dropped for any reason.
    pub fn drops_total(&self) -> u64 {
        self.drops.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_of_one_make() {
        let names: HashSet<_> = DropReason::ALL.map(DropReason::name).into();
        assert_eq!(names.len(), DropReason::COUNT);
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            assert_eq!(reason.counter_name(), format!("drop_{}", reason.name().replace('-', "_")));
            assert!(reason.name().chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '-')));
            assert_eq!(reason.to_string(), reason.name());
        }
    }

    #[test]
    fn every_counter_shows_once_under_its_name() {
        let counters = Counters::default();
        counters.add_received(1, 100);
        counters.add_sent(2, 200);
        counters.add_datagrams_received(3, 4);
        counters.add_datagrams_sent(5, 6);
        counters.add_drops(DropReason::SourceForeign, 7);
        counters.add_mac_table_full();
        counters.add_marked_ce(8);
        let entries: Vec<_> = counters.snapshot().entries().collect();
        assert_eq!(entries.len(), 10 + DropReason::COUNT);
        let mut shown: Vec<_> = entries.iter().filter(|(_, value)| *value > 0).copied().collect();
        shown.sort_unstable();
        let expected = [
            ("bytes_received", 100),
            ("bytes_sent", 200),
            ("datagrams_received", 3),
            ("datagrams_sent", 5),
            ("drop_source_foreign", 7),
            ("fragments_received", 4),
            ("fragments_sent", 6),
            ("frames_marked_ce", 8),
            ("frames_received", 1),
            ("frames_sent", 2),
            ("mac_table_full", 1),
        ];
        assert_eq!(shown, expected);
        assert_eq!(entries.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), entries.len());
    }

    #[test]
    fn snapshots_add_and_subtract() {
        let counters = Counters::default();
        counters.add_received(1, 60);
        counters.add_drops(DropReason::Runt, 1);
        let earlier = counters.snapshot();
        counters.add_received(2, 120);
        counters.add_drops(DropReason::Runt, 3);
        let later = counters.snapshot();
        let between = later.since(&earlier);
        assert_eq!((between.frames_received, between.bytes_received), (2, 120));
        assert_eq!((between.drops_for(DropReason::Runt), between.drops_total()), (3, 3));
        let mut sum = earlier;
        sum += between;
        assert_eq!(sum, later);
    }
}
