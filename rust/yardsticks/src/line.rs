//! A bad line at work between two TAPs: every Ethernet frame of one goes to the other, as the line's shape lets it.
//!
//! Whatever runs over IP passes, UDP in IP fragments and TCP too. ARP is delayed and never lost: a machine that has to ask
//! again after a second would be measured for the wrong reason.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::direction::{Direction, Shape};
use crate::tap::PlainTap;
use crate::udp::{RECEIVE_BUFFER, wait_readable, wake_on_time};

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const BATCH: usize = 32;
/// How often the line tells what it carried.
const REPORT: Duration = Duration::from_millis(100);

struct Way<'a> {
    from: &'a PlainTap,
    to: &'a PlainTap,
    direction: Direction,
    delay_ns: u64,
    /// In the order of arrival, since all of one way has the same delay; ARP may wait for what is in front of it.
    under_way: VecDeque<(u64, Vec<u8>)>,
}

impl Way<'_> {
    fn take(&mut self, now: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        for _ in 0..BATCH {
            let Some(len) = self.from.recv(buffer)? else { break };
            let frame = &buffer[..len];
            if len < ETHERNET_HEADER {
                continue;
            }
            let arrival = if frame[12..14] == ETHERTYPE_ARP {
                Some(now + self.delay_ns)
            } else {
                self.direction.offer(now, len - ETHERNET_HEADER)
            };
            if let Some(arrival) = arrival {
                self.under_way.push_back((arrival, frame.to_vec()));
            }
        }
        Ok(())
    }

    fn deliver(&mut self, now: u64) {
        while self.under_way.front().is_some_and(|(arrival, _)| *arrival <= now) {
            if let Some((_, frame)) = self.under_way.pop_front() {
                self.to.send(&frame);
            }
        }
    }
}

/// Makes the TAPs `near` and `far` and carries between them until it is ended.
pub fn run(near: &str, far: &str, seed: u64, shape: Shape) -> Outcome {
    wake_on_time();
    let (near, far) = (PlainTap::create(near)?, PlainTap::create(far)?);
    let way = |from, to, seed| Way {
        from,
        to,
        direction: Direction::new(shape, seed),
        delay_ns: shape.delay_ns,
        under_way: VecDeque::new(),
    };
    let mut ways = [way(&near, &far, seed), way(&far, &near, seed.wrapping_add(1))];
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let start = Instant::now();
    let mut tell_at = Duration::ZERO;
    println!("ready");
    loop {
        let now = start.elapsed().as_nanos() as u64;
        let next = ways.iter().filter_map(|way| way.under_way.front()).map(|(arrival, _)| *arrival).min();
        let within = next.map_or(REPORT, |next| Duration::from_nanos(next.saturating_sub(now)).min(REPORT));
        wait_readable([near.as_raw_fd(), far.as_raw_fd()], within)?;
        let now = start.elapsed();
        for way in &mut ways {
            way.take(now.as_nanos() as u64, &mut buffer)?;
        }
        if now >= tell_at {
            let [up, down] = [ways[0].direction.tally, ways[1].direction.tally];
            let (lost, full) = (up.lost + down.lost, up.overflowed + down.overflowed);
            let packets = up.carried + down.carried;
            println!(
                "carried {:.3} {} {} bytes up and down, in {packets} packets; lost {lost}, buffer full {full}",
                now.as_secs_f64(),
                up.bytes,
                down.bytes
            );
            tell_at = now + REPORT;
        }
        for way in &mut ways {
            way.deliver(start.elapsed().as_nanos() as u64);
        }
    }
}
