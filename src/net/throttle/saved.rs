//! What one client has sent of late, written for a successor and restored.
//!
//! The rates are the successor's own. Invariant: what is restored keeps no client waiting for longer than a debt may
//! last, whatever was written.

use std::time::Duration;

use super::{Bucket, DEBT_SECONDS_MAX, Pause, Throttle};
use crate::config::ServerLimits;
use crate::handover::{Fields, Malformed, Members};
use crate::time::Timestamp;

// Members of a throttle.
const FRAMES_LEVEL: u8 = 1;
const FRAMES_AT: u8 = 2;
const BYTES_LEVEL: u8 = 3;
const BYTES_AT: u8 = 4;
const PAUSE_COUNTED: u8 = 5;
const PAUSE_UNTIL: u8 = 6;

impl Throttle {
    /// Writes how much the client may send, and the pause that it has earned.
    pub fn save(&self, members: &mut Members<'_>) {
        let Self {
            frames,
            bytes,
            pause,
        } = self;
        if let Some(frames) = frames {
            frames.save(members, FRAMES_LEVEL, FRAMES_AT);
        }
        if let Some(bytes) = bytes {
            bytes.save(members, BYTES_LEVEL, BYTES_AT);
        }
        if let Some(Pause { counted, until }) = *pause {
            members.time(PAUSE_COUNTED, Some(counted));
            members.time(PAUSE_UNTIL, Some(until));
        }
    }

    /// The rates that `limits` grant, with what was written of those that the client had; those that are new apply from
    /// `now` on. `None` if there are none any more: with them a pause is over.
    ///
    /// # Errors
    /// A pause doesn't end after it began.
    pub fn restore(
        fields: &Fields<'_>,
        limits: &ServerLimits,
        now: Timestamp,
    ) -> Result<Option<Box<Self>>, Malformed> {
        let pause = Pause::restore(fields, now)?;
        Ok(Self::new(limits, now).map(|mut throttle| {
            if let Some(frames) = &mut throttle.frames {
                frames.resume(fields, FRAMES_LEVEL, FRAMES_AT);
            }
            if let Some(bytes) = &mut throttle.bytes {
                bytes.resume(fields, BYTES_LEVEL, BYTES_AT);
            }
            throttle.pause = pause;
            throttle
        }))
    }
}

impl Bucket {
    fn save(&self, members: &mut Members<'_>, level_member: u8, at_member: u8) {
        let Self {
            // From the limits, with `level_max`.
            rate: _,
            level,
            level_max: _,
            at,
        } = self;
        members.signed(level_member, *level);
        members.time(at_member, Some(*at));
    }

    /// Goes on with the level that was written, if there is one. A full one of a higher rate is cut to this one.
    fn resume(&mut self, fields: &Fields<'_>, level_member: u8, at_member: u8) {
        // A new one's time is the present; none is later.
        if let Some(at) = fields.time(at_member) {
            self.at = self.at.min(at);
            let level = fields.signed(level_member);
            self.level = level.clamp(self.level_min(), self.level_max);
        }
    }
}

impl Pause {
    fn restore(fields: &Fields<'_>, now: Timestamp) -> Result<Option<Self>, Malformed> {
        let counted = fields.time(PAUSE_COUNTED);
        let (Some(counted), Some(until)) = (counted, fields.time(PAUSE_UNTIL)) else {
            return Ok(None);
        };
        if until <= counted {
            return Err(Malformed("a pause ends before it begins"));
        }
        let until_max = now + Duration::from_secs(DEBT_SECONDS_MAX.unsigned_abs());
        Ok(Some(Self {
            counted: counted.min(now),
            until: until.min(until_max),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::{BURST_SECONDS, MICROS_A_SECOND};
    use super::*;
    use fastrand::Rng;

    const fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn limits(frames: u32, bytes: u32) -> ServerLimits {
        ServerLimits {
            messages_per_second: NonZeroU32::new(frames),
            bytes_per_second: NonZeroU32::new(bytes),
            ..ServerLimits::default()
        }
    }

    fn written(throttle: &Throttle) -> Vec<u8> {
        let mut bytes = Vec::new();
        throttle.save(&mut Members::new(&mut bytes));
        bytes
    }

    fn read(
        bytes: &[u8],
        limits: &ServerLimits,
        now: Timestamp,
    ) -> Result<Option<Box<Throttle>>, Malformed> {
        Throttle::restore(&Fields::parse(bytes)?, limits, now)
    }

    /// The throttle as a successor with the same limits has it.
    fn carried(throttle: &Throttle, limits: &ServerLimits, now: Timestamp) -> Box<Throttle> {
        let bytes = written(throttle);
        let carried = read(&bytes, limits, now).expect("it was written");
        let carried = carried.expect("it is limited");
        assert_eq!(written(&carried), bytes);
        carried
    }

    #[test]
    fn carried_at_every_moment_it_says_the_same() {
        for seed in 0..100 {
            let mut random = Rng::with_seed(seed);
            let (frames, bytes) = [(10, 0), (0, 2000), (7, 3001)][random.usize(..3)];
            let limits = limits(frames, bytes);
            let mut now = random.u64(..1_000_000);
            let mut kept = Throttle::new(&limits, at(now)).expect("it is limited");
            let mut restored = carried(&kept, &limits, at(now));
            for _ in 0..200 {
                now += random.u64(0..1_000_000);
                if random.bool() {
                    let (frames, bytes) = (random.usize(..20), random.usize(..10_000));
                    let is_paused = kept.charge(frames, bytes, at(now));
                    assert_eq!(restored.charge(frames, bytes, at(now)), is_paused);
                } else {
                    let pause = kept.take_pause(at(now));
                    assert_eq!(restored.take_pause(at(now)), pause);
                }
                restored = carried(&restored, &limits, at(now));
                assert_eq!(restored.until(), kept.until(), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_debt_is_carried() {
        let limits = limits(10, 0);
        let mut throttle = Throttle::new(&limits, at(0)).expect("it is limited");
        assert!(throttle.charge(30, 0, at(0)));
        let mut restored = carried(&throttle, &limits, at(500_000));
        assert_eq!(restored.until(), Some(at(1_000_000)));
        let pause = restored.take_pause(at(1_000_000));
        assert_eq!(pause, Some(Duration::from_secs(1)));
        assert!(!restored.charge(0, 0, at(1_000_000)));
        assert!(restored.charge(1, 0, at(1_000_000)));
    }

    #[test]
    fn the_rates_are_those_of_the_successor() {
        let throttle = Throttle::new(&limits(100, 0), at(0)).expect("it is limited");
        let bytes = written(&throttle);
        let read = |limits: ServerLimits| read(&bytes, &limits, at(0)).expect("it was written");
        assert!(read(limits(0, 0)).is_none());
        // Twice the rate a second, no more, of what was much more; and as much of what is new.
        let mut lower = read(limits(10, 1000)).expect("it is limited");
        assert!(!lower.charge(20, 64 * 1024, at(0)));
        assert!(lower.charge(1, 0, at(0)) && lower.charge(0, 1, at(0)));
        // What was full isn't full of more.
        let mut higher = read(limits(1000, 0)).expect("it is limited");
        assert!(!higher.charge(200, 0, at(0)) && higher.charge(1, 0, at(0)));
        let mut other = read(limits(0, 1000)).expect("it is limited");
        assert!(!other.charge(1_000_000, 64 * 1024, at(0)));
    }

    #[test]
    fn limits_at_max_and_one_more() {
        let limits = limits(10, 0);
        let now = at(100_000_000);
        let restored = |level: i64, counted: u64, until: u64| {
            let mut bytes = Vec::new();
            let mut members = Members::new(&mut bytes);
            members.signed(FRAMES_LEVEL, level);
            members.time(FRAMES_AT, Some(now));
            members.time(PAUSE_COUNTED, Some(at(counted)));
            members.time(PAUSE_UNTIL, Some(at(until)));
            read(&bytes, &limits, now).map(|throttle| throttle.expect("it is limited"))
        };
        let level_max = 10 * BURST_SECONDS * MICROS_A_SECOND;
        let level_min = -10 * DEBT_SECONDS_MAX * MICROS_A_SECOND;
        for (level, expected) in [
            (level_max, level_max),
            (level_max + 1, level_max),
            (i64::MAX, level_max),
            (level_min, level_min),
            (level_min - 1, level_min),
            (i64::MIN, level_min),
        ] {
            let throttle = restored(level, 0, 1).expect("it is possible");
            let frames = throttle.frames.expect("it is limited");
            assert_eq!(frames.level, expected);
        }
        let until_max = now.as_micros() + 5_000_000;
        for (until, expected) in [
            (until_max, until_max),
            (until_max + 1, until_max),
            (u64::MAX, until_max),
        ] {
            let throttle = restored(0, 0, until).expect("it is possible");
            assert_eq!(throttle.until(), Some(at(expected)));
        }
        for (counted, until, is_possible) in [(5, 6, true), (5, 5, false), (6, 5, false)] {
            assert_eq!(restored(0, counted, until).is_ok(), is_possible);
        }
        // What lies ahead of its time keeps nobody waiting either.
        let throttle = restored(0, u64::MAX - 2, u64::MAX - 1).expect("it is possible");
        assert_eq!(throttle.until(), Some(at(until_max)));
    }

    #[test]
    fn any_bytes_are_a_throttle_or_are_refused() {
        let mut random = Rng::with_seed(18);
        let limits = limits(10, 1000);
        let now = at(1_000_000_000);
        let mut throttle = Throttle::new(&limits, at(999_000_000)).expect("it is limited");
        assert!(throttle.charge(25, 3000, at(999_500_000)));
        let whole = written(&throttle);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..4) {
                let position = random.usize(..bytes.len());
                bytes[position] = random.u8(..);
            }
            let Ok(throttle) = read(&bytes, &limits, now) else {
                refused += 1;
                continue;
            };
            let mut throttle = throttle.expect("it is limited");
            carried(&throttle, &limits, now);
            let later = now + Duration::from_secs(DEBT_SECONDS_MAX.unsigned_abs());
            assert!(throttle.until().is_none_or(|until| until <= later));
            throttle.take_pause(later);
            assert_eq!(throttle.until(), None);
            throttle.charge(0, 0, later);
            assert_eq!(throttle.until(), None, "the largest debt is paid");
        }
        assert!((100..19_000).contains(&refused), "{refused}");
    }
}
