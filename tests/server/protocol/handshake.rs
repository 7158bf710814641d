//! The opening handshake (RFC 6455 §4): what is taken, and how the rest is refused.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::helpers::{
    Client, DEADLINE, Received, Server, UPGRADE_FIELDS, delivery, frame, message, publish,
    response, subscriber, upgrade, upgrade_to,
};

const C: &str = r#"{"channel":"c"}"#;

/// The upgrade without the fields of that name.
fn upgrade_without(name: &str) -> String {
    let fields = UPGRADE_FIELDS
        .into_iter()
        .filter(|field| !field.starts_with(name));
    let lines: String = fields.map(|field| format!("{field}\r\n")).collect();
    format!("GET / HTTP/1.1\r\n{lines}\r\n")
}

/// Checks that `request` is refused with `status`, and returns the head of the answer.
fn refusal(server: &Server, request: &str, status: u16) -> String {
    let mut stream = server.tcp();
    stream
        .write_all(request.as_bytes())
        .expect("the server reads");
    let (head, body) = response(&mut stream);
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{request:?}: {head}"
    );
    let is_last = |line: &str| line.starts_with("Connection: ") && line.ends_with("close");
    assert!(head.lines().any(is_last), "{head}");
    assert!(!body.trim().is_empty(), "{head}");
    head
}

#[test]
fn upgrades_that_may_look_otherwise() {
    let server = Server::start();
    for (target, fields) in [
        ("/", &[][..]),
        ("/any/path?and=query", &[]),
        ("http://127.0.0.1/", &[]),
        ("/", &["connection: keep-alive, UPGRADE"]),
        ("/", &["Connection: keep-alive", "Connection: ,upgrade"]),
        ("/", &["UPGRADE: h2c, WebSocket"]),
        ("/", &["host:\t127.0.0.1:8000 "]),
        ("/", &["Content-Length: 0"]),
        ("/", &["Sec-WebSocket-Extensions: permessage-deflate"]),
        ("/", &["Sec-WebSocket-Protocol: chat, superchat"]),
    ] {
        let mut client = Client::connect_with(&server, target, fields);
        client.subscribe("[]");
    }
}

#[test]
fn no_extension_and_no_subprotocol_is_chosen() {
    let server = Server::start();
    let mut stream = server.tcp();
    let fields = [
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Protocol: chat",
    ];
    stream
        .write_all(&[upgrade_to("/", &fields).into_bytes(), frame(0x88, b"")].concat())
        .expect("the server reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a close");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(
        !answer.contains("Extensions") && !answer.contains("Protocol:"),
        "{answer}"
    );
}

#[test]
fn every_rule_of_the_request() {
    let server = Server::start();
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (request, status) in [
        (upgrade().replace("GET", "POST"), 405),
        (upgrade().replace("GET", "get"), 405),
        (upgrade().replace("HTTP/1.1", "HTTP/2.0"), 505),
        (upgrade_without("Host"), 400),
        (upgrade_to("/", &["Host:"]), 400),
        (upgrade_to("/", &["Host: a", "Host: a"]), 400),
        (upgrade_to("/", &["Host: a b/?@"]), 400),
        (upgrade_without("Connection"), 400),
        (upgrade_to("/", &["Connection: keep-alive"]), 400),
        (upgrade_to("/", &["Connection: upgraded"]), 400),
        (upgrade_without("Sec-WebSocket-Key"), 400),
        (upgrade_to("/", &["Sec-WebSocket-Key: c2hvcnQ="]), 400),
        (
            upgrade_to("/", &["Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="]),
            400,
        ),
        (upgrade_to("/", &[key, key]), 400),
        (upgrade_to("/", &["Content-Length: 5"]), 400),
        (upgrade_to("/", &["Transfer-Encoding: chunked"]), 400),
    ] {
        refusal(&server, &request, status);
    }
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let server = Server::start();
    for field in ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 8"] {
        let head = refusal(&server, &upgrade_to("/", &[field]), 426);
        assert!(head.contains("\r\nSec-WebSocket-Version: 13"), "{head}");
    }
    refusal(&server, &upgrade_without("Sec-WebSocket-Version"), 426);
}

#[test]
fn what_asks_for_no_upgrade_is_told_to() {
    let server = Server::start();
    for request in [
        upgrade_without("Upgrade"),
        upgrade_to("/", &["Upgrade: h2c"]),
        // RFC 9110 §7.8: HTTP/1.0 has no upgrade.
        upgrade().replace("HTTP/1.1", "HTTP/1.0"),
        upgrade_to("/any/path", &[]).replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let head = refusal(&server, &request, 426);
        assert!(head.contains("\r\nUpgrade: websocket"), "{head}");
    }
}

#[test]
fn malformed_heads_are_refused() {
    let server = Server::start();
    for request in [
        upgrade_to("/", &["Host : 127.0.0.1"]),
        upgrade_to("/", &["X: a\r\n folded"]),
        upgrade_to("/", &["no colon"]),
        upgrade_to("/", &[": no name"]),
        upgrade_to("/", &["X: \0"]),
        upgrade_to("/", &["X: a\nY: b"]),
        upgrade_to("/with space", &[]),
        upgrade_to("", &[]),
        upgrade().replace("HTTP/1.1", "HTTP/1"),
        "\n".to_owned() + &upgrade(),
        "\r\n".repeat(5) + &upgrade(),
        " GET".to_owned(),
        "\u{16}\u{3}\u{1}".to_owned(),
        "GET /\r\n\r\n".to_owned(),
    ] {
        refusal(&server, &request, 400);
    }
}

#[test]
fn a_head_may_be_as_large_as_the_limit_and_no_larger() {
    let server = Server::with(&["--max-head-bytes", "1000"]);
    let padded = |length: usize| {
        let rest = upgrade_to("/", &["X: "]).len();
        upgrade_to("/", &[&format!("X: {}", "x".repeat(length - rest))])
    };
    let mut client = Client::over(server.tcp());
    client.send_bytes(padded(1000).as_bytes());
    client.expect_upgrade();
    refusal(&server, &padded(1001), 431);
    // One that never ends is refused as soon as it is too long.
    refusal(&server, &padded(1500)[..1000], 431);
}

#[test]
fn a_head_has_not_more_than_a_hundred_fields() {
    let server = Server::start();
    let fields = |count: usize| vec!["X: y"; count - UPGRADE_FIELDS.len()];
    drop(Client::connect_with(&server, "/", &fields(100)));
    refusal(&server, &upgrade_to("/", &fields(101)), 431);
}

#[test]
fn a_refusal_is_read_whole_by_who_goes_on_sending() {
    let server = Server::start();
    let mut stream = server.tcp();
    let request = upgrade().replace("GET", "POST");
    let body = vec![b'x'; 20_000];
    stream
        .write_all(&[request.as_bytes(), &body].concat())
        .expect("the server reads");
    let (head, _) = response(&mut stream);
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
}

#[test]
fn an_upgrade_may_come_byte_by_byte() {
    let server = Server::start();
    let mut client = Client::over(server.tcp());
    for byte in upgrade().as_bytes() {
        client.send_bytes(&[*byte]);
    }
    client.expect_upgrade();
    client.subscribe("[]");
}

#[test]
fn an_upgrade_may_be_split_anywhere() {
    let server = Server::start();
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    // RFC 9112 §2.2: an empty line before a request is passed over.
    let bytes = [b"\r\n", upgrade().as_bytes(), &ping].concat();
    for middle in 1..bytes.len() {
        let mut client = Client::over(server.tcp());
        client.send_bytes(&bytes[..middle]);
        client.send_bytes(&bytes[middle..]);
        client.expect_upgrade();
        assert_eq!(client.text(), r#"{"type":"pong"}"#, "split at {middle}");
    }
}

#[test]
fn the_first_message_may_come_with_the_upgrade() {
    let server = Server::start();
    let mut client = Client::over(server.tcp());
    let subscribe = frame(0x81, br#"{"sender":"client","subscriptions":["c"]}"#);
    client.send_bytes(&[upgrade().as_bytes(), &subscribe].concat());
    client.expect_upgrade();
    assert!(client.text().starts_with(r#"{"type":"subscribed","#));
    publish(&server, C);
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn an_upgrade_that_is_not_finished_in_time_gets_408() {
    let server = Server::with(&["--handshake-timeout", "0.2"]);
    for begun in ["", "G", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"] {
        let since = Instant::now();
        refusal(&server, begun, 408);
        assert!(since.elapsed() >= Duration::from_millis(200));
    }
}

#[test]
fn dribbling_does_not_prolong_a_handshake() {
    let server = Server::with(&["--handshake-timeout", "0.3"]);
    let mut stream = server.tcp();
    let head = upgrade();
    let begun = head.strip_suffix("\r\n").expect("an empty line").to_owned() + "X: ";
    stream
        .write_all(begun.as_bytes())
        .expect("the server reads");
    // A byte every 20 ms, until the answer comes.
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("not zero");
    let since = Instant::now();
    while stream.peek(&mut [0]).is_err() {
        assert!(since.elapsed() < DEADLINE);
        stream.write_all(b"x").expect("the server reads");
    }
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let (head, _) = response(&mut stream);
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
}

#[test]
fn a_full_server_refuses_the_upgrade_until_there_is_room() {
    let server = Server::with(&["--max-connections", "2"]);
    let first = subscriber(&server, r#"["c"]"#);
    let mut second = subscriber(&server, r#"["c"]"#);
    for _ in 0..3 {
        let head = refusal(&server, &upgrade(), 503);
        let (_, retry) = head.split_once("\r\nRetry-After: ").expect("a Retry-After");
        let seconds: String = retry.chars().take_while(char::is_ascii_digit).collect();
        assert!((1..=60).contains(&seconds.parse().unwrap_or(0)), "{head}");
    }
    first.leave();
    let mut third = subscriber(&server, r#"["c"]"#);
    third.send(&message(C));
    assert_eq!(third.text(), delivery(C));
    assert_eq!(third.expect_close(1000), r#"{"delivered":2}"#);
    assert_eq!(second.text(), delivery(C));
}

#[test]
fn connections_without_a_handshake_take_no_place() {
    let server = Server::with(&["--max-connections", "2"]);
    let idle: Vec<_> = (0..10).map(|_| server.tcp()).collect();
    let mut client = subscriber(&server, r#"["c"]"#);
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.receive(), Received::Text(delivery(C)));
    drop(idle);
}
