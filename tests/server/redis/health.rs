//! What monitors are told of Redis.

use crate::helpers::Server;
use crate::helpers::http::{Http, figures, post};
use crate::helpers::numbered::{numbered_subscriber, publish_all, wait_for_figure, wait_until};
use crate::helpers::redis::Redis;
use crate::helpers::{message, run, subscriber};

use super::{C, figure, keyed};

/// The status and the text of an answer.
fn asked(node: &Server, path: &str) -> (u16, String) {
    let mut http = Http::connect(node);
    http.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let (status, _, text) = http.receive();
    (status, text)
}

#[test]
fn healthz_says_whether_redis_is_there_and_livez_does_not() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let node = redis.node(&["--redis-timeout", "0.3"]);
    let is_well = (200, "ok\n".to_owned());
    let is_ill = (503, "redis is out of reach\n".to_owned());
    let wait_for = |expected: &(u16, String)| {
        wait_until("healthz says so", || asked(&node, "/healthz") == *expected);
        assert_eq!(asked(&node, "/livez"), is_well);
    };
    assert_eq!(asked(&node, "/healthz"), is_well);
    redis.halt(true);
    wait_for(&is_ill);
    wait_for_figure(&node, "crieur_redis_up 0");
    let url = format!("http://{}/", node.address());
    let told = run(&["health", "--url", &url], "");
    let why = "healthz: the server answered 503: redis is out of reach";
    let expected = (Some(1), format!("crieur: {url}{why}\n"));
    assert_eq!((told.status, told.stderr), expected);
    let lives = run(&["health", "--live", "--url", &url], "");
    assert_eq!((lives.status, lives.stdout.as_str()), (Some(0), "ok\n"));
    redis.halt(false);
    wait_for(&is_well);
    wait_for_figure(&node, "crieur_redis_up 1");
    redis.kill();
    wait_for(&is_ill);
    wait_for_figure(&node, "crieur_redis_up 0");
    redis.start_again();
    wait_for(&is_well);
    assert!(figure(&node, "crieur_redis_connects_total") >= 2.0);
}

#[test]
fn a_moment_without_redis_is_no_illness() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "20"]);
    for round in 2..7 {
        redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
        wait_until("it is back", || {
            assert_eq!(asked(&node, "/healthz").0, 200);
            figure(&node, "crieur_redis_connects_total") as u64 == round
        });
    }
}

#[test]
fn figures_count_what_goes_to_redis_and_comes_from_there() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let _client = subscriber(&nodes[1], r#"["c"]"#);
    let read = r#"crieur_redis_entries_total{direction="read"}"#;
    let written = r#"crieur_redis_entries_total{direction="written"}"#;
    let before = nodes
        .each_ref()
        .map(|node| [read, written].map(|name| figure(node, name)));
    publish_all(&nodes[0], &[C; 10]);
    let mut http = Http::connect(&nodes[0]);
    http.send(post(&format!("[{},{}]", message(C), keyed("k", C))));
    http.expect(200, r#"[{"delivered":0},{"delivered":0}]"#);
    redis.xadd(&message(C));
    redis.xadd("{");
    for (node, [before_read, before_written]) in nodes.iter().zip(before) {
        wait_until("all is read", || {
            figure(node, read) as u64 == before_read as u64 + 14
        });
        let is_first = std::ptr::eq(node, &raw const nodes[0]);
        // Redis may answer later than what was written comes back. An array is one round trip.
        let of_it = if is_first { [12, 11] } else { [0, 0] };
        wait_until("all is answered", || {
            let trips = figure(node, "crieur_redis_round_trip_seconds_count");
            [figure(node, written) - before_written, trips].map(|count| count as usize) == of_it
        });
        wait_for_figure(node, "crieur_redis_pending 0");
        assert_eq!(figure(node, "crieur_redis_entries_invalid_total") as u64, 1);
        assert_eq!(figure(node, "crieur_redis_up") as u64, 1);
        assert_eq!(figure(node, "crieur_redis_lag_seconds") as u64, 0);
        assert_eq!(figure(node, "crieur_redis_connects_total") as u64, 1);
        for reason in ["lost", "trimmed"] {
            let name = format!(r#"crieur_redis_doubts_total{{reason="{reason}"}}"#);
            assert_eq!(figure(node, &name) as u64, 0);
        }
        for reason in ["unreachable", "full", "unanswered", "redis"] {
            let name = format!(r#"crieur_redis_refused_total{{reason="{reason}"}}"#);
            assert_eq!(figure(node, &name) as u64, 0);
        }
        assert_eq!(figure(node, "crieur_gaps_total") as u64, 0);
    }
    let name = r#"crieur_notifications_total{result="delivered"}"#;
    assert_eq!(figure(&nodes[0], name), figure(&nodes[1], name));
}

#[test]
fn gaps_are_counted_by_the_clients_that_were_told() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-timeout", "0.3"]);
    let mut clients: Vec<_> = (0..30)
        .map(|_| numbered_subscriber(&node, r#"["c"]"#))
        .collect();
    let _plain = subscriber(&node, r#"["c"]"#);
    publish_all(&node, &[C]);
    redis.ask(&["FLUSHALL"]);
    for client in &mut clients {
        client.whole_text();
        let text = client.whole_text();
        assert!(text.starts_with(r#"{"type":"gap","#), "{text}");
    }
    wait_for_figure(&node, "crieur_gaps_total 30");
    wait_for_figure(&node, r#"crieur_redis_doubts_total{reason="lost"} 1"#);
    // Without Redis there is none of these.
    let alone = figures(&Server::start());
    assert!(
        !alone.contains("crieur_redis") && !alone.contains("crieur_gaps"),
        "{alone}"
    );
}
