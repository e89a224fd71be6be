//! The bare UDP forwarder the relay is compared with: two addresses, everything from one goes to the other, nothing is looked at.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use serde_json::json;

use crate::load::batch::{Batch, Name};
use crate::load::machine;
use crate::load::run::Fault;
use crate::load::udp;

/// Forwards between the first two addresses heard until the process is ended. Prints its address first.
///
/// # Errors
/// What the kernel said.
pub fn forward(core: usize, offloads: bool) -> Result<(), Fault> {
    machine::pin(core)?;
    let socket: UdpSocket = udp::socket()?;
    if offloads {
        let on: libc::c_int = 1;
        // SAFETY: UDP_GRO reads an int, which outlives the call.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_GRO,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as _,
            )
        };
        if done != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    println!("{}", json!({ "forwarder": socket.local_addr()?.to_string() }));
    let mut batch = Batch::new(offloads);
    let mut known: Vec<Name> = Vec::new();
    loop {
        let count = batch.receive(&socket)?;
        for index in 0..count {
            let name = batch.name(index);
            if known.len() < 2 && !known.contains(&name) {
                known.push(name);
            }
        }
        batch.forward(&socket, count, |from| match known.as_slice() {
            [a, b] if from == *a => Some(*b),
            [a, b] if from == *b => Some(*a),
            _ => None,
        })?;
    }
}
