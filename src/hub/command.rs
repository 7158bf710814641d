//! JSON in and out: what a message asks for, and the texts that answer it.
//!
//! The only part of the hub that knows JSON, but for the tokens of clients. Knows no connections and grants nothing: a
//! publisher's content is read by [`Publish::read`], a step of its own, because permission is
//! checked before content. Main type: [`Command`].
//!
//! A text is read in two passes. The first one checks that all of it is JSON and notes where the
//! members lie that decide; it borrows them as they were written. The second one, in `content`,
//! reads the member that the command is about. Both skip what isn't named without recursion and
//! without looking into it, so depth is harmless. `content` and what is below it are written
//! against `serde`'s traits; they don't name `serde_json`.

mod content;
mod error;
mod json;
mod path;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use self::content::{read_notification, read_subscriptions};
pub use self::error::{CommandError, ErrorCode};
use self::json::{Json, next_member};
use super::filter::{Notification, Subscription};
use crate::application::Delivered;
use crate::config::HubLimits;
use crate::ws::frame::EncodedFrame;

/// The `type` of a notification whose publisher leaves it out, as JSON.
const TYPE_DEFAULT: &str = r#""notification""#;

/// Types that only the server itself sends: a publisher can't speak for it.
const TYPES_RESERVED: [&str; 4] = ["subscribed", "pong", "error", "published"];

/// What a message asks for.
#[derive(Debug)]
pub enum Command<'a> {
    /// Replace the subscriptions of the connection by these.
    Subscribe {
        /// What is asked for.
        subscriptions: Vec<Subscription<'a>>,
        /// What is to show that this may be asked for.
        token: Option<Cow<'a, str>>,
    },
    /// Answer with a pong.
    Ping,
    /// Deliver a notification.
    Publish(Publish<'a>),
}

/// A notification whose content nobody has looked at yet.
#[derive(Debug)]
pub struct Publish<'a> {
    /// What is to show that this may be published.
    pub token: Option<Cow<'a, str>>,
    kind: Member<'a>,
    notification: Member<'a>,
}

/// A notification that is ready to be matched and sent.
#[derive(Debug)]
pub struct Publication<'a> {
    /// What it is matched by.
    pub notification: Notification<'a>,
    /// The publisher's `type`, as JSON.
    kind: &'a str,
    /// The notification as it was sent.
    text: &'a str,
}

/// Reads what `text` asks for; of a notification, only that it is one.
///
/// # Errors
/// [`CommandError`], to be sent to the peer.
pub fn parse<'a>(text: &'a str, limits: &HubLimits) -> Result<Command<'a>, CommandError> {
    let envelope = Envelope::read(text)?;
    match envelope.sender {
        Member::Absent => envelope.read_without_sender(),
        Member::Once(sender) => match sender.text().as_deref() {
            Some("client") => envelope.read_from_client(limits),
            Some("server") => Ok(Command::Publish(envelope.into_publish())),
            _ => Err(unknown(r#"sender must be "client" or "server""#)),
        },
        Member::Duplicate => Err(unknown("duplicate member sender")),
    }
}

/// Notifications in one request. Their deliveries are queued, and written where too many wait,
/// without a look at anything else.
pub const BATCH_MAX: usize = 1000;

/// What a request publishes, whose content nobody has looked at yet.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The notifications, in order.
    pub publishes: Vec<Publish<'a>>,
    /// Whether they came in an array, and so are answered in one.
    pub is_array: bool,
}

/// Reads the body of a request to publish: a message of a publisher, which may leave out
/// `sender`, or an array of them.
///
/// # Errors
/// [`CommandError`], to be sent to the peer.
pub fn parse_batch<'a>(text: &'a str) -> Result<Batch<'a>, CommandError> {
    if !text.trim_ascii_start().starts_with('[') {
        return Ok(Batch {
            publishes: vec![Envelope::read(text)?.read_as_publish()?],
            is_array: false,
        });
    }
    let entries: Vec<Json<'a>> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    if entries.len() > BATCH_MAX {
        let detail = format!("an array has at most {BATCH_MAX} notifications");
        return Err(CommandError::new(ErrorCode::InvalidNotification, detail));
    }
    let read = |(position, entry): (usize, Json<'a>)| {
        let publish = Envelope::read(entry.0).and_then(|envelope| envelope.read_as_publish());
        publish.map_err(|error| error.at(position))
    };
    Ok(Batch {
        publishes: entries
            .into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()?,
        is_array: true,
    })
}

/// The answer to a request that has published.
#[must_use]
pub fn batch_reply(delivered: &[Delivered], is_array: bool) -> String {
    let entries: Vec<_> = delivered.iter().copied().map(published_reason).collect();
    if is_array {
        format!("[{}]", entries.join(","))
    } else {
        entries.concat()
    }
}

/// Reads a list of subscriptions that doesn't come in a message.
///
/// # Errors
/// [`CommandError`], whose detail calls the list `subscriptions`.
pub fn parse_subscriptions(
    json: &str,
    limits: &HubLimits,
) -> Result<Vec<Subscription<'static>>, CommandError> {
    let json = serde_json::from_str(json).map_err(|error| not_json(&error))?;
    let subscriptions = read_subscriptions(json, limits)?.into_iter();
    Ok(subscriptions.map(Subscription::into_owned).collect())
}

/// The answer to a subscription: how many there are, and the seconds of silence after which
/// the server pings.
#[must_use]
pub fn subscribed_reply(subscriptions: usize, heartbeat: Duration) -> String {
    let seconds = heartbeat.as_secs_f64();
    format!(r#"{{"type":"subscribed","subscriptions":{subscriptions},"heartbeat":{seconds}}}"#)
}

/// An application's ping as apps write it; [`parse`] knows all other ways to.
pub const PING: &str = r#"{"type":"ping"}"#;

/// The answer to an application ping.
pub const PONG_REPLY: &str = r#"{"type":"pong"}"#;

/// The answer to a notification on a connection that stays.
#[must_use]
pub fn published_reply(delivered: Delivered) -> String {
    format!(r#"{{"type":"published",{}}}"#, Counts(delivered))
}

/// The reason of the Close that answers a notification on a connection that doesn't stay.
#[must_use]
pub fn published_reason(delivered: Delivered) -> String {
    format!("{{{}}}", Counts(delivered))
}

/// The reason of any other Close that the server starts. `reason` is one fixed word.
#[must_use]
pub fn close_reason(reason: &'static str, retry_ms: u64) -> String {
    format!(r#"{{"reason":"{reason}","retry":{retry_ms}}}"#)
}

struct Counts(Delivered);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delivered { queued, dropped } = self.0;
        write!(f, r#""delivered":{queued}"#)?;
        if dropped > 0 {
            write!(f, r#","dropped":{dropped}"#)?;
        }
        Ok(())
    }
}

impl<'a> Publish<'a> {
    /// Reads the content.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidNotification`], with the member that is at fault.
    pub fn read(&self) -> Result<Publication<'a>, CommandError> {
        let code = ErrorCode::InvalidNotification;
        let kind = match self.kind {
            Member::Absent => TYPE_DEFAULT,
            Member::Once(json) => check_type(json)?,
            Member::Duplicate => return Err(CommandError::new(code, "duplicate member type")),
        };
        let json = match self.notification {
            Member::Absent => return Err(CommandError::new(code, "notification is missing")),
            Member::Once(json) => json,
            Member::Duplicate => {
                return Err(CommandError::new(code, "duplicate member notification"));
            }
        };
        Ok(Publication {
            notification: read_notification(json)?,
            kind,
            text: json.0,
        })
    }
}

impl Publication<'_> {
    /// The frame that every recipient gets: the notification is copied once, as it was sent.
    #[must_use]
    pub fn frame(&self) -> EncodedFrame {
        EncodedFrame::text(&[
            br#"{"type":"#,
            self.kind.as_bytes(),
            br#","notification":"#,
            self.text.as_bytes(),
            b"}",
        ])
    }
}

/// The JSON of a publisher's `type`, which is passed on as it was written.
fn check_type(json: Json<'_>) -> Result<&str, CommandError> {
    let code = ErrorCode::InvalidNotification;
    match json.text().as_deref() {
        None => Err(CommandError::new(code, "type must be a string")),
        Some(text) if TYPES_RESERVED.contains(&text) => {
            let words = TYPES_RESERVED.join(", ");
            let detail =
                format!("type must not be one of {words}: they are reserved for the server");
            Err(CommandError::new(code, detail))
        }
        Some(_) => Ok(json.0),
    }
}

/// A member that may be there.
#[derive(Clone, Copy, Default, Debug)]
enum Member<'a> {
    #[default]
    Absent,
    Once(Json<'a>),
    Duplicate,
}

impl<'a> Member<'a> {
    fn put(&mut self, json: Json<'a>) {
        *self = match self {
            Self::Absent => Self::Once(json),
            Self::Once(_) | Self::Duplicate => Self::Duplicate,
        };
    }

    /// The text of a token, if there is one. A duplicate member, or one that is no string, is a
    /// token that nobody accepts.
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Absent => None,
            Self::Once(json) => Some(json.text().unwrap_or_default()),
            Self::Duplicate => Some(Cow::default()),
        }
    }
}

/// The members that decide what a message is. A message that is no object has none of them.
#[derive(Default)]
struct Envelope<'a> {
    sender: Member<'a>,
    kind: Member<'a>,
    subscriptions: Member<'a>,
    notification: Member<'a>,
    token: Member<'a>,
}

impl<'a> Envelope<'a> {
    fn read(text: &'a str) -> Result<Self, CommandError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let envelope = if text.trim_ascii_start().starts_with('{') {
            json.deserialize_map(EnvelopeVisitor)
        } else {
            json.deserialize_ignored_any(IgnoredAny)
                .map(|_| Self::default())
        };
        envelope
            .and_then(|envelope| json.end().map(|()| envelope))
            .map_err(|error| not_json(&error))
    }

    fn into_publish(self) -> Publish<'a> {
        Publish {
            token: self.token.text(),
            kind: self.kind,
            notification: self.notification,
        }
    }

    /// Reads a message of a publisher, which may leave out `sender`.
    fn read_as_publish(self) -> Result<Publish<'a>, CommandError> {
        match self.sender {
            Member::Absent => Ok(self.into_publish()),
            Member::Once(sender) if sender.text().as_deref() == Some("server") => {
                Ok(self.into_publish())
            }
            Member::Once(_) => Err(unknown(r#"sender must be "server", or left out"#)),
            Member::Duplicate => Err(unknown("duplicate member sender")),
        }
    }

    fn read_from_client(&self, limits: &HubLimits) -> Result<Command<'a>, CommandError> {
        match self.subscriptions {
            Member::Absent => Err(unknown("subscriptions is missing")),
            Member::Once(json) => Ok(Command::Subscribe {
                subscriptions: read_subscriptions(json, limits)?,
                token: self.token.text(),
            }),
            Member::Duplicate => Err(CommandError::new(
                ErrorCode::InvalidSubscription,
                "duplicate member subscriptions",
            )),
        }
    }

    fn read_without_sender(&self) -> Result<Command<'a>, CommandError> {
        match self.kind {
            Member::Once(json) if json.text().as_deref() == Some("ping") => Ok(Command::Ping),
            Member::Once(_) => Err(unknown(r#"without sender, type must be "ping""#)),
            Member::Absent => Err(unknown("sender and type are missing")),
            Member::Duplicate => Err(unknown("duplicate member type")),
        }
    }
}

/// Where nothing but the grammar of JSON can fail: such errors quote nothing.
fn not_json(error: &serde_json::Error) -> CommandError {
    CommandError::new(ErrorCode::InvalidJson, format!("not JSON: {error}"))
}

fn unknown(detail: &str) -> CommandError {
    CommandError::new(ErrorCode::UnknownMessage, detail)
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        const NAMES: [&str; 5] = ["sender", "type", "subscriptions", "notification", "token"];
        let mut envelope = Envelope::default();
        while let Some(name) = next_member(&mut map, &NAMES)? {
            let member = match name {
                "sender" => &mut envelope.sender,
                "type" => &mut envelope.kind,
                "subscriptions" => &mut envelope.subscriptions,
                "notification" => &mut envelope.notification,
                _ => &mut envelope.token,
            };
            member.put(map.next_value()?);
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests;
