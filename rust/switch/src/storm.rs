//! Storm control: how many broadcasts and multicasts a second may pass, and when a storm sets in and is over.
//!
//! Counted in frames beside the limits in bits, because what a storm costs everybody is a frame: each one is sent to each
//! peer of the room and looked at by each machine behind it. Unicast passes whatever the storm.
//!
//! When a room's limit is used up each of its peers still has a share for itself, so that many who stay within their own limits
//! and use up the room's together cost nobody else the frames by which machines find each other. The room's total is bounded all
//! the same: by its limit and the shares of all.

use std::time::Duration;

use crate::limits::{Rate, TokenBucket};

/// A storm is over when nothing has been dropped for so long.
const CALM: Duration = Duration::from_secs(5);

/// What part of a peer's own limit is its share, whatever others send. Of a client's 500 frames a second it is 25: ARP, mDNS,
/// DHCP and a search for games at once. Of a gateway's 2000 it is 100: a LAN of some hundreds of machines, of which each says something
/// every few seconds.
const SHARE: u32 = 20;

/// The share of a peer that may send `frames` a second; none of one that may send what it likes.
pub(crate) fn share(now: Duration, frames: Option<u32>) -> Option<TokenBucket> {
    Some(TokenBucket::new(now, Rate::of_frames(frames?.div_ceil(SHARE))))
}

/// What came of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gust {
    /// It may pass.
    Passes,
    /// It is one too many; there is a storm already.
    Dropped,
    /// It is one too many, and the first.
    Began,
}

/// Storm control of one peer, or of a room.
#[derive(Clone, Debug)]
pub(crate) struct StormControl {
    /// Frames, counted as bytes: a second's worth at once.
    bucket: Option<TokenBucket>,
    /// Since when frames have been dropped last, and how many, while there is a storm.
    storm: Option<Storm>,
}

#[derive(Clone, Copy, Debug)]
struct Storm {
    last: Duration,
    dropped: u64,
}

impl StormControl {
    /// Lets `frames` a second pass, and as many at once; `None`: all of them.
    pub(crate) fn new(now: Duration, frames: Option<u32>) -> Self {
        let bucket = frames.map(|frames| TokenBucket::new(now, Rate::of_frames(frames)));
        Self { bucket, storm: None }
    }

    /// Whether one more frame may pass; takes nothing, and notes nothing.
    #[inline]
    pub(crate) fn allows(&mut self, now: Duration) -> bool {
        self.bucket.as_mut().is_none_or(|bucket| bucket.allows(now, 1))
    }

    /// Whether one more frame may pass; takes nothing.
    #[inline]
    pub(crate) fn judge(&mut self, now: Duration) -> Gust {
        if self.allows(now) { Gust::Passes } else { self.drop_one(now) }
    }

    /// Takes the frame that [`judge`](Self::judge) or [`allows`](Self::allows) let pass.
    #[inline]
    pub(crate) fn take(&mut self) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(1);
        }
    }

    /// Notes that a frame was one too many.
    #[cold]
    pub(crate) fn drop_one(&mut self, now: Duration) -> Gust {
        match &mut self.storm {
            Some(storm) => {
                *storm = Storm { last: now, dropped: storm.dropped + 1 };
                Gust::Dropped
            }
            None => {
                self.storm = Some(Storm { last: now, dropped: 1 });
                Gust::Began
            }
        }
    }

    /// Ends a storm that has been calm for long enough; gives the frames dropped in it.
    pub(crate) fn settle(&mut self, now: Duration) -> Option<u64> {
        let storm = self.storm?;
        if now.saturating_sub(storm.last) < CALM {
            return None;
        }
        self.end()
    }

    /// Ends a storm at once; gives the frames dropped in it.
    pub(crate) fn end(&mut self) -> Option<u64> {
        self.storm.take().map(|storm| storm.dropped)
    }

    /// Whether there is a storm.
    pub(crate) const fn is_on(&self) -> bool {
        self.storm.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Offers a frame and takes it when it may pass.
    fn offer(control: &mut StormControl, now: Duration) -> Gust {
        let gust = control.judge(now);
        if gust == Gust::Passes {
            control.take();
        }
        gust
    }

    #[test]
    fn a_storm_begins_once_passes_its_rate_and_ends_when_calm() {
        let mut control = StormControl::new(at(0), Some(100));
        let passed = (0..100).filter(|_| offer(&mut control, at(0)) == Gust::Passes).count();
        assert_eq!((passed, control.is_on()), (100, false));
        assert_eq!(offer(&mut control, at(0)), Gust::Began);
        assert_eq!(offer(&mut control, at(1)), Gust::Dropped);
        // Ten seconds of 1000 frames a second: 100 of each 1000 pass.
        let passed = (1..=10_000).filter(|step| offer(&mut control, at(*step)) == Gust::Passes).count();
        assert_eq!(passed, 1000);
        assert_eq!(control.settle(at(14_000)), None);
        assert_eq!(control.settle(at(15_000)), Some(2 + 9000));
        assert_eq!((control.settle(at(60_000)), control.is_on()), (None, false));
        assert_eq!(offer(&mut control, at(60_000)), Gust::Passes);
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut control = StormControl::new(at(0), None);
        assert!((0..100_000).all(|_| offer(&mut control, at(0)) == Gust::Passes));
        assert_eq!(control.end(), None);
    }
}
