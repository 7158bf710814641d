//! Who publishes what and is told what, while Redis does what it should.

use super::*;

#[test]
fn a_notification_goes_by_redis_to_everybody_and_its_publisher_is_answered() {
    let mut world = World::new(2);
    for node in &mut world.nodes {
        assert_told(&node.subscribe(1, None), &["subscribed"]);
        assert_told(&node.subscribe(2, Some("")), &[r#""id":"#]);
    }
    world.node().connect_publisher(0);
    world.node().send(0, &publish("x"));
    assert_eq!(world.node().take(0), [""; 0], "Redis doesn't have it yet");
    world.run_on();
    let told = world.node().take(0);
    assert_told(&told, &[r#"{"type":"published","delivered":2,"id":""#]);
    let entry = member(&told[0], "id").to_owned();
    for node in &mut world.nodes {
        assert_eq!(node.take(1), [delivery("x")]);
        let told = node.take(2);
        assert_eq!(told.len(), 1);
        assert_eq!(member(&told[0], "id"), entry);
        assert_eq!(node.position(), entry);
    }
}

#[test]
fn answers_keep_their_order() {
    let mut world = World::one();
    let node = world.node();
    node.connect_publisher(0);
    let id_before = node.position();
    for text in [
        &publish("x"),
        r#"{"sender":"server","notification":{}}"#,
        PING,
        &list(Some("")),
        PING,
        &publish("y"),
        "[",
        &publish("z"),
        PING,
    ] {
        node.send(0, text);
    }
    assert_eq!(node.take(0), [""; 0]);
    // What was published meanwhile has gone out at once.
    world.server.stop(true);
    world.run_on();
    world.server.stop(false);
    world.run_on();
    assert_eq!(world.taken(), ["x", "y", "z"]);
    let told = world.node().take(0);
    assert_told(
        &told,
        &[
            r#"{"type":"published","delivered":0,"#,
            "invalid-notification",
            r#"{"type":"pong"}"#,
            "subscribed",
            r#"{"type":"pong","id":""#,
            r#""text":"y""#,
            r#"{"type":"published","delivered":1,"#,
            "invalid-json",
            r#""text":"z""#,
            r#"{"type":"published","delivered":1,"#,
            r#"{"type":"pong","id":""#,
        ],
    );
    // The list and the ping behind the first receipt say how far the log was when they were handled.
    let first = member(&told[0], "id");
    assert_ne!(first, id_before);
    assert_eq!(member(&told[3], "id"), first);
    assert_eq!(member(&told[4], "id"), first);
    assert_eq!(member(&told[10], "id"), member(&told[9], "id"));
    assert!(world.node().hub.owed.is_empty() && world.node().screen.paused.is_empty());
}

#[test]
fn a_connection_is_not_read_while_too_much_is_owed_to_it() {
    let mut world = World::one();
    world.node().connect_publisher(0);
    for sent in 1..=1025 {
        world.node().send(0, &publish("x"));
        assert_eq!(world.node().is_paused(0), sent >= 1024, "{sent}");
    }
    let mut answered = 0;
    while answered < 1025 {
        world.turn(Duration::from_millis(1));
        answered += world.node().take(0).len();
        let is_paused = 1025 - answered >= 512;
        assert_eq!(world.node().is_paused(0), is_paused, "{answered}");
    }
    assert_eq!(world.taken().len(), 1025);
    assert!(world.node().hub.owed.is_empty());
}

#[test]
fn a_connection_is_not_read_while_long_texts_wait() {
    let mut world = World::one();
    world.node().connect_publisher(0);
    world.node().send(0, &publish("x"));
    let ping = |len: usize| format!("{PING}{}", " ".repeat(len - PING.len()));
    world.node().send(0, &ping(65_535));
    assert!(!world.node().is_paused(0));
    world.node().send(0, &ping(20));
    assert!(world.node().is_paused(0));
    world.run_on();
    assert_told(&world.node().take(0), &["published", "pong", "pong"]);
    assert!(!world.node().is_paused(0));
}

#[test]
fn the_longest_texts_go_when_too_much_is_held() {
    let mut world = World::one();
    let node = world.node();
    let long = |len: usize| format!("{PING}{}", " ".repeat(len - PING.len()));
    for index in 0..19 {
        node.connect_publisher(index);
        node.send(index, &publish("x"));
        let len = if index == 3 { 1_000_001 } else { 1_000_000 };
        if index < 17 {
            node.send(index, &long(len));
        }
    }
    let told = node.take(3);
    assert_told(&told, &[r#"close 1013 {"reason":"overload","#]);
    assert_eq!(node.screen.closed.len(), 1);
    world.run_on();
    assert_told(&world.node().take(4), &["published", "pong"]);
    assert_told(&world.node().take(18), &["published"]);
}

#[test]
fn a_list_behind_a_receipt_begins_a_replay() {
    let mut world = World::one();
    let start = world.node().position();
    world.publish("1");
    world.publish("2");
    world.run_on();
    world.node().connect_publisher(0);
    // Its queue is never empty.
    world.node().screen.slow.insert(id(0));
    let (resuming, plain) = (list(Some(&start)), list(None));
    for text in [
        &publish("x"),
        &resuming,
        PING,
        &plain,
        &publish("y"),
        PING,
        &publish("z"),
    ] {
        world.node().send(0, text);
    }
    world.run_on();
    let told = world.node().take(0);
    assert_told(&told, &["published", r#""resumed":true"#, "pong"]);
    // It is where it begins, and holds a list.
    assert_eq!(member(&told[2], "id"), start);
    assert!(world.node().is_paused(0));
    world.node().screen.slow.clear();
    world.node().act(|hub, _| hub.handle_drained(id(0)));
    world.run_on();
    let told = world.node().take(0);
    assert_told(
        &told,
        &[
            r#""text":"1""#,
            r#""text":"2""#,
            r#""text":"x""#,
            r#""text":"y""#,
            r#""text":"z""#,
            "caught-up",
            "subscribed",
            "published",
            "pong",
            "published",
        ],
    );
    assert!(!world.node().is_paused(0) && world.node().hub.owed.is_empty());
}

#[test]
fn an_ephemeral_publisher_is_closed_by_its_receipt() {
    let mut world = World::one();
    let node = world.node();
    node.connect(0, LOCAL, "/");
    node.send(0, &list(None));
    assert_told(&node.take(0), &["subscribed"]);
    node.send(0, &publish("x"));
    assert!(node.is_paused(0) && node.screen.closes_last.contains(&id(0)));
    // It has hung up, and is read to its end: only the first counts.
    for text in [&publish("y"), PING, "["] {
        node.send(0, text);
    }
    world.run_on();
    let told = world.node().take(0);
    assert_told(
        &told,
        &[r#""text":"x""#, r#"close 1000 {"delivered":1,"id":""#],
    );
    assert_eq!(world.taken(), ["x"]);
}

#[test]
fn whoever_hangs_up_has_published() {
    let mut world = World::one();
    let node = world.node();
    node.subscribe(9, None);
    node.connect(0, LOCAL, "/");
    node.connect_publisher(1);
    node.send(0, &publish("x"));
    node.send(1, &publish("y"));
    node.send(1, PING);
    node.hang_up(0);
    node.hang_up(1);
    assert!(node.hub.owed.is_empty());
    // Another has its slot.
    node.screen.closed.clear();
    world.run_on();
    assert_eq!(world.node().take(9), [delivery("x"), delivery("y")]);
    for index in [0, 1] {
        assert_eq!(world.node().take(index), [""; 0]);
    }
}

#[test]
fn a_key_is_known_at_every_node() {
    let mut world = World::new(2);
    for (at, listeners) in [(0, 2), (1, 3)] {
        let node = &mut world.nodes[at];
        node.connect_publisher(0);
        for index in 1..=listeners {
            node.subscribe(index, None);
        }
    }
    let keyed = publish_with("x", r#""key":"k""#);
    world.nodes[0].send(0, &keyed);
    world.run_on();
    let told = world.nodes[0].take(0);
    assert_told(&told, &[r#""delivered":2,"id":""#]);
    let entry = member(&told[0], "id").to_owned();
    for at in [1, 0] {
        world.nodes[at].send(0, &keyed);
        world.nodes[at].send(0, PING);
        world.run_on();
        let receipt = format!(
            r#"{{"type":"published","delivered":{},"id":"{entry}","repeated":true}}"#,
            2 + at
        );
        assert_eq!(
            world.nodes[at].take(0),
            [receipt.as_str(), r#"{"type":"pong"}"#]
        );
        assert_eq!(
            world.nodes[at].take(1),
            [delivery("x")][..at],
            "it was taken before"
        );
        world.nodes[0].take(1);
    }
    assert_eq!(world.taken(), ["x"]);
    assert_eq!(world.nodes[1].hub.metrics().notifications_repeated, 1);
}

#[test]
fn a_request_is_answered_by_its_receipts() {
    let mut world = World::one();
    world.node().subscribe(9, None);
    assert_eq!(world.node().post(0, &publish("x")), None);
    world.run_on();
    let told = world.node().take(0);
    assert_told(&told, &[r#"200 {"delivered":1,"id":""#]);
    let (keyed, passing) = (
        publish_with("y", r#""key":"k""#),
        publish_with("z", r#""keep":false"#),
    );
    let array = format!("[{keyed},{passing},{keyed}]");
    assert_eq!(world.node().post(0, &array), None);
    world.run_on();
    let told = world.node().take(0);
    let entry = world.node().position();
    let receipts = format!(
        r#"200 [{{"delivered":1,"id":"{entry}"}},{{"delivered":1}},{{"delivered":1,"id":"{entry}","repeated":true}}]"#
    );
    assert_eq!(told, [receipts]);
    let told = world.node().take(9);
    assert_eq!(told, ["x", "y", "z"].map(delivery));
    // Nothing of it is sent if something is wrong.
    let told = world.node().post(0, &format!("[{keyed},{{}}]"));
    assert!(told.is_some_and(|told| told.starts_with("400 ")));
    assert_eq!(world.node().post(0, "[]").as_deref(), Some("200 []"));
    world.run_on();
    assert_eq!(world.taken(), ["x", "y", "z"]);
    world.node().hub.check_invariants();
}

#[test]
fn what_is_not_kept_has_no_id() {
    let mut world = World::one();
    let start = world.node().position();
    world.node().connect_publisher(0);
    world.node().subscribe(1, Some(""));
    world.node().send(0, &publish_with("x", r#""keep":false"#));
    world.run_on();
    let told = world.node().take(0);
    assert_eq!(told, [r#"{"type":"published","delivered":1}"#]);
    assert_eq!(world.node().take(1), [delivery("x")]);
    assert_eq!(world.node().position(), start);
}

#[test]
fn anybody_may_add_entries_and_those_that_are_none_are_passed_over() {
    let mut world = World::new(2);
    for node in &mut world.nodes {
        node.subscribe(0, None);
    }
    world.publish("1");
    world.run_on();
    let position = world.node().position();
    for json in [
        "",
        "{",
        "[]",
        r#"{"notification":{}}"#,
        r#"{"type":"pong","notification":{"channel":"a"}}"#,
        r#"{"key":"k","notification":{"channel":"a"}}"#,
        r#"{"sender":"client","notification":{"channel":"a"}}"#,
        r#"{"keep":1,"notification":{"channel":"a"}}"#,
    ] {
        world.add(json);
    }
    world.server.add(&[(b"x", b"1")]);
    world.server.add(&[(b"n", b"\xff")]);
    world.run_on();
    for node in &world.nodes {
        assert_eq!(node.hub.metrics().entries_invalid, 10);
        assert_eq!(node.position(), position);
    }
    world.add(r#"{"sender":"server","token":7,"type":"t","notification":{"channel":"a"}}"#);
    world.run_on();
    for node in &mut world.nodes {
        let typed = r#"{"type":"t","notification":{"channel":"a"}}"#;
        assert_eq!(node.take(0), [delivery("1").as_str(), typed]);
    }
}

#[test]
fn a_stranger_that_makes_up_a_nonce_answers_a_publisher_but_takes_nothing_away() {
    let mut world = World::one();
    world.node().connect_publisher(0);
    world.node().subscribe(1, None);
    world.node().send(0, &publish("x"));
    world.run_on();
    world.node().take(0);
    let nonce = |world: &World| {
        let log = world.server.log();
        let fields = &log.last().expect("an entry").fields;
        let nonce = fields.iter().find(|(name, _)| name == b"t");
        let text = String::from_utf8(nonce.expect("it has one").1.clone());
        u64::from_str_radix(&text.expect("digits"), 16).expect("a number")
    };
    let next = format!("{:016x}", nonce(&world) + 1);
    world.server.stop(true);
    world.node().send(0, &publish("y"));
    world.run(20);
    world.server.add(&[(b"n", b"{}"), (b"t", next.as_bytes())]);
    world.server.stop(false);
    world.run_on();
    assert_told(&world.node().take(0), &["unavailable"]);
    assert_eq!(world.node().take(1), [delivery("x"), delivery("y")]);
}

#[test]
fn what_was_published_before_the_start_is_in_the_log_with_its_age() {
    let mut world = World::empty();
    world.now = Timestamp::ZERO + Duration::from_secs(100);
    let first = world.start(HistoryLimits::default());
    world.publish("1");
    world.run(7000);
    world.publish("2");
    world.run(3000);
    let start = world.nodes[first].position();
    let second = world.start(HistoryLimits::default());
    let node = &mut world.nodes[second];
    assert_eq!(node.position(), start);
    assert_eq!(node.hub.journal().history().len(), 2);
    let age = node.hub.journal().age(node.screen.now);
    let range = Duration::from_secs(10)..Duration::from_secs(12);
    assert!(range.contains(&age), "{age:?}");
    assert_eq!(node.hub.metrics().notifications_delivered, 0);
    // What comes from now on is as old as it is here, whatever the clock of Redis says.
    world.publish("3");
    world.run_on();
    world.nodes[second].hub.check_invariants();
}

#[test]
fn without_a_history_everything_goes_by_redis_all_the_same() {
    let mut world = World::empty();
    let off = HistoryLimits {
        bytes_max: 0,
        ..HistoryLimits::default()
    };
    world.start(off);
    let node = world.node();
    node.connect_publisher(0);
    node.subscribe(1, Some(""));
    node.send(0, &publish_with("x", r#""key":"k""#));
    assert_told(&node.take(0), &["key needs a history, which is off"]);
    node.send(0, &publish("y"));
    world.run_on();
    let told = world.node().take(0);
    assert_told(&told, &[r#""delivered":1,"id":""#]);
    let id = member(&told[0], "id").to_owned();
    assert_eq!(world.node().position(), id);
    assert_eq!(member(&world.node().take(1)[0], "id"), id);
    let told = world.node().subscribe(2, Some(&id));
    assert_told(&told, &[r#""resumed":false,"reason":"expired""#]);
}
