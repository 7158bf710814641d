//! Redis out of reach: clients stay, publishers are told, and nothing that was said not to be published ever is.

use std::time::{Duration, Instant};

use crate::helpers::http::{Http, post};
use crate::helpers::numbered::{
    id_of, numbered, numbered_subscriber, publish_kept, resume, resumed, wait_for_figure,
    wait_until,
};
use crate::helpers::receipts::split_id;
use crate::helpers::redis::{Redis, STREAM};
use crate::helpers::{
    Client, DEADLINE, MARKER, Server, close_reason, delivery, error_code, message, publish,
    subscriber,
};

use super::{
    C, D, NOT_PUBLISHED, PERHAPS, expect_deliveries, figure, keyed, on_channel, publisher,
    unavailable, wait_for_pending,
};

const PUBLISHED: &str = r#"{"type":"published","delivered":1}"#;

/// Publishes on an ephemeral connection, which is told `detail`.
fn expect_refused_ephemeral(node: &Server, text: &str, detail: &str) {
    let mut client = Client::connect(node);
    client.send(text);
    assert_eq!(client.text(), unavailable(detail));
    let (word, _) = close_reason(&client.expect_close(1013));
    assert_eq!(word, "unavailable");
    client.answer_close(1013);
}

/// Posts `body`, and is told `detail`; the connection stays.
fn expect_refused_post(http: &mut Http, body: &str, detail: &str) {
    http.send(post(body));
    let (status, head, text) = http.receive();
    assert_eq!(
        (status, &text[..]),
        (503, &unavailable(detail)[..]),
        "{head}"
    );
    let after = head
        .lines()
        .find_map(|line| line.strip_prefix("Retry-After: "));
    let seconds: u64 = after.and_then(|text| text.parse().ok()).expect("a number");
    assert!((1..=60).contains(&seconds), "{head}");
    assert!(
        head.contains("\r\nContent-Type: application/json"),
        "{head}"
    );
    assert!(!head.contains("Connection: close"), "{head}");
}

#[test]
fn what_waits_for_redis_for_too_long_is_refused_and_never_published() {
    let Some(mut redis) = Redis::durable() else {
        return;
    };
    let nodes = redis.nodes(&["--redis-timeout", "0.5"]);
    let mut clients = nodes
        .each_ref()
        .map(|node| subscriber(node, r#"["c","marker"]"#));
    let mut lane = publisher(&nodes[0]);
    let mut http = Http::connect(&nodes[0]);
    redis.kill();
    let since = Instant::now();
    lane.send(&message(&on_channel("c", 0)));
    lane.send("{");
    lane.send(&keyed("k", &on_channel("c", 1)));
    lane.send(r#"{"type":"ping"}"#);
    assert_eq!(lane.text(), unavailable(NOT_PUBLISHED));
    assert_eq!(error_code(&lane.text()), "invalid-json");
    assert_eq!(lane.text(), unavailable(NOT_PUBLISHED));
    assert_eq!(lane.text(), r#"{"type":"pong"}"#);
    // From now on at once: none of these waits.
    wait_until("it knows", || since.elapsed() >= Duration::from_millis(500));
    for n in 2..50 {
        lane.send(&message(&on_channel("c", n)));
        assert_eq!(lane.text(), unavailable(NOT_PUBLISHED));
    }
    expect_refused_ephemeral(&nodes[0], &message(C), NOT_PUBLISHED);
    let array = format!("[{},{}]", message(C), message(D));
    for body in [&message(C), &array, &keyed("k", C)] {
        expect_refused_post(&mut http, body, NOT_PUBLISHED);
    }
    assert!(since.elapsed() < DEADLINE);
    // Clients are there, and are answered.
    for client in &mut clients {
        client.send(r#"{"type":"ping"}"#);
        assert_eq!(client.text(), r#"{"type":"pong"}"#);
        client.subscribe(r#"["c","d","marker"]"#);
    }
    redis.start_again();
    for node in &nodes {
        wait_for_figure(node, "crieur_redis_up 1");
    }
    lane.send(&message(C));
    assert_eq!(lane.text(), PUBLISHED);
    http.send(post(&keyed("k", D)));
    http.expect(200, r#"{"delivered":1}"#);
    publish(&nodes[1], MARKER);
    for client in &mut clients {
        assert_eq!(client.before_marker(), [delivery(C), delivery(D)]);
    }
    assert_eq!(redis.notifications().len(), 3);
    let refused = r#"crieur_redis_refused_total{reason="unreachable"}"#;
    assert!(figure(&nodes[0], refused) >= 53.0);
}

#[test]
fn a_moment_without_redis_costs_nobody_an_error() {
    let Some(mut redis) = Redis::durable() else {
        return;
    };
    let nodes = redis.nodes(&["--redis-timeout", "20"]);
    let mut clients = nodes.each_ref().map(|node| subscriber(node, r#"["c"]"#));
    let mut lane = publisher(&nodes[0]);
    redis.kill();
    nodes[0].wait_for_line("out of reach");
    let all: Vec<_> = (0..100).map(|n| on_channel("c", n)).collect();
    for one in &all {
        lane.send(&message(one));
    }
    wait_for_pending(&nodes[0], 100);
    redis.start_again();
    lane.expect_texts(&[PUBLISHED; 100]);
    for client in &mut clients {
        expect_deliveries(client, &all);
    }
}

#[test]
fn what_was_sent_and_not_answered_may_have_been_published() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "0.5"]);
    let mut clients = nodes
        .each_ref()
        .map(|node| subscriber(node, r#"["c","d","marker"]"#));
    let mut lane = publisher(&nodes[0]);
    // A connection to Redis on which all is quiet.
    lane.send(&message(C));
    assert_eq!(lane.text(), PUBLISHED);
    redis.halt(true);
    let mut http = Http::connect(&nodes[0]);
    let mut ephemeral = Client::connect(&nodes[0]);
    lane.send(&keyed("k", &on_channel("c", 1)));
    wait_for_pending(&nodes[0], 1);
    http.send(post(&format!(
        "[{},{}]",
        message(&on_channel("c", 2)),
        message(D)
    )));
    wait_for_pending(&nodes[0], 3);
    ephemeral.send(&message(&on_channel("c", 3)));
    assert_eq!(lane.text(), unavailable(PERHAPS));
    let (status, head, text) = http.receive();
    assert_eq!((status, &text[..]), (503, &unavailable(PERHAPS)[..]));
    assert!(head.contains("\r\nRetry-After: "), "{head}");
    assert_eq!(ephemeral.text(), unavailable(PERHAPS));
    ephemeral.expect_close(1013);
    ephemeral.answer_close(1013);
    // Redis is known to be silent: what comes now isn't sent.
    wait_for_figure(&nodes[0], "crieur_redis_up 0");
    lane.send(&message(&on_channel("c", 4)));
    assert_eq!(lane.text(), unavailable(NOT_PUBLISHED));
    expect_refused_ephemeral(&nodes[0], &message(&on_channel("c", 5)), NOT_PUBLISHED);
    expect_refused_post(&mut http, &message(&on_channel("c", 6)), NOT_PUBLISHED);
    redis.halt(false);
    wait_for_figure(&nodes[0], "crieur_redis_up 1");
    // What Redis took is delivered, late as it is, and the key makes it safe to try again.
    lane.send(&keyed("k", &on_channel("c", 1)));
    let (receipt, _) = split_id(&lane.whole_text());
    assert_eq!(
        receipt,
        r#"{"type":"published","delivered":1,"repeated":true}"#
    );
    publish(&nodes[0], MARKER);
    let [one, two, three] = [1, 2, 3].map(|n| delivery(&on_channel("c", n)));
    for client in &mut clients {
        assert_eq!(
            client.before_marker(),
            [&delivery(C), &one, &two, &delivery(D), &three].map(String::as_str)
        );
    }
    let refused = r#"crieur_redis_refused_total{reason="unanswered"}"#;
    assert_eq!(figure(&nodes[0], refused) as u64, 4);
}

#[test]
fn a_redis_that_halts_for_a_while_costs_clients_nothing() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "0.3"]);
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let first = publish_kept(&nodes[0], C);
    redis.halt(true);
    for node in &nodes {
        wait_for_figure(node, "crieur_redis_up 0");
        // Resuming needs no Redis.
        let (mut client, answer) = resume(node, r#"["c"]"#, &first);
        assert_eq!(answer, resumed(1, &first));
        assert_eq!(client.before_pong().1, first);
    }
    redis.halt(false);
    for node in &nodes {
        wait_for_figure(node, "crieur_redis_up 1");
    }
    let second = publish_kept(&nodes[1], C);
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&first, C));
        assert_eq!(client.whole_text(), numbered(&second, C));
        assert_eq!(client.before_pong().0, Vec::<String>::new());
    }
    for node in &nodes {
        assert_eq!(figure(node, "crieur_gaps_total") as u64, 0);
    }
}

#[test]
fn nothing_is_missed_that_redis_took_while_it_was_out_of_reach() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "0.5"]);
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let first = publish_kept(&nodes[0], C);
    // One node is cut off; the other, and others, publish.
    nodes[1].halt(true);
    nodes[1].program().wait_for_halt();
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    let mut ids = vec![first];
    for n in 0..2000 {
        ids.push(if n % 2 == 0 {
            redis.wire_id_of(&redis.xadd(&message(C)), &message(C))
        } else {
            publish_kept(&nodes[0], C)
        });
    }
    nodes[1].halt(false);
    for client in &mut clients {
        for id in &ids {
            assert_eq!(client.whole_text(), numbered(id, C));
        }
        assert_eq!(client.before_pong().0, Vec::<String>::new());
    }
}

/// Has Redis refuse, and checks what publishers are told; then has it take again.
fn refuse(word: &str, begin: impl FnOnce(&Redis), end: impl FnOnce(&Redis)) {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients = nodes
        .each_ref()
        .map(|node| subscriber(node, r#"["c","d","marker"]"#));
    publish(&nodes[0], C);
    begin(&redis);
    let detail = format!("Redis refuses ({word}): it was not published");
    let mut lane = publisher(&nodes[0]);
    for text in [&message(C), &keyed("k", C)] {
        lane.send(text);
        assert_eq!(lane.text(), unavailable(&detail));
    }
    expect_refused_ephemeral(&nodes[0], &message(C), &detail);
    let mut http = Http::connect(&nodes[0]);
    let array = format!("[{},{},{}]", message(C), keyed("l", C), message(D));
    expect_refused_post(&mut http, &array, &detail);
    expect_refused_post(&mut http, &message(C), &detail);
    end(&redis);
    lane.send(&message(D));
    assert_eq!(lane.text(), PUBLISHED);
    // Keys of what was refused aren't known.
    http.send(post(&keyed("l", D)));
    http.expect(200, r#"{"delivered":1}"#);
    publish(&nodes[1], MARKER);
    for client in &mut clients {
        assert_eq!(client.before_marker(), [C, D, D].map(delivery));
    }
    let refused = r#"crieur_redis_refused_total{reason="redis"}"#;
    assert_eq!(figure(&nodes[0], refused) as u64, 7);
    // The connections stay.
    assert_eq!(figure(&nodes[0], "crieur_redis_connects_total") as u64, 1);
}

#[test]
fn a_redis_without_memory_refuses() {
    refuse(
        "OOM",
        |redis| drop(redis.ask(&["CONFIG", "SET", "maxmemory", "1"])),
        |redis| drop(redis.ask(&["CONFIG", "SET", "maxmemory", "0"])),
    );
}

#[test]
fn a_redis_without_its_replicas_refuses() {
    refuse(
        "NOREPLICAS",
        |redis| drop(redis.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
        |redis| drop(redis.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"])),
    );
}

#[test]
fn a_redis_that_lets_nobody_write_refuses() {
    refuse(
        "NOPERM",
        |redis| drop(redis.ask(&["ACL", "SETUSER", "default", "-xadd", "-evalsha"])),
        |redis| drop(redis.ask(&["ACL", "SETUSER", "default", "+xadd", "+evalsha"])),
    );
}

#[test]
fn scripts_that_were_forgotten_are_loaded_again() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&[]);
    let mut client = subscriber(&node, r#"["c","d"]"#);
    publish(&node, C);
    redis.ask(&["SCRIPT", "FLUSH"]);
    let mut lane = publisher(&node);
    lane.send(&keyed("k", C));
    let refused = "Redis refuses (NOSCRIPT): it was not published";
    assert_eq!(lane.text(), unavailable(refused));
    lane.send(&keyed("k", D));
    assert_eq!(lane.text(), PUBLISHED);
    expect_deliveries(&mut client, &[C, D]);
}

/// What is told of one that a replica was sent.
const READ_ONLY: &str = "Redis refuses (READONLY): it was not published";

#[test]
fn one_that_becomes_a_replica_is_left_for_the_master() {
    let Some(first) = Redis::start() else { return };
    let Some(second) = Redis::start() else { return };
    // Its data don't matter: it is a master that is there.
    let urls = [first.url(), second.url()];
    let flags = [
        "--redis",
        &urls[0],
        "--redis",
        &urls[1],
        "--redis-timeout",
        "5",
    ];
    let nodes = [Server::with(&flags), Server::with(&flags)];
    let mut clients = nodes.each_ref().map(|node| subscriber(node, r#"["c"]"#));
    publish(&nodes[0], C);
    assert_eq!(
        (first.notifications().len(), second.entries().len()),
        (1, 0)
    );
    first.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    // It waits for the other, and costs nobody an error.
    let mut lane = publisher(&nodes[0]);
    for n in 0..50 {
        lane.send(&keyed(&n.to_string(), &on_channel("c", n)));
    }
    for _ in 0..50 {
        let text = lane.whole_text();
        // The first may have met what became of the one that it was sent to, or what it was sent on has ended since.
        let is_told = text == unavailable(READ_ONLY) || text == unavailable(PERHAPS);
        assert!(
            is_told || text.starts_with(r#"{"type":"published","#),
            "{text}"
        );
    }
    // So may what is sent to the other node.
    let mut other_lane = publisher(&nodes[1]);
    other_lane.send(&message(D));
    let text = other_lane.whole_text();
    if text != unavailable(READ_ONLY) && text != unavailable(PERHAPS) {
        assert!(text.starts_with(r#"{"type":"published","#), "{text}");
    } else {
        assert_eq!(publish(&nodes[1], D), r#"{"delivered":0}"#);
    }
    let taken = second.notifications().len() - 1;
    for client in &mut clients {
        assert_eq!(client.text(), delivery(C));
        for _ in 0..taken {
            assert!(client.text().starts_with(r#"{"type":"notification","#));
        }
    }
    // The first that is a master is taken, whatever stands ahead of it.
    let late = Server::with(&flags);
    assert_eq!(publish(&late, C), r#"{"delivered":0}"#);
    assert_eq!(first.notifications().len(), 1);
}

#[test]
fn too_much_that_waits_is_refused() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    redis.halt(true);
    let text = message(C);
    let bytes: Vec<u8> = (0..1024)
        .flat_map(|_| crate::helpers::frame(0x81, text.as_bytes()))
        .collect();
    let mut lanes: Vec<_> = (0..16).map(|_| publisher(&node)).collect();
    for lane in &mut lanes {
        lane.send_bytes(&bytes);
    }
    wait_for_pending(&node, 16_384);
    let full = "too much waits for Redis: it was not published";
    expect_refused_ephemeral(&node, &text, full);
    let mut http = Http::connect(&node);
    expect_refused_post(&mut http, &text, full);
    redis.halt(false);
    for lane in &mut lanes {
        lane.expect_texts(&vec![r#"{"type":"published","delivered":0}"#; 1024]);
    }
    http.send(post(&text));
    http.expect(200, r#"{"delivered":0}"#);
    assert_eq!(redis.notifications().len(), 16_385);
    let refused = r#"crieur_redis_refused_total{reason="full"}"#;
    assert_eq!(figure(&node, refused) as u64, 2);
}

#[test]
fn a_stream_of_another_kind_is_refused() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "0.5"]);
    let mut client = numbered_subscriber(&node, r#"["c"]"#);
    redis.ask(&["SET", STREAM, "no stream"]);
    let mut lane = publisher(&node);
    lane.send(&message(C));
    let text = lane.text();
    assert_eq!(error_code(&text), "unavailable", "{text}");
    redis.ask(&["DEL", STREAM]);
    wait_until("it is a stream again", || {
        lane.send(&message(C));
        lane.text().starts_with(r#"{"type":"published""#)
    });
    // It was told that something may be gone, and goes on.
    let gap = client.whole_text();
    assert!(gap.starts_with(r#"{"type":"gap","#), "{gap}");
    let text = client.whole_text();
    assert_eq!(text, numbered(&id_of(&text), C));
}
