//! Forwarding allocates nothing once the list of targets and the address table have their size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use softlan_switch::{Limits, Rate, Role, Settings, Switch, Verdict};
use softlan_wire::{Mac, PeerId};

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator unchanged; the count is a plain cell that itself needs no memory
// (const-initialized, no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, so from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn frame(source: Mac, destination: Mac, ethertype: [u8; 2], len: usize) -> Vec<u8> {
    let mut frame = [destination.bytes(), source.bytes()].concat();
    frame.extend(ethertype);
    frame.resize(len, 0);
    frame
}

#[test]
fn forwarding_allocates_nothing() {
    let peer = |id| PeerId::new(id).unwrap();
    let client = |id: u16| Mac::from_bytes([2, 0, 0, 0, 0, id as u8]);
    let station = |last| Mac::from_bytes([0, 0x11, 0x22, 0x33, 0x44, last]);
    let generous = Some(Rate::with_default_burst(1 << 40));
    let limits = Limits { total: generous, broadcast: generous, unknown: generous, storm: Some(1_000_000) };
    let mut switch = Switch::new(Settings::default());
    for id in 1..=16 {
        switch.plug(Duration::ZERO, peer(id), Role::Client(client(id)), limits).unwrap();
    }
    switch.plug(Duration::ZERO, peer(17), Role::Gateway, limits).unwrap();
    let ipv6 = [0x86, 0xdd];
    let frames = [
        (1, frame(client(1), client(2), [8, 0], 1400)),
        (1, frame(client(1), Mac::BROADCAST, [8, 6], 60)),
        (1, frame(client(1), station(9), ipv6, 60)),
        (17, frame(station(1), client(1), [8, 0], 1514)),
        (17, frame(station(1), Mac::BROADCAST, [8, 0], 1514)),
        (1, frame(client(2), Mac::BROADCAST, [8, 0], 60)),
        (1, frame(client(1), Mac::BROADCAST, [8, 0], 9000)),
        (18, frame(client(1), Mac::BROADCAST, [8, 0], 60)),
        // Broadcasts that come back, and a station that two peers show.
        (17, frame(client(1), Mac::BROADCAST, [8, 6], 60)),
        (2, frame(station(1), Mac::BROADCAST, [8, 0], 1514)),
        (2, frame(station(1), client(1), [8, 0], 60)),
    ];
    let mut targets = Vec::new();
    let mut pass = |seconds: u64| {
        frames.iter().fold(0, |forwarded, (from, bytes)| {
            let verdict = switch.forward(Duration::from_secs(seconds), peer(*from), bytes, &mut targets);
            forwarded + u32::from(!matches!(verdict, Verdict::Dropped(_)))
        })
    };
    assert_eq!(pass(0), 4);
    // The loop that the last ones make is told once, in the first few passes.
    pass(1);
    pass(2);
    let before = ALLOCATIONS.get();
    for seconds in 3..100 {
        pass(seconds);
    }
    assert_eq!(ALLOCATIONS.get(), before);
}
