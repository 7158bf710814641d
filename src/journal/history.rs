//! The history: the newest entries, in memory, within a number of bytes and an age.
//!
//! What an entry pins is counted in full: its encodings, its key, its fingerprints. Main type: [`History`].
//!
//! Invariants: positions have no gap; `bytes` is what the entries take; every key leads to the newest entry that
//! has it. Two have the same only where an earlier process had let go of the first when the second came.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hashbrown::HashTable;

use super::column::{Column, Fingerprints};
use super::entry::Entry;
use super::id::Position;
use super::record::POSITION_MAX;
use crate::config::HistoryLimits;
use crate::handover::{Fields, Malformed, Members};

/// What an entry takes in the lists, which grow by doubling, beside what it says of itself.
const LISTED_BYTES: usize = size_of::<Entry>() / 2;

/// How many entries are dropped at once because of their age.
const EXPIRED_AT_ONCE: usize = 1024;

/// What a key takes in its table, about.
const KEY_BYTES: usize = 2 * size_of::<Position>();

/// The one member of a history: the position ahead of its oldest entry. The entries have records of their own.
const START: u8 = 1;

/// The newest entries.
pub struct History {
    limits: HistoryLimits,
    /// What each entry is charged for its id.
    id_bytes: usize,
    entries: VecDeque<Entry>,
    /// What the entries are found by, one of each.
    column: Column,
    /// The position ahead of the oldest entry.
    start: Position,
    bytes: usize,
    keys: HashTable<Position>,
    /// Of keys.
    hasher: RandomState,
}

impl History {
    /// Nothing; what comes first comes behind `start`.
    #[must_use]
    pub fn new(limits: HistoryLimits, start: Position) -> Self {
        Self {
            limits,
            id_bytes: 0,
            entries: VecDeque::new(),
            column: Column::default(),
            start,
            bytes: 0,
            keys: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// The same, where the id of each entry takes so many bytes beside it. There are none yet.
    #[must_use]
    pub(super) fn with_id_bytes(self, id_bytes: usize) -> Self {
        debug_assert!(self.is_empty(), "what is there was charged otherwise");
        Self { id_bytes, ..self }
    }

    /// Writes what a successor must know, but for the entries: they are saved one by one.
    pub(super) fn save(&self, members: &mut Members<'_>) {
        let Self {
            // They are configured.
            limits: _,
            // Follows from what ids there are.
            id_bytes: _,
            entries: _,
            // These are made anew of the entries.
            column: _,
            bytes: _,
            keys: _,
            start,
            // It hashes only what is in `keys`.
            hasher: _,
        } = self;
        members.number(START, start.0);
    }

    /// The history that was saved into `fields`, still without its entries.
    ///
    /// # Errors
    /// It begins nowhere.
    pub(super) fn restore(limits: HistoryLimits, fields: &Fields<'_>) -> Result<Self, Malformed> {
        let start = Position(fields.number(START));
        if start > POSITION_MAX {
            return Err(Malformed("a history begins at no such position"));
        }
        Ok(Self::new(limits, start))
    }

    /// The entries, the oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// What it keeps at most.
    #[must_use]
    pub const fn limits(&self) -> HistoryLimits {
        self.limits
    }

    /// Whether anything is kept at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.limits.is_on()
    }

    /// The position ahead of the oldest entry.
    #[must_use]
    pub const fn start(&self) -> Position {
        self.start
    }

    /// The position of the newest entry.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(self.start.0 + self.entries.len() as u64)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that the entries take.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that may be added before an entry has to go.
    #[must_use]
    pub const fn bytes_left(&self) -> usize {
        self.limits.bytes_max.saturating_sub(self.bytes)
    }

    /// The oldest entry.
    #[must_use]
    pub fn oldest(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// What the entries are found by: index 0 is that of the oldest.
    #[must_use]
    pub const fn column(&self) -> &Column {
        &self.column
    }

    fn index_of(&self, position: Position) -> Option<usize> {
        let behind = position.0.checked_sub(self.start.0 + 1)?;
        usize::try_from(behind).ok()
    }

    /// The entry at a position.
    #[must_use]
    pub fn get(&self, position: Position) -> Option<&Entry> {
        self.entries.get(self.index_of(position)?)
    }

    /// The entries behind a position, in order.
    pub fn behind(&self, position: Position) -> impl Iterator<Item = &Entry> {
        let index = self.index_of(position.next()).unwrap_or(usize::MAX);
        self.entries.iter().skip(index)
    }

    /// Whether the entries behind a position are all there, and none of them is too old.
    #[must_use]
    pub fn reaches_back_to(&self, position: Position, now_micros: i64) -> bool {
        let next = self.get(position.next());
        position >= self.start
            && next.is_none_or(|entry| entry.age(now_micros) <= self.limits.age_max)
    }

    /// Changes the entry at a position, if it is there, and counts what it takes then.
    pub fn update<R>(
        &mut self,
        position: Position,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> Option<R> {
        let index = self.index_of(position)?;
        let entry = self.entries.get_mut(index)?;
        let before = entry.bytes();
        let result = change(entry);
        self.bytes = self.bytes - before + entry.bytes();
        Some(result)
    }

    /// The position of the entry with a key.
    #[must_use]
    pub fn find_key(&self, key: &str) -> Option<Position> {
        let hash = self.hasher.hash_one(key);
        let is_it = |position: &Position| self.key_at(*position) == Some(key);
        self.keys.find(hash, is_it).copied()
    }

    fn key_at(&self, position: Position) -> Option<&str> {
        self.get(position).and_then(Entry::key)
    }

    /// Puts an entry at the end. Nothing is dropped for it before [`History::shrink_to_bytes`].
    pub fn push(&mut self, entry: Entry, fingerprints: &Fingerprints) {
        self.bytes += self.cost(&entry) + self.column.push(fingerprints);
        let position = self.head().next();
        let hash = entry.key().map(|key| self.hasher.hash_one(key));
        if let (Some(hash), Some(first)) = (hash, entry.key().and_then(|key| self.find_key(key)))
            && let Ok(found) = self.keys.find_entry(hash, |other| *other == first)
        {
            found.remove();
        }
        self.entries.push_back(entry);
        if let Some(hash) = hash {
            let Self {
                keys,
                entries,
                start,
                hasher,
                ..
            } = self;
            let hash_of = |position: &Position| {
                let entry = &entries[(position.0 - start.0 - 1) as usize];
                hasher.hash_one(entry.key().unwrap_or_default())
            };
            keys.insert_unique(hash, position, hash_of);
        }
    }

    fn cost(&self, entry: &Entry) -> usize {
        let key = entry.key().map_or(0, |_| KEY_BYTES);
        entry.bytes() + LISTED_BYTES + self.id_bytes + key
    }

    /// Drops the oldest entries until the rest is within the bytes.
    pub fn shrink_to_bytes(&mut self) {
        while self.bytes > self.limits.bytes_max {
            self.pop();
        }
    }

    /// Drops what is too old, but nothing behind `needed`, and no more than a thousand entries at once. Says whether
    /// there is more of it.
    pub fn expire(&mut self, now_micros: i64, needed: Option<Position>) -> bool {
        for _ in 0..EXPIRED_AT_ONCE {
            if !self.has_expired(now_micros, needed) {
                break;
            }
            self.pop();
        }
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
            self.keys.shrink_to(0, |_| 0);
        }
        self.has_expired(now_micros, needed)
    }

    /// Whether the oldest entry is too old and may go.
    fn has_expired(&self, now_micros: i64, needed: Option<Position>) -> bool {
        let is_too_old = |oldest: &Entry| oldest.age(now_micros) > self.limits.age_max;
        self.oldest().is_some_and(is_too_old) && needed.is_none_or(|needed| self.start < needed)
    }

    /// How long it is until the oldest entry is too old.
    #[must_use]
    pub fn time_left(&self, now_micros: i64) -> Option<Duration> {
        let oldest = self.entries.front()?;
        Some(self.limits.age_max.saturating_sub(oldest.age(now_micros)))
    }

    fn pop(&mut self) {
        let Some(oldest) = self.entries.front() else {
            debug_assert_eq!(self.bytes, 0);
            return;
        };
        if let Some(key) = oldest.key() {
            let hash = self.hasher.hash_one(key);
            let position = self.start.next();
            if let Ok(found) = self.keys.find_entry(hash, |other| *other == position) {
                found.remove();
            }
        }
        let cost = self.cost(oldest);
        oldest.release();
        self.entries.pop_front();
        self.bytes -= cost + self.column.pop_front().unwrap_or_default();
        self.start = self.start.next();
    }

    /// Asserts what the head of this file promises.
    pub fn check_invariants(&self) {
        assert_eq!(self.column.len(), self.entries.len());
        self.column.check_invariants();
        let costs = self.entries.iter().map(|entry| self.cost(entry));
        assert!(costs.sum::<usize>() <= self.bytes);
        assert_eq!(self.entries.is_empty(), self.bytes == 0);
        for key in self.entries.iter().filter_map(Entry::key) {
            assert!(self.find_key(key).is_some());
        }
        for position in &self.keys {
            let key = self.key_at(*position).expect("a key has its entry");
            assert_eq!(self.find_key(key), Some(*position));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Content, Encoding};
    use super::super::id::{EntryId, Generation};
    use super::*;

    fn entry(position: u64, key: &str) -> Entry {
        let content = Content {
            kind: "\"notification\"",
            notification: "{}",
        };
        let id = EntryId::Own {
            generation: Generation(1),
            position: Position(position),
        };
        Entry::new(content, id, Encoding::Numbered, Some(key), 0)
    }

    #[test]
    fn a_key_that_was_used_again_leads_to_the_newest_entry() {
        let mut history = History::new(HistoryLimits::default(), Position(0));
        for (position, key) in [(1, "a"), (2, "b"), (3, "a")] {
            history.push(entry(position, key), &Fingerprints::default());
            history.check_invariants();
        }
        assert_eq!(history.find_key("a"), Some(Position(3)));
        for key in [Some(Position(3)), Some(Position(3)), None] {
            history.pop();
            history.check_invariants();
            assert_eq!(history.find_key("a"), key);
        }
        assert_eq!(history.find_key("b"), None);
    }
}
