//! Messages in and out, as far as a load test needs them.
//!
//! A notification has one topic: its package, page and `channel` value, or its `channel` member.
//! Other criteria, wildcards and lists of values in a notification are the project's, not ours.
//! What is delivered is the publisher's bytes; nothing is serialised again.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The answer to an application's ping.
pub const PONG: &str = r#"{"type":"pong"}"#;

/// The path on which a publisher stays connected.
pub const KEPT_PATH: &str = "/publish";

/// What a message asks for.
#[derive(PartialEq, Eq, Debug)]
pub enum Command {
    /// Replace the connection's subscriptions by `topics`.
    Subscribe {
        /// The topics of all subscriptions, without repetitions.
        topics: Vec<Topic>,
        /// How many subscriptions there were.
        subscriptions: usize,
    },
    /// Hand `delivery` to the subscribers of `topic`.
    Publish {
        /// Whom it is for.
        topic: Topic,
        /// The payload that each of them gets.
        delivery: String,
    },
    /// Answer with [`PONG`].
    Ping,
}

/// A key of the map of subscriptions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Topic(String);

impl Topic {
    fn channel(channel: &str) -> Self {
        Self(channel.to_owned())
    }

    /// JSON can carry a NUL, but no package and no page of a load test does.
    fn filter(package: &str, page: &str, channel: &str) -> Self {
        Self([package, page, channel].join("\0"))
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    sender: Option<Cow<'a, str>>,
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    subscriptions: Option<Vec<Value>>,
    #[serde(borrow)]
    notification: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow)]
    package: Option<Cow<'a, str>>,
    #[serde(borrow)]
    page: Option<Cow<'a, str>>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    filters: Option<Filters<'a>>,
}

#[derive(Deserialize)]
struct Filters<'a> {
    #[serde(borrow)]
    values: Values<'a>,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    channel: &'a RawValue,
}

impl Command {
    /// Reads a message; the error is the payload of the answer.
    pub fn parse(text: &str) -> Result<Self, String> {
        let message: Message<'_> = serde_json::from_str(text)
            .map_err(|found| error("invalid-json", &found.to_string()))?;
        match message.sender.as_deref() {
            Some("server") => parse_publish(&message),
            Some("client") => message.subscriptions.map_or_else(
                || Err(error("unknown-message", "subscriptions is missing")),
                |subscriptions| parse_subscribe(&subscriptions),
            ),
            None if message.r#type.as_deref() == Some("ping") => Ok(Self::Ping),
            _ => Err(error("unknown-message", "no such message")),
        }
    }
}

fn parse_publish(message: &Message<'_>) -> Result<Command, String> {
    let invalid = || {
        error(
            "invalid-notification",
            "a package, page and channel are needed",
        )
    };
    let notification = message.notification.ok_or_else(invalid)?;
    let topic = topic_of(notification.get()).ok_or_else(invalid)?;
    let name = match message.r#type.as_deref() {
        None => r#""notification""#.to_owned(),
        Some(name) => Value::from(name).to_string(),
    };
    let delivery = format!(r#"{{"type":{name},"notification":{notification}}}"#);
    Ok(Command::Publish { topic, delivery })
}

fn topic_of(notification: &str) -> Option<Topic> {
    let notification: Notification<'_> = serde_json::from_str(notification).ok()?;
    match (notification.package, notification.page) {
        (Some(package), Some(page)) => {
            let channel = scalar(notification.filters?.values.channel)?;
            Some(Topic::filter(&package, &page, &channel))
        }
        _ => Some(Topic::channel(&scalar(notification.channel?)?)),
    }
}

/// The text of a string or of a whole number.
fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes()[0] {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value.get())),
        _ => None,
    }
}

fn parse_subscribe(subscriptions: &[Value]) -> Result<Command, String> {
    let mut topics = Vec::new();
    for subscription in subscriptions {
        push_topics(subscription, &mut topics).ok_or_else(|| {
            error(
                "invalid-subscription",
                "a package, page and channel are needed",
            )
        })?;
    }
    topics.sort_unstable();
    topics.dedup();
    Ok(Command::Subscribe {
        topics,
        subscriptions: subscriptions.len(),
    })
}

fn push_topics(subscription: &Value, topics: &mut Vec<Topic>) -> Option<()> {
    if let Some(channel) = subscription.as_str() {
        topics.push(Topic::channel(channel));
        return Some(());
    }
    let package = subscription["package"].as_str()?;
    let page = subscription["page"].as_str()?;
    let channel = &subscription["filters"]["values"]["channel"];
    for value in channel
        .as_array()
        .map_or_else(|| std::slice::from_ref(channel), Vec::as_slice)
    {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        topics.push(Topic::filter(package, page, &text));
    }
    Some(())
}

/// The answer to a list of subscriptions.
#[must_use]
pub fn subscribed(subscriptions: usize) -> String {
    format!(r#"{{"type":"subscribed","subscriptions":{subscriptions},"heartbeat":25}}"#)
}

/// The answer to a publisher that stays.
#[must_use]
pub fn published(delivered: usize, dropped: usize) -> String {
    format!(r#"{{"type":"published",{}}}"#, counts(delivered, dropped))
}

/// The reason of the Close that an ephemeral publisher gets.
#[must_use]
pub fn delivered(delivered: usize, dropped: usize) -> String {
    format!("{{{}}}", counts(delivered, dropped))
}

fn counts(delivered: usize, dropped: usize) -> String {
    match dropped {
        0 => format!(r#""delivered":{delivered}"#),
        _ => format!(r#""delivered":{delivered},"dropped":{dropped}"#),
    }
}

fn error(code: &str, detail: &str) -> String {
    let detail = Value::from(detail);
    format!(r#"{{"type":"error","error":{{"code":"{code}","detail":{detail}}}}}"#)
}
