//! Programs that follow one another while there is much to do: nobody is closed, and nothing is missed, doubled or out of
//! order.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::C;
use crate::helpers::http::{Http, figures, post};
use crate::helpers::numbered::{id_of, publish_kept, resume, wait_until};
use crate::helpers::receipts::split_id;
use crate::helpers::{
    Client, Ending, Received, Server, delivery, message, most_descriptors, publish,
    raise_descriptor_limit, subscriber,
};

/// Subscribers, and notifications a second to all of them; `HANDOVER_SUBSCRIBERS` and `HANDOVER_RATE` say otherwise.
const SUBSCRIBERS: usize = 200;
const RATE: usize = 250;

/// How many notifications there are between two handovers.
const BETWEEN: usize = 40;
const HANDOVERS: usize = 10;

/// The last notification.
const LAST: &str = r#"{"channel":"c","by":"nobody"}"#;

fn setting(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

/// What publishers do, and what they were told.
struct Publishers<'a> {
    server: &'a Server,
    is_over: AtomicBool,
    /// Each notification that has a receipt, with its id.
    published: Mutex<Vec<(String, String)>>,
    count: AtomicUsize,
}

/// One of them, which publishes in steps.
struct Publisher<'a> {
    all: &'a Publishers<'a>,
    name: &'static str,
    published: usize,
    /// How long it rests after each.
    rest: Duration,
}

impl Publisher<'_> {
    fn is_over(&self) -> bool {
        self.all.is_over.load(Ordering::Relaxed)
    }

    fn next(&mut self) -> String {
        thread::sleep(self.rest);
        self.published += 1;
        let text = "x".repeat(self.published * 7 % 300);
        let (name, n) = (self.name, self.published);
        format!(r#"{{"channel":"c","by":"{name}","n":{n},"text":"{text}"}}"#)
    }

    fn record(&self, notification: String, id: String) {
        self.all.count.fetch_add(1, Ordering::Relaxed);
        let mut published = self.all.published.lock().expect("nobody panics with it");
        published.push((notification, id));
    }

    /// A connection for each.
    fn publish_once_each(mut self) {
        while !self.is_over() {
            let notification = self.next();
            let id = publish_kept(self.all.server, &notification);
            self.record(notification, id);
        }
    }

    /// A connection for some, five of which are on their way at once.
    fn publish_on_kept_connections(mut self) {
        while !self.is_over() {
            let mut client = Client::connect_with(self.all.server, "/publish", &[]);
            for _ in 0..10 {
                let some = [(); 5].map(|()| self.next());
                for notification in &some {
                    client.send(&message(notification));
                }
                for notification in some {
                    let (receipt, id) = split_id(&client.whole_text());
                    assert!(receipt.starts_with(r#"{"type":"published","#), "{receipt}");
                    self.record(notification, id);
                }
            }
            client.leave();
        }
    }

    /// The same by HTTP.
    fn post(mut self) {
        while !self.is_over() {
            let mut http = Http::connect(self.all.server);
            for _ in 0..30 {
                let notification = self.next();
                http.send(post(&message(&notification)));
                let (status, head, body) = http.receive();
                assert_eq!(status, 200, "{head} {body}");
                let (_, id) = split_id(&body);
                self.record(notification, id);
            }
        }
    }
}

/// The notification of a text, and its id if it has one.
fn parse(text: &str) -> (String, Option<String>) {
    let start = r#"{"type":"notification","#;
    let rest = text.strip_prefix(start).unwrap_or_else(|| panic!("{text}"));
    let (head, rest) = rest
        .split_once(r#""notification":"#)
        .unwrap_or_else(|| panic!("{text}"));
    let notification = rest.strip_suffix('}').expect("it ends");
    let id = (!head.is_empty()).then(|| id_of(text));
    (notification.to_owned(), id)
}

/// Subscribers that a thread reads: as many again that number what they get.
struct Readers {
    plain: Vec<Client>,
    numbering: Vec<Client>,
}

impl Readers {
    fn connect(server: &Server, count: usize) -> Self {
        let plain = (0..count - count / 3).map(|_| subscriber(server, r#"["c"]"#));
        let numbering = (0..count / 3).map(|_| {
            let mut client = Client::connect(server);
            client.subscribe_since(r#"["c"]"#, "");
            client
        });
        Self {
            plain: plain.collect(),
            numbering: numbering.collect(),
        }
    }

    /// Reads to the last notification, and says what each of them got.
    fn read(&mut self) -> Vec<(String, String)> {
        let mut got = Vec::new();
        loop {
            let (first, rest) = self.numbering.split_first_mut().expect("there are some");
            let text = first.whole_text();
            let (notification, id) = parse(&text);
            for client in rest {
                assert_eq!(client.whole_text(), text);
            }
            let text = delivery(&notification);
            for client in &mut self.plain {
                assert_eq!(client.whole_text(), text);
            }
            let is_last = notification == LAST;
            got.push((notification, id.expect("it is numbered")));
            if is_last {
                return got;
            }
        }
    }

    /// Nothing follows.
    fn expect_nothing(&mut self) {
        for client in self.plain.iter_mut().chain(&mut self.numbering) {
            client.send(r#"{"type":"ping"}"#);
            let pong = client.whole_text();
            assert!(pong.starts_with(r#"{"type":"pong""#), "{pong}");
        }
    }
}

/// A client that numbers what it gets, and the id from which it does.
fn numbering(server: &Server) -> (Client, String) {
    let mut client = Client::connect(server);
    let answer = client.subscribe_since(r#"["c"]"#, "");
    let since = id_of(&answer);
    (client, since)
}

/// Has a client come back again and again, and says what it got.
fn read_with_interruptions(
    server: &Server,
    (mut client, mut since): (Client, String),
) -> Vec<(String, String)> {
    let mut got = Vec::new();
    loop {
        for _ in 0..25 {
            let text = client.whole_text();
            if text.starts_with(r#"{"type":"caught-up""#) {
                continue;
            }
            let (notification, id) = parse(&text);
            since = id.expect("it is numbered");
            let is_last = notification == LAST;
            got.push((notification, since.clone()));
            if is_last {
                return got;
            }
        }
        let (again, answer) = resume(server, r#"["c"]"#, &since);
        assert!(answer.contains(r#""resumed":true"#), "{answer}");
        client = again;
    }
}

#[test]
fn ten_handovers_in_a_fan_out_are_noticed_by_nobody() {
    ten_handovers(&Server::with(&["--ping-interval", "3600"]));
}

/// Has a server that pings nobody handed over while it has much to do.
pub(super) fn ten_handovers(server: &Server) {
    raise_descriptor_limit();
    let count = setting("HANDOVER_SUBSCRIBERS", SUBSCRIBERS);
    let rate = setting("HANDOVER_RATE", RATE);
    let mut readers = [(); 2].map(|()| Readers::connect(server, count / 2));
    // It has subscribed before anything is published, as they have: all get the same.
    let interrupted = numbering(server);
    let publishers = Publishers {
        server,
        is_over: AtomicBool::new(false),
        published: Mutex::default(),
        count: AtomicUsize::new(0),
    };
    let new = |name| Publisher {
        all: &publishers,
        name,
        published: 0,
        rest: Duration::from_secs_f64(6.0 / rate as f64),
    };
    let mut pauses = Vec::new();
    let since = Instant::now();
    let got = thread::scope(|scope| {
        let ending = Ending(&publishers.is_over);
        let reading: Vec<_> = readers
            .iter_mut()
            .map(|readers| scope.spawn(move || readers.read()))
            .collect();
        let interrupted = scope.spawn(|| read_with_interruptions(server, interrupted));
        let publishing = [
            scope.spawn(|| new("once").publish_once_each()),
            scope.spawn(|| new("another once").publish_once_each()),
            scope.spawn(|| new("kept").publish_on_kept_connections()),
            scope.spawn(|| new("another kept").publish_on_kept_connections()),
            scope.spawn(|| new("posted").post()),
            scope.spawn(|| new("another posted").post()),
        ];
        for handover in 1..=HANDOVERS {
            wait_until("more is published", || {
                thread::sleep(Duration::from_millis(1));
                publishers.count.load(Ordering::Relaxed) >= handover * BETWEEN
            });
            let line = server.hand_over();
            let (_, pause) = line.rsplit_once(" in ").expect("it says how long");
            pauses.push(pause.to_owned());
        }
        drop(ending);
        for publisher in publishing {
            publisher.join().expect("each has its receipt");
        }
        let id = publish_kept(server, LAST);
        new("nobody").record(LAST.to_owned(), id);
        let mut got: Vec<_> = reading
            .into_iter()
            .map(|reading| reading.join().expect("all was as it should be"))
            .collect();
        got.push(interrupted.join().expect("all was as it should be"));
        got
    });
    let published = publishers.published.into_inner().expect("nobody panicked");
    println!(
        "{count} subscribers, {} notifications in {:?}; pauses: {pauses:?}",
        published.len(),
        since.elapsed()
    );
    for readers in &mut readers {
        readers.expect_nothing();
    }
    // All have the same, and what publishers were told.
    for other in &got[1..] {
        assert!(got[0] == *other, "in another order");
    }
    let mut of_publishers: HashMap<_, _> = published.into_iter().collect();
    let mut last = HashMap::new();
    for (notification, id) in &got[0] {
        let told = of_publishers.remove(notification);
        assert_eq!(told.as_ref(), Some(id), "{notification}");
        let json: serde_json::Value = serde_json::from_str(notification).expect("JSON");
        let n = json["n"].as_u64();
        let before = last.insert(json["by"].to_string(), n);
        assert!(before.is_none_or(|before| before < n), "{notification}");
    }
    assert!(of_publishers.is_empty(), "nobody got {of_publishers:?}");
    let text = figures(server);
    for line in [
        "crieur_slow_consumers_total 0",
        "crieur_deliveries_dropped_total 0",
        r#"crieur_handovers_total{result="completed"} 10"#,
    ] {
        assert!(text.lines().any(|got| got == line), "{line}\n{text}");
    }
}

#[test]
fn fifteen_thousand_connections_are_handed_over() {
    let _turn = most_descriptors();
    // The server is under the same limit, and other tests take some too.
    let count = (raise_descriptor_limit() * 3 / 4).min(15_000);
    let server = Server::with(&["--ping-interval", "3600"]);
    let mut clients: Vec<_> = (0..count)
        .map(|_| subscriber(&server, r#"["c"]"#))
        .collect();
    let program = server.program();
    let (descriptors, memory_bytes) = (program.descriptors(), program.memory_bytes());
    let mut expect_all = || {
        let receipt = format!(r#"{{"delivered":{count}}}"#);
        assert_eq!(publish(&server, C), receipt);
        for client in &mut clients {
            assert_eq!(client.receive(), Received::Text(delivery(C)));
        }
    };
    expect_all();
    let line = server.hand_over();
    expect_all();
    server.wait_for_descriptors(descriptors);
    let now = program.memory_bytes();
    println!("{line}; {memory_bytes} bytes before, {now} behind");
    assert!(
        now < memory_bytes + 8 * super::MIB,
        "{now} bytes instead of {memory_bytes}"
    );
}
