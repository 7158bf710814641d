//! Whether the process may keep what a connection asks for: bounds over all of them together.
//!
//! Judged before anything is changed, so that a list that is refused leaves the earlier one in
//! force. What a connection has is counted off, but for its texts: whether others use those is known
//! only when they are released. So a text counts as new if it isn't stored, and what is stored
//! counts in full: the bound holds, and only close to it a list of new texts in place of old
//! ones may be refused though it would just fit.

use super::{Holdings, Subscription, SubscriptionIndex};
use crate::config::HubLimits;
use crate::id::ConnectionId;

impl SubscriptionIndex {
    /// Whether `id` can have `subscriptions` in place of what it has, within what `limits` grant
    /// to all connections together, of which `others` have some that aren't here. A list of
    /// subscriptions that are there already has room, and so has an empty one.
    #[must_use]
    pub fn has_room_for(
        &self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        others: Holdings,
        limits: &HubLimits,
    ) -> bool {
        let own = self
            .slots
            .get(id.slot())
            .map_or_else(Holdings::default, |slot| slot.holdings);
        let values: usize = subscriptions.iter().map(Subscription::values_len).sum();
        let subscriptions_len = self.subscriptions - own.subscriptions as usize
            + others.subscriptions as usize
            + subscriptions.len();
        let values_len = self.values - own.values as usize + others.values as usize + values;
        let other_bytes = usize::try_from(others.text_bytes).unwrap_or(usize::MAX);
        let text_bytes_max = limits.text_bytes_max.saturating_sub(other_bytes);
        subscriptions_len <= limits.subscriptions_total_max
            && values_len <= limits.values_total_max
            && self.has_room_for_texts(subscriptions, text_bytes_max)
    }

    /// Adding the lengths up is mostly enough; only then is each text looked for.
    fn has_room_for_texts(&self, subscriptions: &[Subscription<'_>], bytes_max: usize) -> bool {
        let texts = &self.lists.texts;
        let room = bytes_max.saturating_sub(texts.bytes());
        bytes_of(subscriptions, |_| true) <= room
            || bytes_of(subscriptions, |text| texts.find(text).is_none()) <= room
    }
}

/// The lengths of the texts that `counts` lets count.
fn bytes_of(subscriptions: &[Subscription<'_>], counts: impl Fn(&str) -> bool) -> usize {
    let mut bytes = 0;
    for subscription in subscriptions {
        subscription.for_each_text(|text| {
            if counts(text) {
                bytes += text.len();
            }
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::filter::{Criterion, Filter, NameMap, Page, Values};

    const fn id(index: u32) -> ConnectionId {
        ConnectionId { index, serial: 3 }
    }

    fn channels<'a>(names: &[&'a str]) -> Vec<Subscription<'a>> {
        let channel = |&name: &&'a str| Subscription::Channel(name.into());
        names.iter().map(channel).collect()
    }

    /// On a page `p` of the package `pp`, a subscription with three values and a name of a byte.
    fn three_values<'a>(values: [&'a str; 2]) -> Subscription<'a> {
        let page = Page {
            package: "pp".into(),
            page: "p".into(),
        };
        let values = Values::new(values.map(Into::into).to_vec());
        let criteria = vec![
            ("n".into(), Criterion::OneOf(values)),
            ("m".into(), Criterion::Any),
        ];
        let criteria = NameMap::new(criteria).expect("distinct");
        Subscription::Page(page, Filter::Named(criteria))
    }

    const FREE: HubLimits = HubLimits {
        subscriptions_max: usize::MAX,
        values_max: usize::MAX,
        subscriptions_total_max: usize::MAX,
        values_total_max: usize::MAX,
        text_bytes_max: usize::MAX,
        share_percent: 100,
        message_bytes_max: 0,
        publish_bytes_max: 0,
    };

    #[test]
    fn subscriptions_at_max_and_one_more() {
        let limits = HubLimits {
            subscriptions_total_max: 3,
            ..FREE
        };
        let mut index = SubscriptionIndex::default();
        index.replace(id(0), &channels(&["a", "b"]));
        assert!(index.has_room_for(id(1), &channels(&["a"]), Holdings::default(), &limits));
        assert!(!index.has_room_for(id(1), &channels(&["a", "a"]), Holdings::default(), &limits));
        index.replace(id(1), &channels(&["a"]));
        assert!(!index.has_room_for(id(2), &channels(&["a"]), Holdings::default(), &limits));
        assert!(index.has_room_for(id(2), &[], Holdings::default(), &limits));
        // What it has makes room for as many.
        assert!(index.has_room_for(id(0), &channels(&["c", "d"]), Holdings::default(), &limits));
        assert!(!index.has_room_for(
            id(0),
            &channels(&["c", "d", "e"]),
            Holdings::default(),
            &limits
        ));
        index.remove(id(0));
        assert!(index.has_room_for(id(2), &channels(&["c", "d"]), Holdings::default(), &limits));
    }

    #[test]
    fn values_at_max_and_one_more() {
        let limits = HubLimits {
            values_total_max: 5,
            ..FREE
        };
        let mut index = SubscriptionIndex::default();
        index.replace(id(0), &[three_values(["1", "2"])]);
        assert_eq!(index.value_count(), 3);
        assert!(index.has_room_for(id(1), &channels(&["a", "b"]), Holdings::default(), &limits));
        assert!(!index.has_room_for(
            id(1),
            &channels(&["a", "b", "c"]),
            Holdings::default(),
            &limits
        ));
        index.replace(id(1), &channels(&["a", "b"]));
        assert!(index.has_room_for(
            id(0),
            &[three_values(["3", "4"])],
            Holdings::default(),
            &limits
        ));
        let four = [&[three_values(["3", "4"])][..], &channels(&["a"])].concat();
        assert!(!index.has_room_for(id(0), &four, Holdings::default(), &limits));
        index.remove(id(0));
        assert!(!index.has_room_for(
            id(1),
            &[&four[..], &four].concat(),
            Holdings::default(),
            &limits
        ));
        assert!(index.has_room_for(id(1), &four, Holdings::default(), &limits));
        index.check_invariants();
    }

    #[test]
    fn text_bytes_at_max_and_one_more() {
        let limits = HubLimits {
            text_bytes_max: 10,
            ..FREE
        };
        let mut index = SubscriptionIndex::default();
        let seven = [three_values(["1", "2"])];
        assert!(index.has_room_for(id(0), &seven, Holdings::default(), &limits));
        index.replace(id(0), &seven);
        assert_eq!(index.text_bytes(), 7);
        assert!(index.has_room_for(id(1), &channels(&["abc"]), Holdings::default(), &limits));
        assert!(!index.has_room_for(id(1), &channels(&["abcd"]), Holdings::default(), &limits));
        index.replace(id(1), &channels(&["abc"]));
        // What is stored already is free for everybody, and for its own connection too.
        let both = [&seven[..], &channels(&["abc", "pp", "1"])].concat();
        assert!(index.has_room_for(id(2), &both, Holdings::default(), &limits));
        assert!(index.has_room_for(id(0), &both, Holdings::default(), &limits));
        assert!(!index.has_room_for(id(2), &channels(&["x"]), Holdings::default(), &limits));
        index.remove(id(0));
        assert!(index.has_room_for(id(2), &channels(&["1234567"]), Holdings::default(), &limits));
        assert!(!index.has_room_for(
            id(2),
            &channels(&["12345678"]),
            Holdings::default(),
            &limits
        ));
        index.check_invariants();
    }

    #[test]
    fn a_list_that_has_room_stays_below_the_bound() {
        let limits = HubLimits {
            text_bytes_max: 8,
            ..FREE
        };
        let mut index = SubscriptionIndex::default();
        let all = ["a", "bb", "ccc", "dddd", "a", "ee"];
        for turn in 0..200 {
            let from = turn % all.len();
            let list = channels(&all[from..(from + turn % 4).min(all.len())]);
            let id = id(turn as u32 * 7 % 5);
            if index.has_room_for(id, &list, Holdings::default(), &limits) {
                index.replace(id, &list);
            }
            assert!(index.text_bytes() <= 8);
            index.check_invariants();
        }
    }
}
