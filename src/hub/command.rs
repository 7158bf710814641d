//! JSON in and out: what a message asks for, and the texts that answer it.
//!
//! The only part of the hub that knows JSON. Knows no connections and grants nothing: a
//! publisher's content is read by [`Publish::read`], a step of its own, because permission is
//! checked before content. Main type: [`Command`].
//!
//! A text is read in two passes. The first one checks that all of it is JSON and notes where the
//! members lie that decide; it borrows them as they were written. The second one reads the
//! member that the command is about, and since that is known to be JSON, whatever stops it there
//! is a fault of content: a [`Trail`] remembers where, and what was expected. Both passes skip
//! what isn't named without recursion and without looking into it, so depth is harmless.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::filter::{
    Criterion, Filter, NameMap, Notification, NotificationValues, Page, Subscription, Values,
    float_text,
};
use crate::application::Delivered;
use crate::config::HubLimits;
use crate::ws::frame::EncodedFrame;

/// What stands in `type` where a publisher leaves it out, as JSON.
const TYPE_DEFAULT: &str = "\"notification\"";

/// Types that only the server itself says; a publisher can't put its words into our mouth.
const TYPES_RESERVED: [&str; 4] = ["subscribed", "pong", "error", "published"];

/// The longest name from a peer that an error repeats, in characters.
const ECHO_CHARS_MAX: usize = 40;

/// What a message asks for.
#[derive(Debug)]
pub enum Command<'a> {
    /// Replace the subscriptions of the connection by these.
    Subscribe(Vec<Subscription<'a>>),
    /// Answer with a pong.
    Ping,
    /// Deliver a notification.
    Publish(Publish<'a>),
}

/// A notification whose content nobody has looked at yet.
#[derive(Debug)]
pub struct Publish<'a> {
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

/// What an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// The text is not JSON.
    InvalidJson,
    /// The text is JSON, but nothing that the hub knows.
    UnknownMessage,
    /// The list of subscriptions breaks a rule.
    InvalidSubscription,
    /// The list of subscriptions is over a limit.
    TooManySubscriptions,
    /// The notification breaks a rule.
    InvalidNotification,
    /// The connection may not do this.
    Forbidden,
}

impl ErrorCode {
    /// The word that clients know it by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid-json",
            Self::UnknownMessage => "unknown-message",
            Self::InvalidSubscription => "invalid-subscription",
            Self::TooManySubscriptions => "too-many-subscriptions",
            Self::InvalidNotification => "invalid-notification",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Why a message can't be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandError {
    /// What it is about.
    pub code: ErrorCode,
    /// Which member, and what was expected. Never a value from a peer.
    pub detail: String,
}

impl CommandError {
    /// An error that says `detail`.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail }
    }

    /// The message that tells the peer.
    #[must_use]
    pub fn reply(&self) -> String {
        let detail = serde_json::Value::from(self.detail.as_str());
        format!(
            "{{\"type\":\"error\",\"error\":{{\"code\":\"{}\",\"detail\":{detail}}}}}",
            self.code.as_str()
        )
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for CommandError {}

/// Reads what `text` asks for; of a notification, only that it is one.
///
/// # Errors
/// [`CommandError`], to be sent to the peer.
pub fn parse<'a>(text: &'a str, limits: &HubLimits) -> Result<Command<'a>, CommandError> {
    let envelope = Envelope::read(text)?;
    match &envelope.sender {
        Member::Absent => envelope.read_without_sender(),
        Member::Once(sender) => match read_text(sender).as_deref() {
            Some("client") => envelope.read_from_client(limits),
            Some("server") => Ok(Command::Publish(Publish {
                kind: envelope.kind,
                notification: envelope.notification,
            })),
            _ => Err(unknown("sender must be \"client\" or \"server\"")),
        },
        Member::Twice => Err(unknown("sender stands twice")),
    }
}

/// The answer to a subscription: how many there are, and the seconds of silence after which
/// the server pings.
#[must_use]
pub fn subscribed_reply(subscriptions: usize, heartbeat: std::time::Duration) -> String {
    let seconds = heartbeat.as_secs_f64();
    format!("{{\"type\":\"subscribed\",\"subscriptions\":{subscriptions},\"heartbeat\":{seconds}}}")
}

/// The answer to an application ping.
pub const PONG_REPLY: &str = "{\"type\":\"pong\"}";

/// The answer to a notification on a connection that stays.
#[must_use]
pub fn published_reply(delivered: Delivered) -> String {
    format!("{{\"type\":\"published\",{}}}", Counts(delivered))
}

/// The reason of the Close that answers a notification on a connection that doesn't stay.
#[must_use]
pub fn published_reason(delivered: Delivered) -> String {
    format!("{{{}}}", Counts(delivered))
}

/// The reason of any other Close that the server starts. `reason` is one fixed word.
#[must_use]
pub fn close_reason(reason: &'static str, retry_ms: u64) -> String {
    format!("{{\"reason\":\"{reason}\",\"retry\":{retry_ms}}}")
}

struct Counts(Delivered);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delivered { queued, dropped } = self.0;
        write!(f, "\"delivered\":{queued}")?;
        if dropped > 0 {
            write!(f, ",\"dropped\":{dropped}")?;
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
        let kind = match &self.kind {
            Member::Absent => TYPE_DEFAULT,
            Member::Once(raw) => read_type(raw)?,
            Member::Twice => return Err(CommandError::new(code, "type stands twice")),
        };
        let text = match &self.notification {
            Member::Absent => return Err(CommandError::new(code, "notification is missing")),
            Member::Once(raw) => raw.get(),
            Member::Twice => return Err(CommandError::new(code, "notification stands twice")),
        };
        let mut trail = Trail::new(Root::Notification, usize::MAX);
        let body = trail.read(text, |trail, json| {
            trail.enter("", "an object");
            let wanted = &NOTIFICATION_MEMBERS;
            json.deserialize_map(BodyVisitor { trail, wanted })
        })?;
        Ok(Publication {
            notification: body.into_notification(&trail)?,
            kind,
            text,
        })
    }
}

impl Publication<'_> {
    /// The frame that every recipient gets: the notification is copied once, as it was sent.
    #[must_use]
    pub fn frame(&self) -> EncodedFrame {
        EncodedFrame::text(&[
            b"{\"type\":",
            self.kind.as_bytes(),
            b",\"notification\":",
            self.text.as_bytes(),
            b"}",
        ])
    }
}

/// The JSON of a publisher's `type`, which is passed on as it was written.
fn read_type(raw: &RawValue) -> Result<&str, CommandError> {
    let code = ErrorCode::InvalidNotification;
    match read_text(raw).as_deref() {
        None => Err(CommandError::new(code, "type must be a string")),
        Some(text) if TYPES_RESERVED.contains(&text) => {
            let words = TYPES_RESERVED.join(", ");
            let detail = format!("type must be none of {words}: those are the server's own");
            Err(CommandError::new(code, detail))
        }
        Some(_) => Ok(raw.get()),
    }
}

// The first pass.

/// A member that may be there.
#[derive(Clone, Default, Debug)]
enum Member<'a> {
    #[default]
    Absent,
    Once(&'a RawValue),
    Twice,
}

impl<'a> Member<'a> {
    fn put(&mut self, raw: &'a RawValue) {
        *self = match self {
            Self::Absent => Self::Once(raw),
            Self::Once(_) | Self::Twice => Self::Twice,
        };
    }
}

/// The members that decide what a message is. A message that is no object has none of them.
#[derive(Default)]
struct Envelope<'a> {
    sender: Member<'a>,
    kind: Member<'a>,
    subscriptions: Member<'a>,
    notification: Member<'a>,
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
            // Nothing but the grammar of JSON fails here, and its errors quote nothing.
            .map_err(|error| {
                CommandError::new(ErrorCode::InvalidJson, format!("not JSON: {error}"))
            })
    }

    fn read_from_client(&self, limits: &HubLimits) -> Result<Command<'a>, CommandError> {
        match self.subscriptions {
            Member::Absent => Err(unknown("subscriptions is missing")),
            Member::Once(raw) => read_subscriptions(raw.get(), limits).map(Command::Subscribe),
            Member::Twice => Err(CommandError::new(
                ErrorCode::InvalidSubscription,
                "subscriptions stands twice",
            )),
        }
    }

    fn read_without_sender(&self) -> Result<Command<'a>, CommandError> {
        match self.kind {
            Member::Once(raw) if read_text(raw).as_deref() == Some("ping") => Ok(Command::Ping),
            Member::Once(_) => Err(unknown("without sender, type must be \"ping\"")),
            Member::Absent => Err(unknown("neither sender nor type is there")),
            Member::Twice => Err(unknown("type stands twice")),
        }
    }
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
        const NAMES: [&str; 4] = ["sender", "type", "subscriptions", "notification"];
        let mut envelope = Envelope::default();
        // Names are taken raw: read as bytes they could hide a control character that JSON
        // forbids, read as text a lone surrogate would fail though nobody asked for the member.
        while let Some(name) = map.next_key::<&RawValue>()? {
            let member = match position_of(name, &NAMES) {
                Some(0) => &mut envelope.sender,
                Some(1) => &mut envelope.kind,
                Some(2) => &mut envelope.subscriptions,
                Some(_) => &mut envelope.notification,
                None => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            member.put(map.next_value()?);
        }
        Ok(envelope)
    }
}

/// Which of `names` the JSON string `raw` is.
fn position_of(raw: &RawValue, names: &[&str]) -> Option<usize> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return names.iter().position(|name| *name == inner);
    }
    let text = read_text(raw)?;
    names.iter().position(|name| *name == text)
}

/// The text of a JSON string; `None` for anything else, and where no Unicode text is meant.
fn read_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    TextSeed
        .deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
        .ok()
}

// The second pass.

const SUBSCRIPTION_MEMBERS: [&str; 3] = ["package", "page", "filters"];
const NOTIFICATION_MEMBERS: [&str; 4] = ["package", "page", "filters", "channel"];

/// What the second pass reads.
#[derive(Clone, Copy)]
enum Root {
    Subscriptions,
    Subscription(usize),
    Notification,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscriptions => f.write_str("subscriptions"),
            Self::Subscription(index) => write!(f, "subscriptions[{index}]"),
            Self::Notification => f.write_str("notification"),
        }
    }
}

/// Where the second pass is, so that it can say what it stumbled over.
struct Trail {
    root: Root,
    /// The member below the root, with its dot.
    member: &'static str,
    /// The name below the member, as far as it is repeated.
    name: Option<String>,
    expected: &'static str,
    /// Said instead of what was expected.
    fault: Option<CommandError>,
    values_max: usize,
    values_left: usize,
}

impl Trail {
    fn new(root: Root, values_max: usize) -> Self {
        Self {
            root,
            member: "",
            name: None,
            expected: "",
            fault: None,
            values_max,
            values_left: values_max,
        }
    }

    /// Runs `read` over `text`, which is JSON, and turns its failure into what the trail says.
    fn read<'de, T>(
        &mut self,
        text: &'de str,
        read: impl FnOnce(
            &mut Self,
            &mut serde_json::Deserializer<serde_json::de::StrRead<'de>>,
        ) -> Result<T, serde_json::Error>,
    ) -> Result<T, CommandError> {
        read(self, &mut serde_json::Deserializer::from_str(text)).map_err(|_| {
            self.fault.take().unwrap_or_else(|| {
                let name = self.name.as_ref().map(|name| format!(".{name}"));
                let name = name.unwrap_or_default();
                let (root, member, expected) = (self.root, self.member, self.expected);
                self.error(format!("{root}{member}{name} must be {expected}"))
            })
        })
    }

    /// What is read next, and what it has to be.
    fn enter(&mut self, member: &'static str, expected: &'static str) {
        self.member = member;
        self.expected = expected;
    }

    /// What is at fault has a name of the peer's choice.
    fn name(&mut self, name: &str) {
        self.name = Some(bounded(name));
    }

    fn error(&self, detail: String) -> CommandError {
        let code = match self.root {
            Root::Subscriptions | Root::Subscription(_) => ErrorCode::InvalidSubscription,
            Root::Notification => ErrorCode::InvalidNotification,
        };
        CommandError::new(code, detail)
    }

    /// Stops the pass with an error of its own.
    fn fail<E: de::Error>(&mut self, error: CommandError) -> E {
        self.fault = Some(error);
        E::custom("")
    }

    fn fail_twice<E: de::Error>(&mut self, member: &str) -> E {
        let detail = format!("{}{member} stands twice", self.root);
        self.fail(self.error(detail))
    }

    fn fail_too_many<E: de::Error>(&mut self, what: &str, max: usize) -> E {
        let detail = format!("subscriptions must have at most {max} {what}");
        self.fail(CommandError::new(ErrorCode::TooManySubscriptions, detail))
    }

    /// Counts one value more.
    fn count_value<E: de::Error>(&mut self) -> Result<(), E> {
        match self.values_left.checked_sub(1) {
            Some(left) => self.values_left = left,
            None => return Err(self.fail_too_many("values in all", self.values_max)),
        }
        Ok(())
    }
}

fn read_subscriptions<'a>(
    text: &'a str,
    limits: &HubLimits,
) -> Result<Vec<Subscription<'a>>, CommandError> {
    let subscriptions_max = limits.subscriptions_max;
    Trail::new(Root::Subscriptions, limits.values_max).read(text, |trail, json| {
        trail.enter("", "a list");
        json.deserialize_seq(ListVisitor {
            trail,
            subscriptions_max,
        })
    })
}

struct ListVisitor<'t> {
    trail: &'t mut Trail,
    subscriptions_max: usize,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Vec<Subscription<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let Self {
            trail,
            subscriptions_max,
        } = self;
        let mut subscriptions = Vec::new();
        while subscriptions.len() < subscriptions_max {
            trail.root = Root::Subscription(subscriptions.len());
            trail.enter("", "an object or a string");
            match list.next_element_seed(SubscriptionSeed(trail))? {
                Some(subscription) => subscriptions.push(subscription),
                None => return Ok(subscriptions),
            }
        }
        match list.next_element::<IgnoredAny>()? {
            Some(_) => Err(trail.fail_too_many("entries", subscriptions_max)),
            None => Ok(subscriptions),
        }
    }
}

struct SubscriptionSeed<'t>(&'t mut Trail);

impl<'de> DeserializeSeed<'de> for SubscriptionSeed<'_> {
    type Value = Subscription<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SubscriptionSeed<'_> {
    type Value = Subscription<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subscription")
    }

    fn visit_borrowed_str<E: de::Error>(self, channel: &'de str) -> Result<Self::Value, E> {
        self.0.count_value()?;
        Ok(Subscription::Channel(Cow::Borrowed(channel)))
    }

    fn visit_str<E: de::Error>(self, channel: &str) -> Result<Self::Value, E> {
        self.0.count_value()?;
        Ok(Subscription::Channel(Cow::Owned(channel.to_owned())))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
        let trail = self.0;
        let wanted = &SUBSCRIPTION_MEMBERS;
        let body = BodyVisitor { trail, wanted }.visit_map(map)?;
        body.into_subscription(trail)
            .map_err(|error| trail.fail(error))
    }
}

/// The members that a subscription and a notification share.
#[derive(Default)]
struct Body<'a> {
    package: Option<Cow<'a, str>>,
    page: Option<Cow<'a, str>>,
    filters: Option<Given<'a>>,
    channel: Option<&'a RawValue>,
}

impl<'a> Body<'a> {
    fn into_subscription(self, trail: &Trail) -> Result<Subscription<'a>, CommandError> {
        let page = take_page(self.package, self.page, trail)?
            .ok_or_else(|| trail.error(format!("{}.package is missing", trail.root)))?;
        let filter = match self.filters.unwrap_or_default() {
            Given::Absent | Given::True => Filter::Everything,
            Given::Scalars(scalars) if scalars.is_empty() => Filter::Everything,
            Given::Scalars(scalars) => Filter::Nameless(Values::new(scalars)),
            Given::Named(entries) if entries.is_empty() => Filter::Everything,
            Given::Named(entries) => Filter::Named(entries.map(|entry| match entry {
                Entry::True => Criterion::Any,
                Entry::Scalars(scalars) => Criterion::OneOf(Values::new(scalars)),
            })),
        };
        Ok(Subscription::Page(page, filter))
    }

    fn into_notification(self, trail: &Trail) -> Result<Notification<'a>, CommandError> {
        let page = take_page(self.package, self.page, trail)?;
        // Beside a page, a channel that is no scalar is the application's own.
        let channel = self.channel.and_then(read_scalar);
        if page.is_none() && channel.is_none() {
            let detail = match self.channel {
                Some(_) => "notification.channel must be a scalar",
                None => "notification must have package and page, or channel",
            };
            return Err(trail.error(detail.to_owned()));
        }
        let values = match self.filters.unwrap_or_default() {
            Given::Absent => NotificationValues::Absent,
            Given::True => NotificationValues::Nameless(Values::new(vec![text_of(true)])),
            Given::Scalars(scalars) => NotificationValues::Nameless(Values::new(scalars)),
            Given::Named(entries) => NotificationValues::Named(entries.map(|entry| match entry {
                Entry::True => Values::new(vec![text_of(true)]),
                Entry::Scalars(scalars) => Values::new(scalars),
            })),
        };
        Ok(Notification {
            page,
            channel,
            values,
        })
    }
}

/// `package` and `page` come together or not at all.
fn take_page<'a>(
    package: Option<Cow<'a, str>>,
    page: Option<Cow<'a, str>>,
    trail: &Trail,
) -> Result<Option<Page<'a>>, CommandError> {
    let missing = match (package, page) {
        (Some(package), Some(page)) => return Ok(Some(Page { package, page })),
        (None, None) => return Ok(None),
        (None, Some(_)) => "package",
        (Some(_), None) => "page",
    };
    Err(trail.error(format!("{}.{missing} is missing", trail.root)))
}

struct BodyVisitor<'t> {
    trail: &'t mut Trail,
    wanted: &'static [&'static str],
}

impl<'de> Visitor<'de> for BodyVisitor<'_> {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let trail = self.trail;
        let mut body = Body::default();
        while let Some(name) = map.next_key::<&RawValue>()? {
            let is_second = match position_of(name, self.wanted) {
                Some(0) => {
                    trail.enter(".package", "a string");
                    body.package
                        .replace(map.next_value_seed(TextSeed)?)
                        .is_some()
                }
                Some(1) => {
                    trail.enter(".page", "a string");
                    body.page.replace(map.next_value_seed(TextSeed)?).is_some()
                }
                Some(2) => {
                    trail.enter(".filters", "an object");
                    let filters = map.next_value_seed(FiltersSeed(trail))?;
                    body.filters.replace(filters).is_some()
                }
                Some(_) => body.channel.replace(map.next_value()?).is_some(),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
            };
            if is_second {
                let names = [".package", ".page", ".filters", ".channel"];
                let position = position_of(name, self.wanted).unwrap_or_default();
                return Err(trail.fail_twice(names[position]));
            }
        }
        Ok(body)
    }
}

/// What stands in `filters.values`, on either side.
#[derive(Default)]
enum Given<'a> {
    #[default]
    Absent,
    True,
    Scalars(Vec<Cow<'a, str>>),
    Named(NameMap<'a, Entry<'a>>),
}

/// What stands under a name in `filters.values`.
enum Entry<'a> {
    True,
    Scalars(Vec<Cow<'a, str>>),
}

/// `filters`: an object, or nothing in one of the ways to say so.
struct FiltersSeed<'t>(&'t mut Trail);

impl<'de> DeserializeSeed<'de> for FiltersSeed<'_> {
    type Value = Given<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FiltersSeed<'_> {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("filters")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Given::Absent)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        match list.next_element::<IgnoredAny>()? {
            // An empty array is PHP's empty object.
            None => Ok(Given::Absent),
            Some(_) => Err(de::Error::custom("")),
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let trail = self.0;
        let mut values = None;
        while let Some(name) = map.next_key::<&RawValue>()? {
            if position_of(name, &["values"]).is_none() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if values.is_some() {
                return Err(trail.fail_twice(".filters.values"));
            }
            trail.enter(
                ".filters.values",
                "an object, a scalar or a list of scalars",
            );
            values = Some(map.next_value_seed(ValuesSeed {
                trail,
                is_entry: false,
            })?);
        }
        Ok(values.unwrap_or_default())
    }
}

/// `filters.values`, or what stands under one of its names.
struct ValuesSeed<'t> {
    trail: &'t mut Trail,
    is_entry: bool,
}

impl<'de> DeserializeSeed<'de> for ValuesSeed<'_> {
    type Value = Given<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValuesSeed<'_> {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("values")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Given::Absent)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.trail.count_value()?;
        Ok(match value {
            true => Given::True,
            false => Given::Scalars(vec![text_of(false)]),
        })
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_u64(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_i64(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_f64(value))
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_borrowed_str(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_str(value))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let mut scalars = Vec::new();
        while let Some(scalar) = list.next_element_seed(ScalarSeed)? {
            self.trail.count_value()?;
            scalars.push(scalar);
        }
        if self.is_entry && scalars.is_empty() {
            // It stores a name, so it counts.
            self.trail.count_value()?;
        }
        Ok(Given::Scalars(scalars))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let trail = self.trail;
        if self.is_entry {
            return Err(de::Error::custom(""));
        }
        let mut entries = Vec::new();
        loop {
            trail.enter(".filters.values", "an object whose names are Unicode text");
            let Some(name) = map.next_key_seed(TextSeed)? else {
                break;
            };
            trail.enter(".filters.values", "a scalar or a list of scalars");
            match map.next_value_seed(EntrySeed(trail)) {
                Ok(entry) => entries.push((name, entry)),
                Err(error) => {
                    trail.name(&name);
                    return Err(error);
                }
            }
        }
        NameMap::new(entries).map(Given::Named).map_err(|name| {
            let name = bounded(&name);
            trail.fail_twice(&format!(".filters.values.{name}"))
        })
    }
}

impl<'a> ValuesSeed<'_> {
    fn scalar<E: de::Error>(self, scalar: Result<Cow<'a, str>, E>) -> Result<Given<'a>, E> {
        self.trail.count_value()?;
        scalar.map(|scalar| Given::Scalars(vec![scalar]))
    }
}

/// What stands under a name: as the whole of `values`, but for names and nothing.
struct EntrySeed<'t>(&'t mut Trail);

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Entry<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        let seed = ValuesSeed {
            trail: self.0,
            is_entry: true,
        };
        match seed.deserialize(json)? {
            Given::True => Ok(Entry::True),
            Given::Scalars(scalars) => Ok(Entry::Scalars(scalars)),
            Given::Absent | Given::Named(_) => Err(de::Error::custom("")),
        }
    }
}

/// A text, borrowed where it was written without escapes.
struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// A scalar, by its text.
struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(text_of(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        let text = float_text(value).ok_or_else(|| E::custom(""))?;
        Ok(Cow::Owned(text))
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

/// As much of a name from a peer as an error repeats.
fn bounded(name: &str) -> String {
    let mut echo: String = name.chars().take(ECHO_CHARS_MAX).collect();
    if echo.len() < name.len() {
        echo.push('…');
    }
    echo
}

/// The text that a boolean compares by.
const fn text_of(value: bool) -> Cow<'static, str> {
    Cow::Borrowed(if value { "true" } else { "false" })
}

/// The text of `raw` if it is a scalar.
fn read_scalar(raw: &RawValue) -> Option<Cow<'_, str>> {
    ScalarSeed
        .deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
        .ok()
}
