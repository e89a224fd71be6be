//! Peers that read nothing, neither packets nor their control stream, and one that sends frames for them; then visitors, each of whom the
//! relay tells everybody of twice.

use std::error::Error;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::kinds::unicast;
use crate::peer::{Peer, Refusal};

/// How long they stay after the last of it, so that the relay can be asked how they are.
const LINGER: Duration = Duration::from_millis(1500);

/// Sends `count` frames at `rate` a second to `readers` peers, then comes and goes `visits` times.
pub fn starve(
    relay: SocketAddrV4,
    room: &str,
    readers: usize,
    count: u64,
    rate: f64,
    visits: u64,
) -> Result<(), Box<dyn Error>> {
    let mut dice = Dice::new();
    let mac = dice.mac();
    let mut feeder = Peer::join(relay, room, Some(mac)).map_err(words)?;
    let mut starved = Vec::with_capacity(readers);
    for _ in 0..readers {
        let mac = dice.mac();
        starved.push((mac, Peer::join_narrow(relay, room, mac).map_err(words)?));
        drive(&mut starved, &mut feeder)?;
    }
    for (_, reader) in &mut starved {
        reader.stop_reading();
    }
    let start = Instant::now();
    let mut sent = 0;
    while sent < count && !feeder.is_over() {
        let due = (start.elapsed().as_secs_f64() * rate) as u64;
        for _ in 0..due.saturating_sub(sent).min(256).min(count - sent) {
            let (target, _) = &starved[sent as usize % readers];
            feeder.post(unicast(feeder.peer_id, mac, *target));
            sent += 1;
        }
        drive(&mut starved, &mut feeder)?;
        std::thread::sleep(Duration::from_micros(500));
    }
    let (mut visited, mut refused) = (0u64, 0u64);
    for _ in 0..visits {
        match Peer::join(relay, room, Some(dice.mac())) {
            Ok(visitor) => {
                visited += 1;
                visitor.leave()?;
            }
            Err(Refusal::Io(error)) => return Err(error.into()),
            Err(Refusal::Relay(_)) => refused += 1,
        }
        drive(&mut starved, &mut feeder)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let end = Instant::now() + LINGER;
    while Instant::now() < end {
        drive(&mut starved, &mut feeder)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "{{\"sent\": {sent}, \"feeder\": {}, \"readers\": {:?}, \"visits\": {visited}, \"refused\": {refused}, \
         \"seconds\": {seconds:.3}, \"last_words\": {:?}}}",
        feeder.peer_id,
        starved.iter().map(|(_, reader)| reader.peer_id).collect::<Vec<_>>(),
        feeder.last_words().unwrap_or_default(),
    );
    feeder.leave()?;
    Ok(())
}

fn drive(starved: &mut [([u8; 6], Peer)], feeder: &mut Peer) -> std::io::Result<()> {
    starved.iter_mut().try_for_each(|(_, reader)| reader.drive(Duration::ZERO))?;
    feeder.drive(Duration::ZERO)
}

fn words(refusal: Refusal) -> Box<dyn Error> {
    match refusal {
        Refusal::Io(error) => error.into(),
        Refusal::Relay(words) => words.into(),
    }
}
