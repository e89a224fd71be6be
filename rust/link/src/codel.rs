//! Controlled delay (RFC 8289): when to drop, or mark, so that a queue that stands becomes one that only buffers bursts.

use std::time::Duration;

/// How long frames may wait in a standing queue.
pub const TARGET: Duration = Duration::from_millis(5);
/// How long a queue may stand above [`TARGET`] before a sender is told: about the largest usual round trip.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// A queue of no more than a full frame is no standing queue.
const ONE_FRAME: usize = 1522;

/// The state of one queue. It is asked about each frame that leaves it, in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Codel {
    /// When the delay will have been above the target for a whole interval.
    above_until: Option<Duration>,
    signalling: bool,
    next_signal: Duration,
    count: u32,
    last_count: u32,
}

impl Codel {
    /// Whether to drop the frame that leaves the queue at `now` after it waited for `sojourn`, or to mark it where that does (RFC 8290 section 5.2.6);
    /// `behind` are the bytes still queued.
    pub fn signals(&mut self, now: Duration, sojourn: Duration, behind: usize) -> bool {
        let standing = self.stands(now, sojourn, behind);
        if self.signalling {
            self.signalling = standing;
            if !standing || now < self.next_signal {
                return false;
            }
            self.count += 1;
            self.next_signal = control_law(self.next_signal, self.count);
            return true;
        }
        if !standing {
            return false;
        }
        self.signalling = true;
        // If it was signalling a short while ago, the rate that kept the queue short then is where to go on (RFC 8289 section 4.2).
        let delta = self.count.saturating_sub(self.last_count);
        let recently = now.saturating_sub(self.next_signal) < 16 * INTERVAL;
        self.count = if delta > 1 && recently { delta } else { 1 };
        self.last_count = self.count;
        self.next_signal = control_law(now, self.count);
        true
    }

    /// Whether the delay has been above the target for an interval.
    fn stands(&mut self, now: Duration, sojourn: Duration, behind: usize) -> bool {
        if sojourn < TARGET || behind <= ONE_FRAME {
            self.above_until = None;
            return false;
        }
        now >= *self.above_until.get_or_insert(now + INTERVAL)
    }
}

/// The next signal comes sooner by the square root of those so far, which makes TCP's rate fall linearly (RFC 8289 section 3.3).
fn control_law(from: Duration, count: u32) -> Duration {
    from + INTERVAL.div_f64(f64::from(count.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Frames that leave one a millisecond after `sojourn`, for `span` milliseconds; gives when drops came.
    fn run(codel: &mut Codel, from: u32, span: u32, sojourn: Duration) -> Vec<u32> {
        (from..from + span).filter(|ms| codel.signals(*ms * MS, sojourn, 100_000)).collect()
    }

    #[test]
    fn a_short_queue_is_left_alone() {
        assert!(run(&mut Codel::default(), 0, 1000, 4 * MS).is_empty());
    }

    #[test]
    fn a_burst_shorter_than_the_interval_is_left_alone() {
        assert!(run(&mut Codel::default(), 0, 99, 50 * MS).is_empty());
    }

    #[test]
    fn a_standing_queue_is_dropped_from_at_a_growing_rate() {
        let drops = run(&mut Codel::default(), 0, 1000, 50 * MS);
        assert_eq!(drops[0], 100);
        let gaps: Vec<u32> = drops.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[0] >= 99 && gaps.last().unwrap() < &gaps[0], "{gaps:?}");
    }

    #[test]
    fn it_stops_when_the_queue_is_short_and_takes_up_its_rate_when_it_comes_back_soon() {
        let mut codel = Codel::default();
        let before = run(&mut codel, 0, 2000, 50 * MS).len();
        assert!(run(&mut codel, 2000, 10, MS).is_empty());
        let after = run(&mut codel, 2010, 2000, 50 * MS).len();
        assert!(after > before, "{before} drops at first, {after} after");
    }

    #[test]
    fn the_last_frame_is_never_dropped() {
        let mut codel = Codel::default();
        assert!(!(0..1000).any(|ms| codel.signals(ms * MS, 50 * MS, 0)));
    }
}
