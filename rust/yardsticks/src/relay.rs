//! The middle of the bare tunnel: what comes from one end goes to the others, as it came, many datagrams at a time.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::Outcome;
use crate::udp::{MAX_SEGMENT, RECEIVE_BUFFER, Udp, part, wait_readable};

/// An end says that it is there with a datagram of this length, shorter than any frame.
pub const HELLO: &[u8] = b"h";

const BATCH: usize = 64;

/// Forwards until it is ended.
pub fn run(listen: SocketAddrV4) -> Outcome {
    let socket = Udp::bind(listen, true)?;
    let mut ends: Vec<SocketAddrV4> = Vec::new();
    let mut buffer = vec![0; RECEIVE_BUFFER];
    println!("ready");
    loop {
        wait_readable([std::os::fd::AsRawFd::as_raw_fd(&socket)], Duration::from_secs(1))?;
        for _ in 0..BATCH {
            let Some(came) = socket.recv(&mut buffer)? else { break };
            let data = &buffer[..came.len];
            if came.len <= HELLO.len() {
                if !ends.contains(&came.from) {
                    ends.push(came.from);
                }
                continue;
            }
            for end in ends.iter().filter(|end| **end != came.from) {
                if came.segment <= MAX_SEGMENT {
                    socket.send(&mut [part(data)], came.segment, Some(*end));
                } else {
                    data.chunks(came.segment).for_each(|one| socket.send_one(one, Some(*end)));
                }
            }
        }
    }
}
