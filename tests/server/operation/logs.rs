//! What is written to standard error, what never is, and what happens when nobody reads it.

use std::io::Write;
use std::time::Instant;

use crate::helpers::http::{Http, post_with};
use crate::helpers::{
    Client, Server, close_payload, delivery, error_code, frame, message, publish, response,
    subscriber, upgrade_to,
};

const SECRET: &str = "xylophone";

#[test]
fn a_notification_is_one_line_with_its_count() {
    let mut server = Server::start();
    let clients: Vec<_> = (0..3).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    publish(&server, r#"{"channel":"c"}"#);
    drop(clients);
    server.terminate();
    let log = server.wait().stderr;
    assert_eq!(
        log.matches("published to 3 connections").count(),
        1,
        "{log}"
    );
    assert_eq!(log.matches("has 1 subscription").count(), 3, "{log}");
}

/// The numbers before `what` in the lines of a log, added up.
fn sum_before(log: &str, what: &str) -> usize {
    let numbers = log.lines().filter_map(|line| {
        let (before, _) = line.split_once(what)?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    });
    numbers.sum()
}

#[test]
fn a_client_that_sends_list_after_list_does_not_fill_the_log() {
    const LISTS: usize = 3000;
    let mut server = Server::start();
    let start = Instant::now();
    let mut client = Client::connect(&server);
    let list = r#"{"sender":"client","subscriptions":["c"]}"#;
    for _ in 0..LISTS / 100 {
        client.send_bytes(&frame(0x81, list.as_bytes()).repeat(100));
        let subscribed = r#"{"type":"subscribed","subscriptions":1,"heartbeat":25}"#;
        client.expect_texts(&[subscribed; 100]);
    }
    subscriber(&server, r#"["a","b"]"#).leave();
    client.leave();
    server.wait_for_line(" were left out");
    server.terminate();
    let log = server.wait().stderr;
    let lines = log.matches("has 1 subscription").count();
    let seconds = start.elapsed().as_secs() as usize;
    assert!((5..=6 + seconds).contains(&lines), "{lines}: {log}");
    let left_out = sum_before(&log, " lists of ");
    assert_eq!(lines + left_out, LISTS, "{log}");
    assert_eq!(log.matches("has 2 subscriptions").count(), 1, "{log}");
}

#[test]
fn at_debug_every_list_is_logged() {
    let mut server = Server::with(&["--log", "debug"]);
    let mut client = Client::connect(&server);
    for _ in 0..20 {
        client.subscribe(r#"["c"]"#);
    }
    client.leave();
    server.wait_for_line(" lists of ");
    server.terminate();
    let log = server.wait().stderr;
    assert_eq!(log.matches("has 1 subscription").count(), 20, "{log}");
}

#[test]
fn strangers_that_may_not_publish_do_not_fill_the_log() {
    const ATTEMPTS: usize = 500;
    let mut server = Server::start();
    let start = Instant::now();
    for attempt in 0..ATTEMPTS {
        if attempt % 5 > 0 {
            let mut http = Http::connect(&server);
            http.send(post_with(&["Origin: http://a"], "{}"));
            assert_eq!(http.receive().0, 403);
        } else {
            let mut client = Client::connect_with(&server, "/", &["Origin: http://a"]);
            client.send(&message(r#"{"channel":"c"}"#));
            assert_eq!(error_code(&client.text()), "forbidden");
        }
    }
    server.terminate();
    let log = server.wait().stderr;
    let lines = log.matches("may not publish").count();
    let tenths = start.elapsed().as_millis() as usize / 100;
    assert!((100..=101 + tenths).contains(&lines), "{lines}: {log}");
    let left_out = sum_before(&log, " lines like the next were left out");
    assert!(lines + left_out <= ATTEMPTS, "{log}");
}

#[test]
fn no_payload_is_ever_logged() {
    let mut server = Server::with(&["--log", "trace"]);
    let mut client = subscriber(&server, &format!(r#"["{SECRET}"]"#));
    let notification = format!(r#"{{"channel":"{SECRET}","text":"{SECRET}"}}"#);
    assert_eq!(publish(&server, &notification), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(&notification));
    for text in [
        SECRET.to_owned(),
        format!(r#"{{"{SECRET}":1}}"#),
        format!(r#"{{"sender":"{SECRET}"}}"#),
        format!(r#"{{"sender":"client","subscriptions":["{SECRET}",7]}}"#),
        format!(
            r#"{{"sender":"client","subscriptions":[{{"package":"p","page":"q","filters":{{"values":{{"{SECRET}":null}}}}}}]}}"#
        ),
        format!(r#"{{"sender":"server","type":"error","notification":{{"{SECRET}":1}}}}"#),
    ] {
        let mut client = Client::connect(&server);
        client.send(&text);
        drop(client.text());
    }
    for bytes in [
        frame(0x82, SECRET.as_bytes()),
        frame(0xf1, SECRET.as_bytes()),
        frame(0x81, format!("{SECRET}\u{ff}").as_bytes()),
        frame(0x88, &close_payload(4000, SECRET)),
        frame(0x88, &close_payload(999, SECRET)),
        frame(0x89, SECRET.as_bytes()),
    ] {
        let mut client = Client::connect(&server);
        client.send_bytes(&bytes);
        drop(client.receive());
    }
    let token = format!("Authorization: Bearer {SECRET}");
    drop(Client::connect_with(
        &server,
        &format!("/?token={SECRET}"),
        &[&token],
    ));
    let mut refused = server.tcp();
    refused
        .write_all(upgrade_to(&format!("/{SECRET}"), &[&token, "Host : a"]).as_bytes())
        .expect("the server reads");
    drop(response(&mut refused));
    drop(refused);
    server.terminate();
    client.expect_close(1001);
    client.answer_close(1001);
    let log = server.wait().stderr;
    assert!(log.contains("published to 1 connection,"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut server = Server::with_stuck_log(&["--log", "trace"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let notification = r#"{"channel":"c"}"#;
    // More lines than the pipe and the queue take together.
    for _ in 0..100 {
        publisher.send_bytes(&frame(0x81, message(notification).as_bytes()).repeat(100));
        client.expect_texts(&vec![delivery(notification); 100]);
        publisher.expect_texts(&[r#"{"type":"published","delivered":1}"#; 100]);
    }
    server.terminate();
    client.expect_close(1001);
    publisher.expect_close(1001);
    client.answer_close(1001);
    publisher.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_breach_of_the_protocol_is_logged_with_the_address() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&frame(0x83, b""));
    client.expect_close(1002);
    let line = server.wait_for_line("closed with 1002");
    let address = client.stream().local_addr().expect("an address");
    assert!(
        line.contains(&address.to_string()) && line.contains("INFO"),
        "{line}"
    );
}

#[test]
fn connections_that_break_the_protocol_again_and_again_do_not_fill_the_log() {
    const CONNECTIONS: usize = 400;
    let mut server = Server::start();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(&server);
        client.send_bytes(&frame(0x83, b""));
        client.expect_close(1002);
    }
    server.terminate();
    let log = server.wait().stderr;
    let lines = log.matches("closed with 1002").count();
    // So many at once, and some while this goes on.
    assert!((100..CONNECTIONS).contains(&lines), "{lines}");
}

#[test]
fn as_json_every_line_is_an_object() {
    let mut server = Server::with(&[
        "--log",
        "trace",
        "--log-format",
        "json",
        "--handshake-timeout",
        "0.2",
    ]);
    let client = subscriber(&server, r#"["c\"\n"]"#);
    publish(&server, r#"{"channel":"c\"\n"}"#);
    let mut failing = Client::connect(&server);
    let failing_address = failing.stream().local_addr().expect("an address");
    failing.send_bytes(&frame(0x83, b""));
    failing.expect_close(1002);
    for text in ["{", r#"{"sender":"\u0000"}"#, "\u{2028}"] {
        let mut client = Client::connect(&server);
        client.send(text);
        drop(client.text());
        client.send_bytes(&frame(0x88, &close_payload(4000, "\"\n\\")));
        client.expect_close(4000);
    }
    for head in [
        upgrade_to(r#"/"\"#, &[r#"X: ""#, "Host : a"]),
        "GET /\u{2028}\n HTTP/1.1\r\n\r\n".to_owned(),
        "\0\"\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: \"\r\n\r\n".to_owned(),
    ] {
        let mut refused = server.tcp();
        refused
            .write_all(head.as_bytes())
            .expect("the server reads");
        drop(response(&mut refused));
    }
    drop(response(&mut server.tcp()));
    let forwarded = r#"X-Forwarded-For: "\, 1.2.3.4"#;
    Client::connect_with(&server, "/", &[forwarded]).leave();
    drop((client, failing));
    server.terminate();
    let log = server.wait().stderr;
    let lines = log.lines().map(|line| {
        let json = serde_json::from_str::<serde_json::Value>(line);
        json.unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let lines: Vec<_> = lines.collect();
    for line in &lines {
        let time = line["time"].as_str().expect("a time");
        assert!(time.len() == 24 && &time[10..11] == "T" && time.ends_with('Z'));
        for member in ["level", "target", "message"] {
            assert!(line[member].is_string(), "{line}");
        }
        assert!(line.get("connection").is_none_or(|id| id.is_string()));
    }
    let about = |what: &str| {
        let line = lines.iter().find(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains(what))
        });
        line.unwrap_or_else(|| panic!("{what} is in no line"))
    };
    let published = about("published to 1 connection, ");
    assert_eq!(
        (&published["delivered"], &published["dropped"]),
        (&1.into(), &0.into())
    );
    assert!(published["micros"].is_u64() && published["connection"].is_string());
    assert_eq!(about("has 1 subscription")["subscriptions"], 1);
    assert!(about("stopped: ")["delivered"].is_u64());
    // What Rust shows of a value isn't for people.
    for line in &lines {
        let text = line["message"].as_str().expect("a text");
        let is_dump = [" { ", "Some(", "None", "Granted", "::"]
            .iter()
            .any(|dump| text.contains(dump));
        assert!(!is_dump, "{text}");
    }
    let failed = lines.iter().find(|line| line["code"] == 1002);
    let failed = failed.expect("a line for the broken protocol");
    assert_eq!(failed["peer"], failing_address.to_string());
    assert_eq!(failed["level"], "info");
    assert!(failed["connection"].is_string(), "{failed}");
    assert_eq!(failed["reason"], "opcode 0x3 is reserved");
    assert!(lines.iter().any(|line| line["code"] == 4000));
}

#[test]
fn the_level_decides_what_is_logged() {
    let mut server = Server::with(&["--log", "info"]);
    Client::connect(&server).leave();
    server.terminate();
    let log = server.wait().stderr;
    assert!(!log.contains("DEBUG") && !log.contains("TRACE"), "{log}");
}
