//! What the ids of a log are: of its own generations, or those that a stream has given to its entries.
//!
//! Knows positions and ids, nothing of what is at them. Main types: [`Ids`], [`StreamIds`].
//!
//! A stream has branches: after a failover it may go on from an older state, and give an id once more. So ids mean
//! something only from the newest *barrier* on, an entry that says that nothing before it can be resumed from. It takes
//! no position: it is what the position behind which it stands is called from then on. When a node finds that something
//! may be gone it *cuts*, and nothing can be resumed from until it has read the barrier that speaks of that.
//!
//! Invariants of [`StreamIds`]: it has the id of each position from `start` to the head, that of `start` only if an
//! entry was there; from `floor` on they ascend, the barrier's being that of `floor`. None is behind the head.

use std::collections::VecDeque;

use super::generations::Generations;
use super::id::{EntryId, ID_BYTES_MAX, OWN_ID_BYTES_MAX, Position, StreamId};
use super::record::POSITION_MAX;
use crate::handover::{Fields, Malformed, Members};

/// Why a client can't have what it missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotResumed {
    /// The history doesn't reach back so far.
    Expired,
    /// It isn't an id of this history.
    Unknown,
    /// It is beyond all that this node has read of the stream into its log, so it may still come.
    Ahead,
}

/// The ids of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ids {
    /// A generation of this server and a position.
    Own(Generations),
    /// Those of a stream.
    Stream(StreamIds),
}

impl Ids {
    /// What the frames of the entry at a position say.
    pub(super) fn entry_id(&self, position: Position) -> EntryId {
        match self {
            Self::Own(generations) => generations.id(position),
            Self::Stream(ids) => EntryId::Stream(ids.entry_id(position)),
        }
    }

    /// What a position is called.
    pub(super) fn id(&self, position: Position) -> EntryId {
        match self {
            Self::Own(generations) => generations.id(position),
            Self::Stream(ids) => EntryId::Stream(ids.id(position).unwrap_or(StreamId::NONE)),
        }
    }

    /// The position that an id was told of, in a log that ends at `head`. Whether all behind it is there is another
    /// question.
    ///
    /// # Errors
    /// It is of none that is known, or none that means something any more.
    pub(super) fn locate(&self, id: EntryId, head: Position) -> Result<Position, NotResumed> {
        match (self, id) {
            (
                Self::Own(generations),
                EntryId::Own {
                    generation,
                    position,
                },
            ) if generations.have_told(generation, position, head) => Ok(position),
            (Self::Stream(ids), EntryId::Stream(id)) => ids.locate(id),
            // One of the other sort was told when the server was configured otherwise.
            _ => Err(NotResumed::Unknown),
        }
    }

    /// Whether they are those of a stream.
    pub(super) const fn are_of_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// What a stream has called the entry at a position, where it has.
    pub(super) fn of_stream(&self, position: Position) -> Option<StreamId> {
        match self {
            Self::Own(_) => None,
            Self::Stream(ids) => ids.get(position),
        }
    }

    /// Takes the id of the entry behind the newest, where it isn't made of the position.
    pub(super) fn push(&mut self, id: EntryId) {
        match (self, id) {
            (Self::Stream(ids), EntryId::Stream(id)) => ids.push(id),
            (Self::Own(_), EntryId::Own { .. }) => {}
            _ => debug_assert!(false, "a log has ids of one sort"),
        }
    }

    /// Bytes of memory that an entry takes here.
    pub(super) const fn entry_bytes(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Stream(_) => StreamIds::ENTRY_BYTES,
        }
    }

    /// Lets go of what is ahead of `start`, where the history begins now.
    pub(super) fn trim(&mut self, start: Position) {
        if let Self::Stream(ids) = self {
            ids.trim(start);
        }
    }
}

/// The ids that a stream has given to the entries of a history.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct StreamIds {
    /// Of the positions behind `start`, in order.
    row: VecDeque<StreamId>,
    /// Where the history begins.
    start: Position,
    /// The id of the entry at `start`: it has left the history, but who has it has missed nothing of what is there.
    before: Option<StreamId>,
    /// From here on ids mean something.
    floor: Position,
    /// What `floor` is called, if a barrier stands behind it.
    barrier: Option<StreamId>,
    /// Nothing that is known may be resumed from, until the barrier of this doubt has come.
    is_cut: bool,
}

// Members.
const BEFORE: u8 = 1;
const FLOOR: u8 = 2;
const BARRIER: u8 = 3;
const IS_CUT: u8 = 4;

impl StreamIds {
    /// What an entry takes: its id, in a row that grows by doubling, and as much as its text may be longer than one of
    /// our own, which is what an entry is charged for.
    const ENTRY_BYTES: usize =
        size_of::<StreamId>() + size_of::<StreamId>() / 2 + ID_BYTES_MAX - OWN_ID_BYTES_MAX;

    fn head(&self) -> Position {
        Position(self.start.0 + self.row.len() as u64)
    }

    /// The id of the entry at a position; [`StreamId::NONE`] where it isn't known any more, which nobody can resume from.
    fn entry_id(&self, position: Position) -> StreamId {
        self.get(position).unwrap_or(StreamId::NONE)
    }

    fn get(&self, position: Position) -> Option<StreamId> {
        if position == self.start {
            return self.before;
        }
        let behind = position.0.checked_sub(self.start.0 + 1)?;
        self.row.get(usize::try_from(behind).ok()?).copied()
    }

    /// What a position is called.
    fn id(&self, position: Position) -> Option<StreamId> {
        let barrier = self.barrier.filter(|_| position == self.floor);
        barrier.or_else(|| self.get(position))
    }

    fn locate(&self, id: StreamId) -> Result<Position, NotResumed> {
        if self.is_cut {
            return Err(NotResumed::Unknown);
        }
        let mut first = self.floor.max(self.start);
        if self.id(first).is_none() {
            // Nothing was there: it is the beginning of all.
            first = first.next();
        }
        let is_ahead = |position| {
            let known = self.id(position);
            known.is_some_and(|known| known.place() < id.place())
        };
        // The first whose id isn't ahead of this one.
        let (mut low, mut end) = (first, self.head().next());
        while low < end {
            let middle = Position(low.0 + (end.0 - low.0) / 2);
            match is_ahead(middle) {
                true => low = middle.next(),
                false => end = middle,
            }
        }
        match self.id(low) {
            None => Err(NotResumed::Ahead),
            Some(known) if known == id => Ok(low),
            Some(known) if low == first && id.place() < known.place() => Err(NotResumed::Expired),
            Some(_) => Err(NotResumed::Unknown),
        }
    }

    /// Takes the id of the entry behind the head.
    fn push(&mut self, id: StreamId) {
        let head = self.head();
        let newest = self.id(head).filter(|_| head >= self.floor);
        if newest.is_some_and(|newest| newest.place() >= id.place()) {
            // Another branch, whose barrier hasn't come: what was before isn't of it.
            (self.floor, self.barrier) = (head.next(), None);
        }
        self.row.push_back(id);
    }

    /// A barrier stands behind the head.
    pub(super) fn mark(&mut self, barrier: StreamId) {
        (self.floor, self.barrier) = (self.head(), Some(barrier));
    }

    /// Begins or ends a time in which nothing can be resumed from.
    pub(super) const fn set_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    fn trim(&mut self, start: Position) {
        while self.start < start
            && let Some(id) = self.row.pop_front()
        {
            self.before = Some(id);
            self.start = self.start.next();
        }
    }

    /// Gives memory back, if there is nothing.
    pub(super) fn shrink(&mut self) {
        if self.row.is_empty() {
            self.row.shrink_to_fit();
        }
    }

    /// Writes what a successor must know, but for the ids of the entries: each is saved with its entry.
    pub(super) fn save(&self, members: &mut Members<'_>) {
        let Self {
            row: _,
            // The history has it.
            start: _,
            before,
            floor,
            barrier,
            is_cut,
        } = self;
        if let Some(before) = before {
            before.save(BEFORE, members);
        }
        members.number(FLOOR, floor.0);
        if let Some(barrier) = barrier {
            barrier.save(BARRIER, members);
        }
        members.number(IS_CUT, u64::from(*is_cut));
    }

    /// The ids that were saved into `fields`, of a history that begins at `start`, still without those of its entries.
    ///
    /// # Errors
    /// They are none.
    pub(super) fn restore(start: Position, fields: &Fields<'_>) -> Result<Self, Malformed> {
        let ids = Self {
            row: VecDeque::new(),
            start,
            before: StreamId::saved(BEFORE, fields)?,
            floor: Position(fields.number(FLOOR)),
            barrier: StreamId::saved(BARRIER, fields)?,
            is_cut: fields.number(IS_CUT) != 0,
        };
        if ids.floor > POSITION_MAX {
            return Err(Malformed("a barrier stands at no such position"));
        }
        Ok(ids)
    }

    /// Looks whether they fit together, when those of all entries have been taken.
    ///
    /// # Errors
    /// They don't.
    pub(super) fn check_carried(&self) -> Result<(), Malformed> {
        if self.floor > self.head() {
            return Err(Malformed("a barrier stands behind the end of the log"));
        }
        Ok(())
    }

    /// Asserts what the head of this file promises, of a log from `start` to `head`.
    pub(super) fn check_invariants(&self, start: Position, head: Position) {
        assert_eq!((self.start, self.head()), (start, head));
        assert!(self.floor <= head);
        let known = self.floor.max(start).0..=head.0;
        let known = known.filter_map(|position| self.id(Position(position)));
        assert!(known.map(StreamId::place).is_sorted_by(|a, b| a < b));
    }
}

#[cfg(test)]
mod tests;
