//! The index of subscriptions: who wants this notification, in time proportional to who does.
//!
//! Owns who subscribed to what, in a form made for that one question: every subscription is
//! posted in the lists (`lists.rs`) of one of its criteria, once for each value that it accepts,
//! and its other criteria are checked when it is met there: by a fingerprint (`fingerprint.rs`)
//! first, then one by one (`checks.rs`). Which criterion it is posted under is decided by how
//! many subscriptions wait in its lists already. A connection notes where its entries lie, so that
//! it leaves without a search. Knows neither JSON nor sockets; the relation itself
//! is stated by [`super::filter::matches`], and the tests hold the two against each other.
//! Main type: [`SubscriptionIndex`].
//!
//! Invariants, which [`SubscriptionIndex::check_invariants`] asserts: every entry of a list is a
//! posting of the connection in its slot, and every posting an entry; lists, pages and texts
//! live exactly as long as they have users; a slot without subscriptions owns nothing.

mod checks;
mod draft;
mod entries;
mod fingerprint;
mod lists;
mod matching;
mod room;
mod table;
mod texts;

use std::hash::RandomState;
use std::ops::{Deref, DerefMut};

use self::checks::Checks;
use self::draft::{Draft, turn};
use self::entries::{Entry, Rest};
use self::fingerprint::Fingerprint;
use self::lists::{ListId, Lists};
use self::matching::Gathering;
use self::table::a_quarter_more;
use self::texts::TextId;
use super::filter::{Notification, Subscription};
use super::holdings::Holdings;
use crate::id::ConnectionId;
use crate::memory::{CROWD_MIN, Departures};

/// Who subscribed to what.
#[derive(Default)]
pub struct SubscriptionIndex {
    lists: Lists,
    /// Of fingerprints. Keyed, so that nobody makes criteria that pass for others.
    hasher: RandomState,
    /// What matching touches of each slot, kept apart because it fits into the cache.
    marks: Vec<Mark>,
    /// The rest of each slot. As long as `marks`.
    slots: Vec<Slot>,
    /// Of slots that were given up.
    departures: Departures,
    /// The number of the latest notification; no mark is ahead of it.
    stamp: u32,
    connections: usize,
    subscriptions: usize,
    values: usize,
}

/// What matching needs to know of a slot.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// The tenant that has the subscriptions.
    serial: u32,
    /// The latest notification in which it was met.
    stamp: u32,
}

/// What a slot has subscribed to; all empty if it hasn't. Half a cache line.
#[derive(Default)]
struct Slot {
    postings: Postings,
    holdings: Holdings,
}

/// Where an entry lies.
#[derive(Clone, Copy)]
struct Posting {
    list: ListId,
    /// Its position in the list.
    position: u32,
}

/// The postings of a connection, and what they need. Most have one without a check, and it needs
/// no allocation: ten thousand small ones, taken between messages, would keep the heap from
/// shrinking when they are gone.
#[derive(Default)]
enum Postings {
    #[default]
    None,
    One(Posting),
    Several(Box<Several>),
}

struct Several {
    postings: Box<[Posting]>,
    /// What is to be checked beyond the lists.
    checks: Checks,
}

impl Postings {
    fn new(postings: Vec<Posting>, checks: Checks) -> Self {
        match postings[..] {
            [] => Self::None,
            [posting] if checks.is_empty() => Self::One(posting),
            _ => Self::Several(Box::new(Several {
                postings: postings.into_boxed_slice(),
                checks,
            })),
        }
    }

    const fn checks(&self) -> Option<&Checks> {
        match self {
            Self::None | Self::One(_) => None,
            Self::Several(several) => Some(&several.checks),
        }
    }
}

impl Deref for Postings {
    type Target = [Posting];

    fn deref(&self) -> &[Posting] {
        match self {
            Self::None => &[],
            Self::One(posting) => std::slice::from_ref(posting),
            Self::Several(several) => &several.postings,
        }
    }
}

impl DerefMut for Postings {
    fn deref_mut(&mut self) -> &mut [Posting] {
        match self {
            Self::None => &mut [],
            Self::One(posting) => std::slice::from_mut(posting),
            Self::Several(several) => &mut several.postings,
        }
    }
}

impl SubscriptionIndex {
    /// Gives `id` these subscriptions in place of what it had.
    pub fn replace(&mut self, id: ConnectionId, subscriptions: &[Subscription<'_>]) {
        let left = self.clear(id.slot());
        if subscriptions.is_empty() {
            // It is still there. Otherwise the tenant of the last slot, if nobody else has
            // subscriptions, would have all slots made again with every other list.
            return self.trim(left, self.connections + 1);
        }
        self.grow(id.slot());
        self.marks[id.slot()].serial = id.serial;
        let mut draft = Draft::new(&mut self.lists, &self.hasher, id.index);
        for subscription in subscriptions {
            draft.post(subscription);
        }
        let postings = draft.finish();
        let holdings = Holdings::of(subscriptions);
        self.connections += 1;
        self.subscriptions += holdings.subscriptions as usize;
        self.values += holdings.values as usize;
        self.slots[id.slot()] = Slot { postings, holdings };
    }

    /// Takes away what `id` has subscribed to.
    pub fn remove(&mut self, id: ConnectionId) {
        let left = match self.subscriptions_of(id) {
            0 => 0,
            _ => self.clear(id.slot()),
        };
        self.trim(left, self.connections);
    }

    /// How many subscriptions `id` has.
    #[must_use]
    pub fn subscriptions_of(&self, id: ConnectionId) -> usize {
        self.holdings_of(id).subscriptions as usize
    }

    /// What `id` has.
    #[must_use]
    pub fn holdings_of(&self, id: ConnectionId) -> Holdings {
        match (self.marks.get(id.slot()), self.slots.get(id.slot())) {
            (Some(mark), Some(slot)) if mark.serial == id.serial => slot.holdings,
            _ => Holdings::default(),
        }
    }

    /// Appends every connection that has a matching subscription, each once.
    pub fn collect_recipients(
        &mut self,
        notification: &Notification<'_>,
        recipients: &mut Vec<ConnectionId>,
    ) {
        if self.stamp == u32::MAX {
            // Every 2^32 notifications the numbers begin again, and nobody has been met yet.
            self.marks.iter_mut().for_each(|mark| mark.stamp = 0);
            self.stamp = 0;
        }
        self.stamp += 1;
        Gathering::new(self, notification, recipients).run();
    }

    /// How many connections have subscriptions.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.subscriptions
    }

    /// How many values are in all subscriptions.
    #[must_use]
    pub fn value_count(&self) -> usize {
        self.values
    }

    /// The lengths of the texts that are stored.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.lists.texts.bytes()
    }

    /// Bytes that the index has asked of the heap; what the allocator adds is not in it.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let of_slots = self.slots.iter().map(Slot::heap_bytes).sum::<usize>();
        self.lists.heap_bytes()
            + self.marks.capacity() * size_of::<Mark>()
            + self.slots.capacity() * size_of::<Slot>()
            + of_slots
    }

    fn grow(&mut self, slot: usize) {
        if self.slots.capacity() <= slot {
            let missing = a_quarter_more(slot) + slot - self.slots.len();
            self.marks.reserve_exact(missing);
            self.slots.reserve_exact(missing);
        }
        if self.slots.len() <= slot {
            self.marks.resize_with(slot + 1, Mark::default);
            self.slots.resize_with(slot + 1, Slot::default);
        }
    }

    /// Takes away what the tenant of a slot has subscribed to. Says how many slots that vacates.
    fn clear(&mut self, index: usize) -> usize {
        let Some(slot) = self.slots.get(index).filter(|slot| slot.is_taken()) else {
            return 0;
        };
        self.connections -= 1;
        self.subscriptions -= slot.holdings.subscriptions as usize;
        self.values -= slot.holdings.values as usize;
        for ordinal in 0..slot.postings.len() {
            // Read anew each time: an entry that moves may be another one of this slot.
            let Posting { list, position, .. } = self.slots[index].postings[ordinal];
            if let Some(moved) = self.lists.swap_remove(list, position) {
                let slot = &mut self.slots[moved.tenant.slot() as usize];
                slot.postings[moved.ordinal as usize].position = position;
            }
        }
        let cleared = std::mem::take(&mut self.slots[index]);
        for text in cleared
            .postings
            .checks()
            .into_iter()
            .flat_map(Checks::texts)
        {
            self.lists.texts.release(text);
        }
        1
    }

    /// Gives the vacant slots at the end back, if it is time.
    fn trim(&mut self, left: usize, remain: usize) {
        if self.departures.update(left, remain, CROWD_MIN) {
            let last = self.slots.iter().rposition(Slot::is_taken);
            let len = last.map_or(0, |last| last + 1);
            self.slots.truncate(len);
            self.slots.shrink_to_fit();
            self.marks.truncate(len);
            self.marks.shrink_to_fit();
        }
    }

    /// Asserts what the head of this file promises; for tests and fuzzing, since it takes time.
    pub fn check_invariants(&self) {
        assert_eq!(self.marks.len(), self.slots.len());
        let tenants = || self.slots.iter().filter(|slot| slot.is_taken());
        let mut vacancies = self.slots.iter().filter(|slot| !slot.is_taken());
        assert!(vacancies.all(|slot| {
            matches!(slot.postings, Postings::None) && slot.holdings == Holdings::default()
        }));
        assert_eq!(tenants().count(), self.connections);
        let subscriptions = tenants().map(|slot| slot.holdings.subscriptions as usize);
        assert_eq!(subscriptions.sum::<usize>(), self.subscriptions);
        let values = tenants().map(|slot| slot.holdings.values as usize);
        assert_eq!(values.sum::<usize>(), self.values);
        assert!(self.marks.iter().all(|mark| mark.stamp <= self.stamp));
        for (slot, record) in (0..).zip(&self.slots) {
            self.check_postings(slot, &record.postings);
        }
        let is_posting = |list, position, entry: Entry| {
            let slot = &self.slots[entry.tenant.slot() as usize];
            let posting = slot.postings[entry.ordinal as usize];
            posting.list == list && posting.position == position
        };
        let check_users = |text: TextId| {
            let checks = tenants().filter_map(|slot| slot.postings.checks());
            let users = checks.flat_map(Checks::texts).filter(|&user| user == text);
            u32::try_from(users.count()).unwrap_or(u32::MAX)
        };
        self.lists.check_invariants(is_posting, check_users);
    }

    /// Asserts that every posting of a slot has its entry, with the fingerprint of its check, and
    /// that every check is somebody's.
    fn check_postings(&self, slot: u32, postings: &Postings) {
        let mut used = Vec::new();
        for (ordinal, posting) in (0..).zip(&**postings) {
            let entry = self.lists.entries(posting.list).get(posting.position);
            let entry = entry.expect("a posting has its entry");
            assert_eq!((entry.tenant.slot(), entry.ordinal), (slot, ordinal));
            if !entry.tenant.is_checked() {
                assert_eq!(entry.rest, Rest::NOTHING);
                continue;
            }
            let Rest { check, fingerprint } = entry.rest;
            let checks = postings.checks().expect("it is checked");
            assert!(checks.starts().any(|start| start == check));
            let criteria: Vec<_> = checks.at(check).collect();
            let turn = turn(&self.hasher, slot, check);
            assert_eq!(
                fingerprint,
                Fingerprint::asked(&self.hasher, &criteria, turn)
            );
            used.push(check);
        }
        used.dedup();
        assert!(
            postings
                .checks()
                .into_iter()
                .flat_map(Checks::starts)
                .eq(used)
        );
    }
}

impl Slot {
    const fn is_taken(&self) -> bool {
        self.holdings.subscriptions > 0
    }

    fn heap_bytes(&self) -> usize {
        let Postings::Several(several) = &self.postings else {
            return 0;
        };
        size_of::<Several>()
            + size_of_val::<[Posting]>(&several.postings)
            + several.checks.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::hub::filter::{Criterion, Filter, NameMap, NotificationValues, Page, Values};

    fn channel(name: &str) -> Notification<'_> {
        Notification {
            page: None,
            channel: Some(name.into()),
            values: NotificationValues::Absent,
        }
    }

    #[test]
    fn marks_begin_again_and_nobody_is_left_out() {
        let mut index = SubscriptionIndex::default();
        let ids = [0, 1].map(|index| ConnectionId { index, serial: 0 });
        for id in ids {
            index.replace(id, &[Subscription::Channel("a".into())]);
        }
        let mut last = Vec::new();
        index.stamp = u32::MAX - 1;
        for _ in 0..4 {
            last.clear();
            index.collect_recipients(&channel("a"), &mut last);
            last.sort_unstable();
            assert_eq!(last, ids);
            index.check_invariants();
        }
        assert_eq!(index.stamp, 3, "all marks are looked at once");
    }

    fn named(criteria: &[(&'static str, Criterion<'static>)]) -> Subscription<'static> {
        let criteria = criteria.iter();
        let entries = criteria.map(|(name, criterion)| (Cow::Borrowed(*name), criterion.clone()));
        let page = Page {
            package: "p".into(),
            page: "q".into(),
        };
        let names = NameMap::new(entries.collect()).expect("distinct names");
        Subscription::Page(page, Filter::Named(names))
    }

    fn one_of(value: &'static str) -> Criterion<'static> {
        Criterion::OneOf(Values::new(vec![value.into()]))
    }

    #[test]
    fn a_subscription_waits_where_the_fewest_others_do() {
        let mut index = SubscriptionIndex::default();
        let id = |index| ConnectionId { index, serial: 0 };
        for other in 0..10 {
            index.replace(id(other), &[named(&[("x", one_of("a"))])]);
        }
        index.replace(id(10), &[named(&[("x", one_of("a")), ("y", one_of("b"))])]);
        index.replace(
            id(11),
            &[named(&[("w", Criterion::Any), ("y", one_of("b"))])],
        );
        let list = |slot: usize| index.slots[slot].postings[0].list;
        assert!(list(0) == list(9) && list(0) != list(10) && list(10) == list(11));
        assert_eq!(index.connection_count(), 12);
        assert_eq!(index.subscription_count(), 12);
        assert_eq!(index.value_count(), 14);
    }

    #[test]
    fn whoever_has_the_last_slot_does_not_make_the_others_anew_each_time() {
        const LAST: u32 = 100_000;
        const ROUNDS: usize = 10_000;
        let id = |index| ConnectionId { index, serial: 0 };
        let lists = [&[Subscription::Channel("a".into())][..], &[]];
        let mut index = SubscriptionIndex::default();
        let mut lengths = Vec::new();
        for list in lists.into_iter().cycle().take(ROUNDS) {
            index.replace(id(LAST), list);
            lengths.push(index.slots.len());
        }
        lengths.dedup();
        // Every other list is empty, and each look is followed by growth.
        let looks = lengths.len() / 2;
        assert_eq!(looks, ROUNDS / 2 / 64);
        // A last look when nobody is left, however few have left.
        index.remove(id(LAST));
        assert_eq!(index.heap_bytes(), 0);
    }

    #[test]
    fn a_slot_is_half_a_cache_line() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    #[test]
    fn the_tables_are_counted_and_a_single_posting_takes_nothing() {
        const COUNT: u32 = 1000;
        let mut index = SubscriptionIndex::default();
        for slot in 0..COUNT {
            let id = ConnectionId {
                index: slot,
                serial: 0,
            };
            index.replace(id, &[Subscription::Channel("a".into())]);
        }
        let single = |slot: &Slot| matches!(slot.postings, Postings::One(_));
        assert!(index.slots.iter().all(single));
        assert!(index.slots.iter().all(|slot| slot.heap_bytes() == 0));
        let of_tables = COUNT as usize * (size_of::<Mark>() + size_of::<Slot>());
        let counted = index.heap_bytes() - index.lists.heap_bytes();
        assert!((of_tables..2 * of_tables).contains(&counted), "{counted}");
    }

    #[test]
    fn memory_is_counted_where_it_is_large_and_given_back() {
        const LONG: usize = 10_000;
        let mut index = SubscriptionIndex::default();
        let id = ConnectionId {
            index: 0,
            serial: 0,
        };
        let long = "x".repeat(LONG);
        index.replace(id, &[Subscription::Channel(long.into())]);
        assert!(index.heap_bytes() > LONG, "a long text");
        let values = (0..500).map(|value| Cow::Owned(value.to_string()));
        let criterion = Criterion::OneOf(Values::new(values.collect()));
        let names = vec![
            (Cow::Borrowed("x"), criterion.clone()),
            (Cow::Borrowed("y"), criterion),
        ];
        let page = Page {
            package: "p".into(),
            page: "q".into(),
        };
        let filter = Filter::Named(NameMap::new(names).expect("two names"));
        index.replace(id, &[Subscription::Page(page, filter)]);
        // A list for each value of a criterion, and those of the other to look at.
        let slot = &index.slots[0];
        let of_slot = 500 * (size_of::<TextId>() + size_of::<Posting>());
        assert!(
            (of_slot..of_slot + 500).contains(&slot.heap_bytes()),
            "{}",
            slot.heap_bytes()
        );
        index.remove(id);
        assert_eq!(index.heap_bytes(), 0);
    }
}
