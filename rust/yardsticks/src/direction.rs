//! One direction of a bad line as a pure machine: packets go in with a time, and come out with the time they arrive.
//!
//! It does what the lab's emulator in Python does (`softlan.lab.emulator`), some ten times as fast.

/// What one direction does to what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bits a second, IP headers included; 0: as fast as it goes.
    pub rate: f64,
    /// Nanoseconds from the end of sending to arrival.
    pub delay_ns: u64,
    /// Bytes that may wait for the rate; what comes on top is dropped.
    pub buffer: f64,
    /// Probability of a random loss, 0 to 1.
    pub loss: f64,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that arrived or will.
    pub carried: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets the buffer had no room for.
    pub overflowed: u64,
}

/// One direction. The same seed gives the same losses for the same sequence of packets, not for the same wall clock.
#[derive(Debug)]
pub struct Direction {
    shape: Shape,
    random: u64,
    free_at: u64,
    /// What became of the packets.
    pub tally: Tally,
}

impl Direction {
    /// An idle direction.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self { shape, random: seed, free_at: 0, tally: Tally::default() }
    }

    /// The time, in nanoseconds, at which an IP packet of `size` bytes that enters at `now` arrives; `None` when it is lost.
    pub fn offer(&mut self, now: u64, size: usize) -> Option<u64> {
        if self.draw() < self.shape.loss {
            self.tally.lost += 1;
            return None;
        }
        let mut sent = now;
        if self.shape.rate > 0.0 {
            let backlog = self.free_at.saturating_sub(now) as f64 * self.shape.rate / 8e9;
            if backlog + size as f64 > self.shape.buffer {
                self.tally.overflowed += 1;
                return None;
            }
            sent = now.max(self.free_at) + (size as f64 * 8e9 / self.shape.rate) as u64;
            self.free_at = sent;
        }
        self.tally.carried += 1;
        self.tally.bytes += size as u64;
        Some(sent + self.shape.delay_ns)
    }

    /// A number from 0 to below 1 (splitmix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Shape = Shape { rate: 8e6, delay_ns: 5_000_000, buffer: 3000.0, loss: 0.0 };

    #[test]
    fn rate_delay_and_buffer() {
        let mut direction = Direction::new(PLAIN, 1);
        // 1000 bytes at 8 Mbit/s take a millisecond, and the next waits for them.
        assert_eq!(direction.offer(0, 1000), Some(6_000_000));
        assert_eq!(direction.offer(0, 1000), Some(7_000_000));
        assert_eq!(direction.offer(0, 1000), Some(8_000_000));
        assert_eq!(direction.offer(0, 1000), None);
        assert_eq!(direction.offer(1_000_000, 1000), Some(9_000_000));
        assert_eq!(direction.tally, Tally { carried: 4, bytes: 4000, lost: 0, overflowed: 1 });
    }

    #[test]
    fn losses_follow_the_seed_and_the_probability() {
        let run = |seed| -> Vec<bool> {
            let mut direction = Direction::new(Shape { loss: 0.01, rate: 0.0, ..PLAIN }, seed);
            (0..100_000).map(|at| direction.offer(at, 100).is_none()).collect()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let lost = run(7).iter().filter(|lost| **lost).count();
        assert!((850..1150).contains(&lost), "{lost} of 100000");
    }
}
