//! The bodies of the fuzz targets, which run as tests too.
//!
//! Owns drivers that turn bytes into commands and into operations on the index, and assert what
//! must hold whatever the bytes are. Knows nothing that the product needs. The index is held
//! against a list of subscriptions and [`filter::matches`] after each operation, and so is what the
//! fingerprints find against a row of notifications.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

use super::command::{self, Command};
use super::filter::{
    self, Criterion, Filter, NameMap, Notification, NotificationValues, Page, Subscription, Values,
};
use super::fingerprints::Fingerprinter;
use super::holdings::Holdings;
use super::index::SubscriptionIndex;
use crate::config::HubLimits;
use crate::id::ConnectionId;
use crate::journal::column::{Column, Fingerprints, Search};

/// Reads `bytes` as a message, and the answer or the frame that follows from it.
pub fn fuzz_command(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let limits = HubLimits::default();
    // Of a stream anybody may be the author.
    match command::parse_entry(text) {
        Ok(entry) => {
            assert!(entry.key.is_none());
            assert_eq!(command::takes_position(text), entry.is_kept);
        }
        Err(error) => check_error(&error),
    }
    match command::parse(text, &limits) {
        Ok(Command::Subscribe { subscriptions, .. }) => {
            assert!(subscriptions.len() <= limits.subscriptions_max);
        }
        Ok(Command::Ping) => {}
        Ok(Command::Publish(publish)) => match publish.read(true) {
            Ok(publication) => {
                let notification = &publication.notification;
                assert!(notification.page.is_some() || notification.channel.is_some());
                let frame = publication.content.plain();
                assert!(frame.as_bytes().len() <= text.len() + 64);
                assert!(publication.is_kept || publication.key.is_none());
            }
            Err(error) => check_error(&error),
        },
        Err(error) => check_error(&error),
    }
}

/// An error is a message that no client takes for a notification, and bounded.
fn check_error(error: &command::CommandError) {
    let reply = error.reply();
    assert!(reply.starts_with(r#"{"type":"error","error":{"code":""#));
    assert!(reply.len() < 1024, "{} bytes", reply.len());
}

/// Slots that the driver uses; few, so that they are used again.
const SLOTS: u8 = 6;

/// Reads `bytes` as operations on an index, and asserts that it agrees with the oracle.
pub fn fuzz_index(bytes: &[u8]) {
    let mut source = Source(bytes.iter());
    let mut model = Model::default();
    while let Some(operation) = source.next() {
        match operation % 8 {
            0..=3 => model.replace(&mut source),
            4 => model.remove(&mut source),
            5 => model.reconnect(&mut source),
            6 => model.carry(),
            _ => {}
        }
        model.publish(&source.notification());
        model.index.check_invariants();
    }
    for slot in 0..SLOTS {
        model.index.remove(model.id(slot));
    }
    model.index.check_invariants();
    assert_eq!(model.index.heap_bytes(), 0, "nobody is left, and nothing");
}

/// The index beside what it stands for.
#[derive(Default)]
struct Model {
    index: SubscriptionIndex,
    serials: [u32; SLOTS as usize],
    subscriptions: [Vec<Subscription<'static>>; SLOTS as usize],
}

impl Model {
    fn id(&self, slot: u8) -> ConnectionId {
        ConnectionId {
            index: slot.into(),
            serial: self.serials[usize::from(slot)],
        }
    }

    fn replace(&mut self, source: &mut Source<'_>) {
        let slot = source.below(SLOTS);
        let count = source.below(4);
        let subscriptions: Vec<_> = (0..count).map(|_| source.subscription()).collect();
        self.index.replace(self.id(slot), &subscriptions);
        assert_eq!(
            self.index.subscriptions_of(self.id(slot)),
            usize::from(count)
        );
        self.subscriptions[usize::from(slot)] = subscriptions;
    }

    fn remove(&mut self, source: &mut Source<'_>) {
        let slot = source.below(SLOTS);
        self.index.remove(self.id(slot));
        self.subscriptions[usize::from(slot)].clear();
    }

    /// Another tenant of a slot: the id of the old one moves nothing.
    fn reconnect(&mut self, source: &mut Source<'_>) {
        let slot = source.below(SLOTS);
        self.index.remove(self.id(slot));
        let gone = self.id(slot);
        self.serials[usize::from(slot)] += 1;
        let subscriptions = vec![source.subscription()];
        self.index.replace(self.id(slot), &subscriptions);
        self.index.remove(gone);
        assert_eq!(self.index.subscriptions_of(gone), 0);
        self.subscriptions[usize::from(slot)] = subscriptions;
    }

    /// All lists are written, read, and given to an empty index, which then stands for the same.
    fn carry(&mut self) {
        let mut carried = SubscriptionIndex::default();
        for slot in 0..SLOTS {
            let id = self.id(slot);
            let json = written(&self.index, id);
            let list = command::parse_list(&json).expect("it was written");
            let holdings = self.index.holdings_of(id);
            assert!(Holdings::of(&list).is_within(holdings), "{json}");
            carried.restore(id, &list, holdings);
            assert_eq!(carried.holdings_of(id), holdings);
            assert_eq!(written(&carried, id), json);
        }
        let counts = |index: &SubscriptionIndex| {
            let connections = index.connection_count();
            (connections, index.subscription_count(), index.value_count())
        };
        assert_eq!(counts(&carried), counts(&self.index));
        assert!(carried.text_bytes() <= self.index.text_bytes());
        self.index = carried;
    }

    fn publish(&mut self, notification: &Notification<'_>) {
        let mut recipients = Vec::new();
        self.index.collect_recipients(notification, &mut recipients);
        recipients.sort_unstable();
        let wants = |slot: &u8| {
            let subscriptions = &self.subscriptions[usize::from(*slot)];
            subscriptions
                .iter()
                .any(|subscription| filter::matches(subscription, notification))
        };
        let expected: Vec<_> = (0..SLOTS).filter(wants).map(|slot| self.id(slot)).collect();
        assert_eq!(
            recipients, expected,
            "{notification:?} among {:?}",
            self.subscriptions
        );
    }
}

/// What a connection has subscribed to, as JSON.
fn written(index: &SubscriptionIndex, id: ConnectionId) -> String {
    let mut json = Vec::new();
    command::write_subscriptions(&index.list_of(id), &mut json);
    String::from_utf8(json).expect("JSON is text")
}

/// Notifications that the driver of the fingerprints keeps: a few blocks of them.
const ROW_MAX: usize = 3000;

/// Reads `bytes` as a row of notifications that comes and goes, and as searches in it. Asserts that what
/// matches is found, in order, by bounded steps.
pub fn fuzz_fingerprints(bytes: &[u8]) {
    let mut source = Source(bytes.iter());
    let mut row = Row::default();
    while let Some(operation) = source.next() {
        match operation % 8 {
            0 | 1 => row.push(source.notification(), 1),
            2 => row.push(
                source.notification(),
                1 + usize::from(source.below(8)) * 100,
            ),
            3 => row.push(source.rich_notification(), 1),
            4 => row.pop(1),
            5 => row.pop(usize::from(source.below(8)) * 100),
            _ => row.search(&mut source),
        }
        row.check_invariants();
    }
    row.search(&mut source);
}

/// A column beside what it stands for.
#[derive(Default)]
struct Row {
    fingerprinter: Fingerprinter,
    fingerprints: Fingerprints,
    column: Column,
    /// Each with the bytes that it was charged for.
    notifications: VecDeque<(Rc<Notification<'static>>, usize)>,
}

impl Row {
    fn push(&mut self, notification: Notification<'static>, count: usize) {
        self.fingerprinter
            .write(&notification, &mut self.fingerprints);
        let notification = Rc::new(notification);
        for _ in 0..count.min(ROW_MAX - self.notifications.len()) {
            let bytes = self.column.push(&self.fingerprints);
            self.notifications.push_back((notification.clone(), bytes));
        }
    }

    fn pop(&mut self, count: usize) {
        for _ in 0..count {
            let charged = self.notifications.pop_front().map(|(_, bytes)| bytes);
            assert_eq!(self.column.pop_front(), charged);
        }
    }

    /// Looks from somewhere to the end, in steps of some length, for what some subscriptions ask for.
    fn search(&self, source: &mut Source<'_>) {
        let count = [1, 1, 2, 6][usize::from(source.below(4))];
        let subscriptions: Vec<_> = (0..count).map(|_| source.subscription()).collect();
        let step = [1, 7, 300, 1024, usize::MAX][usize::from(source.below(5))];
        let len = self.notifications.len();
        let begin = len * usize::from(source.below(8)) / 8;
        let needles = self.fingerprinter.needles(&subscriptions);
        let wants = |notification: &Notification<'_>| {
            let mut subscriptions = subscriptions.iter();
            subscriptions.any(|subscription| filter::matches(subscription, notification))
        };
        let is_missed = |at: &usize| wants(&self.notifications[*at].0);
        let mut from = begin;
        while from < len {
            let next = match self.column.search(&needles, from, step) {
                Search::Hit(at) => {
                    assert!(at >= from && at - from < step && at < len);
                    assert_eq!((from..at).find(is_missed), None, "{subscriptions:?}");
                    at + 1
                }
                Search::LookedTo(to) => {
                    assert!(to == len || to == from + step, "not {to} from {from}");
                    assert_eq!((from..to).find(is_missed), None, "{subscriptions:?}");
                    to
                }
            };
            from = next;
        }
        assert_eq!(
            self.column.search(&needles, len, step),
            Search::LookedTo(len)
        );
    }

    fn check_invariants(&self) {
        self.column.check_invariants();
        assert_eq!(self.column.len(), self.notifications.len());
        assert_eq!(self.column.is_empty(), self.notifications.is_empty());
    }
}

/// Small things made of bytes; when the bytes end, of zeros.
struct Source<'a>(std::slice::Iter<'a, u8>);

impl Source<'_> {
    fn next(&mut self) -> Option<u8> {
        self.0.next().copied()
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.next().unwrap_or(0) % bound
    }

    /// One of four texts; the alphabet is small, so that things meet.
    fn text(&mut self) -> Cow<'static, str> {
        Cow::Borrowed(["", "a", "b", "true"][usize::from(self.below(4))])
    }

    fn page(&mut self) -> Page<'static> {
        let [package, page] = [["p", "q"], ["p", "r"], ["q", "p"]][usize::from(self.below(3))];
        Page {
            package: package.into(),
            page: page.into(),
        }
    }

    fn values(&mut self) -> Values<'static> {
        let count = [1, 1, 2, 3, 0][usize::from(self.below(5))];
        Values::new((0..count).map(|_| self.text()).collect())
    }

    fn names<T>(&mut self, mut entry: impl FnMut(&mut Self) -> T) -> NameMap<'static, T> {
        let which = self.below(8);
        let names = ["x", "y", "a"].into_iter().enumerate();
        let chosen = names.filter(|(bit, _)| which >> bit & 1 == 1);
        let entries = chosen.map(|(_, name)| (name.into(), entry(self)));
        NameMap::new(entries.collect()).expect("the names are distinct")
    }

    fn subscription(&mut self) -> Subscription<'static> {
        let filter = match self.below(8) {
            0 => return Subscription::Channel(self.text()),
            1 => Filter::Everything,
            2 => Filter::Nameless(self.values()),
            _ => Filter::Named(self.names(|source| match source.below(4) {
                0 => Criterion::Any,
                _ => Criterion::OneOf(source.values()),
            })),
        };
        Subscription::Page(self.page(), filter)
    }

    /// One with more values than are kept of one, or as many.
    fn rich_notification(&mut self) -> Notification<'static> {
        let numbers = (0..60 + self.below(8)).map(|number| Cow::Owned(number.to_string()));
        let texts = [self.text(), self.text()].into_iter();
        let values = Values::new(numbers.chain(texts).collect());
        let values = match self.below(2) {
            0 => NotificationValues::Nameless(values),
            _ => {
                let more = self.names(Self::values).map(|_| values.clone());
                NotificationValues::Named(more)
            }
        };
        Notification {
            values,
            ..self.notification()
        }
    }

    fn notification(&mut self) -> Notification<'static> {
        let shape = self.below(8);
        Notification {
            page: (shape != 0).then(|| self.page()),
            channel: (shape < 2).then(|| self.text()),
            values: match self.below(5) {
                0 => NotificationValues::Absent,
                1 => NotificationValues::Nameless(self.values()),
                _ => NotificationValues::Named(self.names(Self::values)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_corpus;
    use fastrand::Rng;

    /// Says which seed it was when a test fails on the way.
    struct Seed(u64);

    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {}", self.0);
            }
        }
    }

    fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
        let mut random = Rng::with_seed(seed);
        (0..count).map(|_| random.u64(..) as u8).collect()
    }

    #[test]
    fn corpus_of_commands() {
        run_corpus("command", fuzz_command);
    }

    #[test]
    fn corpus_of_index_operations() {
        run_corpus("index", fuzz_index);
    }

    #[test]
    fn corpus_of_fingerprints() {
        run_corpus("fingerprints", fuzz_fingerprints);
    }

    #[test]
    fn the_fingerprints_agree_with_the_oracle_on_random_operations() {
        for seed in 0..100 {
            let seed = Seed(seed);
            fuzz_fingerprints(&random_bytes(seed.0, 600));
        }
    }

    #[test]
    fn the_index_agrees_with_the_oracle_on_random_operations() {
        for seed in 0..400 {
            let seed = Seed(seed);
            fuzz_index(&random_bytes(seed.0, 2000));
        }
    }

    #[test]
    fn named_inputs_pass() {
        for input in [
            "",
            "\0",
            "\u{5}\u{5}\u{5}",
            "(((((((((",
            "~~~~~~~~~~~~~~~~~",
        ] {
            fuzz_index(input.as_bytes());
        }
        for input in [
            "",
            "{}",
            "[[[[",
            r#"{"type":"ping"}"#,
            r#"{"sender":"client","subscriptions":["a",{"package":"\u0070","page":"q","filters":{"values":{"a":[1,2.5,-0]}}}]}"#,
            r#"{"sender":"server","notification":{"channel":"a","\ud800":"\ud800"}}"#,
            r#"{"sender":"server","type":"pong","notification":{"channel":1e999}}"#,
        ] {
            fuzz_command(input.as_bytes());
        }
        fuzz_command(b"\xff");
    }
}
