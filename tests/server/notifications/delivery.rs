//! Delivery: to which clients, in which words, in which order.

use crate::helpers::{
    Client, MARKER, Server, delivery, error_code, message, publish, publish_message, subscriber,
};

const CHANNEL_2: &str = r#"{"package":"p","page":"q","filters":{"values":{"channel":"2"}}}"#;
const CHANNEL_3: &str = r#"{"package":"p","page":"q","filters":{"values":{"channel":"3"}}}"#;

#[test]
fn only_matching_subscribers_get_a_notification() {
    let server = Server::start();
    let mut two = subscriber(&server, &format!(r#"[{CHANNEL_2},"marker"]"#));
    let mut three = subscriber(&server, &format!(r#"[{CHANNEL_3},"marker"]"#));
    let mut none = subscriber(&server, r#"["marker"]"#);
    let mut silent = Client::connect(&server);
    assert_eq!(publish(&server, CHANNEL_2), r#"{"delivered":1}"#);
    assert_eq!(publish(&server, MARKER), r#"{"delivered":3}"#);
    assert_eq!(two.before_marker(), [delivery(CHANNEL_2)]);
    assert!(three.before_marker().is_empty());
    assert!(none.before_marker().is_empty());
    silent.send(r#"{"type":"ping"}"#);
    assert_eq!(silent.text(), r#"{"type":"pong"}"#);
}

#[test]
fn several_matching_subscriptions_are_one_delivery() {
    let server = Server::start();
    let everything = r#"{"package":"p","page":"q"}"#;
    let list = format!(r#"[{CHANNEL_2},{everything},{CHANNEL_2},"both","both","marker"]"#);
    let mut client = subscriber(&server, &list);
    let both =
        r#"{"channel":"both","package":"p","page":"q","filters":{"values":{"channel":["2","3"]}}}"#;
    assert_eq!(publish(&server, both), r#"{"delivered":1}"#);
    publish(&server, MARKER);
    assert_eq!(client.before_marker(), [delivery(both)]);
}

#[test]
fn a_notification_arrives_byte_for_byte() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for notification in [
        r#"{"channel":"c"}"#,
        // Escaped, because the white space is what counts.
        "{ \"channel\" :\t\"c\" ,\n\r \"b\":1,\"a\" : [ ] }",
        r#"{"z":1,"channel":"c","a":{"y":1,"b":2}}"#,
        r#"{"channel":"c","n":[1.0,1e2,-0,0.10,1E+2,9007199254740993,123456789012345678901234567890]}"#,
        r#"{"channel":"c","text":"\u00e9 é \/ / \ud83d\ude00 😀 \u0000"}"#,
        r#"{"channel":"\u0063","same":1,"same":2,"same":null}"#,
        r#"{"channel":"c","message":"\"},{\"type\":\"notification\""}"#,
    ] {
        assert_eq!(publish(&server, notification), r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(notification));
    }
}

#[test]
fn every_length_of_frame_arrives() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for length in [
        0, 60, 61, 62, 63, 64, 65, 66, 200, 65_400, 65_535, 70_000, 900_000,
    ] {
        let notification = format!(r#"{{"channel":"c","t":"{}"}}"#, "x".repeat(length));
        assert_eq!(publish(&server, &notification), r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(&notification));
    }
}

#[test]
fn the_type_is_the_publishers() {
    let server = Server::start();
    // The type within the notification is the application's own.
    let mut client = subscriber(&server, r#"["c"]"#);
    for (member, expected) in [
        ("", r#""notification""#),
        (r#""type":"refreshcontent","#, r#""refreshcontent""#),
        (r#""type" : "a\u0062\"c" ,"#, r#""a\u0062\"c""#),
        (r#""type":"","#, r#""""#),
        (r#""type":"ping","#, r#""ping""#),
    ] {
        let notification = r#"{"type":"chat","channel":"c"}"#;
        let message = format!(r#"{{"sender":"server",{member}"notification":{notification}}}"#);
        assert_eq!(publish_message(&server, &message), r#"{"delivered":1}"#);
        assert_eq!(
            client.text(),
            format!(r#"{{"type":{expected},"notification":{notification}}}"#)
        );
    }
}

#[test]
fn the_servers_own_types_are_reserved() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    for reserved in [
        "subscribed",
        "pong",
        "error",
        "published",
        "caught-up",
        "gap",
        r"p\u006fng",
        r"g\u0061p",
    ] {
        let mut publisher = Client::connect(&server);
        publisher.send(&format!(
            r#"{{"sender":"server","type":"{reserved}","notification":{{"channel":"c"}}}}"#
        ));
        assert_eq!(error_code(&publisher.text()), "invalid-notification");
        publisher.expect_close(1008);
    }
    publish(&server, MARKER);
    assert!(client.before_marker().is_empty());
}

#[test]
fn one_publishers_notifications_arrive_in_order() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..3).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    let notifications: Vec<_> = (0..1000)
        .map(|number| format!(r#"{{"channel":"c","number":{number}}}"#))
        .collect();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for notification in &notifications {
        publisher.send(&message(notification));
    }
    let deliveries: Vec<_> = notifications.iter().map(|text| delivery(text)).collect();
    for client in &mut clients {
        client.expect_texts(&deliveries);
    }
    publisher.expect_texts(&[r#"{"type":"published","delivered":3}"#; 1000]);
}

#[test]
fn all_subscribers_see_the_same_order() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..4)
        .map(|_| subscriber(&server, r#"["c","marker"]"#))
        .collect();
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut kept = Client::connect_with(server, "/publish", &[]);
                for number in 0..100 {
                    let channel = format!(r#"{{"channel":"c","from":{publisher},"n":{number}}}"#);
                    kept.send(&message(&channel));
                }
                kept.expect_texts(&[r#"{"type":"published","delivered":4}"#; 100]);
            });
        }
    });
    publish(&server, MARKER);
    let first = clients[0].before_marker();
    assert_eq!(first.len(), 400);
    for client in &mut clients[1..] {
        assert_eq!(client.before_marker(), first);
    }
}

#[test]
fn a_client_that_is_gone_is_delivered_nothing() {
    let server = Server::start();
    let mut stays = subscriber(&server, r#"["c"]"#);
    let leaves = subscriber(&server, r#"["c"]"#);
    leaves.leave();
    assert_eq!(publish(&server, r#"{"channel":"c"}"#), r#"{"delivered":1}"#);
    assert_eq!(stays.text(), delivery(r#"{"channel":"c"}"#));
}
