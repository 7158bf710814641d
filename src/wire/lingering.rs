//! The end of a byte stream when all has been said: what is queued is flushed, the sending side is shut,
//! and the peer's end of file is awaited. To close at once would have TCP reset the connection, and the
//! peer lose the last words.
//!
//! Main type: [`Lingering`]. Input that comes meanwhile is discarded unparsed.

use crate::time::Timestamp;

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
}
