//! The posting lists: which subscriptions are to be looked at for a page, a name and a value.
//!
//! ```text
//! page -> everything                   subscriptions without criteria
//!           +-- name, any value        wildcards: chained below, for values without a name
//!         value                        nameless subscriptions
//!           +-- name, value            criteria: chained below, for values without a name
//! ```
//!
//! A list is found by hashing its page, name and value; the two that have no name also head a
//! chain of those that do, so that a nameless value walks along lists that all have somebody
//! in them. The list of a shorthand belongs to no page.
//!
//! Invariant: a list exists exactly as long as it has entries or heads a chain, a page as long
//! as it has lists. Knows slots, not connections. Main type: [`Lists`].

use std::hash::{BuildHasher, RandomState};

use super::entries::{Entries, Entry};
use super::table::{IdTable, NO_ID, Records};
use super::texts::{TextId, Texts};
use crate::hub::filter;

/// Names a posting list that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ListId(u32);

impl ListId {
    const NONE: Self = Self(NO_ID);

    fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

/// Names a page that has lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageId(u32);

impl PageId {
    /// Where the shorthands are listed, by their channel.
    pub(super) const CHANNELS: Self = Self(NO_ID);
}

/// What a list is found by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    /// The page.
    pub(super) page: PageId,
    /// The name of the criterion; `None` for a value of any name.
    pub(super) name: Option<&'a str>,
    /// The value; `None` for any.
    pub(super) value: Option<&'a str>,
}

impl Key<'_> {
    /// Whether the list is that of a shorthand.
    pub(super) fn is_channel(&self) -> bool {
        self.page == PageId::CHANNELS
    }
}

struct List {
    page: PageId,
    name: Option<TextId>,
    value: Option<TextId>,
    /// The chain that this list heads, if it has no name.
    first: ListId,
    /// Its neighbours in the chain, if it has one.
    next: ListId,
    previous: ListId,
    entries: Entries,
}

struct Page {
    package: TextId,
    page: TextId,
    lists: u32,
    /// The list that has neither name nor value.
    everything: ListId,
    /// Lists of the page in which somebody takes any value of a name.
    wildcard_lists: u32,
    /// Entries of nameless subscriptions.
    nameless_entries: u32,
}

/// The posting lists, their pages and their texts.
#[derive(Default)]
pub(super) struct Lists {
    /// The texts of the lists, and of the checks that the index keeps beside them.
    pub(super) texts: Texts,
    hasher: RandomState,
    page_table: IdTable,
    pages: Records<Page>,
    list_table: IdTable,
    lists: Records<List>,
}

impl Lists {
    /// The page that `package` and `page` name, if anybody subscribed to it.
    pub(super) fn find_page(&self, package: &str, page: &str) -> Option<PageId> {
        let hash = self.hasher.hash_one((package, page));
        let is_page = |id: u32| {
            let record = &self.pages[id];
            self.texts.is(record.page, page) && self.texts.is(record.package, package)
        };
        self.page_table.find(hash, is_page).map(PageId)
    }

    /// The same, made if it isn't there. It stays only if a list is made for it.
    pub(super) fn make_page(&mut self, package: &str, page: &str) -> PageId {
        self.find_page(package, page).unwrap_or_else(|| {
            let record = Page {
                package: self.texts.acquire(package),
                page: self.texts.acquire(page),
                lists: 0,
                everything: ListId::NONE,
                wildcard_lists: 0,
                nameless_entries: 0,
            };
            let id = self.pages.insert(record);
            self.page_table
                .insert(self.hasher.hash_one((package, page)), id);
            PageId(id)
        })
    }

    /// The list of a key.
    pub(super) fn find(&self, key: Key<'_>) -> Option<ListId> {
        let is_list = |id: u32| {
            let list = &self.lists[id];
            list.page == key.page
                && self.is_text(list.value, key.value)
                && self.is_text(list.name, key.name)
        };
        self.list_table.find(self.hash(key), is_list).map(ListId)
    }

    /// The list of all that take everything of a page.
    pub(super) fn everything(&self, page: PageId) -> Option<ListId> {
        self.pages[page.0].everything.some()
    }

    /// Whether anybody on a page takes any value of a name.
    pub(super) fn has_wildcards(&self, page: PageId) -> bool {
        self.pages[page.0].wildcard_lists > 0
    }

    /// Whether anybody on a page takes a value under any name.
    pub(super) fn has_nameless(&self, page: PageId) -> bool {
        self.pages[page.0].nameless_entries > 0
    }

    /// The lists chained below `head`.
    pub(super) fn chain(&self, head: ListId) -> impl Iterator<Item = ListId> {
        let first = self.lists[head.0].first.some();
        std::iter::successors(first, |list| self.lists[list.0].next.some())
    }

    /// The entries of a list.
    pub(super) fn entries(&self, list: ListId) -> &Entries {
        &self.lists[list.0].entries
    }

    /// Puts `entry` into the list of `key`, which is made if it isn't there; says which list it
    /// is, and the position in it.
    pub(super) fn push(&mut self, key: Key<'_>, entry: Entry) -> (ListId, u32) {
        let id = self.make(key);
        if key.page != PageId::CHANNELS && key.name.is_none() && key.value.is_some() {
            self.pages[key.page.0].nameless_entries += 1;
        }
        (id, self.lists[id.0].entries.push(entry))
    }

    /// Takes the entry at `position` out of a list. The last entry takes its place: it is
    /// returned, for its own posting has to know.
    pub(super) fn swap_remove(&mut self, id: ListId, position: u32) -> Option<Entry> {
        let list = &mut self.lists[id.0];
        let moved = list.entries.swap_remove(position);
        if list.page != PageId::CHANNELS && list.name.is_none() && list.value.is_some() {
            self.pages[list.page.0].nameless_entries -= 1;
        }
        self.remove_if_unused(id);
        moved
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let entries = self.lists.iter().map(|(_, list)| list.entries.heap_bytes());
        entries.sum::<usize>()
            + self.texts.heap_bytes()
            + self.page_table.heap_bytes()
            + self.pages.heap_bytes()
            + self.list_table.heap_bytes()
            + self.lists.heap_bytes()
    }

    fn is_text(&self, id: Option<TextId>, text: Option<&str>) -> bool {
        match (id, text) {
            (Some(id), Some(text)) => self.texts.is(id, text),
            (None, None) => true,
            _ => false,
        }
    }

    fn hash(&self, key: Key<'_>) -> u64 {
        self.hasher.hash_one((key.page.0, key.name, key.value))
    }

    /// What a page is named by; it isn't that of the shorthands.
    pub(super) fn page_of(&self, id: PageId) -> filter::Page<'_> {
        let page = &self.pages[id.0];
        filter::Page {
            package: self.texts.text(page.package).into(),
            page: self.texts.text(page.page).into(),
        }
    }

    /// What a list is found by.
    pub(super) fn key_of(&self, id: ListId) -> Key<'_> {
        let list = &self.lists[id.0];
        Key {
            page: list.page,
            name: list.name.map(|name| self.texts.text(name)),
            value: list.value.map(|value| self.texts.text(value)),
        }
    }

    fn make(&mut self, key: Key<'_>) -> ListId {
        if let Some(id) = self.find(key) {
            return id;
        }
        let id = ListId(self.lists.insert(List {
            page: key.page,
            name: key.name.map(|name| self.texts.acquire(name)),
            value: key.value.map(|value| self.texts.acquire(value)),
            first: ListId::NONE,
            next: ListId::NONE,
            previous: ListId::NONE,
            entries: Entries::default(),
        }));
        self.list_table.insert(self.hash(key), id.0);
        if key.page != PageId::CHANNELS {
            let page = &mut self.pages[key.page.0];
            page.lists += 1;
            match (key.name, key.value) {
                (None, None) => page.everything = id,
                (Some(_), None) => page.wildcard_lists += 1,
                _ => {}
            }
        }
        if key.name.is_some() {
            self.link(id, Key { name: None, ..key });
        }
        id
    }

    /// Puts a list first into the chain of its head.
    fn link(&mut self, id: ListId, head: Key<'_>) {
        let head = self.make(head);
        let second = std::mem::replace(&mut self.lists[head.0].first, id);
        self.lists[id.0].next = second;
        if let Some(second) = second.some() {
            self.lists[second.0].previous = id;
        }
    }

    fn unlink(&mut self, id: ListId, head: ListId) {
        let List { next, previous, .. } = self.lists[id.0];
        match previous.some() {
            Some(previous) => self.lists[previous.0].next = next,
            None => self.lists[head.0].first = next,
        }
        if let Some(next) = next.some() {
            self.lists[next.0].previous = previous;
        }
    }

    fn remove_if_unused(&mut self, id: ListId) {
        let list = &self.lists[id.0];
        if list.entries.len() > 0 || list.first != ListId::NONE {
            return;
        }
        let key = self.key_of(id);
        let head = key.name.and_then(|_| self.find(Key { name: None, ..key }));
        let hash = self.hash(key);
        if let Some(head) = head {
            self.unlink(id, head);
        }
        self.list_table.remove(hash, id.0);
        let list = self.lists.remove(id.0);
        for text in [list.name, list.value].into_iter().flatten() {
            self.texts.release(text);
        }
        if let Some(head) = head {
            self.remove_if_unused(head);
        }
        if list.page != PageId::CHANNELS {
            self.forget_list(&list);
        }
    }

    /// A list of a page is gone; the last one takes the page along.
    fn forget_list(&mut self, list: &List) {
        let page = &mut self.pages[list.page.0];
        page.lists -= 1;
        match (list.name, list.value) {
            (None, None) => page.everything = ListId::NONE,
            (Some(_), None) => page.wildcard_lists -= 1,
            _ => {}
        }
        if page.lists > 0 {
            return;
        }
        let page = self.pages.remove(list.page.0);
        let key = (self.texts.text(page.package), self.texts.text(page.page));
        self.page_table
            .remove(self.hasher.hash_one(key), list.page.0);
        self.texts.release(page.package);
        self.texts.release(page.page);
    }
}

impl Lists {
    /// Asserts what the head of this file promises. `is_posting` says whether an entry at a
    /// position of a list is what its connection has noted; `check_users` counts the users
    /// that a text has in the checks of all connections.
    pub(super) fn check_invariants(
        &self,
        is_posting: impl Fn(ListId, u32, Entry) -> bool,
        check_users: impl Fn(TextId) -> u32,
    ) {
        assert_eq!(self.list_table.len(), self.lists.len());
        assert_eq!(self.page_table.len(), self.pages.len());
        let mut chained = 0;
        for (id, list) in self.lists.iter() {
            let id = ListId(id);
            assert_eq!(self.find(self.key_of(id)), Some(id));
            assert!(list.entries.len() > 0 || list.first != ListId::NONE);
            let all = (0..).map_while(|position| Some((position, list.entries.get(position)?)));
            for (position, entry) in all {
                assert!(is_posting(id, position, entry), "an entry without posting");
            }
            let mut previous = ListId::NONE;
            for below in self.chain(id) {
                let (key, head) = (self.key_of(below), self.key_of(id));
                assert!(key.name.is_some() && head.name.is_none());
                assert!(key.page == head.page && key.value == head.value);
                assert_eq!(self.lists[below.0].previous, previous);
                (previous, chained) = (below, chained + 1);
            }
        }
        let named = self.lists.iter().filter(|(_, list)| list.name.is_some());
        assert_eq!(
            named.count(),
            chained,
            "every list with a name is in a chain"
        );
        self.pages
            .iter()
            .for_each(|(id, page)| self.check_page(PageId(id), page));
        let users = |text| self.count_users(text) + check_users(text);
        self.texts.check_invariants(users);
    }

    fn check_page(&self, id: PageId, page: &Page) {
        let (package, name) = (self.texts.text(page.package), self.texts.text(page.page));
        assert_eq!(self.find_page(package, name), Some(id));
        let lists = || {
            self.lists
                .iter()
                .map(|(_, list)| list)
                .filter(|list| list.page == id)
        };
        assert_eq!(lists().count(), page.lists as usize);
        assert!(page.lists > 0, "a page without lists is gone");
        let wildcards = lists().filter(|list| list.name.is_some() && list.value.is_none());
        assert_eq!(wildcards.count(), page.wildcard_lists as usize);
        let nameless = lists().filter(|list| list.name.is_none() && list.value.is_some());
        let entries: usize = nameless.map(|list| list.entries.len()).sum();
        assert_eq!(entries, page.nameless_entries as usize);
        let everything = Key {
            page: id,
            name: None,
            value: None,
        };
        assert_eq!(self.find(everything), page.everything.some());
    }

    fn count_users(&self, text: TextId) -> u32 {
        let of_lists = self
            .lists
            .iter()
            .flat_map(|(_, list)| [list.name, list.value]);
        let pages = self.pages.iter();
        let of_pages = pages.flat_map(|(_, page)| [Some(page.package), Some(page.page)]);
        let users = of_lists.chain(of_pages).filter(|&user| user == Some(text));
        u32::try_from(users.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::super::entries::{Rest, Tenant};
    use super::super::table::entry_bytes;
    use super::*;

    #[test]
    fn a_list_is_less_than_a_cache_line() {
        assert!(entry_bytes::<List>() <= 48, "{}", entry_bytes::<List>());
    }

    const ENTRY: Entry = Entry {
        tenant: Tenant::new(0, false),
        ordinal: 0,
        rest: Rest::NOTHING,
    };

    const fn key<'a>(page: PageId, name: Option<&'a str>, value: Option<&'a str>) -> Key<'a> {
        Key { page, name, value }
    }

    /// Two numbers whose hashes a table can't tell apart, of which any 80,000 hold a pair.
    fn twins(hash: impl Fn(&str) -> u64) -> [String; 2] {
        let mut seen = HashMap::new();
        for n in 0u32.. {
            let text = n.to_string();
            let low_half = hash(&text) & u64::from(u32::MAX);
            if let Some(first) = seen.insert(low_half, text.clone()) {
                return [first, text];
            }
        }
        unreachable!("there are more numbers than hashes")
    }

    #[test]
    fn pages_with_one_hash_are_told_apart() {
        let mut lists = Lists::default();
        let [a, b] = twins(|page| lists.hasher.hash_one(("p", page)));
        let [c, d] = twins(|package| lists.hasher.hash_one((package, "q")));
        let keys = [("p", &*a), ("p", &b), (&c, "q"), (&d, "q")];
        let pages = keys.map(|(package, page)| lists.make_page(package, page));
        for (n, (package, page)) in keys.into_iter().enumerate() {
            assert_eq!(lists.find_page(package, page), Some(pages[n]));
            assert!(!pages[..n].contains(&pages[n]));
        }
    }

    #[test]
    fn lists_with_one_hash_are_told_apart() {
        let mut lists = Lists::default();
        let page = lists.make_page("p", "q");
        let [a, b] = twins(|value| lists.hash(key(page, Some("n"), Some(value))));
        let [c, d] = twins(|name| lists.hash(key(page, Some(name), Some("v"))));
        let [e, f] = twins(|value| lists.hash(key(page, None, Some(value))));
        let keys = [
            key(page, Some("n"), Some(&a)),
            key(page, Some("n"), Some(&b)),
            key(page, Some(&c), Some("v")),
            key(page, Some(&d), Some("v")),
            key(page, None, Some(&e)),
            key(page, None, Some(&f)),
        ];
        let ids = keys.map(|key| lists.push(key, ENTRY).0);
        for (n, key) in keys.into_iter().enumerate() {
            assert_eq!(lists.find(key), Some(ids[n]));
            assert!(!ids[..n].contains(&ids[n]));
        }
    }

    #[test]
    fn a_hash_depends_on_page_name_and_value() {
        let mut lists = Lists::default();
        let pages = [lists.make_page("p", "q"), lists.make_page("p", "r")];
        let texts = [None, Some("a"), Some("b")];
        let mut hashes = HashSet::new();
        for page in pages {
            for name in texts {
                hashes.extend(texts.map(|value| lists.hash(Key { page, name, value })));
            }
        }
        assert_eq!(hashes.len(), 18);
    }

    #[test]
    fn what_nobody_on_a_page_has_is_not_looked_for() {
        let mut lists = Lists::default();
        let page = lists.make_page("p", "q");
        let has = |lists: &Lists| (lists.has_wildcards(page), lists.has_nameless(page));
        let by = |name, value| key(page, name, value);
        lists.push(by(None, None), ENTRY);
        lists.push(by(Some("n"), Some("v")), ENTRY);
        assert_eq!(has(&lists), (false, false));
        let wildcard = lists.push(by(Some("n"), None), ENTRY);
        assert_eq!(has(&lists), (true, false));
        let nameless = lists.push(by(None, Some("v")), ENTRY);
        assert_eq!(has(&lists), (true, true));
        for (list, position) in [wildcard, nameless] {
            lists.swap_remove(list, position);
        }
        assert_eq!(has(&lists), (false, false));
    }
}
