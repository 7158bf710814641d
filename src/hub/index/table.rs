//! A hash table of ids, and a slab that hands ids out: the two halves of every lookup here.
//!
//! The table holds no keys. They lie with the records, and the caller compares, so a string is
//! stored once and a bucket takes eight bytes. Hashes come from the caller, who keys them
//! (`RandomState`), since what is hashed comes from peers. Both give memory back as they empty:
//! what ten thousand connections needed must not stay when they have left.
//!
//! Knows nothing of subscriptions. Main types: [`IdTable`] and [`Slab`].

/// No id: what an empty bucket holds. A [`Slab`] never hands it out.
pub(super) const NO_ID: u32 = u32::MAX;

/// The smallest table that is worth allocating.
const BUCKETS_MIN: usize = 8;

/// A hash table with linear probing. Invariant: at most five eighths are in use, so a search
/// ends soon; the number of buckets is a power of two, or zero.
#[derive(Default)]
pub(super) struct IdTable {
    buckets: Vec<Bucket>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// The low half of the hash: enough to place the id again when the table grows.
    hash: u32,
    id: u32,
}

const EMPTY: Bucket = Bucket { hash: 0, id: NO_ID };

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is kept"
)]
const fn low_half(hash: u64) -> u32 {
    hash as u32
}

impl IdTable {
    /// The id with this hash that `is_wanted`.
    pub(super) fn find(&self, hash: u64, mut is_wanted: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let hash = low_half(hash);
        let mut position = self.home(hash);
        loop {
            let bucket = self.buckets[position];
            if bucket.id == NO_ID {
                return None;
            }
            if bucket.hash == hash && is_wanted(bucket.id) {
                return Some(bucket.id);
            }
            position = self.after(position);
        }
    }

    /// Adds an id that isn't in the table.
    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        debug_assert_ne!(id, NO_ID, "NO_ID marks what is empty");
        if (self.len + 1) * 8 > self.buckets.len() * 5 {
            self.resize((self.buckets.len() * 2).max(BUCKETS_MIN));
        }
        self.place(Bucket {
            hash: low_half(hash),
            id,
        });
        self.len += 1;
    }

    /// Removes an id that is in the table.
    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let mut hole = self.home(low_half(hash));
        while self.buckets[hole].id != id {
            assert_ne!(self.buckets[hole].id, NO_ID, "what is removed is there");
            hole = self.after(hole);
        }
        // What stands behind the hole moves up if it could have stood there: no tombstones.
        let mut position = self.after(hole);
        while self.buckets[position].id != NO_ID {
            let mask = self.buckets.len() - 1;
            let home = self.home(self.buckets[position].hash);
            if (position.wrapping_sub(home) & mask) >= (position.wrapping_sub(hole) & mask) {
                self.buckets[hole] = self.buckets[position];
                hole = position;
            }
            position = self.after(position);
        }
        self.buckets[hole] = EMPTY;
        self.len -= 1;
        if self.len == 0 {
            self.buckets = Vec::new();
        } else if self.len * 8 < self.buckets.len() {
            self.resize(self.buckets.len() / 2);
        }
    }

    /// How many ids there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn after(&self, position: usize) -> usize {
        (position + 1) & (self.buckets.len() - 1)
    }

    fn place(&mut self, bucket: Bucket) {
        let mut position = self.home(bucket.hash);
        while self.buckets[position].id != NO_ID {
            position = self.after(position);
        }
        self.buckets[position] = bucket;
    }

    fn resize(&mut self, count: usize) {
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; count]);
        for bucket in old {
            if bucket.id != NO_ID {
                self.place(bucket);
            }
        }
    }
}

/// Records by id. Invariant: the last record is never vacant, so that a slab which empties
/// from its end shrinks, and one that is empty owns nothing.
pub(super) struct Slab<T> {
    records: Vec<Option<T>>,
    /// Ids that were vacant when they were put here; some may be in use again, or cut off.
    vacant: Vec<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            vacant: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    /// Stores `record` and names it.
    pub(super) fn insert(&mut self, record: T) -> u32 {
        self.len += 1;
        while let Some(id) = self.vacant.pop() {
            if let Some(vacant @ None) = self.records.get_mut(id as usize) {
                *vacant = Some(record);
                return id;
            }
        }
        let id = u32::try_from(self.records.len()).unwrap_or(NO_ID);
        assert!(id < NO_ID, "memory ends long before ids do");
        reserve_gently(&mut self.records);
        self.records.push(Some(record));
        id
    }

    /// Takes out the record that `id` names.
    pub(super) fn remove(&mut self, id: u32) -> T {
        let record = self.records[id as usize].take();
        self.len -= 1;
        if id as usize + 1 == self.records.len() {
            while let Some(None) = self.records.last() {
                self.records.pop();
            }
        } else {
            self.vacant.push(id);
        }
        if self.len == 0 {
            self.vacant = Vec::new();
        }
        if self.records.len() * 4 <= self.records.capacity() {
            self.records.shrink_to(self.records.len() * 2);
        }
        record.expect("ids are kept by whoever counts as a user of the record")
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The records with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.records)
            .filter_map(|(id, record)| Some((id, record.as_ref()?)))
    }

    /// Bytes on the heap, without what the records own.
    pub(super) fn heap_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Option<T>>() + self.vacant.capacity() * size_of::<u32>()
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        self.records[id as usize]
            .as_ref()
            .expect("ids are kept by whoever counts as a user of the record")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.records[id as usize]
            .as_mut()
            .expect("ids are kept by whoever counts as a user of the record")
    }
}

/// Makes room for one more by a quarter, where `Vec` would double: the tables that have an
/// entry a connection are the bulk of what a connection costs.
pub(super) fn reserve_gently<T>(records: &mut Vec<T>) {
    if records.len() == records.capacity() {
        records.reserve_exact(records.len() / 4 + 1);
    }
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
    fn a_table_is_doubled_above_five_eighths_and_halved_below_an_eighth() {
        let mut table = IdTable::default();
        let growing = [8, 8, 8, 8, 8, 16, 16, 16, 16, 16, 32];
        for (id, buckets) in (0..).zip(growing) {
            table.insert(u64::from(id), id);
            assert_eq!(table.buckets.len(), buckets);
        }
        let shrinking = [32, 32, 32, 32, 32, 32, 32, 16, 16, 8, 0];
        for (id, buckets) in (0..).zip(shrinking) {
            table.remove(u64::from(id), id);
            assert_eq!(table.buckets.len(), buckets);
        }
    }

    #[test]
    fn an_id_lies_where_its_hash_says_and_no_other_is_asked_for() {
        let mut table = IdTable::default();
        let hash = |id: u32| u64::from(2 * id);
        (0..100).for_each(|id| table.insert(hash(id), id));
        for id in 0..100 {
            assert_eq!(table.buckets[2 * id as usize].id, id);
            let mut asked = Vec::new();
            table.find(hash(id), |other| {
                asked.push(other);
                false
            });
            assert_eq!(asked, [id]);
        }
    }

    #[test]
    fn a_slab_uses_ids_again_and_shrinks_from_its_end() {
        let mut slab = Slab::default();
        let ids: Vec<u32> = (0..100).map(|n| slab.insert(n)).collect();
        assert_eq!(ids, (0..100).collect::<Vec<_>>());
        assert_eq!(slab.remove(3), 3);
        assert_eq!(slab.insert(103), 3);
        for id in (1..100).rev() {
            slab.remove(id);
        }
        assert_eq!((slab.len(), slab[0]), (1, 0));
        assert!(slab.heap_bytes() <= 64, "{}", slab.heap_bytes());
        assert_eq!(slab.insert(7), 1);
        slab.remove(0);
        slab.remove(1);
        assert_eq!(slab.heap_bytes(), 0);
    }

    #[test]
    fn a_vacant_id_that_was_cut_off_is_not_handed_out_twice() {
        let mut slab = Slab::default();
        for n in 0..4 {
            slab.insert(n);
        }
        slab.remove(1);
        slab.remove(2);
        slab.remove(3);
        // Both are noted as vacant, and both lay at the end when it was cut.
        let ids = [slab.insert(10), slab.insert(11), slab.insert(12)];
        assert_eq!(ids, [1, 2, 3]);
        slab.remove(1);
        assert_eq!([slab.insert(20), slab.insert(21)], [1, 4]);
        assert_eq!(
            slab.iter().map(|(id, _)| id).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
    }

    #[test]
    fn room_is_made_by_a_quarter() {
        let mut records = Vec::new();
        for capacity in [1, 2, 3, 4, 6, 6, 8, 8, 11, 11, 11, 14] {
            reserve_gently(&mut records);
            records.push(0u64);
            assert_eq!(records.capacity(), capacity);
        }
    }
}
