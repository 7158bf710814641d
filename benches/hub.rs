//! The hub alone: reading commands, matching, subscribing. One core, no sockets.
//!
//! Matching draws from 10,000 different notifications in random order (or as many as there are
//! channels), each with 10 recipients, so that what a busy server would find in no cache is in
//! no cache here. Every connection has ten subscriptions, as an app with ten open channels.
//!
//! What strangers can make a notification cost is measured too: a million subscriptions, or as many as
//! their values allow, that share one value with it and fail on another criterion.
//!
//! What a client that comes back asks for is looked for among 100,000 notifications of one page that are kept, each in
//! one of 10,000 channels, so that a channel has ten of them.
//!
//! `cargo bench --bench hub`

use std::borrow::Cow;
use std::hint::black_box;
use std::ops::Range;

use crieur::config::HubLimits;
use crieur::hub::command::{Command, parse};
use crieur::hub::filter::{
    Criterion as Asked, Filter, NameMap, Notification, NotificationValues, Page, Subscription,
    Values,
};
use crieur::hub::fingerprints::Fingerprinter;
use crieur::hub::index::SubscriptionIndex;
use crieur::id::ConnectionId;
use crieur::journal::column::{Column, Fingerprints, Search};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const RECIPIENTS: u32 = 10;
const NOTIFICATIONS_MAX: u32 = 10_000;
const SUBSCRIPTIONS_EACH: u32 = 10;

fn page() -> Page<'static> {
    Page {
        package: "amaiia_messages".into(),
        page: "message_reader".into(),
    }
}

fn value(channel: u32) -> Values<'static> {
    Values::new(vec![Cow::Owned(channel.to_string())])
}

fn subscription(channel: u32) -> Subscription<'static> {
    let criteria = vec![("channel".into(), Asked::OneOf(value(channel)))];
    let criteria = NameMap::new(criteria).expect("one name");
    Subscription::Page(page(), Filter::Named(criteria))
}

fn notification(channel: u32) -> Notification<'static> {
    let values = NameMap::new(vec![("channel".into(), value(channel))]).expect("one name");
    Notification {
        page: Some(page()),
        channel: None,
        values: NotificationValues::Named(values),
    }
}

/// Numbers below `bound` in an order that no prefetcher guesses; the same at each run.
fn random(state: &mut u64, bound: u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (((*state >> 32) * u64::from(bound)) >> 32) as u32
}

fn shuffled(count: u32, state: &mut u64) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    for i in (1..count).rev() {
        numbers.swap(i as usize, random(state, i + 1) as usize);
    }
    numbers
}

const fn id(index: u32) -> ConnectionId {
    ConnectionId { index, serial: 1 }
}

/// An index in which every channel has ten subscribers, spread over all connections.
fn index_of(subscriptions: u32, state: &mut u64) -> SubscriptionIndex {
    let channels = subscriptions / RECIPIENTS;
    let each = SUBSCRIPTIONS_EACH.min(channels);
    let connections = subscriptions / each;
    // Connection c has the channels at c + offset of a shuffled deck, for a few offsets.
    let deck = shuffled(channels, state);
    let offsets = &shuffled(channels, state)[..each as usize];
    let mut index = SubscriptionIndex::default();
    for (place, connection) in (0..).zip(shuffled(connections, state)) {
        let channel = |offset: &u32| deck[((place + offset) % channels) as usize];
        let list: Vec<_> = offsets.iter().map(channel).map(subscription).collect();
        index.replace(id(connection), &list);
    }
    index
}

fn bench_match(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match");
    for subscriptions in [10, 1_000, 100_000, 1_000_000] {
        let mut state = 0x2545_f491_4f6c_dd1d;
        let mut index = index_of(subscriptions, &mut state);
        let channels = subscriptions / RECIPIENTS;
        let different = channels.min(NOTIFICATIONS_MAX);
        let chosen = shuffled(channels, &mut state);
        let mut recipients = Vec::new();
        let mut next = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(subscriptions), |bencher| {
            bencher.iter_batched_ref(
                || {
                    next = (next + 1) % different as usize;
                    notification(chosen[next])
                },
                |notification| {
                    recipients.clear();
                    index.collect_recipients(notification, &mut recipients);
                    assert_eq!(black_box(&recipients).len(), RECIPIENTS as usize);
                },
                // A server has just read its notification: a small batch stays in the cache.
                BatchSize::NumIterations(64),
            );
        });
        eprintln!(
            "{subscriptions} subscriptions of {} connections: {} bytes each",
            index.connection_count(),
            index.heap_bytes() / subscriptions as usize
        );
    }
    group.finish();
}

/// What subscriptions ask for beside a value that the notification has. Each kind ends with a
/// criterion that fails.
struct Dear {
    kind: &'static str,
    /// Criteria with two values each that pass.
    passing: u32,
    /// Values of the criterion that fails; none: it accepts any value of a name that isn't there.
    values: u32,
    /// Whether the notification's values have names.
    is_named: bool,
}

const fn dear(kind: &'static str, passing: u32, values: u32) -> Dear {
    Dear {
        kind,
        passing,
        values,
        is_named: true,
    }
}

const DEAR: [Dear; 9] = [
    dear("one value", 0, 1),
    dear("any value", 0, 0),
    dear("two values", 0, 2),
    dear("four values", 0, 4),
    dear("fifteen values", 0, 15),
    dear("one value behind one that passes", 1, 1),
    dear("two values behind two that pass", 2, 2),
    dear("one value behind eight that pass", 8, 1),
    Dear {
        is_named: false,
        ..dear("two values, and the notification's have no name", 0, 2)
    },
];

fn page_subscription(criteria: Vec<(String, Asked<'static>)>) -> Subscription<'static> {
    let criteria = criteria.into_iter();
    let criteria = criteria.map(|(name, asked)| (Cow::Owned(name), asked));
    let criteria = NameMap::new(criteria.collect()).expect("distinct names");
    Subscription::Page(page(), Filter::Named(criteria))
}

impl Dear {
    /// Values of the criterion that fails which all have in common; the others are their own.
    const fn common(&self) -> u32 {
        self.values.div_ceil(2)
    }

    /// How many there are, of those that all clients may have, behind how many that wait for
    /// nothing but what they have in common, so that they aren't posted under that.
    fn counts(&self) -> (u32, u32) {
        let limits = HubLimits::default();
        let values = 1 + 2 * self.passing + self.values.max(1);
        let all =
            (limits.values_total_max as u32 / values).min(limits.subscriptions_total_max as u32);
        let waiting = match self.common() {
            0 => 0,
            common => all / (common + 1),
        };
        (all - waiting, waiting)
    }

    fn waiting(&self) -> Subscription<'static> {
        let values = (0..self.common()).map(|n| Cow::Owned(format!("x{n}")));
        let values = Asked::OneOf(Values::new(values.collect()));
        page_subscription(vec![("c".to_owned(), values)])
    }

    fn subscription(&self, number: u32) -> Subscription<'static> {
        let common = (0..self.common()).map(|n| format!("x{n}"));
        let own = (self.common()..self.values).map(|n| format!("y{number}-{n}"));
        let fails = match self.values {
            0 => Asked::Any,
            _ => Asked::OneOf(Values::new(common.chain(own).map(Cow::Owned).collect())),
        };
        let mut criteria = vec![
            ("a".to_owned(), Asked::OneOf(value(1))),
            ("c".to_owned(), fails),
        ];
        for name in 0..self.passing {
            let values = Values::new(vec!["2".into(), "z".into()]);
            criteria.push((format!("b{name}"), Asked::OneOf(values)));
        }
        page_subscription(criteria)
    }

    fn notification(&self) -> Notification<'static> {
        if !self.is_named {
            return Notification {
                values: NotificationValues::Nameless(value(1)),
                ..notification(0)
            };
        }
        let passing = (0..self.passing).map(|name| (Cow::Owned(format!("b{name}")), value(2)));
        let others = [("a", 1), ("c", 3)].into_iter();
        let others = others.filter(|&(name, _)| name == "a" || self.values > 0);
        let others = others.map(|(name, number)| (Cow::Borrowed(name), value(number)));
        let values = NameMap::new(passing.chain(others).collect()).expect("distinct names");
        Notification {
            values: NotificationValues::Named(values),
            ..notification(0)
        }
    }

    /// As many to a connection as it may have. All lists are sent twice, the second time in random order, so
    /// that what is looked at lies where no prefetcher guesses.
    fn index(&self) -> SubscriptionIndex {
        let each = HubLimits::default().subscriptions_max as u32;
        let (count, waiting) = self.counts();
        let all = count + waiting;
        let list = |connection: u32| {
            let numbers = connection * each..all.min((connection + 1) * each);
            let list = numbers.map(|number| {
                if number < waiting {
                    self.waiting()
                } else {
                    self.subscription(number)
                }
            });
            list.collect::<Vec<_>>()
        };
        let connections = all.div_ceil(each);
        let mut index = SubscriptionIndex::default();
        let mut state = 0x2545_f491_4f6c_dd1d;
        let again = shuffled(connections, &mut state);
        for connection in (0..connections).chain(again) {
            index.replace(id(connection), &list(connection));
        }
        index
    }
}

fn bench_dear(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fails on");
    group.sample_size(10);
    for dear in DEAR {
        let mut index = dear.index();
        let notification = dear.notification();
        let mut recipients = Vec::new();
        let (count, _) = dear.counts();
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(format!("{}, {count} subscriptions", dear.kind), |bencher| {
            bencher.iter(|| {
                index.collect_recipients(black_box(&notification), &mut recipients);
                assert!(recipients.is_empty());
            });
        });
        let bytes = index.heap_bytes() / index.subscription_count();
        eprintln!(
            "{} subscriptions: {bytes} bytes each",
            index.subscription_count()
        );
    }
    group.finish();
}

fn bench_replace(criterion: &mut Criterion) {
    let mut state = 0x2545_f491_4f6c_dd1d;
    let mut index = index_of(100_000, &mut state);
    let mut group = criterion.benchmark_group("replace");
    for count in [1, 10, 100] {
        group.bench_function(format!("{count} among 100000"), |bencher| {
            bencher.iter_batched(
                || {
                    let connection = id(random(&mut state, 10_000));
                    let list = (0..count).map(|_| subscription(random(&mut state, 10_000)));
                    (connection, list.collect::<Vec<_>>())
                },
                |(id, list)| index.replace(id, &list),
                BatchSize::SmallInput,
            );
        });
    }
    // Everybody on one channel: leaving must not search the list.
    let mut index = SubscriptionIndex::default();
    for connection in 0..100_000 {
        index.replace(id(connection), &[subscription(2)]);
    }
    let list = [subscription(2)];
    group.bench_function("1 of 100000 on one channel", |bencher| {
        bencher.iter(|| index.replace(id(random(&mut state, 100_000)), &list));
    });
    group.finish();
}

const KEPT: u32 = 100_000;
const KEPT_CHANNELS: u32 = KEPT / 10;

fn kept(fingerprinter: &Fingerprinter) -> Column {
    let mut fingerprints = Fingerprints::default();
    let mut column = Column::default();
    let mut charged = 0;
    for number in shuffled(KEPT, &mut 0x2545_f491_4f6c_dd1d) {
        fingerprinter.write(&notification(number % KEPT_CHANNELS), &mut fingerprints);
        charged += column.push(&fingerprints);
    }
    let bytes = column.heap_bytes() / KEPT as usize;
    let charged = charged / KEPT as usize;
    eprintln!("{bytes} bytes an entry, charged as {charged}");
    column
}

/// What is looked for, and how many entries it hits. What no entry has begins at [`KEPT_CHANNELS`].
fn searches() -> Vec<(&'static str, Vec<Subscription<'static>>, u32)> {
    let each = |channels: Range<u32>| channels.map(subscription).collect::<Vec<_>>();
    let channel = |number: u32| Subscription::Channel(number.to_string().into());
    let named = |asked| page_subscription(vec![("channel".to_owned(), asked)]);
    let other = Page {
        page: "other".into(),
        ..page()
    };
    let missing = KEPT_CHANNELS..KEPT_CHANNELS + 1024;
    let missing = missing.map(|value| Cow::Owned(value.to_string()));
    let missing = Asked::OneOf(Values::new(missing.collect()));
    vec![
        (
            "a page",
            vec![Subscription::Page(other, Filter::Everything)],
            0,
        ),
        ("a value that is missing", vec![subscription(KEPT)], 0),
        ("a value", vec![subscription(2)], 10),
        (
            "a value or a channel",
            vec![subscription(2), channel(2)],
            10,
        ),
        ("4 values", each(0..4), 40),
        ("10 values", each(0..10), 100),
        ("256 values", each(KEPT..KEPT + 256), 0),
        ("1024 values", vec![named(missing)], 0),
        ("any value", vec![named(Asked::Any)], KEPT),
        (
            "any value, or 256 channels",
            (0..256).map(channel).chain([named(Asked::Any)]).collect(),
            KEPT,
        ),
    ]
}

/// How many entries are hit, of all.
fn hits(fingerprinter: &Fingerprinter, column: &Column, list: &[Subscription<'_>]) -> u32 {
    let needles = fingerprinter.needles(list);
    let (mut hits, mut from) = (0, 0);
    while let Search::Hit(at) = column.search(&needles, from, usize::MAX) {
        (hits, from) = (hits + 1, at + 1);
    }
    hits
}

fn bench_search(criterion: &mut Criterion) {
    let fingerprinter = Fingerprinter::default();
    let column = kept(&fingerprinter);
    let mut group = criterion.benchmark_group("search");
    for (name, list, expected) in searches() {
        group.bench_function(format!("{name}, {expected} among {KEPT}"), |bencher| {
            bencher.iter(|| assert_eq!(hits(&fingerprinter, &column, black_box(&list)), expected));
        });
    }
    let mut fingerprints = Fingerprints::default();
    let notification = notification(2);
    group.throughput(Throughput::Elements(1));
    group.bench_function("what a notification is found by", |bencher| {
        bencher.iter(|| fingerprinter.write(black_box(&notification), &mut fingerprints));
    });
    let mut recent = Column::default();
    group.bench_function("kept, and another dropped", |bencher| {
        bencher.iter(|| {
            recent.push(&fingerprints);
            if recent.len() > 10_000 {
                black_box(recent.pop_front());
            }
        });
    });
    group.finish();
}

fn publish_text(bytes: usize) -> String {
    let text = |filler: &str| {
        format!(
            "{{\"sender\":\"server\",\"notification\":{{\"type\":\"chat\",\"package\":\"amaiia_messages\",\"page\":\"message_reader\",\"filters\":{{\"values\":{{\"channel\":\"2\"}}}},\"message\":{{\"text\":\"{filler}\"}}}}}}"
        )
    };
    let filler = bytes.saturating_sub(text("").len());
    text(&"Bonjour ".repeat(filler / 8 + 1)[..filler])
}

fn bench_parse(criterion: &mut Criterion) {
    let limits = HubLimits::default();
    let mut group = criterion.benchmark_group("parse");
    let subscribe = "{\"sender\":\"client\",\"subscriptions\":[{\"package\":\"amaiia_messages\",\"page\":\"message_reader\",\"filters\":{\"values\":{\"channel\":[\"2\",\"5\"]}}}]}";
    group.throughput(Throughput::Bytes(subscribe.len() as u64));
    group.bench_function("subscribe", |bencher| {
        bencher.iter(|| parse(black_box(subscribe), &limits).is_ok());
    });
    group.bench_function("ping", |bencher| {
        bencher.iter(|| parse(black_box("{\"type\":\"ping\"}"), &limits).is_ok());
    });
    for bytes in [200, 2048] {
        let text = publish_text(bytes);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(
            format!("publish {} B, with its frame", text.len()),
            |bencher| {
                bencher.iter(|| match parse(black_box(&text), &limits) {
                    Ok(Command::Publish(publish)) => {
                        publish.read(true).expect("valid").content.plain()
                    }
                    _ => unreachable!("a publisher"),
                });
            },
        );
    }
    group.finish();
}

criterion_group!(
    benches,
    bench_parse,
    bench_match,
    bench_dear,
    bench_search,
    bench_replace
);
criterion_main!(benches);
