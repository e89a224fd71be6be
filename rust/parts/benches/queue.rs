//! The egress queue beside what one would write without care: a queue a flow in a map, one datagram of each in turn, and no control of delay.

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use softlan_link::queue::{EgressQueue, Outcome, QueueLimits};

/// Datagrams pushed before as many are popped: a super-frame's worth.
const BURST: u16 = 64;
const MS: Duration = Duration::from_millis(1);

/// A full-size TCP segment of one of `flows` flows, as it is queued.
fn datagram(number: u16, flows: u16) -> Bytes {
    let mut datagram = vec![0x10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
    datagram.extend([0x45, 2, 5, 0x66, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    datagram.extend((40_000 + number % flows).to_be_bytes());
    datagram.resize(1400, 0x5a);
    datagram.into()
}

fn burst(flows: u16) -> Vec<Bytes> {
    (0..BURST).map(|number| datagram(number, flows)).collect()
}

#[derive(Default)]
struct Naive {
    flows: HashMap<Vec<u8>, VecDeque<(Duration, Bytes)>>,
    turns: VecDeque<Vec<u8>>,
}

impl Naive {
    fn push(&mut self, now: Duration, datagram: Bytes) {
        // Protocol, addresses and ports.
        let flow = [&datagram[27..28], &datagram[30..42]].concat();
        let waiting = self.flows.entry(flow.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(flow);
        }
        waiting.push_back((now, datagram));
    }

    fn pop(&mut self, now: Duration) -> Option<Bytes> {
        while let Some(flow) = self.turns.pop_front() {
            let waiting = self.flows.get_mut(&flow)?;
            let next = waiting.pop_front();
            if !waiting.is_empty() {
                self.turns.push_back(flow);
            }
            match next {
                Some((since, datagram)) if now - since < 100 * MS => return Some(datagram),
                _ => {}
            }
        }
        None
    }
}

fn bursts(c: &mut Criterion) {
    for flows in [1, 16] {
        let mut group = c.benchmark_group(format!("queue, {BURST} datagrams of {flows} flows"));
        let burst = burst(flows);
        let mut queue = EgressQueue::new(QueueLimits::default());
        let mut now = Duration::ZERO;
        group.bench_function("softlan", |b| {
            b.iter_batched(
                || burst.clone(),
                |burst| {
                    now += MS;
                    let mut dropped = 0;
                    for datagram in burst {
                        dropped += queue.push(now, datagram);
                    }
                    let mut outcome = Outcome::default();
                    while let Some(datagram) = queue.pop(now, &mut outcome) {
                        black_box(&datagram);
                    }
                    (dropped, outcome)
                },
                BatchSize::SmallInput,
            );
        });
        let mut naive = Naive::default();
        group.bench_function("naive", |b| {
            b.iter_batched(
                || burst.clone(),
                |burst| {
                    now += MS;
                    for datagram in burst {
                        naive.push(now, datagram);
                    }
                    while let Some(datagram) = naive.pop(now) {
                        black_box(&datagram);
                    }
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(queue, bursts);
criterion_main!(queue);
