//! What a publisher is answered, on an ephemeral connection and on a kept one, and what becomes
//! of its notification when it doesn't wait for the answer.

use std::io::Write;
use std::time::Duration;

use crate::helpers::{
    Client, MARKER, Received, Server, close_frame, close_reason, delivery, error_code, frame,
    message, publish, subscriber, upgrade,
};
use socket2::SockRef;

const C: &str = r#"{"channel":"c"}"#;

fn text(message: &str) -> Vec<u8> {
    frame(0x81, message.as_bytes())
}

/// An upgrade and a notification, to be sent in one write.
fn upgrade_and(notification: &str) -> Vec<u8> {
    [upgrade().into_bytes(), text(&message(notification))].concat()
}

#[test]
fn the_close_says_how_many_got_it() {
    let server = Server::start();
    let mut clients = Vec::new();
    for expected in 0..4 {
        let reason = publish(&server, C);
        assert_eq!(reason, format!(r#"{{"delivered":{expected}}}"#));
        clients.push(subscriber(&server, r#"["c"]"#));
    }
}

#[test]
fn a_bad_notification_gets_its_error_then_close_1008() {
    let server = Server::start();
    let mut witness = subscriber(&server, r#"["c","marker"]"#);
    for bad in [
        r#"{"sender":"server"}"#,
        r#"{"sender":"server","notification":[]}"#,
        r#"{"sender":"server","notification":"c"}"#,
        r#"{"sender":"server","notification":null}"#,
        r#"{"sender":"server","notification":{}}"#,
        r#"{"sender":"server","notification":{"package":"p"}}"#,
        r#"{"sender":"server","notification":{"page":"q","channel":"c"}}"#,
        r#"{"sender":"server","notification":{"package":1,"page":"q","channel":"c"}}"#,
        r#"{"sender":"server","notification":{"channel":["c"]}}"#,
        r#"{"sender":"server","notification":{"channel":null}}"#,
        r#"{"sender":"server","notification":{"channel":"c","channel":"c"}}"#,
        r#"{"sender":"server","notification":{"channel":"c","filters":["c"]}}"#,
        r#"{"sender":"server","notification":{"channel":"c","filters":{"values":{"a":null}}}}"#,
        r#"{"sender":"server","notification":{"channel":"c","filters":{"values":{"a":[["b"]]}}}}"#,
        r#"{"sender":"server","notification":{"channel":"c"},"notification":{"channel":"c"}}"#,
        r#"{"sender":"server","type":7,"notification":{"channel":"c"}}"#,
        r#"{"sender":"server","type":"a","type":"b","notification":{"channel":"c"}}"#,
    ] {
        let mut publisher = Client::connect(&server);
        publisher.send(bad);
        assert_eq!(
            error_code(&publisher.text()),
            "invalid-notification",
            "{bad}"
        );
        close_reason(&publisher.expect_close(1008));
        publisher.answer_close(1008);
    }
    publish(&server, MARKER);
    assert!(witness.before_marker().is_empty());
}

#[test]
fn what_follows_a_notification_is_discarded() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    let mut publisher = Client::connect(&server);
    let first = text(&message(r#"{"channel":"c","n":1}"#));
    let second = text(&message(r#"{"channel":"c","n":2}"#));
    let ping = frame(0x89, b"ping");
    publisher.send_bytes(&[&first[..], &second, &ping, &second].concat());
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
    publisher.send_bytes(&second);
    publisher.answer_close(1000);
    publish(&server, MARKER);
    assert_eq!(
        client.before_marker(),
        [delivery(r#"{"channel":"c","n":1}"#)]
    );
}

#[test]
fn a_subscriber_that_publishes_gets_its_own_delivery_then_the_close() {
    let server = Server::start();
    let mut other = subscriber(&server, r#"["c"]"#);
    let mut client = subscriber(&server, r#"["c"]"#);
    client.send(&message(C));
    assert_eq!(client.text(), delivery(C));
    assert_eq!(client.expect_close(1000), r#"{"delivered":2}"#);
    client.answer_close(1000);
    assert_eq!(other.text(), delivery(C));
}

#[test]
fn subscribing_and_publishing_in_one_packet() {
    let server = Server::start();
    let mut client = Client::over(server.tcp());
    let subscribe = text(r#"{"sender":"client","subscriptions":["c"]}"#);
    let all = [upgrade().into_bytes(), subscribe, text(&message(C))].concat();
    client.send_bytes(&all);
    client.expect_upgrade();
    assert!(client.text().starts_with(r#"{"type":"subscribed","#));
    assert_eq!(client.text(), delivery(C));
    assert_eq!(client.expect_close(1000), r#"{"delivered":1}"#);
    client.answer_close(1000);
}

#[test]
fn a_kept_publisher_is_answered_in_order_errors_in_their_place() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for target in ["/publish", "/publish?worker=7&x=/", "/publish?"] {
        let mut publisher = Client::connect_with(&server, target, &[]);
        publisher.send_bytes(
            &[
                text(&message(C)),
                text(&message("{}")),
                text("nonsense"),
                text(&message(r#"{"channel":"nobody"}"#)),
                text(r#"{"type":"ping"}"#),
                text(r#"{"sender":"server","type":"pong","notification":{"channel":"c"}}"#),
                text(&message(C)),
            ]
            .concat(),
        );
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
        assert_eq!(error_code(&publisher.text()), "invalid-notification");
        assert_eq!(error_code(&publisher.text()), "invalid-json");
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":0}"#);
        assert_eq!(publisher.text(), r#"{"type":"pong"}"#);
        assert_eq!(error_code(&publisher.text()), "invalid-notification");
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
        client.expect_texts(&[delivery(C), delivery(C)]);
        publisher.leave();
    }
}

#[test]
fn only_the_path_publish_keeps_a_publisher() {
    let server = Server::start();
    for target in [
        "/publish/",
        "/Publish",
        "/a/publish",
        "/?/publish",
        "/%70ublish",
    ] {
        let mut publisher = Client::connect_with(&server, target, &[]);
        publisher.send(&message(C));
        assert_eq!(
            publisher.expect_close(1000),
            r#"{"delivered":0}"#,
            "{target}"
        );
    }
}

#[test]
fn a_kept_publisher_may_subscribe_too() {
    let server = Server::start();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    publisher.subscribe(r#"["c"]"#);
    publisher.send(&message(C));
    let mut both = [publisher.text(), publisher.text()];
    both.sort();
    assert_eq!(
        both,
        [
            delivery(C),
            r#"{"type":"published","delivered":1}"#.to_owned()
        ]
    );
}

#[test]
fn a_publisher_that_closes_first_is_heard() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::over(server.tcp());
    publisher.send_bytes(&[upgrade_and(C), close_frame(1000)].concat());
    assert_eq!(client.text(), delivery(C));
    publisher.expect_upgrade();
    publisher.expect_close(1000);
    publisher.expect_end();
}

#[test]
fn a_publisher_that_hangs_up_is_heard() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for number in 0..100 {
        let notification = format!(r#"{{"channel":"c","n":{number}}}"#);
        let mut stream = server.tcp();
        let bytes = upgrade_and(&notification);
        stream.write_all(&bytes).expect("the server reads");
        drop(stream);
        assert_eq!(client.text(), delivery(&notification));
    }
}

#[test]
fn a_publisher_that_resets_is_heard_exactly_once() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    for number in 0..100 {
        let notification = format!(r#"{{"channel":"c","n":{number}}}"#);
        let mut stream = server.tcp();
        // With the answer unread, this is what PHP's fclose does.
        stream
            .write_all(&upgrade_and(&notification))
            .expect("the server reads");
        let mut byte = [0];
        stream.peek(&mut byte).expect("the server answers");
        drop(stream);
        assert_eq!(client.text(), delivery(&notification));
    }
    publish(&server, MARKER);
    assert!(client.before_marker().is_empty());
}

#[test]
fn a_reset_right_behind_a_notification_takes_nothing_back() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    for _ in 0..100 {
        let mut stream = server.tcp();
        stream.write_all(&upgrade_and(C)).expect("the server reads");
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("lingering can be turned off");
        drop(stream);
    }
    client.expect_texts(&vec![delivery(C); 100]);
    publish(&server, MARKER);
    assert!(client.before_marker().is_empty());
}

#[test]
fn a_publisher_that_ends_its_sending_gets_its_close() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for _ in 0..20 {
        let mut publisher = Client::over(server.tcp());
        publisher.send_bytes(&upgrade_and(C));
        publisher.shut_write();
        publisher.expect_upgrade();
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
        publisher.expect_end();
        assert_eq!(client.text(), delivery(C));
    }
}

#[test]
fn half_a_notification_is_none() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    let bytes = upgrade_and(C);
    let mut publisher = Client::over(server.tcp());
    publisher.send_bytes(&bytes[..bytes.len() - 1]);
    publisher.shut_write();
    publisher.expect_upgrade();
    assert_eq!(publisher.receive(), Received::End);
    publish(&server, MARKER);
    assert!(client.before_marker().is_empty());
}

#[test]
fn many_publishers_at_once_are_all_heard() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    let mut publishers: Vec<_> = (0..50).map(|_| Client::over(server.tcp())).collect();
    for publisher in &mut publishers {
        publisher.send_bytes(&upgrade_and(C));
    }
    for publisher in &mut publishers {
        publisher.expect_upgrade();
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
    }
    publish(&server, MARKER);
    assert_eq!(client.before_marker(), vec![delivery(C); 50]);
}
