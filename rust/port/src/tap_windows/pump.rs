//! The thread that takes finished operations in, and opens the adapter anew when Windows has taken it away.
//!
//! Reads end with an error when the link goes down under us, the adapter is disabled or restarted, or the machine has slept. None of that is a
//! reason to end a game: the adapter is opened again, told again what it was told (media connected), and reading goes on. Only when that has
//! not worked for `reopen_limit` the port fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::ERROR_MORE_DATA;
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::WindowsProgramming::QueryUnbiasedInterruptTime;

use super::ANSWER_LIMIT;
use super::adapter::Adapter;
use super::operation::{Kind, Operation, Outcome};
use super::shared::Shared;
use super::sleep::SleepWatch;
use crate::{MIN_FRAME_LEN, PortCounters};

/// The pause before the adapter is opened again the first time, doubled each time...
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An adapter that has worked for this long has come back for good: the next trouble is a new one.
const STEADY: Duration = Duration::from_secs(5);
/// How often the clocks are compared when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);

enum State {
    /// Reads are, or can be, under way.
    Open { since: Instant },
    /// Away; to be tried at `next`.
    Lost { next: Instant },
    /// Open again; the driver has been asked to connect the media.
    Greeting { since: Instant },
    /// Given up.
    Failed,
}

/// The thread's own things.
pub(super) struct Pump {
    shared: Arc<Shared>,
    state: State,
    openings: u64,
    trouble_since: Instant,
    pause: Duration,
    watch: SleepWatch,
}

impl Pump {
    /// For an adapter that has just been opened, as opening number 0.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            state: State::Open { since: now },
            openings: 0,
            trouble_since: now,
            pause: FIRST_PAUSE,
            watch: SleepWatch::default(),
        }
    }

    /// Runs until the port is closed and the system has returned every operation.
    pub(super) fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let limit = match self.state {
                State::Lost { next } => next.saturating_duration_since(Instant::now()).min(HEARTBEAT),
                _ => HEARTBEAT,
            };
            let waited = shared.completions.wait(limit, |operation, outcome| self.take(operation, outcome));
            if let Err(error) = waited {
                // Only a broken handle does that. The operations under way are leaked with the thread: nobody may free them.
                shared.fail(error);
                return;
            }
            if shared.closing.load(Acquire) {
                shared.close_adapter();
                if shared.under_way.load(Acquire) == 0 {
                    return;
                }
                continue;
            }
            self.look_after();
        }
    }

    /// What has to be done besides taking operations in.
    fn look_after(&mut self) {
        let slept = self.watch.slept(milliseconds_with_sleep(), milliseconds_awake());
        let troubled = self.shared.take_trouble(self.openings);
        match self.state {
            State::Open { .. } | State::Greeting { .. } if slept && self.shared.reading.load(Acquire) => {
                self.lose(io::Error::other("the machine has slept"));
            }
            State::Open { .. } => {
                if let Some(error) = troubled {
                    self.lose(error);
                }
            }
            State::Greeting { since } if since.elapsed() >= ANSWER_LIMIT => {
                self.lose(io::Error::from(io::ErrorKind::TimedOut));
            }
            State::Lost { next } if Instant::now() >= next => self.reopen(),
            _ => {}
        }
    }

    fn take(&mut self, operation: Box<Operation>, outcome: Outcome) {
        self.shared.under_way.fetch_sub(1, Relaxed);
        match operation.kind {
            Kind::Read => self.take_read(operation, outcome),
            Kind::Write { .. } => {
                if let Err(error) = outcome {
                    self.shared.count_refused_write(&error);
                }
                self.shared.give_back_write(operation);
            }
            Kind::Control { .. } => self.take_control(*operation, outcome),
        }
    }

    fn take_read(&mut self, operation: Box<Operation>, outcome: Outcome) {
        let shared = &self.shared;
        let counters = &shared.counters;
        if !shared.reading.load(Acquire) {
            shared.park_read(operation);
            // A bridge that came between the look and the putting away would miss this read.
            if shared.reading.load(Acquire) {
                shared.start_reads();
            }
            return;
        }
        match outcome {
            Ok(len) if len >= MIN_FRAME_LEN => shared.hand_on(operation, len),
            Ok(_) => {
                PortCounters::add(&counters.received_runt, 1);
                shared.read_again(operation);
            }
            Err(error) if error.raw_os_error() == Some(ERROR_MORE_DATA as i32) => {
                PortCounters::add(&counters.received_too_long, 1);
                shared.read_again(operation);
            }
            // A late answer of a former opening.
            Err(_) if operation.opening != self.openings => shared.read_again(operation),
            Err(error) => {
                shared.park_read(operation);
                if matches!(self.state, State::Open { .. }) {
                    self.lose(error);
                }
            }
        }
    }

    fn take_control(&mut self, operation: Operation, outcome: Outcome) {
        let opening = operation.opening;
        let Kind::Control { mut answer, asker, .. } = operation.kind else { return };
        match asker {
            Some(asker) => {
                let answered = outcome.map(|len| {
                    answer.truncate(len);
                    answer
                });
                // Nobody waits any more: the answer came too late for them.
                let _ = asker.send(answered);
            }
            None if opening == self.openings && matches!(self.state, State::Greeting { .. }) => match outcome
            {
                Ok(_) => self.resume(),
                Err(error) => self.lose(error),
            },
            None => {}
        }
    }

    /// The adapter does not work any more: closes it, and has it opened again after a pause.
    fn lose(&mut self, error: io::Error) {
        let now = Instant::now();
        if matches!(self.state, State::Open { since } if now - since >= STEADY) {
            (self.trouble_since, self.pause) = (now, FIRST_PAUSE);
        } else if self.pause == FIRST_PAUSE {
            self.trouble_since = now;
        }
        self.shared.close_adapter();
        if now - self.trouble_since >= self.shared.options.reopen_limit {
            self.state = State::Failed;
            return self.shared.fail(error);
        }
        self.state = State::Lost { next: now + self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn reopen(&mut self) {
        let shared = self.shared.clone();
        self.openings += 1;
        match Adapter::open(&shared.path, &shared.completions, self.openings) {
            Err(error) => self.lose(error),
            Ok(adapter) => {
                shared.put_adapter(adapter);
                self.state = State::Greeting { since: Instant::now() };
                match &shared.options.on_reopen {
                    None => self.resume(),
                    Some((code, data)) => {
                        let kind = Kind::Control { code: *code, answer: vec![0; data.len()], asker: None };
                        if let Err((_operation, error)) = shared.start(Operation::new(kind, data.clone())) {
                            self.lose(error);
                        }
                    }
                }
            }
        }
    }

    /// The adapter is there again.
    fn resume(&mut self) {
        self.state = State::Open { since: Instant::now() };
        self.shared.reopenings.fetch_add(1, Relaxed);
        self.shared.resume();
    }
}

fn milliseconds_with_sleep() -> u64 {
    // SAFETY: no arguments, cannot fail.
    unsafe { GetTickCount64() }
}

fn milliseconds_awake() -> u64 {
    let mut hundred_nanoseconds = 0;
    // SAFETY: writes one u64, to a live one. It fails only for a null pointer.
    unsafe { QueryUnbiasedInterruptTime(&raw mut hundred_nanoseconds) };
    hundred_nanoseconds / 10_000
}
