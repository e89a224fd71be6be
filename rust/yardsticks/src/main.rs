//! What the side-by-side benchmark measures with: a tunnel of bare UDP, a bad line, a load of UDP. Run by `benches/`; ships with nothing.
//!
//!     softlan-yardsticks relay ADDRESS:PORT                                   the middle of the bare tunnel
//!     softlan-yardsticks frames RELAY:PORT TAP MAC MTU                        an end of it, frame by frame
//!     softlan-yardsticks offloads RELAY:PORT tap:TAP|INTERFACE MAC MTU        an end of it on softlan's own ports
//!     softlan-yardsticks line NEAR FAR SEED RATE DELAY_US BUFFER LOSS         a bad line between two TAPs
//!     softlan-yardsticks sink ADDRESS:PORT SECONDS                            counts datagrams
//!     softlan-yardsticks load ADDRESS:PORT BYTES PACKETS_A_SECOND SECONDS     sends datagrams
//!
//! Each says `ready` once it works; `sink` and `load` print their count in the end.

#[cfg(target_os = "linux")]
mod direction;
#[cfg(target_os = "linux")]
mod frames;
#[cfg(target_os = "linux")]
mod line;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod offloads;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod tap;
#[cfg(target_os = "linux")]
mod udp;

/// What ends one of these programs.
#[cfg(target_os = "linux")]
type Outcome = Result<(), Box<dyn std::error::Error>>;

#[cfg(target_os = "linux")]
fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["relay", listen] => relay::run(listen.parse()?),
        ["frames", relay, tap, mac, mtu] => frames::run(relay.parse()?, tap, mac.parse()?, mtu.parse()?),
        ["offloads", relay, port, mac, mtu] => {
            offloads::run(relay.parse()?, port, mac.parse()?, mtu.parse()?)
        }
        ["line", near, far, seed, rate, delay_us, buffer, loss] => {
            let shape = direction::Shape {
                rate: rate.parse()?,
                delay_ns: delay_us.parse::<u64>()? * 1000,
                buffer: buffer.parse()?,
                loss: loss.parse()?,
            };
            line::run(near, far, seed.parse()?, shape)
        }
        ["sink", listen, seconds] => load::sink(listen.parse()?, seconds.parse()?),
        ["load", to, bytes, rate, seconds] => {
            load::load(to.parse()?, bytes.parse()?, rate.parse()?, seconds.parse()?)
        }
        _ => Err("the arguments are described at the head of rust/yardsticks/src/main.rs".into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the yardsticks stand on Linux network namespaces");
}
