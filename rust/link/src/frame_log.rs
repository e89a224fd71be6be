//! A record of what was decided for each frame, or for some of them: bounded, cheap when off, read in batches.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use softlan_switch::DropReason;
use softlan_wire::{EtherType, EthernetFrame, Mac, PeerId};
use tokio::sync::Notify;
use tokio::time::sleep;

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
    pub room: std::sync::Arc<str>,
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
}

impl FrameLog {
    /// An empty log.
    pub fn new(mode: FrameLogMode) -> Self {
        Self {
            mode,
            seen: AtomicU32::new(0),
            records: Mutex::default(),
            lost: AtomicU64::new(0),
            filled: Notify::new(),
        }
    }

    /// Whether a frame that was dropped or not is to be recorded. One comparison when the log is off.
    #[inline]
    pub fn wants(&self, dropped: bool) -> bool {
        match self.mode {
            FrameLogMode::Off => false,
            FrameLogMode::Drops => dropped,
            FrameLogMode::Sampled(every) => {
                self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(every.max(1))
            }
            FrameLogMode::Full => true,
        }
    }

    /// Records a frame; call it after [`wants`](Self::wants) agreed.
    #[cold]
    pub fn record(
        &self,
        room: &std::sync::Arc<str>,
        peer: Option<PeerId>,
        frame: &[u8],
        action: FrameAction,
        targets: usize,
    ) {
        let addresses =
            EthernetFrame::parse(frame).ok().map(|f| (f.source(), f.destination(), f.ethertype()));
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
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
