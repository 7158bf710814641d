//! What is matched with what: subscriptions, notifications, and the relation between them.
//!
//! Owns the plain data of both sides and [`matches()`], which states the relation as naively as
//! it can be stated: it is the oracle of the index, in tests and in fuzzing, and of [`covers()`],
//! which compares two subscriptions. Knows neither JSON nor connections. Scalars are texts here,
//! because they compare by their text. Main types: [`Subscription`] and [`Notification`].
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

    /// Whether `text` is one of these.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.0.binary_search_by(|own| (**own).cmp(text)).is_ok()
    }

    /// Whether all of these are among `others`.
    #[must_use]
    pub fn is_subset_of(&self, others: &Values<'_>) -> bool {
        self.len() <= others.len() && self.iter().all(|text| others.contains(text))
    }

    fn into_owned(self) -> Values<'static> {
        Values(self.0.into_iter().map(owned).collect())
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// Something for each of several names, sorted by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameMap<'a, T>(Vec<(Cow<'a, str>, T)>);

impl<'a, T> NameMap<'a, T> {
    /// The map of `entries`.
    ///
    /// # Errors
    /// A duplicate name.
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

    /// What there is for `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&T> {
        let position = self.0.binary_search_by(|(other, _)| (**other).cmp(name));
        position.ok().map(|position| &self.0[position].1)
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

    /// Shows each of its texts to `visit`, duplicates too.
    pub fn for_each_text<'s>(&'s self, mut visit: impl FnMut(&'s str)) {
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
    /// There is one, with any value.
    Any,
    /// There is one of these; of none, if this is empty.
    OneOf(Values<'a>),
}

impl Subscription<'_> {
    /// The same with texts of its own.
    #[must_use]
    pub fn into_owned(self) -> Subscription<'static> {
        match self {
            Self::Channel(channel) => Subscription::Channel(owned(channel)),
            Self::Page(Page { package, page }, filter) => {
                let (package, page) = (owned(package), owned(page));
                Subscription::Page(Page { package, page }, filter.into_owned())
            }
        }
    }

    /// Whether there is a notification that matches.
    fn is_satisfiable(&self) -> bool {
        match self {
            Self::Channel(_) | Self::Page(_, Filter::Everything) => true,
            Self::Page(_, Filter::Nameless(values)) => !values.is_empty(),
            Self::Page(_, Filter::Named(criteria)) => criteria
                .iter()
                .all(|(_, criterion)| *criterion != Criterion::OneOf(Values::default())),
        }
    }
}

impl Filter<'_> {
    fn into_owned(self) -> Filter<'static> {
        match self {
            Self::Everything => Filter::Everything,
            Self::Nameless(values) => Filter::Nameless(values.into_owned()),
            Self::Named(NameMap(criteria)) => {
                let criteria = criteria.into_iter();
                let owned = criteria.map(|(name, entry)| (owned(name), entry.into_owned()));
                Filter::Named(NameMap(owned.collect()))
            }
        }
    }
}

impl Criterion<'_> {
    fn into_owned(self) -> Criterion<'static> {
        match self {
            Self::Any => Criterion::Any,
            Self::OneOf(values) => Criterion::OneOf(values.into_owned()),
        }
    }

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

/// Whether every notification that matches `b` matches `a`, now and whatever will be published.
#[must_use]
pub fn covers(a: &Subscription<'_>, b: &Subscription<'_>) -> bool {
    if !b.is_satisfiable() {
        return true;
    }
    match (a, b) {
        (Subscription::Channel(a), Subscription::Channel(b)) => a == b,
        (Subscription::Page(a, wide), Subscription::Page(b, narrow)) => {
            a == b && filter_covers(wide, narrow)
        }
        // A notification may have a page only, or a channel only.
        (Subscription::Channel(_), Subscription::Page(..))
        | (Subscription::Page(..), Subscription::Channel(_)) => false,
    }
}

/// Whether all that passes `b` passes `a`; something does pass `b`.
fn filter_covers(a: &Filter<'_>, b: &Filter<'_>) -> bool {
    match (a, b) {
        (Filter::Everything, _) => true,
        (Filter::Named(a), _) if a.is_empty() => true,
        // Of the notifications that meet `b`, the poorest has nothing but a value for each of
        // its criteria, and that one may be any that `b` accepts.
        (Filter::Named(a), Filter::Named(b)) => a.iter().all(|(name, wide)| {
            b.find(name)
                .is_some_and(|narrow| criterion_covers(wide, narrow))
        }),
        (Filter::Nameless(a), Filter::Nameless(b)) => b.is_subset_of(a),
        (Filter::Nameless(a), Filter::Named(b)) => b.iter().any(|(_, narrow)| match narrow {
            Criterion::Any => false,
            Criterion::OneOf(b) => b.is_subset_of(a),
        }),
        // It may come without values; or they may have a name that `a` doesn't ask about.
        (Filter::Named(_) | Filter::Nameless(_), Filter::Everything)
        | (Filter::Named(_), Filter::Nameless(_)) => false,
    }
}

fn criterion_covers(a: &Criterion<'_>, b: &Criterion<'_>) -> bool {
    match (a, b) {
        (Criterion::Any, _) => true,
        (Criterion::OneOf(_), Criterion::Any) => false,
        (Criterion::OneOf(a), Criterion::OneOf(b)) => b.is_subset_of(a),
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
    use fastrand::Rng;

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

    /// Every list of some of `texts`, the empty one too.
    fn subsets(texts: &[&'static str]) -> Vec<Values<'static>> {
        (0..1_u32 << texts.len())
            .map(|bits| {
                let chosen = (0..texts.len()).filter(|i| bits & (1 << i) != 0);
                Values::new(chosen.map(|i| texts[i].into()).collect())
            })
            .collect()
    }

    /// Every map of some of `names` to one of `entries`.
    fn maps<T: Clone>(names: &[&'static str], entries: &[T]) -> Vec<NameMap<'static, T>> {
        let mut maps = vec![Vec::new()];
        for &name in names {
            let with_name = maps.iter().flat_map(|map| {
                entries.iter().map(move |entry| {
                    let mut map: Vec<(Cow<'static, str>, T)> = map.clone();
                    map.push((name.into(), entry.clone()));
                    map
                })
            });
            let with_name: Vec<_> = with_name.collect();
            maps.extend(with_name);
        }
        let maps = maps.into_iter().map(NameMap::new);
        maps.map(|map| map.expect("distinct")).collect()
    }

    fn page(page: &'static str) -> Page<'static> {
        let package = "p".into();
        let page = page.into();
        Page { package, page }
    }

    /// Every subscription over two channels, two pages, two names and two values.
    fn subscriptions() -> Vec<Subscription<'static>> {
        let lists = subsets(&["1", "2"]);
        let mut criteria: Vec<_> = lists.iter().cloned().map(Criterion::OneOf).collect();
        criteria.push(Criterion::Any);
        let mut filters = vec![Filter::Everything];
        filters.extend(maps(&["a", "b"], &criteria).into_iter().map(Filter::Named));
        filters.extend(lists.into_iter().map(Filter::Nameless));
        let mut all = vec![
            Subscription::Channel("x".into()),
            Subscription::Channel("y".into()),
        ];
        for name in ["q", "r"] {
            let of_page = filters.iter().cloned();
            all.extend(of_page.map(|filter| Subscription::Page(page(name), filter)));
        }
        all
    }

    /// Every notification over the same, and a name and a value that no subscription has.
    fn notifications() -> Vec<Notification<'static>> {
        let lists = subsets(&["1", "2", "fresh"]);
        let mut all_values = vec![NotificationValues::Absent];
        let named = maps(&["a", "b", "fresh"], &lists).into_iter();
        all_values.extend(named.map(NotificationValues::Named));
        all_values.extend(lists.into_iter().map(NotificationValues::Nameless));
        let mut all = Vec::new();
        for page in [None, Some(page("q")), Some(page("r"))] {
            for channel in [None, Some("x".into()), Some("y".into())] {
                all.extend(all_values.iter().map(|values| Notification {
                    page: page.clone(),
                    channel: channel.clone(),
                    values: values.clone(),
                }));
            }
        }
        all
    }

    #[test]
    fn covering_is_what_it_says_over_a_small_universe() {
        let (subscriptions, notifications) = (subscriptions(), notifications());
        assert_eq!((subscriptions.len(), notifications.len()), (84, 9 * 738));
        // What each subscription matches, a bit a notification.
        let matched = subscriptions.iter().map(|subscription| {
            let chunks = notifications.chunks(64);
            let words = chunks.map(|chunk| {
                let bits = (0..).zip(chunk);
                bits.filter(|(_, notification)| matches(subscription, notification))
                    .fold(0, |word: u64, (bit, _)| word | 1 << bit)
            });
            words.collect::<Vec<_>>()
        });
        let matched: Vec<_> = matched.collect();
        for (a, of_a) in subscriptions.iter().zip(&matched) {
            for (b, of_b) in subscriptions.iter().zip(&matched) {
                let is_subset = of_a.iter().zip(of_b).all(|(a, b)| b & !a == 0);
                assert_eq!(covers(a, b), is_subset, "{a:?}\n{b:?}");
            }
        }
    }

    const TEXTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    fn some_values(random: &mut Rng) -> Values<'static> {
        let chosen = TEXTS.iter().filter(|_| random.u64(0..=2) > 0);
        Values::new(chosen.map(|&text| text.into()).collect())
    }

    fn some_map<T>(random: &mut Rng, entry: impl Fn(&mut Rng) -> T) -> NameMap<'static, T> {
        let mut entries = Vec::new();
        for &name in &TEXTS {
            if random.u64(0..=3) == 0 {
                entries.push((name.into(), entry(random)));
            }
        }
        NameMap::new(entries).expect("distinct")
    }

    fn some_subscription(random: &mut Rng) -> Subscription<'static> {
        let filter = match random.u64(0..=7) {
            0 => Filter::Everything,
            1..=2 => Filter::Nameless(some_values(random)),
            _ => Filter::Named(some_map(random, |random| match random.u64(0..=3) {
                0 => Criterion::Any,
                _ => Criterion::OneOf(some_values(random)),
            })),
        };
        Subscription::Page(page("q"), filter)
    }

    fn some_notification(random: &mut Rng) -> Notification<'static> {
        let values = match random.u64(0..=3) {
            0 => NotificationValues::Nameless(some_values(random)),
            _ => NotificationValues::Named(some_map(random, some_values)),
        };
        Notification {
            page: Some(page("q")),
            channel: None,
            values,
        }
    }

    #[test]
    fn covering_is_an_order_that_matching_keeps_to() {
        let seed = 7;
        let mut random = Rng::with_seed(seed);
        let mut covered = 0;
        for _ in 0..3000 {
            let [a, b, c] = [(); 3].map(|()| some_subscription(&mut random));
            assert!(covers(&a, &a) && covers(&a, &a.clone().into_owned()));
            if !covers(&a, &b) {
                continue;
            }
            covered += 1;
            assert!(!covers(&b, &c) || covers(&a, &c), "{a:?}\n{b:?}\n{c:?}");
            for _ in 0..50 {
                let notification = some_notification(&mut random);
                assert!(
                    !matches(&b, &notification) || matches(&a, &notification),
                    "{a:?}\n{b:?}\n{notification:?}"
                );
            }
        }
        assert!(covered > 100, "{covered} with seed {seed}");
    }

    #[test]
    fn fewer_values_and_more_criteria_are_covered() {
        let mut random = Rng::with_seed(8);
        for _ in 0..1000 {
            let wide = some_map(&mut random, some_values);
            let mut narrow = wide.0.clone();
            for (_, values) in &mut narrow {
                values.0.retain(|_| random.u64(0..=3) > 0);
            }
            narrow.push(("another".into(), some_values(&mut random)));
            let narrow = NameMap::new(narrow).expect("distinct");
            let [wide, narrow] = [wide, narrow]
                .map(|map| Filter::Named(map.map(Criterion::OneOf)))
                .map(|filter| Subscription::Page(page("q"), filter));
            assert!(covers(&wide, &narrow), "{wide:?}\n{narrow:?}");
        }
    }

    #[test]
    fn an_empty_list_of_nameless_values_accepts_nothing() {
        assert!(!passes(
            &Filter::Nameless(Values::default()),
            &NotificationValues::Nameless(values(&["2"]))
        ));
    }
}
