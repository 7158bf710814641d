//! Why a subscription doesn't match a notification, for people.
//!
//! The relation is [`super::filter::matches`]; here it is looked at once more, with an eye on what is missing, and within a
//! bound: both sides come from peers, and together they can be large. Main types: [`Examined`] and [`Miss`].

use std::borrow::Cow;

use super::command::clipped;
use super::filter::{
    Criterion, Filter, Notification, NotificationValues, Page, Subscription, Values,
};

/// Values that a sentence names.
const NAMED_MAX: usize = 3;

/// Bytes of a text in a sentence.
const TEXT_BYTES_MAX: usize = 64;

/// A notification that subscriptions are held against.
pub(super) struct Examined<'n> {
    notification: &'n Notification<'n>,
    /// Its values under whatever names, sorted; made when they are first needed.
    all_values: Option<Values<'n>>,
    /// About as many comparisons of texts may still be made.
    steps_left: usize,
}

/// What comes of a look at a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict<'s> {
    Matches,
    Misses(Miss<'s>),
    /// The bound came first.
    NotLookedAt,
}

/// What a subscription wants and doesn't find, the nearest miss last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Miss<'s> {
    /// Another channel.
    Channel(&'s str),
    /// Another page.
    Page(&'s Page<'s>),
    /// It accepts no value, be it of this name.
    Nothing(Option<&'s str>),
    /// There is no value of this name, or none at all.
    Name(Option<&'s str>),
    /// There are others, be it of this name.
    Value(Option<&'s str>, &'s Values<'s>),
}

impl<'n> Examined<'n> {
    /// May be looked at for about so many comparisons.
    pub(super) const fn new(notification: &'n Notification<'n>, steps: usize) -> Self {
        Self {
            notification,
            all_values: None,
            steps_left: steps,
        }
    }

    /// Takes a part of what may be done. Says whether there was as much.
    pub(super) const fn spend(&mut self, steps: usize) -> bool {
        let left = self.steps_left.checked_sub(steps);
        if let Some(left) = left {
            self.steps_left = left;
        }
        left.is_some()
    }

    /// Whether a subscription matches, and what is missing if it doesn't.
    pub(super) fn look_at<'s>(&mut self, subscription: &'s Subscription<'s>) -> Verdict<'s> {
        if !self.spend(1) {
            return Verdict::NotLookedAt;
        }
        let notification = self.notification;
        match subscription {
            Subscription::Channel(channel) if notification.channel.as_ref() == Some(channel) => {
                Verdict::Matches
            }
            Subscription::Channel(channel) => Verdict::Misses(Miss::Channel(channel)),
            Subscription::Page(page, filter) if notification.page.as_ref() == Some(page) => {
                self.look_at_filter(filter)
            }
            Subscription::Page(page, _) => Verdict::Misses(Miss::Page(page)),
        }
    }

    fn look_at_filter<'s>(&mut self, filter: &'s Filter<'s>) -> Verdict<'s> {
        match filter {
            Filter::Everything => Verdict::Matches,
            Filter::Named(criteria) => {
                let looks = criteria.iter().map(|(name, criterion)| match criterion {
                    Criterion::Any => self.look_at_name(name, None),
                    Criterion::OneOf(values) => self.look_at_name(name, Some(values)),
                });
                let mut looks = looks.filter(|verdict| *verdict != Verdict::Matches);
                looks.next().unwrap_or(Verdict::Matches)
            }
            Filter::Nameless(accepted) if accepted.is_empty() => {
                Verdict::Misses(Miss::Nothing(None))
            }
            Filter::Nameless(accepted) => self.look_at_all(accepted),
        }
    }

    /// `accepted` is `None` where any value of the name will do.
    fn look_at_name<'s>(&mut self, name: &'s str, accepted: Option<&'s Values<'s>>) -> Verdict<'s> {
        if accepted.is_some_and(Values::is_empty) {
            return Verdict::Misses(Miss::Nothing(Some(name)));
        }
        let there = match &self.notification.values {
            NotificationValues::Absent => None,
            NotificationValues::Named(named) => named.find(name),
            NotificationValues::Nameless(values) => Some(values),
        };
        let Some(there) = there.filter(|values| !values.is_empty()) else {
            return Verdict::Misses(Miss::Name(Some(name)));
        };
        let Some(accepted) = accepted else {
            return Verdict::Matches;
        };
        if !self.spend(accepted.len().min(there.len())) {
            return Verdict::NotLookedAt;
        }
        match have_one_in_common(accepted, there) {
            true => Verdict::Matches,
            false => Verdict::Misses(Miss::Value(Some(name), accepted)),
        }
    }

    fn look_at_all<'s>(&mut self, accepted: &'s Values<'s>) -> Verdict<'s> {
        if !self.gather_values() {
            return Verdict::NotLookedAt;
        }
        let all_len = self.all_values.as_ref().map_or(0, Values::len);
        if all_len == 0 {
            return Verdict::Misses(Miss::Name(None));
        }
        if !self.spend(accepted.len().min(all_len)) {
            return Verdict::NotLookedAt;
        }
        let there = self.all_values.as_ref();
        match there.is_some_and(|there| have_one_in_common(accepted, there)) {
            true => Verdict::Matches,
            false => Verdict::Misses(Miss::Value(None, accepted)),
        }
    }

    /// Makes the list of all values, if that may be done.
    fn gather_values(&mut self) -> bool {
        if self.all_values.is_some() {
            return true;
        }
        let mut all_values = Vec::new();
        let notification = self.notification;
        match &notification.values {
            NotificationValues::Absent => {}
            NotificationValues::Named(named) => {
                for (_, values) in named.iter() {
                    // Sorting compares each with some others.
                    if !self.spend(1 + values.len() * 4) {
                        return false;
                    }
                    all_values.extend(values.iter().map(Cow::Borrowed));
                }
            }
            NotificationValues::Nameless(values) => {
                if !self.spend(values.len() * 4) {
                    return false;
                }
                all_values.extend(values.iter().map(Cow::Borrowed));
            }
        }
        self.all_values = Some(Values::new(all_values));
        true
    }
}

/// Looks for each of the few among the many.
fn have_one_in_common(one: &Values<'_>, other: &Values<'_>) -> bool {
    let (few, many) = match one.len() < other.len() {
        true => (one, other),
        false => (other, one),
    };
    few.iter().any(|text| many.contains(text))
}

impl Verdict<'_> {
    /// The last rank.
    pub(super) const RANK_MAX: u8 = 7;

    /// Where it is shown: ahead is what matches, then the nearest misses.
    pub(super) fn rank(&self, notification: &Notification<'_>) -> u8 {
        match self {
            Self::Matches => 0,
            Self::Misses(miss) => 6 - miss.nearness(notification),
            Self::NotLookedAt => Self::RANK_MAX,
        }
    }
}

impl<'s> Miss<'s> {
    /// The word for it.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Channel(_) => "channel",
            Self::Page(_) => "page",
            Self::Nothing(_) => "nothing",
            Self::Name(_) => "name",
            Self::Value(..) => "value",
        }
    }

    /// The name whose values are at fault.
    pub(super) const fn name(self) -> Option<&'s str> {
        match self {
            Self::Channel(_) | Self::Page(_) => None,
            Self::Nothing(name) | Self::Name(name) | Self::Value(name, _) => name,
        }
    }

    /// How near it is; more is nearer.
    pub(super) fn nearness(self, notification: &Notification<'_>) -> u8 {
        match self {
            Self::Channel(_) => u8::from(notification.channel.is_some()),
            Self::Page(page) => match &notification.page {
                Some(other) if other.package == page.package => 2,
                Some(_) => 1,
                None => 0,
            },
            Self::Nothing(_) => 3,
            Self::Name(_) => 4,
            Self::Value(..) => 5,
        }
    }

    /// A sentence without its full stop.
    pub(super) fn detail(self, notification: &Notification<'_>) -> String {
        match self {
            Self::Channel(channel) => {
                let has = notification.channel.as_deref();
                let has = has.map_or_else(|| "none".to_owned(), quoted);
                let wants = quoted(channel);
                format!("it wants the channel {wants}; the notification has {has}")
            }
            Self::Page(page) => {
                let has = notification.page.as_ref();
                let has = has.map_or_else(
                    || "has none".to_owned(),
                    |has| format!("is for {}", place(has)),
                );
                format!("it wants {}; the notification {has}", place(page))
            }
            Self::Nothing(name) => format!("it accepts no value{}", of_name(name)),
            Self::Name(name) => {
                format!(
                    "it wants a value{}; the notification has none",
                    of_name(name)
                )
            }
            Self::Value(name, accepted) => {
                let wants = listed(accepted.iter(), accepted.len(), "or");
                let has = match (&notification.values, name) {
                    (NotificationValues::Named(named), Some(name)) => named.find(name),
                    (NotificationValues::Nameless(values), _) => Some(values),
                    _ => None,
                };
                let has = has.map_or_else(
                    || "others".to_owned(),
                    |has| listed(has.iter(), has.len(), "and"),
                );
                let name = of_name(name);
                format!("it wants {wants}{name}; the notification has {has}")
            }
        }
    }
}

fn of_name(name: Option<&str>) -> String {
    match name {
        Some(name) => format!(" for {}", quoted(name)),
        None => " under any name".to_owned(),
    }
}

fn place(page: &Page<'_>) -> String {
    let Page { package, page } = page;
    format!("page {} of package {}", quoted(page), quoted(package))
}

/// A text of a peer, as much of it as a sentence takes.
fn quoted(text: &str) -> String {
    let start = clipped(text, TEXT_BYTES_MAX);
    let end = if start.len() < text.len() { "…" } else { "" };
    format!("\"{start}{end}\"")
}

fn listed<'a>(texts: impl Iterator<Item = &'a str>, len: usize, last: &str) -> String {
    let mut named: Vec<_> = texts.take(NAMED_MAX).map(quoted).collect();
    if len > NAMED_MAX {
        named.push(format!("{} more", len - NAMED_MAX));
    }
    let end = named.pop().unwrap_or_default();
    match named.is_empty() {
        true => end,
        false => format!("{} {last} {end}", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::hub::command::{parse_list, parse_notification};
    use crate::hub::filter::matches;

    /// A scalar, a list, an object of these, or nothing, in JSON.
    fn values(random: &mut Rng, is_subscription: bool) -> String {
        let scalars = |random: &mut Rng| {
            let count = random.usize(0..4);
            let texts = (0..count).map(|_| format!(r#""{}""#, random.u8(0..5)));
            format!("[{}]", texts.collect::<Vec<_>>().join(","))
        };
        match random.u8(0..8) {
            0 => String::new(),
            1 => format!(r#","filters":{{"values":{}}}"#, scalars(random)),
            _ => {
                let names = ["a", "b", "c"].into_iter().filter(|_| random.bool());
                let names: Vec<_> = names.collect();
                let named = names.into_iter().map(|name| match random.u8(0..4) {
                    0 if is_subscription => format!(r#""{name}":true"#),
                    _ => format!(r#""{name}":{}"#, scalars(random)),
                });
                let named: Vec<_> = named.collect();
                format!(r#","filters":{{"values":{{{}}}}}"#, named.join(","))
            }
        }
    }

    fn page(random: &mut Rng, is_subscription: bool) -> String {
        let (package, page) = (random.u8(0..2), random.u8(0..2));
        let values = values(random, is_subscription);
        format!(r#""package":"{package}","page":"{page}"{values}"#)
    }

    fn subscription(random: &mut Rng) -> String {
        match random.u8(0..5) {
            0 => format!(r#""{}""#, random.u8(0..2)),
            _ => format!("{{{}}}", page(random, true)),
        }
    }

    fn notification(random: &mut Rng) -> String {
        match random.u8(0..5) {
            0 => format!(r#"{{"channel":{}}}"#, random.u8(0..2)),
            1 => format!(
                r#"{{"channel":{},{}}}"#,
                random.u8(0..2),
                page(random, false)
            ),
            _ => format!("{{{}}}", page(random, false)),
        }
    }

    #[test]
    fn what_misses_is_what_the_filter_says_doesnt_match() {
        let seed = 21;
        let mut random = Rng::with_seed(seed);
        let mut reasons = std::collections::BTreeMap::new();
        for _ in 0..20_000 {
            let (list, text) = (subscription(&mut random), notification(&mut random));
            let list = format!("[{list}]");
            let list = parse_list(&list).expect("a list");
            let notification = parse_notification(&text).expect("a notification");
            let mut examined = Examined::new(&notification, 10_000);
            let verdict = examined.look_at(&list[0]);
            let what = format!("seed {seed}: {list:?}\n{text}\n{verdict:?}");
            assert_eq!(
                verdict == Verdict::Matches,
                matches(&list[0], &notification),
                "{what}"
            );
            let reason = match verdict {
                Verdict::Matches => "matches",
                Verdict::Misses(miss) => {
                    let detail = miss.detail(&notification);
                    assert!(
                        detail.starts_with("it ") && !detail.ends_with('.'),
                        "{detail}"
                    );
                    assert!(miss.nearness(&notification) <= 5);
                    miss.reason()
                }
                Verdict::NotLookedAt => unreachable!("{what}"),
            };
            *reasons.entry(reason).or_insert(0) += 1;
        }
        assert_eq!(reasons.len(), 6, "{reasons:?}");
        assert!(reasons.values().all(|&count| count > 20), "{reasons:?}");
    }

    #[test]
    fn a_sentence_says_what_is_wanted_and_what_there_is() {
        let of = |subscription: &str, text: &str| {
            let list = format!("[{subscription}]");
            let list = parse_list(&list).expect("a list");
            let notification = parse_notification(text).expect("a notification");
            match Examined::new(&notification, 100).look_at(&list[0]) {
                Verdict::Misses(miss) => (miss.reason(), miss.detail(&notification)),
                other => panic!("{other:?}"),
            }
        };
        let filtered = |values: &str| {
            format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}}}}"#)
        };
        let lost = filtered(r#"{"state":"lost"}"#);
        for (subscription, notification, reason, detail) in [
            (
                r#""a""#,
                r#"{"channel":"A"}"#,
                "channel",
                r#"it wants the channel "a"; the notification has "A""#,
            ),
            (
                r#""a""#,
                &lost,
                "channel",
                r#"it wants the channel "a"; the notification has none"#,
            ),
            (
                r#"{"package":"p","page":"r"}"#,
                &lost,
                "page",
                r#"it wants page "r" of package "p"; the notification is for page "q" of package "p""#,
            ),
            (
                r#"{"package":"p","page":"r"}"#,
                r#"{"channel":1}"#,
                "page",
                r#"it wants page "r" of package "p"; the notification has none"#,
            ),
            (
                &filtered(r#"{"x":true}"#),
                &lost,
                "name",
                r#"it wants a value for "x"; the notification has none"#,
            ),
            (
                &filtered(r#"{"x":[]}"#),
                &lost,
                "nothing",
                r#"it accepts no value for "x""#,
            ),
            (
                &filtered(r#"{"state":["new","paid"]}"#),
                &lost,
                "value",
                r#"it wants "new" or "paid" for "state"; the notification has "lost""#,
            ),
            (
                &filtered("[1,2,3,4,5]"),
                &lost,
                "value",
                r#"it wants "1", "2", "3" or 2 more under any name; the notification has others"#,
            ),
            (
                &filtered("[1]"),
                &filtered("[2,3]"),
                "value",
                r#"it wants "1" under any name; the notification has "2" and "3""#,
            ),
        ] {
            assert_eq!(of(subscription, notification), (reason, detail.to_owned()));
        }
        let (_, detail) = of(&format!(r#""{}""#, "é".repeat(100)), &lost);
        assert!(
            detail.contains(&format!("\"{}…\"", "é".repeat(32))),
            "{detail}"
        );
    }

    #[test]
    fn the_work_is_bounded() {
        let values: Vec<_> = (0..2000).map(|value| value.to_string()).collect();
        let text = format!(
            r#"{{"package":"p","page":"q","filters":{{"values":[{}]}}}}"#,
            values.join(",")
        );
        let list = format!("[{}]", text);
        let list = parse_list(&list).expect("a list");
        let notification = parse_notification(&text).expect("a notification");
        let look = |steps| Examined::new(&notification, steps).look_at(&list[0]);
        assert_eq!(look(0), Verdict::NotLookedAt);
        assert_eq!(look(8000), Verdict::NotLookedAt);
        assert_eq!(look(20_000), Verdict::Matches);
    }
}
