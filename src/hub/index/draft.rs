//! Posting the subscriptions of a connection: in which lists each waits, and what is checked
//! beyond them.
//!
//! Acquires the texts and makes the lists as it goes; knows nothing of slots but their number. Main type:
//! [`Draft`].

use std::hash::{BuildHasher, RandomState};

use super::checks::{CheckedCriterion, ChecksDraft};
use super::entries::{Entry, Rest, Tenant};
use super::fingerprint::Fingerprint;
use super::lists::{Key, Lists, PageId};
use super::postings::{Posting, Postings};
use super::texts::TextId;
use crate::hub::filter::{Criterion, Filter, NameMap, Subscription, Values};

/// The subscriptions of a connection while they are posted.
pub(super) struct Draft<'i> {
    lists: &'i mut Lists,
    hasher: &'i RandomState,
    slot: u32,
    postings: Vec<Posting>,
    checks: ChecksDraft,
}

impl<'i> Draft<'i> {
    /// Nothing is posted yet.
    pub(super) fn new(lists: &'i mut Lists, hasher: &'i RandomState, slot: u32) -> Self {
        Self {
            lists,
            hasher,
            slot,
            postings: Vec::new(),
            checks: ChecksDraft::default(),
        }
    }

    /// What was posted.
    pub(super) fn finish(self) -> Postings {
        Postings::new(self.postings, self.checks.finish())
    }

    /// Puts a subscription into its lists.
    pub(super) fn post(&mut self, subscription: &Subscription<'_>) {
        let (page, filter) = match subscription {
            Subscription::Channel(channel) => {
                return self.push(PageId::CHANNELS, None, Some(channel), Rest::NOTHING);
            }
            Subscription::Page(page, filter) => (page, filter),
        };
        if never_passes(filter) {
            return;
        }
        let page = self.lists.make_page(&page.package, &page.page);
        match filter {
            Filter::Everything => self.push(page, None, None, Rest::NOTHING),
            Filter::Nameless(values) => self.push_each(page, None, values, Rest::NOTHING),
            Filter::Named(criteria) => self.post_criteria(page, criteria),
        }
    }

    fn post_criteria(&mut self, page: PageId, criteria: &NameMap<'_, Criterion<'_>>) {
        let costs = criteria
            .iter()
            .map(|(name, criterion)| self.cost(page, name, criterion));
        let Some((chosen, _)) = costs.enumerate().min_by_key(|&(_, cost)| cost) else {
            // No criterion at all: everything passes.
            return self.push(page, None, None, Rest::NOTHING);
        };
        let rest = self.make_check(criteria, chosen);
        let (name, criterion) = criteria.iter().nth(chosen).expect("one of the criteria");
        match criterion {
            Criterion::Any => self.push(page, Some(name), None, rest),
            Criterion::OneOf(values) => self.push_each(page, Some(name), values, rest),
        }
    }

    /// What it would cost to post under a criterion: how many others would be met beside this
    /// subscription, then how many entries it takes. Any value is the last resort.
    fn cost(&self, page: PageId, name: &str, criterion: &Criterion<'_>) -> (bool, usize, usize) {
        let waiting = |value| {
            let key = Key {
                page,
                name: Some(name),
                value,
            };
            let list = self.lists.find(key);
            list.map_or(0, |list| self.lists.entries(list).len())
        };
        match criterion {
            Criterion::Any => (true, waiting(None), 1),
            Criterion::OneOf(values) => {
                let waiting = values.iter().map(|value| waiting(Some(value))).sum();
                (false, waiting, values.len())
            }
        }
    }

    /// Keeps the criteria that the lists don't answer.
    fn make_check(&mut self, criteria: &NameMap<'_, Criterion<'_>>, chosen: usize) -> Rest {
        if criteria.len() == 1 {
            return Rest::NOTHING;
        }
        let texts = &mut self.lists.texts;
        let others = criteria.iter().enumerate().filter(|&(i, _)| i != chosen);
        let others: Vec<(TextId, Option<Vec<u32>>)> = others
            .map(|(_, (name, criterion))| {
                let accepted = match criterion {
                    Criterion::Any => None,
                    Criterion::OneOf(values) => {
                        let ids = values.iter().map(|text| texts.acquire(text).word());
                        let mut ids: Vec<_> = ids.collect();
                        ids.sort_unstable();
                        Some(ids)
                    }
                };
                (texts.acquire(name), accepted)
            })
            .collect();
        let criteria: Vec<_> = others
            .iter()
            .map(|(name, accepted)| CheckedCriterion {
                name: *name,
                accepted: accepted.as_deref(),
            })
            .collect();
        let check = self.checks.add(&criteria);
        let turn = turn(self.hasher, self.slot, check);
        Rest {
            fingerprint: Fingerprint::asked(self.hasher, &criteria, turn),
            check,
        }
    }

    fn push_each(&mut self, page: PageId, name: Option<&str>, values: &Values<'_>, rest: Rest) {
        for value in values.iter() {
            self.push(page, name, Some(value), rest);
        }
    }

    fn push(&mut self, page: PageId, name: Option<&str>, value: Option<&str>, rest: Rest) {
        let ordinal = u32::try_from(self.postings.len());
        let entry = Entry {
            tenant: Tenant::new(self.slot, rest != Rest::NOTHING),
            ordinal: ordinal.expect("limits keep postings far below 2^32"),
            rest,
        };
        let (list, position) = self.lists.push(Key { page, name, value }, entry);
        self.postings.push(Posting { list, position });
    }
}

/// Which criteria of a check are in its fingerprint, if they are more than there is room for:
/// others for each subscription.
#[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
pub(super) fn turn(hasher: &RandomState, slot: u32, check: u32) -> u32 {
    hasher.hash_one((slot, check)) as u32
}

/// Whether no notification at all can pass: an empty list accepts nothing. Such a subscription
/// is counted but posted nowhere.
fn never_passes(filter: &Filter<'_>) -> bool {
    match filter {
        Filter::Everything => false,
        Filter::Nameless(values) => values.is_empty(),
        Filter::Named(criteria) => criteria.iter().any(
            |(_, criterion)| matches!(criterion, Criterion::OneOf(values) if values.is_empty()),
        ),
    }
}
