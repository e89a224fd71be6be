//! Who sends to whom, how much may be under way, and what got lost. Pure: no sockets, no clock.

/// What one receiver has heard of a flow.
#[derive(Debug, Clone, Copy, Default)]
struct Ear {
    /// One above the highest number heard.
    next: u64,
    /// Frames heard.
    heard: u64,
    /// Frames counted when the sender gave up waiting that came after all would show as negative loss: they are not counted.
    gone: u64,
}

/// Numbered frames from one peer to one other (unicast) or to many (broadcast), of which a bounded number is under way.
#[derive(Debug)]
pub struct Flow {
    /// Index of the sending peer.
    pub sender: usize,
    ears: Vec<Ear>,
    sent: u64,
    window: u64,
    /// What all had heard at the last look.
    seen: u64,
}

/// Frames delivered and missing so far; subtract two of them for what happened between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that arrived, over all receivers.
    pub delivered: u64,
    /// Numbers skipped, over all receivers: frames under way are not among them.
    pub missing: u64,
}

impl std::ops::Sub for Tally {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            delivered: self.delivered.saturating_sub(before.delivered),
            missing: self.missing.saturating_sub(before.missing),
        }
    }
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { delivered: self.delivered + other.delivered, missing: self.missing + other.missing }
    }
}

impl Flow {
    /// From peer `sender` to `receivers` peers, with `window` frames under way at most.
    pub fn new(sender: usize, receivers: usize, window: u64) -> Self {
        Self { sender, ears: vec![Ear::default(); receivers], sent: 0, window, seen: 0 }
    }

    /// What the slowest receiver has heard of.
    fn slowest(&self) -> u64 {
        self.ears.iter().map(|ear| ear.next).min().unwrap_or(self.sent)
    }

    /// Frames under way, over all receivers.
    pub fn under_way(&self) -> u64 {
        self.ears.iter().map(|ear| self.sent - ear.next).sum()
    }

    /// How many frames to send now: none until half of the window is free, so that they leave in batches.
    pub fn room(&self) -> u64 {
        let free = self.window.saturating_sub(self.sent - self.slowest());
        if 2 * free >= self.window { free } else { 0 }
    }

    /// How many frames a frame sent is, in [`Self::under_way`].
    pub fn receivers(&self) -> u64 {
        self.ears.len() as u64
    }

    /// Takes the number of the next frame.
    pub fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// Receiver `ear` heard frame `number`.
    pub fn hear(&mut self, ear: usize, number: u64) {
        let sent = self.sent;
        let Some(ear) = self.ears.get_mut(ear) else { return };
        if number >= sent || number < ear.gone {
            return;
        }
        ear.next = ear.next.max(number + 1);
        ear.heard += 1;
    }

    /// To be called now and then: when nothing has come since the last time although the window is full, what is under way counts as lost.
    pub fn look(&mut self) {
        let slowest = self.slowest();
        if self.room() == 0 && slowest == self.seen {
            self.give_up();
        }
        self.seen = self.slowest();
    }

    fn give_up(&mut self) {
        for ear in &mut self.ears {
            ear.next = self.sent;
            ear.gone = self.sent;
        }
    }

    /// Changes how many frames may be under way.
    pub fn set_window(&mut self, window: u64) {
        self.window = window;
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        self.ears.iter().fold(Tally::default(), |sum, ear| {
            sum + Tally { delivered: ear.heard, missing: ear.next.saturating_sub(ear.heard) }
        })
    }
}

/// Which of `peers` share a room: `rooms` rooms of equal size, the rest in the last.
pub fn room_of(peer: usize, peers: usize, rooms: usize) -> usize {
    (peer / (peers / rooms).max(1)).min(rooms - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_by_halves_and_counts_what_was_skipped() {
        let mut flow = Flow::new(0, 1, 8);
        assert_eq!(flow.room(), 8);
        for number in 0..8 {
            assert_eq!(flow.send(), number);
        }
        assert_eq!(flow.room(), 0);
        for number in [0, 1, 3] {
            flow.hear(0, number);
        }
        assert_eq!(flow.room(), 4);
        assert_eq!(flow.tally(), Tally { delivered: 3, missing: 1 });
    }

    #[test]
    fn a_broadcast_waits_for_the_slowest() {
        let mut flow = Flow::new(0, 3, 4);
        for _ in 0..4 {
            flow.send();
        }
        for ear in 0..2 {
            (0..4).for_each(|number| flow.hear(ear, number));
        }
        assert_eq!((flow.room(), flow.under_way()), (0, 4));
        flow.look();
        assert_eq!(flow.room(), 4, "nobody had heard all of anything since the beginning");
        assert_eq!(flow.tally(), Tally { delivered: 8, missing: 4 });
        // Late after all: given up stays given up, so that nothing is counted twice.
        flow.hear(2, 0);
        assert_eq!(flow.tally(), Tally { delivered: 8, missing: 4 });
    }

    #[test]
    fn a_flow_that_moves_is_not_given_up() {
        let mut flow = Flow::new(0, 1, 2);
        for number in 0..10 {
            while flow.room() > 0 {
                flow.send();
            }
            flow.hear(0, number);
            flow.look();
        }
        assert_eq!(flow.tally(), Tally { delivered: 10, missing: 0 });
    }

    #[test]
    fn a_number_never_sent_is_not_believed() {
        let mut flow = Flow::new(0, 1, 4);
        flow.hear(0, 7);
        assert_eq!(flow.tally(), Tally::default());
    }

    #[test]
    fn rooms_are_filled_evenly() {
        let sizes = |peers, rooms| {
            (0..rooms)
                .map(|room| (0..peers).filter(|&peer| room_of(peer, peers, rooms) == room).count())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(64, 4), [16; 4]);
        assert_eq!(sizes(7, 2), [3, 4]);
        assert_eq!(sizes(2, 1), [2]);
    }
}
