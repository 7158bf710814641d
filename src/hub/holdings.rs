//! What lists of subscriptions amount to, in what is limited: of a connection, of an address.
//!
//! Knows subscriptions, neither their connections nor what these are allowed. Main type: [`Holdings`].

use super::filter::Subscription;
use crate::config::HubLimits;
use crate::handover::{Fields, Malformed, Members};

/// How much lists of subscriptions hold.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Holdings {
    /// Bytes of the texts, each text once a list. Lists that have one in common each count it,
    /// though it is stored once.
    pub text_bytes: u64,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Values in them.
    pub values: u32,
}

// Members of a connection's record, among those of hub/saved.rs.
const TEXT_BYTES: u8 = 9;
const SUBSCRIPTIONS: u8 = 10;
const VALUES: u8 = 11;

impl Holdings {
    /// Writes what one list amounts to.
    pub fn save(&self, members: &mut Members<'_>) {
        let Self {
            text_bytes,
            subscriptions,
            values,
        } = self;
        members.number(TEXT_BYTES, *text_bytes);
        members.number(SUBSCRIPTIONS, u64::from(*subscriptions));
        members.number(VALUES, u64::from(*values));
    }

    /// Reads what one list amounts to.
    ///
    /// # Errors
    /// No list amounts to so much.
    pub fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            // A list comes in one message, and sums are of no more than 2^32 of them.
            text_bytes: fields.narrow::<u32>(TEXT_BYTES)?.into(),
            subscriptions: fields.narrow(SUBSCRIPTIONS)?,
            values: fields.narrow(VALUES)?,
        })
    }

    /// What one list amounts to.
    #[must_use]
    pub fn of(list: &[Subscription<'_>]) -> Self {
        let values = list.iter().map(Subscription::values_len).sum();
        Self {
            text_bytes: text_bytes(list),
            subscriptions: saturated(list.len()),
            values: saturated(values),
        }
    }

    /// What one address may have of what all may have together; `None`: all of it. At least one
    /// of each.
    #[must_use]
    pub fn share(limits: &HubLimits) -> Option<Self> {
        let percent = limits.share_percent;
        let share = |total: usize| (total as u128 * percent as u128).div_ceil(100);
        let small = |total| u32::try_from(share(total)).unwrap_or(u32::MAX);
        (percent < 100).then(|| Self {
            text_bytes: u64::try_from(share(limits.text_bytes_max)).unwrap_or(u64::MAX),
            subscriptions: small(limits.subscriptions_total_max),
            values: small(limits.values_total_max),
        })
    }

    /// The same with one list in place of another that is among these.
    #[must_use]
    pub fn exchange(self, before: Self, after: Self) -> Self {
        let Self {
            text_bytes,
            subscriptions,
            values,
        } = self;
        Self {
            text_bytes: text_bytes.saturating_sub(before.text_bytes) + after.text_bytes,
            subscriptions: exchange(subscriptions, before.subscriptions, after.subscriptions),
            values: exchange(values, before.values, after.values),
        }
    }

    /// Whether nothing of these is more than `max` has of it.
    #[must_use]
    pub const fn is_within(self, max: Self) -> bool {
        self.text_bytes <= max.text_bytes
            && self.subscriptions <= max.subscriptions
            && self.values <= max.values
    }
}

const fn exchange(sum: u32, before: u32, after: u32) -> u32 {
    sum.saturating_sub(before).saturating_add(after)
}

/// Limits keep what is counted far below.
fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn text_bytes(list: &[Subscription<'_>]) -> u64 {
    let mut texts = Vec::new();
    for subscription in list {
        subscription.for_each_text(|text| texts.push(text));
    }
    texts.sort_unstable();
    texts.dedup();
    texts.iter().map(|text| text.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::filter::{Criterion, Filter, NameMap, Page, Values};

    #[test]
    fn a_list_amounts_to_its_distinct_texts_and_all_its_values() {
        let page = || Page {
            package: "pp".into(),
            page: "page".into(),
        };
        let names = vec![
            ("name".into(), Criterion::Any),
            (
                "n".into(),
                Criterion::OneOf(Values::new(vec!["pp".into(), "22".into()])),
            ),
        ];
        let names = NameMap::new(names).expect("distinct");
        let list = [
            Subscription::Page(page(), Filter::Everything),
            Subscription::Page(page(), Filter::Named(names)),
            Subscription::Channel("22".into()),
        ];
        let holdings = Holdings {
            text_bytes: "pp page name n 22".replace(' ', "").len() as u64,
            subscriptions: 3,
            values: 4,
        };
        assert_eq!(Holdings::of(&list), holdings);
        assert_eq!(Holdings::of(&[]), Holdings::default());
    }

    #[test]
    fn a_share_is_a_part_of_each_total_rounded_up() {
        let limits = |share_percent| HubLimits {
            text_bytes_max: 1000,
            subscriptions_total_max: 101,
            values_total_max: 1,
            share_percent,
            ..HubLimits::default()
        };
        let share = Holdings {
            text_bytes: 250,
            subscriptions: 26,
            values: 1,
        };
        assert_eq!(Holdings::share(&limits(25)), Some(share));
        assert!(Holdings::share(&limits(99)).is_some_and(|share| share.subscriptions == 100));
        assert_eq!(Holdings::share(&limits(100)), None);
    }

    #[test]
    fn lists_are_exchanged_and_compared_in_all_that_they_hold() {
        let holdings = |text_bytes, subscriptions, values| Holdings {
            text_bytes,
            subscriptions,
            values,
        };
        let sum = holdings(10, 20, 30).exchange(holdings(1, 2, 3), holdings(4, 4, 4));
        assert_eq!(sum, holdings(13, 22, 31));
        assert!(sum.is_within(sum));
        for less in [
            holdings(12, 22, 31),
            holdings(13, 21, 31),
            holdings(13, 22, 30),
        ] {
            assert!(!sum.is_within(less));
        }
    }
}
