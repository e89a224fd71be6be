//! A congestion controller for a tunnel: it keeps the line full and its queue short, and does not take a lost packet for a full line.
//!
//! What travels in a tunnel is controlled already: each TCP in it slows down by itself when something is lost. An outer controller that
//! halves its rate at every loss does it twice, and one that grows until something is lost keeps the line's buffer full, in
//! which every game packet then waits. So this one goes by delay: once a round trip it compares the shortest time a packet took in that round with
//! the shortest of the last seconds; the difference is the queue it stands in. What a round tells is the doing of the window its packets were sent under, the
//! one of a round before: in proportion to that one the next is chosen, so that it comes to rest where the queue is as long as wanted, and does not swing
//! about it. Loss counts only when it is heavy, as where a buffer is too small to show up as delay.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

/// Packets that may always be in flight: enough for a game and for finding out that the line is free again.
const FLOOR_PACKETS: u64 = 16;
/// Bytes in flight at most: 20 Gbit/s over 100 ms. A path on which no queue ever shows, as loopback, would otherwise double the window without end.
const MOST_WINDOW: u64 = 256 << 20;
/// Packets of the window that a full line's bulk leaves free, so that a ping does not wait for an acknowledgement; at most a quarter of the window.
const KEPT_PACKETS: u64 = 6;
/// QUIC holds back a packet when a full one behind it would not fit either: from here on the window counts as full.
const FULL_PACKETS: u64 = 2;
/// QUIC reports what it sends without saying whether it will be acknowledged. An acknowledgement itself, which is not, has at most 64 ranges of four bytes
/// (quinn-proto's `MAX_ACK_BLOCKS`; RFC 9000 section 19.3.1) and its packet's own bytes. What is not larger is not taken for bytes in flight.
const MOST_ACK: u64 = 300;
/// Packets in flight at first (RFC 9002 section 7.2 allows ten, of at least 14,720 bytes).
const INITIAL_PACKETS: u64 = 10;
/// The queue aimed at is this part of the path's own round trip, within the bounds below.
const TARGET_PART: u32 = 4;
const LEAST_TARGET: Duration = Duration::from_micros(500);
const MOST_TARGET: Duration = Duration::from_millis(15);
/// Below so long a round trip, as within one machine or one LAN, what is full is a processor and not a line: packets wait in sockets, and a round is
/// a few bursts of which one found its reader idle. There the mean of a round tells the queue, where on longer paths, which jitter, the shortest does.
const SHORT_PATH: Duration = Duration::from_millis(1);
/// How long the shortest round trip is believed: a path may get longer, and others may fill its buffer for good.
const BASE_MEMORY: Duration = Duration::from_secs(5);
/// Round trips for which the queue is let run empty: one until the smaller window is felt, one to see the path alone. One more passes until the former
/// window is felt again.
const DRAIN_ROUNDS: u8 = 2;
const RETURN_ROUNDS: u8 = 1;
/// A round counts as free when its packets waited no longer than this part of the target, all in all: a line that is not full.
const FREE_PART: u32 = 2;
/// So many free rounds in a row, and the window doubles again as at the start: whoever had little to say for a while, or met a jolt, is not to creep back. No
/// more of them: a TCP inside that finds itself held to less than a quarter more in each of three rounds takes that for the line (BBR's way to leave its
/// start-up), and then creeps for seconds.
const FREE_ROUNDS: u8 = 2;
/// The part of a round's bytes that may be lost without it being a sign of a full line, as one in so many.
const HEAVY_LOSS: u64 = 8;
/// Fewer packets lost in a round than this are chance, whatever part of the round they are.
const FEW_PACKETS: u64 = 8;
/// What a round may take away at most.
const MOST_BACKOFF: f64 = 0.7;

/// Makes [`Calm`] controllers.
#[derive(Debug, Clone, Copy, Default)]
pub struct CalmConfig;

impl ControllerFactory for CalmConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Calm::new(now, current_mtu))
    }
}

/// The controller of one path.
#[derive(Debug, Clone)]
pub struct Calm {
    mtu: u64,
    window: u64,
    /// Bytes sent and neither acknowledged nor lost, as far as this controller was told; mere acknowledgements are left out.
    in_flight: u64,
    /// The window of the round before: what is acknowledged now was sent under it.
    former_window: u64,
    /// No queue has been seen yet: the window doubles each round.
    starting: bool,
    /// Rounds in a row that held the sender back and were free all the same.
    free_rounds: u8,
    /// Where much was lost, the window does not double beyond what was left of it.
    most_doubled: u64,
    base: ShortestOf,
    round: Round,
    drain: Drain,
}

/// A short pause from queueing, now and then. Without it the controller's own queue would come to be taken for the path's length, each period a little
/// more of it.
#[derive(Debug, Clone, Copy)]
struct Drain {
    last: Instant,
    /// Rounds left, the last of them with the window of before, and that window.
    under_way: Option<(u8, u64)>,
}

/// What has been seen in the present round trip.
#[derive(Debug, Clone, Copy)]
struct Round {
    since: Instant,
    shortest: Option<Duration>,
    /// Of all acknowledgements, for their mean.
    total: Duration,
    acks: u32,
    acked: u64,
    lost: u64,
    /// The window was what held the sender back at some time.
    limited: bool,
}

impl Round {
    fn new(since: Instant) -> Self {
        Self { since, shortest: None, total: Duration::ZERO, acks: 0, acked: 0, lost: 0, limited: false }
    }
}

/// The shortest time of the last one to two [`BASE_MEMORY`] periods.
#[derive(Debug, Clone, Copy)]
struct ShortestOf {
    since: Instant,
    present: Option<Duration>,
    former: Option<Duration>,
}

impl ShortestOf {
    fn saw(&mut self, now: Instant, took: Duration) {
        if now.saturating_duration_since(self.since) > BASE_MEMORY {
            *self = Self { since: now, present: None, former: self.present };
        }
        self.present = Some(self.present.map_or(took, |known| known.min(took)));
    }

    fn get(&self) -> Option<Duration> {
        self.present.into_iter().chain(self.former).min()
    }
}

impl Calm {
    /// A controller for a path that begins now.
    pub fn new(now: Instant, mtu: u16) -> Self {
        Self {
            mtu: mtu.into(),
            window: INITIAL_PACKETS * u64::from(mtu),
            in_flight: 0,
            former_window: INITIAL_PACKETS * u64::from(mtu),
            starting: true,
            free_rounds: 0,
            most_doubled: MOST_WINDOW,
            base: ShortestOf { since: now, present: None, former: None },
            round: Round::new(now),
            drain: Drain { last: now, under_way: None },
        }
    }

    /// Bytes that may be sent before something more is acknowledged.
    pub(crate) fn room(&self) -> u64 {
        self.window.saturating_sub(self.in_flight)
    }

    /// Bytes of the window that are for flows that send little: others are to leave so much of [`Calm::room`].
    pub(crate) fn kept(&self) -> u64 {
        (KEPT_PACKETS * self.mtu).min(self.window / 4)
    }

    fn floor(&self) -> u64 {
        FLOOR_PACKETS * self.mtu
    }

    /// A packet sent at `sent` was acknowledged at `now`; `limited` says whether the window held the sender back, `smoothed` is the
    /// smoothed round-trip time.
    fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, limited: bool, smoothed: Duration) {
        let took = now.saturating_duration_since(sent);
        self.base.saw(now, took);
        let round = &mut self.round;
        round.shortest = Some(round.shortest.map_or(took, |known| known.min(took)));
        round.total += took;
        round.acks += 1;
        round.acked += bytes;
        round.limited |= limited;
        if now.saturating_duration_since(round.since) >= smoothed {
            self.end_round(now);
        }
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        let (Some(base), Some(shortest)) = (self.base.get(), round.shortest) else { return };
        let sent_under = std::mem::replace(&mut self.former_window, self.window);
        let target = (base / TARGET_PART).clamp(LEAST_TARGET, MOST_TARGET);
        if self.drains(now, base, target) {
            return;
        }
        if round.lost >= FEW_PACKETS * self.mtu && round.lost * HEAVY_LOSS > round.acked + round.lost {
            self.shrink_to((self.window as f64 * MOST_BACKOFF) as u64);
            (self.starting, self.free_rounds, self.most_doubled) = (false, 0, self.window);
            return;
        }
        let mean = (round.total / round.acks.max(1)).saturating_sub(base);
        let queue = if base < SHORT_PATH { mean } else { shortest.saturating_sub(base) };
        let fits = (base + target).as_secs_f64() / (base + queue).as_secs_f64();
        let fitting = (sent_under as f64 * fits.max(MOST_BACKOFF)) as u64;
        if !round.limited {
            // The queue is not of its own making, for it did not fill its window. So there is room for less of what it may begin to send.
            if queue > target {
                self.shrink_to(fitting);
            }
            return;
        }
        let is_free = mean <= target / FREE_PART;
        self.starting &= is_free;
        self.free_rounds = if is_free { self.free_rounds.saturating_add(1) } else { 0 };
        let is_used = 2 * round.acked >= sent_under;
        if is_free
            && is_used
            && (self.starting || self.free_rounds >= FREE_ROUNDS)
            && 2 * self.window <= self.most_doubled
        {
            self.window *= 2;
        } else if fitting > self.window {
            self.window = fitting.min(self.window + (self.window / 8).max(2 * self.mtu)).min(MOST_WINDOW);
        } else {
            self.shrink_to(fitting);
        }
    }

    /// Makes the window smaller, if it is larger than that, but not smaller than the floor.
    fn shrink_to(&mut self, window: u64) {
        self.window = window.max(self.floor()).min(self.window);
    }

    /// Lets the queue run empty for [`DRAIN_ROUNDS`] once in [`BASE_MEMORY`]; whether it does so now.
    fn drains(&mut self, now: Instant, base: Duration, target: Duration) -> bool {
        match self.drain.under_way {
            Some((left, window)) => {
                self.drain.under_way = (left > 1).then_some((left - 1, window));
                if left == RETURN_ROUNDS + 1 {
                    self.window = window;
                }
                if left == 1 {
                    self.drain.last = now;
                }
            }
            None if self.starting || now.saturating_duration_since(self.drain.last) < BASE_MEMORY => {
                return false;
            }
            None => {
                self.drain.under_way = Some((DRAIN_ROUNDS + RETURN_ROUNDS, self.window));
                let empty = base.as_secs_f64() / (base + target).as_secs_f64();
                self.shrink_to((self.window as f64 * empty * 0.95) as u64);
            }
        }
        true
    }
}

impl Controller for Calm {
    fn on_sent(&mut self, _now: Instant, bytes: u64, _last_packet_number: u64) {
        if bytes <= MOST_ACK {
            return;
        }
        self.in_flight += bytes;
        // QUIC itself does not notice: what is kept back never gets to it.
        self.round.limited |= self.room() <= self.kept() + FULL_PACKETS * self.mtu;
    }

    fn on_end_acks(&mut self, _now: Instant, in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.in_flight = in_flight;
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.acked(now, sent, bytes, !app_limited, rtt.get());
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.round.lost += lost_bytes;
        if is_persistent {
            self.window = self.floor();
            (self.starting, self.free_rounds, self.most_doubled) = (true, 0, MOST_WINDOW);
            self.former_window = self.window;
            self.round = Round::new(now);
            self.drain = Drain { last: now, under_way: None };
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.window = self.window.max(self.floor());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MTU: u64 = 1472;

    #[test]
    fn a_path_that_never_queues_does_not_grow_the_window_without_end() {
        let start = Instant::now();
        let mut controller = Calm::new(start, MTU as u16);
        let delay = Duration::from_micros(50);
        for round in 1..1000 {
            let now = start + delay * round;
            controller.acked(now, now - delay, MTU, true, delay);
        }
        assert_eq!(controller.window(), MOST_WINDOW);
    }

    /// Feeds rounds in which one packet came back at once and all others had to wait, and gives the window after them.
    fn after_uneven_rounds(delay: Duration, waits: Duration) -> u64 {
        let (mut controller, start) = fresh();
        (controller.window, controller.former_window) = (1000 * MTU, 1000 * MTU);
        controller.starting = false;
        for round in 1..20 {
            let now = start + (delay + waits) * round;
            for packet in 0..32 {
                let took = if packet == 0 { delay } else { delay + waits };
                controller.acked(now, now - took, MTU, true, delay + waits);
            }
        }
        controller.window()
    }

    #[test]
    fn on_a_short_path_one_quick_packet_does_not_hide_the_queue() {
        assert!(after_uneven_rounds(Duration::from_micros(100), ms(2)) < 1000 * MTU / 2);
    }

    #[test]
    fn on_a_longer_path_jitter_is_no_queue() {
        assert!(after_uneven_rounds(ms(20), ms(30)) > 1000 * MTU);
    }

    #[test]
    fn its_room_is_what_the_window_leaves() {
        let (mut controller, start) = fresh();
        let window = controller.window();
        assert_eq!(controller.room(), window);
        controller.on_sent(start, 3 * MTU, 2);
        assert_eq!(controller.room(), window - 3 * MTU);
        controller.on_congestion_event(start, start, false, MTU);
        assert_eq!(controller.room(), window - 2 * MTU);
        controller.on_end_acks(start, MTU, false, Some(1));
        assert_eq!(controller.room(), window - MTU);
        controller.on_sent(start, 2 * window, 3);
        assert_eq!(controller.room(), 0);
    }

    #[test]
    fn who_only_acknowledges_is_not_held_back_by_it() {
        let (mut controller, start) = fresh();
        for packet in 0..2000 {
            controller.on_sent(start, 60, packet);
        }
        assert_eq!(controller.room(), controller.window());
    }

    #[test]
    fn a_window_that_is_full_but_for_what_is_kept_limits_its_sender() {
        let (mut controller, start) = fresh();
        controller.window = 100 * MTU;
        assert_eq!(controller.kept(), KEPT_PACKETS * MTU);
        controller.on_sent(start, 50 * MTU, 50);
        assert!(!controller.round.limited);
        controller.on_sent(start, 43 * MTU, 93);
        assert!(controller.round.limited);
        controller.window = controller.floor();
        assert_eq!(controller.kept(), controller.floor() / 4);
    }

    /// One bottleneck with a buffer, and a sender that always has something to send, on a clock of their own.
    struct Line {
        /// Bytes a second.
        rate: f64,
        /// Round trip without a queue.
        delay: Duration,
        buffer: Duration,
        /// Lost packets, one in so many; 0 for none.
        loss: u32,
    }

    #[derive(Debug)]
    struct Outcome {
        /// The part of the line that was used.
        used: f64,
        /// The mean time in the queue, and the longest.
        queue: Duration,
        longest: Duration,
    }

    impl Line {
        /// Runs `controller` for `seconds`; only the second half counts.
        fn run(&self, controller: &mut Calm, start: Instant, seconds: u32) -> Outcome {
            let (mut now, end) = (start, start + Duration::from_secs(seconds.into()));
            let half = start + (end - start) / 2;
            // Sent packets with the time of their acknowledgement; `None` for a lost one, which is noticed when a later one arrives.
            let mut flying: VecDeque<(Instant, Instant, bool)> = VecDeque::new();
            let mut free_at = start;
            let mut smoothed = self.delay;
            let (mut random, mut carried, mut packets) = (1_u32, 0_u64, 0_u32);
            let (mut queued, mut longest) = (Duration::ZERO, Duration::ZERO);
            while now < end {
                while (flying.len() as u64 + 1) * MTU <= controller.window() {
                    let waits = free_at.saturating_duration_since(now);
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let unlucky = self.loss > 0 && (random >> 8) % self.loss == 0;
                    let fits = waits <= self.buffer;
                    if fits {
                        free_at = free_at.max(now) + Duration::from_secs_f64(MTU as f64 / self.rate);
                    }
                    let back = now + waits.min(self.buffer) + self.delay;
                    flying.push_back((now, back, fits && !unlucky));
                    if now >= half {
                        (queued, packets) = (queued + waits.min(self.buffer), packets + 1);
                        longest = longest.max(waits.min(self.buffer));
                    }
                }
                let Some((sent, back, arrived)) = flying.pop_front() else { break };
                now = now.max(back);
                if arrived {
                    smoothed = (smoothed * 7 + (now - sent)) / 8;
                    controller.acked(now, sent, MTU, true, smoothed);
                    carried += if now >= half { MTU } else { 0 };
                } else {
                    controller.on_congestion_event(now, sent, false, MTU);
                }
            }
            let possible = self.rate * (end - half).as_secs_f64();
            Outcome { used: carried as f64 / possible, queue: queued / packets.max(1), longest }
        }
    }

    fn fresh() -> (Calm, Instant) {
        let start = Instant::now();
        (Calm::new(start, MTU as u16), start)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_fills_lines_of_all_kinds_and_keeps_their_queues_short() {
        for (mbit, delay, buffer) in
            [(1.0, 40, 1000), (20.0, 20, 250), (100.0, 20, 100), (200.0, 10, 12), (1000.0, 5, 20)]
        {
            let line = Line { rate: mbit * 125_000.0, delay: ms(delay), buffer: ms(buffer), loss: 0 };
            let (mut controller, start) = fresh();
            let outcome = line.run(&mut controller, start, 40);
            assert!(outcome.used > 0.9, "{mbit} Mbit/s: {outcome:?}");
            // At 1 Mbit/s the floor of 16 packets alone is 190 ms.
            let floor = Duration::from_secs_f64(FLOOR_PACKETS as f64 * MTU as f64 / line.rate);
            assert!(outcome.queue < ms(20) + floor, "{mbit} Mbit/s: {outcome:?}");
        }
    }

    #[test]
    fn it_comes_to_rest() {
        for (mbit, delay) in [(20.0, 20), (100.0, 20), (200.0, 10), (200.0, 50)] {
            let line = Line { rate: mbit * 125_000.0, delay: ms(delay), buffer: ms(250), loss: 200 };
            let (mut controller, start) = fresh();
            let outcome = line.run(&mut controller, start, 8);
            let target = (line.delay / TARGET_PART).min(MOST_TARGET);
            assert!(outcome.used > 0.97, "{mbit} Mbit/s: {outcome:?}");
            // What is sent at once for what was acknowledged at once comes on top.
            assert!(outcome.queue < target * 3 / 2, "{mbit} Mbit/s: {outcome:?}");
            assert!(outcome.longest < target * 5 / 2, "{mbit} Mbit/s: {outcome:?}");
        }
    }

    #[test]
    fn after_a_jolt_it_does_not_creep_back() {
        let line = Line { rate: 25e6, delay: ms(50), buffer: ms(40), loss: 0 };
        let (mut controller, start) = fresh();
        controller.starting = false;
        (controller.window, controller.former_window) = (controller.floor(), controller.floor());
        // Two seconds are forty rounds; an eighth more a round would take most of them.
        let outcome = line.run(&mut controller, start, 2);
        assert!(outcome.used > 0.95, "{outcome:?}");
    }

    #[test]
    fn random_loss_does_not_slow_it_down() {
        for one_in in [200, 100, 20] {
            let line = Line { rate: 25e6, delay: ms(20), buffer: ms(50), loss: one_in };
            let (mut controller, start) = fresh();
            let outcome = line.run(&mut controller, start, 40);
            assert!(outcome.used > 0.8, "1 in {one_in} lost: {outcome:?}");
        }
    }

    #[test]
    fn heavy_loss_does() {
        // A buffer too small to be seen as delay: what comes above the line's rate is lost.
        let line = Line { rate: 12.5e6, delay: ms(20), buffer: Duration::from_micros(500), loss: 0 };
        let (mut controller, start) = fresh();
        line.run(&mut controller, start, 20);
        let fits = 12.5e6 * 0.020;
        assert!(
            (controller.window() as f64) < 1.5 * fits,
            "{} bytes in flight where {fits} fit",
            controller.window()
        );
    }

    #[test]
    fn a_longer_path_is_believed_after_a_while() {
        let (mut controller, start) = fresh();
        let near = Line { rate: 12.5e6, delay: ms(10), buffer: ms(100), loss: 0 };
        near.run(&mut controller, start, 10);
        let far = Line { delay: ms(60), ..near };
        let outcome = far.run(&mut controller, start + Duration::from_secs(11), 60);
        assert!(outcome.used > 0.9, "{outcome:?}");
    }

    #[test]
    fn a_sender_with_little_to_say_does_not_grow_its_window() {
        let (mut controller, start) = fresh();
        let before = controller.window();
        for n in 0..1000 {
            let sent = start + ms(20) * n;
            controller.acked(sent + ms(20), sent, 100, false, ms(20));
        }
        assert_eq!(controller.window(), before);
    }

    #[test]
    fn it_never_falls_below_its_floor() {
        let (mut controller, start) = fresh();
        for n in 0..1000 {
            let now = start + ms(20) * n;
            controller.on_congestion_event(now, now, n % 100 == 0, 100_000);
            controller.acked(now + ms(500), now, 100, true, ms(20));
        }
        assert_eq!(controller.window(), FLOOR_PACKETS * MTU);
    }
}
