//! Reading frames from AF_PACKET in batches, tags put back and super-frames split.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use libc::{c_int, c_uint, iovec, mmsghdr, sockaddr_ll};

use super::auxdata::{CONTROL_LEN, Control, vlan_tag};
use crate::{
    FrameBatch, PortCounters, PortError,
    counters::count_split_error,
    offload::{
        split::split,
        vnet::{Gso, VNET_HEADER_LEN, VnetHeader},
    },
};

/// Bytes in front of a frame where its VLAN tag goes, should it have one.
const TAG_ROOM: usize = 4;

/// One buffer: a super-frame of 64 KiB of IP packet, Ethernet header and tags; longer ones are cut and the kernel says so.
const BUFFER: usize = TAG_ROOM + 65536 + 64;

/// Frames of one system call while frames are small.
const MANY: usize = 32;
/// Frames of one system call while super-frames come: 256 KiB at most.
const FEW: usize = 4;
/// Mean size in bytes, above which frames count as super-frames.
const LARGE: usize = 4096;

/// What one call of [`Receiver::receive`] met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Frames, or something that was dropped; there may be more.
    Some,
    /// The queue is empty.
    Nothing,
    /// The interface went down, or away.
    Down,
}

/// Receive buffers, made once.
#[derive(Debug)]
pub(super) struct Receiver {
    buffers: Box<[u8]>,
    at_once: usize,
}

impl Receiver {
    pub fn new() -> Self {
        // Zeroed memory of this size is not touched until frames are written to it.
        Self { buffers: vec![0; MANY * BUFFER].into_boxed_slice(), at_once: MANY }
    }

    /// One system call: appends what is there to `batch`.
    pub fn receive(
        &mut self,
        fd: &OwnedFd,
        batch: &mut FrameBatch,
        counters: &PortCounters,
    ) -> Result<Received, PortError> {
        let mut vnets = [[0_u8; VNET_HEADER_LEN]; MANY];
        let mut controls = [Control([0; CONTROL_LEN]); MANY];
        // SAFETY: plain old data structures, for which all zeros are valid.
        let mut addresses: [sockaddr_ll; MANY] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [mmsghdr; MANY] = unsafe { mem::zeroed() };
        let mut slices = [[iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 2]; MANY];
        for (index, buffer) in self.buffers.chunks_exact_mut(BUFFER).enumerate().take(self.at_once) {
            let room = &mut buffer[TAG_ROOM..];
            slices[index] = [
                iovec { iov_base: vnets[index].as_mut_ptr().cast(), iov_len: VNET_HEADER_LEN },
                iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() },
            ];
            let header = &mut messages[index].msg_hdr;
            header.msg_name = ptr::from_mut(&mut addresses[index]).cast();
            header.msg_namelen = size_of::<sockaddr_ll>() as _;
            header.msg_iov = slices[index].as_mut_ptr();
            header.msg_iovlen = 2;
            header.msg_control = controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: every pointer in `messages` is to an array above or to `self.buffers`, with its length; all outlive
        // the call, and nothing reads them through other names before it returns.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                self.at_once as c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN) => Ok(Received::Nothing),
                Some(libc::EINTR) => Ok(Received::Some),
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Ok(Received::Down),
                // A super-frame for which this kernel has no virtio_net_hdr (virtio_net_hdr_from_skb): it is lost.
                Some(libc::EINVAL) => {
                    PortCounters::add(&counters.received_malformed, 1);
                    Ok(Received::Some)
                }
                _ => Err(PortError::io("receive from the packet socket", error)),
            };
        }
        let count = count as usize;
        let mut bytes = 0;
        for (index, buffer) in self.buffers.chunks_exact_mut(BUFFER).enumerate().take(count) {
            let message = &messages[index];
            bytes += message.msg_len as usize;
            if addresses[index].sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            let cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC as c_int != 0;
            let Some(len) = (message.msg_len as usize).checked_sub(VNET_HEADER_LEN).filter(|_| !cut) else {
                PortCounters::add(&counters.received_too_long, 1);
                continue;
            };
            let tag = vlan_tag(&message.msg_hdr);
            take(&vnets[index], tag, &mut buffer[..TAG_ROOM + len], batch, counters);
        }
        self.at_once = if bytes > count * LARGE { FEW } else { MANY };
        Ok(Received::Some)
    }
}

/// Appends one frame of the kernel's, which begins [`TAG_ROOM`] bytes into `buffer`.
fn take(
    vnet: &[u8; VNET_HEADER_LEN],
    tag: Option<[u8; 4]>,
    buffer: &mut [u8],
    batch: &mut FrameBatch,
    counters: &PortCounters,
) {
    let mut vnet = VnetHeader::decode(vnet);
    let frame = match tag {
        // Both addresses move forward and the tag goes behind them, where IEEE 802.1Q has it.
        Some(tag) if buffer.len() >= TAG_ROOM + 12 => {
            buffer.copy_within(TAG_ROOM..TAG_ROOM + 12, 0);
            buffer[12..16].copy_from_slice(&tag);
            if let Some(partial) = &mut vnet.partial {
                partial.start = partial.start.saturating_add(TAG_ROOM as u16);
            }
            buffer
        }
        _ => &mut buffer[TAG_ROOM..],
    };
    match split(&vnet, frame, batch) {
        Ok(frames) => {
            PortCounters::add(&counters.frames_received, frames);
            PortCounters::add(&counters.super_frames_received, usize::from(vnet.gso != Gso::None));
        }
        Err(error) => count_split_error(counters, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_behind_the_addresses_and_moves_the_checksum() {
        let mut buffer = vec![0_u8; TAG_ROOM];
        buffer.extend(1..=12); // addresses
        buffer.extend([0x08, 0x00]);
        buffer.extend([0x10; 40]);
        let vnet = VnetHeader {
            partial: Some(crate::offload::vnet::PartialChecksum { start: 34, offset: 16 }),
            ..VnetHeader::default()
        };
        let mut batch = FrameBatch::new(0);
        take(&vnet.encode(), Some([0x81, 0, 0, 5]), &mut buffer, &mut batch, &PortCounters::default());
        let frame = batch.frames().next().unwrap();
        assert_eq!(frame[..18], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x81, 0, 0, 5, 0x08, 0x00]);
        assert_eq!(frame.len(), 58);
        let changed: Vec<_> = (18..58).filter(|at| frame[*at] != 0x10).collect();
        assert_eq!(changed, [54, 55]);
    }

    #[test]
    fn a_tag_on_a_runt_is_harmless() {
        let counters = PortCounters::default();
        let mut batch = FrameBatch::new(0);
        take(&[0; 10], Some([0x81, 0, 0, 5]), &mut [0; TAG_ROOM + 5], &mut batch, &counters);
        assert_eq!(counters.snapshot().received_runt, 1);
    }
}
