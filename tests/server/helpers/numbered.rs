//! Clients that number their deliveries, what they are told, and publishers that want ids.

use std::io::{Read, Write};
use std::time::Instant;

use super::http::{Http, figures};
use super::receipts::{check_id, split_id};
use super::{Client, DEADLINE, Server, message, upgrade};

/// A list of subscriptions of a client that shows `since`.
pub(crate) fn list_since(subscriptions: &str, since: &str) -> String {
    format!(r#"{{"sender":"client","subscriptions":{subscriptions},"since":"{since}"}}"#)
}

/// The answer to a list with `""`, and to one without `since` on a numbered connection.
pub(crate) fn subscribed(subscriptions: usize, id: &str) -> String {
    format!(r#"{{"type":"subscribed","subscriptions":{subscriptions},"heartbeat":25,"id":"{id}"}}"#)
}

/// The answer to an id behind which nothing is missing.
pub(crate) fn resumed(subscriptions: usize, id: &str) -> String {
    subscribed(subscriptions, id).replace('}', r#","resumed":true}"#)
}

/// The answer to an id behind which something may be missing; `id` is the position now.
pub(crate) fn not_resumed(subscriptions: usize, id: &str, reason: &str) -> String {
    let rest = format!(r#","resumed":false,"reason":"{reason}"}}"#);
    subscribed(subscriptions, id).replace('}', &rest)
}

/// What ends a replay.
pub(crate) fn caught_up(id: &str, missed: usize) -> String {
    format!(r#"{{"type":"caught-up","id":"{id}","missed":{missed}}}"#)
}

/// The answer to an application ping.
pub(crate) fn pong(id: &str) -> String {
    format!(r#"{{"type":"pong","id":"{id}"}}"#)
}

/// What a numbered client gets of `notification`.
pub(crate) fn numbered(id: &str, notification: &str) -> String {
    format!(r#"{{"type":"notification","id":"{id}","notification":{notification}}}"#)
}

/// The id of a message to a numbered client.
pub(crate) fn id_of(text: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(text).expect("messages are JSON");
    let id = json["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id: {text}"));
    check_id(id);
    id.to_owned()
}

/// Asks for the position now.
pub(crate) fn position(server: &Server) -> String {
    let mut http = Http::connect(server);
    http.send("GET /position HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (status, head, body) = http.receive();
    assert_eq!(status, 200, "{head}");
    let id = id_of(&body);
    assert_eq!(body, format!(r#"{{"id":"{id}"}}"#));
    id
}

/// Publishes `notification` on an ephemeral connection and returns its id.
pub(crate) fn publish_kept(server: &Server, notification: &str) -> String {
    let (_, id) = split_id(&publish_whole(server, &message(notification)));
    id
}

/// Sends a publisher's whole message and returns the reason of the Close 1000, with its id.
pub(crate) fn publish_whole(server: &Server, message: &str) -> String {
    let mut publisher = Client::connect(server);
    publisher.send(message);
    let receipt = publisher.expect_whole_close(1000);
    publisher.answer_close(1000);
    receipt
}

/// Publishes `notifications` on one connection and returns their ids.
pub(crate) fn publish_all<T: AsRef<str>>(server: &Server, notifications: &[T]) -> Vec<String> {
    let mut publisher = Client::connect_with(server, "/publish", &[]);
    let publish = |notification: &T| {
        publisher.send(&message(notification.as_ref()));
        let (_, id) = split_id(&publisher.whole_text());
        id
    };
    notifications.iter().map(publish).collect()
}

/// A numbered subscriber to `subscriptions` that has shown no id.
pub(crate) fn numbered_subscriber(server: &Server, subscriptions: &str) -> Client {
    let mut client = Client::connect(server);
    client.subscribe_since(subscriptions, "");
    client
}

/// A client that shows an id, and the answer.
pub(crate) fn resume(server: &Server, subscriptions: &str, since: &str) -> (Client, String) {
    let mut client = Client::connect(server);
    let answer = client.subscribe_since(subscriptions, since);
    (client, answer)
}

/// A client whose connection backs up soon.
pub(crate) fn narrow_client(server: &Server) -> Client {
    let mut client = Client::over(server.narrow_tcp());
    client.send_bytes(upgrade().as_bytes());
    client.expect_upgrade();
    client
}

/// Waits until the figures have this line. There is no event for it: the server has to be asked.
pub(crate) fn wait_for_figure(server: &Server, line: &str) {
    let since = Instant::now();
    let line = format!("\n{line}\n");
    loop {
        let text = figures(server);
        if text.contains(&line) {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "never {line:?}: {text}");
    }
}

/// Asks again and again until it is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "{what}: not in time");
    }
}

impl<S: Read + Write> Client<S> {
    /// Replaces its subscriptions by the list `subscriptions`, shows `since`, and returns the answer.
    pub(crate) fn subscribe_since(&mut self, subscriptions: &str, since: &str) -> String {
        self.send(&list_since(subscriptions, since));
        let answer = self.whole_text();
        assert!(answer.starts_with(r#"{"type":"subscribed","#), "{answer}");
        answer
    }

    /// Asks how far it is: all texts ahead of the answer, and the id of that.
    pub(crate) fn before_pong(&mut self) -> (Vec<String>, String) {
        self.send(r#"{"type":"ping"}"#);
        let mut texts = Vec::new();
        loop {
            match self.whole_text() {
                text if text.starts_with(r#"{"type":"pong","#) => return (texts, id_of(&text)),
                text => texts.push(text),
            }
        }
    }
}
