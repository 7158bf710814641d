//! One walk through the index: the lists that a notification leads to, and the subscriptions that are met there.
//!
//! The walk reads the lists and writes marks, nothing else. Most entries need one look at their
//! mark; only those with further criteria make the notification's texts be resolved to ids, once,
//! and are looked at more closely only if their fingerprint says that these may be met.
//! Main type: [`Query`].

use std::hash::RandomState;

use super::checks::CheckedCriterion;
use super::entries::Tenant;
use super::fingerprint::Fingerprint;
use super::lists::{Key, ListId, Lists, PageId};
use super::slots::{Mark, Slot, Slots};
use super::texts::{TextId, Texts};
use crate::hub::filter::{Notification, NotificationValues, Values};
use crate::id::ConnectionId;

/// A notification on its way through the index.
pub(super) struct Query<'a> {
    lists: &'a Lists,
    marks: &'a mut [Mark],
    slots: &'a [Slot],
    hasher: &'a RandomState,
    stamp: u32,
    notification: &'a Notification<'a>,
    resolved: Option<Resolved>,
    recipients: &'a mut Vec<ConnectionId>,
}

impl<'a> Query<'a> {
    pub(super) fn new(
        lists: &'a Lists,
        slots: &'a mut Slots,
        hasher: &'a RandomState,
        notification: &'a Notification<'a>,
        recipients: &'a mut Vec<ConnectionId>,
    ) -> Self {
        let (stamp, marks, slots) = slots.begin();
        Self {
            lists,
            marks,
            slots,
            hasher,
            stamp,
            notification,
            resolved: None,
            recipients,
        }
    }

    /// Visits every list that the notification leads to.
    pub(super) fn run(mut self) {
        let notification = self.notification;
        if let Some(channel) = &notification.channel {
            self.visit_key(PageId::CHANNELS, None, Some(channel));
        }
        let Some(page) = &notification.page else {
            return;
        };
        let Some(page) = self.lists.find_page(&page.package, &page.page) else {
            return;
        };
        let everything = self.lists.everything(page);
        if let Some(everything) = everything {
            self.visit(everything);
        }
        match &notification.values {
            NotificationValues::Absent => {}
            NotificationValues::Named(named) => {
                for (name, values) in named.iter() {
                    self.visit_named(page, name, values);
                }
            }
            NotificationValues::Nameless(values) => {
                if let Some(everything) = everything.filter(|_| !values.is_empty()) {
                    self.visit_chain(everything);
                }
                for value in values.iter() {
                    self.visit_nameless(page, value);
                }
            }
        }
    }

    fn visit_named(&mut self, page: PageId, name: &str, values: &Values<'_>) {
        if !values.is_empty() && self.lists.has_wildcards(page) {
            self.visit_key(page, Some(name), None);
        }
        let has_nameless = self.lists.has_nameless(page);
        for value in values.iter() {
            self.visit_key(page, Some(name), Some(value));
            if has_nameless {
                self.visit_key(page, None, Some(value));
            }
        }
    }

    fn visit_nameless(&mut self, page: PageId, value: &str) {
        let key = Key {
            page,
            name: None,
            value: Some(value),
        };
        if let Some(head) = self.lists.find(key) {
            self.visit(head);
            self.visit_chain(head);
        }
    }

    fn visit_key(&mut self, page: PageId, name: Option<&str>, value: Option<&str>) {
        if let Some(list) = self.lists.find(Key { page, name, value }) {
            self.visit(list);
        }
    }

    fn visit_chain(&mut self, head: ListId) {
        let lists = self.lists;
        for list in lists.chain(head) {
            self.visit(list);
        }
    }

    fn visit(&mut self, list: ListId) {
        let entries = self.lists.entries(list);
        let Some(fingerprints) = entries.fingerprints() else {
            return entries.tenants().for_each(|tenant| self.meet(tenant));
        };
        let offered = self.resolve().offered;
        for ((position, tenant), asked) in (0..).zip(entries.tenants()).zip(fingerprints) {
            if !tenant.is_checked()
                || asked.may_be_met_by(offered)
                    && !self.is_met(tenant)
                    && self.passes(tenant, entries.check(position))
            {
                self.meet(tenant);
            }
        }
    }

    fn is_met(&self, tenant: Tenant) -> bool {
        self.marks[tenant.slot() as usize].stamp == self.stamp
    }

    /// Notes that a tenant has a subscription that matches.
    fn meet(&mut self, tenant: Tenant) {
        let slot = tenant.slot();
        let mark = &mut self.marks[slot as usize];
        if mark.stamp != self.stamp {
            mark.stamp = self.stamp;
            self.recipients.push(ConnectionId {
                index: slot,
                serial: mark.serial,
            });
        }
    }

    fn resolve(&mut self) -> &Resolved {
        let (lists, hasher, values) = (self.lists, self.hasher, &self.notification.values);
        self.resolved
            .get_or_insert_with(|| Resolved::new(&lists.texts, hasher, values))
    }

    /// Whether the criteria are met that the list doesn't answer.
    fn passes(&mut self, tenant: Tenant, check: u32) -> bool {
        let checks = self.slots[tenant.slot() as usize].postings.checks();
        let resolved = self.resolve();
        let mut criteria = checks.iter().flat_map(|checks| checks.at(check));
        criteria.all(|criterion| resolved.meets(criterion))
    }
}

/// The values of a notification, as ids of those texts that anybody has subscribed to.
struct Resolved {
    names: ResolvedNames,
    /// What they may meet.
    offered: Fingerprint,
}

enum ResolvedNames {
    /// By name; the names are sorted.
    Named(Vec<(TextId, ResolvedValues)>),
    Nameless(ResolvedValues),
}

struct ResolvedValues {
    /// Whether there is any value, be it one that nobody has subscribed to.
    is_there: bool,
    /// Their words, sorted.
    ids: Vec<u32>,
}

impl Resolved {
    fn new(texts: &Texts, hasher: &RandomState, values: &NotificationValues<'_>) -> Self {
        let names = ResolvedNames::new(texts, values);
        let offered = names.offered(hasher);
        Self { names, offered }
    }

    fn meets(&self, criterion: CheckedCriterion<'_>) -> bool {
        match &self.names {
            ResolvedNames::Nameless(values) => values.meet(criterion),
            ResolvedNames::Named(names) => names
                .binary_search_by_key(&criterion.name, |&(name, _)| name)
                .is_ok_and(|position| names[position].1.meet(criterion)),
        }
    }
}

impl ResolvedNames {
    fn new(texts: &Texts, values: &NotificationValues<'_>) -> Self {
        match values {
            NotificationValues::Absent => Self::Named(Vec::new()),
            NotificationValues::Nameless(values) => {
                Self::Nameless(ResolvedValues::new(texts, values))
            }
            NotificationValues::Named(named) => {
                let known = named.iter().filter_map(|(name, values)| {
                    Some((texts.find(name)?, ResolvedValues::new(texts, values)))
                });
                let mut names: Vec<_> = known.collect();
                names.sort_unstable_by_key(|&(name, _)| name);
                Self::Named(names)
            }
        }
    }

    fn offered(&self, hasher: &RandomState) -> Fingerprint {
        let Self::Named(names) = self else {
            // They meet criteria of any name.
            return Fingerprint::EVERYTHING;
        };
        let mut offered = Fingerprint::default();
        for (name, values) in names.iter().filter(|(_, values)| values.is_there) {
            offered.offer(hasher, *name, None);
            for &value in &values.ids {
                offered.offer(hasher, *name, Some(TextId::from_word(value)));
            }
        }
        offered
    }
}

impl ResolvedValues {
    fn new(texts: &Texts, values: &Values<'_>) -> Self {
        let known = values.iter().filter_map(|text| texts.find(text));
        let mut ids: Vec<_> = known.map(TextId::word).collect();
        ids.sort_unstable();
        Self {
            is_there: !values.is_empty(),
            ids,
        }
    }

    fn meet(&self, criterion: CheckedCriterion<'_>) -> bool {
        match criterion.accepted {
            None => self.is_there,
            Some(accepted) => {
                let (few, many) = if accepted.len() < self.ids.len() {
                    (accepted, &*self.ids)
                } else {
                    (&*self.ids, accepted)
                };
                few.iter().any(|id| many.binary_search(id).is_ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SubscriptionIndex;
    use super::*;
    use crate::hub::filter::{Criterion, Filter, NameMap, Page, Subscription, matches};
    use fastrand::Rng;

    fn page() -> Page<'static> {
        Page {
            package: "p".into(),
            page: "q".into(),
        }
    }

    fn values(random: &mut Rng, count_max: u64) -> Values<'static> {
        let count = 1 + random.u64(..) % count_max;
        let texts = (0..count).map(|_| (random.u64(..) % 6).to_string().into());
        Values::new(texts.collect())
    }

    /// Some of eight names; most, so that many criteria meet.
    fn named<T>(random: &mut Rng, mut entry: impl FnMut(&mut Rng) -> T) -> NameMap<'static, T> {
        let mut chosen = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            if random.u64(..) % 8 > 1 {
                chosen.push((name.into(), entry(random)));
            }
        }
        NameMap::new(chosen).expect("distinct names")
    }

    fn subscription(random: &mut Rng) -> Subscription<'static> {
        let criteria = named(random, |random| match random.u64(..) % 3 {
            0 => Criterion::Any,
            _ => Criterion::OneOf(values(random, 6)),
        });
        Subscription::Page(page(), Filter::Named(criteria))
    }

    fn notification(random: &mut Rng) -> Notification<'static> {
        Notification {
            page: Some(page()),
            channel: None,
            values: match random.u64(..) % 8 {
                0 => NotificationValues::Nameless(values(random, 3)),
                _ => NotificationValues::Named(named(random, |random| values(random, 5))),
            },
        }
    }

    #[test]
    fn many_criteria_are_met_as_the_filter_says() {
        let mut random = Rng::with_seed(11);
        let mut counts = [0, 0];
        for _ in 0..40 {
            let mut index = SubscriptionIndex::default();
            let lists: Vec<_> = (0..30)
                .map(|_| [0; 2].map(|_| subscription(&mut random)))
                .collect();
            for (slot, list) in (0..).zip(&lists) {
                index.replace(
                    ConnectionId {
                        index: slot,
                        serial: 0,
                    },
                    list,
                );
            }
            index.check_invariants();
            for _ in 0..40 {
                let notification = notification(&mut random);
                let mut recipients = Vec::new();
                index.collect_recipients(&notification, &mut recipients);
                recipients.sort_unstable();
                let wants =
                    |list: &[Subscription<'_>]| list.iter().any(|s| matches(s, &notification));
                let expected = (0..).zip(&lists).filter(|(_, list)| wants(&list[..]));
                let expected: Vec<u32> = expected.map(|(slot, _)| slot).collect();
                let recipients: Vec<u32> = recipients.iter().map(|id| id.index).collect();
                assert_eq!(recipients, expected, "{notification:?}");
                counts[0] += recipients.len();
                counts[1] += lists.len() - recipients.len();
            }
        }
        assert!(counts.iter().all(|&count| count > 2000), "{counts:?}");
    }
}
