//! One overlapped operation: the memory Windows works on while it is under way, and who owns that memory when.
//!
//! The rule of this module: an operation is a `Box` of ours, or it is under way and belongs to the system. [`Operation::start`] gives the
//! box away; [`Operation::finished`] gets it back from the completion packet, of which there is exactly one for every operation under way.
//! So no buffer can be freed, moved or touched while the driver may still write to it, however long it takes and whatever is closed
//! meanwhile.

use std::io;
use std::mem;
use std::sync::mpsc::SyncSender;

use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_MORE_DATA, HANDLE, RtlNtStatusToDosError};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{DeviceIoControl, OVERLAPPED, OVERLAPPED_ENTRY};

/// What an operation does.
#[derive(Debug)]
pub(super) enum Kind {
    /// Reads one frame into the buffer.
    Read,
    /// Writes the first `len` bytes of the buffer as one frame.
    Write {
        /// The frame's length in bytes.
        len: u32,
    },
    /// A request to the driver: the buffer is the question, `answer` takes the answer.
    Control {
        /// The request's code (`CTL_CODE`).
        code: u32,
        /// Room for the answer.
        answer: Vec<u8>,
        /// Who waits for the answer; `None`: the pump itself, after it has opened the adapter anew.
        asker: Option<SyncSender<io::Result<Vec<u8>>>>,
    },
}

/// An operation and its buffer.
#[repr(C)] // `overlapped` comes first: a pointer to it is a pointer to the operation.
pub(super) struct Operation {
    overlapped: OVERLAPPED,
    pub(super) kind: Kind,
    /// Which opening of the adapter it was started on.
    pub(super) opening: u64,
    /// Never resized while under way.
    pub(super) buffer: Vec<u8>,
}

// SAFETY: the raw pointers inside OVERLAPPED are only written by the system while the operation is under way, and then no thread of ours
// has the operation; at rest they are stale numbers nobody follows.
unsafe impl Send for Operation {}

/// How an operation ended: the bytes it moved, or the error.
pub(super) type Outcome = io::Result<usize>;

impl Operation {
    pub(super) fn new(kind: Kind, buffer: Vec<u8>) -> Box<Self> {
        // SAFETY: a plain old data structure, for which all zeros are valid and mean: no event, offset 0.
        let overlapped = unsafe { mem::zeroed() };
        Box::new(Self { overlapped, kind, opening: 0, buffer })
    }

    /// Starts the operation on `handle`, which is on opening number `opening`. `Ok`: it is under way, and its completion packet will
    /// come, be it done at once. `Err`: it is not, no packet will come, and the operation is back.
    ///
    /// `handle` must be open, be opened with FILE_FLAG_OVERLAPPED, and be tied to a completion port without
    /// FILE_SKIP_COMPLETION_PORT_ON_SUCCESS; hence `unsafe`.
    ///
    /// # Safety
    /// As said: on a handle that is set up otherwise, a packet might never come (a leak) or come for an operation that is back (a
    /// use after free).
    pub(super) unsafe fn start(
        mut self: Box<Self>,
        handle: HANDLE,
        opening: u64,
    ) -> Result<(), (Box<Self>, io::Error)> {
        self.opening = opening;
        // SAFETY: as in `new`. The system wants a fresh one each time.
        self.overlapped = unsafe { mem::zeroed() };
        let operation = Box::into_raw(self);
        // From here on only raw pointers: no reference of ours may say that the memory does not change.
        // SAFETY: `operation` was just leaked, so it is valid and nobody else's; reading the buffer's place and length happens before the
        // system learns of it. The buffers stay where they are until the packet comes, because `finished` alone makes a box again.
        let done = unsafe {
            let overlapped = &raw mut (*operation).overlapped;
            let buffer = &mut (*operation).buffer;
            let (data, size) = (buffer.as_mut_ptr(), u32::try_from(buffer.len()).unwrap_or(u32::MAX));
            match &mut (*operation).kind {
                Kind::Read => ReadFile(handle, data, size, std::ptr::null_mut(), overlapped),
                // The caller's `len` is checked against the buffer: the driver must not be told of bytes that are not there.
                Kind::Write { len } => {
                    WriteFile(handle, data, (*len).min(size), std::ptr::null_mut(), overlapped)
                }
                Kind::Control { code, answer, .. } => {
                    let room = u32::try_from(answer.len()).unwrap_or(u32::MAX);
                    let (code, answer) = (*code, answer.as_mut_ptr());
                    DeviceIoControl(
                        handle,
                        code,
                        data.cast(),
                        size,
                        answer.cast(),
                        room,
                        std::ptr::null_mut(),
                        overlapped,
                    )
                }
            }
        };
        if done != 0 {
            return Ok(()); // Done at once; the packet comes all the same.
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error().map(|code| code as u32) {
            // ERROR_MORE_DATA is a warning, for which the system sends a packet as for a success. Were it ever to send none, this would
            // be a leaked buffer; to take the operation back would risk a use after free.
            Some(ERROR_IO_PENDING | ERROR_MORE_DATA) => Ok(()),
            // SAFETY: the request failed outright, so there is no packet: `operation` is ours alone again, as it was leaked above.
            _ => Err((unsafe { Box::from_raw(operation) }, error)),
        }
    }

    /// Takes a finished operation out of its completion packet.
    ///
    /// # Safety
    /// `entry` must be the packet of an operation started with [`Operation::start`], and be given here once.
    pub(super) unsafe fn finished(entry: &OVERLAPPED_ENTRY) -> (Box<Self>, Outcome) {
        // SAFETY: the caller's promise; OVERLAPPED is the first field of the `repr(C)` operation, and the system is done with it.
        let operation = unsafe { Box::from_raw(entry.lpOverlapped.cast::<Self>()) };
        let status = operation.overlapped.Internal as i32;
        // NT_SUCCESS of ntdef.h: errors and warnings are negative.
        let outcome = if status >= 0 {
            Ok(entry.dwNumberOfBytesTransferred as usize)
        } else {
            // SAFETY: no pointers; the function knows every NTSTATUS, the unknown ones as ERROR_MR_MID_NOT_FOUND.
            Err(io::Error::from_raw_os_error(unsafe { RtlNtStatusToDosError(status) } as i32))
        };
        (operation, outcome)
    }
}
