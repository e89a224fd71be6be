//! Writing frames to AF_PACKET in batches, consecutive TCP segments as super-frames.

use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
};

use libc::{c_uint, iovec, mmsghdr};

use crate::{
    MAX_FRAME_LEN, MIN_FRAME_LEN, PortCounters, SendOutcome,
    offload::{
        join::{Joiner, MAX_PARTS, Message},
        taken::Taken,
        vnet::VNET_HEADER_LEN,
    },
};

/// Messages of one system call.
const MESSAGES: usize = 16;
/// Slices of one system call that still leave room for a whole message.
const SLICES: usize = 128;

/// What a call met.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub outcome: SendOutcome,
    /// A frame was longer than the interface's MTU allows.
    pub too_long: bool,
    /// The interface is down.
    pub down: bool,
    /// The interface may have been removed.
    pub gone: bool,
}

/// Sends `frames`; those longer than `max_frame` bytes, and kinds the kernel has not `taken`, are not joined.
pub(super) fn send<'a>(
    fd: &OwnedFd,
    frames: impl IntoIterator<Item = &'a [u8]>,
    max_frame: usize,
    taken: &Taken,
    counters: &PortCounters,
) -> Sent {
    let mut sent = Sent::default();
    let mut joiner = Joiner::new(frames, max_frame, taken.kinds());
    let mut messages: Vec<Message> = Vec::with_capacity(MESSAGES);
    let mut parts: Vec<&[u8]> = Vec::with_capacity(SLICES + MAX_PARTS);
    loop {
        let message = joiner.next(&mut parts);
        let last = message.is_none();
        if let Some(message) = message {
            let misshapen = message.header_len == 0
                && parts.last().is_none_or(|frame| !(MIN_FRAME_LEN..=MAX_FRAME_LEN).contains(&frame.len()));
            if misshapen {
                parts.pop();
                sent.outcome.failed += message.frames;
                PortCounters::add(&counters.sent_failed, message.frames);
            } else {
                messages.push(message);
            }
        }
        if last || messages.len() == MESSAGES || parts.len() >= SLICES {
            flush(fd, &messages, &parts, taken, &mut sent, counters);
            messages.clear();
            parts.clear();
        }
        if last {
            return sent;
        }
    }
}

fn flush(
    fd: &OwnedFd,
    messages: &[Message],
    parts: &[&[u8]],
    taken: &Taken,
    sent: &mut Sent,
    counters: &PortCounters,
) {
    let mut vnets = [[0_u8; VNET_HEADER_LEN]; MESSAGES];
    for (vnet, message) in vnets.iter_mut().zip(messages) {
        *vnet = message.vnet.encode();
    }
    let slice = |bytes: &[u8]| iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut slices: Vec<iovec> = Vec::with_capacity(parts.len() + 2 * messages.len());
    // SAFETY: plain old data structures, for which all zeros are valid.
    let mut headers: [mmsghdr; MESSAGES] = unsafe { mem::zeroed() };
    let mut ends = [0; MESSAGES];
    let mut rest = parts;
    for ((message, vnet), end) in messages.iter().zip(&vnets).zip(&mut ends) {
        slices.push(slice(vnet));
        if message.header_len > 0 {
            slices.push(slice(message.headers()));
        }
        let (own, others) = rest.split_at(message.parts);
        slices.extend(own.iter().map(|part| slice(part)));
        rest = others;
        *end = slices.len();
    }
    let mut start = 0;
    for (header, end) in headers.iter_mut().zip(ends).take(messages.len()) {
        let own = &mut slices[start..end];
        header.msg_hdr.msg_iov = own.as_mut_ptr();
        header.msg_hdr.msg_iovlen = own.len() as _;
        start = end;
    }

    let mut done = 0;
    // The message that met an EINVAL and is sent once more: the kernel keeps an error of receiving, behind frames that were received,
    // for the socket's next call (`sock_error`), whichever that is, and forgets it then.
    let mut again = None;
    while done < messages.len() {
        let left = &mut headers[done..messages.len()];
        // SAFETY: every pointer in `left` is into `slices`, whose elements point to `vnets`, `messages` and the
        // frames; all outlive the call, and sending does not write through them.
        let count = unsafe {
            libc::sendmmsg(fd.as_raw_fd(), left.as_mut_ptr(), left.len() as c_uint, libc::MSG_DONTWAIT as _)
        };
        let error = (count <= 0).then(io::Error::last_os_error);
        let number = error.as_ref().and_then(io::Error::raw_os_error);
        if number == Some(libc::EINTR) {
            continue;
        }
        if number == Some(libc::EINVAL) && again != Some(done) {
            again = Some(done);
            continue;
        }
        if again == Some(done) && number != Some(libc::EINVAL) {
            // It was a super-frame's that `receive` could not have, and none of this message's.
            PortCounters::add(&counters.received_malformed, 1);
        }
        let Some(error) = error else {
            for message in &messages[done..done + count as usize] {
                sent.outcome.accepted += message.frames;
                PortCounters::add(&counters.frames_sent, message.frames);
                PortCounters::add(&counters.super_frames_sent, usize::from(message.header_len > 0));
            }
            done += count as usize;
            continue;
        };
        // The first of the rest was refused; the others get their own chance.
        refuse(&error, &messages[done], taken, sent, counters);
        done += 1;
    }
}

fn refuse(error: &io::Error, message: &Message, taken: &Taken, sent: &mut Sent, counters: &PortCounters) {
    let frames = message.frames;
    let counter = match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
            sent.outcome.refused += frames;
            return PortCounters::add(&counters.sent_queue_full, frames);
        }
        Some(libc::EMSGSIZE) => {
            sent.too_long = true;
            &counters.sent_too_long
        }
        Some(libc::ENETDOWN) => {
            sent.down = true;
            &counters.sent_interface_down
        }
        Some(libc::ENXIO | libc::ENODEV) => {
            sent.gone = true;
            &counters.sent_failed
        }
        number => {
            if number == Some(libc::EINVAL) {
                taken.refused(message);
            }
            &counters.sent_failed
        }
    };
    sent.outcome.failed += frames;
    PortCounters::add(counter, frames);
}
