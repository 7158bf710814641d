//! What is matched with what: subscriptions, notifications, and the relation between them.
//!
//! Owns the plain data of both sides and [`matches()`], which states the relation as naively as
//! it can be stated: it is the oracle of the index, in tests and in fuzzing. Knows neither JSON
//! nor connections. Scalars are texts here, because they compare by their text. Main types:
//! [`Subscription`] and [`Notification`].
//!
//! Invariants: [`Values`] are sorted and distinct; [`NameMap`] has every name once, sorted.
//! Both come from peers, so nothing here is quadratic in their length.

use std::borrow::Cow;

/// Distinct texts, sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Values<'a>(Vec<Cow<'a, str>>);

impl<'a> Values<'a> {
    /// The distinct ones of `texts`.
    #[must_use]
    pub fn new(mut texts: Vec<Cow<'a, str>>) -> Self {
        if texts.len() > 1 {
            texts.sort_unstable();
            texts.dedup();
        }
        Self(texts)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The texts, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

/// Something for each of several names, sorted by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameMap<'a, T>(Vec<(Cow<'a, str>, T)>);

impl<'a, T> NameMap<'a, T> {
    /// The map of `entries`.
    ///
    /// # Errors
    /// A name that stands twice.
    pub fn new(mut entries: Vec<(Cow<'a, str>, T)>) -> Result<Self, Cow<'a, str>> {
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let twice = entries.windows(2).position(|pair| pair[0].0 == pair[1].0);
        match twice {
            Some(position) => Err(entries.swap_remove(position).0),
            None => Ok(Self(entries)),
        }
    }

    /// The same names with what `change` makes of their entries.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> NameMap<'a, U> {
        let entries = self.0.into_iter();
        NameMap(entries.map(|(name, entry)| (name, change(entry))).collect())
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and entries, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, entry)| (name.as_ref(), entry))
    }
}

/// A page of a package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<'a> {
    /// The package.
    pub package: Cow<'a, str>,
    /// The page in it.
    pub page: Cow<'a, str>,
}

/// What a connection asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subscription<'a> {
    /// The shorthand: every notification whose `channel` member is this.
    Channel(Cow<'a, str>),
    /// The notifications of a page that pass a filter.
    Page(Page<'a>, Filter<'a>),
}

impl Subscription<'_> {
    /// How many values it has; a criterion without any counts as one.
    #[must_use]
    pub fn values_len(&self) -> usize {
        match self {
            Self::Channel(_) => 1,
            Self::Page(_, Filter::Everything) => 0,
            Self::Page(_, Filter::Nameless(values)) => values.len(),
            Self::Page(_, Filter::Named(criteria)) => criteria
                .iter()
                .map(|(_, criterion)| match criterion {
                    Criterion::Any => 1,
                    Criterion::OneOf(values) => values.len().max(1),
                })
                .sum(),
        }
    }

    /// Shows each of its texts to `visit`, one that stands twice twice.
    pub fn for_each_text(&self, mut visit: impl FnMut(&str)) {
        let (page, filter) = match self {
            Self::Channel(channel) => return visit(channel),
            Self::Page(page, filter) => (page, filter),
        };
        visit(&page.package);
        visit(&page.page);
        match filter {
            Filter::Everything => {}
            Filter::Nameless(values) => values.iter().for_each(visit),
            Filter::Named(criteria) => {
                for (name, criterion) in criteria.iter() {
                    visit(name);
                    if let Criterion::OneOf(values) = criterion {
                        values.iter().for_each(&mut visit);
                    }
                }
            }
        }
    }
}

/// Which notifications of its page a subscription lets through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter<'a> {
    /// All.
    Everything,
    /// Those that meet every criterion.
    Named(NameMap<'a, Criterion<'a>>),
    /// Those that have one of these values, under any name.
    Nameless(Values<'a>),
}

/// What is asked of the values of one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Criterion<'a> {
    /// There is one, whichever.
    Any,
    /// There is one of these; of none, if this is empty.
    OneOf(Values<'a>),
}

impl Criterion<'_> {
    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(values) => values.iter().any(|accepted| accepted == value),
        }
    }
}

/// What matching looks at in a notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification<'a> {
    /// The page that it is for.
    pub page: Option<Page<'a>>,
    /// Its channel, for subscriptions of the short form.
    pub channel: Option<Cow<'a, str>>,
    /// The values that meet criteria.
    pub values: NotificationValues<'a>,
}

/// The values of a notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotificationValues<'a> {
    /// None at all.
    Absent,
    /// Values with names; a name without a value counts as absent.
    Named(NameMap<'a, Values<'a>>),
    /// Values that meet a criterion of any name.
    Nameless(Values<'a>),
}

/// Whether `subscription` asks for `notification`.
#[must_use]
pub fn matches(subscription: &Subscription<'_>, notification: &Notification<'_>) -> bool {
    match subscription {
        Subscription::Channel(channel) => notification.channel.as_ref() == Some(channel),
        Subscription::Page(page, filter) => {
            notification.page.as_ref() == Some(page) && passes(filter, &notification.values)
        }
    }
}

fn passes(filter: &Filter<'_>, values: &NotificationValues<'_>) -> bool {
    match filter {
        Filter::Everything => true,
        Filter::Named(criteria) => criteria
            .iter()
            .all(|(name, criterion)| is_met(name, criterion, values)),
        Filter::Nameless(accepted) => accepted.iter().any(|accepted| match values {
            NotificationValues::Absent => false,
            NotificationValues::Named(named) => named
                .iter()
                .any(|(_, values)| values.iter().any(|value| value == accepted)),
            NotificationValues::Nameless(values) => values.iter().any(|value| value == accepted),
        }),
    }
}

fn is_met(name: &str, criterion: &Criterion<'_>, values: &NotificationValues<'_>) -> bool {
    match values {
        NotificationValues::Absent => false,
        NotificationValues::Named(named) => named
            .iter()
            .filter(|(other, _)| *other == name)
            .any(|(_, values)| values.iter().any(|value| criterion.accepts(value))),
        NotificationValues::Nameless(values) => values.iter().any(|value| criterion.accepts(value)),
    }
}

/// The text that a number compares by if it is no 64-bit integer: the shortest decimal that
/// reads as the same double, without an exponent. `None` for what is no number.
#[must_use]
pub fn float_text(number: f64) -> Option<String> {
    if !number.is_finite() {
        return None;
    }
    // The sum of a zero of either sign and a positive one is positive.
    Some(format!("{}", number + 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&'static str]) -> Values<'static> {
        Values::new(texts.iter().map(|&text| text.into()).collect())
    }

    #[test]
    fn numbers_are_written_without_an_exponent_or_a_sign_of_zero() {
        for (number, text) in [
            (2.0, "2"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (-85.5, "-85.5"),
            (1e2, "100"),
            (1e21, "1000000000000000000000"),
            (1e-7, "0.0000001"),
            (18_446_744_073_709_551_616.0, "18446744073709552000"),
        ] {
            assert_eq!(float_text(number).as_deref(), Some(text));
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(float_text(number), None);
        }
        let smallest = float_text(5e-324).expect("finite");
        assert_eq!((smallest.len(), smallest.parse()), (326, Ok(5e-324)));
    }

    #[test]
    fn values_are_distinct_and_names_stand_once() {
        assert_eq!(
            values(&["b", "a", "b"]).iter().collect::<Vec<_>>(),
            ["a", "b"]
        );
        let entries =
            |names: &[&'static str]| names.iter().map(|&name| (name.into(), ())).collect();
        assert_eq!(NameMap::new(entries(&["b", "a", "b"])), Err("b".into()));
        let map = NameMap::new(entries(&["b", "a"])).expect("distinct");
        assert_eq!(
            map.iter().map(|(name, ())| name).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }

    #[test]
    fn an_empty_list_of_nameless_values_accepts_nothing() {
        assert!(!passes(
            &Filter::Nameless(Values::default()),
            &NotificationValues::Nameless(values(&["2"]))
        ));
    }
}
