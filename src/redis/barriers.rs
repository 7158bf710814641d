//! Barriers: entries behind which all is certain again, for every node. When one is to be written, and which of them ends a
//! doubt.
//!
//! A doubt is local and at once; it is over with the barrier that the epoch's key names then, or a later one: not with any,
//! since a node that lagged may still read that of an earlier failover. Main type: [`Barriers`]. Knows nothing of reading:
//! it is told whether a place still lies ahead.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::entry::{Nonce, Place};
use super::identity::{Epoch, Identity};
use crate::time::Timestamp;

/// After which time a barrier that couldn't be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How many barriers are remembered that were read while another was needed.
const SEEN_MAX: usize = 16;

/// Which barrier there has to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Need {
    None,
    /// One that speaks for this Redis, wherever it is.
    Any,
    /// One that is still going to be read.
    Ahead,
}

pub(super) struct Barriers {
    identity: Identity,
    /// The value of the epoch's key, as it was seen last.
    known: Vec<u8>,
    need: Need,
    /// Whether something may be gone, and the barrier that ends this hasn't come.
    is_cut: bool,
    is_due: bool,
    is_asked: bool,
    retry_at: Option<Timestamp>,
    /// How often the script has answered since the need arose.
    answers: u32,
    /// Of those that were asked for since the need arose.
    nonces: Range<u64>,
    /// One that somebody else has written for this need.
    awaited: Option<Place>,
    /// Those that were read since the need arose, the last few of them.
    seen: VecDeque<Place>,
    /// Whether this is another Redis than the one before, or has been something else meanwhile.
    is_suspect: bool,
}

mod saved;

impl Barriers {
    /// `nonce` is where its own nonces begin.
    pub(super) fn new(nonce: u64) -> Self {
        Self {
            identity: Identity::default(),
            known: Vec::new(),
            need: Need::None,
            is_cut: false,
            is_due: false,
            is_asked: false,
            retry_at: None,
            answers: 0,
            nonces: nonce..nonce,
            awaited: None,
            seen: VecDeque::new(),
            is_suspect: false,
        }
    }

    /// A link has come up. `has_read`: whether anything was read before. [`Self::settle`] is to follow.
    pub(super) fn meet(&mut self, identity: &Identity, value: &[u8], has_read: bool) {
        self.is_suspect |= has_read && Identity::may_have_lost(&self.identity, identity);
        self.identity = identity.clone();
        self.is_due = false;
        self.is_asked = false;
        self.retry_at = None;
        self.answers = 0;
        self.need = self.need.max(Need::Any);
        self.known = value.to_vec();
    }

    /// What made [`Self::meet`] suspicious is answered for by the caller.
    pub(super) const fn take_suspicion(&mut self) -> bool {
        std::mem::replace(&mut self.is_suspect, false)
    }

    /// Whether the epoch doesn't name this Redis, and nobody doubts for that reason.
    pub(super) const fn is_foreign(&self) -> bool {
        matches!(self.need, Need::Any)
    }

    /// Something may be gone. [`Self::settle`] is to follow.
    pub(super) fn doubt(&mut self) {
        self.is_cut = true;
        self.want();
    }

    /// There has to be one that is still going to be read. [`Self::settle`] is to follow.
    pub(super) fn want(&mut self) {
        self.need = Need::Ahead;
        self.nonces.start = self.nonces.end;
        self.awaited = None;
        self.answers = 0;
        self.seen.clear();
    }

    /// Looks at the value of the epoch's key that is known: whether it is good enough, or one has to be written.
    /// Whether a doubt ends, since its barrier was read before anybody said which it is.
    #[must_use]
    pub(super) fn settle(&mut self, lies_ahead: impl FnOnce(Place) -> bool) -> bool {
        let epoch = Epoch::read(&self.known).filter(|epoch| epoch.names(&self.identity));
        self.is_due = match (self.need, epoch) {
            (Need::None, _) => false,
            (Need::Any, Some(_)) => {
                self.need = Need::None;
                false
            }
            (Need::Ahead, Some(epoch)) if self.seen.contains(&epoch.barrier) => {
                return self.meet_need();
            }
            (Need::Ahead, Some(epoch)) if lies_ahead(epoch.barrier) => {
                self.awaited = Some(epoch.barrier);
                false
            }
            (Need::Any | Need::Ahead, _) => true,
        };
        false
    }

    /// Reading has come to where the one that was awaited had to be, or to the end: it was trimmed, or went with its branch.
    pub(super) fn miss(&mut self, last: Option<Place>) {
        let is_missed = |awaited| last.is_none_or(|last| awaited <= last);
        if self.awaited.is_some_and(is_missed) {
            self.awaited = None;
            self.is_due = self.need != Need::None;
        }
    }

    /// Takes what the script has returned. [`Self::settle`] is to follow.
    pub(super) fn take_value(&mut self, value: &[u8], now: Timestamp) {
        self.is_asked = false;
        self.answers += 1;
        // Once more at once is enough: whatever this is, it is no reason to fill the stream.
        self.retry_at = (self.answers > 1).then_some(now + RETRY);
        self.known = value.to_vec();
    }

    /// It couldn't be written.
    pub(super) fn take_error(&mut self, now: Timestamp) {
        self.is_asked = false;
        self.is_due = self.need != Need::None;
        self.retry_at = self.is_due.then_some(now + RETRY);
    }

    /// Whether one is to be written now: its identity, the value that is known, and its nonce. [`Self::take_value`],
    /// [`Self::take_error`] or [`Self::meet`] follows.
    pub(super) fn take_due(&mut self) -> Option<(String, &[u8], Nonce)> {
        if !self.is_due || self.is_asked || self.retry_at.is_some() {
            return None;
        }
        self.is_asked = true;
        self.is_due = false;
        let nonce = Nonce(self.nonces.end);
        self.nonces.end = self.nonces.end.wrapping_add(1);
        Some((self.identity.text(), &self.known, nonce))
    }

    /// A barrier has been read. Whether a doubt ends with it.
    pub(super) fn take_barrier(&mut self, place: Place, nonce: Option<Nonce>) -> bool {
        let is_own = nonce.is_some_and(|Nonce(nonce)| self.nonces.contains(&nonce));
        if !is_own && self.awaited.is_none_or(|awaited| place < awaited) {
            if self.seen.len() == SEEN_MAX {
                self.seen.pop_front();
            }
            self.seen.push_back(place);
            return false;
        }
        self.meet_need()
    }

    /// The barrier is there. Whether a doubt ends with it.
    fn meet_need(&mut self) -> bool {
        self.awaited = None;
        self.seen.clear();
        self.nonces.start = self.nonces.end;
        self.need = Need::None;
        self.is_due = false;
        std::mem::replace(&mut self.is_cut, false)
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if self.retry_at.is_some_and(|retry_at| retry_at <= now) {
            self.retry_at = None;
        }
    }

    pub(super) const fn next_deadline(&self) -> Option<Timestamp> {
        self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(run_id: &str) -> Identity {
        let mut identity = Identity::default();
        identity.read(format!("run_id:{run_id}\n").as_bytes());
        identity
    }

    const fn place(millis: u64) -> Place {
        Place {
            millis,
            sequence: 0,
        }
    }

    #[test]
    fn one_barrier_a_failover() {
        let mut barriers = Barriers::new(100);
        barriers.meet(&identity("a"), b"a/- 5-0", false);
        let _ = barriers.settle(|_| false);
        assert!(barriers.take_due().is_none() && !barriers.take_suspicion());
        // Another Redis, for which nobody has written one.
        barriers.meet(&identity("b"), b"a/- 5-0", true);
        assert!(barriers.take_suspicion());
        barriers.doubt();
        let _ = barriers.settle(|_| false);
        let due = barriers
            .take_due()
            .map(|(text, known, nonce)| (text, known.to_vec(), nonce));
        assert_eq!(
            due,
            Some(("b/-".to_owned(), b"a/- 5-0".to_vec(), Nonce(100)))
        );
        assert!(barriers.take_due().is_none());
        // Somebody else was first: that one serves.
        barriers.take_value(b"b/- 9-0", Timestamp::ZERO);
        let _ = barriers.settle(|place| place > self::place(7));
        assert!(barriers.take_due().is_none());
        // That of an earlier failover doesn't.
        assert!(!barriers.take_barrier(place(8), None));
        assert!(barriers.take_barrier(place(9), None));
        assert!(!barriers.take_barrier(place(10), None));
    }

    #[test]
    fn one_that_was_read_already_ends_nothing() {
        let mut barriers = Barriers::new(0);
        barriers.meet(&identity("a"), b"a/- 5-0", false);
        barriers.doubt();
        let _ = barriers.settle(|place| place > self::place(7));
        assert!(barriers.take_due().is_some());
        // Nor one that was read, if it was ahead of the doubt.
        barriers.take_value(b"a/- 6-0", Timestamp::ZERO);
        let _ = barriers.settle(|place| place > self::place(7));
        let (_, known, nonce) = barriers.take_due().expect("once more");
        assert_eq!((known, nonce), (b"a/- 6-0".as_slice(), Nonce(1)));
        // Its own is known by its nonce, ahead of the answer.
        assert!(barriers.take_barrier(place(8), Some(Nonce(1))));
        barriers.take_value(b"a/- 8-0", Timestamp::ZERO);
        let _ = barriers.settle(|place| place > self::place(8));
        assert!(barriers.take_due().is_none());
    }

    #[test]
    fn one_that_was_read_since_the_doubt_ends_it() {
        let mut barriers = Barriers::new(0);
        barriers.meet(&identity("a"), b"a/- 5-0", false);
        barriers.doubt();
        assert!(!barriers.settle(|_| false));
        assert!(barriers.take_due().is_some());
        assert!(!barriers.take_barrier(place(8), None));
        barriers.take_value(b"a/- 8-0", Timestamp::ZERO);
        assert!(barriers.settle(|_| false));
        assert!(!barriers.settle(|_| false) && barriers.take_due().is_none());
    }

    #[test]
    fn barriers_are_not_written_all_the_time() {
        let mut barriers = Barriers::new(0);
        barriers.meet(&identity("a"), b"", true);
        barriers.doubt();
        for seconds in 0..4 {
            let _ = barriers.settle(|_| false);
            // The first two at once, then one a second.
            assert!(barriers.take_due().is_some());
            let now = Timestamp::ZERO + RETRY * seconds;
            barriers.take_value(b"a/- 1-0", now);
            if seconds > 0 {
                let _ = barriers.settle(|_| false);
                assert!(barriers.take_due().is_none());
                barriers.handle_timeout(now + RETRY);
            }
        }
    }

    #[test]
    fn one_that_never_comes_is_written_anew() {
        let mut barriers = Barriers::new(0);
        for last in [None, Some(place(9))] {
            barriers.meet(&identity("a"), b"a/- 9-0", true);
            barriers.doubt();
            let _ = barriers.settle(|_| true);
            barriers.miss(Some(place(8)));
            assert!(barriers.take_due().is_none());
            barriers.miss(last);
            assert!(barriers.take_due().is_some());
        }
    }

    #[test]
    fn what_could_not_be_written_is_tried_again() {
        let mut barriers = Barriers::new(0);
        barriers.meet(&identity("a"), b"", false);
        let _ = barriers.settle(|_| false);
        assert!(barriers.take_due().is_some());
        let now = Timestamp::from_micros(5);
        barriers.take_error(now);
        assert!(barriers.take_due().is_none());
        assert_eq!(barriers.next_deadline(), Some(now + RETRY));
        barriers.handle_timeout(now + RETRY);
        assert!(barriers.take_due().is_some());
        // The link was lost meanwhile.
        barriers.meet(&identity("a"), b"", true);
        let _ = barriers.settle(|_| false);
        assert!(barriers.take_due().is_some());
        barriers.take_value(b"a/- 1-0", now);
        let _ = barriers.settle(|_| false);
        assert!(barriers.take_due().is_none());
    }
}
