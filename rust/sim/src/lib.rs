//! Rooms on a simulated network: everything that happens to a frame but QUIC and sockets, in virtual time, from one seed.
//!
//! Peers of two rooms talk over lines that lose, reorder, duplicate, shrink and go dark; they leave, and come back on new
//! connections before the relay has noticed; some lie or send garbage. What runs is the real thing: the egress queue, the
//! fragments, the reassembly and checks of arriving datagrams, the switch. What is checked is [`run`]'s to say.
#![forbid(unsafe_code)]

mod books;
mod end;
mod frames;
mod line;
mod pieces;
mod random;
mod world;

use std::fmt;

/// What a run came to; for people, and to see that a run was no idle one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames that peers gave to their lines.
    pub spoken: u64,
    /// Datagrams put on any line.
    pub datagrams: u64,
    /// Datagrams among them that a line lost by chance,
    pub lost: u64,
    /// that came while nothing passed,
    pub dark: u64,
    /// that were larger than a path which has shrunk,
    pub too_large: u64,
    /// that a line sent a second time,
    pub duplicated: u64,
    /// and that arrived before one that was sent earlier.
    pub overtook: u64,
    /// Frames that the switches took in.
    pub switched: u64,
    /// Frames among those that the switches dropped.
    pub dropped: u64,
    /// Frames that were put together from fragments.
    pub reassembled: u64,
    /// Frames of which some fragments came and were given up.
    pub given_up: u64,
    /// Frames that queues marked in place of dropping them.
    pub marked: u64,
    /// Frames that arrived at peers.
    pub delivered: u64,
    /// Connections that took the place of another.
    pub resumed: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.spoken += other.spoken;
        self.datagrams += other.datagrams;
        self.lost += other.lost;
        self.dark += other.dark;
        self.too_large += other.too_large;
        self.duplicated += other.duplicated;
        self.overtook += other.overtook;
        self.switched += other.switched;
        self.dropped += other.dropped;
        self.reassembled += other.reassembled;
        self.given_up += other.given_up;
        self.marked += other.marked;
        self.delivered += other.delivered;
        self.resumed += other.resumed;
    }
}

/// What lines lose by chance, in a thousandth: a seed's is the one at its remainder.
pub const LOSS_PERMILLE: [u64; 4] = [0, 10, 50, 200];

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Faults built in on purpose, to see that the checks find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A line loses a datagram and does not say so.
    SilentLoss,
    /// A byte of a frame changes on its way.
    FlippedByte,
    /// A frame is marked, and no queue has said so.
    UntoldMark,
    /// A frame is handed to a peer of the other room.
    CrossedRoom,
    /// A frame is handed back to its sender.
    Echo,
    /// The relay forwards a frame that the switch has not seen.
    Bypass,
    /// A frame that the switch let pass reaches nobody.
    Swallowed,
    /// An end takes a whole frame's datagram, and it comes to nothing.
    Unread,
    /// A frame's last missing fragment comes, and no frame comes of it.
    Unfinished,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SilentLoss,
        Self::FlippedByte,
        Self::UntoldMark,
        Self::CrossedRoom,
        Self::Echo,
        Self::Bypass,
        Self::Swallowed,
        Self::Unread,
        Self::Unfinished,
    ];
}

/// Plays the party of a seed through: two virtual seconds, then whatever is still under way.
///
/// # Errors
/// [`Broken`] says which of these did not hold: at every stage (queue, line, end, frames put together, switch) what came in went on, was
/// dropped under a name, or is still there, exactly; no frame reached another room, its sender (on whatever connection), or anybody if its source was not its
/// sender's; every frame that arrived is byte for byte one that was sent, but for a mark that its sender asked for and a queue told of;
/// nothing grew beyond its bound; whatever a switch told as begun ended once.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Result<Summary, Broken> {
    world::World::new(seed, sabotage).play()
}
