//! Which subscription matches which notification: the cases of the contract, over the wire.

use crate::helpers::{Client, MARKER, Server, delivery, message, publish, subscriber};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A subscription, a notification, and whether they match; both as they are written.
#[derive(Deserialize)]
struct Case<'a> {
    case: String,
    #[serde(borrow)]
    subscription: &'a RawValue,
    #[serde(borrow)]
    notification: &'a RawValue,
    matches: bool,
}

fn cases() -> Vec<Case<'static>> {
    serde_json::from_str(include_str!("../../data/matching-cases.json")).expect("the data is valid")
}

#[test]
fn each_case_alone() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for case in cases() {
        client.subscribe(&format!("[{}]", case.subscription));
        publisher.send(&message(case.notification.get()));
        let delivered = usize::from(case.matches);
        let answer = format!(r#"{{"type":"published","delivered":{delivered}}}"#);
        assert_eq!(publisher.text(), answer, "{}", case.case);
        if case.matches {
            assert_eq!(client.text(), delivery(case.notification.get()));
        }
    }
}

#[test]
fn each_case_beside_all_others() {
    let server = Server::start();
    let mut clients: Vec<_> = cases()
        .into_iter()
        .map(|case| {
            let list = format!(r#"[{},"marker"]"#, case.subscription);
            (subscriber(&server, &list), case)
        })
        .collect();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for case in cases() {
        publisher.send(&message(case.notification.get()));
        publisher.text();
    }
    publish(&server, MARKER);
    for (client, case) in &mut clients {
        let expected = delivery(case.notification.get());
        let came = client.before_marker().contains(&expected);
        assert_eq!(came, case.matches, "{}", case.case);
    }
}

#[test]
fn names_and_values_may_be_written_with_escapes() {
    let server = Server::start();
    let subscription = r#"{"p\u0061ckage":"p","\u0070age":"\u0071","filters":{"values":{"ch\u0061nnel":"\u0032"}}}"#;
    let list = format!(r#"[{subscription}]"#);
    let mut client = subscriber(&server, &list);
    let notification = r#"{"package":"\u0070","page":"q","filters":{"values":{"channel":"2"}}}"#;
    assert_eq!(publish(&server, notification), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(notification));
}

#[test]
fn members_that_are_not_named_are_ignored() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send(
        r#"{"id":7,"sender":"client","id":8,"subscriptions":[{"package":"p","v":1,"page":"q","v":2}]}"#,
    );
    assert!(client.text().starts_with(r#"{"type":"subscribed","#));
    let notification = r#"{"package":"p","page":"q","channel":{"id":1},"filters":{"more":[[]]}}"#;
    assert_eq!(publish(&server, notification), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(notification));
}
