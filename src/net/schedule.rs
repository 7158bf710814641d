//! The lists of the loop: which connections have something to be read, to be written, or to be settled,
//! and in which order connections are read when there is not time for all of them.
//!
//! Publishers come first: what they send is what everybody else waits for. Then come new
//! connections, any of which may be a publisher's that is closed again in a moment. Connections
//! that have been served before share what time is left. Knows no sockets and no time. Main type:
//! [`Schedule`].
//!
//! Invariant: a connection is on a list once, and its [`Membership`] says so.

use std::collections::VecDeque;

use crate::id::ConnectionId;

/// Entries for which a list keeps room when it has none.
const KEPT_MAX: usize = 64;

/// Frames that are queued to subscribers before they are written. Even where a frame is shared,
/// each of its entries takes memory, and time.
pub(super) const UNWRITTEN_MAX: usize = 1 << 20;

/// What a connection is to the order of reading; the first comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Priority {
    /// It has shown that it may publish, or came through the publishers' lane.
    Publisher,
    /// Nothing that it has sent was answered yet, but for its upgrade.
    New,
    /// It was served before.
    Served,
}

impl Priority {
    pub(super) const ALL: [Self; 3] = [Self::Publisher, Self::New, Self::Served];
}

/// The lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum List {
    /// Something is to be read or handled.
    Ready(Priority),
    /// An answer is to be written: a handshake, a reply, a control frame.
    Replies,
    /// Deliveries are to be written.
    Deliveries,
    /// The send queue did not take a delivery: the connection is to be cut off, and gets nothing more.
    Overflowed,
    /// The session has left Open, and the application is to be told.
    Gone,
    /// The send queue has drained, and the application is to be told.
    Drained,
    /// The send queue is over its limit, which is allowed as long as the history holds what is in it.
    Behind,
    /// The connection is to be dropped.
    Closed,
}

impl List {
    const COUNT: usize = 10;

    const fn index(self) -> usize {
        match self {
            Self::Ready(priority) => priority as usize,
            Self::Replies => 3,
            Self::Deliveries => 4,
            Self::Overflowed => 5,
            Self::Gone => 6,
            Self::Drained => 7,
            Self::Closed => 8,
            Self::Behind => 9,
        }
    }

    /// Its bit in a [`Membership`]; a connection is ready in one priority only.
    const fn bit(self) -> u8 {
        match self {
            Self::Ready(_) => 1,
            other => 1 << (other.index() - 2),
        }
    }
}

/// On which lists a connection is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Membership(u8);

impl Membership {
    /// Whether it is on `list`.
    #[inline]
    pub(super) const fn contains(self, list: List) -> bool {
        self.0 & list.bit() != 0
    }

    /// Notes that it was taken from `list`.
    #[inline]
    pub(super) const fn remove(&mut self, list: List) {
        self.0 &= !list.bit();
    }
}

/// All lists; first in, first out.
#[derive(Default, Debug)]
pub(super) struct Schedule {
    lists: [VecDeque<ConnectionId>; List::COUNT],
    /// Frames that were queued to subscribers since the list of deliveries was last empty.
    unwritten: usize,
}

impl Schedule {
    /// Puts a connection at the end of a list, unless it is on it.
    #[inline]
    pub(super) fn add(&mut self, list: List, id: ConnectionId, membership: &mut Membership) {
        if !membership.contains(list) {
            membership.0 |= list.bit();
            self.lists[list.index()].push_back(id);
        }
    }

    /// Takes the first connection of a list, which isn't on it any more: tell its [`Membership`].
    #[inline]
    pub(super) fn pop(&mut self, list: List) -> Option<ConnectionId> {
        self.lists[list.index()].pop_front()
    }

    /// How many connections are on a list.
    pub(super) fn len(&self, list: List) -> usize {
        self.lists[list.index()].len()
    }

    /// Whether none is.
    #[inline]
    pub(super) fn is_empty(&self, list: List) -> bool {
        self.lists[list.index()].is_empty()
    }

    /// Whether connections wait to be read again.
    pub(super) fn has_ready(&self) -> bool {
        let mut priorities = Priority::ALL.into_iter();
        priorities.any(|priority| !self.is_empty(List::Ready(priority)))
    }

    /// The connections on a list, in order.
    pub(super) fn ids(&self, list: List) -> impl Iterator<Item = ConnectionId> {
        self.lists[list.index()].iter().copied()
    }

    /// Frames that were queued to subscribers and not written.
    pub(super) const fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Counts frames that are queued to subscribers.
    pub(super) const fn count_unwritten(&mut self, frames: usize) {
        self.unwritten += frames;
    }

    /// Notes that all of them are written.
    pub(super) const fn note_written(&mut self) {
        self.unwritten = 0;
    }

    /// Whether deliveries are to be written before more of them are queued.
    #[inline]
    pub(super) const fn is_congested(&self) -> bool {
        self.unwritten >= UNWRITTEN_MAX
    }

    /// Gives back the memory of a crowd that has gone.
    pub(super) fn shrink(&mut self) {
        for list in &mut self.lists {
            list.shrink_to(KEPT_MAX);
        }
    }

    /// Asserts that every entry of every list is on it once, and that `membership_of` knows; it returns
    /// `None` for a connection that is gone.
    pub(super) fn check_invariants(
        &self,
        membership_of: impl Fn(ConnectionId) -> Option<Membership>,
    ) {
        let ready = Priority::ALL.map(List::Ready);
        let others = [
            List::Replies,
            List::Deliveries,
            List::Overflowed,
            List::Gone,
            List::Drained,
            List::Behind,
            List::Closed,
        ];
        let ready: Vec<_> = ready.into_iter().flat_map(|list| self.ids(list)).collect();
        let groups = [(List::Ready(Priority::New), ready)]
            .into_iter()
            .chain(others.map(|list| (list, self.ids(list).collect())));
        for (list, mut ids) in groups {
            let knows = |id: &ConnectionId| membership_of(*id).is_none_or(|of| of.contains(list));
            assert!(ids.iter().all(knows), "{list:?} has a stranger");
            let len = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), len, "{list:?} has a connection twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ConnectionId = ConnectionId {
        index: 3,
        serial: 1,
    };

    #[test]
    fn a_connection_is_on_a_list_once() {
        let mut schedule = Schedule::default();
        let mut membership = Membership::default();
        for list in [List::Replies, List::Closed, List::Ready(Priority::New)] {
            schedule.add(list, ID, &mut membership);
            schedule.add(list, ID, &mut membership);
            assert_eq!(schedule.len(list), 1, "{list:?}");
        }
        // Whatever its priority is meanwhile.
        schedule.add(List::Ready(Priority::Served), ID, &mut membership);
        assert!(schedule.is_empty(List::Ready(Priority::Served)) && schedule.has_ready());
        schedule.check_invariants(|_| Some(membership));
        assert_eq!(schedule.pop(List::Ready(Priority::New)), Some(ID));
        membership.remove(List::Ready(Priority::New));
        assert!(!schedule.has_ready() && membership.contains(List::Replies));
        schedule.check_invariants(|_| Some(membership));
    }
}
