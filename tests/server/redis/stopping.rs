//! SIGTERM while publishers await receipts: they get them.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::helpers::http::{Http, post};
use crate::helpers::numbered::wait_until;
use crate::helpers::receipts::without_ids;
use crate::helpers::redis::Redis;
use crate::helpers::{Client, DEADLINE, close_reason, message, subscriber};

use super::{C, PERHAPS, expect_deliveries, on_channel, publisher, unavailable, wait_for_pending};

#[test]
fn publishers_get_their_receipts_ahead_of_the_close() {
    let Some(redis) = Redis::start() else { return };
    let mut node = redis.node(&["--redis-timeout", "20", "--drain-timeout", "60"]);
    let other = redis.node(&[]);
    let mut clients = [&node, &other].map(|node| subscriber(node, r#"["c"]"#));
    let mut lane = publisher(&node);
    let mut ephemeral = Client::connect(&node);
    let mut http = Http::connect(&node);
    redis.halt(true);
    for n in 0..10 {
        lane.send(&message(&on_channel("c", n)));
    }
    wait_for_pending(&node, 10);
    ephemeral.send(&message(&on_channel("c", 10)));
    wait_for_pending(&node, 11);
    http.send(post(&message(&on_channel("c", 11))));
    wait_for_pending(&node, 12);
    node.terminate();
    // Nobody is let in any more, so it has heard that.
    wait_until("it does not listen", || {
        TcpStream::connect(node.address()).is_err()
    });
    redis.halt(false);
    lane.expect_texts(&[r#"{"type":"published","delivered":1}"#; 10]);
    assert_eq!(ephemeral.expect_close(1000), r#"{"delivered":1}"#);
    ephemeral.answer_close(1000);
    let (status, _, body) = http.receive();
    assert_eq!(
        (status, &without_ids(body)[..]),
        (200, r#"{"delivered":1}"#)
    );
    let all: Vec<_> = (0..12).map(|n| on_channel("c", n)).collect();
    for client in &mut clients {
        expect_deliveries(client, &all);
    }
    for client in [&mut clients[0], &mut lane] {
        let (word, _) = close_reason(&client.expect_close(1001));
        assert_eq!(word, "shutdown");
        client.answer_close(1001);
    }
    drop(http);
    assert_eq!(node.wait().status, Some(0));
}

#[test]
fn a_redis_that_does_not_answer_delays_it_no_longer_than_its_time() {
    let Some(redis) = Redis::start() else { return };
    let mut node = redis.node(&["--redis-timeout", "0.5"]);
    let mut client = subscriber(&node, r#"["c"]"#);
    let mut lane = publisher(&node);
    redis.halt(true);
    lane.send(&message(C));
    wait_for_pending(&node, 1);
    let since = Instant::now();
    node.terminate();
    assert_eq!(lane.text(), unavailable(PERHAPS));
    for client in [&mut client, &mut lane] {
        client.expect_close(1001);
        client.answer_close(1001);
    }
    assert_eq!(node.wait().status, Some(0));
    assert!(since.elapsed() < DEADLINE);
    redis.halt(false);
}

#[test]
fn a_node_that_owes_nothing_stops_at_once() {
    let Some(redis) = Redis::start() else { return };
    let mut node = redis.node(&["--redis-timeout", "60", "--drain-timeout", "60"]);
    redis.halt(true);
    let since = Instant::now();
    node.terminate();
    assert_eq!(node.wait().status, Some(0));
    assert!(since.elapsed() < Duration::from_secs(20));
    redis.halt(false);
}
