//! One measurement over peers that have joined: find how much may be under way, then measure.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arena::{Arena, Template, number_of};
use crate::machine;
use crate::run::Fault;
use crate::swarm::Swarm;
use crate::traffic::{Flow, Tally, room_of};

/// Bytes of frames under way in all flows together, at most: more than this overruns the kernel's socket buffers.
const MOST_UNDER_WAY: usize = 3 << 20;
/// Windows tried, in frames a flow.
const WINDOWS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];
/// How long each is tried.
const TRIAL: Duration = Duration::from_millis(300);
/// Loss above which a window is not good.
pub const TOLERATED_LOSS: f64 = 0.01;
/// When nothing was heard for this long, what is under way is lost.
const PATIENCE: Duration = Duration::from_millis(100);

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
    last_heard: Instant,
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
        Self { flows, templates, hears, arena: Arena::default(), fragments: 0, last_heard: Instant::now() }
    }

    fn set_window(&mut self, window: u64) {
        for flow in &mut self.flows {
            flow.set_window(window);
        }
    }

    fn tally(&self) -> Tally {
        self.flows.iter().map(Flow::tally).fold(Tally::default(), |sum, tally| sum + tally)
    }

    fn fill(&mut self, swarm: &mut Swarm) {
        for (flow, template) in self.flows.iter_mut().zip(&self.templates) {
            let Some(peer) = swarm.peers.get_mut(flow.sender) else { continue };
            for _ in 0..flow.room() {
                let number = flow.send();
                if !peer.send(self.arena.frame(template, number)) {
                    break;
                }
            }
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

    fn run(&mut self, swarm: &mut Swarm, time: Duration) -> Result<(), Fault> {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            self.fill(swarm);
            let before = self.fragments;
            let mut heard = false;
            swarm.turn(Duration::from_millis(1), &mut |receiver, datagram| {
                heard = true;
                self.hear(receiver, datagram);
            })?;
            if heard || self.fragments > before {
                self.last_heard = now;
            } else if now.duration_since(self.last_heard) > PATIENCE {
                self.flows.iter_mut().for_each(Flow::give_up);
                self.last_heard = now;
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
            if window > WINDOWS[0] && window as usize * phase.frame * receivers > MOST_UNDER_WAY {
                break;
            }
            self.set_window(window);
            self.run(swarm, TRIAL / 3)?;
            let before = self.sample(watched)?;
            self.run(swarm, TRIAL)?;
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
    traffic.run(swarm, TRIAL)?;
    traffic.fragments = 0;
    let before = traffic.sample(watched)?;
    traffic.run(swarm, watched.time)?;
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
