//! Clients that send more than they may: they are read later. Nothing is lost, nobody is closed,
//! nobody else notices.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use crate::helpers::http::{Http, figures};
use crate::helpers::secrets::SecretFile;
use crate::helpers::{
    Client, Received, Server, close_frame, close_reason, delivery, frame, message, publish,
    upgrade_to,
};

const C: &str = r#"{"channel":"c"}"#;
const PONG: &str = r#"{"type":"pong"}"#;

/// What makes a client of this machine one that may not publish.
const FOREIGN: &str = "X-Forwarded-For: 192.0.2.1";

/// One frame a second, and two at once.
const SLOW: [&str; 2] = ["--messages-per-second", "1"];

fn client(server: &Server) -> Client {
    Client::connect_with(server, "/", &[FOREIGN])
}

fn ping() -> Vec<u8> {
    frame(0x81, br#"{"type":"ping"}"#)
}

/// A client that is not read for the next `seconds`.
fn throttled(server: &Server, seconds: usize) -> Client {
    let mut client = client(server);
    throttle(&mut client, seconds);
    client
}

fn throttle(client: &mut Client, seconds: usize) {
    client.send_bytes(&ping().repeat(seconds + 2));
    client.expect_texts(&vec![PONG; seconds + 2]);
}

/// How often the server has not read.
fn throttled_reads(server: &Server) -> u64 {
    let figures = figures(server);
    let mut lines = figures.lines();
    let count = lines.find_map(|line| line.strip_prefix("crieur_reads_throttled_total "));
    count.expect("it is counted").parse().expect("a number")
}

#[test]
fn nothing_is_delayed_at_the_rate() {
    let flags = ["--messages-per-second", "50", "--bytes-per-second", "10000"];
    let server = Server::with(&flags);
    let mut client = client(&server);
    throttle(&mut client, 0);
    // Everything that two seconds allow.
    client.send_bytes(&ping().repeat(98));
    client.expect_texts(&[PONG; 98]);
    client.leave();
    assert_eq!(throttled_reads(&server), 0);
}

#[test]
fn one_more_makes_the_next_one_wait() {
    for (flags, size) in [
        (["--messages-per-second", "1"], 0),
        (["--bytes-per-second", "4000"], 24_000),
    ] {
        let server = Server::with(&flags);
        let mut client = client(&server);
        let since = Instant::now();
        for number in 0..4 {
            let text = format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(size));
            client.send(&text);
            assert_eq!(client.text(), PONG, "{number}");
        }
        assert!(since.elapsed() >= Duration::from_secs(1), "{flags:?}");
        drop(client);
        assert!(throttled_reads(&server) >= 1);
    }
}

#[test]
fn beyond_the_rate_answers_come_late_but_all_and_in_order() {
    let server = Server::with(&["--messages-per-second", "40"]);
    let mut client = client(&server);
    let since = Instant::now();
    for round in 0..4 {
        let pings = (0..50u8).map(|number| frame(0x89, &[round, number]));
        client.send_bytes(&pings.collect::<Vec<_>>().concat());
        for number in 0..50 {
            assert_eq!(client.receive(), Received::Pong(vec![round, number]));
        }
    }
    client.send_bytes(&ping());
    assert_eq!(client.text(), PONG);
    // 200 came before this one, 80 of them free.
    assert!(since.elapsed() >= Duration::from_secs(3));
    client.leave();
}

#[test]
fn fragments_count() {
    let server = Server::with(&SLOW);
    let mut client = client(&server);
    let since = Instant::now();
    let begun = frame(0x01, br#"{"type":"#);
    let empty = frame(0x00, b"");
    let message = [begun, empty.repeat(2), frame(0x80, br#""ping"}"#)].concat();
    client.send_bytes(&message);
    assert_eq!(client.text(), PONG);
    client.send_bytes(&ping());
    assert_eq!(client.text(), PONG);
    assert!(since.elapsed() >= Duration::from_secs(2));
}

#[test]
fn deliveries_go_out_at_once_and_others_are_heard() {
    let server = Server::with(&SLOW);
    let mut slow = client(&server);
    slow.subscribe(r#"["c"]"#);
    // Longer than any test may take.
    throttle(&mut slow, 1000);
    slow.send_bytes(&ping());
    for _ in 0..100 {
        assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
        assert_eq!(slow.text(), delivery(C));
    }
    let mut other = client(&server);
    other.send_bytes(&ping());
    assert_eq!(other.text(), PONG);
}

#[test]
fn a_publisher_is_not_limited() {
    let server = Server::with(&["--messages-per-second", "1", "--bytes-per-second", "1"]);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let text = format!(r#"{{"channel":"c","text":"{}"}}"#, "x".repeat(1000));
    for _ in 0..200 {
        publisher.send(&message(&text));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":0}"#);
    }
    publisher.leave();
    assert_eq!(throttled_reads(&server), 0);
}

#[test]
fn a_throttled_client_is_not_taken_for_dead() {
    let times = ["--ping-interval", "0.1", "--pong-timeout", "1"];
    let server = Server::with(&[&SLOW[..], &times].concat());
    let since = Instant::now();
    let mut client = throttled(&server, 3);
    client.send_bytes(&ping());
    loop {
        match client.receive() {
            Received::Ping(_) => {}
            other => {
                assert_eq!(other, Received::Text(PONG.to_owned()));
                break;
            }
        }
    }
    assert!(since.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_throttled_client_has_its_message_finished_later() {
    let server = Server::with(&[&SLOW[..], &["--message-timeout", "1"]].concat());
    let mut client = client(&server);
    let whole = ping();
    let (begun, rest) = whole.split_at(10);
    client.send_bytes(&[&whole.repeat(5), begun].concat());
    client.expect_texts(&[PONG; 5]);
    client.send_bytes(rest);
    assert_eq!(client.text(), PONG);
}

#[test]
fn a_throttled_client_is_closed_as_everybody_is() {
    let mut server = Server::with(&[&SLOW[..], &["--drain-timeout", "600"]].concat());
    let mut client = throttled(&server, 1000);
    client.send_bytes(&ping());
    server.terminate();
    assert_eq!(close_reason(&client.expect_close(1001)).0, "shutdown");
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_throttled_client_that_hangs_up_gives_its_place_back() {
    let flags = ["--max-connections", "1", "--log", "debug"];
    let server = Server::with(&[&SLOW[..], &flags].concat());
    let mut client = throttled(&server, 1000);
    client.send_bytes(&ping());
    drop(client);
    server.wait_for_line("hung up without a close");
    let mut next = self::client(&server);
    next.send_bytes(&ping());
    assert_eq!(next.text(), PONG);
}

#[test]
fn a_flood_backs_up_at_its_source() {
    const BYTES_MAX: usize = 256 * 1024 * 1024;
    let server = Server::with(&["--bytes-per-second", "1000"]);
    let mut stream = server.tcp();
    let head = upgrade_to("/", &[FOREIGN]);
    stream.write_all(head.as_bytes()).expect("the server reads");
    let timeout = Duration::from_secs(2);
    stream.set_write_timeout(Some(timeout)).expect("not zero");
    // Nobody answers a Pong, so that nothing but the rate stops them.
    let pongs = frame(0x8a, b"").repeat(64 * 1024 / 6);
    let mut written = 0;
    let error = loop {
        assert!(written < BYTES_MAX, "it is read as fast as it comes");
        match stream.write(&pongs) {
            Ok(length) => written += length,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let mut other = client(&server);
    other.send_bytes(&ping());
    assert_eq!(other.text(), PONG);
}

#[test]
fn a_throttled_publisher_is_drained_after_a_hang_up() {
    let file = SecretFile::new("correct-horse-battery-staple\n");
    let server = Server::with(&[
        "--publish-token-file",
        file.path(),
        "--bytes-per-second",
        "1000",
        "--max-message-bytes",
        "1000000",
    ]);
    let mut subscriber = Client::connect(&server);
    subscriber.subscribe(r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/", &[FOREIGN]);
    let text = "x".repeat(80_000);
    let notification = format!(r#"{{"channel":"c","text":"{text}"}}"#);
    publisher.send(&format!(
        r#"{{"sender":"server","token":"correct-horse-battery-staple","notification":{notification}}}"#
    ));
    drop(publisher);
    assert!(subscriber.text() == delivery(&notification));
}

#[test]
fn requests_over_http_count() {
    let server = Server::with(&SLOW);
    let request = format!("GET /livez HTTP/1.1\r\nHost: a\r\n{FOREIGN}\r\n\r\n");
    let mut http = Http::connect(&server);
    let since = Instant::now();
    for _ in 0..2 {
        http.send(request.repeat(2));
        for _ in 0..2 {
            assert_eq!(http.receive().0, 200);
        }
    }
    // Two were free, the second two had to be paid for.
    http.send(&request);
    assert_eq!(http.receive().0, 200);
    assert!(since.elapsed() >= Duration::from_secs(2));
    // What is asked from this host is free.
    let mut local = Http::connect(&server);
    let since = Instant::now();
    local.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
    for _ in 0..100 {
        assert_eq!(local.receive().0, 200);
    }
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_flood_does_not_hide_a_close_for_long() {
    let server = Server::with(&SLOW);
    let mut client = client(&server);
    // Hours of debt, if all of it had to be paid.
    client.send_bytes(&frame(0x89, b"").repeat(600));
    for _ in 0..600 {
        assert_eq!(client.receive(), Received::Pong(Vec::new()));
    }
    client.send_bytes(&close_frame(1000));
    client.expect_close(1000);
    client.expect_end();
}
