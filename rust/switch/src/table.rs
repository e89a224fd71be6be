//! Who has which MAC address: clients registered by their `hello`, stations of the LAN learned from the gateway's frames.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use softlan_wire::{Mac, PeerId};

use crate::hash::FoldState;

/// The addresses of a room.
///
/// Registered addresses stay until their peer is purged. Learned ones age, and are bounded in number. A registered
/// address is never learned elsewhere, so the LAN cannot take a client's frames away.
///
/// A full table makes room by forgetting the oldest of those stations that were heard for less than a second and not since:
/// a flood of made-up addresses pushes itself out, and never a station that really talks.
#[derive(Debug)]
pub struct MacTable {
    /// By [`Mac::packed`].
    stations: HashMap<u64, Station, FoldState>,
    /// Learned stations in the order they were learned, those that have proven themselves or are gone among them.
    newcomers: VecDeque<u64>,
    /// Addresses that were clients' and when that ended, by [`Mac::packed`]: whoever comes back may find its own on the LAN.
    former: HashMap<u64, Duration, FoldState>,
    age: Duration,
    cap: usize,
    learned: usize,
    refused: u64,
    /// No learned station is due before this, so a full table is not searched for old ones before it.
    next_due: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Station {
    peer: PeerId,
    /// `None` for a registered station, which does not age.
    heard: Option<Heardness>,
}

/// When a learned station was heard.
#[derive(Clone, Copy, Debug)]
struct Heardness {
    first: Duration,
    last: Duration,
}

/// A station heard again after so long is a real one; a newcomer has so long to show it before it may have to give way.
const PROBATION: Duration = Duration::from_secs(1);

/// Former clients' addresses remembered: as many as a room has places (`softlan.relay.rooms`, 1000).
const FORMER: usize = 1000;

impl Heardness {
    fn is_proven(&self) -> bool {
        self.last.saturating_sub(self.first) >= PROBATION
    }
}

/// What came of hearing a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The table has the station at the peer now.
    Learned,
    /// The address is registered by this peer: nothing was learned.
    Registered(PeerId),
    /// The table was full: the station was learned in place of one that never proved itself.
    Displaced,
    /// The table is full of stations that have to stay: nothing was learned.
    Full,
}

impl MacTable {
    /// An empty table that forgets learned stations not heard for more than `age` and keeps at most `cap` of them.
    pub fn new(age: Duration, cap: usize) -> Self {
        Self::with_hashes(age, cap, FoldState::random(), FoldState::random())
    }

    pub(crate) fn with_hashes(
        age: Duration,
        cap: usize,
        of_stations: FoldState,
        of_former: FoldState,
    ) -> Self {
        let stations = HashMap::with_hasher(of_stations);
        let former = HashMap::with_hasher(of_former);
        let newcomers = VecDeque::new();
        Self { stations, newcomers, former, age, cap, learned: 0, refused: 0, next_due: Duration::ZERO }
    }

    /// Gives an address to a client for good. A learned station with this address gives way; whether it has to is for
    /// [`lan_of`](Self::lan_of) to say.
    ///
    /// # Errors
    /// The peer that has the address registered already.
    pub fn register(&mut self, mac: Mac, peer: PeerId) -> Result<(), PeerId> {
        if let Some(owner) = self.registered(mac) {
            return Err(owner);
        }
        if self.stations.insert(mac.packed(), Station { peer, heard: None }).is_some() {
            self.learned -= 1;
        }
        Ok(())
    }

    /// The peer that has registered the address.
    #[inline]
    pub fn registered(&self, mac: Mac) -> Option<PeerId> {
        let station = self.stations.get(&mac.packed())?;
        station.heard.is_none().then_some(station.peer)
    }

    /// Notes that a station was heard at `peer`: learns it, or refreshes it.
    #[inline]
    pub fn hear(&mut self, now: Duration, mac: Mac, peer: PeerId) -> Heard {
        match self.stations.get_mut(&mac.packed()) {
            Some(Station { peer, heard: None }) => Heard::Registered(*peer),
            Some(Station { peer: known, heard: Some(heard) }) => {
                *known = peer;
                heard.last = now;
                Heard::Learned
            }
            None => self.learn(now, mac, peer),
        }
    }

    /// Where frames for the address go, if that is known.
    #[inline]
    pub fn find(&self, now: Duration, mac: Mac) -> Option<PeerId> {
        let station = self.stations.get(&mac.packed())?;
        let is_old = station.heard.is_some_and(|heard| now.saturating_sub(heard.last) > self.age);
        (!is_old).then_some(station.peer)
    }

    /// Where a learned station was heard last, and when.
    pub fn heard(&self, mac: Mac) -> Option<(PeerId, Duration)> {
        let station = self.stations.get(&mac.packed())?;
        station.heard.map(|heard| (station.peer, heard.last))
    }

    /// The peer whose LAN the address is of: a station with it was heard there and is not old. Nobody's, if the address was a client's
    /// within that time before: such a client's own frames may have come back by a loop, and must not keep it out.
    pub fn lan_of(&self, now: Duration, mac: Mac) -> Option<PeerId> {
        let (peer, last) = self.heard(mac)?;
        let was_clients =
            || self.former.get(&mac.packed()).is_some_and(|left| last.saturating_sub(*left) <= self.age);
        (now.saturating_sub(last) <= self.age && !was_clients()).then_some(peer)
    }

    /// Forgets every station of a peer, registered and learned, but that the registered ones were a client's until now.
    pub fn purge(&mut self, now: Duration, peer: PeerId) {
        let own = |(key, station): (&u64, &Station)| {
            (station.peer == peer && station.heard.is_none()).then_some((*key, now))
        };
        self.former.extend(self.stations.iter().filter_map(own));
        if self.former.len() > FORMER {
            let oldest = self.former.iter().min_by_key(|(_, left)| **left).map(|(key, _)| *key);
            oldest.and_then(|key| self.former.remove(&key));
        }
        self.keep(|station| station.peer != peer);
    }

    /// How many learned stations the table holds; old ones count until they are swept out to make room.
    pub const fn learned(&self) -> usize {
        self.learned
    }

    /// How many addresses of former clients the table holds.
    pub fn former(&self) -> usize {
        self.former.len()
    }

    /// How often a station was not learned because the table was full.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    #[cold]
    fn learn(&mut self, now: Duration, mac: Mac, peer: PeerId) -> Heard {
        if self.learned >= self.cap && now > self.next_due {
            self.sweep(now);
        }
        let was_full = self.learned >= self.cap;
        if was_full && !self.displace(now) {
            self.refused += 1;
            return Heard::Full;
        }
        let heard = Some(Heardness { first: now, last: now });
        self.stations.insert(mac.packed(), Station { peer, heard });
        self.newcomers.push_back(mac.packed());
        self.learned += 1;
        if was_full { Heard::Displaced } else { Heard::Learned }
    }

    /// Forgets the oldest station that has had its time and not proven itself. Each one is looked at once, so a flood costs
    /// no more a frame than learning did.
    fn displace(&mut self, now: Duration) -> bool {
        while let Some(key) = self.newcomers.front() {
            if let Some(Station { heard: Some(heard), .. }) = self.stations.get(key)
                && !heard.is_proven()
            {
                if now.saturating_sub(heard.first) < PROBATION {
                    return false;
                }
                self.stations.remove(key);
                self.newcomers.pop_front();
                self.learned -= 1;
                return true;
            }
            self.newcomers.pop_front();
        }
        false
    }

    /// Drops the stations not heard for too long, and notes when the next one can be due: a flood of made-up addresses
    /// must not make every frame search the whole table.
    fn sweep(&mut self, now: Duration) {
        let age = self.age;
        let mut oldest = now;
        self.keep(|station| {
            let Some(heard) = station.heard else { return true };
            let is_kept = now.saturating_sub(heard.last) <= age;
            if is_kept {
                oldest = oldest.min(heard.last);
            }
            is_kept
        });
        self.next_due = oldest.saturating_add(age);
    }

    fn keep(&mut self, mut is_kept: impl FnMut(&Station) -> bool) {
        self.stations.retain(|_, station| is_kept(station));
        let is_learned = |station: &Station| station.heard.is_some();
        self.learned = self.stations.values().filter(|station| is_learned(station)).count();
        self.newcomers.retain(|key| self.stations.get(key).is_some_and(is_learned));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGE: Duration = Duration::from_secs(300);

    fn mac(last: u8) -> Mac {
        Mac::from_bytes([2, 0, 0, 0, 0, last])
    }

    fn peer(value: u16) -> PeerId {
        PeerId::new(value).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn registered_addresses_do_not_age_and_have_one_owner() {
        let mut table = MacTable::new(AGE, 4);
        assert_eq!(table.register(mac(1), peer(1)), Ok(()));
        assert_eq!(table.register(mac(1), peer(2)), Err(peer(1)));
        assert_eq!(table.find(Duration::MAX, mac(1)), Some(peer(1)));
        assert_eq!(table.hear(at(0), mac(1), peer(2)), Heard::Registered(peer(1)));
        assert_eq!(table.registered(mac(1)), Some(peer(1)));
    }

    #[test]
    fn learned_addresses_age_unless_heard_again() {
        let mut table = MacTable::new(AGE, 4);
        assert_eq!(table.hear(at(0), mac(1), peer(1)), Heard::Learned);
        assert_eq!(table.find(at(300), mac(1)), Some(peer(1)));
        assert_eq!(table.find(at(301), mac(1)), None);
        assert_eq!(table.hear(at(301), mac(1), peer(2)), Heard::Learned);
        assert_eq!(table.find(at(601), mac(1)), Some(peer(2)));
        assert_eq!((table.learned(), table.registered(mac(1))), (1, None));
    }

    #[test]
    fn a_full_table_learns_again_when_old_ones_can_go() {
        let mut table = MacTable::new(AGE, 2);
        for seconds in [0, 1] {
            table.hear(at(seconds), mac(1), peer(1));
            table.hear(at(seconds), mac(2), peer(1));
        }
        assert_eq!(table.hear(at(301), mac(3), peer(1)), Heard::Full);
        assert_eq!((table.refused(), table.find(at(301), mac(3))), (1, None));
        assert_eq!(table.hear(at(301), mac(2), peer(1)), Heard::Learned);
        assert_eq!(table.hear(at(302), mac(3), peer(1)), Heard::Learned);
        assert_eq!(table.hear(at(302), mac(4), peer(1)), Heard::Full);
        assert_eq!((table.learned(), table.refused()), (2, 2));
    }

    #[test]
    fn registering_takes_a_learned_address_over() {
        let mut table = MacTable::new(AGE, 1);
        table.hear(at(0), mac(1), peer(9));
        assert_eq!(table.register(mac(1), peer(1)), Ok(()));
        assert_eq!((table.learned(), table.find(at(0), mac(1))), (0, Some(peer(1))));
        assert_eq!(table.hear(at(0), mac(2), peer(9)), Heard::Learned);
    }

    #[test]
    fn a_purged_peer_leaves_nothing_behind() {
        let mut table = MacTable::new(AGE, 4);
        table.register(mac(1), peer(1)).unwrap();
        table.hear(at(0), mac(2), peer(1));
        table.hear(at(0), mac(3), peer(2));
        table.purge(at(0), peer(1));
        assert_eq!([1, 2, 3].map(|last| table.find(at(0), mac(last))), [None, None, Some(peer(2))]);
        assert_eq!((table.learned(), table.register(mac(1), peer(3))), (1, Ok(())));
    }

    #[test]
    fn a_flood_of_made_up_addresses_pushes_itself_out_and_nobody_else() {
        let made_up = |number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            Mac::from_bytes([4, 0, a, b, c, d])
        };
        let mut table = MacTable::new(AGE, 64);
        let stations: Vec<Mac> = (0..32).map(mac).collect();
        let speak = |table: &mut MacTable, millis: u64| {
            for station in &stations {
                let heard = table.hear(Duration::from_millis(millis), *station, peer(1));
                assert_eq!(heard, Heard::Learned);
            }
        };
        speak(&mut table, 0);
        speak(&mut table, 1500);
        // A million addresses, each heard once, over 100 s; nothing is learned meanwhile that keeps anyone out.
        let mut displaced = 0;
        for number in 0..1_000_000u32 {
            let now = Duration::from_millis(2000 + u64::from(number) / 10);
            displaced += u64::from(table.hear(now, made_up(number), peer(1)) == Heard::Displaced);
        }
        assert_eq!(table.learned(), 64);
        assert_eq!(displaced + table.refused(), 1_000_000 - 32);
        assert!(displaced >= 32 * 98, "{displaced}");
        assert!(table.newcomers.len() <= 64 + 32 && table.stations.len() == 64);
        speak(&mut table, 102_000);
        // A station that comes only now finds a place as well, and keeps it.
        assert_eq!(table.hear(at(103), mac(99), peer(1)), Heard::Displaced);
        assert_eq!(table.find(at(103), mac(99)), Some(peer(1)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Hear(u8, u16),
        Register(u8, u16),
        Purge(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0u64..40).prop_map(Step::Wait),
            6 => (0u8..8, 1u16..4).prop_map(|(last, id)| Step::Hear(last, id)),
            1 => (0u8..8, 1u16..4).prop_map(|(last, id)| Step::Register(last, id)),
            1 => (1u16..4).prop_map(Step::Purge),
        ]
    }

    /// A station of the list, and when it was heard first and last.
    type Entry = (Mac, PeerId, Option<(Duration, Duration)>);

    proptest! {
        /// The table against a list that is searched whole each time.
        #[test]
        fn agrees_with_a_plain_list(cap in 0usize..6, steps in proptest::collection::vec(step(), 0..150)) {
            let age = at(60);
            let mut table = MacTable::new(age, cap);
            let mut list: Vec<Entry> = Vec::new();
            let mut now = at(0);
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += at(seconds),
                    Step::Hear(last, id) => {
                        let heard = table.hear(now, mac(last), peer(id));
                        match list.iter_mut().find(|(known, ..)| *known == mac(last)) {
                            Some((_, owner, None)) => prop_assert_eq!(heard, Heard::Registered(*owner)),
                            Some((_, owner, Some((_, heard_last)))) => {
                                (*owner, *heard_last) = (peer(id), now);
                                prop_assert_eq!(heard, Heard::Learned);
                            }
                            None => {
                                let learned = |list: &[Entry]| list.iter().filter(|e| e.2.is_some()).count();
                                let mut expected = Heard::Learned;
                                if learned(&list) >= cap {
                                    list.retain(|entry| entry.2.is_none_or(|(_, last)| now - last <= age));
                                }
                                if learned(&list) >= cap {
                                    let weak = list.iter().position(|entry| entry.2.is_some_and(|(first, last)| last - first < PROBATION));
                                    let old = weak.filter(|at| list[*at].2.is_some_and(|(first, _)| now - first >= PROBATION));
                                    expected = if old.is_some() { Heard::Displaced } else { Heard::Full };
                                    old.map(|at| list.remove(at));
                                }
                                if expected != Heard::Full { list.push((mac(last), peer(id), Some((now, now)))) }
                                prop_assert_eq!(heard, expected);
                            }
                        }
                    }
                    Step::Register(last, id) => {
                        let owner = list.iter().find(|entry| entry.0 == mac(last) && entry.2.is_none()).map(|entry| entry.1);
                        prop_assert_eq!(table.register(mac(last), peer(id)), owner.map_or(Ok(()), Err));
                        if owner.is_none() {
                            list.retain(|entry| entry.0 != mac(last));
                            list.push((mac(last), peer(id), None));
                        }
                    }
                    Step::Purge(id) => {
                        table.purge(now, peer(id));
                        list.retain(|entry| entry.1 != peer(id));
                    }
                }
                prop_assert!(table.learned() <= cap);
                for last in 0..8 {
                    let expected = list.iter().find(|entry| entry.0 == mac(last) && entry.2.is_none_or(|(_, last)| now - last <= age));
                    prop_assert_eq!(table.find(now, mac(last)), expected.map(|entry| entry.1));
                }
            }
        }
    }
}
