//! A steady load of UDP datagrams, and the other end that counts what arrives of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::udp::{part, wake_on_time};

/// Datagrams a system call, both ways: the load must cost little beside what it measures.
const BATCH: usize = 16;
const SINK_BATCH: usize = 64;
/// The sink's queue: what is lost shall be lost on the way.
const QUEUE_BYTES: libc::c_int = 16 << 20;
/// After this long without any the load is over.
const SILENCE: Duration = Duration::from_millis(250);

/// Sends datagrams of `bytes` at `rate` a second for `seconds`, evenly but for batches of 16, and prints how many. A full
/// queue makes it wait, and what it could not send in time it does not send later.
pub fn load(to: SocketAddrV4, bytes: usize, rate: f64, seconds: f64) -> Outcome {
    wake_on_time();
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let payload = vec![0x5a_u8; bytes];
    let mut piece = part(&payload);
    // SAFETY: a mmsghdr of zeros is a valid one.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_iov = &raw mut piece;
        message.msg_hdr.msg_iovlen = 1;
    }
    let period = Duration::from_secs_f64(BATCH as f64 / rate);
    let (start, length) = (Instant::now(), Duration::from_secs_f64(seconds));
    let (mut sent, mut next) = (0_u64, start);
    while start.elapsed() < length {
        // SAFETY: the messages point to `piece`, it to `payload`; all outlive the call.
        let count =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as libc::c_uint, 0) };
        if count > 0 {
            sent += count as u64;
        }
        next += period;
        let now = Instant::now();
        if next > now {
            thread::sleep(next - now);
        } else if now - next > Duration::from_millis(5) {
            next = now;
        }
    }
    println!("{sent} {:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Counts datagrams until none came for a while after the first, or for `seconds` at most, and prints how many.
pub fn sink(listen: SocketAddrV4, seconds: f64) -> Outcome {
    let socket = UdpSocket::bind(listen)?;
    let queue: libc::c_int = QUEUE_BYTES;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value outlives the call and has the length told; a refusal leaves a smaller queue.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const queue).cast(),
            len,
        )
    };
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut room = [0_u8; 64];
    let mut piece = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: a mmsghdr of zeros is a valid one.
    let mut messages: [libc::mmsghdr; SINK_BATCH] = unsafe { std::mem::zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_iov = &raw mut piece;
        message.msg_hdr.msg_iovlen = 1;
    }
    println!("ready");
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut came, mut last) = (0_u64, None::<Instant>);
    while Instant::now() < end && last.is_none_or(|last| last.elapsed() < SILENCE) {
        // SAFETY: the messages point to `piece`, it to `room`; all outlive the call. Their contents are not read.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                SINK_BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        if count > 0 {
            came += count as u64;
            last = Some(Instant::now());
        } else {
            let error = io::Error::last_os_error();
            if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                return Err(error.into());
            }
        }
    }
    println!("{came}");
    Ok(())
}
