//! A client may come back to any node with its id.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::helpers::numbered::{
    caught_up, id_of, list_since, not_resumed, numbered, numbered_subscriber, pong, position,
    publish_all, publish_kept, publish_whole, resume, resumed, subscribed, wait_until,
};
use crate::helpers::receipts::split_id;
use crate::helpers::redis::{Redis, STREAM, tag};
use crate::helpers::{Client, Server, delivery, message, publish, subscriber};

use super::{C, D, figure, keyed, on_channel, publisher};

/// The entry of a stream that an id names: milliseconds, and a number within.
fn entry_of(id: &str) -> (u64, u64) {
    let mut parts = id.split('-').map(str::parse);
    let mut next = || parts.next().expect("a part").expect("a number");
    (next(), next())
}

/// Reads a replay, and its end.
fn expect_replay(client: &mut Client, missed: &[(&str, String)]) {
    for (id, notification) in missed {
        assert_eq!(client.whole_text(), numbered(id, notification));
    }
    let (last, _) = missed.last().expect("there are some");
    assert_eq!(client.whole_text(), caught_up(last, missed.len()));
}

#[test]
fn a_client_comes_back_to_the_other_node() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut client = numbered_subscriber(&nodes[0], r#"["c"]"#);
    let seen = publish_kept(&nodes[0], C);
    assert_eq!(client.whole_text(), numbered(&seen, C));
    client.leave();
    let missed = [1, 2, 3].map(|n| on_channel("c", n));
    let ids = publish_all(&nodes[0], &missed);
    publish_kept(&nodes[0], D);
    let id = redis.xadd(&message(&on_channel("c", 4)));
    let ids = [ids, vec![redis.wire_id(&id)]].concat();
    wait_until("the other has read them", || position(&nodes[1]) == ids[3]);
    let mut all: Vec<_> = ids.iter().map(String::as_str).zip(missed).collect();
    all.push((&ids[3], on_channel("c", 4)));
    for node in [&nodes[1], &nodes[0]] {
        let (mut client, answer) = resume(node, r#"["c"]"#, &seen);
        assert_eq!(answer, resumed(1, &seen));
        expect_replay(&mut client, &all);
    }
}

#[test]
fn ids_of_what_was_read_at_one_node_are_resumed_from_at_another() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    // Here and there in turn, the position told in each of the ways in which it is.
    let mut at = numbered_subscriber(&nodes[0], r#"["c"]"#).before_pong().1;
    for n in 0..20 {
        let node = &nodes[n % 2];
        let (mut client, answer) = resume(node, r#"["c"]"#, &at);
        assert_eq!(answer, resumed(1, &at));
        assert_eq!(client.whole_text(), caught_up(&at, 0));
        let id = publish_kept(&nodes[n / 2 % 2], &on_channel("c", n));
        assert_eq!(client.whole_text(), numbered(&id, &on_channel("c", n)));
        let passed = publish_kept(&nodes[n / 4 % 2], D);
        wait_until("both have read it", || {
            nodes.iter().all(|node| position(node) == passed)
        });
        at = match n % 3 {
            0 => id,
            1 => client.before_pong().1,
            _ => position(node),
        };
        client.leave();
        if at != passed {
            let (mut client, answer) = resume(&nodes[(n + 1) % 2], r#"["c"]"#, &at);
            assert_eq!(answer, resumed(1, &at));
            assert_eq!(client.whole_text(), caught_up(&passed, 0));
            at = client.before_pong().1;
            client.leave();
        }
        assert_eq!(at, passed);
    }
}

/// An id that the stream will have, and its entry's JSON.
fn entry_to_come(redis: &Redis, notification: &str) -> (String, String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.expect("it is later").as_millis() + 60_000;
    let (id, json) = (format!("{millis}-7"), message(notification));
    let tag = tag(&[("n", &json)]);
    assert!(redis.entries().iter().all(|(other, _)| *other != id));
    (format!("{id}-{tag}"), id, json)
}

#[test]
fn one_that_is_ahead_of_a_node_waits_for_it() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "30"]);
    let (ahead, id, json) = entry_to_come(&redis, C);
    let mut clients = nodes.each_ref().map(|node| {
        let mut client = subscriber(node, r#"["d"]"#);
        client.send(&list_since(r#"["c"]"#, &ahead));
        client.send(r#"{"type":"ping"}"#);
        client
    });
    // What it has goes on meanwhile; others are answered.
    publish(&nodes[0], D);
    publish(&nodes[0], C);
    for (node, client) in nodes.iter().zip(&mut clients) {
        assert_eq!(client.whole_text(), delivery(D));
        drop(subscriber(node, r#"["c"]"#));
    }
    let entry = redis.ask_text(&["XADD", STREAM, &id, "n", &json]);
    assert_eq!(redis.wire_id(&entry), ahead);
    for client in &mut clients {
        assert_eq!(client.whole_text(), resumed(1, &ahead));
        assert_eq!(client.whole_text(), caught_up(&ahead, 0));
        assert_eq!(client.whole_text(), pong(&ahead));
    }
    let next = publish_kept(&nodes[1], C);
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&next, C));
    }
}

#[test]
fn one_that_is_ahead_for_too_long_is_unknown() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "0.3"]);
    let (ahead, ..) = entry_to_come(&redis, C);
    let mut client = Client::connect(&node);
    let since = Instant::now();
    client.send(&list_since(r#"["c"]"#, &ahead));
    let answer = client.whole_text();
    assert!(since.elapsed() >= Duration::from_millis(300));
    let id = id_of(&answer);
    assert_eq!(answer, not_resumed(1, &id, "unknown"));
    // It is there from now on.
    let next = publish_kept(&node, C);
    assert_eq!(client.whole_text(), numbered(&next, C));
}

#[test]
fn one_that_is_ahead_and_leaves_is_forgotten() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    let descriptors = node.program().descriptors();
    let (ahead, id, json) = entry_to_come(&redis, C);
    let clients = [0; 20].map(|_| {
        let mut client = Client::connect(&node);
        client.send(&list_since(r#"["c"]"#, &ahead));
        client
    });
    // One that is answered behind them says that all were heard.
    publish(&node, D);
    drop(clients);
    node.wait_for_descriptors(descriptors);
    redis.ask(&["XADD", STREAM, &id, "n", &json]);
    wait_until("it was read", || position(&node) == ahead);
}

#[test]
fn the_stream_outlives_the_nodes() {
    let Some(redis) = Redis::start() else { return };
    let mut nodes = redis.nodes(&[]);
    let seen = publish_kept(&nodes[0], C);
    let receipt = publish_whole(&nodes[0], &keyed("k", &on_channel("c", 1)));
    let (_, first) = split_id(&receipt);
    nodes[0].kill();
    nodes[1].terminate();
    assert_eq!(nodes[1].wait().status, Some(0));
    // Nobody is there when this is published.
    let id = redis.xadd(&message(&on_channel("c", 2)));
    let second = redis.wire_id(&id);
    let node = redis.node(&[]);
    // It was read ahead of the start, and so by nobody.
    assert_eq!(position(&node), second);
    let (mut client, answer) = resume(&node, r#"["c"]"#, &seen);
    assert_eq!(answer, resumed(1, &seen));
    let missed = [
        (&first[..], on_channel("c", 1)),
        (&second, on_channel("c", 2)),
    ];
    expect_replay(&mut client, &missed);
    // The key is known, too.
    let again = publish_whole(&node, &keyed("k", C));
    assert_eq!(
        again,
        format!(r#"{{"delivered":0,"id":"{first}","repeated":true}}"#)
    );
}

#[test]
fn there_is_an_id_before_anything_was_published() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut client = Client::connect(&nodes[0]);
    let answer = client.subscribe_since(r#"["c"]"#, "");
    let id = id_of(&answer);
    assert_eq!(answer, subscribed(1, &id));
    assert_eq!(position(&nodes[1]), id);
    client.leave();
    let first = publish_kept(&nodes[0], C);
    wait_until("the other has read it", || position(&nodes[1]) == first);
    for node in [&nodes[1], &redis.node(&[])] {
        let (mut client, answer) = resume(node, r#"["c"]"#, &id);
        assert_eq!(answer, resumed(1, &id));
        expect_replay(&mut client, &[(&first, C.to_owned())]);
    }
}

#[test]
fn the_newest_id_is_good_however_old_it_is() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--history-seconds", "0.3"]);
    let ids = publish_all(&nodes[0], &[C, C]);
    for node in &nodes {
        wait_until("it expires", || {
            resume(node, r#"["c"]"#, &ids[0]).1 == not_resumed(1, &ids[1], "expired")
        });
    }
    let late = redis.node(&["--history-seconds", "0.3"]);
    for node in [&nodes[0], &nodes[1], &late] {
        assert_eq!(position(node), ids[1]);
        let (mut client, answer) = resume(node, r#"["c"]"#, &ids[1]);
        assert_eq!(answer, resumed(1, &ids[1]));
        assert_eq!(
            client.before_pong(),
            (vec![caught_up(&ids[1], 0)], ids[1].clone())
        );
    }
    assert_eq!(
        resume(&late, r#"["c"]"#, &ids[0]).1,
        not_resumed(1, &ids[1], "expired")
    );
}

#[test]
fn ids_that_are_not_of_the_stream_are_unknown() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "0.2"]);
    let ids = publish_all(&node, &[C, C, C]);
    let (entry, tag) = ids[1].rsplit_once('-').expect("it has a tag");
    let other = if tag.starts_with('0') { "1" } else { "0" };
    let (millis, sequence) = entry.split_once('-').expect("an id of Redis");
    let next: u64 = sequence.parse().expect("a number");
    for since in [
        "0123456789abcdef-3".to_owned(),
        "nonsense".to_owned(),
        entry.to_owned(),
        format!("{entry}-"),
        format!("{entry}-{other}{}", &tag[1..]),
        format!(
            "{entry}-{}",
            tag.to_uppercase()
                .replace(|c: char| c.is_ascii_digit(), "A")
        ),
        format!("0{entry}-{tag}"),
        format!("{millis}-{}-{tag}", next + 100_000),
        "x".repeat(40),
    ] {
        let (_, answer) = resume(&node, r#"["c"]"#, &since);
        assert_eq!(answer, not_resumed(1, &ids[2], "unknown"), "{since}");
    }
    // And one of a stream is unknown where there is none.
    let alone = Server::start();
    let at = position(&alone);
    assert_eq!(
        resume(&alone, r#"["c"]"#, &ids[0]).1,
        not_resumed(1, &at, "unknown")
    );
}

#[test]
fn without_a_history_every_id_is_expired() {
    let Some(redis) = Redis::start() else { return };
    let off = redis.node(&["--history-bytes", "0"]);
    let on = redis.node(&[]);
    let id = publish_kept(&on, C);
    wait_until("it was read", || position(&off) == id);
    let (mut client, answer) = resume(&off, r#"["c"]"#, &id);
    assert_eq!(answer, not_resumed(1, &id, "expired"));
    let next = publish_kept(&off, C);
    assert_eq!(client.whole_text(), numbered(&next, C));
    assert_eq!(resume(&on, r#"["c"]"#, &id).1, resumed(1, &id));
}

#[test]
fn nothing_is_missed_or_said_when_connections_to_redis_are_lost() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "0.5"]);
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let mut lane = publisher(&nodes[0]);
    let message = |n: usize| keyed(&n.to_string(), &on_channel("c", n));
    let mut published = Vec::new();
    for round in 0..4 {
        let mut unanswered: Vec<_> = (round * 20..(round + 1) * 20).collect();
        for &n in &unanswered {
            lane.send(&message(n));
            if n % 20 == 10 {
                redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        }
        // What Redis hasn't read of a connection that is killed is lost: its publisher is told that, and publishes again.
        while !unanswered.is_empty() {
            unanswered.retain(|&n| {
                let text = lane.whole_text();
                let is_published = text.starts_with(r#"{"type":"published","#);
                match is_published {
                    true => published.push((id_of(&text), n)),
                    false => assert!(text.contains(r#""code":"unavailable""#), "{text}"),
                }
                !is_published
            });
            for &n in &unanswered {
                lane.send(&message(n));
            }
        }
    }
    published.sort_by_key(|(id, _)| entry_of(id));
    let ids: Vec<_> = published.iter().map(|(id, _)| id).collect();
    for client in &mut clients {
        for (id, n) in &published {
            assert_eq!(client.whole_text(), numbered(id, &on_channel("c", *n)));
        }
        assert_eq!(client.before_pong().0, Vec::<String>::new());
    }
    for node in &nodes {
        assert_eq!(resume(node, "[]", ids[0]).1, resumed(0, ids[0]));
        assert!(figure(node, "crieur_redis_connects_total") > 1.0);
    }
}
