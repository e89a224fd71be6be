//! AF_PACKET on real veth pairs, in network namespaces.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use std::{
    fs::{File, OpenOptions},
    io::Write,
    net::UdpSocket,
    os::fd::AsRawFd,
    process::Command,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use common::{
    Namespace, frames, in_namespace, ip, skip,
    traffic::{STREAM, cable, runtime, tcp_both_ways},
    try_ip, without,
};
use softlan_port::{
    FrameBatch, Interface, PacketOptions, PacketPort, PacketSocket, Port, PortError,
    offload::join::{JoinKinds, Joiner},
};
use tokio::time::timeout;

/// A frame to everyone, of an ethertype nobody else uses (IEEE 802 local experimental 1), with `mark` in it.
fn frame(mark: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 0x88, 0xb5];
    frame.resize(len, mark);
    frame
}

fn open(interface: &str) -> PacketPort {
    PacketSocket::open(interface, PacketOptions::default()).unwrap().into_port().unwrap()
}

/// A veth pair in the caller's namespace, both ends up.
fn pair(left: &str, right: &str) {
    ip(&format!("link add {left} type veth peer name {right}"));
    ip(&format!("link set dev {left} up"));
    ip(&format!("link set dev {right} up"));
    wait_until_up(&[left, right]);
}

/// Waits until the kernel has started the queues: it does a moment after both ends are up, and until then drops what
/// is sent.
fn wait_until_up(ends: &[&str]) {
    for end in ends {
        while !ip(&format!("link show dev {end}")).contains("state UP") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits for the experimental frames and gives their marks and lengths.
async fn marks(port: &PacketPort, count: usize) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    let mut batch = FrameBatch::new(4);
    while found.len() < count {
        let received = timeout(Duration::from_secs(20), port.recv(&mut batch)).await;
        received.expect("frames arrive").unwrap();
        let ours = batch.frames().filter(|frame| frame[12..14] == [0x88, 0xb5]);
        found.extend(ours.map(|frame| (frame[14], frame.len())));
        batch.clear();
    }
    found
}

/// A LAN that is this file: a TAP whose frames bear offload headers, for which no reader of it says what it takes.
fn lan_of_frames(test: &str, name: &str) -> Option<File> {
    let lan = match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(lan) => lan,
        Err(error) => {
            skip(test, &format!("/dev/net/tun: {error}"));
            return None;
        }
    };
    // SAFETY: a plain old data structure, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as _;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as _;
    // SAFETY: TUNSETIFF reads and writes an ifreq; `request` outlives the call.
    assert_eq!(unsafe { libc::ioctl(lan.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }, 0);
    ip(&format!("link set dev {name} up"));
    Some(lan)
}

/// A super-frame, offload header in front, of a kind that a reader's offload header has no word for: UDP in IP fragments
/// (`VIRTIO_NET_HDR_GSO_UDP`).
fn wordless_super_frame() -> Vec<u8> {
    let vnet = [&[1, 3][..], &42_u16.to_ne_bytes(), &1472_u16.to_ne_bytes(), &34_u16.to_ne_bytes(), &[6, 0]];
    let frame = frames::datagrams(1, 4000).remove(0);
    [&vnet.concat()[..], &frame].concat()
}

#[test]
fn an_error_of_receiving_is_no_refusal_of_what_is_sent_next() {
    const NAME: &str = "an_error_of_receiving_is_no_refusal_of_what_is_sent_next";
    in_namespace(NAME, || {
        let Some(mut lan) = lan_of_frames(NAME, "lan0") else { return };
        runtime().block_on(async {
            let port = open("lan0");
            let whole = [&[0; 10][..], &frame(7, 60)].concat();
            let (stream, alone) = (frames::segments(4, 1000), [frame(1, 60)]);
            for (round, said) in [&stream[..], &alone, &stream].into_iter().enumerate() {
                // Behind a whole frame, so that the kernel keeps the error for the next call.
                for bytes in [whole.clone(), wordless_super_frame()] {
                    assert_eq!(lan.write(&bytes).unwrap(), bytes.len());
                }
                assert_eq!(marks(&port, 1).await, [(7, 60)]);
                let outcome = port.send(said.iter().map(Vec::as_slice)).unwrap();
                assert_eq!(outcome.accepted, said.len(), "round {round}: {:?}", port.counters());
                assert_eq!(port.counters().received_malformed, round as u64 + 1);
            }
            let counters = port.counters();
            assert_eq!((counters.sent_failed, counters.super_frames_sent), (0, 2));
        });
    });
}

#[test]
fn tcp_between_two_lans_travels_as_super_frames() {
    in_namespace("tcp_between_two_lans_travels_as_super_frames", || {
        // The caller is host 1; its LAN ends at gw1, which a gateway namespace holds, as it does gw2 of host 2.
        let (gateway, host) = (Namespace::new(), Namespace::new());
        ip(&format!("link add lan1 type veth peer name gw1 netns {}", gateway.id));
        host.ip(&format!("link add lan2 type veth peer name gw2 netns {}", gateway.id));
        gateway.ip("link set dev gw1 up");
        gateway.ip("link set dev gw2 up");
        ip("link set dev lan1 up");
        host.ip("link set dev lan2 up");
        ip("addr add 10.78.0.1/24 dev lan1");
        ip("addr add fd78::1/64 dev lan1 nodad");
        host.ip("addr add 10.78.0.2/24 dev lan2");
        host.ip("addr add fd78::2/64 dev lan2 nodad");
        let mut addresses = vec!["10.78.0.2", "fd78::2"];
        if try_ip("link add link lan1 name vlan1 up type vlan id 100").is_ok() {
            ip("addr add 10.79.0.1/24 dev vlan1");
            host.ip("link add link lan2 name vlan2 up type vlan id 100");
            host.ip("addr add 10.79.0.2/24 dev vlan2");
            addresses.push("10.79.0.2");
        } else {
            without("TCP in a VLAN", "this kernel has no VLAN interfaces (8021q)");
        }

        let (left, right) = gateway.run(|| {
            let open = |name| PacketSocket::open(name, PacketOptions::default()).unwrap();
            (open("gw1"), open("gw2"))
        });
        let (left, right, seen) = cable(|| (left.into_port().unwrap(), right.into_port().unwrap()));
        for address in &addresses {
            let before = left.counters();
            let tagged = seen.tagged.load(Relaxed);
            tcp_both_ways(&host, address.parse().unwrap());
            let after = left.counters();
            assert!(after.super_frames_received > before.super_frames_received, "{address}: {after:?}");
            if *address == "10.79.0.2" {
                assert!(seen.tagged.load(Relaxed) > tagged + 2 * STREAM / 1500);
            } else {
                assert_eq!(seen.tagged.load(Relaxed), tagged);
                assert!(after.super_frames_sent > before.super_frames_sent, "{address}: {after:?}");
            }
        }
        assert_eq!(seen.longest.load(Relaxed), if addresses.len() == 3 { 1518 } else { 1514 });
        assert!(seen.tcp_payload.load(Relaxed) >= 2 * addresses.len() * STREAM);
        for counters in [left.counters(), right.counters()] {
            println!("{counters:?}");
            assert_eq!(counters.received_malformed + counters.received_too_long + counters.sent_failed, 0);
            assert_eq!(counters.sent_too_long, 0);
            assert!(counters.frames_received > 2 * counters.super_frames_received);
        }
    });
}

#[test]
fn frames_go_through_both_ways_and_own_ones_are_not_seen() {
    in_namespace("frames_go_through_both_ways_and_own_ones_are_not_seen", || {
        pair("left0", "right0");
        runtime().block_on(async {
            let (left, right) = (open("left0"), open("right0"));
            let frames = [frame(1, 60), frame(2, 1514), frame(3, 14 + 1)];
            let outcome = left.send(frames.iter().map(Vec::as_slice)).unwrap();
            assert_eq!(outcome.accepted, 3);
            assert_eq!(marks(&right, 3).await, [(1, 60), (2, 1514), (3, 15)]);
            // What this machine sends through left0 itself leaves, too.
            ip("addr add 10.77.0.1/24 dev left0");
            ip("neigh add 10.77.0.2 lladdr 02:00:5e:10:00:02 dev left0");
            UdpSocket::bind("10.77.0.1:0").unwrap().send_to(&[9; 100], "10.77.0.2:9").unwrap();
            right.send([frame(4, 60).as_slice()]).unwrap();
            let mut batch = FrameBatch::new(0);
            while !batch.frames().any(|frame| frame[14] == 4) {
                left.recv(&mut batch).await.unwrap();
            }
            assert!(
                batch.frames().all(|frame| ![1, 2, 3].contains(&frame[14]) && !frame.ends_with(&[9; 100]))
            );
            // Many small frames, more than one system call takes.
            let many: Vec<_> = (0..200).map(|mark| frame(mark, 60)).collect();
            assert_eq!(left.send(many.iter().map(Vec::as_slice)).unwrap().accepted, 200);
            let expected: Vec<_> = (0..200).map(|mark| (mark, 60)).collect();
            assert_eq!(marks(&right, 200).await, expected);
        });
    });
}

#[test]
fn tags_are_put_back() {
    in_namespace("tags_are_put_back", || {
        pair("left0", "right0");
        runtime().block_on(async {
            let (left, right) = (open("left0"), open("right0"));
            // A customer tag, a service tag around it, a priority tag of VLAN 0, and full length.
            let tags: [&[u8]; 4] = [
                &[0x81, 0, 0x20, 100],
                &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8],
                &[0x81, 0, 0, 0],
                &[0x81, 0, 0x0f, 0xfe],
            ];
            let frames: Vec<Vec<u8>> = tags
                .iter()
                .zip([60, 200, 60, 1514])
                .map(|(tag, len)| {
                    let plain = frame(5, len);
                    [&plain[..12], *tag, &plain[12..]].concat()
                })
                .collect();
            assert_eq!(left.send(frames.iter().map(Vec::as_slice)).unwrap().accepted, 4);
            let mut found = Vec::new();
            let mut batch = FrameBatch::new(8);
            while found.len() < 4 {
                timeout(Duration::from_secs(20), right.recv(&mut batch))
                    .await
                    .expect("frames arrive")
                    .unwrap();
                found.extend(batch.frames().filter(|frame| frame.ends_with(&[5; 8])).map(<[u8]>::to_vec));
                batch.clear();
            }
            assert_eq!(found, frames);
        });
    });
}

/// One super-frame of `segments`, with its `virtio_net_hdr`, put on `interface` as a kernel would.
fn send_super_frame(interface: &str, segments: &[Vec<u8>], tag: &[u8]) {
    let mut parts = Vec::new();
    let segments = segments.iter().map(Vec::as_slice);
    let message = Joiner::new(segments.clone(), 1514, JoinKinds::ALL).next(&mut parts).unwrap();
    assert_eq!(message.frames, segments.len());
    let mut vnet = message.vnet;
    let partial = vnet.partial.as_mut().unwrap();
    partial.start += tag.len() as u16;
    vnet.header_len += tag.len() as u16;
    let (addresses, rest) = message.headers().split_at(12);
    let bytes = [&vnet.encode(), addresses, tag, rest, &parts.concat()].concat();
    // SAFETY: the pointers and lengths are those of values that outlive the calls; the descriptor is closed once.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        let on: libc::c_int = 1;
        libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, (&raw const on).cast(), 4);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = Interface::by_name(interface).unwrap().index() as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        let sent = libc::sendto(fd, bytes.as_ptr().cast(), bytes.len(), 0, (&raw const address).cast(), len);
        assert_eq!(sent, bytes.len() as isize, "{}", std::io::Error::last_os_error());
        libc::close(fd);
    }
}

#[test]
fn super_frames_with_and_without_tags_are_split_exactly() {
    in_namespace("super_frames_with_and_without_tags_are_split_exactly", || {
        pair("left0", "right0");
        runtime().block_on(async {
            let right = open("right0");
            let segments = frames::segments(20, 1400);
            for tag in [[].as_slice(), &[0x81, 0, 0x60, 100], &[0x88, 0xa8, 0, 7]] {
                send_super_frame("left0", &segments, tag);
                let mut found = Vec::new();
                let mut batch = FrameBatch::new(8);
                while found.len() < segments.len() {
                    timeout(Duration::from_secs(20), right.recv(&mut batch))
                        .await
                        .expect("frames arrive")
                        .unwrap();
                    found.extend(batch.frames().filter(|frame| frame.len() > 1400).map(<[u8]>::to_vec));
                    batch.clear();
                }
                let tagged = |segment: &Vec<u8>| [&segment[..12], tag, &segment[12..]].concat();
                assert!(found == segments.iter().map(tagged).collect::<Vec<_>>(), "{tag:?}");
            }
            assert_eq!(right.counters().super_frames_received, 3);
            assert_eq!(right.counters().received_malformed, 0);
        });
    });
}

#[test]
fn joined_segments_leave_as_one_and_arrive_exactly() {
    in_namespace("joined_segments_leave_as_one_and_arrive_exactly", || {
        pair("left0", "right0");
        let runs = [frames::segments(40, 1300), frames::datagrams(40, 1300)];
        let mut kinds = Vec::from(runs.clone());
        for run in &runs {
            kinds.push(frames::tagged(run, [0x81, 0, 0x60, 100]));
            kinds.push(frames::tagged(run, [0x88, 0xa8, 0, 7]));
        }
        runtime().block_on(async {
            let (left, right) = (open("left0"), open("right0"));
            let exchange = async |cut: bool| {
                for frames in &kinds {
                    let (before, received) = (left.counters(), right.counters());
                    assert_eq!(left.send(frames.iter().map(Vec::as_slice)).unwrap().accepted, 40);
                    assert_eq!(left.counters().super_frames_sent - before.super_frames_sent, 1);
                    let mut found = Vec::new();
                    let mut batch = FrameBatch::new(8);
                    while found.len() < frames.len() {
                        timeout(Duration::from_secs(20), right.recv(&mut batch))
                            .await
                            .expect("frames arrive")
                            .unwrap();
                        found.extend(batch.frames().filter(|frame| frame.len() > 1300).map(<[u8]>::to_vec));
                        batch.clear();
                    }
                    assert!(found == *frames, "cut by the kernel: {cut}");
                    let whole = right.counters().super_frames_received - received.super_frames_received;
                    assert_eq!(whole, u64::from(!cut));
                }
            };
            exchange(false).await;
            // Without segmentation offload the kernel cuts the super-frames itself, on the way out.
            let off = ["-K", "left0", "tso", "off", "gso", "off", "tx-udp-segmentation", "off"];
            if Command::new("ethtool").args(off).status().is_ok_and(|status| status.success()) {
                exchange(true).await;
            }
        });
    });
}

#[test]
fn a_partial_checksum_is_finished() {
    in_namespace("a_partial_checksum_is_finished", || {
        pair("left0", "right0");
        ip("addr add 10.77.0.1/24 dev left0");
        ip("neigh add 10.77.0.2 lladdr 02:00:5e:10:00:02 dev left0");
        runtime().block_on(async {
            let right = open("right0");
            let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
            socket.send_to(&[7; 999], "10.77.0.2:9").unwrap();
            let mut batch = FrameBatch::new(0);
            let packet = loop {
                right.recv(&mut batch).await.unwrap();
                let mut packets = batch.frames().filter_map(frames::check);
                if let Some(packet) = packets.find(|packet| packet.payload == 999) {
                    break packet;
                }
            };
            assert_eq!(packet.protocol, 17);
        });
    });
}

#[test]
fn frames_too_long_for_the_interface_are_told_apart() {
    in_namespace("frames_too_long_for_the_interface_are_told_apart", || {
        pair("left0", "right0");
        runtime().block_on(async {
            let (left, right) = (open("left0"), open("right0"));
            let frames = [frame(1, 60), frame(2, 1515), frame(3, 13), frame(4, 1514)];
            let outcome = left.send(frames.iter().map(Vec::as_slice)).unwrap();
            assert_eq!((outcome.accepted, outcome.failed, outcome.refused), (2, 2, 0));
            assert_eq!(marks(&right, 2).await, [(1, 60), (4, 1514)]);
            let counters = left.counters();
            assert_eq!((counters.sent_too_long, counters.sent_failed), (1, 1));
        });
    });
}

#[test]
fn down_is_waited_for() {
    in_namespace("down_is_waited_for", || {
        pair("left0", "right0");
        runtime().block_on(async {
            let (left, right) = (open("left0"), open("right0"));
            ip("link set dev left0 down");
            let outcome = left.send([frame(1, 60).as_slice()]).unwrap();
            assert_eq!(outcome.failed, 1);
            assert_eq!(left.counters().sent_interface_down, 1);
            // The kernel says it once, here to the sender.
            assert!(!*left.up().unwrap().borrow());
            // Futures that are dropped while it is down must not lose sight of it.
            let mut batch = FrameBatch::new(0);
            for _ in 0..2 {
                let waiting = timeout(Duration::from_millis(700), left.recv(&mut batch)).await;
                assert!(waiting.is_err() || waiting.is_ok_and(|received| received.is_ok()));
            }
            ip("link set dev left0 up");
            wait_until_up(&["left0", "right0"]);
            right.send([frame(2, 60).as_slice()]).unwrap();
            assert_eq!(marks(&left, 1).await, [(2, 60)]);
            // It is known to be up by the first frame that comes.
            assert!(*left.up().unwrap().borrow());
            left.send([frame(3, 60).as_slice()]).unwrap();
            assert_eq!(marks(&right, 1).await, [(3, 60)]);
        });
    });
}

#[test]
fn nothing_is_left_out_where_all_is_required() {
    // Without `ip` no test here can do anything.
    let passes = |required| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "removal_is_told"])
            .env("PATH", "/none")
            .env("SOFTLAN_REQUIRE_ALL", required);
        command.output().unwrap().status.success()
    };
    assert!(passes("0") && !passes("1"));
}

#[test]
fn removal_is_told() {
    in_namespace("removal_is_told", || {
        for down_first in [false, true] {
            pair("left0", "right0");
            runtime().block_on(async {
                let left = open("left0");
                let mut batch = FrameBatch::new(0);
                let waiting = async {
                    loop {
                        if let Err(error) = left.recv(&mut batch).await {
                            break error;
                        }
                    }
                };
                let removing = async {
                    // Let the reader wait first, and see it down.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if down_first {
                        ip("link set dev left0 down");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    ip("link del dev left0");
                };
                let (error, ()) = timeout(Duration::from_secs(20), async { tokio::join!(waiting, removing) })
                    .await
                    .expect("the reader is told");
                assert!(matches!(error, PortError::InterfaceGone { .. }), "{error:?}");
                assert!(matches!(left.send([frame(1, 60).as_slice()]), Err(PortError::InterfaceGone { .. })));
            });
        }
    });
}

#[test]
fn promiscuity_goes_with_the_socket() {
    in_namespace("promiscuity_goes_with_the_socket", || {
        pair("left0", "right0");
        let promiscuity = || ip("-d link show dev left0").contains("promiscuity 1");
        let socket = PacketSocket::open("left0", PacketOptions::default()).unwrap();
        assert!(promiscuity());
        drop(socket);
        assert!(!promiscuity());
        let _quiet = PacketSocket::open("left0", PacketOptions { promiscuous: false }).unwrap();
        assert!(!promiscuity());
    });
}

#[test]
fn opening_says_what_is_wrong() {
    in_namespace("opening_says_what_is_wrong", || {
        let open = |name| PacketSocket::open(name, PacketOptions::default()).unwrap_err();
        assert!(matches!(open("nothing0"), PortError::InterfaceMissing { .. }));
        assert!(matches!(open("lo"), PortError::NotEthernet { .. }));
        ip("link add left0 type veth peer name right0");
        assert!(matches!(open("left0"), PortError::InterfaceDown { .. }));
        // Up, but without a carrier as the other end is down: frames may come later.
        ip("link set dev left0 up");
        let socket = PacketSocket::open("left0", PacketOptions::default()).unwrap();
        assert!(socket.facts().up && !socket.facts().running);
    });
}
