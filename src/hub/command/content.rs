//! The content of a subscription list and of a notification.
//!
//! Reads text that is known to be JSON, so whatever stops a reader is a fault of content, and
//! the [`Trail`] says which. Main entries: [`read_subscriptions`] and [`read_notification`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::trail::{Root, Trail};
use super::values::{Entry, FiltersSeed, Given, ScalarSeed, TextSeed, text_of};
use super::{CommandError, Json, next_member};
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
    let mut trail = Trail::new(Root::Subscriptions, limits.values_max, json.0.len());
    trail.enter("", "a list");
    let seed = ListSeed {
        trail: &mut trail,
        subscriptions_max: limits.subscriptions_max,
    };
    json.read(seed).map_err(|_| trail.into_error())
}

/// Reads what a notification is matched by.
pub(super) fn read_notification(json: Json<'_>) -> Result<Notification<'_>, CommandError> {
    let mut trail = Trail::new(Root::Notification, usize::MAX, json.0.len());
    trail.enter("", "an object");
    let seed = BodySeed {
        trail: &mut trail,
        members: &NOTIFICATION_MEMBERS,
    };
    match json.read(seed) {
        Ok(body) => body.into_notification(&trail),
        Err(_) => Err(trail.into_error()),
    }
}

struct ListSeed<'t> {
    trail: &'t mut Trail,
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
        self.0.count_value(channel)?;
        Ok(Subscription::Channel(Cow::Borrowed(channel)))
    }

    fn visit_str<E: de::Error>(self, channel: &str) -> Result<Self::Value, E> {
        self.0.count_value(channel)?;
        Ok(Subscription::Channel(Cow::Owned(channel.to_owned())))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
        let trail = self.0;
        let members = &SUBSCRIPTION_MEMBERS;
        let body = BodySeed { trail, members }.visit_map(map)?;
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
    channel: Option<Json<'a>>,
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
        let channel = self.channel.and_then(|json| json.read(ScalarSeed).ok());
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

struct BodySeed<'t> {
    trail: &'t mut Trail,
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
        let trail = self.trail;
        let mut body = Body::default();
        while let Some(member) = next_member(&mut map, self.members)? {
            let is_second = match member {
                PACKAGE => {
                    trail.enter(".package", "a string");
                    let package = map.next_value_seed(TextSeed)?;
                    body.package.replace(package).is_some()
                }
                PAGE => {
                    trail.enter(".page", "a string");
                    let page = map.next_value_seed(TextSeed)?;
                    body.page.replace(page).is_some()
                }
                FILTERS => {
                    trail.enter(".filters", "an object");
                    let filters = map.next_value_seed(FiltersSeed(trail))?;
                    body.filters.replace(filters).is_some()
                }
                _ => body.channel.replace(map.next_value()?).is_some(),
            };
            if is_second {
                return Err(trail.fail_twice(&format!(".{member}")));
            }
        }
        Ok(body)
    }
}
