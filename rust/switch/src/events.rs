//! What a room's switch has to tell people: loops, storms, a full address table, IP addresses that two claim and MAC addresses that two
//! show, when they set in and when they are over.
//!
//! Each is told once and not again until it is over, so a frame flood makes no event flood; and whoever does not read
//! finds the first ones, for what waits is bounded.

use std::collections::VecDeque;
use std::net::IpAddr;

use softlan_wire::{Mac, PeerId};

/// Something the room's people should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchEvent {
    /// Frames come back: these two peers are connected to each other outside the room as well.
    LoopFound {
        /// The two peers, the lower id first.
        peers: (PeerId, PeerId),
        /// The source of the frame that gave it away.
        source: Mac,
        /// Whether frames come back through both. If not, what one of them sends comes back through the other, and the one may be innocent.
        is_mutual: bool,
    },
    /// Nothing has come back for a while, or one of the two has left.
    LoopGone {
        /// The two peers, the lower id first.
        peers: (PeerId, PeerId),
    },
    /// More broadcasts and multicasts a second than allowed; those above are dropped.
    StormBegan {
        /// Whose; `None`: those of all peers together.
        peer: Option<PeerId>,
    },
    /// The storm is over.
    StormEnded {
        /// Whose; `None`: those of all peers together.
        peer: Option<PeerId>,
        /// Frames dropped in its course.
        dropped: u64,
    },
    /// A gateway has shown more stations than the address table holds.
    TableFull {
        /// The gateway.
        peer: PeerId,
    },
    /// The address table has had room again for a while.
    TableEased {
        /// The gateway.
        peer: PeerId,
    },
    /// Two peers keep claiming one IP address.
    AddressConflict {
        /// The two peers, the lower id first.
        peers: (PeerId, PeerId),
        /// The address.
        address: IpAddr,
    },
    /// No address has been claimed by both for a while, or one of the two has left.
    AddressSettled {
        /// The two peers, the lower id first.
        peers: (PeerId, PeerId),
    },
    /// The LAN behind a gateway keeps showing a client's MAC address, in frames that the room did not send there.
    MacConflict {
        /// Client and gateway, the lower id first.
        peers: (PeerId, PeerId),
        /// The address.
        mac: Mac,
    },
    /// The LAN has not shown it for a while, or one of the two has left.
    MacSettled {
        /// Client and gateway, the lower id first.
        peers: (PeerId, PeerId),
    },
}

/// What an event is about: the one that says that something has begun and the one that says that it is over have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A loop through two peers, the lower id first.
    Loop(PeerId, PeerId),
    /// A storm of a peer, or of all together.
    Storm(Option<PeerId>),
    /// The address table, and the gateway that fills it.
    Table(PeerId),
    /// Addresses that two peers claim, the lower id first.
    Addresses(PeerId, PeerId),
    /// A MAC address that a client has and a gateway's LAN shows, the lower id first.
    Mac(PeerId, PeerId),
}

impl SwitchEvent {
    /// What it is about.
    pub const fn subject(self) -> Subject {
        match self {
            Self::LoopFound { peers, .. } | Self::LoopGone { peers } => Subject::Loop(peers.0, peers.1),
            Self::StormBegan { peer } | Self::StormEnded { peer, .. } => Subject::Storm(peer),
            Self::TableFull { peer } | Self::TableEased { peer } => Subject::Table(peer),
            Self::AddressConflict { peers, .. } | Self::AddressSettled { peers } => {
                Subject::Addresses(peers.0, peers.1)
            }
            Self::MacConflict { peers, .. } | Self::MacSettled { peers } => Subject::Mac(peers.0, peers.1),
        }
    }

    /// Whether it says that something has begun, and not that it is over.
    pub const fn is_beginning(self) -> bool {
        match self {
            Self::LoopFound { .. }
            | Self::StormBegan { .. }
            | Self::TableFull { .. }
            | Self::AddressConflict { .. }
            | Self::MacConflict { .. } => true,
            Self::LoopGone { .. }
            | Self::StormEnded { .. }
            | Self::TableEased { .. }
            | Self::AddressSettled { .. }
            | Self::MacSettled { .. } => false,
        }
    }
}

/// Events kept until they are taken: far more than one room can have at a time.
const CAPACITY: usize = 64;

/// A bounded queue of events.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: VecDeque<SwitchEvent>,
}

impl EventQueue {
    /// Adds an event; one too many is lost.
    #[cold]
    pub(crate) fn push(&mut self, event: SwitchEvent) {
        if self.waiting.len() < CAPACITY {
            self.waiting.push_back(event);
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<SwitchEvent> {
        self.waiting.drain(..).collect()
    }
}
