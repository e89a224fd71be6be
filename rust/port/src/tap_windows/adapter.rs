//! The adapter's device and the completion port all its operations report to.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::null_mut;
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_BAD_PATHNAME, ERROR_BUSY, ERROR_FILE_NOT_FOUND, ERROR_GEN_FAILURE,
    ERROR_INVALID_NAME, ERROR_PATH_NOT_FOUND, ERROR_SHARING_VIOLATION, GENERIC_READ, GENERIC_WRITE,
    INVALID_HANDLE_VALUE, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_ATTRIBUTE_SYSTEM, FILE_FLAG_OVERLAPPED, OPEN_EXISTING,
};
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED_ENTRY,
    PostQueuedCompletionStatus,
};

use super::operation::{Operation, Outcome};
use crate::PortError;

/// The key of packets that are an operation's.
const KEY_OPERATION: usize = 1;
/// The key of packets that only wake the waiter up.
const KEY_WAKE: usize = 2;
/// Packets taken at a time.
const PACKETS: usize = 64;

/// The queue in which finished operations arrive.
#[derive(Debug)]
pub(super) struct CompletionPort(OwnedHandle);

impl CompletionPort {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: documented to make a port without a file when given INVALID_HANDLE_VALUE; the result is checked.
        let handle = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, null_mut(), 0, 1) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a handle just made, owned by nobody else.
        Ok(Self(unsafe { OwnedHandle::from_raw_handle(handle) }))
    }

    /// Makes a [`wait`](Self::wait) that is under way, or the next one, return at once.
    pub(super) fn wake(&self) {
        // SAFETY: the port is open; a packet without an operation is allowed, and `wait` tells it by its key. It fails only when the
        // system has no memory: the waiter then notices at its next timeout.
        unsafe { PostQueuedCompletionStatus(self.0.as_raw_handle(), 0, KEY_WAKE, std::ptr::null()) };
    }

    /// Waits until operations have finished, `limit` at most, and gives each to `take`, in the order they finished.
    pub(super) fn wait(
        &self,
        limit: Duration,
        mut take: impl FnMut(Box<Operation>, Outcome),
    ) -> io::Result<()> {
        let mut entries = [OVERLAPPED_ENTRY::default(); PACKETS];
        let mut count = 0;
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX - 1);
        // SAFETY: the port is open; `entries` has room for PACKETS packets and outlives the call.
        let waited = unsafe {
            GetQueuedCompletionStatusEx(
                self.0.as_raw_handle(),
                entries.as_mut_ptr(),
                PACKETS as u32,
                &raw mut count,
                milliseconds,
                0,
            )
        };
        if waited == 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(WAIT_TIMEOUT as i32) { Ok(()) } else { Err(error) };
        }
        for entry in entries.iter().take(count as usize) {
            if entry.lpCompletionKey == KEY_OPERATION && !entry.lpOverlapped.is_null() {
                // SAFETY: only handles of `Adapter` have this key, all their operations come from `Operation::start`, and every packet is
                // taken out of the port, and so given here, once.
                let (operation, outcome) = unsafe { Operation::finished(entry) };
                take(operation, outcome);
            }
        }
        Ok(())
    }
}

/// An open adapter. Closing it makes the driver return what is under way.
#[derive(Debug)]
pub(super) struct Adapter {
    handle: OwnedHandle,
    number: u64,
}

impl Adapter {
    /// Opens the device at `path` for this process alone, as opening number `number`; its operations report to `port`.
    pub(super) fn open(path: &str, port: &CompletionPort, number: u64) -> io::Result<Self> {
        let mut wide: Vec<u16> = path.encode_utf16().collect();
        if wide.contains(&0) {
            return Err(io::Error::from_raw_os_error(ERROR_INVALID_NAME as i32));
        }
        wide.push(0);
        // SAFETY: `wide` ends with a zero and outlives the call; no other pointers; the result is checked.
        let handle = unsafe {
            CreateFileW(
                wide.as_ptr(),
                GENERIC_READ | GENERIC_WRITE,
                0,
                std::ptr::null(),
                OPEN_EXISTING,
                FILE_ATTRIBUTE_SYSTEM | FILE_FLAG_OVERLAPPED,
                null_mut(),
            )
        };
        if handle == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a handle just opened, owned by nobody else.
        let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
        // SAFETY: both handles are open; the call returns the port's handle again, or null.
        let tied = unsafe {
            CreateIoCompletionPort(handle.as_raw_handle(), port.0.as_raw_handle(), KEY_OPERATION, 0)
        };
        if tied.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { handle, number })
    }

    /// Which opening this is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Starts an operation; when it cannot be, it comes back with the reason.
    pub(super) fn start(&self, operation: Box<Operation>) -> Result<(), (Box<Operation>, io::Error)> {
        // SAFETY: `open` made the handle as `start` wants it: overlapped, tied to a port, no skipping of packets. It is open as long as
        // `self` is.
        unsafe { operation.start(self.handle.as_raw_handle(), self.number) }
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // Closing alone would do for a driver that looks after its files; cancelling first is kinder to one that does not.
        // SAFETY: the handle is open; a null OVERLAPPED means all operations of the handle.
        unsafe { CancelIoEx(self.handle.as_raw_handle(), std::ptr::null()) };
    }
}

/// What an error of opening means to a person.
pub(super) fn explain_open(path: &str, error: io::Error) -> PortError {
    let path = path.to_owned();
    match error.raw_os_error().map(|code| code as u32) {
        Some(ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND | ERROR_BAD_PATHNAME | ERROR_INVALID_NAME) => {
            PortError::AdapterMissing { path }
        }
        // The driver fails a second open with STATUS_UNSUCCESSFUL, which is ERROR_GEN_FAILURE.
        Some(ERROR_GEN_FAILURE | ERROR_SHARING_VIOLATION | ERROR_BUSY) => PortError::AdapterBusy { path },
        Some(ERROR_ACCESS_DENIED) => PortError::NoPrivilege { action: "open the TAP adapter" },
        _ => PortError::Io { action: "open the TAP adapter", source: error },
    }
}
