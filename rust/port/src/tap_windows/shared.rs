//! What the pump's thread, the port and the one who asks the driver share: the open adapter, and the operations at rest.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_BAD_COMMAND, ERROR_DEVICE_NOT_CONNECTED, ERROR_DEVICE_REMOVED,
    ERROR_NOT_READY, ERROR_OPERATION_ABORTED,
};

use super::WindowsTapOptions;
use super::adapter::{Adapter, CompletionPort};
use super::operation::{Kind, Operation};
use crate::{FrameBatch, PortCounters};

/// Reads under way, and so frames the driver can hand over while we are busy. The driver keeps a few hundred more of its own.
const READS: usize = 64;
/// Writes under way at most: at a millisecond each, that is still 3 Gbit/s of full frames. Beyond it the queue counts as full.
const WRITES: usize = 256;
/// A frame of the system is at most 14 + 4 + 1500 bytes; a longer one is lost, and counted.
const READ_BUFFER: usize = 2048;

/// Everything shared. Lock order: `adapter` before `reads` or `writes`; nothing waits while it holds one of them.
pub(super) struct Shared {
    pub(super) path: String,
    pub(super) completions: CompletionPort,
    /// `None` while it is opened anew, and after the end. Operations start under the read lock, so that the handle cannot be closed, and its
    /// number given to another file, between the look and the call.
    adapter: RwLock<Option<Opened>>,
    reads: Mutex<Reads>,
    writes: Mutex<Writes>,
    /// Operations that belong to the system at the moment.
    pub(super) under_way: AtomicUsize,
    /// A bridge wants frames.
    pub(super) reading: AtomicBool,
    pub(super) closing: AtomicBool,
    /// Frames have come, or the port has failed.
    pub(super) arrived: Notify,
    /// Why which opening of the adapter refuses to read.
    trouble: Mutex<Option<(u64, io::Error)>>,
    failure: Mutex<Option<io::Error>>,
    pub(super) counters: PortCounters,
    pub(super) reopenings: AtomicU64,
    pub(super) options: WindowsTapOptions,
}

struct Opened {
    adapter: Adapter,
    /// Whether the driver has been told what it must know before it can be read from.
    readable: bool,
}

#[derive(Default)]
#[expect(
    clippy::vec_box,
    reason = "an operation's place in memory is its name for the system: it must not move"
)]
struct Reads {
    /// Finished, with the length of the frame in the buffer.
    ready: VecDeque<(Box<Operation>, usize)>,
    idle: Vec<Box<Operation>>,
    made: bool,
}

#[derive(Default)]
#[expect(clippy::vec_box, reason = "as in Reads")]
struct Writes {
    idle: Vec<Box<Operation>>,
    made: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.path)
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

/// What kind of no the driver, or Windows in its place, said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The adapter is down or away; it may come back.
    Down,
    /// This process, or this handle, may not.
    Privilege,
    /// Something else.
    Other,
}

impl Refusal {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(|code| code as u32) {
            Some(
                ERROR_OPERATION_ABORTED
                | ERROR_NOT_READY
                | ERROR_DEVICE_NOT_CONNECTED
                | ERROR_DEVICE_REMOVED
                | ERROR_BAD_COMMAND,
            ) => Self::Down,
            Some(ERROR_ACCESS_DENIED) => Self::Privilege,
            _ => Self::Other,
        }
    }
}

/// Locks are held for plain moves of boxes only: a panic cannot leave half a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        path: &str,
        completions: CompletionPort,
        adapter: Adapter,
        options: WindowsTapOptions,
    ) -> Self {
        Self {
            path: path.to_owned(),
            completions,
            adapter: RwLock::new(Some(Opened { adapter, readable: true })),
            reads: Mutex::default(),
            writes: Mutex::default(),
            under_way: AtomicUsize::new(0),
            reading: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            arrived: Notify::new(),
            trouble: Mutex::default(),
            failure: Mutex::default(),
            counters: PortCounters::default(),
            reopenings: AtomicU64::new(0),
            options,
        }
    }

    // The adapter -----------------------------------------------------------------------------------------------------

    /// Starts an operation; when it cannot be, it comes back with the reason.
    pub(super) fn start(&self, operation: Box<Operation>) -> Result<(), (Box<Operation>, io::Error)> {
        let opened = self.adapter.read().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(opened) => self.start_on(&opened.adapter, operation),
            None => Err((operation, io::Error::from_raw_os_error(ERROR_NOT_READY as i32))),
        }
    }

    fn start_on(
        &self,
        adapter: &Adapter,
        operation: Box<Operation>,
    ) -> Result<(), (Box<Operation>, io::Error)> {
        // Counted first: the pump may take the packet in before the call is back.
        self.under_way.fetch_add(1, AcqRel);
        adapter.start(operation).inspect_err(|_| {
            self.under_way.fetch_sub(1, AcqRel);
        })
    }

    /// The adapter is open again; reads wait for [`start_reads`](Self::start_reads) after [`resume`](Self::resume).
    pub(super) fn put_adapter(&self, adapter: Adapter) {
        let opened = Opened { adapter, readable: false };
        *self.adapter.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
    }

    /// The adapter can be read from again.
    pub(super) fn resume(&self) {
        if let Some(opened) = &mut *self.adapter.write().unwrap_or_else(PoisonError::into_inner) {
            opened.readable = true;
        }
        self.start_reads();
    }

    /// Closes the adapter if it is open; what is under way comes back by and by.
    pub(super) fn close_adapter(&self) {
        let taken = self.adapter.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(taken);
    }

    /// No frames will come or go any more.
    pub(super) fn fail(&self, error: io::Error) {
        lock(&self.failure).get_or_insert(error);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Why the port has failed, if it has.
    pub(super) fn failure(&self) -> Option<io::Error> {
        let failure = lock(&self.failure);
        let error = failure.as_ref()?;
        Some(match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        })
    }

    /// Tells the pump that the adapter refuses to read.
    fn report_trouble(&self, opening: u64, error: io::Error) {
        *lock(&self.trouble) = Some((opening, error));
        self.completions.wake();
    }

    /// What was told of opening number `opening`, once.
    pub(super) fn take_trouble(&self, opening: u64) -> Option<io::Error> {
        let (of, error) = lock(&self.trouble).take()?;
        (of == opening).then_some(error)
    }

    // Reads -----------------------------------------------------------------------------------------------------------

    /// Starts every read that is at rest; makes them the first time.
    pub(super) fn start_reads(&self) {
        let idle = {
            let mut reads = lock(&self.reads);
            if !reads.made {
                reads.made = true;
                reads.idle.extend((0..READS).map(|_| Operation::new(Kind::Read, vec![0; READ_BUFFER])));
            }
            std::mem::take(&mut reads.idle)
        };
        for read in idle {
            self.read_again(read);
        }
    }

    /// Starts a read, or puts it away until the adapter is there again.
    pub(super) fn read_again(&self, read: Box<Operation>) {
        let opened = self.adapter.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Opened { adapter, readable: true }) = &*opened else {
            // Put away while the adapter is locked: the `resume` that follows the next opening cannot miss it.
            return self.park_read(read);
        };
        if let Err((read, error)) = self.start_on(adapter, read) {
            self.park_read(read);
            self.report_trouble(adapter.number(), error);
        }
    }

    pub(super) fn park_read(&self, read: Box<Operation>) {
        lock(&self.reads).idle.push(read);
    }

    /// A frame has come.
    pub(super) fn hand_on(&self, read: Box<Operation>, len: usize) {
        lock(&self.reads).ready.push_back((read, len));
        self.arrived.notify_one();
    }

    /// Moves frames that have come into `batch` and has more read in their place. Gives their number.
    pub(super) fn take_frames(&self, batch: &mut FrameBatch) -> usize {
        let mut count = 0;
        while count < READS {
            let Some((read, len)) = lock(&self.reads).ready.pop_front() else { break };
            // The driver's word on the length is not above the buffer's own.
            if let Some(frame) = read.buffer.get(..len) {
                batch.push(frame);
                count += 1;
            }
            self.read_again(read);
        }
        PortCounters::add(&self.counters.frames_received, count);
        count
    }

    /// Forgets frames that nobody will take.
    pub(super) fn forget_frames(&self) {
        let mut reads = lock(&self.reads);
        let Reads { ready, idle, .. } = &mut *reads;
        idle.extend(ready.drain(..).map(|(read, _len)| read));
    }

    // Writes ----------------------------------------------------------------------------------------------------------

    /// A write at rest that carries `frame`; `None` when all are under way.
    pub(super) fn take_write(&self, frame: &[u8]) -> Option<Box<Operation>> {
        let mut write = {
            let mut writes = lock(&self.writes);
            match writes.idle.pop() {
                Some(write) => write,
                None if writes.made < WRITES => {
                    writes.made += 1;
                    Operation::new(Kind::Write { len: 0 }, Vec::with_capacity(READ_BUFFER))
                }
                None => return None,
            }
        };
        write.buffer.clear();
        write.buffer.extend_from_slice(frame);
        write.kind = Kind::Write { len: u32::try_from(frame.len()).unwrap_or(0) };
        Some(write)
    }

    pub(super) fn give_back_write(&self, write: Box<Operation>) {
        lock(&self.writes).idle.push(write);
    }

    /// Counts a frame that the driver refused, at once or later.
    pub(super) fn count_refused_write(&self, error: &io::Error) {
        let counters = &self.counters;
        let counter = match Refusal::of(error) {
            Refusal::Down => &counters.sent_interface_down,
            _ => &counters.sent_failed,
        };
        PortCounters::add(counter, 1);
    }

    // Life ------------------------------------------------------------------------------------------------------------

    /// Ends everything; the pump does the rest.
    pub(super) fn close(&self) {
        self.closing.store(true, Release);
        self.reading.store(false, Release);
        self.fail(io::Error::other("the adapter is closed"));
        self.completions.wake();
    }
}
