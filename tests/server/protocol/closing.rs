//! The closing handshake (RFC 6455 §7): which Close answers which, and which side closes TCP when.

use std::time::{Duration, Instant};

use crate::helpers::{
    Client, MARKER, NO_STATUS, Received, Server, close_frame, close_payload, close_reason,
    delivery, frame, message, publish, subscriber,
};

const C: &str = r#"{"channel":"c"}"#;
const PING: &[u8] = br#"{"type":"ping"}"#;

#[test]
fn a_close_is_answered_with_its_code_then_tcp_is_closed() {
    let server = Server::start();
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999,
    ] {
        let mut client = Client::connect(&server);
        client.send_bytes(&close_frame(code));
        assert_eq!(client.expect_close(code), "");
        client.expect_end();
    }
}

#[test]
fn an_empty_close_is_answered_with_an_empty_one() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&close_frame(NO_STATUS));
    client.expect_close(NO_STATUS);
    client.expect_end();
}

#[test]
fn a_close_may_have_the_longest_reason() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let reason = "é".repeat(61) + "!";
    assert_eq!(reason.len(), 123);
    client.send_bytes(&frame(0x88, &close_payload(4000, &reason)));
    client.expect_close(4000);
    client.expect_end();
}

#[test]
fn a_close_may_come_within_a_message() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&[frame(0x01, b"{"), close_frame(1000)].concat());
    client.expect_close(1000);
    client.expect_end();
}

#[test]
fn what_was_asked_before_a_close_is_answered_before_it() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&[frame(0x81, PING), frame(0x89, b"p"), close_frame(1000)].concat());
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
    assert_eq!(client.receive(), Received::Pong(b"p".to_vec()));
    client.expect_close(1000);
    client.expect_end();
}

#[test]
fn nothing_behind_a_close_is_answered() {
    let server = Server::start();
    let mut witness = subscriber(&server, r#"["c","marker"]"#);
    let mut client = Client::connect(&server);
    let publication = frame(0x81, message(C).as_bytes());
    client.send_bytes(
        &[
            close_frame(1000),
            publication,
            frame(0x89, b"p"),
            frame(0x81, PING),
            b"no frame".to_vec(),
        ]
        .concat(),
    );
    client.expect_close(1000);
    client.expect_end();
    publish(&server, MARKER);
    assert!(witness.before_marker().is_empty());
}

#[test]
fn a_client_that_has_closed_is_delivered_nothing() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    client.send_bytes(&close_frame(1000));
    client.expect_close(1000);
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
    client.expect_end();
}

#[test]
fn nothing_is_sent_behind_the_servers_close() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    client.send_bytes(&frame(0x82, b"binary"));
    client.expect_close(1003);
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
    let more = [frame(0x81, PING), frame(0x89, b"p"), frame(0x82, b"binary")].concat();
    client.send_bytes(&more);
    client.answer_close(1003);
}

#[test]
fn any_close_answers_the_servers() {
    let server = Server::start();
    for code in [1003, 1000, 4000, NO_STATUS] {
        let mut client = Client::connect(&server);
        client.send_bytes(&frame(0x82, b"binary"));
        client.expect_close(1003);
        client.answer_close(code);
    }
}

#[test]
fn a_long_message_may_stand_before_the_answer() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&frame(0x82, b"binary"));
    client.expect_close(1003);
    // It was on its way when the server closed; its size is of no interest any more.
    client.send_bytes(&frame(0x81, &vec![b'x'; 300_000]));
    client.answer_close(1003);
}

#[test]
fn a_close_that_is_not_answered_ends_all_the_same() {
    let server = Server::with(&["--close-timeout", "0.3"]);
    let mut client = Client::connect(&server);
    let since = Instant::now();
    client.send_bytes(&frame(0x82, b"binary"));
    client.expect_close(1003);
    client.expect_end();
    assert!(since.elapsed() >= Duration::from_millis(300));
}

#[test]
fn the_reason_of_a_close_says_why_and_when_to_come_back() {
    let server = Server::with(&["--max-message-bytes", "1000", "--max-publish-bytes", "1000"]);
    for (bytes, code, word) in [
        (frame(0x82, b""), 1003, "binary-message"),
        (frame(0x83, b""), 1002, "protocol-error"),
        (frame(0x81, b"\xff"), 1007, "invalid-utf8"),
        (frame(0x81, &[b' '; 1001]), 1009, "message-too-big"),
    ] {
        let mut client = Client::connect(&server);
        client.send_bytes(&bytes);
        let (reason, retry) = close_reason(&client.expect_close(code));
        assert_eq!(reason, word);
        assert!((1..=60_000).contains(&retry), "{retry}");
    }
}

#[test]
fn a_client_that_hangs_up_is_forgotten() {
    let server = Server::with(&["--log", "debug"]);
    let mut stays = subscriber(&server, r#"["c"]"#);
    drop(subscriber(&server, r#"["c"]"#));
    server.wait_for_line("is gone");
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(stays.text(), delivery(C));
}
