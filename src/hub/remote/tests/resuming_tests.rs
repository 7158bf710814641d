//! Clients that show an id, at whichever node.

use super::*;

const RESUMED: &str = r#""resumed":true"#;
const UNKNOWN: &str = r#""resumed":false,"reason":"unknown""#;

#[test]
fn a_client_resumes_at_any_node() {
    let mut world = World::new(2);
    let told = world.node().subscribe(0, Some(""));
    let start = member(&told[0], "id").to_owned();
    world.publish("1");
    world.publish("2");
    world.run_on();
    let told = world.node().take(0);
    let first = member(&told[0], "id").to_owned();
    for (index, since, missed) in [(1, &start, &["1", "2"][..]), (2, &first, &["2"])] {
        for node in &mut world.nodes {
            let told = node.subscribe(index, Some(since));
            assert_told(&told[..1], &[RESUMED]);
            for (told, text) in told[1..].iter().zip(missed) {
                assert_eq!(member(told, "text"), *text);
            }
            let end = told.last().expect("its end");
            assert_eq!(told.len(), missed.len() + 2);
            assert!(
                end.contains(&format!(r#""missed":{}"#, missed.len())),
                "{end}"
            );
            assert_eq!(member(end, "id"), node.position());
        }
    }
    // Ids of a server without Redis, and what is none.
    for (index, since) in [(3, "0123456789abcdef-1"), (4, "x")] {
        assert_told(&world.node().subscribe(index, Some(since)), &[UNKNOWN]);
    }
}

#[test]
fn a_client_that_is_ahead_waits_for_its_id() {
    let mut world = World::new(2);
    world.lagging = Some(1);
    world.publish("1");
    world.publish("2");
    world.run_on();
    let newest = world.node().position();
    let node = &mut world.nodes[1];
    node.connect(0, REMOTE, "/");
    node.send(0, &list(Some(&newest)));
    assert!(node.is_paused(0));
    node.send(0, PING);
    world.run(900);
    assert_eq!(world.nodes[1].take(0), [""; 0]);
    world.lagging = None;
    world.run_on();
    let node = &mut world.nodes[1];
    assert_told(&node.take(0), &[RESUMED, "caught-up", "pong"]);
    assert!(!node.is_paused(0));
    assert_eq!(node.hub.metrics().resumes.resumed, 1);
}

#[test]
fn a_client_that_is_ahead_for_too_long_is_not_resumed() {
    let mut world = World::new(2);
    world.nodes[1].subscribe(0, None);
    world.lagging = Some(1);
    world.publish("1");
    world.run_on();
    let newest = world.node().position();
    let node = &mut world.nodes[1];
    node.connect_publisher(1);
    for text in [&list(Some(&newest)), PING] {
        node.send(0, text);
        node.send(1, text);
    }
    // What it publishes isn't answered ahead of that.
    node.send(1, &publish("x"));
    node.hang_up(1);
    world.run(995);
    assert_eq!(world.nodes[1].take(0), [""; 0]);
    assert_eq!(world.nodes[1].hub.index().subscriptions_of(id(0)), 1);
    world.run(10);
    assert_told(&world.nodes[1].take(0), &[UNKNOWN, "pong"]);
    assert!(world.nodes[1].take(1).is_empty() && !world.nodes[1].is_paused(0));
}

#[test]
fn what_a_client_has_goes_on_while_another_list_waits() {
    let mut world = World::new(2);
    let start = world.node().position();
    world.publish("1");
    world.run_on();
    let node = &mut world.nodes[1];
    node.subscribe(0, None);
    node.screen.slow.insert(id(1));
    let told = node.subscribe(1, Some(&start));
    assert_told(&told, &[RESUMED]);
    // Only the first entry of the next two is read.
    world.publish("2");
    world.run_on();
    let ahead = world.nodes[1].position().replace(r"-0-", "-9-");
    let node = &mut world.nodes[1];
    for index in [0, 1] {
        node.take(index);
        node.send(index, &list(Some(&ahead)));
    }
    node.screen.slow.clear();
    node.act(|hub, _| hub.handle_drained(id(1)));
    world.run_on();
    assert_eq!(world.nodes[1].take(0), [""; 0]);
    let told = world.nodes[1].take(1);
    assert_told(&told, &[r#""text":"1""#, r#""text":"2""#, "caught-up"]);
    world.publish("3");
    world.run_on();
    for index in [0, 1] {
        let told = world.nodes[1].take(index);
        assert_told(&told, &[r#""text":"3""#, UNKNOWN]);
    }
}

#[test]
fn a_crowd_that_is_ahead_is_let_in_entry_by_entry() {
    let mut world = World::new(2);
    world.lagging = Some(1);
    let mut ids = Vec::new();
    for text in ["1", "2", "3"] {
        world.publish(text);
        world.run_on();
        ids.push(world.node().position());
    }
    for index in 0..30 {
        let since = &ids[(index % 3) as usize];
        let node = &mut world.nodes[1];
        node.connect(index, REMOTE, "/");
        node.send(index, &list(Some(since)));
    }
    // Some go while they wait.
    for index in 0..6 {
        world.nodes[1].hang_up(index);
    }
    world.lagging = None;
    world.run_on();
    for index in 6..30 {
        let told = world.nodes[1].take(index);
        assert_told(&told[..1], &[RESUMED]);
        let is_end = |told: &&String| told.contains("caught-up");
        assert_eq!(told.iter().filter(is_end).count(), 1);
        // Replayed or live.
        let texts = told[1..].iter().filter(|told| !is_end(told));
        let texts: Vec<_> = texts.map(|told| member(told, "text").to_owned()).collect();
        let all: Vec<_> = (index % 3 + 2..=3).map(|text| text.to_string()).collect();
        assert_eq!(texts, all);
    }
    let node = &world.nodes[1];
    assert!(node.hub.owed.is_empty() && node.screen.paused.is_empty());
    assert_eq!(node.hub.metrics().resumes.resumed, 24);
}

#[test]
fn a_client_of_a_branch_that_was_left_is_ahead_and_then_unknown() {
    let mut world = World::new(2);
    // The second node doesn't hear of the newest: what it has asked for is answered by the one before.
    world.lagging = Some(1);
    for text in ["1", "2"] {
        world.publish(text);
        world.run_on();
    }
    let lost = world.node().position();
    world.server.fail_over(1, 0);
    let node = &mut world.nodes[1];
    node.connect(0, REMOTE, "/");
    node.send(0, &list(Some(&lost)));
    assert_eq!(node.take(0), [""; 0]);
    world.lagging = None;
    world.run(400);
    let told = world.nodes[1].take(0);
    assert_told(&told[..1], &[UNKNOWN]);
    // So it is at the node that has told it.
    let told = world.node().subscribe(0, Some(&lost));
    assert_told(&told, &[r#""resumed":false"#]);
}

#[test]
fn whoever_is_ahead_waits_no_longer_when_something_may_be_gone() {
    let mut world = World::new(2);
    world.lagging = Some(1);
    for text in ["1", "2"] {
        world.publish(text);
        world.run_on();
    }
    let lost = world.node().position();
    world.server.fail_over(1, 0);
    // No barrier comes.
    world.server.fill(true);
    let node = &mut world.nodes[1];
    node.connect(0, REMOTE, "/");
    node.send(0, &list(Some(&lost)));
    world.lagging = None;
    world.run(400);
    let told = world.nodes[1].take(0);
    assert_told(&told[..1], &[UNKNOWN]);
}
