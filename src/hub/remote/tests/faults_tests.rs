//! What publishers and clients are told while Redis doesn't do what it should.

use super::*;
use crate::application::Uplink;

const NOT_PUBLISHED: &str = "Redis is out of reach: it was not published";
const MAY_HAVE_BEEN: &str = "Redis has not answered in time: it may have been published; with a key it is safe to try again";

/// The error that a publisher gets for this reason.
fn unavailable(detail: &str) -> String {
    format!(r#"{{"type":"error","error":{{"code":"unavailable","detail":"{detail}"}}}}"#)
}

/// One that stays, one that doesn't, and one by HTTP publish something; a client listens.
fn publish_in_all_ways(world: &mut World, text: &str) {
    let node = world.node();
    node.connect_publisher(0);
    node.connect(1, LOCAL, "/");
    for (index, way) in [(0, "stays"), (1, "goes")] {
        node.send(index, &publish(&format!("{text} {way}")));
    }
    node.send(0, PING);
    if let Some(answer) = node.post(2, &publish(&format!("{text} posted"))) {
        node.screen.tell(id(2), answer);
    }
}

/// All three are told this; the connections go.
fn assert_refused(world: &mut World, detail: &str) {
    let node = world.node();
    let error = unavailable(detail);
    let pong = r#"{"type":"pong"}"#.to_owned();
    assert_eq!(node.take(0), [error.clone(), pong]);
    let close = r#"close 1013 {"reason":"unavailable","retry":4200}"#.to_owned();
    assert_eq!(node.take(1), [error.clone(), close]);
    assert_eq!(node.take(2), [format!("503 Retry-After: 5 {error}")]);
    node.hang_up(0);
    node.screen.closed.clear();
}

#[test]
fn what_waits_for_too_long_is_refused_and_never_published() {
    let mut world = World::one();
    world.node().subscribe(9, Some(""));
    world.is_there = false;
    world.server.kill_clients();
    world.run(5);
    publish_in_all_ways(&mut world, "first");
    world.run(990);
    for index in 0..3 {
        assert_eq!(world.node().take(index), [""; 0]);
    }
    world.run(20);
    assert_refused(&mut world, NOT_PUBLISHED);
    // From now on at once.
    publish_in_all_ways(&mut world, "second");
    assert_refused(&mut world, NOT_PUBLISHED);
    assert!(!world.node().hub.redis().is_some_and(Redis::is_reachable));
    world.is_there = true;
    world.run(3000);
    assert_eq!(world.taken(), [""; 0]);
    assert_eq!(world.node().take(9), [""; 0], "nothing is lost");
    publish_in_all_ways(&mut world, "third");
    world.run_on();
    assert_told(&world.node().take(0), &["published", "pong"]);
    assert_told(&world.node().take(1), &["close 1000"]);
    assert_told(&world.node().take(2), &["200 "]);
}

#[test]
fn what_was_sent_and_is_not_answered_may_have_been_published() {
    let mut world = World::one();
    world.node().subscribe(9, None);
    world.server.stop(true);
    publish_in_all_ways(&mut world, "x");
    world.run(1050);
    assert_refused(&mut world, MAY_HAVE_BEEN);
    publish_in_all_ways(&mut world, "y");
    assert_refused(&mut world, NOT_PUBLISHED);
    world.server.stop(false);
    world.run(100);
    // Redis took all of it in the end, and nobody is answered twice.
    let told = world.node().take(9);
    assert_eq!(told, ["x stays", "x goes", "x posted"].map(delivery));
    for index in 0..3 {
        assert_eq!(world.node().take(index), [""; 0]);
    }
}

#[test]
fn what_redis_refuses_is_not_published() {
    let mut world = World::one();
    world.server.fill(true);
    publish_in_all_ways(&mut world, "x");
    world.run_on();
    assert_refused(&mut world, "Redis refuses (OOM): it was not published");
    world.server.fill(false);
    world.run_on();
    assert_eq!(world.taken(), [""; 0]);
}

#[test]
fn an_array_is_refused_as_a_whole() {
    let mut world = World::one();
    let array = format!("[{},{},{}]", publish("1"), publish("2"), publish("3"));
    world.server.fill(true);
    assert_eq!(world.node().post(0, &array), None);
    world.run_on();
    assert_told(&world.node().take(0), &["503 Retry-After: 5 "]);
    assert_eq!(world.taken(), [""; 0]);
    world.server.fill(false);
    world.server.stop(true);
    assert_eq!(world.node().post(0, &array), None);
    world.run(1050);
    assert_told(&world.node().take(0), &[MAY_HAVE_BEEN]);
    world.server.stop(false);
    world.run(100);
    assert_eq!(world.node().take(0), [""; 0]);
    assert_eq!(world.taken(), ["1", "2", "3"]);
}

#[test]
fn connections_that_are_killed_cost_nobody_an_error() {
    let mut world = World::new(2);
    let node = world.node();
    node.connect_publisher(0);
    node.subscribe(9, Some(""));
    for round in 0..40 {
        for text in 0..5 {
            world.node().send(0, &publish(&format!("{round} {text}")));
            world.run(text);
        }
        if round % 2 == 0 {
            world.server.kill_clients();
        } else {
            let now = world.now;
            let uplink = [Uplink::Reader, Uplink::Writer][round / 2 % 2];
            let Node { hub, sockets, .. } = &mut world.nodes[0];
            let redis = hub.redis_mut().expect("it has one");
            sockets.cut(uplink, redis, &mut world.rng, now);
        }
        world.run(1200);
    }
    let told = world.node().take(0);
    assert_eq!(told.len(), 200);
    let texts = world.taken();
    let may_have_been = told.iter().filter(|told| told.contains(MAY_HAVE_BEEN));
    let published = told
        .iter()
        .filter(|told| told.contains(r#""published","delivered":1"#));
    let (lost, published) = (may_have_been.count(), published.count());
    assert_eq!((lost + published, texts.len()), (200, published));
    assert!(lost < 100, "{lost}: only what was given to the socket");
    let got = world.node().take(9);
    let got: Vec<_> = got.iter().map(|told| member(told, "text")).collect();
    assert_eq!(got, texts);
    assert_eq!(world.node().hub.metrics().gaps, 0);
}

// Gaps.

/// The reason of a gap, of which this is the id.
fn gap(told: &str, id: &str) -> String {
    assert!(
        told.starts_with(&format!(r#"{{"type":"gap","id":"{id}","#)),
        "{told}"
    );
    member(told, "reason").to_owned()
}

#[test]
fn a_stream_that_is_gone_is_a_gap_for_those_that_number_their_deliveries() {
    let mut world = World::new(2);
    for node in &mut world.nodes {
        node.subscribe(0, None);
        node.subscribe(1, Some(""));
    }
    world.publish("1");
    world.run_on();
    let before = world.node().position();
    for node in &mut world.nodes {
        node.take(0);
        node.take(1);
    }
    world.server.flush();
    world.run(1500);
    world.publish("2");
    world.run(500);
    for node in &mut world.nodes {
        assert_eq!(node.take(0), [delivery("2")]);
        let told = node.take(1);
        // Whoever reads the barrier of another node sees a stream that begins behind it.
        assert!(["lost", "trimmed"].contains(&gap(&told[0], &before).as_str()));
        assert_eq!(member(&told[1], "text"), "2");
        assert_eq!(told.len(), 2);
        assert_eq!(node.hub.metrics().gaps, 1);
        // Nothing from before is resumed from; the end of it all is.
        let told = node.subscribe(2, Some(&before));
        assert_told(&told, &[r#""resumed":false"#]);
        let now = node.position();
        let told = node.subscribe(3, Some(&now));
        assert_told(&told, &[r#""resumed":true"#, "caught-up"]);
    }
    assert_eq!(world.nodes[0].position(), world.nodes[1].position());
}

#[test]
fn a_restart_is_a_gap_though_nothing_is_lost() {
    let mut world = World::one();
    world.node().subscribe(1, Some(""));
    world.publish("1");
    world.run_on();
    let before = world.node().position();
    world.node().take(1);
    world.server.restart(0);
    world.run(200);
    let told = world.node().take(1);
    assert_eq!(told.len(), 1);
    assert_eq!(gap(&told[0], &before), "lost");
    // The barrier is where it stands now.
    let barrier = world.node().position();
    assert_ne!(barrier, before);
    assert_told(
        &world.node().subscribe(2, Some(&before)),
        &[r#""resumed":false"#],
    );
    world.publish("2");
    world.run_on();
    let told = world.node().subscribe(3, Some(&barrier));
    assert_told(&told, &[r#""resumed":true"#, r#""text":"2""#, "caught-up"]);
}

#[test]
fn nothing_is_resumed_from_until_the_barrier_has_come() {
    let mut world = World::one();
    world.node().subscribe(1, Some(""));
    world.publish("1");
    world.run_on();
    world.node().take(1);
    // No barrier can be written, entries neither.
    world.server.restart(0);
    world.server.fill(true);
    world.run(500);
    assert_told(&world.node().take(1), &[r#"{"type":"gap","#]);
    let now = world.node().position();
    let told = world.node().subscribe(2, Some(&now));
    assert_told(&told, &[r#""resumed":false,"reason":"unknown""#]);
    world.publish("2");
    world.run_on();
    assert_told(&world.node().take(1), &[r#""text":"2""#]);
    let now = world.node().position();
    let told = world.node().subscribe(3, Some(&now));
    assert_told(&told, &[r#""resumed":false,"reason":"unknown""#]);
    world.server.fill(false);
    world.run(2000);
    let now_certain = world.node().position();
    let told = world.node().subscribe(4, Some(&now_certain));
    assert_told(&told, &[r#""resumed":true"#, "caught-up"]);
    // That entry is ahead of the barrier.
    let told = world.node().subscribe(5, Some(&now));
    assert_told(&told, &[r#""resumed":false"#]);
    assert_eq!(world.node().hub.metrics().gaps, 1);
}

#[test]
fn what_was_trimmed_ahead_of_a_node_is_a_gap_there() {
    let mut world = World::new(2);
    for node in &mut world.nodes {
        node.subscribe(1, Some(""));
    }
    world.lagging = Some(1);
    // What it has asked for, it gets.
    world.publish("0");
    world.run_on();
    for text in ["1", "2", "3", "4"] {
        world.publish(text);
    }
    world.run_on();
    world.server.trim(2);
    world.lagging = None;
    world.run(500);
    let told = world.nodes[1].take(1);
    assert_told(
        &told,
        &[r#""text":"0""#, "trimmed", r#""text":"3""#, r#""text":"4""#],
    );
    let told = world.nodes[0].take(1);
    assert_eq!(told.len(), 5, "the other one has read all of it: {told:#?}");
}

#[test]
fn a_replica_that_lacks_the_end_is_a_gap_and_then_goes_on() {
    let mut world = World::one();
    world.node().subscribe(1, Some(""));
    world.node().connect_publisher(0);
    for text in ["1", "2", "3"] {
        world.node().send(0, &publish(text));
        world.run_on();
    }
    let told = world.node().take(1);
    let [kept, lost] = [0, 2].map(|at| member(&told[at], "id").to_owned());
    world.node().take(0);
    world.server.fail_over(2, -3_600_000);
    world.run(300);
    world.node().send(0, &publish("4"));
    world.run_on();
    let told = world.node().take(1);
    assert_told(&told, &["lost", r#""text":"4""#]);
    assert_eq!(gap(&told[0], &lost), "lost");
    assert_told(&world.node().take(0), &["published"]);
    for (index, since) in [(2, &kept), (3, &lost)] {
        let told = world.node().subscribe(index, Some(since));
        // That branch had come further than this one has.
        assert_eq!(told.is_empty(), since == &lost);
        world.run(1100);
        let later = world.node().take(index);
        assert_told(&[told, later].concat(), &[r#""resumed":false"#]);
    }
    let newest = member(&told[1], "id").to_owned();
    let told = world.node().subscribe(4, Some(&newest));
    assert_told(&told, &[r#""resumed":true"#, "caught-up"]);
}

#[test]
fn a_client_that_is_being_caught_up_is_told_when_it_gets_there() {
    let mut world = World::one();
    let start = world.node().position();
    for text in ["1", "2"] {
        world.publish(text);
    }
    world.run_on();
    world.node().screen.slow.insert(id(1));
    let told = world.node().subscribe(1, Some(&start));
    assert_told(&told, &[r#""resumed":true"#]);
    let at = world.node().position();
    // Twice: it is told of the later one, behind which all is certain again.
    world.server.restart(0);
    world.run(200);
    world.publish("3");
    world.run_on();
    let later = world.node().position();
    // Nothing that it looks for is beside the gap.
    let other = r#"{"notification":{"channel":"b"}}"#;
    world.add(other);
    world.run_on();
    world.server.restart(0);
    world.run(200);
    world.add(other);
    world.publish("4");
    world.run_on();
    assert_eq!(world.node().take(1), [""; 0]);
    assert_eq!(world.node().hub.metrics().gaps, 0);
    world.node().screen.slow.clear();
    world.node().act(|hub, _| hub.handle_drained(id(1)));
    world.run_on();
    let told = world.node().take(1);
    assert_told(
        &told,
        &[
            r#""text":"1""#,
            r#""text":"2""#,
            r#""text":"3""#,
            r#"{"type":"gap","#,
            r#""text":"4""#,
            "caught-up",
        ],
    );
    assert_eq!(member(&told[1], "id"), at);
    assert_eq!(member(&told[2], "id"), later);
    assert_eq!(world.node().hub.metrics().gaps, 1);
}

#[test]
fn every_doubt_is_told() {
    let mut world = World::one();
    world.node().subscribe(1, Some(""));
    for round in 1..=3 {
        world.server.restart(0);
        world.run(300);
        assert_told(&world.node().take(1), &["gap"]);
        assert_eq!(world.node().hub.metrics().gaps, round);
    }
}

#[test]
fn everybody_is_told_of_a_gap_ahead_of_what_comes_behind_it_some_at_a_time() {
    let mut world = World::one();
    for index in 0..600 {
        world.node().subscribe(index, Some(""));
    }
    // Plain ones and holes in between.
    for index in [0, 255, 256, 300, 599] {
        world.node().hang_up(index);
    }
    world.node().subscribe(700, None);
    world.server.flush();
    for text in ["1", "2"] {
        world.publish(text);
    }
    let (mut calls, mut gaps) = (0, 0);
    for _ in 0..1500 {
        world.now = world.now + Duration::from_millis(1);
        let World {
            server,
            nodes,
            rng,
            now,
            ..
        } = &mut world;
        server.run(*now, rng);
        let node = &mut nodes[0];
        node.screen.now = *now;
        let redis = node.hub.redis_mut().expect("it has one");
        node.sockets.pump(Some(server), redis, rng, *now);
        while node.hub.next_work().is_some_and(|due| due <= *now) {
            node.act(|hub, outbox| hub.handle_work(outbox));
            let told = node.hub.metrics().gaps;
            assert!(told - gaps <= 256);
            calls += u32::from(told > gaps);
            gaps = told;
        }
    }
    assert_eq!((calls, gaps), (3, 595));
    for index in 0..600 {
        let told = world.node().take(index);
        match index {
            0 | 255 | 256 | 300 | 599 => assert_eq!(told, [""; 0]),
            _ => assert_told(&told, &["gap", r#""text":"1""#, r#""text":"2""#]),
        }
    }
    assert_told(&world.node().take(700), &[r#""text":"1""#, r#""text":"2""#]);
}

#[test]
fn a_replica_that_attaches_is_nothing() {
    let mut world = World::one();
    world.node().subscribe(1, Some(""));
    world.server.attach_replica();
    world.server.kill_clients();
    world.publish("1");
    world.run(200);
    assert_told(&world.node().take(1), &[r#""text":"1""#]);
}

#[test]
fn a_master_that_is_demoted_is_waited_for() {
    let mut world = World::one();
    world.node().subscribe(9, None);
    world.server.demote(true);
    world.run(20);
    world.node().connect_publisher(0);
    for (text, why) in [
        ("w", "Redis refuses (READONLY): it was not published"),
        ("x", NOT_PUBLISHED),
    ] {
        world.node().send(0, &publish(text));
        world.run(1100);
        assert_eq!(world.node().take(0), [unavailable(why)]);
    }
    world.server.demote(false);
    world.run(3000);
    world.node().send(0, &publish("y"));
    world.run_on();
    assert_told(&world.node().take(0), &["published"]);
    assert_eq!(world.node().take(9), [delivery("y")]);
}
