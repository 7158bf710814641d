//! Lists of subscriptions as JSON that this server writes, for a successor to read.
//!
//! What is written is what a client of protocol 1.1 could have sent, in the one form of which nothing is lost: the format
//! of the protocol is older than any state and will outlive them. Values are texts here, so each is written as one.

use super::content::read_subscriptions;
use crate::config::HubLimits;
use crate::handover::Malformed;
use crate::hub::filter::{Criterion, Filter, Page, Subscription, Values};

/// Appends `list` to `into`.
pub fn write_subscriptions(list: &[Subscription<'_>], into: &mut Vec<u8>) {
    into.push(b'[');
    write_each(list, into, write_subscription);
    into.push(b']');
}

/// One subscription as JSON.
#[must_use]
pub fn subscription_text(subscription: &Subscription<'_>) -> String {
    let mut json = Vec::new();
    write_subscription(subscription, &mut json);
    // It is put together of texts.
    String::from_utf8(json).unwrap_or_default()
}

fn write_subscription(subscription: &Subscription<'_>, into: &mut Vec<u8>) {
    match subscription {
        Subscription::Channel(channel) => write_text(channel, into),
        Subscription::Page(page, filter) => write_page(page, filter, into),
    }
}

/// Reads what [`write_subscriptions`] has written. There is no limit to it: what was granted once stays.
///
/// # Errors
/// It is no list of subscriptions.
pub fn parse_list(json: &str) -> Result<Vec<Subscription<'_>>, Malformed> {
    let limits = HubLimits {
        subscriptions_max: usize::MAX,
        values_max: usize::MAX,
        ..HubLimits::default()
    };
    let json = serde_json::from_str(json);
    let json = json.map_err(|_| Malformed("a list of subscriptions is no JSON"))?;
    read_subscriptions(json, &limits).map_err(|_| Malformed("a list of subscriptions is no such"))
}

fn write_page(page: &Page<'_>, filter: &Filter<'_>, into: &mut Vec<u8>) {
    into.extend(br#"{"package":"#);
    write_text(&page.package, into);
    into.extend(br#","page":"#);
    write_text(&page.page, into);
    match filter {
        Filter::Everything => {}
        // No message asks for that: an empty list stands for everything. Under a name it accepts nothing.
        Filter::Nameless(values) if values.is_empty() => {
            into.extend(br#","filters":{"values":{"":[]}}"#);
        }
        Filter::Nameless(values) => {
            into.extend(br#","filters":{"values":"#);
            write_values(values, into);
            into.push(b'}');
        }
        Filter::Named(criteria) => {
            into.extend(br#","filters":{"values":{"#);
            write_each(criteria.iter(), into, |(name, criterion), into| {
                write_text(name, into);
                into.push(b':');
                match criterion {
                    Criterion::Any => into.extend(b"true"),
                    Criterion::OneOf(values) => write_values(values, into),
                }
            });
            into.extend(b"}}");
        }
    }
    into.push(b'}');
}

fn write_values(values: &Values<'_>, into: &mut Vec<u8>) {
    into.push(b'[');
    write_each(values.iter(), into, write_text);
    into.push(b']');
}

/// Writes `items` with commas between them.
fn write_each<T>(
    items: impl IntoIterator<Item = T>,
    into: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            into.push(b',');
        }
        write(item, into);
    }
}

pub(super) fn write_text(text: &str, into: &mut Vec<u8>) {
    let written = serde_json::to_writer(into, text);
    debug_assert!(written.is_ok(), "memory takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::command::{self, Command};
    use crate::hub::filter::NameMap;

    fn written(list: &[Subscription<'_>]) -> String {
        let mut json = Vec::new();
        write_subscriptions(list, &mut json);
        String::from_utf8(json).expect("JSON is text")
    }

    fn values(texts: &[&'static str]) -> Values<'static> {
        Values::new(texts.iter().map(|&text| text.into()).collect())
    }

    fn page(page: &'static str, filter: Filter<'static>) -> Subscription<'static> {
        let package = "p".into();
        let page = page.into();
        Subscription::Page(Page { package, page }, filter)
    }

    fn named(criteria: &[(&'static str, Criterion<'static>)]) -> Filter<'static> {
        let criteria = criteria.iter().cloned();
        let criteria = criteria.map(|(name, criterion)| (name.into(), criterion));
        Filter::Named(NameMap::new(criteria.collect()).expect("distinct"))
    }

    #[test]
    fn every_form_is_written_as_a_client_may_write_it() {
        let list = [
            Subscription::Channel("true".into()),
            Subscription::Channel("".into()),
            page("q", Filter::Everything),
            page("q", Filter::Nameless(values(&["true", "7"]))),
            page(
                "\"\\\u{0}\n\u{7f}\u{2028}🦀",
                Filter::Nameless(values(&[""])),
            ),
            page(
                "q",
                named(&[
                    ("a", Criterion::Any),
                    ("", Criterion::OneOf(values(&["true", "", "1e3"]))),
                    ("\t", Criterion::OneOf(values(&[]))),
                ]),
            ),
        ];
        let json = written(&list);
        let expected = concat!(
            r#"["true","",{"package":"p","page":"q"},"#,
            r#"{"package":"p","page":"q","filters":{"values":["7","true"]}},"#,
            r#"{"package":"p","page":"\"\\\u0000\n"#,
            "\u{7f}\u{2028}🦀",
            r#"","filters":{"values":[""]}},"#,
            r#"{"package":"p","page":"q","filters":{"values":{"":["","1e3","true"],"\t":[],"a":true}}}]"#,
        );
        assert_eq!(json, expected);
        assert_eq!(parse_list(&json), Ok(list.to_vec()));
        // So it is within the limits of a message that is just long enough.
        let message = format!(r#"{{"sender":"client","subscriptions":{json}}}"#);
        match command::parse(&message, &HubLimits::default()) {
            Ok(Command::Subscribe { subscriptions, .. }) => assert_eq!(subscriptions, list),
            other => panic!("{other:?}"),
        }
        assert_eq!(written(&[]), "[]");
        assert_eq!(parse_list("[]"), Ok(Vec::new()));
    }

    #[test]
    fn what_accepts_nothing_does_not_turn_into_everything() {
        let json = written(&[page("q", Filter::Nameless(values(&[])))]);
        let nothing = named(&[("", Criterion::OneOf(values(&[])))]);
        assert_eq!(parse_list(&json), Ok(vec![page("q", nothing)]));
        // Without criteria it is everything, and is read as that.
        let json = written(&[page("q", named(&[]))]);
        assert_eq!(parse_list(&json), Ok(vec![page("q", Filter::Everything)]));
    }

    #[test]
    fn what_was_granted_is_beyond_no_limit() {
        let limits = HubLimits::default();
        let many = limits.subscriptions_max.max(limits.values_max) + 1;
        let list: Vec<_> = (0..many)
            .map(|number| Subscription::Channel(number.to_string().into()))
            .collect();
        assert_eq!(parse_list(&written(&list)), Ok(list));
    }

    #[test]
    fn anything_else_is_malformed() {
        let json = written(&[page("q", Filter::Nameless(values(&["a", "b"])))]);
        for cut in 0..json.len() {
            assert!(parse_list(&json[..cut]).is_err(), "{cut}");
        }
        for json in ["{}", "7", "[7]", "[] []", r#"[{"package":"p"}]"#, "\"a\""] {
            assert!(parse_list(json).is_err(), "{json}");
        }
    }
}
