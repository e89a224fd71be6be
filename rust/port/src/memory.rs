//! A port without a machine: bounded channels of frames, for tests and for programs that bring their own frames.

use bytes::Bytes;
use tokio::sync::{
    Mutex,
    mpsc::{self, error::TrySendError},
};

use crate::{
    FrameBatch, MAX_FRAME_LEN, MIN_FRAME_LEN, Port, PortCounters, PortCountersSnapshot, PortError,
    SendOutcome,
};

/// Frames appended by one `recv` at most.
const FRAMES_A_CALL: usize = 64;

/// A port whose machine is the holder of a [`MemoryWire`].
#[derive(Debug)]
pub struct MemoryPort {
    outgoing: mpsc::Sender<Bytes>,
    incoming: Mutex<mpsc::Receiver<Bytes>>,
    counters: PortCounters,
}

/// The other end of a [`MemoryPort`].
#[derive(Debug)]
pub struct MemoryWire {
    /// Frames for the port to receive.
    pub to_port: mpsc::Sender<Bytes>,
    /// Frames the port was given to send.
    pub from_port: mpsc::Receiver<Bytes>,
}

impl MemoryPort {
    /// A port and its other end; each direction holds at most `capacity` frames (at least 1).
    pub fn new(capacity: usize) -> (Self, MemoryWire) {
        let (to_port, incoming) = mpsc::channel(capacity.max(1));
        let (outgoing, from_port) = mpsc::channel(capacity.max(1));
        (Self::over(outgoing, incoming), MemoryWire { to_port, from_port })
    }

    /// Two ports, each the other's machine; each direction holds at most `capacity` frames (at least 1).
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (to_left, left) = mpsc::channel(capacity.max(1));
        let (to_right, right) = mpsc::channel(capacity.max(1));
        (Self::over(to_right, left), Self::over(to_left, right))
    }

    fn over(outgoing: mpsc::Sender<Bytes>, incoming: mpsc::Receiver<Bytes>) -> Self {
        Self { outgoing, incoming: Mutex::new(incoming), counters: PortCounters::default() }
    }

    fn take(&self, frame: &[u8], batch: &mut FrameBatch) {
        if frame.len() < MIN_FRAME_LEN {
            PortCounters::add(&self.counters.received_runt, 1);
        } else if frame.len() > MAX_FRAME_LEN {
            PortCounters::add(&self.counters.received_too_long, 1);
        } else {
            batch.push(frame);
            PortCounters::add(&self.counters.frames_received, 1);
        }
    }
}

impl Port for MemoryPort {
    async fn recv(&self, batch: &mut FrameBatch) -> Result<(), PortError> {
        let before = batch.len();
        let mut incoming = self.incoming.lock().await;
        while batch.len() == before {
            let frame = incoming.recv().await.ok_or(PortError::Closed)?;
            self.take(&frame, batch);
            for _ in 1..FRAMES_A_CALL {
                let Ok(frame) = incoming.try_recv() else { break };
                self.take(&frame, batch);
            }
        }
        Ok(())
    }

    fn send<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<SendOutcome, PortError> {
        let mut outcome = SendOutcome::default();
        for frame in frames {
            if frame.len() < MIN_FRAME_LEN || frame.len() > MAX_FRAME_LEN {
                outcome.failed += 1;
                continue;
            }
            match self.outgoing.try_reserve() {
                Ok(place) => {
                    place.send(Bytes::copy_from_slice(frame));
                    outcome.accepted += 1;
                }
                Err(TrySendError::Full(())) => outcome.refused += 1,
                Err(TrySendError::Closed(())) => return Err(PortError::Closed),
            }
        }
        PortCounters::add(&self.counters.frames_sent, outcome.accepted);
        PortCounters::add(&self.counters.sent_queue_full, outcome.refused);
        PortCounters::add(&self.counters.sent_failed, outcome.failed);
        Ok(outcome)
    }

    fn description(&self) -> String {
        "memory".to_owned()
    }

    fn counters(&self) -> PortCountersSnapshot {
        self.counters.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 60] = [0x42; 60];

    #[tokio::test]
    async fn a_pair_carries_frames_both_ways() {
        let (left, right) = MemoryPort::pair(4);
        let mut batch = FrameBatch::new(4);
        for (from, to) in [(&left, &right), (&right, &left)] {
            let outcome = from.send([FRAME.as_slice(), &FRAME[..14]]).unwrap();
            assert_eq!(outcome, SendOutcome { accepted: 2, refused: 0, failed: 0 });
            to.recv(&mut batch).await.unwrap();
            assert_eq!(batch.frames().collect::<Vec<_>>(), [FRAME.as_slice(), &FRAME[..14]]);
            batch.clear();
        }
    }

    #[tokio::test]
    async fn full_and_misshapen_frames_are_told_apart() {
        let (port, wire) = MemoryPort::new(2);
        let long = [0; MAX_FRAME_LEN + 1];
        let outcome = port.send([FRAME.as_slice(), &FRAME[..13], &long, &FRAME, &FRAME]).unwrap();
        assert_eq!(outcome, SendOutcome { accepted: 2, refused: 1, failed: 2 });
        for frame in [Bytes::from_static(b"runt"), Bytes::from_static(&FRAME)] {
            wire.to_port.send(frame).await.unwrap();
        }
        let mut batch = FrameBatch::new(0);
        port.recv(&mut batch).await.unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(port.counters().received_runt, 1);
    }

    #[tokio::test]
    async fn a_closed_end_is_an_error() {
        let (port, wire) = MemoryPort::new(2);
        drop(wire);
        assert!(matches!(port.send([FRAME.as_slice()]), Err(PortError::Closed)));
        assert!(matches!(port.recv(&mut FrameBatch::new(0)).await, Err(PortError::Closed)));
    }
}
