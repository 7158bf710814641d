//! What the index keeps of each slot of the table of connections.
//!
//! Two tables of the same length, which grows with the highest slot that has subscriptions, and
//! shrinks when a crowd has left: what matching touches is apart from the rest, so that it fits
//! into the cache. Main type: [`Slots`].

use super::postings::Postings;
use super::table::a_quarter_more;
use crate::hub::holdings::Holdings;
use crate::id::ConnectionId;
use crate::memory::{CROWD_MIN, Departures};

/// The slots, by number.
#[derive(Default)]
pub(super) struct Slots {
    /// What matching touches of each.
    marks: Vec<Mark>,
    /// The rest of each. As long as `marks`.
    slots: Vec<Slot>,
    /// Of slots that were given up.
    departures: Departures,
    /// The number of the latest notification; no mark is ahead of it.
    stamp: u32,
}

/// What matching needs to know of a slot.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    /// The tenant that has the subscriptions.
    pub(super) serial: u32,
    /// The latest notification in which it was met.
    pub(super) stamp: u32,
}

/// What a slot has subscribed to; all empty if it hasn't. Half a cache line.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) postings: Postings,
    pub(super) holdings: Holdings,
}

impl Slots {
    /// The slot of this number, taken or vacant.
    pub(super) fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    /// The slot of this number, which an entry names.
    pub(super) fn of(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// All slots, in order.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Slot> {
        self.slots.iter()
    }

    /// What `id` has.
    pub(super) fn holdings_of(&self, id: ConnectionId) -> Holdings {
        match (self.marks.get(id.slot()), self.slots.get(id.slot())) {
            (Some(mark), Some(slot)) if mark.serial == id.serial => slot.holdings,
            _ => Holdings::default(),
        }
    }

    /// Gives the slot of `id` to it.
    pub(super) fn put(&mut self, id: ConnectionId, record: Slot) {
        let slot = id.slot();
        if self.slots.capacity() <= slot {
            let missing = a_quarter_more(slot) + slot - self.slots.len();
            self.marks.reserve_exact(missing);
            self.slots.reserve_exact(missing);
        }
        if self.slots.len() <= slot {
            self.marks.resize_with(slot + 1, Mark::default);
            self.slots.resize_with(slot + 1, Slot::default);
        }
        self.marks[slot].serial = id.serial;
        self.slots[slot] = record;
    }

    /// For a new notification: its number, the marks, none of which has it, and the slots.
    pub(super) fn begin(&mut self) -> (u32, &mut [Mark], &[Slot]) {
        if self.stamp == u32::MAX {
            // Every 2^32 notifications the numbers begin again, and nobody has been met yet.
            self.marks.iter_mut().for_each(|mark| mark.stamp = 0);
            self.stamp = 0;
        }
        self.stamp += 1;
        (self.stamp, &mut self.marks, &self.slots)
    }

    /// Gives the vacant slots at the end back, if it is time: `left` of them were vacated, and
    /// `remain` are taken.
    pub(super) fn trim(&mut self, left: usize, remain: usize) {
        if self.departures.update(left, remain, CROWD_MIN) {
            let last = self.slots.iter().rposition(Slot::is_taken);
            let len = last.map_or(0, |last| last + 1);
            self.slots.truncate(len);
            self.slots.shrink_to_fit();
            self.marks.truncate(len);
            self.marks.shrink_to_fit();
        }
    }

    /// Bytes that they have asked of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let of_slots = self.slots.iter().map(|slot| slot.postings.heap_bytes());
        self.marks.capacity() * size_of::<Mark>()
            + self.slots.capacity() * size_of::<Slot>()
            + of_slots.sum::<usize>()
    }

    /// Asserts what the fields promise.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.marks.len(), self.slots.len());
        assert!(self.marks.iter().all(|mark| mark.stamp <= self.stamp));
        let mut vacancies = self.slots.iter().filter(|slot| !slot.is_taken());
        assert!(vacancies.all(|slot| {
            matches!(slot.postings, Postings::None) && slot.holdings == Holdings::default()
        }));
    }
}

impl Slot {
    /// Whether it has subscriptions.
    pub(super) const fn is_taken(&self) -> bool {
        self.holdings.subscriptions > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_begin_again_and_nobody_is_met_beforehand() {
        let mut slots = Slots::default();
        let id = ConnectionId {
            index: 1,
            serial: 0,
        };
        slots.put(id, Slot::default());
        slots.stamp = u32::MAX - 1;
        for expected in [u32::MAX, 1, 2, 3] {
            let (stamp, marks, _) = slots.begin();
            assert_eq!(stamp, expected);
            for mark in marks {
                assert_ne!(mark.stamp, stamp);
                mark.stamp = stamp;
            }
            slots.check_invariants();
        }
    }

    #[test]
    fn a_slot_is_half_a_cache_line() {
        assert_eq!(size_of::<Slot>(), 32);
    }
}
