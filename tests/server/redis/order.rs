//! Answers on a connection are in the order of what they answer, and all clients see one order.

use std::io::Write;
use std::thread;

use crate::helpers::http::{Http, post};
use crate::helpers::numbered::{
    id_of, list_since, numbered, numbered_subscriber, position, resumed, subscribed,
    wait_for_figure,
};
use crate::helpers::receipts::{split_id, without_ids};
use crate::helpers::redis::Redis;
use crate::helpers::{
    Client, MARKER, Received, delivery, error_code, frame, message, publish, subscriber,
};

use super::{C, expect_deliveries, on_channel, publisher, wait_for_pending};

/// As many receipts as may be pending on a connection.
const PENDING_MAX: usize = 1024;

const PUBLISHED: &str = r#"{"type":"published","delivered":0}"#;

/// As the text of a frame.
fn framed(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

#[test]
fn answers_keep_their_order_while_receipts_are_pending() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    let before = position(&node);
    let mut lane = publisher(&node);
    redis.halt(true);
    let texts = [
        message(&on_channel("c", 0)),
        r#"{"type":"ping"}"#.to_owned(),
        message(&on_channel("c", 1)),
        "{".to_owned(),
        list_since(r#"["c"]"#, ""),
        message("{}"),
        message(&on_channel("c", 2)),
        r#"{"type":"ping"}"#.to_owned(),
        list_since(r#"["c"]"#, &before),
        message(&on_channel("c", 3)),
        r#"{"type":"ping"}"#.to_owned(),
    ];
    let bytes: Vec<u8> = texts.iter().flat_map(|text| framed(text)).collect();
    lane.send_bytes(&bytes);
    // All that are sent to Redis are sent at once.
    wait_for_pending(&node, 4);
    redis.halt(false);
    let mut receipt = || {
        let (receipt, id) = split_id(&lane.whole_text());
        assert!(
            receipt.starts_with(r#"{"type":"published","delivered":"#),
            "{receipt}"
        );
        id
    };
    let first = receipt();
    assert_eq!(lane.whole_text(), r#"{"type":"pong"}"#);
    let second = split_id(&lane.whole_text()).1;
    assert_eq!(error_code(&lane.whole_text()), "invalid-json");
    // From here on it gets what is published. All of it may have been read back by now.
    let answer = lane.whole_text();
    let at = id_of(&answer);
    assert_eq!(answer, subscribed(1, &at));
    assert!(at != first, "the second receipt is ahead of it");
    assert_eq!(error_code(&lane.whole_text()), "invalid-notification");
    let mut rest = Vec::new();
    loop {
        let text = lane.whole_text();
        let is_pong = text.starts_with(r#"{"type":"pong""#);
        rest.push(text);
        let pongs = rest
            .iter()
            .filter(|text| text.starts_with(r#"{"type":"pong""#));
        if is_pong && pongs.count() == 2 {
            break;
        }
    }
    let of = |kind: &str| -> Vec<usize> {
        let starts = format!(r#"{{"type":"{kind}""#);
        let places = rest.iter().enumerate();
        places
            .filter(|(_, text)| text.starts_with(&starts))
            .map(|(at, _)| at)
            .collect()
    };
    let (receipts, pongs, answers) = (of("published"), of("pong"), of("subscribed"));
    assert_eq!(
        (receipts.len(), pongs.len(), answers.len()),
        (2, 2, 1),
        "{rest:?}"
    );
    assert!(receipts[0] < pongs[0] && pongs[0] < answers[0], "{rest:?}");
    assert!(
        answers[0] < receipts[1] && receipts[1] < pongs[1],
        "{rest:?}"
    );
    assert_eq!(rest[answers[0]], resumed(1, &before));
    // Each pong is of a position up to which all that is ahead of it has been had.
    let [third, last] = [0, 1].map(|at| split_id(&rest[receipts[at]]).1);
    for pong in pongs {
        let told = id_of(&rest[pong]);
        let known = [&at, &before, &first, &second, &third, &last];
        assert!(known.contains(&&told), "{rest:?}");
    }
    // When all is over it has everything, and once.
    let mut is_over = rest
        .iter()
        .any(|text| text.starts_with(r#"{"type":"caught-up""#));
    while !is_over {
        let text = lane.whole_text();
        is_over = text.starts_with(r#"{"type":"caught-up""#);
        rest.push(text);
    }
    let (texts, id) = lane.before_pong();
    assert_eq!(id, last);
    rest.extend(texts);
    let behind = &rest[answers[0]..];
    for (n, id) in [first, second, third, last].iter().enumerate() {
        let text = numbered(id, &on_channel("c", n));
        let count = behind.iter().filter(|other| **other == text).count();
        assert_eq!(count, 1, "{n}: {rest:?}");
    }
}

#[test]
fn more_than_1024_receipts_are_not_pending_on_a_connection() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    let mut client = subscriber(&node, r#"["c","marker"]"#);
    let mut lane = publisher(&node);
    let mut other = Client::connect(&node);
    redis.halt(true);
    let count = PENDING_MAX + 1;
    let mut bytes = Vec::new();
    for n in 0..count {
        bytes.extend(framed(&message(&on_channel("c", n))));
        if n % 100 == 50 {
            bytes.extend(framed(r#"{"type":"ping"}"#));
        }
    }
    bytes.extend(framed(r#"{"sender":"client","subscriptions":["x"]}"#));
    let stream = lane.stream().try_clone().expect("a descriptor");
    let writer = thread::spawn(move || {
        let mut stream = stream;
        stream
            .write_all(&bytes)
            .expect("the server reads in the end");
    });
    wait_for_figure(&node, "crieur_redis_pending 1014");
    // Pings are owed, too; one more of anything isn't read.
    for _ in 0..20 {
        other.send(r#"{"type":"ping"}"#);
        assert_eq!(other.text(), r#"{"type":"pong"}"#);
    }
    wait_for_figure(&node, "crieur_redis_pending 1014");
    redis.halt(false);
    for n in 0..count {
        assert_eq!(lane.text(), r#"{"type":"published","delivered":1}"#, "{n}");
        if n % 100 == 50 {
            assert_eq!(lane.text(), r#"{"type":"pong"}"#, "{n}");
        }
    }
    assert!(
        lane.text()
            .starts_with(r#"{"type":"subscribed","subscriptions":1,"#)
    );
    writer.join().expect("all was written");
    let expected: Vec<_> = (0..count).map(|n| on_channel("c", n)).collect();
    expect_deliveries(&mut client, &expected);
    publish(&node, MARKER);
    assert!(client.before_marker().is_empty());
}

#[test]
fn http_holds_the_next_request() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    let mut client = subscriber(&node, r#"["c"]"#);
    let mut http = Http::connect(&node);
    redis.halt(true);
    let requests: String = (0..200)
        .map(|n| match n % 5 {
            0 => "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            1 => post("{"),
            2 => post(&format!(
                "[{},{}]",
                message(&on_channel("c", n)),
                message(C)
            )),
            _ => post(&message(&on_channel("c", n))),
        })
        .collect();
    http.send(requests);
    wait_for_pending(&node, 2);
    redis.halt(false);
    for n in 0..200 {
        let (status, _, body) = http.receive();
        let body = without_ids(body);
        let expected = match n % 5 {
            0 => (200, "ok\n"),
            1 => (400, body.as_str()),
            2 => (200, r#"[{"delivered":1},{"delivered":1}]"#),
            _ => (200, r#"{"delivered":1}"#),
        };
        assert_eq!((status, body.as_str()), expected, "{n}");
        match n % 5 {
            0 => {}
            1 => assert_eq!(error_code(&body), "invalid-json"),
            2 => expect_deliveries(&mut client, &[&on_channel("c", n), C]),
            _ => expect_deliveries(&mut client, &[on_channel("c", n)]),
        }
    }
}

#[test]
fn all_clients_of_all_nodes_see_one_order() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients: Vec<_> = nodes
        .iter()
        .flat_map(|node| [0; 3].map(|_| numbered_subscriber(node, r#"["c"]"#)))
        .collect();
    const COUNT: usize = 500;
    thread::scope(|scope| {
        for (number, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                let mut lane = publisher(node);
                for n in 0..COUNT {
                    let one = format!(r#"{{"channel":"c","by":{number},"n":{n}}}"#);
                    lane.send(&message(&one));
                }
                for n in 0..COUNT {
                    assert_eq!(lane.text(), r#"{"type":"published","delivered":3}"#, "{n}");
                }
            });
        }
        let redis = &redis;
        scope.spawn(move || {
            for n in 0..COUNT {
                redis.xadd(&message(&format!(r#"{{"channel":"c","by":2,"n":{n}}}"#)));
            }
        });
    });
    let all = clients.iter_mut().map(|client| {
        (0..3 * COUNT)
            .map(|_| client.whole_text())
            .collect::<Vec<_>>()
    });
    let all: Vec<_> = all.collect();
    for others in &all[1..] {
        assert!(others == &all[0]);
    }
    // It is that of the stream, and within it that of each publisher.
    let entries = redis.notifications();
    let mut next = [0; 3];
    for (text, (id, _)) in all[0].iter().zip(&entries) {
        assert!(id_of(text).starts_with(&format!("{id}-")), "{text} {id}");
        let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let number = |name: &str| json["notification"][name].as_u64().expect("a number") as usize;
        assert_eq!(number("n"), next[number("by")], "{text}");
        next[number("by")] += 1;
    }
}

#[test]
fn control_frames_wait_for_nothing() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    let mut lane = publisher(&node);
    redis.halt(true);
    lane.send(&message(C));
    wait_for_pending(&node, 1);
    lane.send_bytes(&frame(0x89, b"still there"));
    assert_eq!(lane.receive(), Received::Pong(b"still there".to_vec()));
    redis.halt(false);
    assert_eq!(lane.text(), PUBLISHED);
}

#[test]
fn a_list_behind_a_receipt_begins_its_replay_there() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    let before = position(&node);
    let mut lane = publisher(&node);
    redis.halt(true);
    for text in [
        &message(C),
        &list_since(r#"["c"]"#, &before),
        &message(&on_channel("c", 1)),
        r#"{"type":"ping"}"#,
    ] {
        lane.send(text);
    }
    wait_for_pending(&node, 2);
    redis.halt(false);
    let (_, first) = split_id(&lane.whole_text());
    assert_eq!(lane.whole_text(), resumed(1, &before));
    // The rest goes on beside the replay.
    let (mut notifications, mut receipts, mut pongs, mut ends) = (vec![], vec![], vec![], 0);
    while notifications.len() < 2 || pongs.is_empty() || ends == 0 {
        let text = lane.whole_text();
        if text.starts_with(r#"{"type":"published""#) {
            receipts.push(split_id(&text).1);
        } else if text.starts_with(r#"{"type":"caught-up""#) {
            ends += 1;
        } else if text.starts_with(r#"{"type":"pong""#) {
            assert_eq!(receipts.len(), 1, "it is answered in its turn");
            pongs.push(id_of(&text));
        } else {
            notifications.push(text);
        }
    }
    let second = &receipts[0];
    let expected = [numbered(&first, C), numbered(second, &on_channel("c", 1))];
    assert_eq!(notifications, expected);
    assert!([&before, &first, second].contains(&&pongs[0]), "{pongs:?}");
    assert_eq!(lane.before_pong(), (vec![], second.clone()));
    assert_eq!((receipts.len(), pongs.len(), ends), (1, 1, 1));
}

#[test]
fn a_plain_subscriber_gets_nothing_new() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut client = Client::connect(&nodes[0]);
    client.send(r#"{"sender":"client","subscriptions":["c"]}"#);
    assert_eq!(
        client.whole_text(),
        r#"{"type":"subscribed","subscriptions":1,"heartbeat":25}"#
    );
    publish(&nodes[1], C);
    assert_eq!(client.whole_text(), delivery(C));
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.whole_text(), r#"{"type":"pong"}"#);
}
