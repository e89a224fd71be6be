//! Rate limits: a token bucket that loses nothing to rounding, and the three a peer may have.

use std::time::Duration;

use crate::counters::DropReason;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// What a token bucket allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits of frames a second, in the long run.
    pub bits_per_second: u64,
    /// Bytes of frames that may come at once after a pause.
    pub burst_bytes: u64,
}

impl Rate {
    /// A tenth of a second's worth at once, and 64 KiB at least: the frames of one TCP super-segment come together.
    pub const fn with_default_burst(bits_per_second: u64) -> Self {
        const LEAST: u64 = 64 * 1024;
        let tenth = bits_per_second / 80;
        Self { bits_per_second, burst_bytes: if tenth > LEAST { tenth } else { LEAST } }
    }

    /// So many frames a second, and as many at once, where each is offered as one byte, whatever its length: storm control.
    pub const fn of_frames(frames: u32) -> Self {
        let frames = frames as u64;
        Self { bits_per_second: frames * 8, burst_bytes: frames }
    }
}

/// The limits of one peer; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Everything the peer sends into the room.
    pub total: Option<Rate>,
    /// Broadcast and multicast.
    pub broadcast: Option<Rate>,
    /// Unicast to stations the switch does not know, which floods as well.
    pub unknown: Option<Rate>,
    /// Broadcasts and multicasts a second, in frames; as many may come at once.
    pub storm: Option<u32>,
}

/// A token bucket, full at first.
///
/// It counts in billionths of a bit, of which a rate in bits a second gives a whole number each nanosecond: nothing is
/// ever rounded, however small the steps of time, and 128 bits hold centuries at any rate.
/// A frame larger than the whole burst passes when the bucket is full and leaves a debt, so that a small burst
/// slows large frames down to the rate instead of stopping them for good.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Billionths of a bit gained each nanosecond: bits a second.
    per_nanosecond: i128,
    /// Billionths of a bit when full.
    full: i128,
    /// Billionths of a bit now; below zero after a frame larger than the burst.
    tokens: i128,
    updated: Duration,
}

impl TokenBucket {
    /// A full bucket at time `now`.
    pub const fn new(now: Duration, rate: Rate) -> Self {
        let full = cost(rate.burst_bytes);
        Self { per_nanosecond: rate.bits_per_second as i128, full, tokens: full, updated: now }
    }

    /// Whether a frame of `bytes` may pass at `now`; takes nothing. Time that goes back stands still.
    #[inline]
    pub fn allows(&mut self, now: Duration, bytes: u64) -> bool {
        self.refill(now);
        self.tokens >= cost(bytes).min(self.full)
    }

    /// Takes a frame of `bytes`, which [`TokenBucket::allows`] has allowed.
    #[inline]
    pub const fn take(&mut self, bytes: u64) {
        self.tokens -= cost(bytes);
    }

    /// Takes a frame of `bytes` if it may pass at `now`; says whether it did.
    #[inline]
    pub fn try_take(&mut self, now: Duration, bytes: u64) -> bool {
        let allowed = self.allows(now, bytes);
        if allowed {
            self.take(bytes);
        }
        allowed
    }

    #[inline]
    fn refill(&mut self, now: Duration) {
        let Some(elapsed) = now.checked_sub(self.updated) else { return };
        if elapsed.is_zero() {
            return; // the frames of one batch share one reading of the clock
        }
        self.updated = now;
        // At most 2^94 nanoseconds (all of a Duration), so the product may leave 128 bits only for rates above 2^33.
        let gained = (elapsed.as_nanos() as i128).saturating_mul(self.per_nanosecond);
        self.tokens = self.tokens.saturating_add(gained).min(self.full);
    }
}

/// Billionths of a bit in so many bytes.
#[inline]
const fn cost(bytes: u64) -> i128 {
    bytes as i128 * 8 * NANOS_PER_SECOND
}

/// What a limit asks about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Unicast to a known station.
    Unicast,
    /// Broadcast or multicast.
    Group,
    /// Unicast to an unknown station.
    Unknown,
}

/// The buckets of one peer.
#[derive(Debug)]
pub(crate) struct Buckets {
    total: Option<TokenBucket>,
    broadcast: Option<TokenBucket>,
    unknown: Option<TokenBucket>,
}

impl Buckets {
    pub(crate) fn new(now: Duration, limits: Limits) -> Self {
        let bucket = |rate: Option<Rate>| rate.map(|rate| TokenBucket::new(now, rate));
        Self {
            total: bucket(limits.total),
            broadcast: bucket(limits.broadcast),
            unknown: bucket(limits.unknown),
        }
    }

    /// Takes a frame from the buckets of its class, or says which is empty; then from neither, so that a storm that
    /// one limit holds back does not eat the other.
    #[inline]
    pub(crate) fn judge(&mut self, now: Duration, class: Class, bytes: u64) -> Option<DropReason> {
        let (of_class, reason) = match class {
            Class::Unicast => (&mut None, DropReason::LimitTotal),
            Class::Group => (&mut self.broadcast, DropReason::LimitBroadcast),
            Class::Unknown => (&mut self.unknown, DropReason::LimitUnknown),
        };
        if self.total.as_mut().is_some_and(|total| !total.allows(now, bytes)) {
            return Some(DropReason::LimitTotal);
        }
        if of_class.as_mut().is_some_and(|bucket| !bucket.try_take(now, bytes)) {
            return Some(reason);
        }
        if let Some(total) = &mut self.total {
            total.take(bytes);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(3);
    const MBIT: u64 = 1_000_000;

    fn rate(bits_per_second: u64, burst_bytes: u64) -> Rate {
        Rate { bits_per_second, burst_bytes }
    }

    /// Offers frames of `size` until one is refused; bytes that passed.
    fn pour(bucket: &mut TokenBucket, now: Duration, size: u64) -> u64 {
        let mut passed = 0;
        while bucket.try_take(now, size) {
            passed += size;
        }
        passed
    }

    #[test]
    fn a_full_bucket_passes_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(START, rate(8000, 3000));
        assert_eq!(pour(&mut bucket, START, 1000), 3000);
        assert!(!bucket.try_take(START + Duration::from_millis(999), 1000));
        assert!(bucket.try_take(START + Duration::from_secs(1), 1000));
        assert!(!bucket.try_take(START + Duration::from_secs(1), 1));
    }

    #[test]
    fn a_long_gap_fills_the_bucket_once() {
        let mut bucket = TokenBucket::new(START, rate(u64::MAX, 5000));
        pour(&mut bucket, START, 1000);
        assert_eq!(pour(&mut bucket, Duration::MAX, 1000), 5000);
        let mut slow = TokenBucket::new(START, rate(100_000, 5000));
        pour(&mut slow, START, 1000);
        assert_eq!(pour(&mut slow, START + Duration::from_secs(10 * 365 * 86400), 1000), 5000);
    }

    #[test]
    fn time_that_goes_back_stands_still() {
        let mut bucket = TokenBucket::new(START, rate(8000, 1000));
        assert!(bucket.try_take(START, 1000));
        assert!(!bucket.try_take(Duration::ZERO, 1));
        assert!(bucket.try_take(START + Duration::from_secs(1), 1000));
    }

    #[test]
    fn a_frame_above_the_burst_is_slowed_not_stopped() {
        let mut bucket = TokenBucket::new(START, rate(8000, 100));
        assert!(bucket.try_take(START, 1500));
        // 1400 bytes of debt and 100 to be full again are 1.5 s at 1000 bytes a second.
        assert!(!bucket.try_take(START + Duration::from_millis(1499), 1500));
        assert!(bucket.try_take(START + Duration::from_millis(1500), 1500));
        let mut no_burst = TokenBucket::new(START, rate(8000, 0));
        assert!(no_burst.try_take(START, 1000));
        assert!(!no_burst.try_take(START + Duration::from_millis(999), 1));
        assert!(no_burst.try_take(START + Duration::from_secs(1), 1));
    }

    #[test]
    fn the_default_burst_holds_a_super_segment() {
        assert_eq!(Rate::with_default_burst(100_000).burst_bytes, 65536);
        assert_eq!(Rate::with_default_burst(100 * MBIT).burst_bytes, 1_250_000);
    }

    #[test]
    fn what_one_limit_refuses_costs_the_other_nothing() {
        let limits =
            Limits { total: Some(rate(0, 2000)), broadcast: Some(rate(0, 1000)), ..Limits::default() };
        let mut buckets = Buckets::new(START, limits);
        assert_eq!(buckets.judge(START, Class::Group, 1000), None);
        for _ in 0..10 {
            assert_eq!(buckets.judge(START, Class::Group, 1000), Some(DropReason::LimitBroadcast));
        }
        assert_eq!(buckets.judge(START, Class::Unicast, 1000), None);
        assert_eq!(buckets.judge(START, Class::Unicast, 1000), Some(DropReason::LimitTotal));
        assert_eq!(buckets.judge(START, Class::Group, 1000), Some(DropReason::LimitTotal));
        assert_eq!(buckets.judge(START, Class::Unknown, 1000), Some(DropReason::LimitTotal));

        let limits = Limits { total: Some(rate(0, 1000)), unknown: Some(rate(0, 3000)), ..Limits::default() };
        let mut buckets = Buckets::new(START, limits);
        assert_eq!(buckets.judge(START, Class::Group, 1000), None);
        assert_eq!(buckets.judge(START, Class::Unknown, 1000), Some(DropReason::LimitTotal));
        assert_eq!(buckets.unknown.map(|bucket| bucket.tokens), Some(cost(3000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// 20 s under load, time advancing by any pattern of steps of 100 us to 50 ms: what passes is the rate within 5 %.
        #[test]
        fn the_rate_is_right_for_any_pattern_of_steps(
            pattern in proptest::collection::vec(100u64..50_000, 1..8), size in 60u64..1519,
        ) {
            for bits in [MBIT / 10, MBIT, 10 * MBIT, 100 * MBIT] {
                let mut bucket = TokenBucket::new(START, Rate::with_default_burst(bits));
                let burst = pour(&mut bucket, START, size);
                prop_assert!(burst <= Rate::with_default_burst(bits).burst_bytes);
                let (mut elapsed, mut passed) = (Duration::ZERO, 0);
                for step in pattern.iter().cycle() {
                    elapsed += Duration::from_micros(*step);
                    passed += pour(&mut bucket, START + elapsed, size);
                    if elapsed >= Duration::from_secs(20) { break }
                }
                let ratio = passed as f64 * 8.0 / (bits as f64 * elapsed.as_secs_f64());
                prop_assert!((0.95..=1.05).contains(&ratio), "{bits} bit/s: {ratio}");
            }
        }
    }

    proptest! {
        /// Steps of a nanosecond add up to exactly what one step gives: nothing is rounded away.
        #[test]
        fn tiny_steps_lose_nothing(
            bits in 0u64..200 * MBIT, steps in proptest::collection::vec(0u64..2000, 1..200),
        ) {
            let mut stepped = TokenBucket::new(START, rate(bits, 1 << 30));
            stepped.take(1 << 30);
            let mut at_once = stepped.clone();
            let mut now = START;
            for step in steps {
                now += Duration::from_nanos(step);
                stepped.allows(now, 0);
            }
            at_once.allows(now, 0);
            prop_assert_eq!(stepped.tokens, at_once.tokens);
        }

        /// At no time has more passed than the burst and the rate since the start allow (and one frame above the burst).
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            bits in 0u64..200 * MBIT, burst in 0u64..100_000,
            offers in proptest::collection::vec((0u64..20_000_000, 1u64..9216), 1..200),
        ) {
            let mut bucket = TokenBucket::new(START, rate(bits, burst));
            let (mut elapsed, mut passed) = (Duration::ZERO, 0u128);
            for (step, size) in offers {
                elapsed += Duration::from_nanos(step);
                if bucket.try_take(START + elapsed, size) { passed += u128::from(size) }
                let gained = elapsed.as_nanos() * u128::from(bits) / 8 / 1_000_000_000;
                prop_assert!(passed <= u128::from(burst.max(9216)) + gained + 9216);
            }
        }
    }
}
