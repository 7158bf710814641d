//! The entries of one posting list.
//!
//! ```text
//! words: | slot 0 | slot 1 | ... | room | ordinal 0 | ... | room |
//!        '---------- capacity ---------''------ capacity -------'
//!        | fingerprint 0 | ... | room | check 0 | ... | room |
//!        '------- 2 x capacity -------''----- capacity ------'
//! ```
//!
//! Matching reads the slots only, so what it needs is one run of memory: sixteen recipients a
//! cache line. Where subscriptions have criteria beside the one of the list, it reads the
//! fingerprints too; other lists don't have the second row. Knows nothing of what the entries
//! mean. Main type: [`Entries`].

use super::fingerprint::Fingerprint;

/// A subscription in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The connection that it belongs to.
    pub(super) tenant: Tenant,
    /// The place of the posting among those of its connection.
    pub(super) ordinal: u32,
    /// What it asks for beyond the list; nothing if its tenant isn't checked.
    pub(super) rest: Rest,
}

/// What a subscription asks for beyond the list that it waits in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rest {
    pub(super) fingerprint: Fingerprint,
    /// Where its check begins among those of its connection.
    pub(super) check: u32,
}

impl Rest {
    /// Nothing.
    pub(super) const NOTHING: Self = Self {
        fingerprint: Fingerprint::NOTHING,
        check: 0,
    };
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

/// Entries by position. Invariants: at least a quarter of the room is used, and none is kept
/// for no entries; there is a second row if any tenant is checked.
#[derive(Default)]
pub(super) struct Entries {
    words: Box<[u32]>,
    len: u32,
    /// Whether there is a second row. It stays until the room changes: taking it away is as dear
    /// as making it.
    has_rest: bool,
}

/// Words of an entry in the first row, and in both.
const WORDS: usize = 2;
const WORDS_WITH_REST: usize = 5;

impl Entries {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// The tenants of the entries, by position.
    pub(super) fn tenants(&self) -> impl Iterator<Item = Tenant> {
        self.words[..self.len()].iter().map(|&word| Tenant(word))
    }

    /// What they ask for beyond the list, by position; `None` if no tenant is checked.
    pub(super) fn fingerprints(&self) -> Option<impl Iterator<Item = Fingerprint>> {
        let fingerprints = &self.words[WORDS * self.capacity()..];
        let (pairs, _) = fingerprints.as_chunks();
        self.has_rest
            .then(|| pairs.iter().map(|&pair| joined(pair)))
    }

    /// The entry at a position, if there is one.
    pub(super) fn get(&self, position: u32) -> Option<Entry> {
        (position < self.len).then(|| Entry {
            tenant: Tenant(self.words[position as usize]),
            ordinal: self.words[self.capacity() + position as usize],
            rest: if self.has_rest {
                self.rest(position)
            } else {
                Rest::NOTHING
            },
        })
    }

    /// Where the check of the entry at a position begins. Its tenant is checked.
    pub(super) fn check(&self, position: u32) -> u32 {
        self.words[self.check_at(position)]
    }

    /// Adds an entry and says at which position.
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        let needs_rest = entry.tenant.is_checked();
        if self.len() == self.capacity() {
            self.resize(self.len() + self.len() / 2 + 1, needs_rest);
        } else if needs_rest && !self.has_rest {
            self.resize(self.capacity(), true);
        }
        debug_assert!(self.has_rest || !needs_rest, "it has a place for its rest");
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
            self.resize(self.len() * 2, false);
        }
        moved
    }

    /// Bytes on the heap.
    pub(super) const fn heap_bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    const fn capacity(&self) -> usize {
        if self.has_rest {
            self.words.len() / WORDS_WITH_REST
        } else {
            self.words.len() / WORDS
        }
    }

    const fn fingerprint_at(&self, position: u32) -> usize {
        WORDS * self.capacity() + 2 * position as usize
    }

    const fn check_at(&self, position: u32) -> usize {
        (WORDS + 2) * self.capacity() + position as usize
    }

    fn rest(&self, position: u32) -> Rest {
        let pair = self.fingerprint_at(position);
        Rest {
            fingerprint: joined([self.words[pair], self.words[pair + 1]]),
            check: self.check(position),
        }
    }

    fn set(&mut self, position: u32, entry: Entry) {
        let capacity = self.capacity();
        self.words[position as usize] = entry.tenant.0;
        self.words[capacity + position as usize] = entry.ordinal;
        if self.has_rest {
            let (pair, check) = (self.fingerprint_at(position), self.check_at(position));
            self.words[pair..pair + 2].copy_from_slice(&halves(entry.rest.fingerprint));
            self.words[check] = entry.rest.check;
        }
    }

    /// Makes room for so many. The second row stays where a tenant is checked.
    fn resize(&mut self, capacity: usize, needs_rest: bool) {
        let had_rest = self.has_rest;
        self.has_rest = needs_rest || self.tenants().any(Tenant::is_checked);
        let width = if self.has_rest {
            WORDS_WITH_REST
        } else {
            WORDS
        };
        let words = vec![0; capacity * width].into_boxed_slice();
        let old = std::mem::replace(&mut self.words, words);
        let old_capacity = old.len() / if had_rest { WORDS_WITH_REST } else { WORDS };
        let mut copy = |column: usize, columns: usize| {
            let (from, to) = (column * old_capacity, column * capacity);
            let len = columns * self.len as usize;
            self.words[to..to + len].copy_from_slice(&old[from..from + len]);
        };
        // Slots, ordinals, fingerprints, checks.
        copy(0, 1);
        copy(1, 1);
        if had_rest && self.has_rest {
            copy(WORDS, 2);
            copy(WORDS + 2, 1);
        }
    }
}

/// The fingerprint of two words.
fn joined([low, high]: [u32; 2]) -> Fingerprint {
    Fingerprint(u64::from(high) << u32::BITS | u64::from(low))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "each half is what is kept of it"
)]
const fn halves(Fingerprint(bits): Fingerprint) -> [u32; 2] {
    [bits as u32, (bits >> u32::BITS) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_what_they_were_while_others_come_and_go() {
        let entry = |n: u32| Entry {
            tenant: Tenant::new(n * 3, n % 2 == 1),
            ordinal: n * 7,
            rest: match n % 2 {
                1 => Rest {
                    fingerprint: Fingerprint(u64::from(n) << 30),
                    check: n * 5,
                },
                _ => Rest::NOTHING,
            },
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
            rest: Rest::NOTHING,
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

    #[test]
    fn a_row_that_nobody_uses_is_not_dropped_for_the_one_that_needs_it_again() {
        let plain = Entry {
            tenant: Tenant::new(1, false),
            ordinal: 1,
            rest: Rest::NOTHING,
        };
        let checked = Entry {
            tenant: Tenant::new(2, true),
            ordinal: 2,
            rest: Rest {
                fingerprint: Fingerprint(0x1234_5678_9abc_def0),
                check: 3,
            },
        };
        // Whatever the room is when the next checked one comes.
        for others in 0..20 {
            let mut entries = Entries::default();
            entries.push(plain);
            let position = entries.push(checked);
            entries.swap_remove(position);
            for _ in 0..others {
                entries.push(plain);
            }
            let position = entries.push(checked);
            assert_eq!(entries.get(position), Some(checked), "{others}");
            assert!(entries.fingerprints().is_some());
        }
    }

    #[test]
    fn lists_without_checks_have_no_second_row() {
        let entry = |is_checked| Entry {
            tenant: Tenant::new(7, is_checked),
            ordinal: 8,
            rest: if is_checked {
                Rest {
                    fingerprint: Fingerprint(1 << 40 | 5),
                    check: 9,
                }
            } else {
                Rest::NOTHING
            },
        };
        let mut entries = Entries::default();
        for _ in 0..4 {
            entries.push(entry(false));
        }
        assert!(entries.fingerprints().is_none());
        assert_eq!(entries.heap_bytes(), 4 * 2 * 4);
        entries.swap_remove(0);
        // Room is made for it, and stays: taking turns costs nothing more.
        for _ in 0..3 {
            let position = entries.push(entry(true));
            assert_eq!(entries.heap_bytes(), 4 * 5 * 4);
            assert_eq!(entries.get(position), Some(entry(true)));
            assert_eq!(
                (entries.check(position), entries.get(0)),
                (9, Some(entry(false)))
            );
            entries.swap_remove(position);
        }
        // The next change of the room takes it away.
        entries.push(entry(false));
        entries.push(entry(false));
        assert!(entries.fingerprints().is_none());
        assert_eq!(entries.heap_bytes(), 7 * 2 * 4);
    }
}
