//! TAP adapters of real kernels, in network namespaces.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::{
    net::UdpSocket,
    os::fd::{AsRawFd, RawFd},
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use common::{
    Namespace, frames, in_namespace, ip, skip,
    traffic::{STREAM, cable, runtime, tcp_both_ways},
};
use softlan_port::{
    FrameBatch, Interface, PacketOptions, PacketSocket, Port, PortError, TapDevice, TapOffloads,
};
use softlan_wire::Mac;
use tokio::time::timeout;

const MAC: Mac = Mac::from_bytes([2, 0, 0x5e, 0x10, 0, 1]);

/// Creates a TAP, or says why this machine cannot.
fn tap(test: &str, name: &str, mac: Mac, mtu: u16) -> Option<TapDevice> {
    match TapDevice::create(Some(name), mac, mtu) {
        Ok(device) => Some(device),
        Err(error @ (PortError::NoTunDevice | PortError::NoPrivilege { .. })) => {
            skip(test, &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_tap_is_as_asked_for_and_goes_with_its_owner() {
    const NAME: &str = "a_tap_is_as_asked_for_and_goes_with_its_owner";
    in_namespace(NAME, || {
        let Some(device) = tap(NAME, "party0", MAC, 1416) else { return };
        let interface = device.interface().clone();
        let facts = interface.facts().unwrap();
        assert_eq!((facts.name.as_str(), facts.mac, facts.mtu), ("party0", MAC, 1416));
        assert!(facts.up && facts.running && !facts.wireless);
        assert_eq!(facts.index, device.index());

        device.set_mtu(1280).unwrap();
        assert_eq!(interface.mtu().unwrap(), 1280);
        assert!(matches!(device.set_mtu(10), Err(PortError::MtuRefused { mtu: 10, .. })));
        device.set_up(false).unwrap();
        assert!(!interface.is_up());
        interface.set_queue_len(64).unwrap();
        assert!(ip("link show dev party0").contains("qlen 64"));

        assert!(matches!(TapDevice::create(Some("party0"), MAC, 1400), Err(PortError::NameTaken { .. })));
        assert!(matches!(TapDevice::create(Some("lo"), MAC, 1400), Err(PortError::NameTaken { .. })));

        ip("link set dev party0 name renamed0");
        device.set_up(true).unwrap();
        assert_eq!(interface.facts().unwrap().name, "renamed0");

        let unnamed = TapDevice::create(None, MAC, 1400).unwrap();
        assert_eq!(unnamed.name(), "softlan0");
        drop(device);
        assert!(!interface.exists());
        assert!(matches!(interface.facts(), Err(PortError::InterfaceGone { .. })));
    });
}

#[test]
fn tcp_between_two_taps_travels_as_super_frames() {
    const NAME: &str = "tcp_between_two_taps_travels_as_super_frames";
    in_namespace(NAME, || {
        let Some(near) = tap(NAME, "near", MAC, 1400) else { return };
        let other = Namespace::new();
        let far_mac = Mac::from_bytes([2, 0, 0x5e, 0x10, 0, 2]);
        let far = other.run(move || TapDevice::create(Some("far"), far_mac, 1400).unwrap());
        assert_ne!(near.offloads(), TapOffloads::None);
        ip("addr add 10.77.0.1/24 dev near");
        ip("addr add fd77::1/64 dev near nodad");
        other.ip("addr add 10.77.0.2/24 dev far");
        other.ip("addr add fd77::2/64 dev far nodad");

        let (near, far, seen) = cable(|| (near.into_port().unwrap(), far.into_port().unwrap()));
        for address in ["10.77.0.2", "fd77::2"] {
            let before = near.counters();
            tcp_both_ways(&other, address.parse().unwrap());
            let after = near.counters();
            assert!(after.super_frames_received > before.super_frames_received, "{address}: {after:?}");
            assert!(after.super_frames_sent > before.super_frames_sent, "{address}: {after:?}");
        }
        assert_eq!(seen.longest.load(Relaxed), 1414);
        assert!(seen.tcp_payload.load(Relaxed) >= 4 * STREAM);
        for counters in [near.counters(), far.counters()] {
            println!("{counters:?}");
            assert_eq!(counters.received_malformed + counters.received_too_long + counters.sent_failed, 0);
            assert!(counters.frames_received > 2 * counters.super_frames_received);
        }
    });
}

#[test]
fn udp_between_two_taps_travels_as_super_frames() {
    const NAME: &str = "udp_between_two_taps_travels_as_super_frames";
    const BURSTS: usize = 50;
    in_namespace(NAME, || {
        let Some(near) = tap(NAME, "near", MAC, 1400) else { return };
        if near.offloads() != TapOffloads::TcpAndUdp {
            return skip(NAME, "this kernel has no UDP segmentation for TAPs");
        }
        let other = Namespace::new();
        let far_mac = Mac::from_bytes([2, 0, 0x5e, 0x10, 0, 2]);
        let far = other.run(move || TapDevice::create(Some("far"), far_mac, 1400).unwrap());
        ip("addr add 10.77.0.1/24 dev near");
        ip("addr add fd77::1/64 dev near nodad");
        other.ip("addr add 10.77.0.2/24 dev far");
        other.ip("addr add fd77::2/64 dev far nodad");

        let (near, far, _) = cable(|| (near.into_port().unwrap(), far.into_port().unwrap()));
        for address in ["10.77.0.2", "fd77::2"] {
            let local = if address.contains(':') { "[fd77::1]:0" } else { "10.77.0.1:0" };
            let address: std::net::IpAddr = address.parse().unwrap();
            let hears = other.run(move || UdpSocket::bind((address, 0)).unwrap());
            hears.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let socket = UdpSocket::bind(local).unwrap();
            socket.connect((address, hears.local_addr().unwrap().port())).unwrap();
            socket.send(b"hello").unwrap(); // neighbours are found before bursts
            let mut buffer = [0; 2000];
            assert_eq!(hears.recv(&mut buffer).unwrap(), 5);
            segment(&socket, 1000);
            let before = far.counters();
            for burst in 0..BURSTS {
                let bytes: Vec<u8> = (0..7500_usize).map(|at| (at / 1000 + burst) as u8).collect();
                socket.send(&bytes).unwrap();
                // All of them, in order, whole: the receiver is no part of the burst.
                for part in 0..8_usize {
                    let len = hears.recv(&mut buffer).unwrap();
                    assert_eq!(len, if part == 7 { 500 } else { 1000 });
                    assert!(buffer[..len].iter().all(|byte| *byte == (part + burst) as u8));
                }
            }
            let after = far.counters();
            assert!(after.super_frames_sent - before.super_frames_sent >= BURSTS as u64 / 2, "{after:?}");
            assert_eq!(after.sent_failed, 0);
        }
        assert_eq!(near.counters().received_malformed, 0);
    });
}

/// The descriptor of the one TAP this process has.
fn descriptor_of_the_tap() -> RawFd {
    let is_tap = |fd: &RawFd| {
        std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|file| file == Path::new("/dev/net/tun"))
    };
    let mut taps = (0..1024).filter(is_tap);
    let tap = taps.next().unwrap();
    assert_eq!(taps.next(), None);
    tap
}

#[test]
fn a_frame_that_the_kernel_cannot_hand_over_is_counted_and_the_next_one_comes() {
    const NAME: &str = "a_frame_that_the_kernel_cannot_hand_over_is_counted_and_the_next_one_comes";
    in_namespace(NAME, || {
        let Some(device) = tap(NAME, "party0", MAC, 1400) else { return };
        let fd = descriptor_of_the_tap();
        // No super-frame that this kernel sends to a TAP lacks an offload header; so its header is to be longer than any read.
        let header = |len: libc::c_int| {
            // SAFETY: TUNSETVNETHDRSZ reads an int; `len` outlives the call.
            let result = unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ as _, &raw const len) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        };
        runtime().block_on(async {
            let kernel = PacketSocket::open("party0", PacketOptions::default()).unwrap().into_port().unwrap();
            let port = device.into_port().unwrap();
            let frame = |mark: u8| [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5], &[mark; 46]].concat();
            header(1 << 20);
            assert_eq!(kernel.send([frame(1).as_slice()]).unwrap().accepted, 1);
            let mut batch = FrameBatch::new(0);
            // Nothing to give: it waits on, and does not fail.
            let waiting = timeout(Duration::from_millis(100), port.recv(&mut batch)).await;
            assert!(waiting.is_err(), "{waiting:?}");
            assert!(port.counters().received_malformed >= 1);
            header(10);
            assert_eq!(kernel.send([frame(2).as_slice()]).unwrap().accepted, 1);
            while !batch.frames().any(|got| got == frame(2)) {
                timeout(Duration::from_secs(20), port.recv(&mut batch)).await.expect("it comes").unwrap();
            }
            assert!(!batch.frames().any(|got| got == frame(1)));
        });
    });
}

/// Makes each `send` on the socket a super-packet of datagrams of `size` bytes.
fn segment(socket: &UdpSocket, size: libc::c_int) {
    // SAFETY: the pointer and length are those of `size`.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), 4)
    };
    assert_eq!(result, 0);
}

#[test]
fn super_frames_written_to_a_tap_arrive_exactly() {
    const NAME: &str = "super_frames_written_to_a_tap_arrive_exactly";
    in_namespace(NAME, || {
        let Some(device) = tap(NAME, "party0", MAC, 1400) else { return };
        if device.offloads() != TapOffloads::TcpAndUdp {
            return skip(NAME, "this kernel has no UDP segmentation for TAPs");
        }
        let runs = [frames::segments(40, 1300), frames::datagrams(40, 1300)];
        let tags = [[0x81, 0, 0x60, 100], [0x88, 0xa8, 0, 7]];
        let tagged = runs.iter().flat_map(|run| tags.map(|tag| frames::tagged(run, tag)));
        runtime().block_on(async {
            // What the kernel makes of them shows on the adapter itself, where a written frame comes in.
            let packet = PacketSocket::open("party0", PacketOptions::default()).unwrap().into_port().unwrap();
            let port = device.into_port().unwrap();
            for frames in runs.iter().cloned().chain(tagged) {
                let before = port.counters().super_frames_sent;
                assert_eq!(port.send(frames.iter().map(Vec::as_slice)).unwrap().accepted, 40);
                assert_eq!(port.counters().super_frames_sent, before + 1);
                let mut found = Vec::new();
                let mut batch = FrameBatch::new(0);
                while found.len() < frames.len() {
                    let more = timeout(Duration::from_secs(20), packet.recv(&mut batch));
                    more.await.expect("frames arrive").unwrap();
                    found.extend(batch.frames().filter(|frame| frame.len() > 1300).map(<[u8]>::to_vec));
                    batch.clear();
                }
                assert!(found == frames);
            }
        });
    });
}

#[test]
fn udp_segmentation_offload_is_split() {
    const NAME: &str = "udp_segmentation_offload_is_split";
    in_namespace(NAME, || {
        let Some(device) = tap(NAME, "party0", MAC, 1400) else { return };
        if device.offloads() != TapOffloads::TcpAndUdp {
            return skip(NAME, "this kernel has no UDP segmentation for TAPs");
        }
        ip("addr add 10.77.0.1/24 dev party0");
        ip("neigh add 10.77.0.2 lladdr 02:00:5e:10:00:02 dev party0");
        let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
        segment(&socket, 1000);
        runtime().block_on(async {
            let port = device.into_port().unwrap();
            socket.send_to(&[0x42; 7500], "10.77.0.2:9").unwrap();
            let mut sizes = Vec::new();
            let mut batch = FrameBatch::new(0);
            while sizes.len() < 8 {
                port.recv(&mut batch).await.unwrap();
                let packets = batch.frames().filter_map(frames::check).filter(|packet| packet.payload >= 500);
                sizes.extend(packets.map(|packet| packet.payload));
                batch.clear();
            }
            assert_eq!(sizes, [1000, 1000, 1000, 1000, 1000, 1000, 1000, 500]);
            assert_eq!(port.counters().super_frames_received, 1);
        });
    });
}

#[test]
fn frames_longer_than_the_overlay_carries_are_counted() {
    const NAME: &str = "frames_longer_than_the_overlay_carries_are_counted";
    in_namespace(NAME, || {
        let Some(device) = tap(NAME, "party0", MAC, 60000) else { return };
        ip("addr add 10.77.0.1/24 dev party0");
        ip("neigh add 10.77.0.2 lladdr 02:00:5e:10:00:02 dev party0");
        let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
        runtime().block_on(async {
            let port = device.into_port().unwrap();
            // 14 + 20 + 8 bytes of headers: the longest that fits, one more, and a mark.
            for payload in [9174, 9175, 30000, 5] {
                socket.send_to(&vec![0x42; payload], "10.77.0.2:9").unwrap();
            }
            let mut sizes = Vec::new();
            let mut batch = FrameBatch::new(0);
            while !sizes.contains(&5) {
                port.recv(&mut batch).await.unwrap();
                let udp = batch.frames().filter_map(frames::check).filter(|packet| packet.protocol == 17);
                sizes.extend(
                    udp.map(|packet| packet.payload)
                        .filter(|payload| [9174, 9175, 30000, 5].contains(payload)),
                );
                batch.clear();
            }
            assert_eq!(sizes, [9174, 5]);
            assert_eq!(port.counters().received_too_long, 2);
        });
    });
}

#[test]
fn down_is_survived_and_removal_is_told() {
    const NAME: &str = "down_is_survived_and_removal_is_told";
    in_namespace(NAME, || {
        let Some(device) = tap(NAME, "party0", MAC, 1400) else { return };
        runtime().block_on(async {
            let port = device.into_port().unwrap();
            let frame = [0xff_u8; 60];
            let mut batch = FrameBatch::new(0);
            assert_eq!(port.send([frame.as_slice(), &frame]).unwrap().accepted, 2);
            assert_eq!(port.send([&frame[..13]]).unwrap().failed, 1);

            port.interface().set_up(false).unwrap();
            let outcome = port.send([frame.as_slice(), &frame]).unwrap();
            assert_eq!((outcome.accepted, outcome.failed), (0, 2));
            assert_eq!(port.counters().sent_interface_down, 2);

            port.interface().set_up(true).unwrap();
            assert_eq!(port.send([frame.as_slice()]).unwrap().accepted, 1);
            ip("addr add 10.77.0.1/24 dev party0");
            ip("neigh add 10.77.0.2 lladdr 02:00:5e:10:00:02 dev party0");
            UdpSocket::bind("10.77.0.1:0").unwrap().send_to(b"up again", "10.77.0.2:9").unwrap();
            port.recv(&mut batch).await.unwrap();

            let waiting = async {
                loop {
                    if let Err(error) = port.recv(&mut batch).await {
                        break error;
                    }
                }
            };
            let removing = async {
                // Let the reader wait first.
                tokio::time::sleep(Duration::from_millis(50)).await;
                ip("link del dev party0");
            };
            let (error, ()) = timeout(Duration::from_secs(20), async { tokio::join!(waiting, removing) })
                .await
                .expect("the reader is told");
            assert!(matches!(error, PortError::InterfaceGone { .. }), "{error:?}");
            assert!(matches!(port.send([frame.as_slice()]), Err(PortError::InterfaceGone { .. })));
            assert!(Interface::by_name("party0").is_err());
        });
    });
}
