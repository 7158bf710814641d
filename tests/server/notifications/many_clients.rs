//! Many subscribers at once.

use crate::helpers::{Client, MARKER, Server, delivery, message, publish, subscriber};

#[test]
fn five_hundred_subscribers_get_each_notification_once_and_in_order() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..500)
        .map(|_| subscriber(&server, r#"["c","marker"]"#))
        .collect();
    let notification = |number| format!(r#"{{"channel":"c","n":{number}}}"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for number in 0..25 {
        publisher.send(&message(&notification(number)));
    }
    publisher.expect_texts(&[r#"{"type":"published","delivered":500}"#; 25]);
    for number in 25..50 {
        assert_eq!(
            publish(&server, &notification(number)),
            r#"{"delivered":500}"#
        );
    }
    publish(&server, MARKER);
    let expected: Vec<_> = (0..50)
        .map(|number| delivery(&notification(number)))
        .collect();
    for client in &mut clients {
        assert_eq!(client.before_marker(), expected);
    }
}

#[test]
fn each_of_many_gets_its_own() {
    let server = Server::start();
    let channel = |number: usize| format!(r#"{{"channel":{number}}}"#);
    let mut clients: Vec<_> = (0..200)
        .map(|number| subscriber(&server, &format!(r#"["{number}","marker"]"#)))
        .collect();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for number in 0..200 {
        publisher.send(&message(&channel(number)));
    }
    publisher.expect_texts(&[r#"{"type":"published","delivered":1}"#; 200]);
    // Half of them leave, and nobody else's subscription with them.
    let rest = clients.split_off(100);
    for (number, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.text(), delivery(&channel(number)));
        client.leave();
    }
    assert_eq!(publish(&server, MARKER), r#"{"delivered":100}"#);
    for (number, mut client) in (100..).zip(rest) {
        assert_eq!(client.before_marker(), [delivery(&channel(number))]);
    }
}
