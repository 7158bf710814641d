//! What a client can say, and what it is answered.

use crate::helpers::{
    Client, MARKER, Received, Server, close_reason, delivery, error_code, frame, publish,
    subscriber,
};
use serde::Deserialize;
use serde_json::value::RawValue;

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

/// A message that gets an error. What isn't JSON, or must be written just so, is in `text`.
#[derive(Deserialize)]
struct BadMessage<'a> {
    case: String,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    text: Option<String>,
    error: String,
}

fn bad_messages() -> Vec<BadMessage<'static>> {
    serde_json::from_str(include_str!("../../data/bad-messages.json")).expect("the data is valid")
}

fn subscribe_message(subscriptions: &str) -> String {
    format!(r#"{{"sender":"client","subscriptions":{subscriptions}}}"#)
}

#[test]
fn a_subscription_is_answered_with_its_count_and_the_heartbeat() {
    for (flags, heartbeat) in [
        (&[][..], "25"),
        (&["--ping-interval", "7"], "7"),
        (&["--ping-interval", "12.5"], "12.5"),
    ] {
        let server = Server::with(flags);
        let mut client = Client::connect(&server);
        for (list, count) in [("[]", 0), (r#"["a"]"#, 1), (r#"["a","b","a"]"#, 3)] {
            client.send(&subscribe_message(list));
            let answer = format!(
                r#"{{"type":"subscribed","subscriptions":{count},"heartbeat":{heartbeat}}}"#
            );
            assert_eq!(client.text(), answer);
        }
        server.wait_for_line("3 subscriptions");
    }
}

#[test]
fn a_list_replaces_the_earlier_one() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    client.subscribe(r#"["d","marker"]"#);
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
    assert_eq!(publish(&server, D), r#"{"delivered":1}"#);
    publish(&server, MARKER);
    assert_eq!(client.before_marker(), [delivery(D)]);
}

#[test]
fn an_empty_list_unsubscribes_from_all() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","d"]"#);
    client.subscribe("[]");
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
    client.subscribe(r#"["marker"]"#);
    publish(&server, MARKER);
    assert!(client.before_marker().is_empty());
}

#[test]
fn bad_messages_get_their_error_and_change_nothing() {
    let server = Server::with(&[
        "--max-message-bytes",
        "200000",
        "--max-publish-bytes",
        "200000",
    ]);
    let mut client = subscriber(&server, r#"["c"]"#);
    for bad in bad_messages() {
        let text = match (bad.message, bad.text) {
            (Some(message), _) => message.get().to_owned(),
            (None, Some(text)) => text,
            // What is too long to be written down.
            (None, None) => "[".repeat(100_000),
        };
        client.send(&text);
        assert_eq!(error_code(&client.text()), bad.error, "{}", bad.case);
        assert_eq!(publish(&server, C), r#"{"delivered":1}"#, "{}", bad.case);
        assert_eq!(client.text(), delivery(C), "{}", bad.case);
    }
}

#[test]
fn depth_does_no_harm_in_valid_messages() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    client.send(&deep);
    assert_eq!(error_code(&client.text()), "unknown-message");
    let notification = format!(r#"{{"channel":"c","deep":{deep}}}"#);
    assert_eq!(publish(&server, &notification), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(&notification));
}

#[test]
fn an_error_names_the_member() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send(&subscribe_message(r#"["a",{"package":"p"}]"#));
    let answer = client.text();
    assert!(answer.contains("subscriptions[1].page"), "{answer}");
}

#[test]
fn what_is_not_json_is_an_error_from_any_sender() {
    let server = Server::start();
    for target in ["/", "/publish"] {
        let mut client = Client::connect_with(&server, target, &[]);
        for text in [
            "",
            " ",
            "nonsense",
            r#"{"sender":"server","#,
            "\"\u{1}\"",
            "{}{}",
            "NaN",
        ] {
            client.send(text);
            assert_eq!(error_code(&client.text()), "invalid-json", "{text:?}");
        }
        client.subscribe(r#"["c"]"#);
    }
}

#[test]
fn application_pings_are_answered_each_and_in_order() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    let mut burst = ping.repeat(100);
    burst.extend(frame(0x81, b"between"));
    burst.extend(ping.repeat(100));
    client.send_bytes(&burst);
    client.expect_texts(&[r#"{"type":"pong"}"#; 100]);
    assert_eq!(error_code(&client.text()), "invalid-json");
    client.expect_texts(&[r#"{"type":"pong"}"#; 100]);
}

#[test]
fn an_application_ping_may_be_written_in_any_way() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    for ping in [
        r#" { "type" : "ping" } "#,
        r#"{"t\u0079pe":"p\u0069ng"}"#,
        r#"{"id":1,"type":"ping","notification":{"channel":"c"}}"#,
    ] {
        client.send(ping);
        assert_eq!(client.text(), r#"{"type":"pong"}"#);
    }
}

#[test]
fn the_sender_decides_over_the_type() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send(r#"{"type":"ping","sender":"client","subscriptions":["c"]}"#);
    assert!(client.text().starts_with(r#"{"type":"subscribed","#));
    client.send(r#"{"type":"ping","sender":"client"}"#);
    assert_eq!(error_code(&client.text()), "unknown-message");
    client.send(r#"{"type":"ping","sender":"somebody"}"#);
    assert_eq!(error_code(&client.text()), "unknown-message");
    client.send(&format!(
        r#"{{"subscriptions":[],"type":"ping","notification":{C},"sender":"server"}}"#
    ));
    assert_eq!(
        client.text(),
        format!(r#"{{"type":"ping","notification":{C}}}"#)
    );
    assert_eq!(client.expect_close(1000), r#"{"delivered":1}"#);
}

#[test]
fn an_unknown_message_changes_nothing() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for text in [
        r#"{"sender":"client","cmd":[{"amaiia_msg_srv":{}}]}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":7}"#,
        r#"{"sender":null,"subscriptions":[]}"#,
        r#"{"sender":"client","sender":"client","subscriptions":[]}"#,
        "{}",
        "[]",
        "null",
        "7",
        r#""ping""#,
    ] {
        client.send(text);
        assert_eq!(error_code(&client.text()), "unknown-message", "{text}");
    }
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn a_binary_message_is_closed_with_1003() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    client.send_bytes(&frame(0x82, br#"{"type":"ping"}"#));
    let (word, _) = close_reason(&client.expect_close(1003));
    assert_eq!(word, "binary-message");
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
    client.answer_close(1003);
}

#[test]
fn subscriptions_have_a_limit() {
    let server = Server::with(&["--max-subscriptions", "3"]);
    let mut client = subscriber(&server, r#"["a","b","c"]"#);
    client.send(&subscribe_message(r#"["d","e","f","g"]"#));
    assert_eq!(error_code(&client.text()), "too-many-subscriptions");
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn values_have_a_limit_over_all_subscriptions() {
    let server = Server::with(&["--max-values", "4"]);
    let page =
        |values: &str| format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}}}}"#);
    let (two, wildcard) = (page(r#"{"channel":["1","2"]}"#), page(r#"{"oee":true}"#));
    let mut client = subscriber(&server, &format!(r#"["c",{two},{wildcard}]"#));
    client.send(&subscribe_message(&format!(
        r#"["d","e",{two},{wildcard}]"#
    )));
    assert_eq!(error_code(&client.text()), "too-many-subscriptions");
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn subscriptions_have_a_limit_over_all_connections() {
    for (flags, full, smaller, over) in [
        (
            ["--max-total-subscriptions", "4"],
            r#"["a","b"]"#,
            r#"["d"]"#,
            r#"["a"]"#,
        ),
        (
            ["--max-total-values", "4"],
            r#"[{"package":"p","page":"q","filters":{"values":["1","2"]}}]"#,
            r#"["d"]"#,
            r#"[{"package":"p","page":"q","filters":{"values":{"x":true}}}]"#,
        ),
    ] {
        let server = Server::with(&flags);
        let mut first = subscriber(&server, r#"["c","d"]"#);
        let second = subscriber(&server, full);
        // As many in place of as many have room, one more hasn't.
        first.subscribe(r#"["c","e"]"#);
        first.send(&subscribe_message(r#"["d","e","f"]"#));
        assert_eq!(error_code(&first.text()), "too-many-subscriptions");
        let mut third = Client::connect(&server);
        third.send(&subscribe_message(over));
        let answer = third.text();
        assert_eq!(error_code(&answer), "too-many-subscriptions");
        assert!(answer.contains("the server has"), "{answer}");
        third.subscribe("[]");
        // The earlier ones are in force.
        assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
        assert_eq!(first.text(), delivery(C));
        assert_eq!(publish(&server, D), r#"{"delivered":0}"#);
        // A client that subscribes to less, or leaves, gives its share back.
        first.subscribe(smaller);
        third.subscribe(over);
        second.leave();
        third.subscribe(r#"["c","d","e"]"#);
        assert_eq!(publish(&server, D), r#"{"delivered":2}"#);
        assert_eq!(third.text(), delivery(D));
    }
}

#[test]
fn texts_of_subscriptions_have_a_limit_over_all_connections() {
    let server = Server::with(&["--max-text-bytes", "1000"]);
    let channel = |text: &str, length| format!(r#"["{}"]"#, text.repeat(length));
    let mut first = subscriber(&server, &channel("x", 600));
    let mut second = subscriber(&server, r#"["c"]"#);
    second.send(&subscribe_message(&channel("y", 400)));
    assert_eq!(error_code(&second.text()), "too-many-subscriptions");
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(second.text(), delivery(C));
    second.subscribe(&channel("y", 399));
    // The same text costs nothing more.
    subscriber(&server, &channel("x", 600)).leave();
    first.subscribe(&channel("x", 600));
    first.leave();
    second.subscribe(&channel("z", 601));
}

#[test]
fn a_protocol_ping_is_answered_between_the_answers() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    client.send_bytes(&[&ping[..], &frame(0x89, b"payload"), &ping].concat());
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
    assert_eq!(client.receive(), Received::Pong(b"payload".to_vec()));
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
}
