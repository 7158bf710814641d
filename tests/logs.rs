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
fn the_level_decides_what_is_logged() {
    let mut server = Server::with(&["--log", "info"]);
    Client::connect(&server).leave();
    server.terminate();
    let log = server.wait().stderr;
    assert!(!log.contains("DEBUG") && !log.contains("TRACE"), "{log}");
}
