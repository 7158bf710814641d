//! Programs that follow one another while the order of notifications is kept in Redis: whatever is on its way there is
//! answered by the program that comes, and nothing is missed, doubled or out of order.

use std::ffi::OsStr;

use super::under_load;
use crate::helpers::http::{Http, post};
use crate::helpers::installed::Installed;
use crate::helpers::numbered::{id_of, numbered_subscriber, publish_kept, wait_for_figure};
use crate::helpers::receipts::without_ids;
use crate::helpers::redis::Redis;
use crate::helpers::{Client, Server, delivery, message, publish, subscriber};

const PUBLISHED: &str = r#"{"type":"published","delivered":1}"#;

const NOT_PUBLISHED: &str = "Redis is out of reach: it was not published";
const PERHAPS: &str = "Redis has not answered in time: it may have been published; with a key it is safe to try again";

fn numbered_text(n: usize) -> String {
    format!(r#"{{"channel":"c","n":{n}}}"#)
}

fn unavailable(detail: &str) -> String {
    format!(r#"{{"type":"error","error":{{"code":"unavailable","detail":"{detail}"}}}}"#)
}

/// So many wait for Redis, or are on their way.
fn wait_for_pending(server: &Server, count: usize) {
    wait_for_figure(server, &format!("crieur_redis_pending {count}"));
}

#[test]
fn ten_handovers_of_a_node_are_noticed_by_nobody() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--ping-interval", "3600"]);
    under_load::ten_handovers(&node);
}

#[test]
fn what_redis_has_not_read_is_answered_by_the_program_that_comes() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "30"]);
    let other = redis.node(&[]);
    let mut clients = [&node, &other].map(|node| subscriber(node, r#"["c"]"#));
    let mut lane = Client::connect_with(&node, "/publish", &[]);
    let mut ephemeral = Client::connect(&node);
    let mut http = Http::connect(&node);
    redis.halt(true);
    let mut count = 0;
    let mut send = |client: &mut Client, node: &Server, times: usize| {
        for _ in 0..times {
            client.send(&message(&numbered_text(count)));
            count += 1;
            wait_for_pending(node, count);
        }
    };
    send(&mut lane, &node, 5);
    lane.send(r#"{"type":"ping"}"#);
    node.hand_over();
    send(&mut lane, &node, 15);
    lane.send("{");
    send(&mut ephemeral, &node, 1);
    http.send(post(&format!(
        "[{},{}]",
        message(&numbered_text(21)),
        message(&numbered_text(22))
    )));
    wait_for_pending(&node, 23);
    node.hand_over();
    wait_for_pending(&node, 23);
    redis.halt(false);
    lane.expect_texts(&[PUBLISHED; 5]);
    assert_eq!(lane.text(), r#"{"type":"pong"}"#);
    lane.expect_texts(&[PUBLISHED; 15]);
    assert!(lane.text().contains("invalid-json"));
    assert_eq!(ephemeral.expect_close(1000), r#"{"delivered":1}"#);
    ephemeral.answer_close(1000);
    let (status, _, body) = http.receive();
    let receipts = r#"[{"delivered":1},{"delivered":1}]"#;
    assert_eq!((status, &without_ids(body)[..]), (200, receipts));
    for client in &mut clients {
        for n in 0..23 {
            assert_eq!(client.text(), delivery(&numbered_text(n)));
        }
    }
    assert_eq!(redis.notifications().len(), 23);
    // The connection of the request goes on.
    http.send(post(&message(&numbered_text(23))));
    assert_eq!(http.receive().0, 200);
}

#[test]
fn what_waits_for_too_long_is_refused_by_the_program_that_comes() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "7"]);
    let mut client = subscriber(&node, r#"["c"]"#);
    let mut lane = Client::connect_with(&node, "/publish", &[]);
    redis.halt(true);
    lane.send(&message(&numbered_text(0)));
    wait_for_pending(&node, 1);
    node.hand_over();
    lane.send(&message(&numbered_text(1)));
    assert_eq!(lane.text(), unavailable(PERHAPS));
    assert_eq!(lane.text(), unavailable(NOT_PUBLISHED));
    redis.halt(false);
    wait_for_figure(&node, "crieur_redis_up 1");
    lane.send(&message(&numbered_text(2)));
    assert_eq!(lane.text(), PUBLISHED);
    // What was sent came through the connection of a program that is gone: it may have been read.
    let texts = [0, 2].map(|n| delivery(&numbered_text(n)));
    let first = client.text();
    assert!(texts.contains(&first), "{first}");
    if first == texts[0] {
        assert_eq!(client.text(), texts[1]);
    }
    publish(&node, r#"{"channel":"c","n":3}"#);
    assert_eq!(client.text(), delivery(&numbered_text(3)));
}

#[test]
fn ids_go_on_and_are_resumed_from() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&[]);
    let mut client = numbered_subscriber(&node, r#"["c"]"#);
    publish(&node, &numbered_text(0));
    let since = id_of(&client.whole_text());
    redis.halt(true);
    node.hand_over();
    let mut again = Client::connect(&node);
    let answer = again.subscribe_since(r#"["c"]"#, &since);
    assert!(answer.contains(r#""resumed":true"#), "{answer}");
    redis.halt(false);
    let id = publish_kept(&node, &numbered_text(1));
    assert_eq!(id_of(&client.whole_text()), id);
}

#[test]
fn a_program_of_another_order_does_not_take_over() {
    let Some(redis) = Redis::start() else { return };
    let url = redis.url();
    let set = |script: &str| format!("{script}\nexec \"$real\" \"$@\"");
    let installed = Installed::new();
    let variables = [("CRIEUR_REDIS", OsStr::new(&url))];
    let node = installed.server_with_environment(&variables);
    for (script, reason) in [
        ("unset CRIEUR_REDIS", "the server before it had --redis"),
        (
            "export CRIEUR_REDIS_STREAM=other",
            "it is of another stream (--redis-stream)",
        ),
    ] {
        installed.install_script(&set(script));
        let said = node.fail_to_hand_over();
        assert!(said.contains(reason), "{said}");
    }
    installed.install();
    node.hand_over();
    publish(&node, &numbered_text(0));

    let installed = Installed::new();
    let alone = installed.server(&[]);
    installed.install_script(&set(&format!("export CRIEUR_REDIS={url}")));
    let said = alone.fail_to_hand_over();
    assert!(
        said.contains("the server before it had no --redis"),
        "{said}"
    );
}
