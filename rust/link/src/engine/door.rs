//! Who may begin a handshake: how many are unfinished, in all and by address, and what a peer's first packet is answered with. Pure; time
//! is an argument.
//!
//! Whoever sends first packets under other people's addresses must not be able to use up what those addresses may have. So there are two
//! accounts: one of those who have not shown that they hear what is sent to their address, which is small and costs a peer nothing but
//! another round trip when it is used up (Retry, RFC 9000 section 8.1.2); and one of those who have.
//!
//! Nor must a few addresses be able to use up what all have together. When there is no room, whoever has most under way gives way to who has less, so that to
//! keep others out takes as many addresses as there are places.

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
    /// Begin a handshake in place of another, by its handle.
    Replace(usize),
    /// Have the address proven first. Nothing is kept meanwhile.
    Prove,
    /// Say nothing: the peer's QUIC asks again in a moment, when other handshakes may be over.
    Later,
}

/// What became of peers' first packets since the start, and how many handshakes are unfinished now.
#[derive(Debug, Default)]
pub(crate) struct DoorCounters {
    begun: AtomicU64,
    retries: AtomicU64,
    held_back: AtomicU64,
    displaced: AtomicU64,
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
            ("displaced", &self.displaced),
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

/// Whose handshake may give way, and how many of theirs are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fattest<T> {
    proven: u16,
    who: T,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    unproven: u16,
    proven: u16,
}

/// The handshakes of peers under way, by handle.
#[derive(Debug)]
pub(super) struct Door {
    unfinished: HashMap<usize, Unfinished>,
    lines: HashMap<IpAddr, Counts>,
    /// Proven ones by site.
    sites: HashMap<IpAddr, u16>,
    unproven_pace: Allowance,
}

impl Door {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            unfinished: HashMap::new(),
            lines: HashMap::new(),
            sites: HashMap::new(),
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
        let line = line_of(remote);
        let counts = self.lines.get(&line).copied().unwrap_or_default();
        let (verdict, counter) = if proven {
            if counts.proven >= MAX_PROVEN_A_LINE {
                (Verdict::Later, &counters.held_back)
            } else if self.unfinished.len() < MAX_UNFINISHED {
                (Verdict::Begin, &counters.begun)
            } else if let Some(handle) = self.who_gives_way(line, counts.proven) {
                counters.displaced.fetch_add(1, Ordering::Relaxed);
                (Verdict::Replace(handle), &counters.begun)
            } else {
                (Verdict::Later, &counters.held_back)
            }
        } else if self.unfinished.len() >= MAX_UNFINISHED / 2
            || counts.unproven >= MAX_UNPROVEN_A_LINE
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

    /// The handshake that gives way to one more of `line`, which has `own` proven ones under way: the oldest of the line that has most at the site that has
    /// most. Only proven ones are counted, since anybody could add to the others.
    #[cold]
    fn who_gives_way(&self, line: IpAddr, own: u16) -> Option<usize> {
        let site = site_of(line);
        let own_site = self.sites.get(&site).copied().unwrap_or(0);
        let at = self.sites.iter().map(|(&who, &proven)| Fattest { proven, who }).max();
        let from = match at {
            Some(most) if most.proven > own_site + 1 => self.fattest_line(most.who),
            _ => self.fattest_line(site).filter(|most| most.proven > own + 1),
        };
        match from {
            Some(most) => self.oldest(|unfinished| unfinished.proven && unfinished.line == most.who),
            // Who has nothing under way goes before whoever has not shown that anybody is there.
            None if own == 0 => self.oldest(|unfinished| !unfinished.proven),
            None => None,
        }
    }

    fn fattest_line(&self, site: IpAddr) -> Option<Fattest<IpAddr>> {
        let lines = self.lines.iter().filter(|(line, _)| site_of(**line) == site);
        lines.map(|(&who, counts)| Fattest { proven: counts.proven, who }).max()
    }

    fn oldest(&self, which: impl Fn(&Unfinished) -> bool) -> Option<usize> {
        let those = self.unfinished.iter().filter(|(_, unfinished)| which(unfinished));
        those.min_by_key(|(handle, unfinished)| (unfinished.limit, **handle)).map(|(handle, _)| *handle)
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
        if proven {
            *self.sites.entry(site_of(line)).or_default() += 1;
        }
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
        let site = site_of(unfinished.line);
        if unfinished.proven
            && let Some(count) = self.sites.get_mut(&site)
        {
            *count -= 1;
            if *count == 0 {
                self.sites.remove(&site);
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

/// What shares a place with its like when there is no room: an IPv4 address, or the /48 that a site may have of IPv6 (RFC 6177), with its 65,536 lines.
fn site_of(line: IpAddr) -> IpAddr {
    match line {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 80 << 80)),
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
            if let Verdict::Replace(handle) = verdict {
                self.door.leave(handle, &self.counters);
            }
            if matches!(verdict, Verdict::Begin | Verdict::Replace(_)) {
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
        assert_eq!(scene.come(8000, "10.1.0.1", false), Verdict::Prove);
        // Then those who have not make room for those who have, the oldest first.
        assert_eq!(scene.come(8000, "10.1.0.1", true), Verdict::Replace(0));
        assert_eq!(scene.come(8000, "10.1.0.1", true), Verdict::Later);
        assert_eq!((scene.count("displaced"), scene.count("unfinished")), (1, 512));
    }

    #[test]
    fn a_few_addresses_keep_nobody_out() {
        let mut scene = Scene::new();
        for number in 0..512 {
            assert_eq!(scene.come(number, &format!("192.0.2.{}", number % 8), true), Verdict::Begin);
        }
        // Who has less gets the place of who has most, and its oldest.
        let Verdict::Replace(first) = scene.come(600, "198.51.100.1", true) else { panic!("kept out") };
        let Verdict::Replace(second) = scene.come(600, "198.51.100.2", true) else { panic!("kept out") };
        assert!(first < 8 && second < 8 && first != second);
        // Whose place that was gets none for it, of theirs or of another's.
        for last in 0..8 {
            assert_eq!(scene.come(700, &format!("192.0.2.{last}"), true), Verdict::Later);
        }
        // And in the end all have the same.
        for number in 0..2000 {
            scene.come(800 + number, &format!("203.0.113.{}", number % 8), true);
        }
        let of = |line: &str| scene.door.lines[&line.parse::<IpAddr>().unwrap()].proven;
        for last in 0..8 {
            let (former, later) = (of(&format!("192.0.2.{last}")), of(&format!("203.0.113.{last}")));
            assert!(former.abs_diff(32) <= 1 && later.abs_diff(32) <= 1, "{former} {later}");
        }
        assert_eq!((of("198.51.100.1"), scene.count("unfinished")), (1, 512));
    }

    #[test]
    fn nor_do_all_the_lines_of_a_site() {
        let mut scene = Scene::new();
        for number in 0..512 {
            assert_eq!(scene.come(number, &format!("2001:db8:0:{number:x}::1"), true), Verdict::Begin);
        }
        assert!(matches!(scene.come(600, "2001:db8:1::1", true), Verdict::Replace(_)));
        // Another line of the same site has to wait: each of them has one already.
        assert_eq!(scene.come(600, "2001:db8:0:ffff::1", true), Verdict::Later);
        assert_eq!(scene.come(600, "2001:db8:0:ffff::1", false), Verdict::Prove);
    }

    #[test]
    fn a_line_of_a_site_has_what_another_of_it_has() {
        let mut scene = Scene::new();
        for number in 0..512 {
            assert_eq!(scene.come(number, &format!("2001:db8:0:{:x}::1", number % 8), true), Verdict::Begin);
        }
        assert!(matches!(scene.come(600, "2001:db8:0:ffff::1", true), Verdict::Replace(_)));
    }

    #[test]
    fn who_cannot_be_let_in_is_never_sent_away_for_good() {
        let mut scene = Scene::new();
        for number in 0..512 {
            let address = format!("10.{}.{}.1", number / 256, number % 256);
            assert_eq!(scene.come(0, &address, true), Verdict::Begin);
        }
        assert_eq!(scene.come(0, "192.0.2.1", true), Verdict::Later);
        assert_eq!(scene.count("held_back"), 1);
        scene.door.leave(100, &scene.counters);
        assert_eq!(scene.come(1000, "192.0.2.1", true), Verdict::Begin);
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
        assert!(scene.door.lines.is_empty() && scene.door.sites.is_empty());
    }
}
