//! Which of many sockets can be read: a thin layer over `epoll(7)`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Sockets by number.
#[derive(Debug)]
pub struct Poll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the kernel has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked below.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a file descriptor just opened, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 512] })
    }

    /// Watches `socket` under `number`.
    ///
    /// # Errors
    /// When it is watched already.
    pub fn add(&mut self, socket: &impl AsRawFd, number: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number as u64 };
        // SAFETY: both descriptors are open, and the event outlives the call.
        match unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event)
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Appends the numbers of readable sockets to `ready`, waiting at most `limit` (whole milliseconds) for the first.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn wait(&mut self, limit: Duration, ready: &mut Vec<usize>) -> io::Result<()> {
        let limit = limit.as_millis().min(10_000) as libc::c_int;
        let room = self.events.len() as libc::c_int;
        // SAFETY: the array has `room` elements for the kernel to write.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, limit) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        ready.extend(self.events[..count as usize].iter().map(|event| event.u64 as usize));
        Ok(())
    }
}
