//! Noticing that the machine has slept: adapters that were open across a sleep have to be opened anew.

/// How much longer than the other one clock must have run, in milliseconds, before it counts as a sleep: the two are not read at one instant.
const SLACK_MS: u64 = 2000;

/// Compares two clocks, one of which stands still while the machine sleeps.
#[derive(Debug, Default)]
pub(super) struct SleepWatch {
    apart: Option<u64>,
}

impl SleepWatch {
    /// Takes in what the clocks say, in milliseconds since they started: `with_sleep` counts sleep, `awake` does not. True when the
    /// machine has slept since the last call.
    pub(super) fn slept(&mut self, with_sleep: u64, awake: u64) -> bool {
        let apart = with_sleep.saturating_sub(awake);
        let before = self.apart.replace(apart);
        before.is_some_and(|before| apart > before.saturating_add(SLACK_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_shows_once() {
        let mut watch = SleepWatch::default();
        assert!(!watch.slept(10_000, 4_000)); // slept before we looked: not our business
        assert!(!watch.slept(11_000, 5_001));
        assert!(watch.slept(71_000, 6_000));
        assert!(!watch.slept(72_000, 7_000));
    }

    #[test]
    fn clocks_read_apart_are_no_sleep() {
        let mut watch = SleepWatch::default();
        assert!(!watch.slept(1_000, 1_000));
        assert!(!watch.slept(3_000, 1_000));
        assert!(!watch.slept(3_000, 3_100));
        assert!(!watch.slept(3_000, 3_100));
    }
}
