//! A hash table of ids, and a slab that hands ids out: the two halves of every lookup here.
//!
//! The table holds no keys. They lie with the records, and the caller compares, so a string is
//! stored once. Hashes come from the caller, which keys them (`RandomState`), since what is hashed
//! comes from peers. Both give memory back as they empty: what ten thousand connections needed
//! must not stay when they have left.
//!
//! Knows nothing of subscriptions. Main types: [`IdTable`] and [`Records`].

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use slab::Slab;

use crate::memory::Departures;

/// No id: [`Records`] never hands it out.
pub(super) const NO_ID: u32 = u32::MAX;

/// Ids by hash.
#[derive(Default)]
pub(super) struct IdTable {
    buckets: HashTable<Bucket>,
    departures: Departures,
}

#[derive(Debug)]
struct Bucket {
    /// Half of the hash: enough to place the id again without a look at its record.
    hash: u32,
    id: u32,
}

/// The half that is kept, in both halves: the table takes the place from the low bits and a tag
/// from the high ones.
const fn halved(hash: u64) -> u64 {
    let low = hash & u32::MAX as u64;
    low << u32::BITS | low
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is kept"
)]
const fn low_half(hash: u64) -> u32 {
    hash as u32
}

fn rehash(bucket: &Bucket) -> u64 {
    halved(bucket.hash.into())
}

impl IdTable {
    /// The id with this hash that `is_wanted`.
    pub(super) fn find(&self, hash: u64, mut is_wanted: impl FnMut(u32) -> bool) -> Option<u32> {
        let kept = low_half(hash);
        let is_found = |bucket: &Bucket| bucket.hash == kept && is_wanted(bucket.id);
        let bucket = self.buckets.find(halved(hash), is_found)?;
        Some(bucket.id)
    }

    /// Adds an id that isn't in the table.
    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        let bucket = Bucket {
            hash: low_half(hash),
            id,
        };
        self.buckets.insert_unique(halved(hash), bucket, rehash);
    }

    /// Removes an id that is in the table.
    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let entry = self
            .buckets
            .find_entry(halved(hash), |bucket| bucket.id == id);
        entry.expect("what is removed is there").remove();
        if self.departures.update(1, self.buckets.len(), 1) {
            self.buckets.shrink_to_fit(rehash);
        }
    }

    /// How many ids there are.
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.buckets.allocation_size()
    }
}

/// Records by id.
pub(super) struct Records<T> {
    slab: Slab<T>,
    departures: Departures,
}

impl<T> Default for Records<T> {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            departures: Departures::default(),
        }
    }
}

impl<T> Records<T> {
    /// Stores `record` and names it.
    pub(super) fn insert(&mut self, record: T) -> u32 {
        if self.slab.len() == self.slab.capacity() {
            self.slab.reserve_exact(a_quarter_more(self.slab.len()));
        }
        let id = u32::try_from(self.slab.insert(record)).unwrap_or(NO_ID);
        assert!(id < NO_ID, "memory ends long before ids do");
        id
    }

    /// Takes out the record that `id` names.
    pub(super) fn remove(&mut self, id: u32) -> T {
        let record = self.slab.remove(id as usize);
        if self.departures.update(1, self.slab.len(), 1) {
            // A look that finds nothing to cut off at the end is short.
            self.slab.shrink_to_fit();
        }
        record
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The records with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        #[expect(clippy::cast_possible_truncation, reason = "ids are made in `insert`")]
        self.slab.iter().map(|(id, record)| (id as u32, record))
    }

    /// Bytes on the heap, without what the records own.
    pub(super) fn heap_bytes(&self) -> usize {
        self.slab.capacity() * size_of::<Entry<T>>()
    }
}

/// How many entries a full table of `len` makes room for at once, where `Vec` would double: the
/// tables that have an entry a connection are the bulk of what a connection costs.
pub(super) const fn a_quarter_more(len: usize) -> usize {
    len / 4 + 1
}

/// What a slab stores for each record, as large as its own type, which isn't public.
#[expect(dead_code, reason = "only its size is wanted")]
enum Entry<T> {
    Vacant(usize),
    Occupied(T),
}

impl<T> Index<u32> for Records<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        &self.slab[id as usize]
    }
}

impl<T> IndexMut<u32> for Records<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.slab[id as usize]
    }
}

/// How large a slab's entry with such a record is.
#[cfg(test)]
pub(super) const fn entry_bytes<T>() -> usize {
    size_of::<Entry<T>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_finds_what_is_in_it_and_empties_to_nothing() {
        // Few hashes for many ids: every search walks over neighbours.
        for spread in [1u64, 3, 97, 1 << 20] {
            let hash = |id: u32| u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread;
            let mut table = IdTable::default();
            for id in 0..200 {
                table.insert(hash(id), id);
            }
            let mut order: Vec<u32> = (0..200).map(|id| id * 77 % 200).collect();
            while let Some(id) = order.pop() {
                for other in 0..200 {
                    let found = table.find(hash(other), |id| id == other);
                    assert_eq!(found.is_some(), other == id || order.contains(&other));
                }
                table.remove(hash(id), id);
                assert_eq!(table.len(), order.len());
            }
            assert_eq!(table.heap_bytes(), 0);
        }
    }

    #[test]
    fn no_id_with_another_hash_is_asked_for() {
        let mut table = IdTable::default();
        let hash = |id: u32| u64::from(2 * id);
        (0..100).for_each(|id| table.insert(hash(id), id));
        for id in 0..100 {
            let mut asked = Vec::new();
            table.find(hash(id), |other| {
                asked.push(other);
                false
            });
            assert_eq!(asked, [id]);
        }
    }

    #[test]
    fn ids_are_used_again_and_memory_is_given_back() {
        let mut records = Records::default();
        let ids: Vec<u32> = (0..1000).map(|n| records.insert(n)).collect();
        assert_eq!(ids, (0..1000).collect::<Vec<_>>());
        assert_eq!((records.remove(3), records.insert(1003)), (3, 3));
        let full = records.heap_bytes();
        for id in (1..1000).rev() {
            records.remove(id);
        }
        assert_eq!((records.len(), records[0]), (1, 0));
        assert!(records.heap_bytes() < full / 8, "{}", records.heap_bytes());
        records.remove(0);
        assert_eq!(records.heap_bytes(), 0);
    }

    #[test]
    fn an_entry_is_as_large_as_those_of_the_slab() {
        let mut records = Records::default();
        let [a, b] = [b"a", b"b"].map(|text| records.insert(Some(Box::<[u8]>::from(&text[..]))));
        let at = |id| std::ptr::from_ref(&records[id]).addr();
        assert_eq!(at(b) - at(a), entry_bytes::<Option<Box<[u8]>>>());
    }

    #[test]
    fn an_entry_that_stays_keeps_little_whatever_the_order_of_those_that_leave() {
        for is_reversed in [false, true] {
            let mut records = Records::default();
            let mut ids: Vec<_> = (0..10_000u64)
                .map(|number| records.insert(number))
                .collect();
            ids.remove(0);
            if is_reversed {
                ids.reverse();
            }
            for id in ids {
                records.remove(id);
            }
            assert!(records.heap_bytes() < 1000, "{}", records.heap_bytes());
        }
    }
}
