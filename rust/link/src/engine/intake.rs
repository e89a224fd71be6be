//! What comes from the socket, cut into single packets in memory of their own.

use std::io::{self, IoSliceMut};

use bytes::BytesMut;
use quinn_udp::RecvMeta;

use crate::udp::UdpIo;

/// Buffers of one system call. More of them would not fit a core's second-level cache.
const BUFFERS: usize = 8;
/// A buffer that takes a burst joined by the kernel (UDP_GRO): a whole IP packet.
const BURST_BUFFER: usize = 64 * 1024;
/// A buffer for a single packet. QUIC packets of ours are at most 1472 bytes, but peers may search higher. Longer ones, which come in IP fragments, are dropped:
/// a small datagram in them would hold on to all of it.
const PACKET_BUFFER: usize = 9 * 1024;
/// Packets are copied into arenas of this size, which are used again when nothing of them is left. Whatever waits of a packet, a datagram in a queue or
/// a piece of a stream, keeps its arena alive: who sends little and has it wait must not hold much.
const ARENA: usize = 8 * 1024;
/// Packets below this many bytes get memory of their own for that reason. QUIC reckons with a packet's bytes for what it holds of a stream.
const SMALL: usize = 1024;

/// The buffers of an endpoint's loop.
#[derive(Debug)]
pub(super) struct Intake {
    buffers: Box<[u8]>,
    buffer_len: usize,
    meta: [RecvMeta; BUFFERS],
    filled: usize,
    arena: BytesMut,
}

impl Intake {
    pub(super) fn new(socket: &UdpIo) -> Self {
        let buffer_len = if socket.packets_a_buffer() > 1 { BURST_BUFFER } else { PACKET_BUFFER };
        Self {
            buffers: vec![0; buffer_len * BUFFERS].into_boxed_slice(),
            buffer_len,
            meta: [RecvMeta::default(); BUFFERS],
            filled: 0,
            arena: BytesMut::new(),
        }
    }

    /// Reads the socket once; whether all buffers were filled, so that there may be more.
    ///
    /// # Errors
    /// As [`UdpIo::receive`].
    pub(super) fn read(&mut self, socket: &UdpIo) -> io::Result<bool> {
        self.filled = 0;
        let mut chunks = self.buffers.chunks_exact_mut(self.buffer_len);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.filled = socket.receive(&mut slices, &mut self.meta)?;
        Ok(self.filled == BUFFERS)
    }

    /// Gives each packet that was read to `take`.
    pub(super) fn each(&mut self, mut take: impl FnMut(&RecvMeta, BytesMut)) {
        for (meta, buffer) in self.meta[..self.filled].iter().zip(self.buffers.chunks_exact(self.buffer_len))
        {
            let burst = &buffer[..meta.len.min(buffer.len())];
            for packet in burst.chunks(meta.stride.max(1)) {
                if packet.len() > PACKET_BUFFER {
                    continue;
                }
                if packet.len() < SMALL {
                    take(meta, BytesMut::from(packet));
                    continue;
                }
                if self.arena.capacity() < packet.len() {
                    // Takes the old allocation back when no packet of it is left. Nothing is copied: the arena is empty here.
                    self.arena.reserve(packet.len().max(ARENA));
                }
                self.arena.extend_from_slice(packet);
                take(meta, self.arena.split());
            }
        }
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of packets of these lengths, each of which came alone.
    fn given<const N: usize>(lens: [usize; N]) -> (Intake, Vec<BytesMut>) {
        let mut intake = Intake {
            buffers: vec![7; BUFFERS * BURST_BUFFER].into_boxed_slice(),
            buffer_len: BURST_BUFFER,
            meta: [RecvMeta::default(); BUFFERS],
            filled: N,
            arena: BytesMut::new(),
        };
        for (meta, len) in intake.meta.iter_mut().zip(lens) {
            (meta.len, meta.stride) = (len, len);
        }
        let mut kept = Vec::new();
        intake.each(|_, packet| kept.push(packet));
        (intake, kept)
    }

    #[test]
    fn no_packet_is_longer_than_a_small_part_of_it_may_hold() {
        let (_, kept) = given([PACKET_BUFFER + 1, PACKET_BUFFER, BURST_BUFFER]);
        assert_eq!(kept.iter().map(|packet| packet.len()).collect::<Vec<_>>(), [PACKET_BUFFER]);
    }

    #[test]
    fn a_small_packet_that_is_kept_keeps_no_more_than_itself() {
        let (intake, kept) = given([SMALL - 1, SMALL]);
        let lens: Vec<_> = kept.iter().map(|packet| packet.len()).collect();
        assert_eq!(lens, [SMALL - 1, SMALL]);
        // The large one is cut from the arena, the small one is not.
        assert_eq!(intake.arena.capacity(), ARENA - SMALL);
    }
}
