//! When frames step back for the control stream. QUIC sends datagrams before stream data, so that a saturated connection would never get to
//! its control messages.
//!
//! A message that was written goes first: datagrams wait until it is on its way. One that was lost on the way is not seen from outside QUIC, so
//! where packets were lost while a message may be among them, datagrams pause now and then, until QUIC could have sent a packet without one.

use std::time::{Duration, Instant};

/// The longest that datagrams step back at a time: the peer may not be reading its stream.
const LONGEST: Duration = Duration::from_millis(50);
/// The time between pauses for what may have been lost.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a pause lasts at least when the window may be full: in a download of 10 Mbit/s, two packets are acknowledged in that time.
const UNCERTAIN: Duration = Duration::from_millis(2);
/// A message that is older has arrived, or the connection is about to time out.
const MEMORY: Duration = Duration::from_secs(10);

/// What a connection's counters say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// STREAM frames sent.
    pub(super) stream_frames: u64,
    /// Packets found to be lost.
    pub(super) lost_packets: u64,
    /// The smoothed round-trip time.
    pub(super) rtt: Duration,
}

/// The control stream's claim to the line.
#[derive(Debug, Default)]
pub(super) struct ControlTurn {
    /// A message waits since then, until so many STREAM frames have been sent.
    waits: Option<(Instant, u64)>,
    /// When a message was last written.
    written: Option<Instant>,
    /// A pause that is under way, and when the last one began.
    pause_until: Option<Instant>,
    paused: Option<Instant>,
    lost_packets: u64,
}

impl ControlTurn {
    /// A message is about to be written.
    pub(super) fn ask(&mut self, now: Instant, counted: Counted) {
        self.waits = Some((now, counted.stream_frames + 1));
        self.written = Some(now);
    }

    /// Until when datagrams step back, or `None`. `counted` is asked only when it matters.
    pub(super) fn until(&mut self, now: Instant, counted: impl Fn() -> Counted) -> Option<Instant> {
        let written = self.written?;
        if let Some((since, frames)) = self.waits {
            if now < since + LONGEST && counted().stream_frames < frames {
                return Some(since + LONGEST);
            }
            self.waits = None;
        }
        if let Some(until) = self.pause_until {
            if now < until {
                return Some(until);
            }
            self.pause_until = None;
        }
        if self.paused.is_some_and(|paused| now < paused + INTERVAL) {
            return None;
        }
        self.paused = Some(now);
        if now > written + MEMORY {
            self.written = None;
            return None;
        }
        let counted = counted();
        if counted.lost_packets == std::mem::replace(&mut self.lost_packets, counted.lost_packets) {
            return None;
        }
        let until = now + counted.rtt.clamp(Duration::from_millis(1), LONGEST);
        self.pause_until = Some(until);
        Some(until)
    }

    /// QUIC could have sent a packet without a datagram: a pause for what may have been lost is over. Where that is not `certain`, because
    /// nobody tells whether its window was full, acknowledgements get [`UNCERTAIN`] to make room in it. True if a pause has ended.
    pub(super) fn had_its_turn(&mut self, now: Instant, certain: bool) -> bool {
        let enough = certain || self.paused.is_some_and(|paused| now >= paused + UNCERTAIN);
        enough && self.waits.is_none() && self.pause_until.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn counted(stream_frames: u64, lost_packets: u64) -> Counted {
        Counted { stream_frames, lost_packets, rtt: 20 * MS }
    }

    #[test]
    fn nobody_steps_back_for_nothing() {
        let mut turn = ControlTurn::default();
        assert_eq!(turn.until(Instant::now(), || unreachable!()), None);
    }

    #[test]
    fn a_message_goes_first_until_it_is_on_its_way_or_too_long_has_passed() {
        let start = Instant::now();
        let mut turn = ControlTurn::default();
        turn.ask(start, counted(7, 0));
        assert_eq!(turn.until(start + MS, || counted(7, 0)), Some(start + LONGEST));
        assert_eq!(turn.until(start + 2 * MS, || counted(8, 0)), None);
        turn.ask(start + 3 * MS, counted(8, 0));
        assert!(turn.until(start + 52 * MS, || counted(8, 0)).is_some());
        assert_eq!(turn.until(start + 53 * MS, || counted(8, 0)), None);
    }

    #[test]
    fn a_pause_ends_with_the_first_chance_but_the_wait_for_a_new_message_does_not() {
        let start = Instant::now();
        let mut turn = ControlTurn::default();
        turn.ask(start, counted(0, 0));
        assert!(turn.until(start, || counted(0, 0)).is_some());
        assert!(!turn.had_its_turn(start, true));
        assert!(turn.until(start + MS, || counted(0, 0)).is_some());
        assert!(turn.until(start + 2 * MS, || counted(1, 5)).is_some());
        assert!(!turn.had_its_turn(start + 3 * MS, false));
        assert!(turn.had_its_turn(start + 3 * MS, true));
        assert_eq!(turn.until(start + 3 * MS, || counted(1, 9)), None);
        assert!(!turn.had_its_turn(start, true));
        assert!(turn.until(start + 102 * MS, || counted(1, 9)).is_some());
        assert!(turn.had_its_turn(start + 104 * MS, false));
        assert!(!turn.had_its_turn(start + 105 * MS, true));
    }

    #[test]
    fn losses_after_a_message_make_a_pause_of_a_round_trip_now_and_then() {
        let start = Instant::now();
        let mut turn = ControlTurn::default();
        turn.ask(start, counted(0, 0));
        assert_eq!(turn.until(start, || counted(1, 0)), None);
        assert_eq!(turn.until(start + 99 * MS, || counted(1, 5)), None);
        assert_eq!(turn.until(start + 100 * MS, || counted(1, 5)), Some(start + 120 * MS));
        assert!(turn.until(start + 119 * MS, || counted(1, 5)).is_some());
        assert_eq!(turn.until(start + 121 * MS, || counted(1, 9)), None);
        assert!(turn.until(start + 200 * MS, || counted(1, 9)).is_some());
        // Nothing has been lost since.
        assert_eq!(turn.until(start + 300 * MS, || counted(1, 9)), None);
        // And what was written long ago is not waited for any more.
        assert_eq!(turn.until(start + MEMORY + 200 * MS, || counted(1, 99)), None);
    }
}
