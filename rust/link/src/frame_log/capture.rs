//! Captures: whole frames with what was decided for them, gathered as bytes while somebody asked for them.
//!
//! A record is, little-endian: its size in bytes with everything (4), the frame's length (4), nanoseconds since the Unix epoch (8), the
//! peer or 0 (2), the number of targets (2), flags (1), the length of the room's name (1) and of the word that says what happened (1), a
//! zero; then the room's name, the word, and as much of the frame as is captured. A record with the flag [`LOST`] stands for as many
//! frames as its length says, which came faster than they were read. `softlan.observe.capture` reads this.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use softlan_wire::PeerId;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{FrameAction, FrameLog};

/// Bytes of a record before its texts.
const HEAD: usize = 24;
/// Bytes kept until they are read.
const CAPACITY: usize = 4 << 20;
/// Captures of one log at once.
const AT_ONCE: usize = 4;
/// As for the log: a busy capture wakes its reader seldom.
const GATHER: Duration = Duration::from_millis(50);
/// Flag: the frame was dropped.
const DROPPED: u8 = 1;
/// Flag: no frame, but how many were lost.
const LOST: u8 = 2;

/// Which frames are captured, and how much of each.
#[derive(Debug, Clone)]
pub struct CaptureFilter {
    /// Only this room's.
    pub room: Option<String>,
    /// Only dropped ones.
    pub drops_only: bool,
    /// Bytes of a frame at most.
    pub snaplen: usize,
}

/// No further capture: so many run.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{AT_ONCE} captures run already")]
pub struct TooManyCaptures;

/// One frame as a log sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub time: Duration,
    pub room: &'a str,
    pub peer: Option<PeerId>,
    pub frame: &'a [u8],
    pub action: FrameAction,
    pub targets: usize,
}

/// A running capture, until it is dropped or [closed](Self::close).
#[derive(Debug)]
pub struct Capture {
    log: Arc<FrameLog>,
    ring: Arc<Ring>,
}

impl Capture {
    pub(super) fn new(log: Arc<FrameLog>, ring: Arc<Ring>) -> Self {
        Self { log, ring }
    }

    /// Waits for records, and gives them one after the other; nothing once it is closed. One reader at a time.
    pub async fn next_batch(&self) -> Vec<u8> {
        loop {
            {
                let mut waiting = self.ring.waiting();
                if !waiting.records.is_empty() || waiting.closed {
                    return waiting.take();
                }
            }
            self.ring.filled.notified().await;
            sleep(GATHER).await;
        }
    }

    /// Ends it.
    pub fn close(&self) {
        self.log.end_capture(&self.ring);
        self.ring.waiting().closed = true;
        self.ring.filled.notify_one();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a capture has taken and its reader has not.
#[derive(Debug)]
pub(super) struct Ring {
    filter: CaptureFilter,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<u8>,
    lost: u32,
    closed: bool,
}

impl Ring {
    /// An empty one, unless `running` are too many.
    pub(super) fn new(filter: CaptureFilter, running: usize) -> Result<Arc<Self>, TooManyCaptures> {
        if running >= AT_ONCE {
            return Err(TooManyCaptures);
        }
        Ok(Arc::new(Self { filter, waiting: Mutex::default(), filled: Notify::new() }))
    }

    pub(super) fn drops_only(&self) -> bool {
        self.filter.drops_only
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a frame if it is one the capture is for and there is room.
    pub(super) fn take(&self, seen: Seen<'_>) {
        let dropped = matches!(seen.action, FrameAction::Dropped(_));
        if self.filter.drops_only && !dropped || self.filter.room.as_deref().is_some_and(|r| r != seen.room) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.closed {
            return;
        }
        let was_empty = waiting.records.is_empty();
        waiting.push(seen, self.filter.snaplen);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }
}

impl Waiting {
    fn push(&mut self, seen: Seen<'_>, snaplen: usize) {
        let (word, flags) = match seen.action {
            FrameAction::Passed(how) => (how, 0),
            FrameAction::Dropped(reason) => (reason.name(), DROPPED),
        };
        let data = &seen.frame[..seen.frame.len().min(snaplen)];
        // Rooms' names have 32 bytes at most, and the words are ours.
        let (Ok(room_len), Ok(word_len)) = (u8::try_from(seen.room.len()), u8::try_from(word.len())) else {
            return;
        };
        let size = HEAD + seen.room.len() + word.len() + data.len();
        if self.records.len() + size > CAPACITY {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.records.reserve(size);
        self.head(size, seen.frame.len() as u32, seen.time);
        self.records.extend(seen.peer.map_or(0, PeerId::value).to_le_bytes());
        self.records.extend(u16::try_from(seen.targets).unwrap_or(u16::MAX).to_le_bytes());
        self.records.extend([flags, room_len, word_len, 0]);
        self.records.extend(seen.room.as_bytes());
        self.records.extend(word.as_bytes());
        self.records.extend(data);
    }

    fn head(&mut self, size: usize, length: u32, time: Duration) {
        self.records.extend((size as u32).to_le_bytes());
        self.records.extend(length.to_le_bytes());
        self.records.extend((time.as_nanos() as u64).to_le_bytes());
    }

    fn take(&mut self) -> Vec<u8> {
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.head(HEAD, lost, Duration::ZERO);
            self.records.extend([0, 0, 0, 0, LOST, 0, 0, 0]);
        }
        std::mem::take(&mut self.records)
    }
}

#[cfg(test)]
mod tests {
    use softlan_switch::DropReason;

    use super::*;
    use crate::frame_log::FrameLogMode;

    const FRAME: [u8; 60] = [0x42; 60];

    fn filter() -> CaptureFilter {
        CaptureFilter { room: None, drops_only: false, snaplen: 1 << 16 }
    }

    fn log() -> Arc<FrameLog> {
        Arc::new(FrameLog::new(FrameLogMode::Off))
    }

    fn record(log: &FrameLog, room: &str, action: FrameAction) {
        if log.wants(matches!(action, FrameAction::Dropped(_))) {
            log.record(&room.into(), PeerId::new(7), &FRAME, action, 2);
        }
    }

    /// Size, frame length, peer, targets, flags, room, word, data of each record.
    fn read(mut bytes: &[u8]) -> Vec<(usize, u8, String, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let size = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
            let (record, rest) = bytes.split_at(size);
            let texts = HEAD + usize::from(record[21]) + usize::from(record[22]);
            let words = String::from_utf8(record[HEAD..texts].to_vec()).unwrap();
            found.push((length, record[20], words, record[texts..].to_vec()));
            bytes = rest;
        }
        found
    }

    #[tokio::test]
    async fn frames_are_kept_whole_with_their_fate() {
        let log = log();
        assert!(!log.wants(true));
        let capture = log.capture(filter()).unwrap();
        record(&log, "R", FrameAction::Passed("unicast"));
        record(&log, "R", FrameAction::Dropped(DropReason::QueueFull));
        let found = read(&capture.next_batch().await);
        let frame = FRAME.to_vec();
        assert_eq!(
            found,
            [(60, 0, "Runicast".into(), frame.clone()), (60, DROPPED, "Rqueue-full".into(), frame)]
        );
        drop(capture);
        assert!(!log.wants(true), "nothing is taken once the capture is gone");
    }

    #[tokio::test]
    async fn room_drops_and_length_narrow_it() {
        let log = log();
        let narrow = CaptureFilter { room: Some("A".into()), drops_only: true, snaplen: 14 };
        let capture = log.capture(narrow).unwrap();
        assert!(log.wants(true) && !log.wants(false));
        for (room, action) in [
            ("A", FrameAction::Passed("unicast")),
            ("B", FrameAction::Dropped(DropReason::Runt)),
            ("A", FrameAction::Dropped(DropReason::Jumbo)),
        ] {
            log.record(&room.into(), None, &FRAME, action, 0);
        }
        let found = read(&capture.next_batch().await);
        assert_eq!(found, [(60, DROPPED, "Ajumbo".into(), FRAME[..14].to_vec())]);
    }

    #[tokio::test]
    async fn what_is_not_read_in_time_is_counted() {
        let log = log();
        let capture = log.capture(filter()).unwrap();
        let fits = CAPACITY / (HEAD + 1 + 7 + 60);
        for _ in 0..fits + 3 {
            record(&log, "R", FrameAction::Passed("unicast"));
        }
        let found = read(&capture.next_batch().await);
        assert_eq!(found.len(), fits + 1);
        assert_eq!(found.last().map(|r| (r.0, r.1)), Some((3, LOST)));
    }

    #[tokio::test]
    async fn captures_end_and_are_few() {
        let log = log();
        let mut running: Vec<_> = (0..AT_ONCE).map(|_| log.capture(filter()).unwrap()).collect();
        assert!(log.capture(filter()).is_err());
        running[0].close();
        assert!(running[0].next_batch().await.is_empty());
        running.push(log.capture(filter()).unwrap());
        drop(running);
        assert!(!log.wants(false));
    }

    #[tokio::test]
    async fn a_capture_leaves_the_log_as_it_is() {
        let log = Arc::new(FrameLog::new(FrameLogMode::Drops));
        let capture = log.capture(filter()).unwrap();
        record(&log, "R", FrameAction::Passed("unicast"));
        record(&log, "R", FrameAction::Dropped(DropReason::Runt));
        assert_eq!(read(&capture.next_batch().await).len(), 2);
        let (records, lost) = log.next_batch().await;
        assert_eq!((records.len(), lost), (1, 0));
    }
}
