//! Whom an operator asks about, in a body and in the query of a request.
//!
//! Main type: [`Whom`].

use std::borrow::Cow;
use std::net::IpAddr;

use super::error::{CommandError, ErrorCode};
use crate::id::ConnectionId;

/// Which connections are asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom<'a> {
    /// None in particular.
    Anybody,
    /// This one.
    Connection(ConnectionId),
    /// Those whose token is of this user.
    User(Cow<'a, str>),
    /// Those that come from here, or that a proxy forwards for it.
    Address(IpAddr),
}

/// The ways to say it.
pub(super) const WHOM_NAMES: [&str; 3] = [CONNECTION, USER, ADDRESS];
const CONNECTION: &str = "connection";
const USER: &str = "user";
const ADDRESS: &str = "address";

impl<'a> Whom<'a> {
    /// Takes one of the ways to say it.
    pub(super) fn choose(&mut self, name: &str, text: Cow<'a, str>) -> Result<(), CommandError> {
        if *self != Self::Anybody {
            return Err(unknown("connection, user and address exclude each other"));
        }
        *self = match name {
            CONNECTION => ConnectionId::of_text(&text).map(Self::Connection),
            ADDRESS => {
                let address = text.parse::<IpAddr>().ok();
                address.map(|address| Self::Address(address.to_canonical()))
            }
            _ => Some(Self::User(text)),
        }
        .ok_or_else(|| {
            unknown(match name {
                CONNECTION => "connection must be an id as in the log, like 12.3",
                _ => "address must be an IP address without a port",
            })
        })?;
        Ok(())
    }
}

/// The query of a request.
#[derive(Debug)]
pub struct Query<'a> {
    /// Whom it is about.
    pub whom: Whom<'a>,
    /// The values of the names that were looked for, in their order.
    pub values: Vec<Option<Cow<'a, str>>>,
}

/// Reads the query of a request's target: whom it is about, and the values of `names`.
///
/// # Errors
/// A name that is none of these, or is there twice.
pub fn read_query<'a>(target: &'a str, names: &[&str]) -> Result<Query<'a>, CommandError> {
    let (_, query) = target.split_once('?').unwrap_or_default();
    let query = query.split('#').next().unwrap_or_default();
    let mut whom = Whom::Anybody;
    let mut values = vec![None; names.len()];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescaped(value).ok_or_else(|| unknown("the query is not UTF-8"))?;
        if let Some(at) = names.iter().position(|other| *other == name) {
            if values[at].replace(value).is_some() {
                return Err(unknown("the query has a name twice"));
            }
        } else if WHOM_NAMES.contains(&name) {
            whom.choose(name, value)?;
        } else {
            return Err(unknown("the query has a name that is not known here"));
        }
    }
    Ok(Query { whom, values })
}

fn unknown(detail: &str) -> CommandError {
    CommandError::new(ErrorCode::UnknownMessage, detail)
}

/// A text with its percent-encoding undone (RFC 3986 §2.1); a plus is a space, as forms have it. What only looks like an
/// escape stays as it is.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        let (unescaped, behind) = match (byte, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => ((high * 16 + low) as u8, &behind[2..]),
            (b'+', _) => (b' ', behind),
            (byte, _) => (byte, behind),
        };
        bytes.push(unescaped);
        rest = behind;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_unescaped_and_strict_about_its_names() {
        let read = |target| read_query(target, &["state", "after"]);
        let Query { whom, values } =
            read("/connections?user=a%20b+%C3%A9%2&state=live").expect("good");
        assert_eq!(whom, Whom::User("a b é%2".into()));
        assert_eq!(values, [Some("live".into()), None]);
        for good in ["/", "/?", "/?&state=&", "/?state#after=1&x"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "/?x=1",
            "/?State=live",
            "/?state=live&state=live",
            "/?user=1&user=2",
            "/?user=1&connection=1.1",
            "/?user=%ff",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
