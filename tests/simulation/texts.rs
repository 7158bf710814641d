//! Subscriptions and notifications: made up as what they mean, and then written as JSON, so that
//! the model never has to read any.

use std::borrow::Cow;
use std::rc::Rc;

use crieur::hub::filter::{
    Criterion, Filter, NameMap, Notification, NotificationValues, Page, Subscription, Values,
};

use crate::dice::Dice;
use crate::trust::TOKEN;

/// A notification, and how its publisher writes it.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// What tells it from all others.
    pub(crate) number: u64,
    pub(crate) notification: Notification<'static>,
    /// Whether a publisher's token comes with it.
    pub(crate) has_token: bool,
    /// The whole message.
    pub(crate) text: String,
    /// What each subscriber gets that doesn't number what it gets.
    pub(crate) delivered: Rc<str>,
    /// The `type` and the notification, as they were written.
    kind: &'static str,
    json: String,
    /// Whether it is to be kept.
    pub(crate) is_kept: bool,
    /// What its publisher calls it by.
    pub(crate) key: Option<&'static str>,
}

impl Publication {
    /// What each subscriber gets that numbers what it gets.
    pub(crate) fn numbered(&self, id: &str) -> Rc<str> {
        let Self { kind, json, .. } = self;
        format!(r#"{{"type":{kind},"id":"{id}","notification":{json}}}"#).into()
    }

    /// How somebody writes it who appends it to a stream.
    pub(crate) fn entry(&self) -> String {
        let Self { kind, json, .. } = self;
        let keep = if self.is_kept {
            ""
        } else {
            r#","keep" :false"#
        };
        format!(r#"{{ "notification":{json} ,"type":{kind}{keep}}}"#)
    }

    /// Whether it can't be taken where the history is on or not.
    pub(crate) fn is_bad(&self, has_history: bool) -> bool {
        self.key.is_some() && !(self.is_kept && has_history)
    }
}

/// What publishers send in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Some notifications have keys, or aren't kept, and more of them are long.
    pub(crate) has_keys: bool,
    /// Few are longer than a line.
    pub(crate) is_short: bool,
}

/// What publishers call notifications by; few, so that many come again.
const KEYS: [&str; 6] = ["1", "2", "order 17", "é", "a:b", "x"];

/// One of a few texts, so that things meet.
fn text(dice: &mut Dice) -> &'static str {
    dice.pick(&["a", "b", "c", "true"])
}

fn page(dice: &mut Dice) -> Page<'static> {
    let (package, page) = dice.pick(&[("p", "q"), ("p", "q"), ("p", "r"), ("é", "p")]);
    Page {
        package: package.into(),
        page: page.into(),
    }
}

fn values(dice: &mut Dice, least: usize) -> Values<'static> {
    let count = dice.between(least, 3);
    Values::new((0..count).map(|_| Cow::Borrowed(text(dice))).collect())
}

fn named<T>(dice: &mut Dice, mut entry: impl FnMut(&mut Dice) -> T) -> NameMap<'static, T> {
    let mut entries = Vec::new();
    for name in ["x", "y", "z"] {
        if dice.chance(40) {
            entries.push((Cow::Borrowed(name), entry(dice)));
        }
    }
    NameMap::new(entries).expect("the names are distinct")
}

pub(crate) fn subscription(dice: &mut Dice) -> Subscription<'static> {
    let filter = match dice.below(6) {
        0 => return Subscription::Channel(text(dice).into()),
        1 | 2 => Filter::Everything,
        // An empty list without a name means everything.
        3 => Filter::Nameless(values(dice, 1)),
        _ => Filter::Named(named(dice, |dice| {
            if dice.chance(30) {
                Criterion::Any
            } else {
                Criterion::OneOf(values(dice, 0))
            }
        })),
    };
    Subscription::Page(page(dice), filter)
}

pub(crate) fn subscribe_text(
    subscriptions: &[Subscription<'_>],
    since: Option<&str>,
    dice: &mut Dice,
) -> String {
    let list: Vec<_> = subscriptions.iter().map(subscription_json).collect();
    let space = dice.pick(&["", " ", "\r\n\t"]);
    let since = since.map(|since| format!(r#","since":{space}"{since}""#));
    let since = since.unwrap_or_default();
    format!(
        r#"{{"sender":{space}"client",{space}"subscriptions":[{}]{since}{space}}}"#,
        list.join(",")
    )
}

fn subscription_json(subscription: &Subscription<'_>) -> String {
    let (page, filter) = match subscription {
        Subscription::Channel(channel) => return format!(r#""{channel}""#),
        Subscription::Page(page, filter) => (page, filter),
    };
    let values = match filter {
        Filter::Everything => "true".to_owned(),
        Filter::Nameless(values) => list_json(values),
        Filter::Named(criteria) => object_json(criteria, |criterion| match criterion {
            Criterion::Any => "true".to_owned(),
            Criterion::OneOf(values) => list_json(values),
        }),
    };
    format!(r#"{{{},"filters":{{"values":{values}}}}}"#, page_json(page))
}

fn page_json(page: &Page<'_>) -> String {
    format!(r#""package":"{}","page":"{}""#, page.package, page.page)
}

fn list_json(values: &Values<'_>) -> String {
    let texts: Vec<_> = values.iter().map(|text| format!(r#""{text}""#)).collect();
    format!("[{}]", texts.join(","))
}

fn object_json<T>(map: &NameMap<'_, T>, entry: impl Fn(&T) -> String) -> String {
    let members: Vec<_> = map
        .iter()
        .map(|(name, value)| format!(r#""{name}":{}"#, entry(value)))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// How long the text of a notification is.
fn padding(dice: &mut Dice, style: Style) -> usize {
    let percent = dice.below(100);
    match percent {
        2.. if style.is_short => dice.below(100),
        _ if style.is_short => dice.between(500, 9_000),
        0 => dice.between(60_000, 70_000),
        1..=15 => dice.between(500, 9_000),
        // A few of them are more than is sent at once to a client that is being caught up.
        16..=24 if style.has_keys => dice.between(15_000, 40_000),
        _ => dice.below(200),
    }
}

/// A notification that no other is equal to, because of its `number`.
pub(crate) fn publication(
    dice: &mut Dice,
    number: u64,
    has_token: bool,
    style: Style,
) -> Publication {
    let shape = dice.below(8);
    let notification = Notification {
        page: (shape != 0).then(|| page(dice)),
        channel: (shape < 2).then(|| text(dice).into()),
        values: match dice.below(4) {
            0 => NotificationValues::Absent,
            1 => NotificationValues::Nameless(values(dice, 0)),
            _ => NotificationValues::Named(named(dice, |dice| values(dice, 0))),
        },
    };
    let mut members = vec![format!(r#""message":{{"id":"{number}","n":1.0}}"#)];
    members.extend(notification.page.as_ref().map(page_json));
    let channel = notification.channel.as_ref();
    members.extend(channel.map(|channel| format!(r#""channel": "{channel}""#)));
    match &notification.values {
        NotificationValues::Absent => {}
        NotificationValues::Nameless(values) => {
            members.push(format!(r#""filters":{{"values":{}}}"#, list_json(values)));
        }
        NotificationValues::Named(map) => {
            let values = object_json(map, list_json);
            members.push(format!(r#""\u0066ilters":{{ "values":{values}}}"#));
        }
    }
    let padding = padding(dice, style);
    members.push(format!(r#""text":"\u00e9é{}""#, ".".repeat(padding)));
    dice.shuffle(&mut members);
    let json = format!("{{{}}}", members.join(dice.pick(&[",", " , ", ",\n"])));
    let kind = dice.pick(&[None, Some(r#""refresh\u0063ontent""#)]);
    let kind_member = kind.map_or_else(String::new, |kind| format!(r#""type":{kind},"#));
    let token_member = if has_token {
        format!(r#","token":"{TOKEN}""#)
    } else {
        String::new()
    };
    let is_kept = !(style.has_keys && dice.chance(15));
    let has_key = style.has_keys && dice.chance(if is_kept { 30 } else { 5 });
    let key = has_key.then(|| dice.pick(&KEYS));
    let mut more = token_member;
    if !is_kept || (style.has_keys && dice.chance(10)) {
        more += &format!(r#","keep":{is_kept}"#);
    }
    if let Some(key) = key {
        more += &format!(r#", "key":"{key}""#);
    }
    let written = kind.unwrap_or(r#""notification""#);
    Publication {
        number,
        notification,
        has_token,
        text: format!(r#"{{{kind_member}"sender":"server","notification": {json} {more}}}"#),
        delivered: format!(r#"{{"type":{written},"notification":{json}}}"#).into(),
        kind: written,
        json,
        is_kept,
        key,
    }
}
