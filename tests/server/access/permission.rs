//! Permission to publish: programs on this host that mean this host have it, and nobody else.

use crate::helpers::{
    Client, MARKER, Server, close_reason, delivery, error_code, message, publish, subscriber,
};

const C: &str = r#"{"channel":"c"}"#;

/// Fields that only a browser or a proxy sends, and hosts that aren't this one.
const FOREIGN: [&str; 14] = [
    "Origin: http://127.0.0.1",
    "origin: null",
    "Forwarded: for=192.0.2.1",
    "Via: 1.1 proxy",
    "X-Real-IP: 127.0.0.1",
    "X-Forwarded-For: 127.0.0.1",
    "x-forwarded-proto: https",
    "Cookie: a=b",
    "Cookie:",
    "Host: api.example.com",
    "Host: 127.0.0.1.example.com:8000",
    "Host: localhost.example.com",
    "Host: 192.0.2.1",
    "Host: 127.0.0.1:99999",
];

fn assert_forbidden(publisher: &mut Client, message: &str, why: &str) {
    publisher.send(message);
    assert_eq!(error_code(&publisher.text()), "forbidden", "{why}");
    let (word, _) = close_reason(&publisher.expect_close(1008));
    assert_eq!(word, "forbidden", "{why}");
    publisher.answer_close(1008);
}

#[test]
fn a_client_that_is_not_local_may_not_publish_on_any_path() {
    let server = Server::start();
    let mut witness = subscriber(&server, r#"["c","marker"]"#);
    for field in FOREIGN {
        for target in ["/", "/publish"] {
            let mut publisher = Client::connect_with(&server, target, &[field]);
            assert_forbidden(&mut publisher, &message(C), field);
        }
    }
    assert_eq!(publish(&server, MARKER), r#"{"delivered":1}"#);
    assert!(witness.before_marker().is_empty());
}

#[test]
fn permission_is_checked_before_content() {
    let server = Server::start();
    for bad in [
        message("{}"),
        r#"{"sender":"server"}"#.to_owned(),
        r#"{"sender":"server","type":"pong","notification":7}"#.to_owned(),
    ] {
        let mut publisher = Client::connect_with(&server, "/publish", &["Origin: http://a"]);
        assert_forbidden(&mut publisher, &bad, &bad);
    }
}

#[test]
fn what_is_not_json_is_no_attempt_to_publish() {
    let server = Server::start();
    let mut publisher = Client::connect_with(&server, "/", &["Origin: http://a"]);
    publisher.send(r#"{"sender":"server","notification":"#);
    assert_eq!(error_code(&publisher.text()), "invalid-json");
    publisher.subscribe(r#"["c"]"#);
}

#[test]
fn a_client_that_may_not_publish_may_subscribe() {
    let server = Server::start();
    for field in FOREIGN {
        let mut client = Client::connect_with(&server, "/", &[field]);
        client.subscribe(r#"["c"]"#);
        assert_eq!(publish(&server, C), r#"{"delivered":1}"#, "{field}");
        assert_eq!(client.text(), delivery(C));
        client.leave();
    }
}

#[test]
fn this_host_has_several_names() {
    let server = Server::start();
    for host in [
        "Host: localhost",
        "Host: LOCALHOST:8000",
        "Host: 127.0.0.1:65535",
        "Host: 127.1.2.3",
        "Host: [::1]:8000",
    ] {
        let mut publisher = Client::connect_with(&server, "/", &[host]);
        publisher.send(&message(C));
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":0}"#, "{host}");
    }
}

#[test]
fn an_absolute_target_counts_beside_the_host() {
    let server = Server::start();
    let mut local = Client::connect_with(&server, "http://localhost/publish?x", &[]);
    local.send(&message(C));
    assert_eq!(local.text(), r#"{"type":"published","delivered":0}"#);
    let mut foreign = Client::connect_with(&server, "http://example.com/publish", &[]);
    assert_forbidden(&mut foreign, &message(C), "a foreign target");
}

#[test]
fn nobody_may_publish_where_that_is_turned_off() {
    let server = Server::with(&["--no-local-publish"]);
    let mut witness = subscriber(&server, r#"["c"]"#);
    for target in ["/", "/publish"] {
        let mut publisher = Client::connect_with(&server, target, &[]);
        assert_forbidden(&mut publisher, &message(C), target);
    }
    witness.send(r#"{"type":"ping"}"#);
    assert_eq!(witness.text(), r#"{"type":"pong"}"#);
    assert!(
        !server
            .log()
            .contains("Any program on this host may publish")
    );
}

#[test]
fn a_subscriber_that_tries_to_publish_is_closed_and_forgotten() {
    let server = Server::start();
    let mut client = Client::connect_with(&server, "/", &["Origin: http://a"]);
    client.subscribe(r#"["c"]"#);
    assert_forbidden(&mut client, &message(C), "an origin");
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
}
