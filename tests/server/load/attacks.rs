//! Attacks. While each goes on, a healthy crowd gets every notification once and in order, and
//! soon; the server's memory stays within a budget; afterwards everything is given back.
//!
//! `cargo test --test server load::attacks -- --nocapture` prints the figures. What a single bad
//! peer is told is in `protocol/`, in `slow_readers.rs` and in `overload.rs`; here there are many
//! of them.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::helpers::{
    Client, DEADLINE, DELIVERY_MAX, Received, Server, close_reason, delivery, error_code, frame,
    largest_list, message, most_descriptors, raise_descriptor_limit, response, subscriber, upgrade,
    withstand,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A subscriber to `c` whose connection backs up soon.
fn narrow_subscriber(server: &Server) -> Client {
    let mut client = Client::over(server.narrow_tcp());
    client.send_bytes(upgrade().as_bytes());
    client.expect_upgrade();
    client.subscribe(r#"["c"]"#);
    client
}

fn clients(server: &Server, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(server)).collect()
}

/// Whether there is something to read, or the end.
fn has_answer(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Sends a byte of each attacker's bytes every `pause`, never the last of them, until each has
/// been answered. Says how many bytes it were.
fn trickle(attackers: &[(&TcpStream, Vec<u8>)], pause: Duration) -> usize {
    let since = Instant::now();
    let mut sent = 0;
    for step in 0.. {
        let mut is_over = true;
        for (stream, bytes) in attackers {
            if has_answer(stream) {
                continue;
            }
            is_over = false;
            if let Some(byte) = bytes[..bytes.len() - 1].get(step)
                && (&mut &**stream).write(&[*byte]).is_ok()
            {
                sent += 1;
            }
        }
        if is_over {
            break;
        }
        assert!(since.elapsed() < DEADLINE, "they are never answered");
        thread::sleep(pause);
    }
    sent
}

/// Sends `bytes` again and again on all `streams`, as fast as they are taken, for a while.
/// Says how many bytes it were. Nothing is read.
fn flood(streams: &[&TcpStream], bytes: &[u8], time: Duration) -> usize {
    let since = Instant::now();
    let mut sent = vec![0; streams.len()];
    for stream in streams {
        stream.set_nonblocking(true).expect("a socket");
    }
    while since.elapsed() < time {
        for (&(mut stream), sent) in streams.iter().zip(&mut sent) {
            // A connection that is cut off can't send any more.
            *sent += stream.write(&bytes[*sent % bytes.len()..]).unwrap_or(0);
        }
    }
    for stream in streams {
        stream.set_nonblocking(false).expect("a socket");
    }
    sent.iter().sum()
}

/// Ends a connection with a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket");
    drop(stream);
}

// Slowness.

#[test]
fn handshakes_that_dribble() {
    let flags = ["--handshake-timeout", "0.8", "--close-timeout", "0.3"];
    withstand("dribbled handshakes", &flags, 4 * MIB, |scene| {
        let streams: Vec<_> = (0..300).map(|_| scene.server.tcp()).collect();
        let attackers: Vec<_> = streams
            .iter()
            .map(|stream| (stream, upgrade().into_bytes()))
            .collect();
        let sent = trickle(&attackers, Duration::from_millis(20));
        // They are gone although they haven't left.
        scene.wait_until_gone();
        for mut stream in streams {
            let (head, _) = response(&mut stream);
            assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        }
        format!("300 connections, {sent} bytes one by one")
    });
}

#[test]
fn frames_that_dribble() {
    let flags = ["--message-timeout", "0.8", "--close-timeout", "0.3"];
    withstand("dribbled frames", &flags, 4 * MIB, |scene| {
        let mut crowd = clients(&scene.server, 300);
        let header_bytes = 14;
        let whole = frame(0x81, &[b' '; 70_000]);
        let mut attackers = Vec::new();
        for (number, client) in crowd.iter_mut().enumerate() {
            let begun = if number % 2 == 0 { 0 } else { header_bytes };
            client.send_bytes(&whole[..begun]);
            // Half of them don't come to the end of the header.
            attackers.push(whole[begun..][..header_bytes].to_vec());
        }
        let streams = crowd.iter().map(Client::stream);
        let attackers: Vec<_> = streams.zip(attackers).collect();
        let sent = trickle(&attackers, Duration::from_millis(50));
        scene.wait_until_gone();
        for client in &mut crowd {
            let (word, _) = close_reason(&client.expect_close(1008));
            assert_eq!(word, "unfinished-message");
            client.expect_end();
        }
        format!("300 connections, {sent} bytes one by one")
    });
}

#[test]
fn fragments_of_one_byte() {
    const FRAGMENTS: usize = 20_000;
    let flags = ["--buffer-bytes", "1048576", "--close-timeout", "0.3"];
    let fragments = [
        frame(0x01, b" "),
        frame(0x00, b" ").repeat(FRAGMENTS - 1),
        frame(0x89, b"all"),
    ]
    .concat();
    withstand("fragments of one byte", &flags, 4 * MIB, |scene| {
        let send = |client: &mut Client| {
            client.send_bytes(&fragments);
            client.receive()
        };
        // A fragment pins two bytes at most: these are within the budget.
        let mut within = clients(&scene.server, MIB / (2 * FRAGMENTS) - 2);
        for client in &mut within {
            assert_eq!(send(client), Received::Pong(b"all".into()));
        }
        // And one byte at least: these are beyond.
        let mut beyond = clients(&scene.server, MIB / FRAGMENTS);
        let mut refused = 0;
        for client in &mut beyond {
            match send(client) {
                Received::Pong(_) => {}
                Received::Close(1013, reason) => {
                    assert_eq!(close_reason(&reason).0, "overload");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        let mut refused_later = 0;
        for client in within.iter().chain(&beyond) {
            refused_later += usize::from(has_answer(client.stream()));
        }
        assert!(refused + refused_later > 0, "nobody was over the budget");
        let count = within.len() + beyond.len();
        format!("{count} connections, {FRAGMENTS} fragments each")
    });
}

#[test]
fn subscribers_that_never_read() {
    let flags = ["--history-bytes", "0"];
    withstand_unread("subscribers that never read", &flags, 16 * MIB);
}

#[test]
fn subscribers_that_never_read_what_is_kept() {
    let flags = ["--history-bytes", "4194304"];
    withstand_unread("the same, with a history", &flags, 24 * MIB);
}

fn withstand_unread(name: &str, flags: &[&str], memory_bytes_max: usize) {
    let own = ["--send-queue-bytes", "262144", "--close-timeout", "30"];
    let flags = [&own[..], flags].concat();
    let notification = |number: usize| {
        let text = "x".repeat(64_000);
        format!(r#"{{"channel":"c","n":{number},"text":"{text}"}}"#)
    };
    withstand(name, &flags, memory_bytes_max, |scene| {
        let mut slow: Vec<_> = (0..20).map(|_| narrow_subscriber(&scene.server)).collect();
        let mut publisher = Client::connect_with(&scene.server, "/publish", &[]);
        let mut number = 0;
        loop {
            assert!(number < 1000, "nothing backs up");
            publisher.send(&message(&notification(number)));
            number += 1;
            if publisher.text() == r#"{"type":"published","delivered":0}"# {
                break;
            }
        }
        for client in &mut slow {
            let mut count = 0;
            // What had begun to be written is whole.
            let reason = loop {
                match client.receive() {
                    Received::Text(text) => assert!(text == delivery(&notification(count))),
                    Received::Close(1013, reason) => break reason,
                    other => panic!("{other:?}"),
                }
                count += 1;
            };
            assert!(count < number, "{count} of {number}");
            let (word, retry) = close_reason(&reason);
            assert_eq!(word, "slow-consumer");
            assert!((1_000..=10_000).contains(&retry), "{retry}");
            client.expect_end();
        }
        format!("20 connections, {number} notifications of 64 kB to each")
    });
}

#[test]
fn askers_that_never_read() {
    let flags = ["--send-queue-bytes", "65536", "--close-timeout", "0.3"];
    withstand("questions, answers never read", &flags, 8 * MIB, |scene| {
        let askers: Vec<_> = (0..10).map(|_| narrow_subscriber(&scene.server)).collect();
        let streams: Vec<_> = askers.iter().map(Client::stream).collect();
        let question = frame(0x81, br#"{"type":"ping"}"#);
        let sent = flood(&streams, &question.repeat(1000), Duration::from_secs(1));
        // All of them are cut off: nothing else would end them in time.
        scene.wait_until_gone();
        scene.server.wait_for_line("closed with 1013");
        format!("10 connections, {} questions", sent / question.len())
    });
}

#[test]
fn pings_whose_answers_are_never_read() {
    let flags = ["--send-queue-bytes", "65536"];
    withstand("Pings, Pongs never read", &flags, 16 * MIB, |scene| {
        let pingers: Vec<_> = (0..10).map(|_| narrow_subscriber(&scene.server)).collect();
        let streams: Vec<_> = pingers.iter().map(Client::stream).collect();
        let ping = frame(0x89, &[b'x'; 125]);
        let sent = flood(&streams, &ping.repeat(500), Duration::from_secs(1));
        format!("10 connections, {} Pings", sent / ping.len())
    });
}

#[test]
fn the_worst_queue_goes_first() {
    let flags = [
        "--buffer-bytes",
        "4194304",
        "--send-queue-bytes",
        "64000000",
        "--close-timeout",
        "0.3",
        "--history-bytes",
        "0",
    ];
    let notification = |channel: usize| {
        let text = "x".repeat(64_000);
        message(&format!(r#"{{"channel":"{channel}","text":"{text}"}}"#))
    };
    withstand("queues beyond the budget", &flags, 16 * MIB, |scene| {
        let mut slow = Vec::new();
        for channel in 0..8 {
            let mut client = narrow_subscriber(&scene.server);
            client.subscribe(&format!(r#"["{channel}"]"#));
            slow.push(client);
        }
        let mut publisher = Client::connect_with(&scene.server, "/publish", &[]);
        let mut send = |channel| {
            publisher.send(&notification(channel));
            publisher.text() == r#"{"type":"published","delivered":1}"#
        };
        // The first takes four for each of the others' one: it goes, and it alone.
        let mut number = 0;
        while (0..4).all(|_| send(0)) {
            assert!(number < 1000, "nothing backs up");
            assert!((1..8).all(&mut send), "the worst goes first");
            number += 1;
        }
        assert!((1..8).all(&mut send), "only the worst goes");
        // A new client is none of those for which too much is kept.
        let mut client = subscriber(&scene.server, r#"["new"]"#);
        publisher.send(&message(r#"{"channel":"new"}"#));
        assert_eq!(client.text(), delivery(r#"{"channel":"new"}"#));
        format!("8 connections, {} notifications of 64 kB", number * 11)
    });
}

// Floods.

#[test]
fn pings_whose_answers_are_read() {
    let pings = frame(0x89, b"ping").repeat(1000);
    withstand("Pings, Pongs read", &[], 4 * MIB, |scene| {
        let mut pingers = clients(&scene.server, 4);
        let since = Instant::now();
        let mut count = 0;
        while since.elapsed() < Duration::from_secs(1) {
            for client in &mut pingers {
                client.send_bytes(&pings);
            }
            for client in &mut pingers {
                for _ in 0..1000 {
                    assert_eq!(client.receive(), Received::Pong(b"ping".into()));
                }
                count += 1000;
            }
        }
        format!("4 connections, {count} Pings")
    });
}

#[test]
fn pings_between_fragments() {
    const PINGS: usize = 5000;
    withstand("Pings between fragments", &[], 4 * MIB, |scene| {
        let mut pingers = clients(&scene.server, 8);
        for client in &mut pingers {
            client.send_bytes(&frame(0x01, br#"{"type""#));
            for _ in 0..PINGS / 100 {
                let batch = [frame(0x89, b"p"), frame(0x00, b" ")].concat().repeat(100);
                client.send_bytes(&batch);
                for _ in 0..100 {
                    assert_eq!(client.receive(), Received::Pong(b"p".into()));
                }
            }
            client.send_bytes(&frame(0x80, br#":"ping"}"#));
            assert_eq!(client.text(), r#"{"type":"pong"}"#);
        }
        format!("8 connections, {PINGS} Pings and fragments each")
    });
}

#[test]
fn resets() {
    const RESETS: usize = 600;
    withstand("resets", &[], 4 * MIB, |scene| {
        for number in 0..RESETS {
            let mut client = Client::over(scene.server.tcp());
            client.send_bytes(upgrade().as_bytes());
            // Some don't wait for an answer.
            if number % 3 > 0 {
                client.expect_upgrade();
            }
            if number % 3 > 1 {
                client.subscribe(r#"["c"]"#);
            }
            reset(client.into_stream());
        }
        format!("{RESETS} connections, before and after the handshake")
    });
}

#[test]
fn connections_that_say_nothing_and_go() {
    const CONNECTIONS: usize = 3000;
    withstand("connect and leave", &[], 4 * MIB, |scene| {
        for _ in 0..CONNECTIONS {
            drop(scene.server.tcp());
        }
        format!("{CONNECTIONS} connections")
    });
}

#[test]
fn ten_thousand_handshakes_that_never_begin() {
    let _turn = most_descriptors();
    withstand("silent connections", &[], 16 * MIB, |scene| {
        // The server is under the same limit, and other tests take some too.
        let count = (raise_descriptor_limit() / 2).min(10_000);
        let silent: Vec<_> = (0..count).map(|_| scene.server.tcp()).collect();
        let since = Instant::now();
        let client = subscriber(&scene.server, r#"["c"]"#);
        let waited = since.elapsed();
        assert!(waited < DELIVERY_MAX, "{waited:?}");
        client.leave();
        drop(silent);
        format!(
            "{count} connections; a new client waited {} ms",
            waited.as_millis()
        )
    });
}

#[test]
fn silent_connections_make_room_for_new_clients() {
    const SILENT: usize = 2000;
    // Nobody could come in before the silent ones' time is up if they kept all room.
    let flags = ["--max-connections", "100", "--handshake-timeout", "60"];
    withstand("silence in all room there is", &flags, 4 * MIB, |scene| {
        let mut silent = Vec::new();
        let mut waited_max = Duration::ZERO;
        for number in 0..SILENT {
            silent.push(scene.server.tcp());
            if number % 100 == 99 {
                let since = Instant::now();
                subscriber(&scene.server, r#"["c"]"#).leave();
                waited_max = waited_max.max(since.elapsed());
            }
        }
        assert!(waited_max < DELIVERY_MAX, "{waited_max:?}");
        // The oldest connection has been told.
        let (head, _) = response(&mut silent[0]);
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("\r\nRetry-After: "), "{head}");
        let waited = waited_max.as_millis();
        format!("{SILENT} connections, 100 allowed; new clients waited {waited} ms")
    });
}

// Nonsense.

#[test]
fn lengths_that_nobody_sends() {
    let header = |first: u8, length: u64| {
        let mut bytes = vec![first, 0x80 | 127];
        bytes.extend(length.to_be_bytes());
        bytes.extend([1, 2, 3, 4]);
        bytes
    };
    let flags = ["--message-timeout", "0.5", "--close-timeout", "0.3"];
    withstand("huge lengths", &flags, 4 * MIB, |scene| {
        let mut count = 0;
        for (bytes, code) in [
            (header(0x82, 1 << 40), 1009),
            (header(0x81, i64::MAX as u64), 1009),
            (header(0x81, u64::MAX), 1002),
            (header(0x89, 126), 1002),
            // What is allowed takes no memory before it comes.
            (header(0x81, 1_000_000), 1008),
        ] {
            let mut attackers = clients(&scene.server, 200);
            for client in &mut attackers {
                client.send_bytes(&bytes);
            }
            for client in &mut attackers {
                client.expect_close(code);
            }
            count += attackers.len();
        }
        format!("{count} connections, up to 2^64 bytes announced")
    });
}

#[test]
fn compressed_frames() {
    withstand("reserved bits", &[], 4 * MIB, |scene| {
        for first in [0xc1, 0xa1, 0x91, 0xc0, 0xc9] {
            let mut attackers = clients(&scene.server, 100);
            for client in &mut attackers {
                client.send_bytes(&frame(first, b"x"));
            }
            for client in &mut attackers {
                client.expect_close(1002);
                client.expect_end();
            }
        }
        "500 connections".to_owned()
    });
}

#[test]
fn other_protocols() {
    let mut hello = vec![
        0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
    ];
    hello.extend((0..506).map(|number| (number * 31 % 256) as u8));
    let noise: Vec<_> = (1..5000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let flags = ["--handshake-timeout", "0.5"];
    withstand("other protocols", &flags, 4 * MIB, |scene| {
        let mut count = 0;
        for (bytes, status) in [
            (&hello[..], "400"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
            (&noise, "400"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "408"),
            (&[0; 1000], "400"),
            (&[b'A'; 17 * KIB], "431"),
        ] {
            let mut streams: Vec<_> = (0..100).map(|_| scene.server.tcp()).collect();
            for stream in &mut streams {
                stream.write_all(bytes).expect("the server reads");
            }
            for stream in &mut streams {
                let (head, _) = response(stream);
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            }
            count += streams.len();
        }
        format!("{count} connections: TLS, HTTP/2, SSH, noise")
    });
}

// Subscriptions.

#[test]
fn the_largest_lists_all_different() {
    // Without optimisation a list takes the server 20 ms.
    const CONNECTIONS: usize = if cfg!(debug_assertions) { 200 } else { 1000 };
    let budget_bytes = CONNECTIONS * 384 * KIB;
    withstand("largest lists, twice", &[], budget_bytes, |scene| {
        let mut taken = 0;
        // The second time shows whether anything of the first is left.
        for round in 0..2 {
            let crowd: Vec<_> = (0..CONNECTIONS)
                .map(|number| {
                    let list = largest_list(round * CONNECTIONS + number);
                    subscriber(&scene.server, &list)
                })
                .collect();
            taken = scene.server.program().memory_bytes() - scene.memory_bytes;
            drop(crowd);
            scene.wait_until_gone();
        }
        let each = taken / CONNECTIONS / KIB;
        format!("{CONNECTIONS} connections, 1024 values and {each} KiB each")
    });
}

#[test]
fn more_subscriptions_than_allowed() {
    let too_many = [
        format!("[{}]", vec![r#""c""#; 257].join(",")),
        largest_list(0).replacen(r#""f":["#, r#""f":["one more","#, 1),
    ];
    withstand("more subscriptions than allowed", &[], 4 * MIB, |scene| {
        let mut client = subscriber(&scene.server, r#"["mine"]"#);
        for list in too_many.iter().cycle().take(200) {
            client.send(&format!(r#"{{"sender":"client","subscriptions":{list}}}"#));
            assert_eq!(error_code(&client.text()), "too-many-subscriptions");
        }
        let mut publisher = Client::connect_with(&scene.server, "/publish", &[]);
        publisher.send(&message(r#"{"channel":"mine"}"#));
        assert_eq!(client.text(), delivery(r#"{"channel":"mine"}"#));
        "1 connection, 200 lists".to_owned()
    });
}
