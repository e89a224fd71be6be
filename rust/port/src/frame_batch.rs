//! A batch of frames on their way from a port to the tunnel, each with room in front for a header.

use bytes::{BufMut, BytesMut};

/// Bytes of one arena: a super-frame's worth. A frame that waits in a queue keeps its whole arena alive, so larger
/// arenas would make a queue of small frames expensive.
const ARENA: usize = 64 * 1024;

/// Frames in the order they came, each preceded by `headroom` zero bytes in one shared allocation.
///
/// A frame is copied once, into the arena; [`FrameBatch::drain`] hands out slices of it. When all frames of an arena
/// have been dropped, its memory is used again.
#[derive(Debug)]
pub struct FrameBatch {
    headroom: usize,
    /// Always empty between calls: what was written has been split off into `frames`.
    arena: BytesMut,
    frames: Vec<BytesMut>,
    bytes: usize,
}

impl FrameBatch {
    /// An empty batch whose frames get `headroom` bytes in front.
    pub fn new(headroom: usize) -> Self {
        Self { headroom, arena: BytesMut::new(), frames: Vec::new(), bytes: 0 }
    }

    /// Bytes in front of every frame.
    pub fn headroom(&self) -> usize {
        self.headroom
    }

    /// Appends a copy of `frame`; returns the copy for changes in place.
    pub fn push(&mut self, frame: &[u8]) -> &mut [u8] {
        self.push_slices(&[frame])
    }

    /// Appends one frame made of `parts`, in order; returns it (without headroom) for changes in place.
    pub fn push_slices(&mut self, parts: &[&[u8]]) -> &mut [u8] {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let need = self.headroom + len;
        if self.arena.capacity() < need {
            // Takes the old allocation back when no frame of it is left; otherwise a new one. Nothing is copied: the
            // arena is empty here.
            self.arena.reserve(need.max(ARENA));
        }
        self.arena.put_bytes(0, self.headroom);
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        self.bytes += len;
        let index = self.frames.len();
        self.frames.push(self.arena.split());
        &mut self.frames[index][self.headroom..]
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes of all frames, headroom not counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The frames, without headroom.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.frames.iter().map(|frame| &frame[self.headroom..])
    }

    /// Takes all frames out, first come first, each with its headroom. The batch is empty afterwards, also when the
    /// iterator is dropped early.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = BytesMut> + '_ {
        self.bytes = 0;
        self.frames.drain(..)
    }

    /// Drops all frames.
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_order_with_headroom() {
        let mut batch = FrameBatch::new(8);
        batch.push(b"first");
        batch.push_slices(&[b"sec", b"", b"ond"])[0] = b'S';
        assert_eq!((batch.len(), batch.bytes()), (2, 11));
        assert_eq!(batch.frames().collect::<Vec<_>>(), [b"first".as_slice(), b"Second"]);
        let frames: Vec<_> = batch.drain().collect();
        assert_eq!(frames[0], b"\0\0\0\0\0\0\0\0first".as_slice());
        assert_eq!(frames[1], b"\0\0\0\0\0\0\0\0Second".as_slice());
        assert!(batch.is_empty());
        assert_eq!(batch.bytes(), 0);
    }

    #[test]
    fn headroom_is_zero_in_memory_used_again() {
        let mut batch = FrameBatch::new(4);
        for _ in 0..100 {
            let frame = batch.push(&[0xff; 1500]);
            assert_eq!(frame.len(), 1500);
            for mut frame in batch.drain() {
                assert_eq!(frame[..4], [0; 4]);
                frame.fill(0xee);
            }
        }
    }

    #[test]
    fn arena_is_used_again_when_frames_are_gone() {
        let mut batch = FrameBatch::new(0);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            seen.insert(batch.push(&[1; 9000]).as_ptr() as usize);
            batch.clear();
        }
        // Seven frames fit one arena: without reuse there would be about as many addresses as frames.
        assert!(seen.len() < 50, "{} addresses", seen.len());
    }

    #[test]
    fn frames_kept_survive_what_follows() {
        let mut batch = FrameBatch::new(2);
        let mut kept = Vec::new();
        for round in 0..200_u8 {
            batch.push(&[round; 1000]);
            kept.extend(batch.drain());
        }
        for (round, frame) in kept.iter().enumerate() {
            assert!(frame[2..].iter().all(|byte| usize::from(*byte) == round));
        }
    }

    #[test]
    fn frame_longer_than_an_arena() {
        let mut batch = FrameBatch::new(8);
        assert_eq!(batch.push(&vec![7; 3 * ARENA]).len(), 3 * ARENA);
    }
}
