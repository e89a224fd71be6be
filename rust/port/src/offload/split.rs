//! Makes the frames a super-frame stands for, with their own lengths, sequence numbers and checksums.

use super::{
    checksum::{Sum, finish_partial},
    headers::{Ip, Layout, TCP, UDP, word},
    vnet::{Gso, VnetHeader},
};
use crate::{FrameBatch, MAX_FRAME_LEN, MIN_FRAME_LEN};

/// Frames one super-frame may become. 64 KiB in segments of 48 bytes, below the least a Linux TCP sends
/// (`TCP_MIN_SND_MSS`), are 1366.
pub const MAX_SEGMENTS: usize = 2048;

const FIN_AND_PSH: u8 = 0x01 | 0x08;
const CWR: u8 = 0x80;

/// Why what the kernel gave is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Shorter than an Ethernet header.
    #[error("frame shorter than an Ethernet header")]
    Runt,
    /// The frame, or a segment of it, is longer than the overlay's longest frame.
    #[error("frame longer than {MAX_FRAME_LEN} bytes")]
    TooLong,
    /// A partial checksum's field lies outside of the frame.
    #[error("checksum field outside of the frame")]
    ChecksumPlace,
    /// The super-frame is of a kind nobody asked the kernel for.
    #[error("super-frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The headers are not those of the announced kind, or are cut short.
    #[error("headers do not match the announced kind")]
    Headers,
    /// Segments of zero bytes, or more than [`MAX_SEGMENTS`].
    #[error("segment size out of range")]
    SegmentSize,
}

/// Appends the frame, or the frames it stands for, to `batch` and says how many. `frame` is changed (checksums).
/// Frames are complete afterwards: no partial checksum is left. After an error nothing has been appended.
///
/// # Errors
/// See [`SplitError`]; whatever `vnet` and `frame` hold, nothing worse happens.
pub fn split(vnet: &VnetHeader, frame: &mut [u8], batch: &mut FrameBatch) -> Result<usize, SplitError> {
    if frame.len() < MIN_FRAME_LEN {
        return Err(SplitError::Runt);
    }
    match vnet.gso {
        Gso::None => whole(vnet, frame, batch),
        Gso::Tcp4 => tcp(Ip::V4, vnet, frame, batch),
        Gso::Tcp6 => tcp(Ip::V6, vnet, frame, batch),
        Gso::Udp => udp(vnet, frame, batch),
        Gso::Unknown(kind) => Err(SplitError::UnknownKind(kind)),
    }
}

fn whole(vnet: &VnetHeader, frame: &mut [u8], batch: &mut FrameBatch) -> Result<usize, SplitError> {
    if frame.len() > MAX_FRAME_LEN {
        return Err(SplitError::TooLong);
    }
    if let Some(partial) = vnet.partial
        && !finish_partial(frame, partial.start.into(), partial.offset.into())
    {
        return Err(SplitError::ChecksumPlace);
    }
    batch.push(frame);
    Ok(1)
}

/// What both transports share: where headers end, how the payload is cut.
struct Cut<'a> {
    layout: Layout,
    headers: &'a [u8],
    payload: &'a [u8],
    size: usize,
    segments: usize,
}

impl<'a> Cut<'a> {
    fn new(layout: Layout, header_len: usize, gso_size: u16, frame: &'a [u8]) -> Result<Self, SplitError> {
        let end = layout.end(frame).ok_or(SplitError::Headers)?;
        let payload = frame.get(header_len..end).ok_or(SplitError::Headers)?;
        let size = usize::from(gso_size);
        if size == 0 {
            return Err(SplitError::SegmentSize);
        }
        let segments = payload.len().div_ceil(size).max(1);
        if segments > MAX_SEGMENTS {
            return Err(SplitError::SegmentSize);
        }
        if header_len + size.min(payload.len()) > MAX_FRAME_LEN {
            return Err(SplitError::TooLong);
        }
        Ok(Self { layout, headers: &frame[..header_len], payload, size, segments })
    }

    /// Appends segment `index` with its IP header right; returns it for the transport's changes.
    fn push<'b>(&self, index: usize, batch: &'b mut FrameBatch) -> &'b mut [u8] {
        let from = index * self.size;
        let part = &self.payload[from..self.payload.len().min(from + self.size)];
        let segment = batch.push_slices(&[self.headers, part]);
        let network = self.layout.network;
        match self.layout.ip {
            Ip::V4 => {
                let total = (segment.len() - network) as u16;
                let id = u16::from_be_bytes([segment[network + 4], segment[network + 5]]);
                // Segmentation counts the identification up, as inet_gso_segment in the Linux kernel does.
                let id = id.wrapping_add(index as u16);
                segment[network + 2..network + 4].copy_from_slice(&total.to_be_bytes());
                segment[network + 4..network + 6].copy_from_slice(&id.to_be_bytes());
                segment[network + 10..network + 12].fill(0);
                let checksum = Sum::of(&segment[network..self.layout.transport]).checksum();
                segment[network + 10..network + 12].copy_from_slice(&checksum);
            }
            Ip::V6 => {
                let payload = (segment.len() - network - 40) as u16;
                segment[network + 4..network + 6].copy_from_slice(&payload.to_be_bytes());
            }
        }
        segment
    }

    /// The transport checksum of a segment whose checksum field is zero, not yet folded.
    fn sum(&self, segment: &[u8]) -> Sum {
        let transport = &segment[self.layout.transport..];
        Sum::pseudo_header(self.layout.addresses(segment), self.layout.protocol, transport.len())
            .plus(Sum::of(transport))
    }
}

fn tcp(ip: Ip, vnet: &VnetHeader, frame: &[u8], batch: &mut FrameBatch) -> Result<usize, SplitError> {
    let layout = Layout::of(frame).filter(|layout| layout.ip == ip && layout.protocol == TCP);
    let layout = layout.ok_or(SplitError::Headers)?;
    let at = layout.transport;
    let header = frame.get(at..at + 20).ok_or(SplitError::Headers)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 {
        return Err(SplitError::Headers);
    }
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let cut = Cut::new(layout, at + header_len, vnet.gso_size, frame)?;
    for index in 0..cut.segments {
        let segment = cut.push(index, batch);
        let sequence = sequence.wrapping_add((index * cut.size) as u32);
        segment[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
        if index + 1 < cut.segments {
            segment[at + 13] &= !FIN_AND_PSH;
        }
        if index > 0 {
            segment[at + 13] &= !CWR;
        }
        segment[at + 16..at + 18].fill(0);
        let checksum = cut.sum(segment).checksum();
        segment[at + 16..at + 18].copy_from_slice(&checksum);
    }
    Ok(cut.segments)
}

fn udp(vnet: &VnetHeader, frame: &[u8], batch: &mut FrameBatch) -> Result<usize, SplitError> {
    let layout = Layout::of(frame).filter(|layout| layout.protocol == UDP).ok_or(SplitError::Headers)?;
    let at = layout.transport;
    // RFC 768: a sender that makes no checksum sends zero, and then none is made for the parts either.
    let without_checksum = word(frame, at + 6).ok_or(SplitError::Headers)? == 0 && vnet.partial.is_none();
    let cut = Cut::new(layout, at + 8, vnet.gso_size, frame)?;
    for index in 0..cut.segments {
        let segment = cut.push(index, batch);
        let len = (segment.len() - at) as u16;
        segment[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
        if !without_checksum {
            segment[at + 6..at + 8].fill(0);
            let checksum = cut.sum(segment).checksum_not_zero();
            segment[at + 6..at + 8].copy_from_slice(&checksum);
        }
    }
    Ok(cut.segments)
}
