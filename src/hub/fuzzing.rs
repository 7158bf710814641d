//! The bodies of the fuzz targets, which run as tests too.
//!
//! Owns drivers that turn bytes into commands and into operations on the index, and assert what
//! must hold whatever the bytes are. Knows nothing that the product needs. The index is held
//! against a list of subscriptions and [`filter::matches`] after each operation.

use std::borrow::Cow;

use super::command::{self, Command};
use super::filter::{
    self, Criterion, Filter, NameMap, Notification, NotificationValues, Page, Subscription, Values,
};
use super::index::SubscriptionIndex;
use crate::config::HubLimits;
use crate::id::ConnectionId;

/// Reads `bytes` as a message, and the answer or the frame that follows from it.
pub fn fuzz_command(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let limits = HubLimits::default();
    match command::parse(text, &limits) {
        Ok(Command::Subscribe { subscriptions, .. }) => {
            assert!(subscriptions.len() <= limits.subscriptions_max);
        }
        Ok(Command::Ping) => {}
        Ok(Command::Publish(publish)) => match publish.read() {
            Ok(publication) => {
                let notification = &publication.notification;
                assert!(notification.page.is_some() || notification.channel.is_some());
                let frame = publication.frame();
                assert!(frame.as_bytes().len() <= text.len() + 64);
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
