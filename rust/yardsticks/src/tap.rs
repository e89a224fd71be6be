//! A plain TAP without any offload: one frame a read and a write, finished by the kernel (`linux/if_tun.h`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// The adapter; it disappears when this is dropped.
#[derive(Debug)]
pub struct PlainTap {
    file: File,
}

impl PlainTap {
    /// Creates the adapter `name`, down, with the kernel's own settings.
    ///
    /// # Errors
    /// What the kernel said; `InvalidInput` for a name that does not fit.
    pub fn create(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        // SAFETY: an ifreq of zeros is a valid one.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface name is too long"));
        }
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file })
    }

    /// Reads one frame; `None` when there is none now.
    ///
    /// # Errors
    /// When no more frames can come. An adapter that is down has none.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands one frame to the machine; one it does not take is lost, as on a wire.
    pub fn send(&self, frame: &[u8]) {
        let _ = (&self.file).write(frame);
    }
}

impl AsRawFd for PlainTap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
