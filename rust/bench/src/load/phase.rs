//! One measurement over peers that have joined: find how much may be under way, then measure.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::arena::{Arena, Template, number_of};
use crate::load::machine;
use crate::load::run::Fault;
use crate::load::swarm::Swarm;
use crate::load::traffic::{Flow, Tally, room_of};

/// Bytes of frames under way in all flows together, at most: more than this overruns the kernel's socket buffers. Where it holds flows up, they take
/// turns, each with a burst of its own size, as a peer's bulk comes in the bursts its kernel makes (64 KiB super-frames).
const MOST_UNDER_WAY: usize = 2 << 20;
/// Windows up to this are tried in any case.
const BURST: u64 = 64;
/// Windows tried, in frames a flow.
const WINDOWS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];
/// How long each is tried.
const TRIAL: Duration = Duration::from_millis(300);
/// Loss above which a window is not good.
pub const TOLERATED_LOSS: f64 = 0.01;
/// When a flow heard nothing for this long, what is under way is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the peers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Peers in pairs, each sending to its partner.
    Unicast,
    /// The first peer of each room sends to all others of it.
    Broadcast,
    /// Nothing but keep-alives.
    Idle,
}

/// A measurement that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// What the peers do.
    pub kind: Kind,
    /// Bytes of a frame.
    pub frame: usize,
    /// Frames under way a flow; found by trial when `None`.
    pub window: Option<u64>,
}

/// Whom and where to measure.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// The relay's process.
    pub pid: u32,
    /// The relay's core.
    pub core: usize,
    /// How long to measure.
    pub time: Duration,
    /// How many rooms there are.
    pub rooms: usize,
}

/// The flows, and who hears which.
struct Traffic {
    flows: Vec<Flow>,
    templates: Vec<Template>,
    /// By receiver: the flow it hears and its place among the flow's receivers.
    hears: Vec<Option<(usize, usize)>>,
    arena: Arena,
    fragments: u64,
    /// Whose turn it is to send.
    turn: usize,
    next_look: Instant,
}

/// Cheap to take, and to subtract.
struct Sample {
    at: Instant,
    tally: Tally,
    relay_cpu: Duration,
    own_cpu: Duration,
    core_busy: f64,
}

impl Traffic {
    fn new(swarm: &Swarm, phase: Phase, rooms: usize) -> Self {
        let peers = swarm.peers.len();
        let mut flows = Vec::new();
        let mut templates = Vec::new();
        let mut hears = vec![None; peers];
        for room in 0..rooms {
            let members: Vec<usize> =
                (0..peers).filter(|&peer| room_of(peer, peers, rooms) == room).collect();
            let mut flow = |sender: usize, receivers: &[usize], destination: [u8; 6]| {
                for (ear, &receiver) in receivers.iter().enumerate() {
                    hears[receiver] = Some((flows.len(), ear));
                }
                let from = &swarm.peers[sender];
                flows.push(Flow::new(sender, receivers.len(), 1));
                templates.push(Template::new(from.id, from.mac, destination, phase.frame));
            };
            match phase.kind {
                Kind::Unicast => {
                    for pair in members.chunks_exact(2) {
                        flow(pair[0], &[pair[1]], swarm.peers[pair[1]].mac);
                        flow(pair[1], &[pair[0]], swarm.peers[pair[0]].mac);
                    }
                }
                Kind::Broadcast => {
                    if let [first, others @ ..] = members.as_slice() {
                        flow(*first, others, [0xff; 6]);
                    }
                }
                Kind::Idle => {}
            }
        }
        Self {
            flows,
            templates,
            hears,
            arena: Arena::default(),
            fragments: 0,
            turn: 0,
            next_look: Instant::now() + PATIENCE,
        }
    }

    fn set_window(&mut self, window: u64) {
        for flow in &mut self.flows {
            flow.set_window(window);
        }
    }

    fn tally(&self) -> Tally {
        self.flows.iter().map(Flow::tally).fold(Tally::default(), |sum, tally| sum + tally)
    }

    fn fill(&mut self, swarm: &mut Swarm, frame: usize) {
        let under_way: u64 = self.flows.iter().map(Flow::under_way).sum();
        let mut free = (MOST_UNDER_WAY / frame.max(1)) as u64;
        free = free.saturating_sub(under_way);
        for _ in 0..self.flows.len() {
            let (flow, template) = (&mut self.flows[self.turn], &self.templates[self.turn]);
            let burst = flow.room();
            // At least one flow may always send.
            if burst * flow.receivers() > free && under_way > 0 {
                return;
            }
            free = free.saturating_sub(burst * flow.receivers());
            let peer = &mut swarm.peers[flow.sender];
            for _ in 0..burst {
                let number = flow.send();
                if !peer.send(self.arena.frame(template, number)) {
                    break;
                }
            }
            self.turn = (self.turn + 1) % self.flows.len();
        }
    }

    fn hear(&mut self, receiver: usize, datagram: &[u8]) {
        let Some((_, number)) = number_of(datagram) else {
            self.fragments += 1;
            return;
        };
        if let Some((flow, ear)) = self.hears.get(receiver).copied().flatten() {
            self.flows[flow].hear(ear, number);
        }
    }

    fn run(&mut self, swarm: &mut Swarm, phase: Phase, time: Duration) -> Result<(), Fault> {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            self.fill(swarm, phase.frame);
            swarm.turn(Duration::from_millis(1), &mut |receiver, datagram| self.hear(receiver, datagram))?;
            if now >= self.next_look {
                self.next_look = now + PATIENCE;
                self.flows.iter_mut().for_each(Flow::look);
            }
        }
    }

    fn sample(&self, watched: &Watched) -> Result<Sample, Fault> {
        Ok(Sample {
            at: Instant::now(),
            tally: self.tally(),
            relay_cpu: machine::cpu_time(watched.pid)?,
            own_cpu: machine::cpu_time(std::process::id())?,
            core_busy: machine::core_busy(watched.core),
        })
    }

    /// Tries windows from small to large and gives the one with which the relay forwards most a CPU second without losing too much.
    fn find_window(&mut self, swarm: &mut Swarm, phase: Phase, watched: &Watched) -> Result<u64, Fault> {
        let receivers = self.hears.iter().flatten().count().max(1);
        let mut best = (WINDOWS[0], 0.0);
        for window in WINDOWS {
            if window > BURST && window as usize * phase.frame * receivers > MOST_UNDER_WAY {
                break;
            }
            self.set_window(window);
            self.run(swarm, phase, TRIAL / 3)?;
            let before = self.sample(watched)?;
            self.run(swarm, phase, TRIAL)?;
            let after = self.sample(watched)?;
            let tally = after.tally - before.tally;
            let rate = tally.delivered as f64 / (after.relay_cpu - before.relay_cpu).as_secs_f64().max(1e-3);
            if loss(tally) < TOLERATED_LOSS / 2.0 && rate > best.1 {
                best = (window, rate);
            }
        }
        Ok(best.0)
    }
}

fn loss(tally: Tally) -> f64 {
    tally.missing as f64 / ((tally.delivered + tally.missing) as f64).max(1.0)
}

/// Runs `phase` and says what was seen.
///
/// # Errors
/// When a peer is lost, or the relay is gone.
pub fn measure(swarm: &mut Swarm, phase: Phase, watched: &Watched) -> Result<Value, Fault> {
    let mut traffic = Traffic::new(swarm, phase, watched.rooms);
    let window = match (phase.kind, phase.window) {
        (Kind::Idle, _) => 0,
        (_, Some(window)) => window,
        (_, None) => traffic.find_window(swarm, phase, watched)?,
    };
    traffic.set_window(window);
    traffic.run(swarm, phase, TRIAL)?;
    traffic.fragments = 0;
    let before = traffic.sample(watched)?;
    traffic.run(swarm, phase, watched.time)?;
    let after = traffic.sample(watched)?;
    let tally = after.tally - before.tally;
    let relay_cpu = (after.relay_cpu - before.relay_cpu).as_secs_f64();
    Ok(json!({
        "phase": match phase.kind {
            Kind::Unicast => "unicast",
            Kind::Broadcast => "broadcast",
            Kind::Idle => "idle",
        },
        "frame_bytes": phase.frame,
        "peers": swarm.peers.len(),
        "rooms": watched.rooms,
        "window": window,
        "seconds": after.at.duration_since(before.at).as_secs_f64(),
        "delivered": tally.delivered,
        "missing": tally.missing,
        "fragments": traffic.fragments,
        "relay_cpu_s": relay_cpu,
        "generator_cpu_s": (after.own_cpu - before.own_cpu).as_secs_f64(),
        "others_on_relay_core_s": (after.core_busy - before.core_busy - relay_cpu).max(0.0),
        "relay_resident_bytes": machine::resident(watched.pid)?,
    }))
}
