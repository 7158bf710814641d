//! What happens when the process keeps too much: the connections for which it is kept go, no others do.

use std::io::Write;

use crate::helpers::{Client, Server, delivery, message, publish, response, subscriber, upgrade};

const C: &str = r#"{"channel":"c"}"#;

/// Both subscribers and publishers are served as if nothing was.
fn expect_service(server: &Server, subscribers: &mut [Client]) {
    let reason = format!(r#"{{"delivered":{}}}"#, subscribers.len());
    assert_eq!(publish(server, C), reason);
    for subscriber in subscribers {
        assert_eq!(subscriber.text(), delivery(C));
    }
}

#[test]
fn unfinished_heads_cost_nobody_else_anything() {
    let server = Server::with(&["--buffer-bytes", "1048576"]);
    let mut subscribers: Vec<_> = (0..5).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    let head = upgrade().replace("\r\n\r\n", "\r\nX: ") + &"x".repeat(16_000);
    let mut refused = None;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut stream = server.tcp();
        stream.write_all(head.as_bytes()).expect("the server reads");
        idle.push(stream);
        expect_service(&server, &mut subscribers);
    }
    for mut stream in idle {
        stream.set_nonblocking(true).expect("a socket");
        if stream.peek(&mut [0]).is_ok() {
            stream.set_nonblocking(false).expect("a socket");
            refused = Some(response(&mut stream).0);
        }
    }
    let refused = refused.expect("some had to go");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
}

#[test]
fn frames_that_are_half_written_cost_nobody_else_anything() {
    // With a history nobody would be too much for the process so soon.
    let flags = ["--buffer-bytes", "4194304", "--history-bytes", "0"];
    let server = Server::with(&[&flags[..], &["--close-timeout", "60"]].concat());
    let mut subscribers: Vec<_> = (0..5).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    let mut slow = Vec::new();
    for channel in 0..10 {
        slow.push(subscriber(&server, &format!(r#"["{channel}"]"#)));
        let text = "x".repeat(1_000_000);
        let notification = format!(r#"{{"channel":"{channel}","text":"{text}"}}"#);
        let mut publisher = Client::connect(&server);
        for attempt in 0.. {
            assert!(attempt < 40, "nothing backs up");
            publisher.send(&message(&notification));
            match publisher.expect_close(1000).as_str() {
                r#"{"delivered":1}"# => publisher = Client::connect(&server),
                r#"{"delivered":0,"dropped":1}"# | r#"{"delivered":0}"# => break,
                other => panic!("{other}"),
            }
        }
        expect_service(&server, &mut subscribers);
    }
}
