//! What is written to standard error, what never is, and what happens when nobody reads it.

mod common;

use std::io::Write;

use common::{
    Client, Server, close_payload, delivery, frame, message, publish, response, subscriber,
    upgrade_to,
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
    assert_eq!(log.matches("has 1 subscriptions").count(), 3, "{log}");
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
    assert!(log.contains("published to 1 connections"), "{log}");
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
fn who_breaks_the_protocol_is_logged_with_the_address() {
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
        upgrade_to("/\"\\", &["X: \"", "Host : a"]),
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
    let forwarded = "X-Forwarded-For: \"\\, 1.2.3.4";
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
    let failed = lines.iter().find(|line| line["code"] == 1002);
    let failed = failed.expect("who broke the protocol");
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
