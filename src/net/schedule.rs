//! In which order connections are read when there is not time for all of them at once.
//!
//! Publishers come first: what they send is what everybody else waits for. Then come new
//! connections, any of which may be a publisher's that is closed again in a moment. Connections
//! that have been served before share what time is left. Knows no sockets and no time; that a
//! connection is listed once is what its mark `is_ready` says. Main type: [`ReadyLists`].

use std::collections::VecDeque;

use crate::id::ConnectionId;

/// What a connection is to the order of reading; the first comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Priority {
    /// It has shown that it may publish, or came through the publishers' door.
    Publisher,
    /// Nothing that it has sent was answered yet, but for its upgrade.
    New,
    /// It was served before.
    Served,
}

impl Priority {
    pub(super) const ALL: [Self; 3] = [Self::Publisher, Self::New, Self::Served];
}

/// Connections with something to be read or handled, by priority; first in, first out.
#[derive(Default, Debug)]
pub(super) struct ReadyLists([VecDeque<ConnectionId>; Priority::ALL.len()]);

impl ReadyLists {
    /// Puts a connection behind those of its priority.
    pub(super) fn push(&mut self, id: ConnectionId, priority: Priority) {
        self.0[priority as usize].push_back(id);
    }

    /// Takes the first connection of a priority.
    pub(super) fn pop(&mut self, priority: Priority) -> Option<ConnectionId> {
        self.0[priority as usize].pop_front()
    }

    /// How many connections of a priority wait.
    pub(super) fn len(&self, priority: Priority) -> usize {
        self.0[priority as usize].len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    /// Gives back the memory of a crowd that has gone.
    pub(super) fn shrink(&mut self) {
        self.0.iter_mut().for_each(VecDeque::shrink_to_fit);
    }
}
