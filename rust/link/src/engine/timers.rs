//! When connections want to be looked at again: a heap that forgets lazily.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines by connection handle. A connection's earliest one counts; a later one that replaces it is put in when the earlier has fired,
/// so that the usual case, a deadline pushed back by every packet, costs nothing.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The earliest entry of each handle in the heap.
    armed: Vec<Option<Instant>>,
}

impl Timers {
    /// Fires for `handle` at `deadline` at the latest.
    pub(super) fn arm(&mut self, handle: usize, deadline: Instant) {
        if self.armed.len() <= handle {
            self.armed.resize(handle + 1, None);
        }
        let armed = &mut self.armed[handle];
        if armed.is_none_or(|present| deadline < present) {
            *armed = Some(deadline);
            self.heap.push(Reverse((deadline, handle)));
        }
    }

    /// The next handle that is due at `now`. It may be early: the connection knows.
    pub(super) fn due(&mut self, now: Instant) -> Option<usize> {
        while let Some(Reverse((deadline, handle))) = self.heap.peek().copied() {
            if deadline > now {
                return None;
            }
            self.heap.pop();
            let armed = &mut self.armed[handle];
            // An entry that an earlier one has overtaken fired already.
            if *armed == Some(deadline) {
                *armed = None;
                return Some(handle);
            }
        }
        None
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_handle_fires_at_its_earliest_deadline_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.arm(3, at(30));
        timers.arm(3, at(10));
        timers.arm(3, at(20));
        timers.arm(0, at(15));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.due(at(9)), None);
        assert_eq!(timers.due(at(12)), Some(3));
        assert_eq!(timers.due(at(12)), None);
        timers.arm(3, at(40));
        assert_eq!([timers.due(at(50)), timers.due(at(50)), timers.due(at(50))], [Some(0), Some(3), None]);
        assert_eq!(timers.next(), None);
    }
}
