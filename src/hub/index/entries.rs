//! The entries of one posting list.
//!
//! ```text
//! words: | slot 0 | slot 1 | ... | room | ordinal 0 | ordinal 1 | ... | room |
//!        '---------- capacity ---------''------------- capacity -------------'
//! ```
//!
//! Matching reads the first half only, so the half that it needs is one run of memory: sixteen
//! recipients a cache line. Knows nothing of what the entries mean. Main type: [`Entries`].

/// A subscription in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Whose it is.
    pub(super) tenant: Tenant,
    /// The place of the posting among those of its connection.
    pub(super) ordinal: u32,
}

/// The slot of a connection; the top bit says that further criteria are to be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tenant(u32);

const CHECK_BIT: u32 = 1 << 31;

impl Tenant {
    /// The tenant of a slot.
    pub(super) const fn new(slot: u32, is_checked: bool) -> Self {
        assert!(slot < CHECK_BIT, "descriptors end long before slots do");
        Self(slot | if is_checked { CHECK_BIT } else { 0 })
    }

    /// The slot.
    pub(super) const fn slot(self) -> u32 {
        self.0 & !CHECK_BIT
    }

    /// Whether the subscription has criteria beside the one of the list.
    pub(super) const fn is_checked(self) -> bool {
        self.0 & CHECK_BIT != 0
    }
}

/// Entries by position. Invariant: at least a quarter of the room is used, and none is kept
/// for no entries.
#[derive(Default)]
pub(super) struct Entries {
    words: Box<[u32]>,
    len: u32,
}

impl Entries {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whose entries they are, by position.
    pub(super) fn tenants(&self) -> impl Iterator<Item = Tenant> {
        self.words[..self.len()].iter().map(|&word| Tenant(word))
    }

    /// The entry at a position, if there is one.
    pub(super) fn get(&self, position: u32) -> Option<Entry> {
        (position < self.len).then(|| Entry {
            tenant: Tenant(self.words[position as usize]),
            ordinal: self.words[self.capacity() + position as usize],
        })
    }

    /// Adds an entry and says at which position.
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        if self.len() == self.capacity() {
            self.resize(self.len() + self.len() / 2 + 1);
        }
        let position = self.len;
        self.len += 1;
        self.set(position, entry);
        position
    }

    /// Removes an entry; the last one takes its place and is returned.
    pub(super) fn swap_remove(&mut self, position: u32) -> Option<Entry> {
        let last = self.get(self.len - 1);
        self.len -= 1;
        let moved = last.filter(|_| position < self.len);
        if let Some(moved) = moved {
            self.set(position, moved);
        }
        if self.len() * 4 < self.capacity() {
            self.resize(self.len() * 2);
        }
        moved
    }

    /// Bytes on the heap.
    pub(super) const fn heap_bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    const fn capacity(&self) -> usize {
        self.words.len() / 2
    }

    fn set(&mut self, position: u32, entry: Entry) {
        let capacity = self.capacity();
        self.words[position as usize] = entry.tenant.0;
        self.words[capacity + position as usize] = entry.ordinal;
    }

    fn resize(&mut self, capacity: usize) {
        let mut words = vec![0; capacity * 2].into_boxed_slice();
        let (len, old) = (self.len(), self.capacity());
        words[..len].copy_from_slice(&self.words[..len]);
        words[capacity..capacity + len].copy_from_slice(&self.words[old..old + len]);
        self.words = words;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_what_they_were_while_others_come_and_go() {
        let entry = |n: u32| Entry {
            tenant: Tenant::new(n * 3, n % 2 == 1),
            ordinal: n * 7,
        };
        let mut entries = Entries::default();
        let mut model = Vec::new();
        for n in 0..100 {
            assert_eq!(entries.push(entry(n)), n);
            model.push(entry(n));
        }
        for n in (0..100u32).map(|n| n * 37 % 100) {
            let position = n % entries.len;
            model.swap_remove(position as usize);
            let moved = entries.swap_remove(position);
            assert_eq!(moved, model.get(position as usize).copied());
            let all: Vec<_> = (0..).map_while(|position| entries.get(position)).collect();
            assert_eq!(all, model);
            assert!(entries.tenants().eq(model.iter().map(|entry| entry.tenant)));
        }
        assert_eq!(entries.heap_bytes(), 0);
        let (odd, even) = (entry(1).tenant, entry(2).tenant);
        assert_eq!((odd.slot(), odd.is_checked()), (3, true));
        assert_eq!((even.slot(), even.is_checked()), (6, false));
    }

    #[test]
    fn room_grows_by_half_and_is_halved_when_three_quarters_are_free() {
        let entry = Entry {
            tenant: Tenant::new(0, false),
            ordinal: 0,
        };
        let mut entries = Entries::default();
        let growing = [1, 2, 4, 4, 7, 7, 7, 11, 11, 11, 11, 17];
        for capacity in growing {
            entries.push(entry);
            assert_eq!(entries.capacity(), capacity);
        }
        let shrinking = [17, 17, 17, 17, 17, 17, 17, 8, 8, 8, 2, 0];
        for capacity in shrinking {
            entries.swap_remove(0);
            assert_eq!(entries.capacity(), capacity);
        }
    }
}
