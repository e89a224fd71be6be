//! The party itself: who is there, what happens when, and the checks along the way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use softlan_switch::{Counters, DropReason, Limits, Rate, Role, Settings, Subject, Switch, Verdict};
use softlan_wire::{EthernetFrame, HEADER_LEN, Mac, PeerId, mark_ce, write_header};

use crate::books::{Stage, holds, same};
use crate::end::End;
use crate::frames::{Frames, LEAST, Payload};
use crate::line::{Line, Weather};
use crate::random::Random;
use crate::{Broken, LOSS_PERMILLE, Sabotage, Summary};

/// How long anything new happens.
const PLAY: Duration = Duration::from_secs(2);
const ROOMS: usize = 2;
const MAC_CAP: usize = 16;
/// Frames of a stream, and the time between them: a little more than the slowest line carries.
const STREAM: u32 = 40;
const STREAM_PAUSE: Duration = Duration::from_millis(9);

/// Which way over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up,
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// Somebody says, changes or breaks something.
    Act { person: usize },
    /// Somebody sends the next frame of a stream that a slow line cannot take, so that a queue stands.
    Stream { person: usize, payload: Payload, left: u32 },
    /// A line can take the next frame.
    Pump { connection: usize, way: Way },
    /// A datagram is there.
    Arrive { connection: usize, way: Way, datagram: Bytes },
    /// A sender has found out what its path carries.
    Learn { connection: usize, way: Way },
}

/// A player, or a LAN's gateway; whatever connection it has.
#[derive(Debug)]
struct Person {
    room: usize,
    role: Role,
    connection: Option<usize>,
}

/// One connection, from plugging in until nothing of it is under way.
#[derive(Debug)]
struct Connection {
    person: usize,
    peer: PeerId,
    is_plugged: bool,
    up: Line,
    down: Line,
    /// The relay's end, on the counters of the switch, and the peer's.
    at_relay: End,
    at_peer: End,
    /// Frames that came out of the relay's end: those the switch let pass, and those it dropped.
    judged: Stage,
    delivered: u64,
}

pub(crate) struct World {
    random: Random,
    weather: Weather,
    sabotage: Option<Sabotage>,
    now: Duration,
    serial: u64,
    agenda: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    switches: Vec<Switch>,
    next_peer: [u16; ROOMS],
    people: Vec<Person>,
    connections: Vec<Connection>,
    frames: Frames,
    targets: Vec<PeerId>,
    /// What switches told as begun and not as ended.
    open: HashSet<(usize, Subject)>,
    /// Frames for peers, by what the switches said.
    due: u64,
    summary: Summary,
}

fn way_of(connection: &mut Connection, way: Way) -> &mut Line {
    match way {
        Way::Up => &mut connection.up,
        Way::Down => &mut connection.down,
    }
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather {
            loss_permille: LOSS_PERMILLE[seed as usize % LOSS_PERMILLE.len()],
            duplicate_permille: *random.pick(&[0, 0, 20]).unwrap_or(&0),
            jitter_ms: *random.pick(&[0, 5, 40]).unwrap_or(&0),
        };
        let storm = random.happens(300).then_some(40);
        let settings = Settings { mac_cap: MAC_CAP, storm, ..Settings::default() };
        let mut world = Self {
            random,
            weather,
            sabotage,
            now: Duration::from_secs(10),
            serial: 0,
            agenda: BinaryHeap::new(),
            switches: (0..ROOMS)
                .map(|_| Switch::with_secret(settings, [Random::new(seed).next(); 2]))
                .collect(),
            next_peer: [1; ROOMS],
            people: Vec::new(),
            connections: Vec::new(),
            frames: Frames::default(),
            targets: Vec::new(),
            open: HashSet::new(),
            due: 0,
            summary: Summary::default(),
        };
        for room in 0..ROOMS {
            world.people.push(Person { room, role: Role::Gateway, connection: None });
            for number in 0..world.random.within(2..5) {
                // The same addresses in both rooms: rooms know nothing of each other.
                let role = Role::Client(Mac::from_bytes([2, 0, 0, 0, 0, number as u8]));
                world.people.push(Person { room, role, connection: None });
            }
        }
        world
    }

    pub(crate) fn play(mut self) -> Result<Summary, Broken> {
        let end = self.now + PLAY;
        for person in 0..self.people.len() {
            self.plug(person)?;
            let pause = self.pause();
            self.at(pause, Happening::Act { person });
        }
        while let Some(Reverse((due, _, happening))) = self.agenda.pop() {
            self.now = self.now.max(due);
            match happening {
                Happening::Act { person } if self.now < end => {
                    self.act(person)?;
                    let pause = self.pause();
                    self.at(pause, Happening::Act { person });
                }
                Happening::Act { .. } => {}
                Happening::Stream { person, payload, left } => self.stream(person, payload, left)?,
                Happening::Pump { connection, way } => self.pump(connection, way)?,
                Happening::Arrive { connection, way: Way::Up, datagram } => {
                    self.at_relay(connection, datagram)?
                }
                Happening::Arrive { connection, way: Way::Down, datagram } => {
                    self.at_peer(connection, datagram)?
                }
                Happening::Learn { connection, way } => {
                    let line = way_of(&mut self.connections[connection], way);
                    line.known_size = line.path_size;
                }
            }
            self.listen_to_switches()?;
        }
        self.close()
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.serial += 1;
        self.agenda.push(Reverse((self.now + after, self.serial, happening)));
    }

    fn pause(&mut self) -> Duration {
        // Mostly a steady chatter, sometimes a burst.
        let most = if self.random.happens(100) { 2 } else { 120 };
        Duration::from_millis(self.random.within(0..most))
    }

    // Coming and going

    fn plug(&mut self, person: usize) -> Result<(), Broken> {
        let Person { room, role, .. } = self.people[person];
        let Some(peer) = PeerId::new(self.next_peer[room]) else { return Ok(()) };
        self.next_peer[room] += 1;
        let limits = Limits {
            total: None,
            broadcast: self
                .random
                .happens(300)
                .then_some(Rate { bits_per_second: 50_000, burst_bytes: 4000 }),
            unknown: None,
            storm: self.random.happens(300).then_some(20),
        };
        let counters = self.switches[room]
            .plug(self.now, peer, role, limits)
            .map_err(|error| Broken(format!("{person} cannot be plugged in: {error}")))?;
        let connection = Connection {
            person,
            peer,
            is_plugged: true,
            up: Line::new(&mut self.random, self.weather),
            down: Line::new(&mut self.random, self.weather),
            at_relay: End::new(Some(peer), counters),
            at_peer: End::new(None, Arc::<Counters>::default()),
            judged: Stage::default(),
            delivered: 0,
        };
        self.people[person].connection = Some(self.connections.len());
        self.connections.push(connection);
        Ok(())
    }

    /// The relay lets go of a connection; what is still under way on it arrives at nobody.
    fn unplug(&mut self, person: usize) -> Result<(), Broken> {
        let Some(index) = self.people[person].connection.take() else { return Ok(()) };
        let now = self.now;
        let connection = &mut self.connections[index];
        connection.is_plugged = false;
        connection.up.give_up(now);
        connection.down.give_up(now);
        let peer = connection.peer;
        let was_there = self.switches[self.people[person].room].unplug(self.now, peer);
        holds(was_there, || format!("peer {peer} was not plugged in"))
    }

    // What people do

    fn act(&mut self, person: usize) -> Result<(), Broken> {
        let Some(connection) = self.people[person].connection else { return self.plug(person) };
        match self.random.within(0..1000) {
            0..10 => self.unplug(person)?,
            10..25 => {
                // Back on a new connection before anybody noticed: the former one is replaced.
                self.unplug(person)?;
                self.plug(person)?;
                self.summary.resumed += 1;
            }
            25..45 => {
                let way = if self.random.happens(500) { Way::Up } else { Way::Down };
                let size = self.random.within(1000..1435) as usize;
                way_of(&mut self.connections[connection], way).path_size = size;
                self.at(Duration::from_millis(150), Happening::Learn { connection, way });
            }
            45..60 => {
                let dark = self.now + Duration::from_millis(self.random.within(1..300));
                let way = if self.random.happens(500) { Way::Up } else { Way::Down };
                way_of(&mut self.connections[connection], way).dark_until = dark;
            }
            60..63 => {
                // More frames begun than an end keeps.
                for _ in 0..150 {
                    self.send_garbage(connection);
                }
            }
            63..120 => self.send_garbage(connection),
            120..130 => {
                let payload = Payload::any(&mut self.random);
                self.at(Duration::ZERO, Happening::Stream { person, payload, left: STREAM });
            }
            _ => {
                for _ in 0..self.random.within(1..4) {
                    let len = match self.random.within(0..4) {
                        0 => self.random.within(LEAST..100),
                        1 => self.random.within(1400..1519),
                        _ => self.random.within(LEAST..1500),
                    };
                    let payload = Payload::any(&mut self.random);
                    self.speak(person, connection, payload, len)?;
                }
            }
        }
        Ok(())
    }

    fn stream(&mut self, person: usize, payload: Payload, left: u32) -> Result<(), Broken> {
        let (Some(connection), Some(left)) = (self.people[person].connection, left.checked_sub(1)) else {
            return Ok(());
        };
        self.at(STREAM_PAUSE, Happening::Stream { person, payload, left });
        self.speak(person, connection, payload, 1400)
    }

    fn speak(&mut self, person: usize, connection: usize, payload: Payload, len: u64) -> Result<(), Broken> {
        let Person { room, role, .. } = self.people[person];
        let is_honest = !self.random.happens(50);
        // More stations than the table holds, now and then.
        let station =
            |random: &mut Random| Mac::from_bytes([0, 0x11, 0, 0, room as u8, random.within(0..24) as u8]);
        let source = match role {
            Role::Client(own) if is_honest => own,
            Role::Client(own) => Mac::from_bytes([2, 0, 0, 0, 0, own.bytes()[5] ^ 1]),
            Role::Gateway if is_honest => station(&mut self.random),
            Role::Gateway => Mac::from_bytes([2, 0, 0, 0, 0, 0]),
        };
        // A gateway may speak for a client that has left by the time the relay hears it; so that is judged there.
        let is_honest = is_honest || matches!(role, Role::Gateway);
        let destination = match self.random.within(0..10) {
            0..2 => Mac::BROADCAST,
            2 => Mac::from_bytes([1, 0, 0x5e, 0, 0, 0xfb]),
            3 => station(&mut self.random),
            _ => Mac::from_bytes([2, 0, 0, 0, 0, self.random.within(0..5) as u8]),
        };
        let who = (person, room, is_honest);
        let frame = self.frames.make(&mut self.random, who, (source, destination), payload, len);
        let mut header = [0; 4];
        write_header(&mut header, self.connections[connection].peer);
        let datagram = Bytes::from([&header[..], &frame].concat());
        self.summary.spoken += 1;
        self.connections[connection].up.send(self.now, datagram)?;
        self.start_pump(connection, Way::Up);
        Ok(())
    }

    /// Puts datagrams on the line that no honest peer sends: nothing, noise, another's id, fragments without siblings.
    fn send_garbage(&mut self, connection: usize) {
        let peer = self.connections[connection].peer.value();
        let random = &mut self.random;
        let mut datagram = match random.within(0..4) {
            0 => Vec::new(),
            1 => (0..random.within(1..40)).map(|_| random.next() as u8).collect(),
            2 => {
                let other = (peer ^ 1).max(1);
                [&[0x10, 0][..], &other.to_be_bytes(), &[0xff; 60]].concat()
            }
            _ => {
                let last = random.within(1..16) as u8;
                let index = random.within(0..u64::from(last) + 1) as u8;
                let id = random.next() as u32;
                [&[0x11, index << 4 | last][..], &peer.to_be_bytes(), &id.to_be_bytes()].concat()
            }
        };
        if datagram.len() == 8 {
            datagram.resize(8 + random.within(1..600) as usize, 0xee);
        }
        let (mut free, mut arrivals) = (self.now, Vec::new());
        let line = &mut self.connections[connection].up;
        line.put(&mut free, datagram.into(), &mut self.random, &mut arrivals);
        self.expect(connection, Way::Up, arrivals);
    }

    // Lines

    fn start_pump(&mut self, connection: usize, way: Way) {
        let line = way_of(&mut self.connections[connection], way);
        if !line.is_pumping {
            line.is_pumping = true;
            self.at(Duration::ZERO, Happening::Pump { connection, way });
        }
    }

    fn pump(&mut self, connection: usize, way: Way) -> Result<(), Broken> {
        let now = self.now;
        let line = way_of(&mut self.connections[connection], way);
        let Some((arrivals, free)) = line.pump(now, &mut self.random) else {
            line.is_pumping = false;
            return Ok(());
        };
        if let Some(marked) = line.marked.take() {
            self.summary.marked += 1;
            self.frames.note_marked(&marked[HEADER_LEN..])?;
        }
        self.expect(connection, way, arrivals);
        self.at(free.saturating_sub(now), Happening::Pump { connection, way });
        Ok(())
    }

    fn expect(&mut self, connection: usize, way: Way, mut arrivals: Vec<(Duration, Bytes)>) {
        if self.is_time_for(Sabotage::SilentLoss, 200) && arrivals.pop().is_some() {
            self.sabotage = None;
        }
        for (due, datagram) in arrivals {
            self.at(due.saturating_sub(self.now), Happening::Arrive { connection, way, datagram });
        }
    }

    // Ends

    fn at_relay(&mut self, index: usize, datagram: Bytes) -> Result<(), Broken> {
        let now = self.now;
        let fault = self.fault_at_end();
        let connection = &mut self.connections[index];
        connection.up.wire.left += 1;
        if !connection.is_plugged {
            connection.at_relay.come_too_late();
            return Ok(());
        }
        let is_fragment = datagram.first() == Some(&0x11);
        let Some(received) = connection.at_relay.accept(now, datagram, fault)? else { return Ok(()) };
        self.summary.reassembled += u64::from(is_fragment);
        connection.judged.entered += 1;
        let (peer, room) = (connection.peer, self.people[connection.person].room);
        let mut datagram = received.datagram.clone();
        let verdict = if self.is_time_for(Sabotage::Bypass, 100) {
            self.sabotage = None;
            self.targets.clear();
            Verdict::Unicast
        } else {
            self.switches[room].forward(now, peer, received.frame(), &mut self.targets)
        };
        let mut targets = std::mem::take(&mut self.targets);
        match verdict {
            Verdict::Dropped(reason) => {
                holds(targets.is_empty(), || format!("dropped ({reason}) and yet sent"))?;
                self.connections[index].judged.drop_one(reason.name());
                self.summary.dropped += 1;
            }
            Verdict::Unicast | Verdict::Flood(_) => {
                self.connections[index].judged.left += 1;
                self.due += self.receivers(room, peer, verdict);
                let source = EthernetFrame::parse(received.frame()).map(|frame| frame.source());
                let owner = source.ok().and_then(|source| self.switches[room].table().registered(source));
                holds(owner.is_none_or(|owner| owner == peer), || {
                    format!("{peer} spoke in the name of {owner:?}")
                })?;
            }
        }
        if !targets.is_empty() {
            self.sabotage_targets(index, &mut targets, &mut datagram);
        }
        for target in &targets {
            self.hand_out(room, *target, &datagram)?;
        }
        self.targets = targets;
        Ok(())
    }

    /// How many are to get a frame.
    fn receivers(&self, room: usize, sender: PeerId, verdict: Verdict) -> u64 {
        let switch = &self.switches[room];
        let is_receiver = |peer: &&PeerId| **peer != sender && !switch.is_blocked(**peer);
        match verdict {
            Verdict::Dropped(_) => 0,
            Verdict::Unicast => 1,
            Verdict::Flood(_) => switch.peers().iter().filter(is_receiver).count() as u64,
        }
    }

    fn hand_out(&mut self, room: usize, target: PeerId, datagram: &Bytes) -> Result<(), Broken> {
        let crossed = self.is_time_for(Sabotage::CrossedRoom, 50);
        let found = self.connections.iter().position(|other| {
            let is_here = (self.people[other.person].room == room) != crossed;
            other.is_plugged && is_here && (other.peer == target || crossed)
        });
        let Some(to) = found else {
            return if crossed { Ok(()) } else { Err(Broken(format!("{target} is not in room {room}"))) };
        };
        if crossed {
            self.sabotage = None;
        }
        self.connections[to].down.send(self.now, datagram.clone())?;
        self.start_pump(to, Way::Down);
        Ok(())
    }

    fn at_peer(&mut self, index: usize, datagram: Bytes) -> Result<(), Broken> {
        let fault = self.fault_at_end();
        let connection = &mut self.connections[index];
        connection.down.wire.left += 1;
        if !connection.is_plugged {
            connection.at_peer.come_too_late();
            return Ok(());
        }
        let is_fragment = datagram.first() == Some(&0x11);
        let received = connection.at_peer.accept(self.now, datagram, fault)?;
        holds(!connection.at_peer.has_malformed(), || "the relay sent a malformed datagram".into())?;
        if let Some(received) = received {
            connection.delivered += 1;
            self.summary.delivered += 1;
            self.summary.reassembled += u64::from(is_fragment);
            let person = connection.person;
            self.frames.check(person, self.people[person].room, received.frame())?;
        }
        Ok(())
    }

    // Faults on purpose

    fn is_time_for(&mut self, fault: Sabotage, permille: u64) -> bool {
        self.sabotage == Some(fault) && self.random.happens(permille)
    }

    fn fault_at_end(&mut self) -> Option<Sabotage> {
        [(Sabotage::Unread, 20), (Sabotage::Unfinished, 100)]
            .into_iter()
            .find_map(|(fault, permille)| self.is_time_for(fault, permille).then_some(fault))
    }

    fn sabotage_targets(&mut self, sender: usize, targets: &mut Vec<PeerId>, datagram: &mut Bytes) {
        if self.is_time_for(Sabotage::Echo, 50) {
            targets.push(self.connections[sender].peer);
        } else if self.is_time_for(Sabotage::FlippedByte, 50) {
            let mut changed = datagram.to_vec();
            if let Some(byte) = changed.get_mut(20) {
                *byte ^= 1;
            }
            *datagram = changed.into();
        } else if self.is_time_for(Sabotage::UntoldMark, 300) {
            let mut changed = datagram.to_vec();
            mark_ce(&mut changed[HEADER_LEN..]);
            *datagram = changed.into();
        } else if self.is_time_for(Sabotage::Swallowed, 100) {
            self.sabotage = None;
            targets.clear();
        }
    }

    // Checks

    /// Whatever sets in ends, once; and tables stay within their bound.
    fn listen_to_switches(&mut self) -> Result<(), Broken> {
        for (room, switch) in self.switches.iter_mut().enumerate() {
            holds(switch.table().learned() <= MAC_CAP, || "the MAC table has grown beyond its cap".into())?;
            if !switch.has_events() && !switch.is_restless() {
                continue;
            }
            for event in switch.take_events(self.now) {
                let begun = (room, event.subject());
                let goes_on =
                    if event.is_beginning() { self.open.insert(begun) } else { self.open.remove(&begun) };
                holds(goes_on, || format!("{event:?} out of turn; open: {:?}", self.open))?;
                // Datagrams that arrive twice make no loop, nor do lies that nobody else tells.
                let is_loop = matches!(event.subject(), Subject::Loop(..));
                holds(!is_loop, || format!("{event:?} in a room without a loop"))?;
            }
        }
        Ok(())
    }

    fn close(mut self) -> Result<Summary, Broken> {
        self.now += Duration::from_secs(120);
        for person in 0..self.people.len() {
            self.unplug(person)?;
        }
        self.listen_to_switches()?;
        for switch in &mut self.switches {
            holds(switch.peers().is_empty(), || "somebody is still plugged in".into())?;
            holds(switch.table().learned() == 0, || "addresses of nobody are left".into())?;
        }
        holds(self.open.iter().all(|(_, subject)| *subject == Subject::Storm(None)), || {
            format!("never ended: {:?}", self.open)
        })?;
        let mut queued = 0;
        for (index, connection) in self.connections.iter().enumerate() {
            let name = format!("connection {index} of {}", connection.person);
            connection.up.close(&format!("{name}, up"))?;
            connection.down.close(&format!("{name}, down"))?;
            connection.at_relay.close(&format!("{name}, at the relay"))?;
            connection.at_peer.close(&format!("{name}, at the peer"))?;
            connection.judged.close(&format!("{name}, judged"), 0)?;
            self.check_counters(&name, connection)?;
            queued += connection.down.egress.entered;
            self.summary.switched += connection.judged.entered;
            self.summary.given_up += connection.at_relay.given_up() + connection.at_peer.given_up();
            for line in [&connection.up, &connection.down] {
                self.summary.datagrams += line.wire.entered;
                let dropped = |reason| line.wire.dropped.get(reason).copied().unwrap_or(0);
                self.summary.lost += dropped("lost");
                self.summary.dark += dropped("dark");
                self.summary.too_large += dropped("above-path-mtu");
                self.summary.duplicated += line.duplicated;
                self.summary.overtook += line.overtook;
            }
        }
        same("frames due to peers and frames queued for them", self.due, queued, &())?;
        Ok(self.summary)
    }

    /// The counters that operators see, against what happened.
    fn check_counters(&self, name: &str, connection: &Connection) -> Result<(), Broken> {
        let told = connection.at_relay.counters.snapshot();
        let (judged, delivered) = (connection.judged.entered, connection.delivered);
        same(&format!("{name}, frames judged"), judged, connection.at_relay.frames(), &told)?;
        same(&format!("{name}, frames delivered"), delivered, connection.at_peer.frames(), &told)?;
        same(&format!("{name}, frames told"), told.frames_received, connection.judged.entered, &told)?;
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for reason in DropReason::ALL {
            let count = told.drops_for(reason);
            if count > 0 && !matches!(reason, DropReason::Malformed | DropReason::Reassembly) {
                reasons.insert(reason.name(), count);
            }
        }
        let dropped: BTreeMap<&str, u64> =
            connection.judged.dropped.iter().map(|(name, n)| (*name, *n)).collect();
        holds(reasons == dropped, || format!("{name}: told {reasons:?}, happened {dropped:?}"))?;
        let passed = told.frames_received - reasons.values().sum::<u64>();
        same(&format!("{name}, received = forwarded + dropped"), passed, connection.judged.left, &told)
    }
}
