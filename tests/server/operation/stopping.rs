//! What a signal does: everybody is told, in time, and the exit status says how it went.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::helpers::http::{Http, post};
use crate::helpers::{
    Client, DEADLINE, Received, Server, close_reason, delivery, frame, message, response,
    subscriber, upgrade,
};

#[test]
fn every_client_is_told_when_to_come_back() {
    let mut server = Server::start();
    let mut clients: Vec<_> = (0..20).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    server.terminate();
    let mut retries = BTreeSet::new();
    for client in &mut clients {
        let (word, retry) = close_reason(&client.expect_close(1001));
        assert_eq!(word, "shutdown");
        assert!(retry <= 1000, "{retry}");
        assert!(retries.insert(retry), "{retry} twice");
        client.answer_close(1001);
    }
    // Spread evenly: each twentieth of the second has its client.
    let widest = retries.iter().zip(retries.iter().skip(1));
    let widest = widest.map(|(earlier, later)| later - earlier).max();
    assert!(widest <= Some(60), "{retries:?}");
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_server_without_clients_stops_at_once() {
    let mut server = Server::with(&["--drain-timeout", "60"]);
    server.terminate();
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_publisher_from_before_the_signal_is_heard() {
    let mut server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    // All of this is there when the server looks again: the signal, and publishers that it has
    // not accepted yet.
    server.halt(true);
    let notification = r#"{"channel":"c"}"#;
    let publishers: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = server.tcp();
            let bytes = [
                upgrade().into_bytes(),
                frame(0x81, message(notification).as_bytes()),
            ]
            .concat();
            stream.write_all(&bytes).expect("the kernel takes it");
            stream
        })
        .collect();
    server.terminate();
    server.halt(false);
    client.expect_texts(&vec![delivery(notification); publishers.len()]);
    client.expect_close(1001);
    client.answer_close(1001);
    drop(publishers);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn what_was_published_is_delivered_before_the_close() {
    let mut server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let notifications: Vec<_> = (0..100)
        .map(|number| {
            format!(
                r#"{{"channel":"c","n":{number},"t":"{}"}}"#,
                "x".repeat(5000)
            )
        })
        .collect();
    for notification in &notifications {
        publisher.send(&message(notification));
    }
    publisher.expect_texts(&[r#"{"type":"published","delivered":1}"#; 100]);
    server.terminate();
    for notification in &notifications {
        assert!(client.text() == delivery(notification));
    }
    client.expect_close(1001);
    publisher.expect_close(1001);
    client.answer_close(1001);
    publisher.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_client_that_does_not_answer_delays_no_longer_than_allowed() {
    let mut server = Server::with(&["--drain-timeout", "0.5", "--close-timeout", "60"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let since = Instant::now();
    server.terminate();
    client.expect_close(1001);
    let ended = server.wait();
    assert!(since.elapsed() >= Duration::from_millis(500));
    assert!(since.elapsed() < DEADLINE);
    assert_eq!(ended.status, Some(0));
    client.expect_end();
}

#[test]
fn nobody_is_let_in_any_more() {
    let server = Server::with(&["--drain-timeout", "60", "--close-timeout", "60"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut waiting = server.tcp();
    // The client's answer says that the server knows of the other connection.
    client.send(r#"{"type":"ping"}"#);
    drop(client.text());
    server.terminate();
    client.expect_close(1001);
    assert!(TcpStream::connect(server.address()).is_err());
    let (head, _) = response(&mut waiting);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("\r\nRetry-After: "), "{head}");
}

#[test]
fn a_stopping_server_answers_nothing_more() {
    let mut server = Server::with(&["--drain-timeout", "60", "--close-timeout", "60"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    server.terminate();
    client.expect_close(1001);
    client.send(&message(r#"{"channel":"c"}"#));
    client.send(r#"{"type":"ping"}"#);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::with(&["--drain-timeout", "60", "--close-timeout", "60"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    server.terminate();
    client.expect_close(1001);
    server.terminate();
    let ended = server.wait();
    assert!(ended.status.is_some_and(|status| status != 0), "{ended:?}");
    assert_eq!(client.receive(), Received::End);
}

#[test]
fn publishers_are_served_until_the_last_client_is_told() {
    let flags = ["--drain-timeout", "60", "--send-queue-bytes", "67108864"];
    let mut server = Server::with(&flags);
    let mut client = Client::over(server.narrow_tcp()).upgrade("/", &[]);
    client.subscribe(r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    // More than the kernel takes: the Close waits behind it.
    let large = format!(r#"{{"channel":"c","t":"{}"}}"#, "x".repeat(1_000_000));
    for _ in 0..16 {
        publisher.send(&message(&large));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
    }
    server.terminate();
    server.wait_for_line("stopping");
    for _ in 0..3 {
        publisher.send(&message(r#"{"channel":"c"}"#));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":0}"#);
    }
    client.expect_texts(&vec![delivery(&large); 16]);
    client.expect_close(1001);
    publisher.expect_close(1001);
    publisher.answer_close(1001);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_publisher_that_asks_on_the_lane_is_told_of_the_stop() {
    let flags = ["--publish-listen", "127.0.0.1:0", "--drain-timeout", "60"];
    let mut server = Server::with(&[&flags[..], &["--send-queue-bytes", "67108864"]].concat());
    let mut client = Client::over(server.narrow_tcp()).upgrade("/", &[]);
    client.subscribe(r#"["c"]"#);
    let [mut http, mut late] = [0; 2].map(|_| Http::over(Server::tcp_to(server.publish_address())));
    late.send(post(&message(r#"{"channel":"nobody's"}"#)));
    late.expect(200, r#"{"delivered":0}"#);
    let ask = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    http.send(ask);
    http.expect(200, "ok\n");
    // More than the kernel takes: the client's Close waits behind it, and the lane's end for that.
    let large = format!(r#"{{"channel":"c","t":"{}"}}"#, "x".repeat(1_000_000));
    for _ in 0..16 {
        http.send(post(&message(&large)));
        http.expect(200, r#"{"delivered":1}"#);
    }
    server.terminate();
    server.wait_for_line("stopping");
    http.send(ask);
    http.expect(503, "stopping\n");
    // It would reach nobody; the next process can deliver it.
    late.send(post(&message(r#"{"channel":"c"}"#)));
    let (status, head, _) = late.receive();
    assert!(
        status == 503 && head.contains("\r\nRetry-After: "),
        "{head}"
    );
    late.expect_end();
    client.expect_texts(&vec![delivery(&large); 16]);
    client.expect_close(1001);
    client.answer_close(1001);
    http.expect_end();
    drop((http, late));
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn a_client_that_takes_nothing_keeps_publishers_no_longer_than_half_of_the_time() {
    let flags = ["--drain-timeout", "1", "--send-queue-bytes", "67108864"];
    let mut server = Server::with(&flags);
    let mut client = Client::over(server.narrow_tcp()).upgrade("/", &[]);
    client.subscribe(r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let large = format!(r#"{{"channel":"c","t":"{}"}}"#, "x".repeat(1_000_000));
    for _ in 0..16 {
        publisher.send(&message(&large));
        drop(publisher.text());
    }
    server.terminate();
    publisher.expect_close(1001);
    publisher.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}
