//! A record of what was decided for each frame, or for some of them: bounded, cheap when off, read in batches. Headers only; whole
//! frames are kept while a [`Capture`] runs.

mod capture;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use softlan_switch::DropReason;
use softlan_wire::{EtherType, EthernetFrame, Mac, PeerId};
use tokio::sync::Notify;
use tokio::time::sleep;

pub use self::capture::{Capture, CaptureFilter, TooManyCaptures};
use self::capture::{Ring, Seen};

/// Which frames are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameLogMode {
    /// None.
    Off,
    /// Dropped ones.
    Drops,
    /// One in so many, of all kinds.
    Sampled(u32),
    /// All.
    Full,
}

/// What happened to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameAction {
    /// Sent on; the name says how: `unicast`, `broadcast`, `multicast`, `unknown`, `to-lan`, `to-relay`.
    Passed(&'static str),
    /// Dropped.
    Dropped(DropReason),
}

/// One frame and what was decided for it. Holds no payload.
#[derive(Debug, Clone)]
pub struct FrameRecord {
    /// Seconds since the Unix epoch.
    pub time: f64,
    /// The room's name, empty where there is only one.
    pub room: Arc<str>,
    /// The peer it came from or goes to.
    pub peer: Option<PeerId>,
    /// Source and destination MAC and the EtherType behind all tags; `None` for what is no Ethernet frame.
    pub addresses: Option<(Mac, Mac, EtherType)>,
    /// Bytes of the frame.
    pub length: usize,
    /// What happened.
    pub action: FrameAction,
    /// To how many peers it went.
    pub targets: usize,
}

/// Records kept until they are read.
const CAPACITY: usize = 8192;
/// Records are handed over this long after the first at the latest, so that a busy log wakes its reader seldom.
const GATHER: Duration = Duration::from_millis(50);

/// A bounded log of frames. When its reader is slow the newest records are lost, and counted.
#[derive(Debug)]
pub struct FrameLog {
    mode: FrameLogMode,
    seen: AtomicU32,
    records: Mutex<VecDeque<FrameRecord>>,
    lost: AtomicU64,
    filled: Notify,
    captures: Mutex<Vec<Arc<Ring>>>,
    /// What the captures want together: [`NOTHING`], [`DROPS`] or [`EVERYTHING`].
    captured: AtomicU8,
}

const NOTHING: u8 = 0;
const DROPS: u8 = 1;
const EVERYTHING: u8 = 2;

impl FrameLog {
    /// An empty log.
    pub fn new(mode: FrameLogMode) -> Self {
        Self {
            mode,
            seen: AtomicU32::new(0),
            records: Mutex::default(),
            lost: AtomicU64::new(0),
            filled: Notify::new(),
            captures: Mutex::default(),
            captured: AtomicU8::new(NOTHING),
        }
    }

    /// Whether a frame that was dropped or not is to be recorded. Two comparisons when there is neither log nor capture.
    #[inline]
    pub fn wants(&self, dropped: bool) -> bool {
        match self.mode {
            FrameLogMode::Off => self.is_captured(dropped),
            FrameLogMode::Drops => dropped || self.is_captured(dropped),
            FrameLogMode::Sampled(_) | FrameLogMode::Full => true,
        }
    }

    #[inline]
    fn is_captured(&self, dropped: bool) -> bool {
        match self.captured.load(Ordering::Relaxed) {
            NOTHING => false,
            DROPS => dropped,
            _ => true,
        }
    }

    /// Whether the log itself keeps this frame.
    fn keeps(&self, dropped: bool) -> bool {
        match self.mode {
            FrameLogMode::Off => false,
            FrameLogMode::Drops => dropped,
            FrameLogMode::Sampled(every) => {
                self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(every.max(1))
            }
            FrameLogMode::Full => true,
        }
    }

    /// Starts a capture beside the log: whole frames, whatever the log's mode.
    ///
    /// # Errors
    /// When too many run already.
    pub fn capture(self: &Arc<Self>, filter: CaptureFilter) -> Result<Capture, TooManyCaptures> {
        let mut captures = self.captures();
        let ring = Ring::new(filter, captures.len())?;
        captures.push(ring.clone());
        self.note_captured(&captures);
        Ok(Capture::new(self.clone(), ring))
    }

    fn end_capture(&self, ring: &Arc<Ring>) {
        let mut captures = self.captures();
        captures.retain(|other| !Arc::ptr_eq(other, ring));
        self.note_captured(&captures);
    }

    fn note_captured(&self, captures: &[Arc<Ring>]) {
        let wants = |ring: &Arc<Ring>| if ring.drops_only() { DROPS } else { EVERYTHING };
        let together = captures.iter().map(wants).max().unwrap_or(NOTHING);
        self.captured.store(together, Ordering::Relaxed);
    }

    fn captures(&self) -> MutexGuard<'_, Vec<Arc<Ring>>> {
        // Held for some copying at most. Nothing in there panics.
        self.captures.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records a frame; call it after [`wants`](Self::wants) agreed.
    #[cold]
    pub fn record(
        &self,
        room: &Arc<str>,
        peer: Option<PeerId>,
        frame: &[u8],
        action: FrameAction,
        targets: usize,
    ) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let dropped = matches!(action, FrameAction::Dropped(_));
        if self.is_captured(dropped) {
            for ring in self.captures().iter() {
                ring.take(Seen { time, room, peer, frame, action, targets });
            }
        }
        if !self.keeps(dropped) {
            return;
        }
        let time = time.as_secs_f64();
        let addresses =
            EthernetFrame::parse(frame).ok().map(|f| (f.source(), f.destination(), f.ethertype()));
        let record =
            FrameRecord { time, room: room.clone(), peer, addresses, length: frame.len(), action, targets };
        let mut records = self.records.lock().unwrap_or_else(|p| p.into_inner());
        if records.len() >= CAPACITY {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        records.push_back(record);
        if records.len() == 1 {
            self.filled.notify_one();
        }
    }

    /// Waits for records, and gives them with the number of those lost since the last call.
    pub async fn next_batch(&self) -> (Vec<FrameRecord>, u64) {
        loop {
            {
                let mut records = self.records.lock().unwrap_or_else(|p| p.into_inner());
                if !records.is_empty() {
                    return (records.drain(..).collect(), self.lost.swap(0, Ordering::Relaxed));
                }
            }
            self.filled.notified().await;
            sleep(GATHER).await;
        }
    }
}
