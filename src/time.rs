//! Points in time as one word, and the clock as an argument.
//!
//! Every connection stores several of these, so they are half the size of an `Instant`; and
//! because nothing below the shell can make one up, a test moves time by hand.

use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds since an origin that the [`Clock`] chose; monotonic.
///
/// Kept as one more than they are, so that an `Option` of it is one word too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(NonZeroU64);

const _: () = assert!(size_of::<Option<Timestamp>>() == 8);

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Timestamp {
    /// The origin of the clock.
    pub const ZERO: Self = Self::from_micros(0);

    /// A point `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// The time from `earlier` to `self`, zero if `earlier` is in fact later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

/// A source of the time: the shell in the product, the test in a test.
pub trait Clock {
    /// The current time; never less than what an earlier call returned.
    fn now(&self) -> Timestamp;

    /// The time since the Unix epoch by the wall clock, which jumps: for what others have dated,
    /// and never to measure with.
    fn unix_now(&self) -> Duration;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_and_subtract_without_overflow() {
        let start = Timestamp::from_micros(5);
        let later = start + Duration::from_millis(2);
        assert_eq!(later - start, Duration::from_millis(2));
        assert_eq!(start - later, Duration::ZERO);
        assert_eq!(start + Duration::MAX, Timestamp::from_micros(u64::MAX));
    }
}
