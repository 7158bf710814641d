//! The end of a byte stream when all has been said: what is queued is flushed, the sending side is shut,
//! and the peer's end of file is awaited. To close at once would have TCP reset the connection, and the
//! peer lose the last words.
//!
//! Main type: [`Lingering`]. Input that comes meanwhile is discarded unparsed.

use crate::handover::{Fields, Malformed, Members};
use crate::time::Timestamp;

// Members of a connection. The time is the first value of its state, whatever that is.
const SINCE: u8 = 14;
const STEP: u8 = 18;

// Steps in a state.
const FLUSH: u64 = 1;
const AWAIT_EOF: u64 = 2;
const FLUSH_AFTER_EOF: u64 = 3;

/// A stream that ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lingering {
    since: Timestamp,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The queue is to be flushed, then the sending side shut.
    Flush,
    /// The sending side is shut; the peer's end of file is awaited.
    AwaitEof,
    /// The peer's end of file came first: the queue is to be flushed.
    FlushAfterEof,
}

impl Lingering {
    /// The last byte was queued at `now`.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            step: Step::Flush,
        }
    }

    /// The peer sends no more, but what is queued still goes out; the end began at `since`.
    #[must_use]
    pub const fn after_eof(since: Timestamp) -> Self {
        Self {
            since,
            step: Step::FlushAfterEof,
        }
    }

    /// When the end began.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// Whether the sending side is to be shut now that the queue is empty; says so once.
    pub fn take_shutdown(&mut self) -> bool {
        if self.step == Step::Flush {
            self.step = Step::AwaitEof;
            return true;
        }
        false
    }

    /// Whether an empty queue is all that it waited for.
    #[must_use]
    pub fn ends_when_flushed(&self) -> bool {
        self.step == Step::FlushAfterEof
    }

    /// Writes what a successor must know.
    pub fn save(&self, members: &mut Members<'_>) {
        let Self { since, step } = self;
        members.time(SINCE, Some(*since));
        let step = match step {
            Step::Flush => FLUSH,
            Step::AwaitEof => AWAIT_EOF,
            Step::FlushAfterEof => FLUSH_AFTER_EOF,
        };
        members.number(STEP, step);
    }

    /// The end that was saved.
    ///
    /// # Errors
    /// Its time is missing, or its step isn't known.
    pub fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let since = fields.time(SINCE);
        Ok(Self {
            since: since.ok_or(Malformed("the end of a stream has no time"))?,
            step: match fields.number(STEP) {
                FLUSH => Step::Flush,
                AWAIT_EOF => Step::AwaitEof,
                FLUSH_AFTER_EOF => Step::FlushAfterEof,
                _ => return Err(Malformed("the end of a stream has no step")),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sending_side_is_shut_once_and_not_for_a_peer_that_has_gone() {
        let mut lingering = Lingering::new(Timestamp::ZERO);
        assert!(lingering.take_shutdown() && !lingering.take_shutdown());
        assert!(!lingering.ends_when_flushed());
        let mut flushing = Lingering::after_eof(Timestamp::ZERO);
        assert!(!flushing.take_shutdown() && flushing.ends_when_flushed());
    }

    #[test]
    fn every_step_is_carried() {
        let carried = |lingering: &Lingering| {
            let mut bytes = Vec::new();
            lingering.save(&mut Members::new(&mut bytes));
            Lingering::restore(&Fields::parse(&bytes).expect("members"))
        };
        let mut lingering = Lingering::new(Timestamp::ZERO);
        assert_eq!(carried(&lingering), Ok(lingering));
        assert!(lingering.take_shutdown());
        assert_eq!(carried(&lingering), Ok(lingering));
        let flushing = Lingering::after_eof(Timestamp::from_micros(7));
        assert_eq!(carried(&flushing), Ok(flushing));
    }

    #[test]
    fn what_is_no_end_is_malformed() {
        for (time, step, is_end) in [
            (Some(Timestamp::ZERO), FLUSH_AFTER_EOF, true),
            (Some(Timestamp::ZERO), FLUSH_AFTER_EOF + 1, false),
            (Some(Timestamp::ZERO), 0, false),
            (None, FLUSH, false),
        ] {
            let mut bytes = Vec::new();
            let mut members = Members::new(&mut bytes);
            members.time(SINCE, time);
            members.number(STEP, step);
            let fields = Fields::parse(&bytes).expect("members");
            assert_eq!(Lingering::restore(&fields).is_ok(), is_end);
        }
    }
}
