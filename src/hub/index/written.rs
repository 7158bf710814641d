//! The subscriptions of a connection as a list again: what a successor is given of them.
//!
//! The index doesn't keep lists as they were sent, only where their entries lie and what is checked there. What is
//! made of these comes to the same, and is a fixed point: given to another index and made again it is the same list,
//! whichever criterion that one posts under.

use std::borrow::Cow;

use super::checks::{CheckedCriterion, Checks};
use super::lists::Key;
use super::postings::Posting;
use super::texts::TextId;
use super::{Holdings, Subscription, SubscriptionIndex};
use crate::hub::filter::{Criterion, Filter, NameMap, Values};
use crate::id::ConnectionId;

/// An entry of a connection, by what it is found by.
struct Posted<'i> {
    key: Key<'i>,
    /// Where its check begins, if it has one. Each subscription has one of its own.
    check: Option<u32>,
}

impl Posted<'_> {
    /// Whether one subscription can stand for this entry and the `next` one: each of them is met by one value of the
    /// same name, if what is checked beyond that is the same.
    fn goes_with(&self, next: &Self) -> bool {
        let is_one_of = |key: &Key<'_>| !key.is_channel() && key.value.is_some();
        is_one_of(&self.key)
            && is_one_of(&next.key)
            && self.key.page == next.key.page
            && self.key.name == next.key.name
            && self.check == next.check
    }
}

impl SubscriptionIndex {
    /// A list that comes to the same as what `id` has subscribed to; empty if that is nothing. Neighbours that ask for
    /// values of the same name are one in it, and what nothing can match is left out: so it isn't always what was
    /// sent, and may hold less than [`SubscriptionIndex::holdings_of`] says.
    #[must_use]
    pub fn list_of(&self, id: ConnectionId) -> Vec<Subscription<'_>> {
        let slot = self.slots.get(id.slot());
        let Some(slot) = slot.filter(|_| self.subscriptions_of(id) > 0) else {
            return Vec::new();
        };
        let postings = slot.postings.iter();
        let mut posted = postings.map(|&posting| self.posted(posting)).peekable();
        let mut list = Vec::new();
        while let Some(first) = posted.next() {
            let mut values = Vec::from_iter(first.key.value.map(Cow::Borrowed));
            while let Some(next) = posted.next_if(|next| first.goes_with(next)) {
                values.extend(next.key.value.map(Cow::Borrowed));
            }
            list.push(self.subscription(slot.postings.checks(), &first, values));
        }
        list
    }

    /// Gives `id`, which has nothing, a list that was written, and with it what was counted of the list that was sent.
    /// Of no subscriptions nothing is kept, whatever is in the list.
    pub fn restore(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        holdings: Holdings,
    ) {
        self.clear(id.index);
        if holdings.subscriptions > 0 {
            self.post(id, subscriptions, holdings);
        }
    }

    fn posted(&self, posting: Posting) -> Posted<'_> {
        let Posting { list, position } = posting;
        let entry = self.lists.entries(list).get(position);
        let entry = entry.expect("a posting has its entry");
        Posted {
            key: self.lists.key_of(list),
            check: entry.tenant.is_checked().then_some(entry.rest.check),
        }
    }

    /// The subscription that waits where `posted` does, for any of `values`.
    fn subscription<'i>(
        &'i self,
        checks: Option<&'i Checks>,
        posted: &Posted<'i>,
        mut values: Vec<Cow<'i, str>>,
    ) -> Subscription<'i> {
        let Key { page, name, value } = posted.key;
        if posted.key.is_channel() {
            return Subscription::Channel(values.pop().unwrap_or_default());
        }
        let filter = match (name, value) {
            (None, None) => Filter::Everything,
            (None, Some(_)) => Filter::Nameless(Values::new(values)),
            (Some(name), value) => {
                let chosen = match value {
                    None => Criterion::Any,
                    Some(_) => Criterion::OneOf(Values::new(values)),
                };
                let checks = checks.zip(posted.check).into_iter();
                let checked = checks.flat_map(|(checks, check)| checks.at(check));
                let mut criteria: Vec<_> = checked.map(|checked| self.criterion(checked)).collect();
                criteria.push((Cow::Borrowed(name), chosen));
                Filter::Named(NameMap::new(criteria).expect("a subscription has a name once"))
            }
        };
        Subscription::Page(self.lists.page_of(page), filter)
    }

    fn criterion(&self, checked: CheckedCriterion<'_>) -> (Cow<'_, str>, Criterion<'_>) {
        let text = |id| Cow::Borrowed(self.lists.texts.text(id));
        let criterion = match checked.accepted {
            None => Criterion::Any,
            Some(accepted) => {
                let accepted = accepted.iter().map(|&word| text(TextId::from_word(word)));
                Criterion::OneOf(Values::new(accepted.collect()))
            }
        };
        (text(checked.name), criterion)
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;
    use crate::hub::command::{parse_list, parse_notification, write_subscriptions};
    use crate::hub::filter::{Notification, Page, matches};

    const fn id(index: u32) -> ConnectionId {
        ConnectionId { index, serial: 3 }
    }

    fn written(index: &SubscriptionIndex, id: ConnectionId) -> String {
        let mut json = Vec::new();
        write_subscriptions(&index.list_of(id), &mut json);
        String::from_utf8(json).expect("JSON is text")
    }

    /// What a list is written as that a connection has sent.
    fn round(list: &str) -> String {
        let mut index = SubscriptionIndex::default();
        index.replace(id(0), &parse_list(list).expect("a list"));
        written(&index, id(0))
    }

    /// The list of filters of one page, in JSON.
    fn of_page(filters: &[&str]) -> String {
        let subscriptions = filters.iter().map(|values| match *values {
            "" => r#"{"package":"p","page":"q"}"#.to_owned(),
            values => {
                format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}}}}"#)
            }
        });
        format!("[{}]", subscriptions.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn most_lists_are_written_as_they_were_sent() {
        for list in [
            r#"[]"#,
            r#"["a"]"#,
            r#"["a","b","a",""]"#,
            r#"[{"package":"p","page":"q"},{"package":"p","page":"r"},"q"]"#,
            &of_page(&[r#"["1","true"]"#, r#"{"a":true}"#, r#"{"a":["1"]}"#]),
            &of_page(&[r#"{"a":["1","2"],"b":true,"c":["2"]}"#; 3]),
            &of_page(&[r#"{"a":true,"b":true}"#, r#"{"b":true}"#, ""]),
            &of_page(&["", "", r#"{"":[""]}"#]),
        ] {
            assert_eq!(round(list), list);
        }
    }

    #[test]
    fn neighbours_of_one_name_are_one_and_what_nothing_matches_is_none() {
        for (sent, kept) in [
            (
                &[r#"{"a":["2"]}"#, r#"{"a":["1"]}"#, r#"{"a":["2"]}"#][..],
                &[r#"{"a":["1","2"]}"#][..],
            ),
            (&[r#"["2"]"#, r#"["1"]"#], &[r#"["1","2"]"#]),
            (&[r#"{"a":[]}"#, r#"{"a":true,"b":[]}"#], &[]),
            // Under another name, with a check or for any value they aren't.
            (
                &[
                    r#"{"a":["1"]}"#,
                    r#"{"b":["1"]}"#,
                    r#"["1"]"#,
                    r#"{"a":true}"#,
                ],
                &[
                    r#"{"a":["1"]}"#,
                    r#"{"b":["1"]}"#,
                    r#"["1"]"#,
                    r#"{"a":true}"#,
                ],
            ),
            (
                &[
                    r#"{"a":["1"],"b":["2","3","4"]}"#,
                    r#"{"a":["1"],"b":["5","6","7"]}"#,
                ],
                &[
                    r#"{"a":["1"],"b":["2","3","4"]}"#,
                    r#"{"a":["1"],"b":["5","6","7"]}"#,
                ],
            ),
        ] {
            assert_eq!(round(&of_page(sent)), of_page(kept));
            assert_eq!(round(&of_page(kept)), of_page(kept));
        }
    }

    #[test]
    fn holdings_are_those_of_what_was_sent() {
        let mut index = SubscriptionIndex::default();
        let nothing = parse_list(r#"[{"package":"p","page":"q","filters":{"values":{"a":[]}}}]"#);
        let holdings = Holdings {
            text_bytes: 3,
            subscriptions: 1,
            values: 1,
        };
        let nothing = nothing.expect("a list");
        assert_eq!(Holdings::of(&nothing), holdings);
        index.replace(id(1), &nothing);
        assert_eq!(written(&index, id(1)), "[]");
        let mut carried = SubscriptionIndex::default();
        carried.restore(id(1), &index.list_of(id(1)), index.holdings_of(id(1)));
        carried.check_invariants();
        assert_eq!(carried.holdings_of(id(1)), holdings);
        assert_eq!(
            (carried.connection_count(), carried.subscription_count()),
            (1, 1)
        );
        // Without subscriptions it isn't there; and a list is its own tenant's alone.
        carried.restore(id(1), &nothing, Holdings::default());
        assert_eq!(carried.connection_count(), 0);
        carried.check_invariants();
        index.replace(id(1), &[Subscription::Channel("a".into())]);
        let earlier = ConnectionId {
            index: 1,
            serial: 2,
        };
        assert!(index.list_of(earlier).is_empty() && index.list_of(id(7)).is_empty());
    }

    #[test]
    fn it_is_the_same_list_whichever_criterion_it_waits_under() {
        let list = of_page(&[r#"{"a":["1"],"b":["2"],"c":["3"]}"#]);
        let parsed = parse_list(&list).expect("a list");
        for crowded in ["a", "b", "c"] {
            let mut index = SubscriptionIndex::default();
            for name in ["a", "b", "c"].iter().filter(|&&name| name != crowded) {
                for other in 1..10 {
                    let values = (1..=3).map(|value| format!(r#""{value}""#));
                    let values = values.collect::<Vec<_>>().join(",");
                    let other_list = of_page(&[&format!(r#"{{"{name}":[{values}]}}"#)]);
                    let at = id(other + 10 * u32::from(name.as_bytes()[0]));
                    index.replace(at, &parse_list(&other_list).expect("a list"));
                }
            }
            index.replace(id(0), &parsed);
            let slot = index.slots.get(0).expect("it is taken");
            let key = index.lists.key_of(slot.postings[0].list);
            assert_eq!(key.name, Some(crowded));
            assert_eq!(written(&index, id(0)), list);
        }
    }

    #[derive(Deserialize)]
    struct Case<'a> {
        #[serde(borrow)]
        subscription: &'a RawValue,
        #[serde(borrow)]
        notification: &'a RawValue,
    }

    /// The index that is made of what `index` writes for the slots below `slots`.
    fn carried(index: &SubscriptionIndex, slots: u32) -> SubscriptionIndex {
        let mut carried = SubscriptionIndex::default();
        // In another order, so that others wait where a criterion is chosen.
        for slot in (0..slots).rev() {
            let json = written(index, id(slot));
            let list = parse_list(&json).expect("a list");
            carried.restore(id(slot), &list, index.holdings_of(id(slot)));
        }
        carried.check_invariants();
        for slot in 0..slots {
            assert_eq!(written(&carried, id(slot)), written(index, id(slot)));
            assert_eq!(carried.holdings_of(id(slot)), index.holdings_of(id(slot)));
        }
        carried
    }

    fn recipients(index: &mut SubscriptionIndex, notification: &Notification<'_>) -> Vec<u32> {
        let mut recipients = Vec::new();
        index.collect_recipients(notification, &mut recipients);
        let mut slots: Vec<_> = recipients.iter().map(|id| id.index).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn the_cases_of_the_contract_match_as_before() {
        let cases = include_str!("../../../tests/data/matching-cases.json");
        let cases: Vec<Case<'_>> = serde_json::from_str(cases).expect("the data is valid");
        let slots = 3 * cases.len() as u32;
        let mut random = Rng::with_seed(5);
        let mut index = SubscriptionIndex::default();
        for slot in 0..slots {
            // Each alone, then some together.
            let some = (0..random.usize(1..6)).map(|_| random.usize(..cases.len()));
            let chosen = match cases.get(slot as usize) {
                Some(_) => vec![slot as usize],
                None => some.collect(),
            };
            let list = chosen.iter().map(|&at| cases[at].subscription.get());
            let list = format!("[{}]", list.collect::<Vec<_>>().join(","));
            index.replace(id(slot), &parse_list(&list).expect("a list"));
        }
        let mut carried = carried(&index, slots);
        for case in &cases {
            let notification = parse_notification(case.notification.get());
            let notification = notification.expect("a notification");
            let expected = recipients(&mut index, &notification);
            assert_eq!(recipients(&mut carried, &notification), expected);
        }
    }

    const TEXTS: [&str; 5] = ["", "a", "b", "true", "\"\\\u{0}🦀"];

    fn text(random: &mut Rng) -> Cow<'static, str> {
        TEXTS[random.usize(..TEXTS.len())].into()
    }

    fn values(random: &mut Rng) -> Values<'static> {
        let count = random.usize(..4);
        Values::new((0..count).map(|_| text(random)).collect())
    }

    fn names<T>(random: &mut Rng, entry: impl Fn(&mut Rng) -> T) -> NameMap<'static, T> {
        let chosen = TEXTS[1..].iter().filter(|_| random.bool());
        let chosen: Vec<_> = chosen.map(|&name| Cow::Borrowed(name)).collect();
        let entries = chosen.into_iter().map(|name| (name, entry(random)));
        NameMap::new(entries.collect()).expect("distinct")
    }

    fn subscription(random: &mut Rng) -> Subscription<'static> {
        let filter = match random.u8(..8) {
            0 => return Subscription::Channel(text(random)),
            1 => Filter::Everything,
            2 => Filter::Nameless(values(random)),
            _ => Filter::Named(names(random, |random| match random.u8(..4) {
                0 => Criterion::Any,
                _ => Criterion::OneOf(values(random)),
            })),
        };
        Subscription::Page(page(random), filter)
    }

    fn page(random: &mut Rng) -> Page<'static> {
        Page {
            package: "p".into(),
            page: TEXTS[random.usize(..2)].into(),
        }
    }

    fn notification(random: &mut Rng) -> Notification<'static> {
        use crate::hub::filter::NotificationValues;
        Notification {
            page: (random.u8(..8) > 0).then(|| page(random)),
            channel: random.bool().then(|| text(random)),
            values: match random.u8(..5) {
                0 => NotificationValues::Absent,
                1 => NotificationValues::Nameless(values(random)),
                _ => NotificationValues::Named(names(random, values)),
            },
        }
    }

    #[test]
    fn what_was_carried_has_the_same_recipients_as_the_filter_says() {
        const SLOTS: u32 = 24;
        let mut met = 0;
        for seed in 0..60 {
            let mut random = Rng::with_seed(seed);
            let mut index = SubscriptionIndex::default();
            let lists: Vec<Vec<_>> = (0..SLOTS)
                .map(|_| {
                    let count = random.usize(..5);
                    (0..count).map(|_| subscription(&mut random)).collect()
                })
                .collect();
            for (slot, list) in (0..).zip(&lists) {
                index.replace(id(slot), list);
            }
            let mut carried = carried(&index, SLOTS);
            for _ in 0..40 {
                let notification = notification(&mut random);
                let wants = |list: &[Subscription<'_>]| {
                    let mut list = list.iter();
                    list.any(|subscription| matches(subscription, &notification))
                };
                let expected = (0..).zip(&lists).filter(|(_, list)| wants(&list[..]));
                let expected: Vec<u32> = expected.map(|(slot, _)| slot).collect();
                met += expected.len();
                assert_eq!(
                    recipients(&mut carried, &notification),
                    expected,
                    "seed {seed}: {notification:?}"
                );
            }
            for slot in 0..SLOTS {
                carried.remove(id(slot));
            }
            assert_eq!(carried.heap_bytes(), 0);
        }
        assert!(met > 5000, "{met}");
    }
}
