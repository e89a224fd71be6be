//! What it costs to hand UDP frames of 1200 bytes to the kernel: of one flow (they are joined), and of two in turn (they are not).
//!
//!     unshare -rn target/release/examples/tap_writes [seconds]
//!
//! It makes a TAP adapter in the namespace it is started in, whose address a local socket listens on.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use softlan_port::{Port, TapDevice};
    use softlan_wire::Mac;

    const MAC: [u8; 6] = [2, 0, 0x5e, 0, 0, 1];
    const PAYLOAD: usize = 1200;
    const BATCH: usize = 32;

    fn sum(bytes: &[u8]) -> u16 {
        let words =
            bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
        let mut sum: u64 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn frame(id: u16, from: u16, to: u16) -> Vec<u8> {
        let len = (8 + PAYLOAD) as u16;
        let mut ip = [&[0x45, 0], (20 + len).to_be_bytes().as_slice(), &id.to_be_bytes()].concat();
        ip.extend([0x40, 0, 64, 17, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1]);
        let header = !sum(&ip);
        ip[10..12].copy_from_slice(&header.to_be_bytes());
        let mut udp = [from.to_be_bytes(), to.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
        udp.resize(8 + PAYLOAD, 0x5a);
        let whole = !sum(&[&ip[12..20], &[0, 17], &len.to_be_bytes(), &udp].concat());
        udp[6..8].copy_from_slice(&whole.to_be_bytes());
        [MAC.as_slice(), &[2, 0, 0x5e, 0, 0, 2, 8, 0], &ip, &udp].concat()
    }

    fn cpu() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Duration::from_nanos(text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0))
    }

    let seconds: f64 = std::env::args().nth(1).map_or(Ok(1.0), |text| text.parse())?;
    let device = TapDevice::create(Some("writes0"), Mac::from_bytes(MAC), 1400)?;
    for command in ["link set lo up", "addr add 10.77.0.1/24 dev writes0"] {
        Command::new("ip").args(command.split(' ')).status()?;
    }
    let socket = UdpSocket::bind((Ipv4Addr::new(10, 77, 0, 1), 0))?;
    let to = socket.local_addr()?.port();
    let port = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _context = runtime.enter();
        (device.into_port()?, runtime)
    };
    let heard = std::thread::spawn(move || -> std::io::Result<u64> {
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let (mut buffer, mut count) = ([0; 2048], 0);
        while socket.recv(&mut buffer).is_ok() {
            count += 1;
        }
        Ok(count)
    });
    let flows: [(&str, Vec<u16>); 2] =
        [("one flow, joined", vec![5000]), ("two flows in turn", vec![5000, 5001])];
    let mut costs = Vec::new();
    for (name, sources) in &flows {
        let frames: Vec<Vec<u8>> = (0..BATCH)
            .map(|index| frame((index / sources.len()) as u16, sources[index % sources.len()], to))
            .collect();
        let (started, before, sent) = (Instant::now(), cpu(), port.0.counters());
        while started.elapsed().as_secs_f64() < seconds {
            port.0.send(frames.iter().map(Vec::as_slice))?;
        }
        let (cost, after) = (cpu() - before, port.0.counters());
        let count = after.frames_sent - sent.frames_sent;
        costs.push(cost.as_nanos() as f64 / count as f64);
        println!(
            "{name}: {:.0} ns of CPU a frame, {:.0} k frames a CPU second, {} super-frames",
            costs[costs.len() - 1],
            count as f64 / cost.as_secs_f64() / 1e3,
            after.super_frames_sent - sent.super_frames_sent,
        );
    }
    println!("joined / not joined: {:.2}", costs[0] / costs[1]);
    println!(
        "{} datagrams were read by the socket; what it could not keep up with, the kernel dropped",
        heard.join().expect("reader")?
    );
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("there are no TAP adapters to write to on this system");
}
