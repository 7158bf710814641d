//! Clients that read too slowly, or not at all: they cost nobody else anything.
//!
//! Nothing is kept here for clients that are behind, but where it changes nothing; `behind` is about those.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::helpers::http::{figures, post};
use crate::helpers::{
    Client, Received, Server, close_reason, delivery, error_code, frame, message, publish,
    subscriber, upgrade,
};

const NO_HISTORY: [&str; 2] = ["--history-bytes", "0"];

/// A subscriber to `c` whose connection backs up soon.
fn narrow_subscriber(server: &Server) -> Client {
    let mut client = Client::over(server.narrow_tcp());
    client.send_bytes(upgrade().as_bytes());
    client.expect_upgrade();
    client.subscribe(r#"["c"]"#);
    client
}

/// A notification of some 16 KB.
fn notification(number: usize) -> String {
    let text = char::from(b'a' + (number % 26) as u8).to_string();
    format!(
        r#"{{"channel":"c","n":{number},"text":"{}"}}"#,
        text.repeat(16_000)
    )
}

/// Reads the notifications from the first on, then the Close 1013; says how many there were.
fn read_until_cut_off(client: &mut Client, word: &str) -> usize {
    let mut count = 0;
    loop {
        match client.receive() {
            Received::Text(text) => assert!(text == delivery(&notification(count)), "{count}"),
            Received::Close(1013, reason) => {
                assert_eq!(close_reason(&reason).0, word);
                client.expect_end();
                return count;
            }
            other => panic!("{other:?}"),
        }
        count += 1;
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_others_get_everything() {
    let server = Server::with(
        &[
            &NO_HISTORY[..],
            &["--send-queue-bytes", "65536", "--close-timeout", "30"],
        ]
        .concat(),
    );
    let mut slow = narrow_subscriber(&server);
    let mut fast = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let mut number = 0;
    loop {
        assert!(number < 4000, "nothing backs up");
        publisher.send(&message(&notification(number)));
        let answer = publisher.text();
        assert!(fast.text() == delivery(&notification(number)), "{number}");
        number += 1;
        match answer.as_str() {
            r#"{"type":"published","delivered":2}"# => {}
            r#"{"type":"published","delivered":1,"dropped":1}"# => break,
            other => panic!("{other}"),
        }
    }
    publisher.send(&message(&notification(number)));
    assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
    // What had begun to be written is whole, and nothing is missing before it.
    let count = read_until_cut_off(&mut slow, "slow-consumer");
    assert!(count < number, "{count} of {number}");
    server.wait_for_line("closed with 1013");
}

#[test]
fn an_ephemeral_publisher_is_told_how_many_were_cut_off() {
    let server = Server::with(&[&NO_HISTORY[..], &["--send-queue-bytes", "65536"]].concat());
    let slow = [narrow_subscriber(&server), narrow_subscriber(&server)];
    let mut dropped = 0;
    for number in 0.. {
        assert!(number < 4000, "nothing backs up");
        match publish(&server, &notification(number)).as_str() {
            r#"{"delivered":2}"# | r#"{"delivered":1}"# => {}
            r#"{"delivered":1,"dropped":1}"# | r#"{"delivered":0,"dropped":1}"# => dropped += 1,
            r#"{"delivered":0,"dropped":2}"# => dropped += 2,
            other => panic!("{other}"),
        }
        if dropped == 2 {
            break;
        }
    }
    assert_eq!(publish(&server, &notification(0)), r#"{"delivered":0}"#);
    drop(slow);
}

#[test]
fn a_client_that_reads_in_the_end_gets_everything() {
    let server = Server::with(&[&NO_HISTORY[..], &["--send-queue-bytes", "16000000"]].concat());
    let mut slow = narrow_subscriber(&server);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for number in 0..800 {
        publisher.send(&message(&notification(number)));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
    }
    for number in 0..800 {
        assert!(slow.text() == delivery(&notification(number)), "{number}");
    }
}

#[test]
fn a_slow_download_is_a_sign_of_life() {
    // The reader takes longer than a silent or a stuck one would be given.
    let times = [
        "--ping-interval",
        "0.3",
        "--pong-timeout",
        "3",
        "--write-timeout",
        "3",
    ];
    let server = Server::with(&[&["--send-queue-bytes", "64000000"][..], &times].concat());
    let mut slow = narrow_subscriber(&server);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = Client::connect_with(&server, "/publish", &[]);
            for number in 0..1000 {
                publisher.send(&message(&notification(number)));
                drop(publisher.receive());
            }
        });
        read_slowly(&mut slow, 1000);
    });
}

/// Reads the notifications from the first on, each 3.6 ms after the last.
fn read_slowly(slow: &mut Client, count: usize) {
    let since = Instant::now();
    let mut number = 0;
    while number < count {
        match slow.receive() {
            Received::Text(text) => {
                assert!(text == delivery(&notification(number)), "{number}");
                number += 1;
            }
            Received::Ping(payload) => slow.send_bytes(&frame(0x8a, &payload)),
            other => panic!("{other:?} after {number}"),
        }
        // To be slow is what this is about.
        let due = Duration::from_micros(3600) * number as u32;
        thread::sleep(due.saturating_sub(since.elapsed()));
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut_off_in_time() {
    let times = ["--write-timeout", "0.5", "--close-timeout", "30"];
    let server = Server::with(&[&["--send-queue-bytes", "64000000"][..], &times].concat());
    let mut slow = narrow_subscriber(&server);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for number in 0..1000 {
        publisher.send(&message(&notification(number)));
        drop(publisher.text());
    }
    server.wait_for_line("closed with 1013");
    assert!(read_until_cut_off(&mut slow, "slow-consumer") < 1000);
}

#[test]
fn a_client_that_asks_without_reading_the_answers_is_cut_off() {
    let server = Server::with(&["--send-queue-bytes", "65536", "--close-timeout", "30"]);
    let mut client = narrow_subscriber(&server);
    let questions = frame(0x81, b"x").repeat(200_000);
    client.send_bytes(&questions);
    // A client that reads meanwhile may be fast enough for all answers.
    server.wait_for_line("closed with 1013");
    let mut answers = 0;
    loop {
        match client.receive() {
            Received::Text(text) => assert_eq!(error_code(&text), "invalid-json"),
            Received::Close(1013, _) => break,
            other => panic!("{other:?}"),
        }
        answers += 1;
    }
    assert!(answers < 200_000);
}

#[test]
fn pings_that_nobody_reads_the_answers_of_harm_nobody() {
    let server = Server::with(&["--send-queue-bytes", "65536"]);
    let mut client = narrow_subscriber(&server);
    // While writes block, the newest Ping alone is answered (RFC 6455 §5.5.3).
    for number in 0..60_000_u32 {
        let payload = [&number.to_be_bytes()[..], &[0; 121]].concat();
        client.send_bytes(&frame(0x89, &payload));
    }
    let mut last = None;
    while last != Some(59_999) {
        let Received::Pong(payload) = client.receive() else {
            panic!("only Pongs were asked for");
        };
        let number = payload
            .first_chunk()
            .map(|bytes| u32::from_be_bytes(*bytes));
        assert!(number > last, "{number:?} after {last:?}");
        last = number;
    }
}

#[test]
fn the_worst_is_cut_off_when_the_process_keeps_too_much() {
    let flags = [
        "--buffer-bytes",
        "1048576",
        "--send-queue-bytes",
        "64000000",
    ];
    let server = Server::with(&[&flags[..], &NO_HISTORY, &["--close-timeout", "30"]].concat());
    let mut slow = narrow_subscriber(&server);
    let mut idle = subscriber(&server, r#"["c","other"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let mut number = 0;
    loop {
        assert!(number < 4000, "nothing backs up");
        publisher.send(&message(&notification(number)));
        let answer = publisher.text();
        assert!(idle.text() == delivery(&notification(number)), "{number}");
        number += 1;
        match answer.as_str() {
            r#"{"type":"published","delivered":2}"# => {}
            r#"{"type":"published","delivered":1}"# => break,
            other => panic!("{other}"),
        }
    }
    assert!(read_until_cut_off(&mut slow, "overload") < number);
}

/// What the kernel keeps of what was written to `client` (proc_net_tcp(5)): unsent, or on its way.
fn kernel_bytes(client: &Client) -> usize {
    let stream = client.stream();
    let server = stream.peer_addr().expect("a socket").port();
    let client = stream.local_addr().expect("a socket").port();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let ends = |line: &&str| {
        let mut ports = line.split_whitespace().skip(1).take(2).map(|end| {
            let (_, port) = end.rsplit_once(':').unwrap_or_default();
            u16::from_str_radix(port, 16).unwrap_or_default()
        });
        (ports.next(), ports.next()) == (Some(server), Some(client))
    };
    let line = table.lines().find(ends).expect("it is connected");
    let queues = line.split_whitespace().nth(4).expect("its queues");
    let (unsent, _) = queues.split_once(':').expect("two of them");
    usize::from_str_radix(unsent, 16).expect("a number")
}

#[test]
fn the_kernel_keeps_little_for_a_client_that_does_not_read() {
    let server = Server::with(&[&NO_HISTORY[..], &["--send-queue-bytes", "100000000"]].concat());
    let slow = narrow_subscriber(&server);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for number in 0..600 {
        publisher.send(&message(&notification(number)));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
    }
    // Ten megabytes: some of it on its way, a frame more than the bound, and the rest is counted.
    let bytes = kernel_bytes(&slow);
    assert!((16_000..400_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_publisher_that_does_not_read_its_answers_over_http_is_cut_off() {
    const BYTES_MAX: usize = 4 << 20;
    let server = Server::with(&["--send-queue-bytes", "65536"]);
    let bytes = server.program().memory_bytes();
    let mut stream = server.narrow_tcp();
    let requests = post(&message(r#"{"channel":"c"}"#)).repeat(1000);
    let mut rounds = 0;
    while stream.write_all(requests.as_bytes()).is_ok() {
        rounds += 1;
        assert!(rounds < 1000, "it is served for ever");
    }
    server.wait_for_line("it does not read its answers");
    assert!(server.program().memory_bytes() < bytes + BYTES_MAX);
    let text = figures(&server);
    assert!(text.contains("\ncrieur_slow_consumers_total 1\n"), "{text}");
}

#[test]
fn a_publisher_that_asks_little_and_reads_nothing_over_http_is_dropped_in_time() {
    let server = Server::with(&["--message-timeout", "0.5", "--close-timeout", "0.5"]);
    let descriptors = server.program().descriptors();
    let mut stream = server.narrow_tcp();
    let requests = post(&message(r#"{"channel":"c"}"#)).repeat(1000);
    // Until the kernel takes no more of the answers.
    while figures(&server).contains("\ncrieur_send_queue_bytes 0\n") {
        stream
            .write_all(requests.as_bytes())
            .expect("the server reads");
    }
    server.wait_for_descriptors(descriptors);
    assert!(figures(&server).contains("\ncrieur_send_queue_bytes 0\n"));
}
