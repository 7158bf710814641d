//! What an explanation says, held against what is delivered.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use serde_json::Value;

use super::*;
use crate::application::{Answer, BodyUse};

const CONNECTIONS: u32 = 8;

fn values(random: &mut Rng) -> String {
    let count = random.usize(1..3);
    let texts: Vec<_> = (0..count).map(|_| random.u8(0..4).to_string()).collect();
    match random.u8(0..3) {
        0 => format!("[{}]", texts.join(",")),
        1 => format!(r#"{{"s":[{}]}}"#, texts.join(",")),
        _ => format!(r#"{{"s":[{}],"t":{}}}"#, texts.join(","), random.u8(0..2)),
    }
}

fn subscription(random: &mut Rng) -> String {
    match random.u8(0..4) {
        0 => format!(r#""{}""#, random.u8(0..3)),
        1 => r#"{"package":"p","page":"q"}"#.to_owned(),
        _ => {
            let values = values(random);
            format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}}}}"#)
        }
    }
}

fn notification(random: &mut Rng, number: u32) -> String {
    match random.u8(0..4) {
        0 => format!(r#"{{"channel":{},"n":{number}}}"#, random.u8(0..3)),
        1 => format!(r#"{{"package":"p","page":"r","n":{number}}}"#),
        _ => {
            let values = values(random);
            format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}},"n":{number}}}"#)
        }
    }
}

/// A hub, and what its clients have got by their present lists.
struct Bench {
    hub: Hub,
    outbox: Record,
    random: Rng,
    got: HashSet<(u32, u32)>,
    /// Of those that are being caught up: whether they are to get the notification of this number.
    promised: HashMap<u32, Vec<(u32, bool)>>,
    /// The ids of what was published and is kept, with its number.
    kept: Vec<(String, u32)>,
    /// The words that were said.
    reasons: HashSet<String>,
}

impl Bench {
    /// Takes what was sent. A connection that has its present list from now on has got nothing by it.
    fn take(&mut self) {
        for sent in self.outbox.sent.drain(..) {
            let Sent::Delivery(text, recipients) = sent else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let number = message["notification"]["n"].as_u64().expect("a number") as u32;
            self.got
                .extend(recipients.iter().map(|id| (id.index, number)));
        }
        self.hub.check_invariants();
        for index in 1..=CONNECTIONS {
            if !self.hub.replays.contains(id(index)) {
                for (number, is_promised) in self.promised.remove(&index).unwrap_or_default() {
                    let has_got = self.got.contains(&(index, number));
                    assert_eq!(has_got, is_promised, "{index} and {number}");
                }
            }
        }
    }

    fn subscribe(&mut self) {
        let index = self.random.u32(1..=CONNECTIONS);
        let is_behind = self.hub.replays.contains(id(index));
        let count = self.random.usize(0..4);
        let list: Vec<_> = (0..count).map(|_| subscription(&mut self.random)).collect();
        let since = match self.random.u8(0..4) {
            0 if !is_behind => String::new(),
            1 => r#","since":"""#.to_owned(),
            _ => match self.kept.len() {
                0 => r#","since":"""#.to_owned(),
                len => format!(r#","since":"{}""#, self.kept[self.random.usize(0..len)].0),
            },
        };
        let text = format!(
            r#"{{"sender":"client","subscriptions":[{}]{since}}}"#,
            list.join(",")
        );
        self.got.retain(|(other, _)| *other != index);
        self.promised.remove(&index);
        let message = Message::Text(&text);
        self.hub
            .handle_message(id(index), message, &mut self.outbox);
        self.take();
    }

    fn explain(&mut self, question: &str) -> Value {
        let response = self.hub.explain(question.as_bytes(), &mut self.outbox);
        assert_eq!(response.status.code, 200, "{}", response.body);
        assert!(self.outbox.sent.is_empty(), "nothing is changed");
        self.hub.check_invariants();
        let answer: Value = serde_json::from_str(&response.body).expect("JSON");
        let connections = answer["connections"].as_array().expect("a list");
        let reasons = connections.iter().filter_map(|one| one["reason"].as_str());
        self.reasons.extend(reasons.map(str::to_owned));
        answer
    }

    fn publish(&mut self, number: u32) {
        let text = notification(&mut self.random, number);
        let keep = self.random.bool();
        let body = format!(r#"{{"notification":{text},"keep":{keep}}}"#);
        let explained = self.explain(&body);
        let answer =
            self.hub
                .handle_post(id(0), body.as_bytes(), BodyUse::Publish, &mut self.outbox);
        let Answer::Now(response) = answer else {
            panic!("{answer:?}");
        };
        let receipt: Value = serde_json::from_str(&response.body).expect("JSON");
        assert_eq!(explained["would_get"], receipt["delivered"], "{body}");
        self.take();
        if let Some(id) = receipt["id"].as_str() {
            self.kept.push((id.to_owned(), number));
        }
        let connections = explained["connections"].as_array().expect("a list");
        assert_eq!(connections.len(), CONNECTIONS as usize);
        for connection in connections {
            let what = format!("{body}\n{connection}");
            let id = connection["connection"]
                .as_str()
                .and_then(ConnectionId::of_text);
            let index = id.expect("an id").index;
            let gets = connection["gets"]
                .as_bool()
                .expect("the bound isn't reached");
            let matching = connection["subscriptions"].as_array().expect("a list");
            let is_matched = matching.iter().any(|one| one["matches"] == true);
            match connection["reason"].as_str().expect("a word") {
                "catching-up" => self.promised.entry(index).or_default().push((number, gets)),
                "no-match" if connection["state"] == "catching-up" => {
                    self.promised.entry(index).or_default().push((number, gets));
                }
                reason => {
                    let is_late = reason == "not-kept";
                    assert_eq!(is_matched, gets || is_late, "{what}");
                    assert_eq!(self.got.contains(&(index, number)), gets, "{what}");
                }
            }
            if is_matched {
                assert!(connection["reason"] != "no-match", "{what}");
            }
        }
        self.take();
    }

    /// Asks about one that was published.
    fn look_back(&mut self) {
        let Some((id, number)) = self.kept.last().cloned() else {
            return;
        };
        let older = self.random.usize(0..self.kept.len());
        let (id, number) = match self.random.bool() {
            true => self.kept[older].clone(),
            false => (id, number),
        };
        let explained = self.explain(&format!(r#"{{"id":"{id}"}}"#));
        for connection in explained["connections"].as_array().expect("a list") {
            let text = connection["connection"].as_str();
            let of = text.and_then(ConnectionId::of_text).expect("an id");
            let gets = connection["gets"]
                .as_bool()
                .expect("the bound isn't reached");
            let is_owed = connection["reason"] == "catching-up";
            let has_got = self.got.contains(&(of.index, number));
            assert_eq!(has_got, gets && !is_owed, "{number}: {connection}");
        }
    }

    /// Some of those that are being caught up get on.
    fn work(&mut self) {
        for id in std::mem::take(&mut self.outbox.awaited) {
            self.hub.handle_drained(id);
        }
        self.hub.handle_work(&mut self.outbox);
        self.take();
    }
}

#[test]
fn an_explanation_says_what_is_delivered() {
    for seed in 0..3 {
        let slice = Slice {
            entries: 2000,
            bytes: 1,
        };
        let mut bench = Bench {
            hub: hub().with_slices(slice),
            outbox: Record::default(),
            random: Rng::with_seed(seed),
            got: HashSet::new(),
            promised: HashMap::new(),
            kept: Vec::new(),
            reasons: HashSet::new(),
        };
        for index in 1..=CONNECTIONS {
            connect(&mut bench.hub, id(index), REMOTE, "/");
        }
        for number in 0..1000 {
            match bench.random.u8(0..8) {
                0..2 => bench.subscribe(),
                2..5 => bench.publish(number),
                5 => bench.look_back(),
                _ => bench.work(),
            }
            if number % 50 == 0 {
                carry(&mut bench.hub, bench.outbox.now);
            }
        }
        assert!(bench.kept.len() > 100);
        for reason in [
            "matches",
            "no-match",
            "no-subscriptions",
            "catching-up",
            "not-kept",
            "subscribed-later",
        ] {
            assert!(bench.reasons.contains(reason), "{reason}");
        }
    }
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// `{"exp":2000,"allow":["b"]}`, and what it allows has no label.
const B: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjIwMDAsImFsbG93IjpbImIiXX0.5MOgdFsdlmOdwDCJUJX4oQy-EIuSDiV17vKtyPxBc1E";

fn explained(hub: &mut Hub, question: &str) -> Value {
    let response = hub.explain(question.as_bytes(), &mut Record::default());
    serde_json::from_str(&response.body).expect("JSON")
}

#[test]
fn what_a_token_lacks_is_said() {
    let mut hub = hub_with(Policy {
        client_keys: Some(ClientKeys::parse(KEY).expect("a key")),
        ..Policy::default()
    });
    connect(&mut hub, id(1), REMOTE, "/");
    let ask = r#"{"notification":{"channel":"a"},"connection":"1.7"}"#;
    let of = |answer: &Value| answer["connections"][0].clone();
    let waiting = of(&explained(&mut hub, ask));
    assert_eq!(
        (&waiting["reason"], &waiting["gets"]),
        (&"token-awaited".into(), &false.into())
    );
    assert!(waiting.get("token").is_none());
    let list = format!(r#"{{"sender":"client","subscriptions":["b"],"token":"{B}"}}"#);
    send(&mut hub, id(1), &list);
    let cleared = of(&explained(&mut hub, ask));
    assert_eq!(cleared["reason"], "no-match");
    let token = &cleared["token"];
    assert_eq!(
        (&token["allows"], &token["history"]),
        (&false.into(), &true.into())
    );
    assert_eq!(token["expires"], 2_000_000);
    let allowed = of(&explained(&mut hub, &ask.replace(r#""a""#, r#""b""#)));
    assert_eq!(
        (&allowed["reason"], &allowed["token"]["allows"]),
        (&"matches".into(), &true.into())
    );
    hub.note_end(id(1), Some("token-expired"), Timestamp::ZERO);
    hub.handle_gone(id(1));
    let gone = explained(&mut hub, ask);
    assert_eq!(gone["connections"], Value::Array(Vec::new()));
    let ended = &gone["ended"][0];
    assert_eq!(
        (&ended["connection"], &ended["reason"]),
        (&"1.7".into(), &"token-expired".into())
    );
    let other = explained(&mut hub, &ask.replace("1.7", "1.8"));
    assert_eq!(other["ended"], Value::Array(Vec::new()));
}

#[test]
fn a_key_that_is_known_is_published_to_nobody() {
    let mut hub = hub();
    subscribe(&mut hub, id(1));
    let body = r#"{"notification":{"channel":"a"},"key":"k"}"#;
    assert_eq!(explained(&mut hub, body)["would_get"], 1);
    let mut outbox = Record::default();
    hub.handle_post(id(0), body.as_bytes(), BodyUse::Publish, &mut outbox);
    let answer = explained(&mut hub, body);
    assert_eq!(
        (&answer["would_get"], &answer["repeated"]),
        (&0.into(), &"0000000000000001-1".into())
    );
    assert_eq!(answer["connections"][0]["reason"], "repeated");
    let answer = explained(&mut hub, r#"{"id":"0000000000000001-1"}"#);
    assert_eq!(answer["published"]["delivered"], 1);
    let response = hub.explain(br#"{"id":"0000000000000001-2"}"#, &mut outbox);
    assert_eq!(response.status.code, 404);
}

#[test]
fn an_answer_has_a_hundred_connections_and_twenty_subscriptions_of_each() {
    let mut hub = hub();
    let list: Vec<_> = (0..21).map(|number| format!(r#""{number}""#)).collect();
    let list = format!(
        r#"{{"sender":"client","subscriptions":[{}]}}"#,
        list.join(",")
    );
    for index in 1..=100 {
        connect(&mut hub, id(index), REMOTE, "/");
        hub.handle_message(id(index), Message::Text(&list), &mut Record::default());
    }
    let ask = r#"{"notification":{"channel":"20"},"address":"192.0.2.1"}"#;
    let counts = |answer: &Value| {
        let connections = answer["connections"].as_array().expect("a list");
        let subscriptions = connections
            .iter()
            .map(|one| one["subscriptions"].as_array().map_or(0, Vec::len));
        (connections.len(), subscriptions.max())
    };
    let answer = explained(&mut hub, ask);
    assert_eq!(counts(&answer), (100, Some(20)));
    assert_eq!(
        (&answer["would_get"], &answer["truncated"]),
        (&100.into(), &true.into())
    );
    // The one that matches is shown, though it is the last of the list.
    assert_eq!(
        answer["connections"][0]["subscriptions"][0]["subscription"],
        "20"
    );
    connect(&mut hub, id(101), REMOTE, "/");
    let answer = explained(&mut hub, ask);
    assert_eq!(counts(&answer), (100, Some(20)));
    let nobody = explained(&mut hub, &ask.replace("192.0.2.1", "192.0.2.2"));
    assert_eq!(
        (counts(&nobody).0, &nobody["truncated"]),
        (0, &false.into())
    );
    let anybody = r#"{"notification":{"channel":"20"}}"#;
    assert_eq!(counts(&explained(&mut hub, anybody)).0, 100);
}

#[test]
fn the_work_and_the_answer_are_bounded() {
    let mut hub = hub();
    let values: Vec<_> = (0..1024)
        .map(|value| format!(r#""{value:0>50}""#))
        .collect();
    let page =
        |values: &str| format!(r#"{{"package":"p","page":"q","filters":{{"values":[{values}]}}}}"#);
    let list = page(&values.join(","));
    let list = format!(r#"{{"sender":"client","subscriptions":[{list}]}}"#);
    for index in 1..=100 {
        connect(&mut hub, id(index), LOCAL, "/");
        hub.handle_message(id(index), Message::Text(&list), &mut Record::default());
    }
    let ask = format!(r#"{{"notification":{}}}"#, page(&values[7]));
    let response = hub.explain(ask.as_bytes(), &mut Record::default());
    assert!(response.body.len() < 300_000, "{}", response.body.len());
    let answer: Value = serde_json::from_str(&response.body).expect("JSON");
    assert_eq!(answer["truncated"], true);
    let connections = answer["connections"].as_array().expect("a list");
    assert!(connections.iter().all(|one| one["gets"] == true));
    let looked_at = |one: &&Value| one["subscriptions"] != Value::Array(Vec::new());
    let looked_at = connections.iter().filter(looked_at).count();
    assert!((10..20).contains(&looked_at), "{looked_at}");
    // More than a hundred thousand entries of the index would be met.
    let ask = format!(
        r#"{{"notification":{},"connection":"1.7"}}"#,
        page(&values.join(","))
    );
    let answer = explained(&mut hub, &ask);
    assert!(answer.get("would_get").is_none());
    assert_eq!(
        (&answer["truncated"], &answer["connections"][0]["gets"]),
        (&true.into(), &true.into())
    );
}
