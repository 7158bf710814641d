//! How long a walk through the index would be, for those who needn't take it: a publish has to.
//!
//! Follows the ways of `matching.rs` from list to list, without a look into any. Main type: [`Walk`].

use super::lists::{Key, ListId, Lists, PageId};
use crate::hub::filter::{Notification, NotificationValues};

/// A walk that is measured.
pub(super) struct Walk<'l> {
    lists: &'l Lists,
    /// Lists and entries that it may still meet.
    left: usize,
}

impl<'l> Walk<'l> {
    /// One that may meet so many lists and entries.
    pub(super) const fn new(lists: &'l Lists, left: usize) -> Self {
        Self { lists, left }
    }

    /// Whether the walk of a notification meets no more than that.
    pub(super) fn is_enough(&mut self, notification: &Notification<'_>) -> bool {
        self.follow(notification).is_some()
    }

    fn follow(&mut self, notification: &Notification<'_>) -> Option<()> {
        if let Some(channel) = &notification.channel {
            self.pass_key(PageId::CHANNELS, None, Some(channel))?;
        }
        let page = notification.page.as_ref();
        let page = page.and_then(|page| self.lists.find_page(&page.package, &page.page));
        let Some(page) = page else {
            return Some(());
        };
        let everything = self.lists.everything(page);
        if let Some(everything) = everything {
            self.pass(everything)?;
        }
        match &notification.values {
            NotificationValues::Absent => {}
            NotificationValues::Named(named) => {
                for (name, values) in named.iter() {
                    self.pass_key(page, Some(name), None)?;
                    for value in values.iter() {
                        self.pass_key(page, Some(name), Some(value))?;
                        self.pass_key(page, None, Some(value))?;
                    }
                }
            }
            NotificationValues::Nameless(values) => {
                if let Some(everything) = everything.filter(|_| !values.is_empty()) {
                    self.pass_chain(everything)?;
                }
                for value in values.iter() {
                    let (name, value) = (None, Some(value));
                    if let Some(head) = self.lists.find(Key { page, name, value }) {
                        self.pass(head)?;
                        self.pass_chain(head)?;
                    }
                }
            }
        }
        Some(())
    }

    fn pass_key(&mut self, page: PageId, name: Option<&str>, value: Option<&str>) -> Option<()> {
        match self.lists.find(Key { page, name, value }) {
            Some(list) => self.pass(list),
            None => self.spend(1),
        }
    }

    fn pass_chain(&mut self, head: ListId) -> Option<()> {
        let lists = self.lists;
        lists.chain(head).try_for_each(|list| self.pass(list))
    }

    fn pass(&mut self, list: ListId) -> Option<()> {
        self.spend(1 + self.lists.entries(list).len())
    }

    fn spend(&mut self, count: usize) -> Option<()> {
        self.left = self.left.checked_sub(count)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use crate::hub::command::{parse_list, parse_notification};
    use crate::hub::index::SubscriptionIndex;
    use crate::id::ConnectionId;

    #[test]
    fn every_way_is_measured() {
        let mut index = SubscriptionIndex::default();
        let of_page = |values: &str| {
            format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}}}}"#)
        };
        let list = [
            r#""c""#.to_owned(),
            r#"{"package":"p","page":"q"}"#.to_owned(),
            of_page(r#"{"a":true}"#),
            of_page(r#"{"a":[1]}"#),
            of_page("[1]"),
        ];
        let list = format!("[{}]", list.join(","));
        let list = parse_list(&list).expect("a list");
        for slot in 0..100 {
            let id = ConnectionId {
                index: slot,
                serial: 0,
            };
            index.replace(id, &list);
        }
        for (notification, entries) in [
            (r#"{"channel":"c"}"#.to_owned(), 100),
            (r#"{"channel":"d"}"#.to_owned(), 0),
            (r#"{"package":"p","page":"q"}"#.to_owned(), 100),
            (of_page(r#"{"a":1}"#), 400),
            (of_page(r#"{"b":2}"#), 100),
            (of_page("1"), 400),
        ] {
            let notification = parse_notification(&notification).expect("a notification");
            let is_within = |max| index.is_walk_within(&notification, max);
            assert!(is_within(entries + 10) && (entries == 0 || !is_within(entries)));
            let mut recipients = Vec::new();
            index.collect_recipients(&notification, &mut recipients);
            assert!(recipients.len() <= entries);
        }
    }
}
