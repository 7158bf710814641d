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

mod answer;
mod content;
mod error;
mod json;
mod path;
mod question;
mod replies;
mod values;
mod written;

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};

pub use self::answer::{JsonText, clipped};
use self::content::{read_notification, read_subscriptions};
pub use self::error::{CommandError, ErrorCode};
use self::json::{Json, next_member};
use self::question::WHOM_NAMES;
pub use self::question::{Query, Whom, read_query};
pub use self::replies::*;
pub use self::written::{parse_list, subscription_text, write_subscriptions};
use super::filter::{Notification, Subscription};
use crate::config::HubLimits;
use crate::journal::entry::Content;

/// The `type` of a notification whose publisher leaves it out, as JSON.
const TYPE_DEFAULT: &str = r#""notification""#;

/// Types that only the server itself sends: a publisher can't speak for it.
const TYPES_RESERVED: [&str; 6] = [
    "subscribed",
    "pong",
    "error",
    "published",
    "caught-up",
    "gap",
];

/// Bytes of a publisher's key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 1..=128;

/// What a message asks for.
#[derive(Debug)]
pub enum Command<'a> {
    /// Replace the subscriptions of the connection by these.
    Subscribe {
        /// What is asked for.
        subscriptions: Vec<Subscription<'a>>,
        /// What is to show that this may be asked for.
        token: Option<Cow<'a, str>>,
        /// Deliveries are numbered from now on; and behind this id, what was missed comes first.
        since: Option<Cow<'a, str>>,
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
    keep: Member<'a>,
    key: Member<'a>,
}

/// A notification that is ready to be matched and sent.
#[derive(Debug)]
pub struct Publication<'a> {
    /// What it is matched by.
    pub notification: Notification<'a>,
    /// What is passed on of it.
    pub content: Content<'a>,
    /// Whether the history keeps it, if there is one.
    pub is_kept: bool,
    /// What its publisher calls it by.
    pub key: Option<Cow<'a, str>>,
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

/// A question about who gets a notification.
#[derive(Debug)]
pub struct Question<'a> {
    /// Which notification.
    pub asked: Asked<'a>,
    /// About which connections.
    pub whom: Whom<'a>,
}

/// Which notification is asked about.
#[derive(Debug)]
pub enum Asked<'a> {
    /// This one, if it were published.
    Publish(Publish<'a>),
    /// The one that was published with this id.
    Id(Cow<'a, str>),
}

/// The members of a question beside those of a publisher's message.
const QUESTION_NAMES: [&str; 4] = {
    let [connection, user, address] = WHOM_NAMES;
    ["id", connection, user, address]
};

/// Reads the body of a request to explain. What it may have beside is that of a message which publishes.
///
/// # Errors
/// [`CommandError`], to be sent to the peer.
pub fn parse_question(text: &str) -> Result<Question<'_>, CommandError> {
    let publish = Envelope::read(text)?.into_publish();
    let members = read_members(text, &QUESTION_NAMES);
    let mut whom = Whom::Anybody;
    let mut id = None;
    for (name, member) in QUESTION_NAMES.into_iter().zip(members) {
        let text = match member {
            Member::Absent => continue,
            Member::Once(json) => json.text(),
            Member::Duplicate => None,
        };
        let text = text.ok_or_else(|| unknown(&format!("{name} must be a string, once")))?;
        match name {
            "id" => id = Some(text),
            name => whom.choose(name, text)?,
        }
    }
    let asked = match (id, publish.notification) {
        (Some(id), Member::Absent) => Asked::Id(id),
        (Some(_), _) => return Err(unknown("notification and id exclude each other")),
        (None, Member::Absent) => return Err(unknown("notification is missing, or id")),
        (None, _) => Asked::Publish(publish),
    };
    Ok(Question { asked, whom })
}

/// Reads an entry of a stream: a message of a publisher, which may leave out `sender`. Whether it is valid depends on no
/// setting, so that all servers agree.
///
/// # Errors
/// [`CommandError`], which is told to nobody.
pub fn parse_entry(json: &str) -> Result<Publication<'_>, CommandError> {
    let publish = Envelope::read(json)?.read_as_publish()?;
    if !matches!(publish.key, Member::Absent) {
        return Err(invalid("an entry has its key beside its notification"));
    }
    publish.read(true)
}

/// Whether an entry of a stream takes a position in the log: it is valid, and kept.
#[must_use]
pub fn takes_position(json: &str) -> bool {
    parse_entry(json).is_ok_and(|publication| publication.is_kept)
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

/// Reads what a notification is matched by, of one whose text is known to be good.
#[must_use]
pub fn parse_notification(text: &str) -> Option<Notification<'_>> {
    read_notification(Json(text)).ok()
}

/// An application's ping as apps write it; [`parse`] knows all other ways to.
pub const PING: &str = r#"{"type":"ping"}"#;

impl<'a> Publish<'a> {
    /// Reads the content. There is no use for a key where `takes_keys` is false.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidNotification`], with the member that is at fault.
    pub fn read(&self, takes_keys: bool) -> Result<Publication<'a>, CommandError> {
        let kind = match self.kind {
            Member::Absent => TYPE_DEFAULT,
            Member::Once(json) => check_type(json)?,
            Member::Duplicate => return Err(invalid("duplicate member type")),
        };
        let json = match self.notification {
            Member::Absent => return Err(invalid("notification is missing")),
            Member::Once(json) => json,
            Member::Duplicate => return Err(invalid("duplicate member notification")),
        };
        let is_kept = self.read_keep()?;
        let key = self.read_key()?;
        if key.is_some() && !is_kept {
            return Err(invalid("key and keep:false exclude each other"));
        }
        if key.is_some() && !takes_keys {
            return Err(invalid("key needs a history, which is off"));
        }
        Ok(Publication {
            notification: read_notification(json)?,
            content: Content {
                kind,
                notification: json.0,
            },
            is_kept,
            key,
        })
    }

    fn read_keep(&self) -> Result<bool, CommandError> {
        match self.keep {
            Member::Absent => Ok(true),
            Member::Once(Json("true")) => Ok(true),
            Member::Once(Json("false")) => Ok(false),
            Member::Once(_) => Err(invalid("keep must be true or false")),
            Member::Duplicate => Err(invalid("duplicate member keep")),
        }
    }

    fn read_key(&self) -> Result<Option<Cow<'a, str>>, CommandError> {
        let json = match self.key {
            Member::Absent => return Ok(None),
            Member::Once(json) => json,
            Member::Duplicate => return Err(invalid("duplicate member key")),
        };
        let key = json.text().filter(|key| KEY_BYTES.contains(&key.len()));
        match key {
            Some(key) => Ok(Some(key)),
            None => Err(invalid("key must be a string of 1 to 128 bytes")),
        }
    }
}

fn invalid(detail: &str) -> CommandError {
    CommandError::new(ErrorCode::InvalidNotification, detail)
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
    since: Member<'a>,
    keep: Member<'a>,
    key: Member<'a>,
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
            keep: self.keep,
            key: self.key,
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
        let invalid = |detail: &str| CommandError::new(ErrorCode::InvalidSubscription, detail);
        let json = match self.subscriptions {
            Member::Absent => return Err(unknown("subscriptions is missing")),
            Member::Once(json) => json,
            Member::Duplicate => return Err(invalid("duplicate member subscriptions")),
        };
        let since = match self.since {
            Member::Absent => None,
            Member::Once(json) => {
                let text = json.text();
                Some(text.ok_or_else(|| invalid("since must be a string"))?)
            }
            Member::Duplicate => return Err(invalid("duplicate member since")),
        };
        Ok(Command::Subscribe {
            subscriptions: read_subscriptions(json, limits)?,
            token: self.token.text(),
            since,
        })
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

/// Reads some members of an object. Nothing that isn't one has any.
fn read_members<'a>(text: &'a str, names: &'static [&'static str]) -> Vec<Member<'a>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(MembersVisitor(names));
    members.unwrap_or_else(|_| vec![Member::Absent; names.len()])
}

/// A member of an object that is a text, or a number without a sign; `None` if it is there twice.
#[must_use]
pub fn label<'a>(text: &'a str, names: &'static [&'static str; 1]) -> Option<Cow<'a, str>> {
    match read_members(text, names)[..] {
        [Member::Once(Json(digits))] if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(Cow::Borrowed(digits))
        }
        [Member::Once(json)] => json.text(),
        _ => None,
    }
}

struct MembersVisitor(&'static [&'static str]);

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = vec![Member::Absent; self.0.len()];
        while let Some(name) = next_member(&mut map, self.0)? {
            let value = map.next_value()?;
            if let Some(at) = self.0.iter().position(|other| *other == name) {
                members[at].put(value);
            }
        }
        Ok(members)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        const NAMES: [&str; 8] = [
            "sender",
            "type",
            "subscriptions",
            "notification",
            "token",
            "since",
            "keep",
            "key",
        ];
        let mut envelope = Envelope::default();
        while let Some(name) = next_member(&mut map, &NAMES)? {
            let member = match name {
                "sender" => &mut envelope.sender,
                "type" => &mut envelope.kind,
                "subscriptions" => &mut envelope.subscriptions,
                "notification" => &mut envelope.notification,
                "since" => &mut envelope.since,
                "keep" => &mut envelope.keep,
                "key" => &mut envelope.key,
                _ => &mut envelope.token,
            };
            member.put(map.next_value()?);
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests;
