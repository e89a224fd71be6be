//! How much of the loop's time something may take. Pure; time is an argument.

use std::time::{Duration, Instant};

/// Time that fills up as time goes by, at one part in so many, and is spent by what is done. It may be overspent once, and is then paid back.
#[derive(Debug)]
pub(super) struct Allowance {
    one_in: u32,
    full: Duration,
    left: Duration,
    owed: Duration,
    at: Instant,
}

impl Allowance {
    /// One that is full: `full` at once, and `1 / one_in` of all time in the long run.
    pub(super) const fn new(now: Instant, one_in: u32, full: Duration) -> Self {
        Self { one_in, full, left: full, owed: Duration::ZERO, at: now }
    }

    /// Whether something is left.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at) / self.one_in;
        if !gained.is_zero() {
            self.at = now;
            let paid = gained.min(self.owed);
            self.owed -= paid;
            self.left = (self.left + (gained - paid)).min(self.full);
        }
        !self.left.is_zero()
    }

    /// Whether something was left when it was last asked, and has not been spent since.
    pub(super) const fn has_allowed(&self) -> bool {
        !self.left.is_zero()
    }

    /// Takes `spent`.
    pub(super) fn spend(&mut self, spent: Duration) {
        self.owed += spent.saturating_sub(self.left);
        self.left = self.left.saturating_sub(spent);
    }

    /// When something is left again, if nothing more is spent.
    pub(super) fn next(&self) -> Instant {
        if self.left.is_zero() {
            // One more step than what is owed: a nanosecond is not worth waking up for.
            self.at + self.owed * self.one_in + Duration::from_millis(1)
        } else {
            self.at
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_gives_its_share_of_time_and_no_more() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start, 4, 10 * MS);
        let mut spent = 0;
        for ms in 0..1000 {
            if allowance.allows(start + ms * MS) {
                allowance.spend(MS);
                spent += 1;
            }
        }
        // A quarter of a second, and what was there at first.
        assert!((258..=260).contains(&spent), "{spent}");
    }

    #[test]
    fn what_took_longer_than_was_left_is_paid_back_first() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start, 2, 10 * MS);
        assert!(allowance.allows(start));
        allowance.spend(30 * MS);
        assert!(!allowance.allows(start + 39 * MS));
        let next = allowance.next();
        assert!(next >= start + 40 * MS && next < start + 43 * MS);
        assert!(allowance.allows(next));
        // After a long pause it holds what it can, and time that goes back changes nothing.
        assert!(allowance.allows(start + 10_000 * MS));
        allowance.spend(10 * MS);
        assert!(!allowance.allows(start));
    }
}
