//! Lists that show an id which this server hasn't read yet: a client that comes from another server may be ahead of this
//! one by a moment. Such a list waits until its id has come, or can't come any more, or for as long as that may take.
//!
//! Knows who waits and for what; the list itself stands at the front of its connection's line of answers that are owed.
//! Main type: [`Ahead`]. Invariants: deadlines in `queue` ascend, and whoever waits is in it, with others that waited once.

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

impl Waiting {
    /// What comes first in the stream comes first.
    const fn key(&self) -> ((u64, u64), u64, ConnectionId) {
        (self.since.place(), self.since.tag(), self.id)
    }
}

/// All that wait.
#[derive(Default)]
pub(super) struct Ahead {
    /// By what is read first, so that what has come is found at once, however many wait.
    by_place: VecDeque<Waiting>,
    queue: VecDeque<Waiting>,
    /// Whether the first may have waited for long enough.
    is_due: bool,
}

impl Ahead {
    /// A list begins to wait, or goes on in another process.
    pub(super) fn insert(&mut self, waiting: Waiting) {
        let until = waiting.until;
        // Somebody may wait again and again.
        if self.queue.len() > 64 + 2 * self.by_place.len() {
            let by_place = &self.by_place;
            self.queue.retain(|waiting| waits(by_place, waiting));
        }
        let key = waiting.key();
        let at = self.by_place.partition_point(|other| other.key() < key);
        self.by_place.insert(at, waiting);
        // Where it begins that is the end.
        let is_ahead = |other: &Waiting| other.until <= until;
        let at = self.queue.partition_point(is_ahead);
        self.queue.insert(at, waiting);
    }

    /// How long the list of a connection waits that shows this.
    pub(super) fn until(&self, id: ConnectionId, since: StreamId) -> Option<Timestamp> {
        let at = find(&self.by_place, id, since)?;
        Some(self.by_place[at].until)
    }

    /// What was read has come to a place in the stream.
    pub(super) fn note(&mut self, id: StreamId) {
        let first = self.by_place.front();
        self.is_due |= first.is_some_and(|first| first.since.place() <= id.place());
    }

    /// What is waited for may not come any more.
    pub(super) fn look_again(&mut self) {
        self.is_due = !self.by_place.is_empty();
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        match self.is_due {
            true => Some(Timestamp::ZERO),
            false => self.queue.front().map(|waiting| waiting.until),
        }
    }

    /// Takes one that has waited for long enough, since its id isn't `awaited` any more, or its time is over. Whoever
    /// waits for a later place than one who goes on waiting does so, too.
    pub(super) fn pop(
        &mut self,
        now: Timestamp,
        is_awaited: impl Fn(StreamId) -> bool,
    ) -> Option<ConnectionId> {
        while let Some(waiting) = self.queue.front() {
            let (waiting, is_waiting) = (*waiting, waits(&self.by_place, waiting));
            if is_waiting && waiting.until > now {
                break;
            }
            self.queue.pop_front();
            if is_waiting {
                self.remove(waiting.id, waiting.since);
                return Some(waiting.id);
            }
        }
        if !self.is_due {
            return None;
        }
        let Waiting { id, since, .. } = *self.by_place.front()?;
        if is_awaited(since) {
            self.is_due = false;
            return None;
        }
        self.remove(id, since);
        Some(id)
    }

    /// Forgets the list of a connection that shows this.
    pub(super) fn remove(&mut self, id: ConnectionId, since: StreamId) {
        find(&self.by_place, id, since).and_then(|at| self.by_place.remove(at));
        if self.by_place.is_empty() {
            *self = Self::default();
        }
    }

    /// Bytes on the heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        (self.queue.capacity() + self.by_place.capacity()) * size_of::<Waiting>()
    }

    /// Asserts what the head of this file promises; `shown` knows what the list at the front of a connection's line waits
    /// for.
    pub(super) fn check_invariants(&self, shown: impl Fn(ConnectionId) -> Option<StreamId>) {
        for waiting in &self.by_place {
            assert_eq!(shown(waiting.id), Some(waiting.since));
            assert!(self.queue.contains(waiting));
        }
        let keys = self.by_place.iter().map(Waiting::key);
        assert!(keys.is_sorted_by(|one, next| one < next));
        let deadlines = self.queue.iter().map(|waiting| waiting.until);
        assert!(deadlines.is_sorted());
        assert!(!self.is_due || !self.by_place.is_empty());
    }
}

/// Where the list of a connection is that shows `since`.
fn find(by_place: &VecDeque<Waiting>, id: ConnectionId, since: StreamId) -> Option<usize> {
    let key = (since.place(), since.tag(), id);
    by_place.binary_search_by_key(&key, Waiting::key).ok()
}

/// Whether it is one of those that wait now.
fn waits(by_place: &VecDeque<Waiting>, waiting: &Waiting) -> bool {
    let at = find(by_place, waiting.id, waiting.since);
    at.is_some_and(|at| by_place[at] == *waiting)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn id(index: u32) -> ConnectionId {
        ConnectionId { index, serial: 0 }
    }

    fn entry(millis: u64) -> StreamId {
        StreamId::new(millis, 0, 7).expect("short")
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn waiting(index: u32, millis: u64, until: u64) -> Waiting {
        Waiting {
            id: id(index),
            since: entry(millis),
            until: at(until),
        }
    }

    #[test]
    fn whoever_waits_is_let_go_by_place_or_by_time() {
        let mut ahead = Ahead::default();
        for (index, millis) in [(0, 30), (1, 10), (2, 20), (3, 10), (4, 40)] {
            ahead.insert(waiting(index, millis, 5 + u64::from(index)));
        }
        let read = |millis: u64| move |since: StreamId| since.place().0 > millis;
        ahead.note(entry(9));
        assert_eq!(ahead.next_deadline(), Some(at(5)));
        assert_eq!(ahead.pop(at(1), read(9)), None);
        ahead.note(entry(20));
        assert_eq!(ahead.next_deadline(), Some(Timestamp::ZERO));
        for index in [1, 3, 2] {
            assert_eq!(ahead.pop(at(1), read(20)), Some(id(index)));
        }
        assert_eq!(ahead.pop(at(1), read(20)), None);
        assert_eq!(ahead.next_deadline(), Some(at(5)));
        assert_eq!(ahead.pop(at(5), read(20)), Some(id(0)));
        assert_eq!(ahead.pop(at(8), read(20)), None);
        ahead.look_again();
        assert_eq!(ahead.pop(at(8), |_| false), Some(id(4)));
        assert_eq!(ahead.next_deadline(), None);
        assert_eq!(ahead.heap_bytes(), 0);
    }

    #[test]
    fn whoever_waits_again_and_again_takes_no_more_room() {
        let mut ahead = Ahead::default();
        ahead.insert(waiting(0, 50, 1));
        for _ in 0..1000 {
            ahead.insert(waiting(1, 10, 1));
            ahead.remove(id(1), entry(10));
        }
        assert!(ahead.queue.len() < 100);
        ahead.check_invariants(|_| Some(entry(50)));
        assert_eq!(ahead.pop(at(1), |_| true), Some(id(0)));
        assert_eq!(ahead.next_deadline(), None);
    }
}
