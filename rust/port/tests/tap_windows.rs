//! A TAP-Windows6 adapter's frames and requests, against the stand-in driver (`tests/windows/standin/tapdriver`), which Wine loads.
//!
//! Each test has an adapter to itself while it runs. The other end of its wire is a UDP socket of the test's.
#![cfg(windows)]
#![allow(clippy::unwrap_used)] // A test that cannot go on should say where.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use softlan_port::{
    FrameBatch, MAX_WRITE, Port, PortError, SendOutcome, WindowsTap, WindowsTapOptions, WindowsTapPort,
};
use tokio::time::{sleep, timeout};

const GET_MAC: u32 = 0x22_0004;
const GET_VERSION: u32 = 0x22_0008;
const GET_MTU: u32 = 0x22_000c;
const SET_MEDIA_STATUS: u32 = 0x22_0018;
const CONNECTED: [u8; 4] = 1_u32.to_le_bytes();
const PATIENCE: Duration = Duration::from_secs(20);

/// An adapter of the stand-in, and the other end of its wire.
struct Adapter {
    index: usize,
    wire: UdpSocket,
    commands: UdpSocket,
    _alone: MutexGuard<'static, ()>,
}

impl Adapter {
    fn take() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let base: u16 = std::env::var("SOFTLAN_STANDIN_PORT").map_or(47600, |port| port.parse().unwrap());
        let wire = UdpSocket::bind(("127.0.0.1", base + 2)).unwrap();
        wire.connect(("127.0.0.1", base + 1)).unwrap();
        wire.set_read_timeout(Some(PATIENCE)).unwrap();
        let commands = UdpSocket::bind("127.0.0.1:0").unwrap();
        commands.connect(("127.0.0.1", base)).unwrap();
        commands.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let adapter = Self { index: 0, wire, commands, _alone: alone };
        // What a test that failed has left.
        for word in ["release", "back"] {
            adapter.command(word);
        }
        let started = Instant::now();
        while adapter.counts()["owned"] > 0 {
            assert!(started.elapsed() < PATIENCE, "another has the adapter");
            thread::sleep(Duration::from_millis(10));
        }
        adapter
    }

    fn path(&self) -> String {
        r"\\.\Global\{5F7A0001-50F7-4A1A-9A00-000000000001}.tap".to_owned()
    }

    /// Tells the driver something and gives its answer. The first command of a prefix may come before the driver does: it is said again.
    fn command(&self, word: &str) -> String {
        let mut answer = [0; 256];
        for _ in 0..PATIENCE.as_secs() {
            self.commands.send(format!("{word} {}", self.index).as_bytes()).unwrap();
            if let Ok(len) = self.commands.recv(&mut answer) {
                return String::from_utf8(answer[..len].to_vec()).unwrap();
            }
        }
        panic!("the stand-in driver does not answer: is it installed in this Wine prefix?");
    }

    fn counts(&self) -> HashMap<String, u64> {
        let answer = self.command("count");
        let pairs = answer.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    async fn until(&self, what: &str, value: u64) {
        let started = Instant::now();
        while self.counts()[what] != value {
            assert!(started.elapsed() < PATIENCE, "{what} is not {value}: {:?}", self.counts());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn open(&self) -> WindowsTap {
        self.open_for(WindowsTapOptions::default().reopen_limit)
    }

    fn open_for(&self, reopen_limit: Duration) -> WindowsTap {
        let on_reopen = Some((SET_MEDIA_STATUS, CONNECTED.to_vec()));
        let options = WindowsTapOptions { on_reopen, reopen_limit };
        let tap = WindowsTap::open(&self.path(), options).unwrap();
        tap.ioctl(SET_MEDIA_STATUS, &CONNECTED, 4).unwrap();
        tap
    }

    fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 4096];
        let len = self.wire.recv(&mut frame).unwrap();
        frame.truncate(len);
        frame
    }
}

/// A frame of `len` bytes that says its number, and is filled with something that depends on it.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; len];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0xff, 0x5e, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    if len >= 18 {
        frame[14..18].copy_from_slice(&number.to_be_bytes());
    }
    frame
}

fn length(number: u32) -> usize {
    60 + (number as usize * 37) % (1514 - 60)
}

async fn receive(port: &WindowsTapPort, count: usize) -> Vec<Vec<u8>> {
    let mut batch = FrameBatch::new(4);
    timeout(PATIENCE, async {
        while batch.len() < count {
            port.recv(&mut batch).await.unwrap();
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} of {count} frames: {:?}", batch.len(), port.counters()));
    batch.frames().map(<[u8]>::to_vec).collect()
}

/// Sends one frame again and again until it comes out at the other end: the way back from trouble.
async fn until_a_frame_passes(adapter: &Adapter, port: &WindowsTapPort) {
    let mark = frame(0xdead_beef, 200);
    let started = Instant::now();
    let mut batch = FrameBatch::new(0);
    loop {
        assert!(
            started.elapsed() < PATIENCE,
            "no frame passes: {:?} {:?}",
            port.counters(),
            adapter.counts()
        );
        adapter.wire.send(&mark).unwrap();
        if let Ok(received) = timeout(Duration::from_millis(100), port.recv(&mut batch)).await {
            received.unwrap();
            if batch.frames().any(|frame| frame == mark) {
                return;
            }
        }
    }
}

#[test]
fn the_driver_answers_requests() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    assert_eq!(tap.ioctl(GET_MAC, &[0; 6], 6).unwrap(), [2, 0xff, 0x5e, 0, 0, 1]);
    assert_eq!(tap.ioctl(GET_MTU, &[0; 4], 4).unwrap(), 1500_u32.to_le_bytes());
    let version = tap.ioctl(GET_VERSION, &[0; 12], 12).unwrap();
    assert_eq!(version, [9_u32, 27, 0].map(u32::to_le_bytes).concat());
    assert_eq!(tap.ioctl(SET_MEDIA_STATUS, &0_u32.to_le_bytes(), 4).unwrap(), 0_u32.to_le_bytes());
    assert_eq!(adapter.counts()["media"], 0);
}

#[test]
fn what_the_driver_refuses_is_an_error_with_its_code() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let unknown = tap.ioctl(0x22_0ffc, &[], 4).unwrap_err();
    assert_eq!(unknown.kind(), "io");
    assert!(unknown.to_string().contains("os error 1"), "{unknown}"); // ERROR_INVALID_FUNCTION
    let small = tap.ioctl(GET_VERSION, &[], 3).unwrap_err();
    assert!(small.to_string().contains("os error"), "{small}");
}

#[test]
fn an_adapter_that_is_not_there() {
    for path in [r"\\.\Global\{00000000-0000-0000-0000-000000000000}.tap", "nul\0inside"] {
        let error = WindowsTap::open(path, WindowsTapOptions::default()).unwrap_err();
        assert_eq!(error.kind(), "adapter-missing", "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn one_port_at_a_time_and_none_after_closing() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    assert_eq!(tap.port().unwrap_err().kind(), "adapter-busy");
    drop(port);
    let port = tap.port().unwrap();
    tap.close();
    tap.close();
    assert_eq!(port.send([frame(0, 60).as_slice()]).unwrap_err().kind(), "closed");
    assert_eq!(tap.port().unwrap_err().kind(), "closed");
    assert_eq!(tap.ioctl(GET_MAC, &[], 6).unwrap_err().kind(), "closed");
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order() {
    const FRAMES: u32 = 3000;
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    adapter.until("pending", 64).await;
    let started = Instant::now();
    let mut number = 0;
    while number < FRAMES {
        let some = number..(number + 50).min(FRAMES);
        for n in some.clone() {
            adapter.wire.send(&frame(n, length(n))).unwrap();
        }
        for (n, got) in some.clone().zip(receive(&port, some.len()).await) {
            assert_eq!(got, frame(n, length(n)));
        }
        number = some.end;
    }
    println!("received {FRAMES} frames in {:?}", started.elapsed());
    assert_eq!(port.counters().frames_received, u64::from(FRAMES));
    assert_eq!(tap.reopenings(), 0);
}

#[tokio::test]
async fn frames_leave_whole_and_in_order() {
    const FRAMES: u32 = 3000;
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    let started = Instant::now();
    let mut number = 0;
    while number < FRAMES {
        let some = number..(number + 50).min(FRAMES);
        let frames: Vec<_> = some.clone().map(|n| frame(n, length(n))).collect();
        let outcome = port.send(frames.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(outcome, SendOutcome { accepted: frames.len(), ..SendOutcome::default() });
        for frame in frames {
            assert_eq!(adapter.receive(), frame);
        }
        number = some.end;
    }
    println!("sent {FRAMES} frames in {:?}", started.elapsed());
    assert_eq!(port.counters().frames_sent, u64::from(FRAMES));
}

#[tokio::test]
async fn writes_that_last_stay_under_way_up_to_a_bound() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    adapter.command("hold");
    // Short ones, and read meanwhile: the socket's buffer hardly holds what is under way.
    let frames: Vec<_> = (0..300).map(|n| frame(n, 60)).collect();
    let received = thread::scope(|scope| {
        let reader = scope.spawn(|| (0..256).map(|_| adapter.receive()).collect::<Vec<_>>());
        let outcome = port.send(frames.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(outcome, SendOutcome { accepted: 256, refused: 44, failed: 0 });
        reader.join().unwrap()
    });
    assert_eq!(received, frames[..256]);
    adapter.until("held", 256).await;
    // Requests go on meanwhile.
    assert_eq!(tap.ioctl(GET_MAC, &[], 6).unwrap().len(), 6);
    adapter.command("release");
    let started = Instant::now();
    while port.send([frames[256].as_slice()]).unwrap().accepted == 0 {
        assert!(started.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(adapter.receive(), frames[256]);
    assert!(port.counters().sent_queue_full >= 44);
}

#[tokio::test]
async fn lengths_the_driver_must_not_see() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    let (longest, too_long, huge) = (frame(1, MAX_WRITE), frame(2, MAX_WRITE + 1), frame(3, 9216));
    let frames = [&longest[..], &too_long, &huge, &longest[..13], &[], &longest[..14]];
    let outcome = port.send(frames).unwrap();
    assert_eq!(outcome, SendOutcome { accepted: 2, refused: 0, failed: 4 });
    assert_eq!(adapter.receive(), longest);
    assert_eq!(adapter.receive().len(), 60); // the driver pads
    let counters = port.counters();
    assert_eq!((counters.sent_too_long, counters.sent_failed), (2, 2));
    assert!(adapter.counts()["longest"] <= MAX_WRITE as u64);
}

#[tokio::test]
async fn a_frame_that_is_too_long_or_too_short_to_read_is_counted_and_no_more() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    adapter.until("pending", 64).await;
    for len in [3000, 13, 60] {
        adapter.wire.send(&frame(7, 3000)[..len]).unwrap();
    }
    assert_eq!(receive(&port, 1).await, [frame(7, 3000)[..60].to_vec()]);
    let counters = port.counters();
    assert_eq!((counters.received_too_long, counters.received_runt), (1, 1));
    adapter.until("pending", 64).await;
    assert_eq!(tap.reopenings(), 0);
}

#[tokio::test]
async fn no_frame_is_lost_when_a_receive_is_given_up() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    adapter.until("pending", 64).await;
    let mut batch = FrameBatch::new(0);
    for number in 0..200 {
        // Ends before, while or after the frame comes.
        let limit = Duration::from_micros(u64::from(number % 20) * 100);
        adapter.wire.send(&frame(number, 100)).unwrap();
        let _ = timeout(limit, port.recv(&mut batch)).await;
    }
    let rest = 200 - batch.len();
    let mut got: Vec<_> = batch.frames().map(<[u8]>::to_vec).collect();
    if rest > 0 {
        got.extend(receive(&port, rest).await);
    }
    assert_eq!(got, (0..200).map(|n| frame(n, 100)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_power_change_is_survived() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    adapter.until("pending", 64).await;
    for round in 1..=3 {
        adapter.command("power");
        until_a_frame_passes(&adapter, &port).await;
        assert_eq!(tap.reopenings(), round);
        adapter.until("pending", 64).await;
        let out = frame(round as u32, 100);
        assert_eq!(port.send([out.as_slice()]).unwrap().accepted, 1);
        assert_eq!(adapter.receive(), out);
    }
}

#[tokio::test]
async fn power_changes_under_traffic() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whatever comes in at the other end, so that its socket never is what stops the driver.
        scope.spawn(|| {
            adapter.wire.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut frame = [0; 4096];
            while !done.load(Relaxed) {
                let _ = adapter.wire.recv(&mut frame);
            }
        });
        scope.spawn(|| {
            while !done.load(Relaxed) {
                adapter.wire.send(&frame(1, 300)).unwrap();
                port.send([frame(2, 900).as_slice()]).unwrap();
                let _ = tap.ioctl(GET_MTU, &[], 4);
            }
        });
        for _ in 0..6 {
            thread::sleep(Duration::from_millis(150));
            adapter.command("power");
        }
        done.store(true, Relaxed);
    });
    adapter.wire.set_read_timeout(Some(PATIENCE)).unwrap();
    until_a_frame_passes(&adapter, &port).await;
    // No read was forgotten on the way.
    adapter.until("pending", 64).await;
    assert!(tap.reopenings() > 0);
}

#[tokio::test]
async fn an_adapter_that_goes_away_and_comes_back() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    adapter.until("pending", 64).await;
    adapter.command("away");
    adapter.until("pending", 0).await;
    let started = Instant::now();
    while port.send([frame(0, 100).as_slice()]).unwrap().accepted > 0 {
        assert!(started.elapsed() < PATIENCE);
    }
    sleep(Duration::from_millis(500)).await;
    assert!(matches!(tap.ioctl(GET_MAC, &[], 6), Err(PortError::AdapterDown { .. })));
    assert!(port.counters().sent_interface_down > 0);
    adapter.command("back");
    until_a_frame_passes(&adapter, &port).await;
    assert_eq!(adapter.counts()["media"], 1);
    assert_eq!(tap.ioctl(GET_MAC, &[], 6).unwrap().len(), 6);
}

#[tokio::test]
async fn an_adapter_that_stays_away_ends_the_port() {
    let adapter = Adapter::take();
    let tap = adapter.open_for(Duration::from_millis(500));
    let port = tap.port().unwrap();
    adapter.until("pending", 64).await;
    adapter.command("away");
    let mut batch = FrameBatch::new(0);
    let error = timeout(PATIENCE, port.recv(&mut batch)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), "adapter-missing", "{error}");
    assert_eq!(port.send([frame(0, 60).as_slice()]).unwrap_err().kind(), "adapter-missing");
    assert_eq!(tap.ioctl(GET_MAC, &[], 6).unwrap_err().kind(), "adapter-down");
}

#[tokio::test]
async fn media_disconnected_by_another_hand_is_connected_again() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    tap.ioctl(SET_MEDIA_STATUS, &0_u32.to_le_bytes(), 4).unwrap();
    until_a_frame_passes(&adapter, &port).await;
    assert_eq!(tap.reopenings(), 1);
}

#[tokio::test]
async fn closing_with_everything_under_way() {
    let adapter = Adapter::take();
    for round in 0..30 {
        let tap = adapter.open();
        let port = tap.port().unwrap();
        adapter.command("hold");
        let frames: Vec<_> = (0..100).map(|n| frame(n, 100)).collect();
        assert_eq!(port.send(frames.iter().map(Vec::as_slice)).unwrap().accepted, 100);
        adapter.wire.send(&frames[0]).unwrap();
        let mut batch = FrameBatch::new(0);
        let receiving = tokio::spawn(async move {
            while port.recv(&mut batch).await.is_ok() {}
            port
        });
        tokio::task::yield_now().await;
        if round % 2 == 0 {
            tap.close();
        }
        drop(tap);
        if round % 2 == 1 {
            receiving.abort();
            assert!(receiving.await.unwrap_err().is_cancelled());
        } else {
            timeout(PATIENCE, receiving).await.unwrap().unwrap();
        }
        adapter.until("owned", 0).await; // Wine closes a little later.
        let counts = adapter.counts();
        assert_eq!((counts["pending"], counts["held"], counts["media"]), (0, 0, 0), "round {round}");
        adapter.command("release");
        for _ in 0..100 {
            adapter.receive();
        }
    }
}

#[tokio::test]
async fn requests_are_answered_while_frames_flow() {
    let adapter = Adapter::take();
    let tap = adapter.open();
    let port = tap.port().unwrap();
    let asking = {
        let tap = tap.clone();
        tokio::task::spawn_blocking(move || {
            for _ in 0..500 {
                assert_eq!(tap.ioctl(GET_MTU, &[], 4).unwrap(), 1500_u32.to_le_bytes());
            }
        })
    };
    let mut number = 0;
    while !asking.is_finished() {
        adapter.wire.send(&frame(number, 500)).unwrap();
        assert_eq!(receive(&port, 1).await, [frame(number, 500)]);
        assert_eq!(port.send([frame(number, 700).as_slice()]).unwrap().accepted, 1);
        assert_eq!(adapter.receive(), frame(number, 700));
        number += 1;
    }
    asking.await.unwrap();
    println!("{number} frames each way meanwhile");
}
