//! Heartbeats: which connections are pinged, which are dropped, which live on.

use std::time::{Duration, Instant};

use crate::helpers::{
    Client, Received, Server, close_reason, delivery, frame, publish, subscriber,
};

const C: &str = r#"{"channel":"c"}"#;

/// Times after which a silent peer is dropped soon.
const SHORT: [&str; 4] = ["--ping-interval", "0.5", "--pong-timeout", "0.5"];

/// Times that leave a busy machine room, but end within a test.
const PINGS: [&str; 4] = ["--ping-interval", "0.1", "--pong-timeout", "2"];

/// Longer than a silent peer would live with [`PINGS`].
const LIFETIME: Duration = Duration::from_millis(2500);

#[test]
fn a_silent_peer_is_pinged() {
    let server = Server::with(&["--ping-interval", "0.2"]);
    let since = Instant::now();
    let mut client = Client::connect(&server);
    assert!(matches!(client.receive(), Received::Ping(_)));
    assert!(since.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_peer_that_talks_is_not_pinged() {
    let server = Server::with(&["--ping-interval", "2"]);
    let mut client = Client::connect(&server);
    let since = Instant::now();
    while since.elapsed() < LIFETIME {
        client.send(r#"{"type":"ping"}"#);
        assert_eq!(client.text(), r#"{"type":"pong"}"#);
    }
}

#[test]
fn a_peer_that_answers_nothing_is_dropped_and_forgotten() {
    let server = Server::with(&SHORT);
    let since = Instant::now();
    let mut client = subscriber(&server, r#"["c"]"#);
    assert!(matches!(client.receive(), Received::Ping(_)));
    // Dropped: TCP is closed without a Close.
    client.expect_end();
    assert!(since.elapsed() >= Duration::from_secs(1));
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
}

#[test]
fn deliveries_alone_keep_nobody_alive() {
    let server = Server::with(&SHORT);
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut deliveries = 0;
    while publish(&server, C) == r#"{"delivered":1}"# {
        deliveries += 1;
    }
    let mut received = 0;
    loop {
        match client.receive() {
            Received::Text(text) if text == delivery(C) => received += 1,
            Received::Ping(_) => {}
            Received::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, deliveries);
}

#[test]
fn a_peer_that_answers_pings_lives_on() {
    let server = Server::with(&PINGS);
    let mut client = subscriber(&server, r#"["c"]"#);
    let since = Instant::now();
    while since.elapsed() < LIFETIME {
        match client.receive() {
            Received::Ping(payload) => client.send_bytes(&frame(0x8a, &payload)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let server = Server::with(&PINGS);
    let mut client = subscriber(&server, r#"["c"]"#);
    let message = frame(0x81, &[b' '; 10_000]);
    let mut bytes = message.iter();
    let since = Instant::now();
    while since.elapsed() < LIFETIME {
        assert!(matches!(client.receive(), Received::Ping(_)));
        let byte = bytes.next().expect("a long message");
        client.send_bytes(&[*byte]);
    }
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
}

#[test]
fn a_message_that_never_ends_is_closed_with_1008() {
    let server = Server::with(&["--message-timeout", "0.3"]);
    let whole = frame(0x81, &[b' '; 200]);
    for begun in [
        &frame(0x01, b"{")[..],
        &whole[..1],
        &whole[..3],
        &whole[..50],
    ] {
        let since = Instant::now();
        let mut client = subscriber(&server, r#"["c"]"#);
        client.send_bytes(begun);
        let (word, _) = close_reason(&client.expect_close(1008));
        assert_eq!(word, "unfinished-message");
        assert!(since.elapsed() >= Duration::from_millis(300));
        client.expect_end();
        assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
    }
}

#[test]
fn dribbling_does_not_prolong_a_message() {
    let server = Server::with(&["--message-timeout", "0.5", "--ping-interval", "0.05"]);
    let mut client = Client::connect(&server);
    client.send_bytes(&frame(0x01, b"{"));
    // Each Ping is answered, and with a piece of the message.
    loop {
        match client.receive() {
            Received::Ping(payload) => {
                let pong = frame(0x8a, &payload);
                client.send_bytes(&[pong, frame(0x00, b" ")].concat());
            }
            Received::Close(code, _) => {
                assert_eq!(code, 1008);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_message_that_ends_in_time_is_forgotten() {
    let server = Server::with(&["--message-timeout", "2", "--ping-interval", "2.5"]);
    let mut client = Client::connect(&server);
    client.send_bytes(&frame(0x01, br#"{"type":"#));
    client.send_bytes(&frame(0x80, br#""ping"}"#));
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
    // The Ping comes after the message's time.
    assert!(matches!(client.receive(), Received::Ping(_)));
}
