//! Which web pages may open a connection (RFC 6455 §10.2).
//!
//! A browser says in `Origin` whose page asks; everybody else can leave the field out or lie in
//! it. So this protects the users of browsers from other people's pages, and nothing from
//! programs. Main type: [`AllowedOrigins`].

use std::fmt;

use crate::http::head::Head;

/// The word for every origin.
const ALL: &str = "*";

/// The pages of which origins may connect, beside those that came from the same host and port as
/// the request goes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowedOrigins {
    all: bool,
    origins: Vec<Origin>,
}

/// What was given as an origin and is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginError(String);

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(got) = self;
        write!(
            f,
            "{got:?} is not an origin: expected scheme://host or scheme://host:port, or * for all"
        )
    }
}

impl std::error::Error for OriginError {}

impl AllowedOrigins {
    /// The origins of a list: each `scheme://host` or `scheme://host:port`, or `*` for all.
    ///
    /// # Errors
    /// The first entry that is neither; `null` is none, because any page can have it.
    pub fn parse<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Self, OriginError> {
        let mut allowed = Self::default();
        for entry in list {
            match Origin::parse(entry) {
                Some(origin) => allowed.origins.push(origin),
                None if entry == ALL => allowed.all = true,
                None => return Err(OriginError(entry.to_owned())),
            }
        }
        Ok(allowed)
    }

    /// Whether the page that makes a request may make it. A request that no page makes may.
    #[must_use]
    pub fn allows(&self, head: &Head<'_>) -> bool {
        if !head.fields.has("Origin") {
            return true;
        }
        let Some(origin) = head.fields.only_value("Origin") else {
            return false;
        };
        self.all
            || Origin::read(origin)
                .is_some_and(|origin| self.origins.contains(&origin) || is_own(&origin, head))
    }
}

/// Whether the page that makes a request came from this server, and not by TLS, which a proxy would have spoken.
pub(super) fn is_own_page(head: &Head<'_>) -> bool {
    let origin = head.fields.only_value("Origin").and_then(Origin::read);
    origin.is_some_and(|origin| origin.scheme == "http" && is_own(&origin, head))
}

/// Whether a page came from where its request goes: an absolute target says so in place of `Host`
/// (RFC 9112 §3.2.2). Not the scheme: a proxy in front may speak TLS with the browser, and none with us.
fn is_own(origin: &Origin, head: &Head<'_>) -> bool {
    let host = || std::str::from_utf8(head.fields.only_value("Host")?).ok();
    head.authority()
        .or_else(host)
        .and_then(|host| Authority::parse(host, &origin.scheme))
        .is_some_and(|authority| authority == origin.authority)
}

/// The origin of a page (RFC 6454 §4), in the form in which equal ones are equal.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Origin {
    /// In lower case.
    scheme: String,
    authority: Authority,
}

impl Origin {
    fn read(field: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(field).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.bytes().all(is_scheme_byte)
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let authority = Authority::parse(authority, &scheme)?;
        Some(Self { scheme, authority })
    }
}

/// A host and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Authority {
    /// In lower case; an IPv6 address in its brackets.
    host: String,
    /// `None` for the default of the scheme.
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str, scheme: &str) -> Option<Self> {
        // The colons of an IPv6 address are within brackets.
        let host_len = if text.starts_with('[') {
            text.find(']')? + 1
        } else {
            text.find(':').unwrap_or(text.len())
        };
        let (host, port) = text.split_at(host_len);
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return None;
        }
        let port = match port.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if port.is_empty() => None,
            None => return None,
        };
        let host = host.to_ascii_lowercase();
        let port = port.filter(|&port| Some(port) != default_port(scheme));
        Some(Self { host, port })
    }
}

/// What names and addresses are made of; an international name comes as `xn--`.
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
}

fn parse_port(port: &str) -> Option<u16> {
    // Digits only: `parse` would take a sign.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|_| is_number)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::access::testing::head_of;

    fn allows(list: &[&str], fields: &str) -> bool {
        let allowed = AllowedOrigins::parse(list.iter().copied()).expect("origins");
        allowed.allows(&head_of(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")))
    }

    #[test]
    fn programs_send_no_origin() {
        assert!(allows(&[], "Host: example.org"));
        assert!(allows(&["https://example.org"], "X: y"));
    }

    #[test]
    fn a_page_may_connect_to_where_it_came_from() {
        for (origin, host) in [
            ("http://example.org:8000", "example.org:8000"),
            ("http://EXAMPLE.org:8000", "example.ORG:8000"),
            ("http://example.org", "example.org"),
            ("http://example.org:80", "example.org"),
            ("http://example.org", "example.org:80"),
            ("https://example.org", "example.org:443"),
            ("https://example.org:443", "example.org"),
            ("https://example.org:8000", "example.org:8000"),
            ("http://[::1]:8000", "[::1]:8000"),
            ("http://[2001:DB8::7]", "[2001:db8::7]:80"),
            ("capacitor://localhost:8000", "localhost:8000"),
        ] {
            let fields = format!("Host: {host}\r\nOrigin: {origin}");
            assert!(allows(&[], &fields), "{fields}");
        }
        for (origin, host) in [
            ("http://example.org", "example.org:8000"),
            ("http://example.org:8000", "example.org"),
            ("http://example.org:8000", "example.org:8001"),
            ("https://example.org", "example.org:80"),
            ("http://example.org", "example.org:443"),
            ("capacitor://localhost", "localhost:80"),
            ("http://example.org", "www.example.org"),
            ("http://example.org.evil.org", "example.org"),
            ("http://evil.org", "example.org"),
            ("http://example.org", ""),
            ("http://", ""),
            ("http://example.org", "example.org, example.org"),
        ] {
            let fields = format!("Host: {host}\r\nOrigin: {origin}");
            assert!(!allows(&[], &fields), "{fields}");
        }
        assert!(!allows(&[], "Origin: http://example.org"));
        let two_hosts = "Host: example.org\r\nHost: example.org\r\nOrigin: http://example.org";
        assert!(!allows(&[], two_hosts));
    }

    #[test]
    fn a_page_in_the_list_may_connect() {
        let list = ["https://App.example.org:443", "HTTP://localhost:3000"];
        let is_allowed = |origin: &str| allows(&list, &format!("Host: a\r\nOrigin: {origin}"));
        for origin in ["https://app.example.org", "http://localhost:3000"] {
            assert!(is_allowed(origin), "{origin}");
        }
        for origin in [
            "http://app.example.org",
            "https://app.example.org:444",
            "https://app.example.org/",
            "https://app.example.org.evil.org",
            "https://evil.org?https://app.example.org",
            "https://user@app.example.org",
            "https://app.example.org https://evil.org",
            "https://app.example.org, https://evil.org",
            "http://localhost",
            "localhost:3000",
            "null",
            "*",
            "",
            "https://app.example.org\u{e9}",
        ] {
            assert!(!is_allowed(origin), "{origin}");
        }
    }

    #[test]
    fn an_absolute_target_says_where_the_request_goes() {
        let text = "GET http://example.org/ HTTP/1.1\r\nHost: a\r\nOrigin: ";
        for (origin, is_allowed) in [("http://example.org", true), ("http://a", false)] {
            let text = format!("{text}{origin}\r\n\r\n");
            let head = head_of(&text);
            assert_eq!(
                AllowedOrigins::default().allows(&head),
                is_allowed,
                "{origin}"
            );
        }
    }

    #[test]
    fn two_origins_are_none() {
        let fields = "Host: a\r\nOrigin: http://a\r\nOrigin: http://a";
        assert!(!allows(&[], fields));
        assert!(!allows(&["*"], fields));
        assert!(!allows(&["http://a"], fields));
    }

    #[test]
    fn a_star_stands_for_all() {
        for origin in ["http://evil.org", "null", "", "anything"] {
            assert!(allows(&["*"], &format!("Host: a\r\nOrigin: {origin}")));
            assert!(!allows(&[], &format!("Host: a\r\nOrigin: {origin}")));
        }
    }

    #[test]
    fn what_is_no_origin_is_named() {
        for bad in [
            "",
            "null",
            "example.org",
            "://example.org",
            "1http://example.org",
            "ht tp://example.org",
            "http://",
            "http:///",
            "http://example.org/",
            "http://example.org/path",
            "http://example.org?",
            "http://example.org:",
            "http://example.org:+80",
            "http://example.org:65536",
            "http://example.org:80:80",
            "http://user@example.org",
            "http://*.example.org",
            "http://[::1",
            "http://[::1]x",
            " http://example.org",
            "http://caf\u{e9}.org",
        ] {
            let error = AllowedOrigins::parse(["*", bad]).expect_err(bad);
            assert_eq!(error, OriginError(bad.to_owned()));
        }
        let error = OriginError("null".to_owned()).to_string();
        assert!(error.starts_with(r#""null" is not an origin: expected scheme://host"#));
    }
}
