//! What the tests over the wire share: a server of their own for each, and a client that was
//! written for them alone, so that a mistake of the server's own WebSocket code can't hide in it.
//!
//! Invariants: every wait has a deadline and ends with an event, never with a sleep; no port is
//! fixed; nothing outlives its test.

mod client;
mod crowd;
pub(crate) mod folder;
pub(crate) mod http;
pub(crate) mod installed;
pub(crate) mod numbered;
mod program;
pub(crate) mod receipts;
pub(crate) mod redis;
pub(crate) mod replay;
mod scene;
pub(crate) mod secrets;
mod server;

use std::time::Duration;

pub(crate) use client::{
    Client, NO_STATUS, Received, UPGRADE_FIELDS, close_frame, close_payload, frame, response,
    upgrade, upgrade_to,
};
pub(crate) use crowd::{Crowd, Served};
pub(crate) use program::{Ended, Program, crieur, most_descriptors, raise_descriptor_limit, run};
pub(crate) use scene::{DELIVERY_MAX, Ending, Scene, withstand};
pub(crate) use server::{Server, activate};

/// How long a test waits for what must come. Far more than it takes, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A notification that every subscriber of these tests can ask for beside its own: what it has
/// not received before this one was not sent to it.
pub(crate) const MARKER: &str = r#"{"channel":"marker"}"#;

/// A client that is subscribed to the entries of `subscriptions`, a JSON list, and was told so.
pub(crate) fn subscriber(server: &Server, subscriptions: &str) -> Client {
    let mut client = Client::connect(server);
    client.subscribe(subscriptions);
    client
}

/// Publishes `notification` on an ephemeral connection and returns the reason of the Close 1000, without the id.
pub(crate) fn publish(server: &Server, notification: &str) -> String {
    publish_message(server, &message(notification))
}

/// Sends a publisher's whole message and returns the reason of the Close 1000, without the id.
pub(crate) fn publish_message(server: &Server, message: &str) -> String {
    let mut publisher = Client::connect(server);
    publisher.send(message);
    let reason = publisher.expect_close(1000);
    publisher.answer_close(1000);
    reason
}

/// The message that publishes `notification`.
pub(crate) fn message(notification: &str) -> String {
    format!(r#"{{"sender":"server","notification":{notification}}}"#)
}

/// What a subscriber gets of `notification`.
pub(crate) fn delivery(notification: &str) -> String {
    format!(r#"{{"type":"notification","notification":{notification}}}"#)
}

/// The `code` of an error message.
pub(crate) fn error_code(text: &str) -> String {
    let error: serde_json::Value = serde_json::from_str(text).expect("an error is JSON");
    assert_eq!(error["type"], "error", "{text}");
    assert!(
        error["error"]["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty()),
        "{text}"
    );
    assert!(
        error.get("message").is_none() && error.get("notification").is_none(),
        "existing apps take these for content: {text}"
    );
    error["error"]["code"]
        .as_str()
        .expect("a code is a string")
        .to_owned()
}

/// The reason of a Close that the server starts: its word, and its `retry` in milliseconds.
pub(crate) fn close_reason(reason: &str) -> (String, u64) {
    assert!(reason.len() <= 123, "{reason}");
    let json: serde_json::Value = serde_json::from_str(reason).expect("a reason is JSON");
    let word = json["reason"].as_str().expect("a reason says why");
    let retry = json["retry"].as_u64().expect("a reason says when");
    (word.to_owned(), retry)
}

/// As many subscriptions and values as a connection may have, different for each `seed`.
pub(crate) fn largest_list(seed: usize) -> String {
    let list: Vec<_> = (0..256)
        .map(|number| {
            let value = |part| format!(r#""{seed}-{number}-{part}""#);
            let values = [0, 1, 2, 3].map(value).join(",");
            format!(r#"{{"package":"p","page":"q","filters":{{"values":{{"f":[{values}]}}}}}}"#)
        })
        .collect();
    format!("[{}]", list.join(","))
}
