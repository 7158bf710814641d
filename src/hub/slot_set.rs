//! A set of connections, a bit for each slot of their table. Main type: [`SlotSet`].
//!
//! Invariant: whoever leaves its slot is taken out before the next tenant comes.

use crate::id::ConnectionId;

const BITS: usize = u64::BITS as usize;

/// Connections, known by their slots.
#[derive(Default, Debug)]
pub(super) struct SlotSet {
    words: Vec<u64>,
    len: usize,
}

impl SlotSet {
    /// Whether nobody is in it.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a connection is in it.
    #[inline]
    pub(super) fn contains(&self, id: ConnectionId) -> bool {
        let word = self.words.get(id.slot() / BITS);
        word.is_some_and(|word| word & bit(id) != 0)
    }

    /// Puts a connection in.
    pub(super) fn insert(&mut self, id: ConnectionId) {
        let index = id.slot() / BITS;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        self.len += usize::from(self.words[index] & bit(id) == 0);
        self.words[index] |= bit(id);
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.contains(id) {
            self.words[id.slot() / BITS] &= !bit(id);
            self.len -= 1;
        }
        if self.len == 0 {
            self.words = Vec::new();
        }
    }

    /// The first slot from this one on whose connection is in it.
    pub(super) fn next_from(&self, slot: usize) -> Option<usize> {
        let mut mask = u64::MAX << (slot % BITS);
        let words = self.words.iter().enumerate().skip(slot / BITS);
        for (index, word) in words {
            let found = word & mask;
            if found != 0 {
                return Some(index * BITS + found.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    /// Moves those that are in it to the front, and says how many they are.
    pub(super) fn partition(&self, ids: &mut [ConnectionId]) -> usize {
        let mut found = 0;
        for position in 0..ids.len() {
            if self.contains(ids[position]) {
                ids.swap(position, found);
                found += 1;
            }
        }
        found
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Asserts what must hold between two calls; `is_connected` knows the slots that are taken.
    pub(super) fn check_invariants(&self, connected_len: usize) {
        let ones: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        assert_eq!(self.len, ones as usize);
        assert!(self.len <= connected_len);
    }
}

const fn bit(id: ConnectionId) -> u64 {
    1 << (id.slot() % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(index: u32) -> ConnectionId {
        ConnectionId { index, serial: 0 }
    }

    #[test]
    fn connections_come_and_go() {
        let mut set = SlotSet::default();
        let members = [0, 1, 63, 64, 65, 1000];
        for index in members {
            assert!(!set.contains(id(index)));
            set.insert(id(index));
            set.insert(id(index));
            assert!(set.contains(id(index)));
        }
        assert_eq!(set.len, members.len());
        let mut ids: Vec<_> = (0..1100).map(id).collect();
        let found = set.partition(&mut ids);
        ids[..found].sort_unstable();
        assert_eq!(ids[..found], members.map(id));
        assert!(ids[found..].iter().all(|&other| !set.contains(other)));
        set.check_invariants(found);
        let mut slots = Vec::new();
        while let Some(slot) = set.next_from(slots.last().map_or(0, |last| last + 1)) {
            slots.push(slot);
        }
        assert_eq!(slots, members.map(|index| index as usize));
        for index in members {
            set.remove(id(index));
            set.remove(id(index));
        }
        assert!(set.is_empty() && set.heap_bytes() == 0);
    }
}
