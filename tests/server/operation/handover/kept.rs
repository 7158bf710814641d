//! What a server knows of its clients, of its files and of time is known to the program that takes over.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::C;
use crate::helpers::http::{figures, post, refusal};
use crate::helpers::installed::Installed;
use crate::helpers::numbered::{
    caught_up, numbered, numbered_subscriber, position, publish_all, publish_kept, publish_whole,
    resume, resumed, wait_for_figure,
};
use crate::helpers::receipts::split_id;
use crate::helpers::secrets::{KEY, OTHER_KEY, SecretFile, sign, token, unix_now};
use crate::helpers::{
    Client, DEADLINE, Ended, Ending, Received, Server, close_reason, delivery, error_code, frame,
    message, publish, response, run, subscriber, upgrade_to,
};

const D: &str = r#"{"channel":"d"}"#;
const TOKEN: &str = "correct-horse-battery-staple";
const PONG: &str = r#"{"type":"pong"}"#;

/// From elsewhere: a local peer may publish and needs no token for that.
const FOREIGN: &str = "Host: api.example.com";
const BEHIND: &str = "X-Forwarded-For: 192.0.2.1";

fn on_channel(n: usize) -> String {
    format!(r#"{{"channel":"c","n":{n}}}"#)
}

// The history.

#[test]
fn a_history_goes_on_under_its_lock() {
    let folder = Installed::new();
    let path = folder.file("history");
    let flags = ["--history-directory", path.to_str().expect("UTF-8")];
    let second = || -> Ended { run(&[&["--listen", "127.0.0.1:0"][..], &flags].concat(), "") };
    let expect_locked = |ended: Ended| {
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("another crieur uses"), "{ended:?}");
    };
    let mut server = Server::with(&flags);
    let mut there = numbered_subscriber(&server, r#"["c"]"#);
    let mut ids = vec![position(&server)];
    let keyed = r#"{"sender":"server","key":"k","notification":{"channel":"nobody's"}}"#;
    let (_, key_id) = split_id(&publish_whole(&server, keyed));
    let mut all = Vec::new();
    expect_locked(second());
    let is_over = AtomicBool::new(false);
    let refused = thread::scope(|scope| {
        let ending = Ending(&is_over);
        let refused = scope.spawn(|| {
            let mut refused = 0;
            while !is_over.load(Ordering::Relaxed) {
                expect_locked(second());
                refused += 1;
            }
            refused
        });
        for round in 0..10 {
            let some: Vec<_> = (0..5).map(|n| on_channel(10 * round + n)).collect();
            let some_ids = publish_all(&server, &some);
            for (id, notification) in some_ids.iter().zip(&some) {
                assert_eq!(there.whole_text(), numbered(id, notification));
            }
            ids.extend(some_ids);
            all.extend(some);
            server.hand_over();
            assert_eq!(&position(&server), ids.last().expect("there is one"));
            let repeated = format!(r#"{{"delivered":0,"id":"{key_id}","repeated":true}}"#);
            assert_eq!(publish_whole(&server, keyed), repeated);
        }
        drop(ending);
        refused.join().expect("each was refused")
    });
    assert!(refused > 0);
    expect_locked(second());
    let expect_resumed = |server: &Server| {
        for since in [0, 7, 20, 50] {
            let (mut client, answer) = resume(server, r#"["c"]"#, &ids[since]);
            assert_eq!(answer, resumed(1, &ids[since]));
            for n in since..all.len() {
                assert_eq!(client.whole_text(), numbered(&ids[n + 1], &all[n]));
            }
            let last = ids.last().expect("there is one");
            let missed = all.len() - since;
            assert_eq!(client.whole_text(), caught_up(last, missed));
        }
        let repeated = format!(r#"{{"delivered":0,"id":"{key_id}","repeated":true}}"#);
        assert_eq!(publish_whole(server, keyed), repeated);
    };
    expect_resumed(&server);
    server.kill();
    let server = Server::with(&flags);
    expect_resumed(&server);
    let next = publish_kept(&server, C);
    assert!(!ids.contains(&next));
    // This one is handed over as well as the first.
    server.hand_over();
    let (mut client, _) = resume(&server, r#"["c"]"#, &ids[50]);
    assert_eq!(client.whole_text(), numbered(&next, C));
}

#[test]
fn a_history_in_memory_goes_on() {
    let server = Server::start();
    let mut ids = vec![position(&server)];
    let all: Vec<_> = (0..20).map(on_channel).collect();
    ids.extend(publish_all(&server, &all[..10]));
    server.hand_over();
    ids.extend(publish_all(&server, &all[10..]));
    for (since, id) in ids.iter().enumerate() {
        let (mut client, answer) = resume(&server, r#"["c"]"#, id);
        assert_eq!(answer, resumed(1, id));
        for n in since..20 {
            assert_eq!(client.whole_text(), numbered(&ids[n + 1], &all[n]));
        }
        assert_eq!(client.whole_text(), caught_up(&ids[20], 20 - since));
    }
}

#[test]
fn a_history_that_could_not_be_kept_on_disk_is_no_obstacle() {
    // It is off: the directory is of no use.
    let folder = Installed::new();
    let path = folder.file("history");
    let path = path.to_str().expect("UTF-8");
    let server = Server::with(&["--history-directory", path, "--history-seconds", "0"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    server.hand_over();
    publish(&server, C);
    assert_eq!(client.text(), delivery(C));
}

// Sockets.

#[test]
fn a_unix_socket_stays_until_the_last_program_ends() {
    let folder = Installed::new();
    let path = folder.file("publish.sock");
    let lock = folder.file("publish.sock.lock");
    let flag = format!("unix:{}", path.display());
    let flags = ["--publish-listen", &flag, "--drain-timeout", "60"];
    let mut server = Server::with(&flags);
    let mut client = subscriber(&server, r#"["c"]"#);
    let connect = || {
        let stream = UnixStream::connect(&path).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        Client::over(stream)
    };
    let identity = || {
        [&path, &lock].map(|path| {
            let file = fs::symlink_metadata(path).expect("it is there");
            (file.ino(), file.mode())
        })
    };
    let before = identity();
    let mut kept = connect().upgrade("/publish", &[]);
    let mut half = connect().upgrade("/", &[]);
    let bytes = frame(0x81, message(C).as_bytes());
    let (begun, rest) = bytes.split_at(20);
    half.send_bytes(begun);
    let mut new = connect();
    for round in 0..5 {
        server.hand_over();
        assert_eq!(identity(), before);
        kept.send(&message(C));
        let receipt = r#"{"type":"published","delivered":1}"#;
        assert_eq!(kept.text(), receipt, "{round}");
        assert_eq!(client.text(), delivery(C));
        let second = run(&[&["--listen", "127.0.0.1:0"][..], &flags].concat(), "");
        assert_eq!(second.status, Some(1), "{second:?}");
        assert!(second.stderr.contains("it is in use"), "{second:?}");
    }
    half.send_bytes(rest);
    assert_eq!(half.expect_close(1000), r#"{"delivered":1}"#);
    half.answer_close(1000);
    assert_eq!(client.text(), delivery(C));
    new = new.upgrade("/publish", &[]);
    new.send(&message(C));
    assert_eq!(new.text(), r#"{"type":"published","delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
    drop((kept, new));
    server.terminate();
    client.expect_close(1001);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
    assert!(!path.exists(), "its maker removes it");
}

#[test]
fn every_address_is_listened_on_as_before() {
    let server = Server::with(&["--publish-listen", "127.0.0.1:0"]);
    let lane = server.publish_address();
    let mut client = subscriber(&server, r#"["c"]"#);
    for _ in 0..3 {
        server.hand_over();
        assert_eq!(server.publish_address(), lane);
        let mut publisher = Client::over(Server::tcp_to(lane)).upgrade("/", &[]);
        publisher.send(&message(C));
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(C));
        // Clients' own address is no publishers' now either.
        let mut elsewhere = Client::connect(&server);
        elsewhere.send(&message(C));
        assert_eq!(error_code(&elsewhere.text()), "forbidden");
    }
    for line in ["listening on ", "listening for publishers on "] {
        let log = server.log();
        let lines = log.lines().filter_map(|said| said.split_once(line));
        let mut addresses: Vec<_> = lines.map(|(_, address)| address).collect();
        assert_eq!(addresses.len(), 4, "{log}");
        addresses.dedup();
        assert_eq!(addresses.len(), 1, "{log}");
    }
}

#[test]
fn a_socket_of_a_service_manager_is_handed_on() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let given = socket.try_clone().expect("a descriptor");
    let mut server = Server::activated(given, "clients", &["--drain-timeout", "60"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    for _ in 0..3 {
        server.hand_over();
        assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(C));
    }
    server.terminate();
    client.expect_close(1001);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
    // It is open still.
    drop(std::net::TcpStream::connect(server.address()).expect("nobody is refused"));
}

// Tokens and files.

fn foreign(server: &Server) -> Client {
    Client::connect_with(server, "/", &[FOREIGN])
}

fn subscribe_with(client: &mut Client, token: &str, subscriptions: &str) {
    client.send(&format!(
        r#"{{"sender":"client","token":"{token}","subscriptions":{subscriptions}}}"#
    ));
}

fn expect_3000(client: &mut Client, word: &str) {
    let reason = client.expect_close(3000);
    assert_eq!(close_reason(&reason).0, word);
    client.answer_close(3000);
}

#[test]
fn what_a_token_has_granted_is_granted_still() {
    let keys = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", keys.path()]);
    let shown = token(r#"["c"]"#, 600.0);
    let mut client = foreign(&server);
    subscribe_with(&mut client, &shown, r#"["c"]"#);
    drop(client.text());
    let field = format!("Authorization: Bearer {shown}");
    let mut by_field = Client::connect_with(&server, "/", &[FOREIGN, &field]);
    // Its key is exchanged, which the handover reads.
    keys.replace(OTHER_KEY);
    server.hand_over();
    server.wait_for_line("--client-key-file: 1 added, 1 removed");
    by_field.subscribe(r#"["c"]"#);
    for client in [&mut client, &mut by_field] {
        client.subscribe("[]");
        client.subscribe(r#"["c"]"#);
        client.send(r#"{"sender":"client","subscriptions":["d"]}"#);
        assert_eq!(error_code(&client.text()), "forbidden");
        // A page shows it with every list.
        subscribe_with(client, &shown, r#"["c"]"#);
        let answer = client.text();
        assert!(answer.contains(r#""subscriptions":1"#), "{answer}");
    }
    assert_eq!(publish(&server, C), r#"{"delivered":2}"#);
    assert_eq!(publish(&server, D), r#"{"delivered":0}"#);
    for client in [&mut client, &mut by_field] {
        assert_eq!(client.text(), delivery(C));
    }
    // Another one, or the same by somebody else, is looked at.
    let another = token(r#"["c"]"#, 700.0);
    subscribe_with(&mut client, &another, r#"["c"]"#);
    expect_3000(&mut client, "token-invalid");
    let mut stranger = foreign(&server);
    subscribe_with(&mut stranger, &shown, r#"["c"]"#);
    expect_3000(&mut stranger, "token-invalid");
    let claims = format!(r#"{{"exp":{},"allow":["c"]}}"#, unix_now() + 60.0);
    let mut new = foreign(&server);
    subscribe_with(&mut new, &sign(OTHER_KEY, &claims), r#"["c"]"#);
    let answer = new.text();
    assert!(answer.contains(r#""subscriptions":1"#), "{answer}");
}

#[test]
fn files_that_went_bad_are_no_obstacle() {
    let tokens = SecretFile::new(TOKEN);
    let keys = SecretFile::new(KEY);
    let level = SecretFile::new("debug");
    let log = format!("@{}", level.path());
    let server = Server::with(&[
        "--publish-token-file",
        tokens.path(),
        "--client-key-file",
        keys.path(),
        "--log",
        &log,
    ]);
    tokens.replace("tooshort");
    fs::remove_file(keys.path()).expect("it is ours");
    level.replace("loud");
    for _ in 0..3 {
        let before = server.log().matches("the old value stays in force").count();
        server.hand_over();
        let log = server.log();
        let kept = log.matches("the old value stays in force").count();
        assert_eq!(kept, before + 3, "{log}");
        let shown = token(r#"["c"]"#, 60.0);
        let mut client = foreign(&server);
        subscribe_with(&mut client, &shown, r#"["c"]"#);
        let answer = client.text();
        assert!(answer.contains(r#""subscriptions":1"#), "{answer}");
        let field = format!("Authorization: Bearer {TOKEN}");
        let mut publisher = Client::connect_with(&server, "/publish", &[FOREIGN, &field]);
        publisher.send(&message(C));
        let receipt = publisher.text();
        assert_eq!(receipt, r#"{"type":"published","delivered":1}"#);
        assert_eq!(client.text(), delivery(C));
        client.leave();
        // That is said at the level of the old file.
        let line = server.next_line("DEBUG", || publisher.leave());
        assert!(!line.contains(TOKEN), "{line}");
    }
    // A good one is read by the next again.
    keys.write(OTHER_KEY);
    keys.set_mode(0o600);
    server.hand_over();
    server.wait_for_line("--client-key-file: 1 added, 1 removed, 1 in force");
}

#[test]
fn a_log_that_nobody_reads_is_no_obstacle() {
    let server = Server::with_stuck_log(&["--metrics-from", "127.0.0.1"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let flood = || {
        let mut publisher = Client::connect_with(&server, "/publish", &[]);
        for _ in 0..2000 {
            publisher.send(&message(C));
            drop(publisher.text());
        }
    };
    for handovers in 1..=3 {
        thread::scope(|scope| {
            scope.spawn(flood);
            client.expect_texts(&vec![delivery(C); 2000]);
        });
        server.ask_to_hand_over();
        let line = format!(r#"crieur_handovers_total{{result="completed"}} {handovers}"#);
        wait_for_figure(&server, &line);
    }
    let dropped = super::figure(&figures(&server), "crieur_log_lines_dropped_total");
    assert!(dropped > 1000.0, "{dropped}");
}

// Rates and numbers.

#[test]
fn rates_and_numbers_of_addresses_are_not_forgotten() {
    let proxy = ["--trusted-proxy", "127.0.0.1"];
    let server = Server::with(&[&proxy[..], &["--upgrades-per-address", "0.01"]].concat());
    // It is gone, and remembered for its rate.
    Client::connect_with(&server, "/", &[BEHIND]).leave();
    for _ in 0..3 {
        server.hand_over();
        let request = upgrade_to("/", &["Connection: close, Upgrade", BEHIND]);
        let (head, _) = refusal(&server, &request, 429);
        assert!(head.contains("\r\nRetry-After: "), "{head}");
    }
    let flags = ["--max-connections-per-address", "2"];
    let server = Server::with(&[&proxy[..], &flags].concat());
    let [first, _second] = [(); 2].map(|()| Client::connect_with(&server, "/", &[BEHIND]));
    for _ in 0..3 {
        server.hand_over();
        refusal(&server, &upgrade_to("/", &[BEHIND]), 429);
    }
    first.leave();
    Client::connect_with(&server, "/", &[BEHIND]).leave();
}

#[test]
fn who_is_over_its_rate_waits_as_long() {
    let server = Server::with(&["--messages-per-second", "1"]);
    let mut client = Client::connect_with(&server, "/", &[BEHIND]);
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    let since = Instant::now();
    // Two are free, three have to be paid for.
    client.send_bytes(&ping.repeat(5));
    client.expect_texts(&[PONG; 5]);
    for _ in 0..5 {
        server.hand_over();
    }
    client.send_bytes(&ping);
    assert_eq!(client.text(), PONG);
    let waited = since.elapsed();
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
}

#[test]
fn shares_of_what_all_may_subscribe_to_are_kept() {
    let server = Server::with(&["--max-total-subscriptions", "4"]);
    let mut client = subscriber(&server, r#"["a","b","c"]"#);
    for _ in 0..3 {
        server.hand_over();
        let mut second = Client::connect(&server);
        second.send(r#"{"sender":"client","subscriptions":["c","d"]}"#);
        assert_eq!(error_code(&second.text()), "too-many-subscriptions");
        second.subscribe(r#"["c"]"#);
        second.leave();
    }
    wait_for_figure(&server, "crieur_subscriptions 3");
    client.subscribe("[]");
    subscriber(&server, r#"["a","b","c","d"]"#).leave();
}

// Time.

#[test]
fn no_deadline_is_put_off() {
    let keys = SecretFile::new(KEY);
    let server = Server::with(&[
        "--client-key-file",
        keys.path(),
        "--handshake-timeout",
        "1",
        "--message-timeout",
        "1",
        "--token-timeout",
        "1",
        "--close-timeout",
        "1",
        "--ping-interval",
        "0.5",
        "--pong-timeout",
        "2",
    ]);
    let since = Instant::now();
    let silent = || {
        let shown = token(r#"["c"]"#, 600.0);
        let mut client = foreign(&server);
        subscribe_with(&mut client, &shown, r#"["c"]"#);
        client
    };
    let mut dead = silent();
    let mut alive = silent();
    let mut expiring = foreign(&server);
    subscribe_with(&mut expiring, &token(r#"["c"]"#, 1.5), r#"["c"]"#);
    let mut tokenless = foreign(&server);
    let mut unfinished = silent();
    unfinished.send_bytes(&frame(0x01, b"{"));
    let mut unheard = Client::connect(&server);
    unheard.send(&message(C));
    let mut handshake = server.tcp();
    std::io::Write::write_all(&mut handshake, b"GET / HTTP/1.1\r\nHost: a\r\n").expect("room");
    let mut upload = server.tcp();
    let request = post(&message(C));
    std::io::Write::write_all(&mut upload, &request.as_bytes()[..request.len() - 1]).expect("room");
    let is_over = AtomicBool::new(false);
    let handovers = thread::scope(|scope| {
        let ending = Ending(&is_over);
        // One after the other: a time that began anew with each would never come.
        let handovers = scope.spawn(|| {
            let mut handovers = 0;
            while !is_over.load(Ordering::Relaxed) {
                server.hand_over();
                handovers += 1;
            }
            handovers
        });
        let others = scope.spawn(|| {
            let closed = |client: &mut Client, answers: bool| loop {
                assert!(since.elapsed() < DEADLINE, "its time never comes");
                match client.receive() {
                    Received::Ping(payload) if answers => {
                        client.send_bytes(&frame(0x8a, &payload));
                    }
                    Received::Ping(_) | Received::Text(_) => {}
                    other => return other,
                }
            };
            for (client, code, word) in [
                (&mut expiring, 3000, "token-expired"),
                (&mut tokenless, 3000, "token-missing"),
                (&mut unfinished, 1008, "unfinished-message"),
            ] {
                match closed(client, true) {
                    Received::Close(got, reason) => {
                        assert_eq!(got, code, "{reason}");
                        assert_eq!(close_reason(&reason).0, word);
                    }
                    other => panic!("{other:?} instead of {word}"),
                }
            }
            for stream in [&mut handshake, &mut upload] {
                let (head, _) = response(stream);
                assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
            }
            // The Close of this one isn't answered.
            assert!(matches!(
                closed(&mut unheard, true),
                Received::Close(1000, _)
            ));
            unheard.expect_end();
            assert_eq!(closed(&mut dead, false), Received::End);
        });
        // It answers, and so it stays.
        let mut pings = 0;
        while !others.is_finished() || pings < 6 {
            assert!(since.elapsed() < 2 * DEADLINE, "no Ping comes");
            match alive.receive() {
                Received::Ping(payload) => {
                    pings += 1;
                    alive.send_bytes(&frame(0x8a, &payload));
                }
                Received::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(ending);
        others.join().expect("each time came");
        handovers.join().expect("nobody is lost")
    });
    assert!(since.elapsed() >= Duration::from_millis(1400));
    assert!(handovers > 10, "{handovers}");
    wait_for_figure(&server, "crieur_peers_dead_total 1");
    let text = figures(&server);
    let round_trips = "crieur_ping_round_trip_seconds_count";
    assert!(super::figure(&text, round_trips) >= 5.0, "{text}");
}

#[test]
fn a_connection_keeps_its_name_and_its_address() {
    let server = Server::with(&["--trusted-proxy", "127.0.0.1"]);
    let mut client = Client::connect_with(&server, "/", &[BEHIND]);
    server.hand_over();
    client.send_bytes(&[0xff, 0xff]);
    let line = server.wait_for_line("192.0.2.1");
    assert!(line.contains("0.0"), "{line}");
    // Names go on where they were: none is given twice.
    let mut next = Client::connect_with(&server, "/", &[BEHIND]);
    next.subscribe("[]");
    server.wait_for_line("1.1 has 0 subscriptions");
}
