//! Fingerprints: what a notification is found by in the history, and what a list of subscriptions looks for.
//!
//! Owns both sides of one agreement: a notification that matches a subscription has one of its needles among
//! its fingerprints, or has too many of them and the same page. [`super::filter::matches`] confirms what is
//! found. Knows neither where fingerprints are kept nor how they are searched. Main type: [`Fingerprinter`].
//!
//! | stream | of a notification | of a subscription |
//! | --- | --- | --- |
//! | page | its channel; its page | a channel; a page without criteria |
//! | name | each name with a value; *nameless* | a criterion that any value meets |
//! | pair | each name and value; *nameless* and each value | each value of a criterion |
//! | value | each value | each value without a name |
//!
//! A value without a name meets criteria of any name: it has the name *nameless*, which is that of no text, and
//! what looks for a name looks for this one too. All but channels are hashed together with their page.
//!
//! Peers choose the texts, so these are hashed with a key of the process; the hashes of texts, which nobody
//! sees, are put together by a multiplication.

use std::hash::{BuildHasher, RandomState};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::filter::{
    Criterion, Filter, NameMap, Notification, NotificationValues, Page, Subscription, Values,
};
use crate::journal::column::Fingerprints;
use crate::journal::needles::{Needles, Stream};

/// Makes fingerprints and needles that agree. Those of another one mean something else.
pub struct Fingerprinter {
    hasher: SeedableRandomState,
}

impl Default for Fingerprinter {
    /// One with a key of its own.
    fn default() -> Self {
        // The system's randomness is where the standard library's keys are from.
        let key = RandomState::new().hash_one(());
        Self {
            hasher: SeedableRandomState::with_seed(key, SharedSeed::global_random()),
        }
    }
}

/// Of a text, of a page, or of what has been put together from these.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash(u64);

/// In place of a name; and what sets a channel apart from a page.
const NAMELESS: Hash = Hash(0x9e37_79b9_7f4a_7c15);
const CHANNEL: Hash = Hash(0xd1b5_4a32_d192_ed03);

impl Hash {
    /// Of both in this order.
    const fn then(self, other: Self) -> Self {
        // The order counts: the halves of a product don't associate once they are folded.
        let product = self.0 as u128 * other.0 as u128;
        Self(product as u64 ^ (product >> 64) as u64)
    }

    const fn fingerprint(self) -> u32 {
        self.0 as u32
    }
}

impl Fingerprinter {
    /// Has `fingerprints` be those of `notification`.
    pub fn write(&self, notification: &Notification<'_>, fingerprints: &mut Fingerprints) {
        fingerprints.clear();
        if let Some(channel) = &notification.channel {
            fingerprints.push(Stream::Page, self.channel(channel).fingerprint());
        }
        let Some(page) = &notification.page else {
            return;
        };
        let page = self.page(page);
        fingerprints.push(Stream::Page, page.fingerprint());
        match &notification.values {
            NotificationValues::Absent => {}
            NotificationValues::Named(named) => {
                for (name, values) in named.iter() {
                    if fingerprints.has_too_many() {
                        break;
                    }
                    let name = self.text(name);
                    self.write_values(page, name, values, fingerprints);
                }
            }
            NotificationValues::Nameless(values) => {
                self.write_values(page, NAMELESS, values, fingerprints);
            }
        }
    }

    fn write_values(
        &self,
        page: Hash,
        name: Hash,
        values: &Values<'_>,
        fingerprints: &mut Fingerprints,
    ) {
        if values.is_empty() {
            return;
        }
        let name = page.then(name);
        fingerprints.push(Stream::Name, name.fingerprint());
        for value in values.iter() {
            if fingerprints.has_too_many() {
                return;
            }
            let value = self.text(value);
            fingerprints.push(Stream::Pair, name.then(value).fingerprint());
            fingerprints.push(Stream::Value, page.then(value).fingerprint());
        }
    }

    /// What finds every notification that one of `subscriptions` asks for.
    #[must_use]
    pub fn needles(&self, subscriptions: &[Subscription<'_>]) -> Needles {
        let mut needles = Vec::new();
        let mut pages = Vec::new();
        for subscription in subscriptions {
            match subscription {
                Subscription::Channel(channel) => {
                    needles.push((Stream::Page, self.channel(channel).fingerprint()));
                }
                Subscription::Page(page, filter) => {
                    let page = self.page(page);
                    pages.push(page.fingerprint());
                    self.add_needles(page, filter, &mut needles);
                }
            }
        }
        Needles::new(needles, pages)
    }

    fn add_needles(&self, page: Hash, filter: &Filter<'_>, needles: &mut Vec<(Stream, u32)>) {
        let of_page = (Stream::Page, page.fingerprint());
        match filter {
            Filter::Everything => needles.push(of_page),
            Filter::Nameless(values) => needles.extend(values.iter().map(|value| {
                let value = page.then(self.text(value));
                (Stream::Value, value.fingerprint())
            })),
            Filter::Named(criteria) => match most_selective(criteria) {
                None => needles.push(of_page),
                Some((name, criterion)) => {
                    let names = [self.text(name), NAMELESS].map(|name| page.then(name));
                    self.add_criterion(names, criterion, needles);
                }
            },
        }
    }

    /// Needles for values under any of `names`.
    fn add_criterion(
        &self,
        names: [Hash; 2],
        criterion: &Criterion<'_>,
        needles: &mut Vec<(Stream, u32)>,
    ) {
        match criterion {
            Criterion::Any => needles.extend(names.map(|name| (Stream::Name, name.fingerprint()))),
            Criterion::OneOf(values) => {
                for value in values.iter() {
                    let value = self.text(value);
                    let pairs = names.map(|name| name.then(value).fingerprint());
                    needles.extend(pairs.map(|pair| (Stream::Pair, pair)));
                }
            }
        }
    }

    fn text(&self, text: &str) -> Hash {
        Hash(self.hasher.hash_one(text))
    }

    fn page(&self, Page { package, page }: &Page<'_>) -> Hash {
        self.text(package).then(self.text(page))
    }

    fn channel(&self, channel: &str) -> Hash {
        self.text(channel).then(CHANNEL)
    }
}

/// The criterion with the fewest values; one that any value meets only if there is no other.
fn most_selective<'c, 'a>(
    criteria: &'c NameMap<'a, Criterion<'a>>,
) -> Option<(&'c str, &'c Criterion<'a>)> {
    criteria
        .iter()
        .min_by_key(|(_, criterion)| match criterion {
            Criterion::Any => usize::MAX,
            Criterion::OneOf(values) => values.len(),
        })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::hub::filter::matches;
    use crate::journal::column::{Column, ENTRY_STREAM_MAX, Search};
    use fastrand::Rng;

    fn page(page: &'static str) -> Page<'static> {
        Page {
            package: "amaiia_messages".into(),
            page: page.into(),
        }
    }

    fn values<T: ToString>(texts: impl IntoIterator<Item = T>) -> Values<'static> {
        let texts = texts.into_iter().map(|text| Cow::Owned(text.to_string()));
        Values::new(texts.collect())
    }

    fn named<T>(entries: Vec<(&'static str, T)>) -> NameMap<'static, T> {
        let entries = entries
            .into_iter()
            .map(|(name, entry)| (name.into(), entry));
        NameMap::new(entries.collect()).expect("distinct names")
    }

    fn notification(values: NotificationValues<'static>) -> Notification<'static> {
        Notification {
            page: Some(page("reader")),
            channel: Some("general".into()),
            values,
        }
    }

    fn asks(criteria: Vec<(&'static str, Criterion<'static>)>) -> Subscription<'static> {
        Subscription::Page(page("reader"), Filter::Named(named(criteria)))
    }

    /// Whether a search for `subscription` finds `notification`.
    fn is_found(subscription: &Subscription<'_>, notification: &Notification<'_>) -> bool {
        let fingerprinter = Fingerprinter::default();
        let mut fingerprints = Fingerprints::default();
        fingerprinter.write(notification, &mut fingerprints);
        let mut column = Column::default();
        column.push(&fingerprints);
        let needles = fingerprinter.needles(std::slice::from_ref(subscription));
        column.search(&needles, 0, 1) == Search::Hit(0)
    }

    #[test]
    fn each_kind_of_subscription_finds_what_it_asks_for() {
        let one = |value: u32| Criterion::OneOf(values([value]));
        let nameless = |value: u32| Filter::Nameless(values([value]));
        let subscriptions = [
            Subscription::Channel("general".into()),
            Subscription::Channel("other".into()),
            Subscription::Channel("reader".into()),
            Subscription::Page(page("reader"), Filter::Everything),
            Subscription::Page(page("other"), Filter::Everything),
            Subscription::Page(page("reader"), nameless(2)),
            Subscription::Page(page("reader"), nameless(3)),
            Subscription::Page(page("other"), nameless(2)),
            Subscription::Page(page("reader"), Filter::Nameless(Values::default())),
            asks(vec![]),
            asks(vec![("channel", one(2))]),
            asks(vec![("channel", one(3))]),
            asks(vec![("other", one(2))]),
            asks(vec![("channel", Criterion::Any)]),
            asks(vec![("other", Criterion::Any)]),
            asks(vec![("channel", Criterion::OneOf(Values::default()))]),
            asks(vec![("channel", Criterion::OneOf(values([1, 2, 3])))]),
        ];
        let empty = named(vec![("channel", Values::default())]);
        for values in [
            NotificationValues::Absent,
            NotificationValues::Named(empty),
            NotificationValues::Named(named(vec![("channel", values([2]))])),
            NotificationValues::Named(named(vec![("channel", values([4, 2]))])),
            NotificationValues::Nameless(values([2])),
            NotificationValues::Nameless(values([4, 2])),
            NotificationValues::Nameless(Values::default()),
        ] {
            let notification = notification(values);
            for subscription in &subscriptions {
                let expected = matches(subscription, &notification);
                let found = is_found(subscription, &notification);
                assert_eq!(found, expected, "{subscription:?} of {notification:?}");
            }
        }
    }

    #[test]
    fn the_criterion_with_the_fewest_values_decides() {
        let two = NotificationValues::Named(named(vec![("a", values([1])), ("b", values([2]))]));
        let notification = notification(two);
        let one_of = |numbers: &[u32]| Criterion::OneOf(values(numbers));
        let any = || Criterion::Any;
        for (a, b, expected) in [
            (one_of(&[1, 9]), one_of(&[8]), false),
            (one_of(&[8]), one_of(&[2, 9]), false),
            (any(), one_of(&[8, 9]), false),
            (one_of(&[]), any(), false),
            // Only one is looked at: what is found is confirmed.
            (one_of(&[8, 9]), one_of(&[2]), true),
        ] {
            let subscription = asks(vec![("a", a), ("b", b)]);
            assert_eq!(is_found(&subscription, &notification), expected);
        }
    }

    #[test]
    fn more_values_than_are_kept_are_found_by_the_page() {
        for count in [ENTRY_STREAM_MAX, ENTRY_STREAM_MAX + 1, 1024] {
            let is_rich = count > ENTRY_STREAM_MAX;
            let named = named(vec![("channel", values(0..count))]);
            for values in [
                NotificationValues::Named(named),
                NotificationValues::Nameless(values(0..count)),
            ] {
                let notification = notification(values);
                let asks = |value| asks(vec![("channel", Criterion::OneOf(values_of(value)))]);
                assert!((0..count).all(|value| is_found(&asks(value), &notification)));
                assert_eq!(is_found(&asks(count), &notification), is_rich);
                let elsewhere = Filter::Nameless(values_of(0));
                let elsewhere = Subscription::Page(page("other"), elsewhere);
                assert!(!is_found(&elsewhere, &notification));
                let channel = Subscription::Channel("general".into());
                assert!(is_found(&channel, &notification));
            }
        }
    }

    fn values_of(value: usize) -> Values<'static> {
        values([value])
    }

    #[test]
    fn what_is_found_in_vain_is_rare() {
        let mut random = Rng::with_seed(1);
        let fingerprinter = Fingerprinter::default();
        let mut fingerprints = Fingerprints::default();
        let mut column = Column::default();
        let channels: Vec<u32> = (0..20_000).map(|_| random.u32(..1000)).collect();
        for channel in &channels {
            let named = named(vec![("channel", values([channel]))]);
            let notification = notification(NotificationValues::Named(named));
            fingerprinter.write(&notification, &mut fingerprints);
            column.push(&fingerprints);
        }
        let (mut hits, mut in_vain) = (0, 0);
        for count in [1, 4, 20] {
            let asked: Vec<u32> = (0..count).map(|_| random.u32(..1000)).collect();
            let criterion = Criterion::OneOf(values(&asked));
            let needles = fingerprinter.needles(&[asks(vec![("channel", criterion)])]);
            let mut from = 0;
            while let Search::Hit(at) = column.search(&needles, from, usize::MAX) {
                hits += 1;
                in_vain += usize::from(!asked.contains(&channels[at]));
                from = at + 1;
            }
        }
        assert!(hits > 200 && in_vain <= 2, "{in_vain} of {hits}");
    }
}
