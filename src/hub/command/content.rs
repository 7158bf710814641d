//! The content of a subscription list and of a notification.
//!
//! Reads text that is known to be JSON, so every error is one of content, and the [`JsonPath`] says
//! where. Main entries: [`read_subscriptions`] and [`read_notification`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::CommandError;
use super::json::{Json, TextSeed, next_member};
use super::path::{JsonPath, Root};
use super::values::{Entry, FiltersSeed, Given, ScalarSeed, text_of};
use crate::config::HubLimits;
use crate::hub::filter::{
    Criterion, Filter, Notification, NotificationValues, Page, Subscription, Values,
};

const PACKAGE: &str = "package";
const PAGE: &str = "page";
const FILTERS: &str = "filters";
const CHANNEL: &str = "channel";

const SUBSCRIPTION_MEMBERS: [&str; 3] = [PACKAGE, PAGE, FILTERS];
const NOTIFICATION_MEMBERS: [&str; 4] = [PACKAGE, PAGE, FILTERS, CHANNEL];

/// Reads the list of a subscriber.
pub(super) fn read_subscriptions<'a>(
    json: Json<'a>,
    limits: &HubLimits,
) -> Result<Vec<Subscription<'a>>, CommandError> {
    let mut path = JsonPath::new(Root::Subscriptions, limits.values_max, json.0.len());
    path.enter("", "a list");
    let seed = ListSeed {
        path: &mut path,
        subscriptions_max: limits.subscriptions_max,
    };
    json.read(seed).map_err(|_| path.into_error())
}

/// Reads what a notification is matched by.
pub(super) fn read_notification(json: Json<'_>) -> Result<Notification<'_>, CommandError> {
    let mut path = JsonPath::new(Root::Notification, usize::MAX, json.0.len());
    path.enter("", "an object");
    let seed = BodySeed {
        path: &mut path,
        members: &NOTIFICATION_MEMBERS,
    };
    match json.read(seed) {
        Ok(body) => body.into_notification(&path),
        Err(_) => Err(path.into_error()),
    }
}

struct ListSeed<'t> {
    path: &'t mut JsonPath,
    subscriptions_max: usize,
}

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = Vec<Subscription<'de>>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = Vec<Subscription<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let Self {
            path,
            subscriptions_max,
        } = self;
        let mut subscriptions = Vec::new();
        while subscriptions.len() < subscriptions_max {
            path.root = Root::Subscription(subscriptions.len());
            path.enter("", "an object or a string");
            match list.next_element_seed(SubscriptionSeed(path))? {
                Some(subscription) => subscriptions.push(subscription),
                None => return Ok(subscriptions),
            }
        }
        match list.next_element::<IgnoredAny>()? {
            Some(_) => Err(path.fail_too_many("entries", subscriptions_max)),
            None => Ok(subscriptions),
        }
    }
}

struct SubscriptionSeed<'t>(&'t mut JsonPath);

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
        self.0.count_value(channel)?;
        Ok(Subscription::Channel(Cow::Borrowed(channel)))
    }

    fn visit_str<E: de::Error>(self, channel: &str) -> Result<Self::Value, E> {
        self.0.count_value(channel)?;
        Ok(Subscription::Channel(Cow::Owned(channel.to_owned())))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
        let path = self.0;
        let members = &SUBSCRIPTION_MEMBERS;
        let body = BodySeed { path, members }.visit_map(map)?;
        body.into_subscription(path)
            .map_err(|error| path.fail(error))
    }
}

/// The members that a subscription and a notification share.
#[derive(Default)]
struct Body<'a> {
    package: Option<Cow<'a, str>>,
    page: Option<Cow<'a, str>>,
    filters: Option<Given<'a>>,
    channel: Option<Json<'a>>,
}

impl<'a> Body<'a> {
    fn into_subscription(self, path: &JsonPath) -> Result<Subscription<'a>, CommandError> {
        let page = take_page(self.package, self.page, path)?
            .ok_or_else(|| path.error(format!("{}.package is missing", path.root)))?;
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

    fn into_notification(self, path: &JsonPath) -> Result<Notification<'a>, CommandError> {
        let page = take_page(self.package, self.page, path)?;
        // Beside a page, a channel that is no scalar is the application's own.
        let channel = self.channel.and_then(|json| json.read(ScalarSeed).ok());
        if page.is_none() && channel.is_none() {
            let detail = match self.channel {
                Some(_) => "notification.channel must be a scalar",
                None => "notification must have package and page, or channel",
            };
            return Err(path.error(detail.to_owned()));
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
    path: &JsonPath,
) -> Result<Option<Page<'a>>, CommandError> {
    let missing = match (package, page) {
        (Some(package), Some(page)) => return Ok(Some(Page { package, page })),
        (None, None) => return Ok(None),
        (None, Some(_)) => "package",
        (Some(_), None) => "page",
    };
    Err(path.error(format!("{}.{missing} is missing", path.root)))
}

struct BodySeed<'t> {
    path: &'t mut JsonPath,
    members: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Body<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let path = self.path;
        let mut body = Body::default();
        while let Some(member) = next_member(&mut map, self.members)? {
            let is_duplicate = match member {
                PACKAGE => {
                    path.enter(".package", "a string");
                    let package = map.next_value_seed(TextSeed)?;
                    body.package.replace(package).is_some()
                }
                PAGE => {
                    path.enter(".page", "a string");
                    let page = map.next_value_seed(TextSeed)?;
                    body.page.replace(page).is_some()
                }
                FILTERS => {
                    path.enter(".filters", "an object");
                    let filters = map.next_value_seed(FiltersSeed(path))?;
                    body.filters.replace(filters).is_some()
                }
                _ => body.channel.replace(map.next_value()?).is_some(),
            };
            if is_duplicate {
                return Err(path.fail_duplicate(&format!(".{member}")));
            }
        }
        Ok(body)
    }
}
