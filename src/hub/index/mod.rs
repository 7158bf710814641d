//! The index of subscriptions: which connections want a notification, in time proportional to
//! their number.
//!
//! Owns all subscriptions, in a form made for that one question: every subscription is
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
mod postings;
mod room;
mod slots;
mod table;
mod texts;
mod walk;
mod written;

use std::hash::RandomState;

use self::checks::Checks;
use self::draft::{Draft, turn};
use self::entries::{Entry, Rest};
use self::fingerprint::Fingerprint;
use self::lists::Lists;
use self::matching::Query;
use self::postings::{Posting, Postings};
use self::slots::{Slot, Slots};
use self::texts::TextId;
use self::walk::Walk;
use super::filter::{Notification, Subscription};
use super::holdings::Holdings;
use crate::id::ConnectionId;

/// The subscriptions of all connections.
#[derive(Default)]
pub struct SubscriptionIndex {
    lists: Lists,
    /// Of fingerprints. Keyed, so that nobody makes criteria that pass for others.
    hasher: RandomState,
    slots: Slots,
    connections: usize,
    subscriptions: usize,
    values: usize,
}

impl SubscriptionIndex {
    /// Gives `id` these subscriptions in place of what it had.
    pub fn replace(&mut self, id: ConnectionId, subscriptions: &[Subscription<'_>]) {
        let left = self.clear(id.index);
        if subscriptions.is_empty() {
            // It is still there. Otherwise the tenant of the last slot, if nobody else has
            // subscriptions, would have all slots made again with every other list.
            return self.slots.trim(left, self.connections + 1);
        }
        self.post(id, subscriptions, Holdings::of(subscriptions));
    }

    /// Takes away what `id` has subscribed to.
    pub fn remove(&mut self, id: ConnectionId) {
        let left = match self.subscriptions_of(id) {
            0 => 0,
            _ => self.clear(id.index),
        };
        self.slots.trim(left, self.connections);
    }

    /// How many subscriptions `id` has.
    #[must_use]
    pub fn subscriptions_of(&self, id: ConnectionId) -> usize {
        self.holdings_of(id).subscriptions as usize
    }

    /// What `id` has.
    #[must_use]
    pub fn holdings_of(&self, id: ConnectionId) -> Holdings {
        self.slots.holdings_of(id)
    }

    /// Appends every connection that has a matching subscription, each once.
    pub fn collect_recipients(
        &mut self,
        notification: &Notification<'_>,
        recipients: &mut Vec<ConnectionId>,
    ) {
        Query::new(
            &self.lists,
            &mut self.slots,
            &self.hasher,
            notification,
            recipients,
        )
        .run();
    }

    /// Whether [`SubscriptionIndex::collect_recipients`] meets no more than `max` lists and subscriptions.
    #[must_use]
    pub fn is_walk_within(&self, notification: &Notification<'_>, max: usize) -> bool {
        Walk::new(&self.lists, max).is_enough(notification)
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
        self.lists.heap_bytes() + self.slots.heap_bytes()
    }

    /// Gives `id`, which has nothing, these subscriptions, which count as `holdings`: one at least.
    fn post(&mut self, id: ConnectionId, subscriptions: &[Subscription<'_>], holdings: Holdings) {
        let mut draft = Draft::new(&mut self.lists, &self.hasher, id.index);
        for subscription in subscriptions {
            draft.post(subscription);
        }
        let postings = draft.finish();
        self.connections += 1;
        self.subscriptions += holdings.subscriptions as usize;
        self.values += holdings.values as usize;
        self.slots.put(id, Slot { postings, holdings });
    }

    /// Takes away what the tenant of a slot has subscribed to. Says how many slots that vacates.
    fn clear(&mut self, index: u32) -> usize {
        let slot = self.slots.get(index as usize);
        let Some(slot) = slot.filter(|slot| slot.is_taken()) else {
            return 0;
        };
        self.connections -= 1;
        self.subscriptions -= slot.holdings.subscriptions as usize;
        self.values -= slot.holdings.values as usize;
        for ordinal in 0..slot.postings.len() {
            // Read anew each time: an entry that moves may be another one of this slot.
            let Posting { list, position, .. } = self.slots.of(index).postings[ordinal];
            if let Some(moved) = self.lists.swap_remove(list, position) {
                let slot = self.slots.of(moved.tenant.slot());
                slot.postings[moved.ordinal as usize].position = position;
            }
        }
        let cleared = std::mem::take(self.slots.of(index));
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

    /// Asserts what the head of this file promises; for tests and fuzzing, since it takes time.
    pub fn check_invariants(&self) {
        self.slots.check_invariants();
        let tenants = || self.slots.iter().filter(|slot| slot.is_taken());
        assert_eq!(tenants().count(), self.connections);
        let subscriptions = tenants().map(|slot| slot.holdings.subscriptions as usize);
        assert_eq!(subscriptions.sum::<usize>(), self.subscriptions);
        let values = tenants().map(|slot| slot.holdings.values as usize);
        assert_eq!(values.sum::<usize>(), self.values);
        for (slot, record) in (0..).zip(self.slots.iter()) {
            self.check_postings(slot, &record.postings);
        }
        let is_posting = |list, position, entry: Entry| {
            let slot = self.slots.get(entry.tenant.slot() as usize);
            let slot = slot.expect("an entry has its slot");
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::slots::Mark;
    use super::*;
    use crate::hub::filter::{Criterion, Filter, NameMap, Page, Values};

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
        let list = |slot: usize| index.slots.get(slot).expect("it is taken").postings[0].list;
        assert!(list(0) == list(9) && list(0) != list(10) && list(10) == list(11));
        assert_eq!(index.connection_count(), 12);
        assert_eq!(index.subscription_count(), 12);
        assert_eq!(index.value_count(), 14);
    }

    #[test]
    fn the_tenant_of_the_last_slot_does_not_make_the_others_anew_each_time() {
        const LAST: u32 = 100_000;
        const ROUNDS: usize = 10_000;
        let id = |index| ConnectionId { index, serial: 0 };
        let lists = [&[Subscription::Channel("a".into())][..], &[]];
        let mut index = SubscriptionIndex::default();
        let mut lengths = Vec::new();
        for list in lists.into_iter().cycle().take(ROUNDS) {
            index.replace(id(LAST), list);
            lengths.push(index.slots.iter().len());
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
        assert!(
            index
                .slots
                .iter()
                .all(|slot| slot.postings.heap_bytes() == 0)
        );
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
        let slot = index.slots.get(0).expect("it is taken");
        let of_slot = 500 * (size_of::<TextId>() + size_of::<Posting>());
        assert!(
            (of_slot..of_slot + 500).contains(&slot.postings.heap_bytes()),
            "{}",
            slot.postings.heap_bytes()
        );
        index.remove(id);
        assert_eq!(index.heap_bytes(), 0);
    }
}
