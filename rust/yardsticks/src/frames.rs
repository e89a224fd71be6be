//! An end of the bare tunnel that knows no offload: one read, one send a frame, as tunnels are usually written.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use softlan_port::Interface;
use softlan_wire::Mac;

use crate::Outcome;
use crate::relay::HELLO;
use crate::tap::PlainTap;
use crate::udp::{RECEIVE_BUFFER, Udp, wait_readable};

/// Frames of one side before the other's turn.
const BATCH: usize = 32;

/// Carries frames between a new TAP and the relay until it is ended.
pub fn run(relay: SocketAddrV4, tap: &str, mac: Mac, mtu: u16) -> Outcome {
    let device = PlainTap::create(tap)?;
    let interface = Interface::by_name(tap)?;
    interface.set_mac(mac)?;
    interface.set_mtu(mtu)?;
    interface.set_up(true)?;
    let socket = Udp::connect(relay, false)?;
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut greet_at = Instant::now();
    println!("ready");
    loop {
        if Instant::now() >= greet_at {
            socket.send_one(HELLO, None);
            greet_at = Instant::now() + Duration::from_secs(1);
        }
        wait_readable([device.as_raw_fd(), socket.as_raw_fd()], Duration::from_millis(500))?;
        for _ in 0..BATCH {
            let Some(len) = device.recv(&mut buffer)? else { break };
            socket.send_one(&buffer[..len], None);
        }
        for _ in 0..BATCH {
            let Some(came) = socket.recv(&mut buffer)? else { break };
            device.send(&buffer[..came.len]);
        }
    }
}
