//! What a check costs beside what it says: it keeps no memory and takes no time to speak of, whatever its input.
//!
//! libFuzzer looks for leaks only with a sanitizer, and calls a hang what takes ten seconds. Here every allocation of a thread is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The longest that any input may take of the processor's time. The slowest known (20,000 datagrams through a queue) takes a fifteenth.
pub const LIMIT: Duration = Duration::from_secs(1);

/// The system's allocator, counting the bytes that each thread has in use.
struct Counting;

thread_local! {
    /// Wraps where a thread frees what another allocated.
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

fn add(bytes: usize) {
    IN_USE.set(IN_USE.get().wrapping_add(bytes));
}

fn subtract(bytes: usize) {
    IN_USE.set(IN_USE.get().wrapping_sub(bytes));
}

// SAFETY: every call goes on to the system's allocator unchanged; the count is a plain cell that itself needs no memory
// (const-initialized, no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        subtract(layout.size());
        add(size);
        // SAFETY: `pointer` came from here, so from the system's allocator, with this layout; the rest is the caller's contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: `pointer` came from here, so from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a check, and panics where it keeps memory or is slow.
///
/// Neither is believed the first time: something may have been made once and for all, and by the clock a check takes as long as whatever the machine
/// did meanwhile. So it runs once more, and then by the processor's time.
pub fn hold(check: fn(&[u8]), data: &[u8]) {
    let begun = Instant::now();
    let kept = kept(check, data);
    if kept != 0 {
        assert_eq!(self::kept(check, data), 0, "bytes kept for each input like this");
    }
    if begun.elapsed() > LIMIT {
        let before = processor_time();
        check(data);
        let taken = processor_time() - before;
        assert!(taken <= LIMIT, "{} bytes take {taken:?}", data.len());
    }
}

/// Bytes that are in use after the check and were not before.
fn kept(check: fn(&[u8]), data: &[u8]) -> isize {
    let before = IN_USE.get();
    check(data);
    IN_USE.get().wrapping_sub(before).cast_signed()
}

/// The processor's time that this thread has had.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`, to which the pointer points for its length.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(code, 0, "this system does not count a thread's time");
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
