//! Who may begin a handshake: how many are unfinished, in all and by address, and what a peer's first packet is answered with. Pure; time
//! is an argument.
//!
//! Whoever sends first packets under other people's addresses must not be able to use up what those addresses may have. So there are two
//! accounts: one of those who have not shown that they hear what is sent to their address, which is small and costs a peer nothing but
//! another round trip when it is used up (Retry, RFC 9000 section 8.1.2); and one of those who have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::allowance::Allowance;

/// Handshakes that have not finished. Above half of it, peers must prove their address first.
const MAX_UNFINISHED: usize = 512;
/// Of them, those of one address that has not been proven.
const MAX_UNPROVEN_A_LINE: u16 = 16;
/// Of them, those of one address that has: a full room behind one address that comes back all at once.
const MAX_PROVEN_A_LINE: u16 = 64;
/// What a handshake with an unproven address takes of an allowance of a second each second: 64 at once, and as many a second.
const UNPROVEN_PACE: Duration = Duration::from_nanos(1_000_000_000 / 64);
/// A handshake that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// What to do about a peer's first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Begin a handshake.
    Begin,
    /// Have the address proven first. Nothing is kept meanwhile.
    Prove,
    /// Say nothing: the peer's QUIC asks again in a moment, when other handshakes of its address may be over.
    Later,
    /// Send the peer away.
    Refuse,
}

/// What became of peers' first packets since the start, and how many handshakes are unfinished now.
#[derive(Debug, Default)]
pub(crate) struct DoorCounters {
    begun: AtomicU64,
    retries: AtomicU64,
    held_back: AtomicU64,
    refused: AtomicU64,
    given_up: AtomicU64,
    dropped: AtomicU64,
    unfinished: AtomicU64,
}

impl DoorCounters {
    /// Notes a packet that was dropped because too many waited.
    pub(super) fn note_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Names and values.
    pub(crate) fn snapshot(&self) -> [(&'static str, u64); 7] {
        [
            ("begun", &self.begun),
            ("retries", &self.retries),
            ("held_back", &self.held_back),
            ("refused", &self.refused),
            ("given_up", &self.given_up),
            ("dropped", &self.dropped),
            ("unfinished", &self.unfinished),
        ]
        .map(|(name, value)| (name, value.load(Ordering::Relaxed)))
    }
}

#[derive(Debug, Clone, Copy)]
struct Unfinished {
    limit: Instant,
    line: IpAddr,
    proven: bool,
}

#[derive(Debug, Default)]
struct Counts {
    unproven: u16,
    proven: u16,
}

/// The handshakes of peers under way, by handle.
#[derive(Debug)]
pub(super) struct Door {
    unfinished: HashMap<usize, Unfinished>,
    lines: HashMap<IpAddr, Counts>,
    unproven_pace: Allowance,
}

impl Door {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            unfinished: HashMap::new(),
            lines: HashMap::new(),
            unproven_pace: Allowance::new(now, 1, Duration::from_secs(1)),
        }
    }

    /// Decides about a first packet from `remote`, which may have `proven` that it hears what is sent there.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        proven: bool,
        counters: &DoorCounters,
    ) -> Verdict {
        let counts = self.lines.get(&line_of(remote));
        let (verdict, counter) = if proven {
            if self.unfinished.len() >= MAX_UNFINISHED {
                (Verdict::Refuse, &counters.refused)
            } else if counts.is_some_and(|counts| counts.proven >= MAX_PROVEN_A_LINE) {
                (Verdict::Later, &counters.held_back)
            } else {
                (Verdict::Begin, &counters.begun)
            }
        } else if self.unfinished.len() >= MAX_UNFINISHED / 2
            || counts.is_some_and(|counts| counts.unproven >= MAX_UNPROVEN_A_LINE)
            || !self.unproven_pace.allows(now)
        {
            (Verdict::Prove, &counters.retries)
        } else {
            self.unproven_pace.spend(UNPROVEN_PACE);
            (Verdict::Begin, &counters.begun)
        };
        counter.fetch_add(1, Ordering::Relaxed);
        verdict
    }

    /// Notes a handshake that has begun; gives when it must be over.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        handle: usize,
        remote: SocketAddr,
        proven: bool,
        counters: &DoorCounters,
    ) -> Instant {
        let (line, limit) = (line_of(remote), now + HANDSHAKE_LIMIT);
        let counts = self.lines.entry(line).or_default();
        *(if proven { &mut counts.proven } else { &mut counts.unproven }) += 1;
        if let Some(former) = self.unfinished.insert(handle, Unfinished { limit, line, proven }) {
            self.count_out(former);
        }
        self.tell(counters);
        limit
    }

    /// Notes that a handshake is over, if it was one.
    pub(super) fn leave(&mut self, handle: usize, counters: &DoorCounters) {
        if let Some(unfinished) = self.unfinished.remove(&handle) {
            self.count_out(unfinished);
            self.tell(counters);
        }
    }

    /// Whether a handshake has taken too long; it is forgotten then.
    pub(super) fn give_up(&mut self, now: Instant, handle: usize, counters: &DoorCounters) -> bool {
        let late = self.unfinished.get(&handle).is_some_and(|unfinished| unfinished.limit <= now);
        if late {
            counters.given_up.fetch_add(1, Ordering::Relaxed);
            self.leave(handle, counters);
        }
        late
    }

    fn count_out(&mut self, unfinished: Unfinished) {
        if let Some(counts) = self.lines.get_mut(&unfinished.line) {
            *(if unfinished.proven { &mut counts.proven } else { &mut counts.unproven }) -= 1;
            if counts.proven == 0 && counts.unproven == 0 {
                self.lines.remove(&unfinished.line);
            }
        }
    }

    fn tell(&self, counters: &DoorCounters) {
        counters.unfinished.store(self.unfinished.len() as u64, Ordering::Relaxed);
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one customer has of IPv6 at least (RFC 6177).
fn line_of(remote: SocketAddr) -> IpAddr {
    // On a socket for both, IPv4 comes as mapped addresses, which are all in one /64.
    match remote.ip().to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        door: Door,
        counters: DoorCounters,
        start: Instant,
        handles: usize,
    }

    impl Scene {
        fn new() -> Self {
            let start = Instant::now();
            Self { door: Door::new(start), counters: DoorCounters::default(), start, handles: 0 }
        }

        fn come(&mut self, ms: u64, remote: &str, proven: bool) -> Verdict {
            let now = self.start + Duration::from_millis(ms);
            let remote = SocketAddr::new(remote.parse().expect("an address"), 4433);
            let verdict = self.door.judge(now, remote, proven, &self.counters);
            if verdict == Verdict::Begin {
                self.door.enter(now, self.handles, remote, proven, &self.counters);
                self.handles += 1;
            }
            verdict
        }

        fn count(&self, name: &str) -> u64 {
            self.counters.snapshot().iter().find(|(known, _)| *known == name).expect("a counter").1
        }
    }

    #[test]
    fn one_address_fills_its_own_accounts_and_nobody_elses() {
        let mut scene = Scene::new();
        for _ in 0..16 {
            assert_eq!(scene.come(0, "192.0.2.1", false), Verdict::Begin);
        }
        assert_eq!(scene.come(0, "192.0.2.1", false), Verdict::Prove);
        // Who proves the address is not held up by who only claimed it.
        for _ in 0..64 {
            assert_eq!(scene.come(0, "192.0.2.1", true), Verdict::Begin);
        }
        assert_eq!(scene.come(0, "192.0.2.1", true), Verdict::Later);
        // Nor is the same address as an IPv6 socket shows it another, nor another one the same.
        assert_eq!(scene.come(0, "::ffff:192.0.2.1", true), Verdict::Later);
        assert_eq!(scene.come(0, "::ffff:192.0.2.2", false), Verdict::Begin);
        assert_eq!((scene.count("held_back"), scene.count("retries")), (2, 1));
        scene.door.leave(0, &scene.counters);
        scene.door.leave(16, &scene.counters);
        assert_eq!(scene.come(0, "192.0.2.1", false), Verdict::Begin);
        assert_eq!(scene.come(0, "192.0.2.1", true), Verdict::Begin);
        assert_eq!(scene.count("unfinished"), 81);
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        let mut scene = Scene::new();
        for last in 0..64 {
            assert_eq!(scene.come(0, &format!("2001:db8::{last:x}"), true), Verdict::Begin);
        }
        assert_eq!(scene.come(0, "2001:db8::ffff:ffff", true), Verdict::Later);
        assert_eq!(scene.come(0, "2001:db8:0:1::1", true), Verdict::Begin);
    }

    #[test]
    fn strangers_prove_themselves_when_many_come_at_once_or_are_there() {
        let mut scene = Scene::new();
        for last in 0..64 {
            assert_eq!(scene.come(0, &format!("192.0.2.{last}"), false), Verdict::Begin);
        }
        assert_eq!(scene.come(0, "198.51.100.1", false), Verdict::Prove);
        assert_eq!(scene.come(0, "198.51.100.1", true), Verdict::Begin);
        assert_eq!(scene.come(20, "198.51.100.2", false), Verdict::Begin);
        // Slowly, and yet half of all are reached.
        for number in 0..190 {
            let address = format!("203.0.113.{number}");
            assert_eq!(scene.come(1000 + 20 * number, &address, false), Verdict::Begin);
        }
        assert_eq!(scene.count("unfinished"), 256);
        assert_eq!(scene.come(8000, "198.51.100.3", false), Verdict::Prove);
        // The other half is for those who have, until that is full, too.
        for number in 0..256 {
            assert_eq!(scene.come(8000, &format!("10.0.{number}.1"), true), Verdict::Begin);
        }
        assert_eq!(scene.come(8000, "10.1.0.1", true), Verdict::Refuse);
        assert_eq!(scene.come(8000, "10.1.0.1", false), Verdict::Prove);
        assert_eq!(scene.count("refused"), 1);
    }

    #[test]
    fn a_handshake_has_ten_seconds_and_leaves_nothing_behind() {
        let mut scene = Scene::new();
        let at = |scene: &Scene, ms| scene.start + Duration::from_millis(ms);
        assert_eq!(scene.come(0, "192.0.2.1", false), Verdict::Begin);
        assert_eq!(scene.come(0, "192.0.2.1", true), Verdict::Begin);
        let (early, late) = (at(&scene, 9999), at(&scene, 10_000));
        assert!(!scene.door.give_up(early, 0, &scene.counters));
        assert!(scene.door.give_up(late, 0, &scene.counters));
        assert!(!scene.door.give_up(late, 0, &scene.counters));
        scene.door.leave(1, &scene.counters);
        scene.door.leave(1, &scene.counters);
        assert_eq!((scene.count("given_up"), scene.count("unfinished")), (1, 0));
        assert!(scene.door.lines.is_empty());
    }
}
