//! One walk through the index: the lists that a notification leads to, and who is met there.
//!
//! The walk reads the lists and writes marks, nothing else. Most entries need one look at their
//! mark; only those with further criteria make the notification's texts be resolved to ids, once.
//! Main type: [`Gathering`].

use super::entries::Entry;
use super::lists::{Key, ListId, Lists, PageId};
use super::texts::{TextId, Texts};
use super::{CheckedCriterion, Mark, Slot, SubscriptionIndex};
use crate::hub::filter::{Notification, NotificationValues, Values};
use crate::id::ConnectionId;

/// A notification on its way through the index.
pub(super) struct Gathering<'a> {
    lists: &'a Lists,
    marks: &'a mut [Mark],
    slots: &'a [Slot],
    stamp: u32,
    notification: &'a Notification<'a>,
    resolved: Option<Resolved>,
    recipients: &'a mut Vec<ConnectionId>,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(
        index: &'a mut SubscriptionIndex,
        notification: &'a Notification<'a>,
        recipients: &'a mut Vec<ConnectionId>,
    ) -> Self {
        Self {
            lists: &index.lists,
            marks: &mut index.marks,
            slots: &index.slots,
            stamp: index.stamp,
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
        for (position, tenant) in (0..).zip(entries.tenants()) {
            let slot = tenant.slot();
            let mark = self.marks[slot as usize];
            if mark.stamp == self.stamp {
                continue;
            }
            if tenant.is_checked() && !entries.get(position).is_some_and(|e| self.passes(e)) {
                continue;
            }
            self.marks[slot as usize].stamp = self.stamp;
            self.recipients.push(ConnectionId {
                index: slot,
                serial: mark.serial,
            });
        }
    }

    /// Whether the criteria are met that the list doesn't answer.
    fn passes(&mut self, entry: Entry) -> bool {
        let slot = &self.slots[entry.tenant.slot() as usize];
        let posting = slot.postings[entry.ordinal as usize];
        let check = slot.postings.checks().get(posting.check as usize);
        let (texts, values) = (&self.lists.texts, &self.notification.values);
        let resolved = self
            .resolved
            .get_or_insert_with(|| Resolved::new(texts, values));
        check.is_none_or(|check| check.iter().all(|criterion| resolved.meets(criterion)))
    }
}

/// The values of a notification, as ids of those texts that anybody has subscribed to.
enum Resolved {
    /// By name; the names are sorted.
    Named(Vec<(TextId, ResolvedValues)>),
    Nameless(ResolvedValues),
}

struct ResolvedValues {
    /// Whether there is any value, be it one that nobody has subscribed to.
    is_there: bool,
    /// Sorted.
    ids: Vec<TextId>,
}

impl Resolved {
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

    fn meets(&self, criterion: &CheckedCriterion) -> bool {
        match self {
            Self::Nameless(values) => values.meet(criterion),
            Self::Named(names) => names
                .binary_search_by_key(&criterion.name, |&(name, _)| name)
                .is_ok_and(|position| names[position].1.meet(criterion)),
        }
    }
}

impl ResolvedValues {
    fn new(texts: &Texts, values: &Values<'_>) -> Self {
        let mut ids: Vec<_> = values.iter().filter_map(|text| texts.find(text)).collect();
        ids.sort_unstable();
        Self {
            is_there: !values.is_empty(),
            ids,
        }
    }

    fn meet(&self, criterion: &CheckedCriterion) -> bool {
        match &criterion.accepted {
            None => self.is_there,
            Some(accepted) => {
                let (few, many) = match accepted.len() < self.ids.len() {
                    true => (&**accepted, &*self.ids),
                    false => (&*self.ids, &**accepted),
                };
                few.iter().any(|id| many.binary_search(id).is_ok())
            }
        }
    }
}
