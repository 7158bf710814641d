//! Redis that lacks something: clients are told, and what is left is missed by nobody.

use crate::helpers::numbered::{
    caught_up, id_of, list_since, narrow_client, not_resumed, numbered, numbered_subscriber,
    position, publish_all, publish_kept, resume, resumed, wait_until,
};
use crate::helpers::redis::{Redis, STREAM};
use crate::helpers::replay::notification;
use crate::helpers::{Client, MARKER, Server, delivery, publish, subscriber};

use super::{C, D, figure, on_channel};

/// What a numbered client is told when something may be gone.
fn expect_gap(client: &mut Client, reason: &str) -> String {
    let text = client.whole_text();
    let id = id_of(&text);
    assert_eq!(
        text,
        format!(r#"{{"type":"gap","id":"{id}","reason":"{reason}"}}"#)
    );
    id
}

/// Whether this says that something may have been missed behind an id that Redis has lost.
fn expect_not_resumed(answer: &str) {
    let id = id_of(answer);
    let reasons = ["unknown", "expired"].map(|reason| not_resumed(1, &id, reason));
    assert!(reasons.iter().any(|one| one == answer), "{answer}");
}

/// Waits until what this node gives out as the position may be resumed from: what it has told somebody of is over.
fn wait_until_mended(node: &Server) -> String {
    let mut id = position(node);
    wait_until("the doubt ends", || {
        id = position(node);
        let (client, answer) = resume(node, "[]", &id);
        drop(client);
        answer == resumed(0, &id)
    });
    id
}

/// Everything is gone from Redis: numbered clients get a gap, and no id of before is resumed from.
fn lose_everything(redis: &Redis, nodes: &[Server; 2], lose: impl FnOnce()) {
    let mut plain = nodes
        .each_ref()
        .map(|node| subscriber(node, r#"["c","marker"]"#));
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let ids = publish_all(&nodes[0], &[C, C]);
    for client in &mut clients {
        for id in &ids {
            assert_eq!(client.whole_text(), numbered(id, C));
        }
    }
    // A start may have been in doubt, too.
    let doubts = r#"crieur_redis_doubts_total{reason="lost"}"#;
    let before = nodes.each_ref().map(|node| figure(node, doubts));
    lose();
    for client in &mut clients {
        expect_gap(client, "lost");
    }
    let positions = nodes.each_ref().map(wait_until_mended);
    assert_eq!(positions[0], positions[1]);
    let next = publish_kept(&nodes[1], D);
    let last = publish_kept(&nodes[0], C);
    wait_until("the other has read it", || position(&nodes[1]) == last);
    for (node, client) in nodes.iter().zip(&mut clients) {
        // Once.
        assert_eq!(client.whole_text(), numbered(&last, C));
        assert_eq!(client.before_pong(), (vec![], last.clone()));
        for id in &ids {
            expect_not_resumed(&resume(node, r#"["c"]"#, id).1);
        }
        for id in [&positions[0], &next, &last] {
            assert_eq!(resume(node, r#"["c"]"#, id).1, resumed(1, id));
        }
        assert_eq!(figure(node, "crieur_gaps_total") as u64, 1);
    }
    for (node, before) in nodes.iter().zip(before) {
        assert_eq!((figure(node, doubts) - before) as u64, 1);
    }
    // Others aren't told, and miss nothing.
    publish(&nodes[0], MARKER);
    for client in &mut plain {
        assert_eq!(client.before_marker(), vec![delivery(C); 3]);
    }
    let late = redis.node(&[]);
    assert_eq!(resume(&late, r#"["c"]"#, &next).1, resumed(1, &next));
    expect_not_resumed(&resume(&late, r#"["c"]"#, &ids[1]).1);
}

#[test]
fn what_was_flushed_is_not_resumed_from() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "0.3"]);
    lose_everything(&redis, &nodes, || {
        redis.ask(&["FLUSHALL"]);
    });
}

#[test]
fn nothing_is_resumed_from_while_it_is_not_known_where_that_may_be() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "0.3"]);
    let mut client = numbered_subscriber(&node, r#"["c"]"#);
    let id = publish_kept(&node, C);
    assert_eq!(client.whole_text(), numbered(&id, C));
    // Nothing can be written, neither what says from where on all is certain again.
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    redis.ask(&["FLUSHALL"]);
    let told = expect_gap(&mut client, "lost");
    for since in [&id, &told, &position(&node)] {
        expect_not_resumed(&resume(&node, r#"["c"]"#, since).1);
    }
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    let certain = wait_until_mended(&node);
    let next = publish_kept(&node, C);
    assert_eq!(client.whole_text(), numbered(&next, C));
    assert_eq!(resume(&node, r#"["c"]"#, &certain).1, resumed(1, &certain));
    for since in [&id, &told] {
        expect_not_resumed(&resume(&node, r#"["c"]"#, since).1);
    }
}

#[test]
fn a_stream_that_was_deleted_is_not_resumed_from() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "0.3"]);
    lose_everything(&redis, &nodes, || {
        redis.ask(&["DEL", STREAM]);
    });
}

#[test]
fn what_a_redis_without_a_disk_had_is_not_resumed_from() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let nodes = redis.nodes(&["--redis-timeout", "0.3"]);
    redis.connect();
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let id = publish_kept(&nodes[0], C);
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&id, C));
    }
    redis.kill();
    redis.start_again();
    for client in &mut clients {
        expect_gap(client, "lost");
    }
    for node in &nodes {
        wait_until_mended(node);
        let (_, answer) = resume(node, r#"["c"]"#, &id);
        expect_not_resumed(&answer);
    }
    let next = publish_kept(&nodes[0], C);
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&next, C));
    }
}

#[test]
fn what_redis_had_on_disk_is_missed_by_nobody() {
    let Some(mut redis) = Redis::durable() else {
        return;
    };
    let nodes = redis.nodes(&["--redis-timeout", "5"]);
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let id = publish_kept(&nodes[0], C);
    redis.kill();
    redis.start_again();
    // It can't be told from outside whether something is gone.
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&id, C));
        expect_gap(client, "lost");
    }
    for node in &nodes {
        wait_until_mended(node);
        let (_, answer) = resume(node, r#"["c"]"#, &id);
        expect_not_resumed(&answer);
    }
    assert_eq!(redis.notifications().len(), 1);
    let next = publish_kept(&nodes[1], C);
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&next, C));
    }
}

#[test]
fn what_was_trimmed_ahead_of_a_node_leaves_a_gap() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "5"]);
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let before = publish_kept(&nodes[0], &on_channel("c", 0));
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&before, &on_channel("c", 0)));
    }
    nodes[1].halt(true);
    nodes[1].program().wait_for_halt();
    let all: Vec<_> = (1..20).map(|n| on_channel("c", n)).collect();
    let ids = publish_all(&nodes[0], &all);
    redis.ask(&["XTRIM", STREAM, "MAXLEN", "2"]);
    nodes[1].halt(false);
    // The first may have been on its way already.
    let lagging = &mut clients[1];
    let mut text = lagging.whole_text();
    if text == numbered(&ids[0], &all[0]) {
        text = lagging.whole_text();
    }
    let id = id_of(&text);
    assert_eq!(
        text,
        format!(r#"{{"type":"gap","id":"{id}","reason":"trimmed"}}"#)
    );
    for n in [17, 18] {
        assert_eq!(lagging.whole_text(), numbered(&ids[n], &all[n]));
    }
    // The other has read all, and goes on as if nothing were.
    for (id, one) in ids.iter().zip(&all) {
        assert_eq!(clients[0].whole_text(), numbered(id, one));
    }
    let (_, answer) = resume(&nodes[1], r#"["c"]"#, &before);
    assert!(answer.contains(r#""resumed":false"#), "{answer}");
    assert_eq!(
        figure(&nodes[1], r#"crieur_redis_doubts_total{reason="trimmed"}"#) as u64,
        1
    );
    assert_eq!(
        figure(&nodes[0], r#"crieur_redis_doubts_total{reason="trimmed"}"#) as u64,
        0
    );
}

#[test]
fn a_client_that_is_caught_up_meets_the_gap_in_its_place() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "0.3"]);
    let start = position(&node);
    // More than sockets take.
    let all: Vec<_> = (0..250).map(notification).collect();
    let ids = publish_all(&node, &all);
    let mut client = narrow_client(&node);
    client.send(&list_since(r#"["c"]"#, &start));
    let mut other = numbered_subscriber(&node, r#"["x"]"#);
    redis.ask(&["FLUSHALL"]);
    expect_gap(&mut other, "lost");
    let next = publish_kept(&node, C);
    assert_eq!(client.whole_text(), resumed(1, &start));
    for (id, one) in ids.iter().zip(&all) {
        assert!(client.whole_text() == numbered(id, one), "{id}");
    }
    // Ahead of what is new, and of the end.
    expect_gap(&mut client, "lost");
    assert_eq!(client.whole_text(), numbered(&next, C));
    assert_eq!(client.whole_text(), caught_up(&next, ids.len() + 1));
}

#[test]
fn nothing_is_resumed_from_across_a_replica_that_lacks_the_end() {
    let Some(redis) = Redis::start() else { return };
    let Some(replica) = Redis::start() else {
        return;
    };
    // What the replica has is what it was given; the rest was lost with the master.
    let urls = [redis.url(), replica.url()];
    let flags = [
        "--redis",
        &urls[0],
        "--redis",
        &urls[1],
        "--redis-timeout",
        "0.3",
    ];
    let nodes = [Server::with(&flags), Server::with(&flags)];
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let kept = publish_kept(&nodes[0], &on_channel("c", 0));
    for (id, fields) in redis.entries() {
        let mut words = vec!["XADD", STREAM, &id];
        words.extend(
            fields
                .iter()
                .flat_map(|(name, value)| [&name[..], &value[..]]),
        );
        replica.ask(&words);
    }
    let lost = publish_kept(&nodes[0], &on_channel("c", 1));
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&kept, &on_channel("c", 0)));
        assert_eq!(client.whole_text(), numbered(&lost, &on_channel("c", 1)));
    }
    drop(redis);
    for client in &mut clients {
        expect_gap(client, "lost");
    }
    for node in &nodes {
        wait_until_mended(node);
        for id in [&kept, &lost] {
            let (_, answer) = resume(node, r#"["c"]"#, id);
            expect_not_resumed(&answer);
        }
    }
    // What both have is doubled nowhere, what is new is missed nowhere.
    let next = publish_kept(&nodes[1], &on_channel("c", 2));
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&next, &on_channel("c", 2)));
        assert_eq!(client.before_pong().0, Vec::<String>::new());
    }
}
