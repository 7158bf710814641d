//! The healthy: subscribers and a publisher that must not feel what happens to others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::receipts::without_ids;
use super::{Client, Received, Server, delivery, frame, message, subscriber};

/// Subscribers of a crowd.
const SUBSCRIBERS: usize = 20;

/// How long a crowd rests between two notifications.
const REST: Duration = Duration::from_millis(2);

/// Twenty subscribers and their publisher.
pub(crate) struct Crowd {
    subscribers: Vec<Client>,
    publisher: Client,
    /// How long each notification took.
    latencies: Vec<Duration>,
}

/// What a crowd has seen. That nothing was lost, came twice or out of order was checked with
/// each notification.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    pub(crate) published: usize,
    /// In half of the cases it took no longer than this.
    pub(crate) median: Duration,
    /// The longest time from publishing until the last subscriber had it.
    pub(crate) slowest: Duration,
}

impl Crowd {
    /// A crowd that has had its first notification.
    pub(crate) fn gather(server: &Server) -> Self {
        let subscribers = (0..SUBSCRIBERS)
            .map(|_| subscriber(server, r#"["crowd"]"#))
            .collect();
        let mut crowd = Self {
            subscribers,
            publisher: Client::connect_with(server, "/publish", &[]),
            latencies: Vec::new(),
        };
        crowd.publish();
        crowd
    }

    /// Publishes again and again until `is_over`, and once more then.
    pub(crate) fn publish_until(&mut self, is_over: &AtomicBool) -> Served {
        while !is_over.load(Ordering::Relaxed) {
            self.publish();
            thread::sleep(REST);
        }
        self.publish();
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        Served {
            published: sorted.len(),
            median: sorted[sorted.len() / 2],
            slowest: sorted[sorted.len() - 1],
        }
    }

    /// Publishes one notification, which must be the next that everybody gets.
    pub(crate) fn publish(&mut self) {
        let notification = format!(r#"{{"channel":"crowd","n":{}}}"#, self.latencies.len());
        let since = Instant::now();
        self.publisher.send(&message(&notification));
        let delivery = delivery(&notification);
        for subscriber in &mut self.subscribers {
            assert_eq!(text(subscriber), delivery);
        }
        self.latencies.push(since.elapsed());
        assert_eq!(
            text(&mut self.publisher),
            format!(r#"{{"type":"published","delivered":{SUBSCRIBERS}}}"#)
        );
    }
}

/// The next text, without its id if it is a receipt; Pings before it are answered.
fn text(client: &mut Client) -> String {
    loop {
        match client.receive() {
            Received::Text(text) => return without_ids(text),
            Received::Ping(payload) => client.send_bytes(&frame(0x8a, &payload)),
            other => panic!("{other:?} instead of a text message"),
        }
    }
}
