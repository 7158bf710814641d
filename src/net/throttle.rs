//! What one client may send a second, as token buckets in whole numbers.
//!
//! What has come is charged when it has come, so a bucket may go into debt; until it is out of
//! it the client is not read. Knows no sockets and no clock. Main type: [`Throttle`].
//!
//! Invariants: a bucket never holds more than its burst; a pause ends after the time at which
//! it began.

mod saved;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::ServerLimits;
use crate::time::Timestamp;

use super::transport::READ_BYTES_MAX;

/// What a client that was silent may send at once, in seconds of its rate.
const BURST_SECONDS: i64 = 2;

/// The largest debt, in seconds of the rate. While a client isn't read, neither its Close nor its
/// answer to a Ping is seen, so it must not be for long, whatever one read has brought.
const DEBT_SECONDS_MAX: i64 = 5;

const MICROS_A_SECOND: i64 = 1_000_000;

/// The rates of one client, and the pause that it has earned.
#[derive(Debug)]
pub struct Throttle {
    frames: Option<Bucket>,
    bytes: Option<Bucket>,
    pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    /// Up to when it was taken into account.
    counted: Timestamp,
    until: Timestamp,
}

impl Throttle {
    /// The rates that `limits` grant from `now` on; `None` if there are none.
    #[must_use]
    pub fn new(limits: &ServerLimits, now: Timestamp) -> Option<Box<Self>> {
        let frames = limits.messages_per_second;
        let bytes = limits.bytes_per_second;
        limits.has_rates().then(|| {
            Box::new(Self {
                frames: frames.map(|rate| Bucket::new(rate, 1, now)),
                bytes: bytes.map(|rate| Bucket::new(rate, READ_BYTES_MAX, now)),
                pause: None,
            })
        })
    }

    /// Takes what has come into account; says whether a pause begins.
    pub fn charge(&mut self, frames: usize, bytes: usize, now: Timestamp) -> bool {
        let charged = [(&mut self.frames, frames), (&mut self.bytes, bytes)];
        let until = charged
            .into_iter()
            .filter_map(|(bucket, amount)| bucket.as_mut()?.charge(amount, now))
            .max();
        self.pause = until.map(|until| Pause {
            counted: now,
            until,
        });
        self.pause.is_some()
    }

    /// When the pause ends, if there is one.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.pause.map(|pause| pause.until)
    }

    /// How much of the pause has passed since this was last asked. A pause that is over is
    /// gone after this.
    pub fn take_pause(&mut self, now: Timestamp) -> Option<Duration> {
        let Pause { counted, until } = self.pause?;
        self.pause = (now < until).then_some(Pause {
            counted: now,
            until,
        });
        Some(now - counted)
    }
}

/// So much of something a second.
#[derive(Debug)]
struct Bucket {
    rate: i64,
    /// What it holds, in millionths: so much that no rounding adds up. Negative in debt.
    level: i64,
    level_max: i64,
    /// When that was.
    at: Timestamp,
}

impl Bucket {
    /// A full one, that holds `burst_min` at least.
    fn new(rate: NonZeroU32, burst_min: usize, now: Timestamp) -> Self {
        let rate = i64::from(rate.get());
        let level_max = (rate * BURST_SECONDS).max(burst_min as i64) * MICROS_A_SECOND;
        Self {
            rate,
            level: level_max,
            level_max,
            at: now,
        }
    }

    /// Takes `amount` out; says until when that leaves it in debt.
    fn charge(&mut self, amount: usize, now: Timestamp) -> Option<Timestamp> {
        let elapsed = i64::try_from((now - self.at).as_micros()).unwrap_or(i64::MAX);
        let refill = elapsed.saturating_mul(self.rate);
        self.at = now;
        let charge = (amount as i64).saturating_mul(MICROS_A_SECOND);
        self.level = self.level.saturating_add(refill).min(self.level_max);
        self.level = self.level.saturating_sub(charge).max(self.level_min());
        let micros = self.level.min(0).unsigned_abs().div_ceil(self.rate as u64);
        (micros > 0).then(|| now + Duration::from_micros(micros))
    }

    /// What it holds in the largest debt.
    const fn level_min(&self) -> i64 {
        -self.rate * DEBT_SECONDS_MAX * MICROS_A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    const fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn bucket(rate: u32) -> Bucket {
        Bucket::new(NonZeroU32::new(rate).expect("not zero"), 1, at(0))
    }

    fn throttle(frames: u32, bytes: u32) -> Option<Box<Throttle>> {
        let limits = ServerLimits {
            messages_per_second: NonZeroU32::new(frames),
            bytes_per_second: NonZeroU32::new(bytes),
            ..ServerLimits::default()
        };
        Throttle::new(&limits, at(0))
    }

    #[test]
    fn two_seconds_worth_may_come_at_once_and_no_more() {
        assert_eq!(bucket(10).charge(20, at(0)), None);
        assert_eq!(bucket(10).charge(21, at(0)), Some(at(100_000)));
        let mut bucket = bucket(10);
        assert_eq!(bucket.charge(0, at(3_600_000_000)), None);
        assert_eq!(
            bucket.charge(22, at(3_600_000_000)),
            Some(at(3_600_200_000))
        );
    }

    #[test]
    fn at_the_rate_it_is_never_in_debt() {
        for rate in [1, 3, 7, 1000, 300_007] {
            let mut bucket = bucket(rate);
            assert_eq!(bucket.charge(2 * rate as usize, at(0)), None);
            for count in 1..=2 * u64::from(rate).min(10_000) {
                let now = at((count * 1_000_000).div_ceil(u64::from(rate)));
                assert_eq!(bucket.charge(1, now), None, "{rate}, {count}");
            }
        }
    }

    #[test]
    fn over_time_no_more_comes_than_the_rate_allows() {
        for seed in 0..50 {
            let mut random = Rng::with_seed(seed);
            let rate = random.u64(1..=100_000);
            let mut bucket = bucket(rate as u32);
            let (mut now, mut sum) = (0, 0);
            for _ in 0..200 {
                let amount = random.u64(0..=3 * rate);
                sum += amount;
                let until = bucket.charge(amount as usize, at(now));
                now = until.map_or(now, Timestamp::as_micros) + random.u64(0..=1000);
                // When it is read again, all that came before is paid for.
                let paid = 2 * rate * 1_000_000 + rate * now;
                assert!(sum * 1_000_000 <= paid, "seed {seed}");
            }
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut bucket = bucket(u32::MAX);
        assert_eq!(bucket.charge(1, at(u64::MAX)), None);
        let mut slow = self::bucket(1);
        assert!(slow.charge(usize::MAX >> 1, at(0)).is_some());
        assert!(slow.charge(usize::MAX >> 1, at(1)).is_some());
    }

    #[test]
    fn the_later_of_both_rates_counts() {
        assert!(throttle(0, 0).is_none());
        let mut both = throttle(10, 100_000).expect("limited");
        assert!(!both.charge(20, 200_000, at(0)));
        assert!(both.charge(1, 100_000, at(0)));
        assert_eq!(both.until(), Some(at(1_000_000)));
        let mut bytes = throttle(0, 1).expect("limited");
        assert!(!bytes.charge(10_000, READ_BYTES_MAX, at(0)));
        assert!(bytes.charge(0, 1, at(0)));
    }

    #[test]
    fn a_pause_is_counted_once() {
        let mut throttle = throttle(10, 0).expect("limited");
        assert_eq!(throttle.take_pause(at(0)), None);
        assert!(throttle.charge(30, 0, at(0)));
        assert_eq!(throttle.until(), Some(at(1_000_000)));
        let mut take = |now| throttle.take_pause(at(now)).map(|pause| pause.as_micros());
        assert_eq!(take(400_000), Some(400_000));
        assert_eq!(take(1_000_001), Some(600_001));
        assert_eq!(take(1_000_001), None);
        assert_eq!(throttle.until(), None);
    }
}
