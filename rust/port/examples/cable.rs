//! A cable between two interfaces: what comes in on one leaves on the other, both ways.
//!
//!     cable eth1 eth2        two interfaces of this machine, through AF_PACKET
//!     cable tap:left eth2    a TAP adapter made for it, and an interface
//!
//! It needs the privileges softlan needs. It shows what ports cost without a tunnel between them.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use softlan_port::{AnyPort, FrameBatch, PacketOptions, PacketSocket, Port, PortError, TapDevice};
    use softlan_wire::Mac;

    fn open(name: &str, mac: Mac) -> Result<AnyPort, PortError> {
        Ok(match name.strip_prefix("tap:") {
            Some(name) => TapDevice::create(Some(name), mac, 1400)?.into_port()?.into(),
            None => PacketSocket::open(name, PacketOptions::default())?.into_port()?.into(),
        })
    }

    async fn carry(from: &AnyPort, to: &AnyPort) -> Result<(), PortError> {
        let mut batch = FrameBatch::new(8);
        loop {
            from.recv(&mut batch).await?;
            to.send(batch.frames())?;
            batch.clear();
        }
    }

    let names: Vec<String> = std::env::args().skip(1).collect();
    let [left, right] = names.as_slice() else { return Err("give two interfaces, or tap:NAME".into()) };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let left = open(left, Mac::from_bytes([2, 0, 0, 0, 0, 1]))?;
        let right = open(right, Mac::from_bytes([2, 0, 0, 0, 0, 2]))?;
        eprintln!("a cable between {} and {}", left.description(), right.description());
        let report = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                for port in [&left, &right] {
                    let counters: Vec<String> = port
                        .counters()
                        .entries()
                        .filter(|(_, value)| *value > 0)
                        .map(|(name, value)| format!("{name} {value}"))
                        .collect();
                    eprintln!("{}: {}", port.description(), counters.join(", "));
                }
            }
        };
        tokio::select! {
            ended = carry(&left, &right) => ended?,
            ended = carry(&right, &left) => ended?,
            () = report => {}
        }
        Ok(())
    })
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("there are no ports of machines on this system yet");
}
