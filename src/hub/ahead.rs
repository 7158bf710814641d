//! Lists that show an id which this server hasn't read yet: a client that comes from another server may be ahead of this
//! one by a moment. Such a list waits until its id has come, or can't come any more, or for as long as that may take.
//!
//! Knows who waits and for what; the list itself stands at the front of its connection's line of answers that are owed.
//! Main type: [`Ahead`]. Invariant: none of them waits for longer than those behind it; `lowest` isn't above any place that
//! is waited for.

use std::collections::VecDeque;

use crate::id::ConnectionId;
use crate::journal::id::StreamId;
use crate::time::Timestamp;

/// A list that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    /// Whose.
    pub(super) id: ConnectionId,
    /// What it shows.
    pub(super) since: StreamId,
    /// It doesn't wait for longer.
    pub(super) until: Timestamp,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Ahead {
    waiting: VecDeque<Waiting>,
    /// Nobody waits for what lies ahead of it.
    lowest: (u64, u64),
    /// Whether some may have waited for long enough.
    is_due: bool,
}

impl Ahead {
    /// A list begins to wait.
    pub(super) fn insert(&mut self, waiting: Waiting) {
        let place = waiting.since.place();
        self.lowest = match self.waiting.is_empty() {
            true => place,
            false => self.lowest.min(place),
        };
        self.waiting.push_back(waiting);
    }

    /// What was read has come to a place in the stream.
    #[inline]
    pub(super) fn note(&mut self, id: StreamId) {
        self.is_due |= !self.waiting.is_empty() && self.lowest <= id.place();
    }

    /// Nothing that is waited for may come any more.
    pub(super) fn look_again(&mut self) {
        self.is_due = !self.waiting.is_empty();
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        match self.is_due {
            true => Some(Timestamp::ZERO),
            false => self.waiting.front().map(|waiting| waiting.until),
        }
    }

    /// Takes one that has waited for long enough, since its id isn't `awaited` any more, or its time is over.
    pub(super) fn pop(
        &mut self,
        now: Timestamp,
        is_awaited: impl Fn(StreamId) -> bool,
    ) -> Option<ConnectionId> {
        if self.waiting.front()?.until <= now {
            return self.remove_at(0);
        }
        if !self.is_due {
            return None;
        }
        let is_over = |waiting: &Waiting| !is_awaited(waiting.since);
        let at = self.waiting.iter().position(is_over);
        if at.is_none() {
            self.is_due = false;
            let places = self.waiting.iter().map(|waiting| waiting.since.place());
            self.lowest = places.min().unwrap_or_default();
        }
        self.remove_at(at?)
    }

    fn remove_at(&mut self, at: usize) -> Option<ConnectionId> {
        let waiting = self.waiting.remove(at)?;
        if self.waiting.is_empty() {
            *self = Self::default();
        }
        Some(waiting.id)
    }

    /// Forgets the list of a connection, which is gone or closed.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        let at = self.waiting.iter().position(|waiting| waiting.id == id);
        at.and_then(|at| self.remove_at(at));
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Waiting>()
    }

    /// Asserts what the head of this file promises; `waits` knows whose list stands at the front of its line.
    pub(super) fn check_invariants(&self, waits: impl Fn(ConnectionId) -> bool) {
        assert!(self.waiting.iter().all(|waiting| waits(waiting.id)));
        let deadlines = self.waiting.iter().map(|waiting| waiting.until);
        assert!(deadlines.is_sorted());
        let mut places = self.waiting.iter().map(|waiting| waiting.since.place());
        assert!(places.all(|place| self.lowest <= place));
        assert!(!self.is_due || !self.waiting.is_empty());
        let mut ids: Vec<_> = self.waiting.iter().map(|waiting| waiting.id).collect();
        ids.sort_unstable();
        assert!(ids.is_sorted_by(|one, next| one < next));
    }
}
