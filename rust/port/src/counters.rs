//! What a port counts: frames the kernel and the port could not agree on, and how often offloads helped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[cfg(target_os = "linux")]
use crate::offload::split::SplitError;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one port, written by it and readable by anyone at any time.
        #[derive(Debug, Default)]
        pub struct PortCounters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// The values of [`PortCounters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct PortCountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl PortCounters {
            /// The values now. Each is exact; together they are not taken at one instant.
            pub fn snapshot(&self) -> PortCountersSnapshot {
                PortCountersSnapshot { $($name: self.$name.load(Relaxed),)* }
            }
        }

        impl PortCountersSnapshot {
            /// Names and values, in a fixed order.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Frames handed to the batch by `recv`.
    frames_received,
    /// Super-frames split by `recv`.
    super_frames_received,
    /// Frames taken by the machine from `send`, each segment of a super-frame counted.
    frames_sent,
    /// Super-frames made by `send`.
    super_frames_sent,
    /// Received and dropped: longer than the overlay's longest frame, or than the receive buffer.
    received_too_long,
    /// Received and dropped: shorter than an Ethernet header.
    received_runt,
    /// Received and dropped: the kernel's offload header contradicts the frame, or announces something unknown.
    received_malformed,
    /// Lost in the kernel before `recv` came for them (AF_PACKET's receive queue was full).
    received_lost,
    /// Not sent: the machine's queue was full.
    sent_queue_full,
    /// Not sent: longer than the interface's MTU allows (EMSGSIZE).
    sent_too_long,
    /// Not sent: the interface was down.
    sent_interface_down,
    /// Not sent: refused for another reason.
    sent_failed,
}

impl PortCounters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        if count > 0 {
            counter.fetch_add(count as u64, Relaxed);
        }
    }
}

/// Counts a frame of the kernel's that is none.
#[cfg(target_os = "linux")]
pub(crate) fn count_split_error(counters: &PortCounters, error: SplitError) {
    let counter = match error {
        SplitError::Runt => &counters.received_runt,
        SplitError::TooLong => &counters.received_too_long,
        _ => &counters.received_malformed,
    };
    PortCounters::add(counter, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_carries_values_under_their_names() {
        let counters = PortCounters::default();
        PortCounters::add(&counters.received_runt, 3);
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.received_runt, 3);
        let named: Vec<_> = snapshot.entries().filter(|(_, value)| *value > 0).collect();
        assert_eq!(named, [("received_runt", 3)]);
    }
}
