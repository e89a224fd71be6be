//! A TAP-Windows6 adapter: frames through overlapped I/O on its device, and requests to its driver.
//!
//! The driver hands out one frame a read and takes one a write, and a write lasts until Windows' network stack has let go of it; so many of both
//! are under way at a time, each with memory of its own ([`operation`]). They report to one completion port, on which one thread waits
//! ([`pump`]); it also opens the adapter anew when Windows has taken it away. What is shared is in [`shared`], the device in [`adapter`].
//!
//! Finding adapters, the meaning of requests, and everything about IP is Python's business.

mod adapter;
mod operation;
mod pump;
mod shared;
mod sleep;

use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use softlan_wire::MAX_TAP_MTU;

use self::adapter::{Adapter, CompletionPort, explain_open};
use self::operation::{Kind, Operation};
use self::pump::Pump;
use self::shared::{Refusal, Shared};
use crate::{FrameBatch, MIN_FRAME_LEN, Port, PortCounters, PortCountersSnapshot, PortError, SendOutcome};

/// The longest frame written: header, two VLAN tags, and the longest IP packet a room carries, in bytes. Drivers up to 9.26 overflow a kernel buffer when
/// given an overlong one (CVE-2024-1305): this is what stands before it.
pub const MAX_WRITE: usize = 14 + 2 * 4 + MAX_TAP_MTU as usize;
/// How long the driver may take to answer a request. It answers at once, or is in the middle of a power change.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long closing waits for the driver to return what is under way. What it has not returned then is left to it.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How an adapter is looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsTapOptions {
    /// A request, code and data, sent to the driver whenever the adapter had to be opened anew while a port was in use; the answer has the
    /// data's size.
    pub on_reopen: Option<(u32, Vec<u8>)>,
    /// How long an adapter may be away before its port fails.
    pub reopen_limit: Duration,
}

impl Default for WindowsTapOptions {
    /// No request; a minute: longer than a restart of the adapter or the way back from a sleep takes.
    fn default() -> Self {
        Self { on_reopen: None, reopen_limit: Duration::from_secs(60) }
    }
}

/// An adapter, open for this process alone. Closed when this and the ports made of it are dropped.
#[derive(Debug, Clone)]
pub struct WindowsTap(Arc<Owner>);

impl WindowsTap {
    /// Opens the device at `path`, `\\.\Global\{GUID}.tap`.
    ///
    /// # Errors
    /// [`PortError::AdapterMissing`], [`PortError::AdapterBusy`], [`PortError::NoPrivilege`], or what Windows said.
    pub fn open(path: &str, options: WindowsTapOptions) -> Result<Self, PortError> {
        let failed = |source| PortError::Io { action: "set up the TAP adapter's I/O", source };
        let completions = CompletionPort::new().map_err(failed)?;
        let adapter = Adapter::open(path, &completions, 0).map_err(|error| explain_open(path, error))?;
        let shared = Arc::new(Shared::new(path, completions, adapter, options));
        let (ended, has_ended) = mpsc::channel();
        let pump = Pump::new(shared.clone());
        let thread = thread::Builder::new().name("softlan-tap".into()).spawn(move || {
            pump.run();
            // Nobody listens when closing took too long.
            let _ = ended.send(());
        });
        let thread = thread.map_err(failed)?;
        Ok(Self(Arc::new(Owner { shared, thread: Mutex::new(Some((has_ended, thread))) })))
    }

    /// Asks the driver: `code` is an IOCTL of method "buffered", `data` goes with it, and the answer has at most `answer_size` bytes. Works while frames
    /// are carried. Blocks until the driver answers, a few seconds at most.
    ///
    /// # Errors
    /// [`PortError::AdapterDown`] while the adapter is being opened anew, [`PortError::Closed`], or what the driver said.
    pub fn ioctl(&self, code: u32, data: &[u8], answer_size: usize) -> Result<Vec<u8>, PortError> {
        const ACTION: &str = "ask the TAP driver";
        let shared = &self.0.shared;
        if shared.closing.load(Acquire) {
            return Err(PortError::Closed);
        }
        let (asker, answered) = mpsc::sync_channel(1);
        let kind = Kind::Control { code, answer: vec![0; answer_size], asker: Some(asker) };
        let explain = |source: io::Error| match Refusal::of(&source) {
            Refusal::Down => PortError::AdapterDown { path: shared.path.clone() },
            Refusal::Privilege => PortError::NoPrivilege { action: ACTION },
            Refusal::Other => PortError::Io { action: ACTION, source },
        };
        shared.start(Operation::new(kind, data.to_vec())).map_err(|(_operation, error)| explain(error))?;
        match answered.recv_timeout(ANSWER_LIMIT) {
            Ok(answer) => answer.map_err(explain),
            // The operation and its memory stay with the system for as long as the driver wants.
            Err(_) => Err(explain(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    /// Starts reading frames. One port at a time; the adapter stays open when it is dropped.
    ///
    /// # Errors
    /// [`PortError::AdapterBusy`] when there is a port already, [`PortError::Closed`].
    pub fn port(&self) -> Result<WindowsTapPort, PortError> {
        let shared = &self.0.shared;
        if shared.closing.load(Acquire) {
            return Err(PortError::Closed);
        }
        if shared.reading.swap(true, AcqRel) {
            return Err(PortError::AdapterBusy { path: shared.path.clone() });
        }
        shared.start_reads();
        Ok(WindowsTapPort { tap: self.clone() })
    }

    /// What the port has counted, over all ports made of this adapter.
    pub fn counters(&self) -> PortCountersSnapshot {
        self.0.shared.counters.snapshot()
    }

    /// How often the adapter was opened anew.
    pub fn reopenings(&self) -> u64 {
        self.0.shared.reopenings.load(Relaxed)
    }

    /// Closes the adapter: its link goes down, its port ends. Blocks until the driver has returned all buffers, two seconds at most. Closing twice does
    /// no harm.
    pub fn close(&self) {
        self.0.close();
    }
}

/// Who keeps the adapter open; the pump's thread does not.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<(mpsc::Receiver<()>, JoinHandle<()>)>>,
}

impl Owner {
    fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((has_ended, thread)) = thread else { return };
        self.shared.close();
        if has_ended.recv_timeout(CLOSE_LIMIT) != Err(mpsc::RecvTimeoutError::Timeout) {
            // It has ended, or panicked, which the panic hook has told.
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

/// The frames of an adapter. Reading stops when it is dropped.
#[derive(Debug)]
pub struct WindowsTapPort {
    tap: WindowsTap,
}

impl WindowsTapPort {
    fn shared(&self) -> &Shared {
        &self.tap.0.shared
    }

    fn ended(&self) -> Option<PortError> {
        let shared = self.shared();
        if shared.closing.load(Acquire) {
            return Some(PortError::Closed);
        }
        shared.failure().map(|error| explain_open(&shared.path, error))
    }
}

impl Drop for WindowsTapPort {
    fn drop(&mut self) {
        let shared = self.shared();
        shared.reading.store(false, Release);
        shared.forget_frames();
    }
}

impl Port for WindowsTapPort {
    async fn recv(&self, batch: &mut FrameBatch) -> Result<(), PortError> {
        // A port that always has frames must not keep its runtime's other tasks from running.
        tokio::task::coop::consume_budget().await;
        let shared = self.shared();
        loop {
            if shared.take_frames(batch) > 0 {
                return Ok(());
            }
            if let Some(error) = self.ended() {
                return Err(error);
            }
            // A frame that comes between the look above and here leaves a permit: nothing is missed.
            shared.arrived.notified().await;
        }
    }

    fn send<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<SendOutcome, PortError> {
        if let Some(error) = self.ended() {
            return Err(error);
        }
        let (shared, mut outcome) = (self.shared(), SendOutcome::default());
        let counters = &shared.counters;
        for frame in frames {
            if frame.len() > MAX_WRITE {
                PortCounters::add(&counters.sent_too_long, 1);
                outcome.failed += 1;
            } else if frame.len() < MIN_FRAME_LEN {
                PortCounters::add(&counters.sent_failed, 1);
                outcome.failed += 1;
            } else if let Some(write) = shared.take_write(frame) {
                match shared.start(write) {
                    Ok(()) => outcome.accepted += 1,
                    Err((write, error)) => {
                        shared.give_back_write(write);
                        shared.count_refused_write(&error);
                        outcome.failed += 1;
                    }
                }
            } else {
                outcome.refused += 1;
            }
        }
        PortCounters::add(&counters.frames_sent, outcome.accepted);
        PortCounters::add(&counters.sent_queue_full, outcome.refused);
        Ok(outcome)
    }

    fn description(&self) -> String {
        format!("TAP-Windows6 {}", self.shared().path)
    }

    fn counters(&self) -> PortCountersSnapshot {
        self.shared().counters.snapshot()
    }
}
