//! The host that a request is for (RFC 9112 §3.2): `Host`, and the authority of an absolute target.
//!
//! Knows how an authority is written, not which ones are ours. Where a request names its host twice, or
//! by what is no name, two readers could send it to two servers, so it is refused. Main function:
//! [`check`].

use std::fmt;
use std::net::Ipv6Addr;

use super::head::Head;

/// What is wrong with the host that a request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostError {
    /// HTTP/1.1 without `Host`.
    Missing,
    /// More than one `Host`.
    Several,
    /// `Host` is no host with an optional port.
    Invalid,
    /// The authority of an absolute target isn't, or it is empty.
    Target,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "Host is missing",
            Self::Several => "Host must be given once",
            Self::Invalid => "Host must be a host, or a host and a port",
            Self::Target => "the target must have a host, or a host and a port",
        })
    }
}

impl std::error::Error for HostError {}

/// Checks the host that a request names. HTTP/1.0 knows no `Host`, but takes none that is wrong.
/// An empty one is right: it is what a client sends that has no name for the server (§3.2).
///
/// # Errors
/// The first rule that it breaks.
pub fn check(head: &Head<'_>) -> Result<(), HostError> {
    let mut hosts = head.fields.values("Host");
    match (hosts.next(), hosts.next()) {
        (None, _) if head.minor_version >= 1 => return Err(HostError::Missing),
        (Some(_), Some(_)) => return Err(HostError::Several),
        (Some(host), None) if !is_authority(host) => return Err(HostError::Invalid),
        _ => {}
    }
    // §3.2.2: it counts in place of Host, which is there all the same.
    match head.authority().map(str::as_bytes) {
        Some(authority) if !is_authority(authority) || !is_named(authority) => {
            Err(HostError::Target)
        }
        _ => Ok(()),
    }
}

/// Whether an authority, known to be one, has a host that isn't empty.
#[must_use]
pub fn is_named(authority: &[u8]) -> bool {
    !matches!(authority, [] | [b':', ..])
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110 §7.2; RFC 3986 §3.2.2 and §3.2.3). It has no user.
fn is_authority(authority: &[u8]) -> bool {
    let (is_host, port) = if let Some(rest) = authority.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|&byte| byte == b']') else {
            return false;
        };
        (is_ip_literal(&rest[..end]), &rest[end + 1..])
    } else {
        let end = authority.iter().position(|&byte| byte == b':');
        let (host, port) = authority.split_at(end.unwrap_or(authority.len()));
        (is_registered_name(host), port)
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_host && is_port
}

/// What may be between brackets: an IPv6 address, or one of a version that is yet to come.
fn is_ip_literal(literal: &[u8]) -> bool {
    std::str::from_utf8(literal)
        .is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok() || is_future_address(text))
}

fn is_future_address(text: &str) -> bool {
    let rest = text.strip_prefix(['v', 'V']);
    let Some((version, address)) = rest.and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_address_byte = |byte| byte == b':' || is_name_byte(byte);
    !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !address.is_empty()
        && address.bytes().all(is_address_byte)
}

/// A name, or an IPv4 address, which looks like one.
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                behind
            }
            (&byte, behind) if is_name_byte(byte) => behind,
            _ => return false,
        };
    }
    true
}

/// `unreserved` or `sub-delims` (RFC 3986 §2.2 and §2.3).
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> Result<(), HostError> {
        let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
            .expect("valid")
            .expect("complete");
        check(&head)
    }

    const VALID: &[&str] = &[
        "example.org",
        "example.org:8000",
        "EXAMPLE.org.",
        "localhost:",
        "my_service-1",
        "127.0.0.1:65536",
        "[::1]",
        "[2001:DB8::7]:8000",
        "[::ffff:192.0.2.1]:",
        "[v1.fe80::a+en1]",
        "%E4%b8%ad.example",
        "a!$&'()*+,;=~b",
    ];

    const INVALID: &[&str] = &[
        "a b/?@",
        "a b",
        "a/",
        "a?",
        "a#",
        "user@a",
        "user:password@a",
        "http://a",
        "a:b",
        "a:80:80",
        "a:+80",
        "a:-1",
        "a:80 ",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]x",
        "[::1]80",
        "[::1%25eth0]",
        "[127.0.0.1]",
        "[v1.]",
        "[v.a]",
        "[vg.a]",
        "a%",
        "a%4",
        "a%4g",
        "\"a\"",
        "<a>",
        "a\\b",
        "\u{e9}.example",
    ];

    #[test]
    fn authorities() {
        for valid in VALID.iter().chain(&["", ":", ":80"]) {
            assert!(is_authority(valid.as_bytes()), "{valid}");
        }
        for invalid in INVALID {
            assert!(!is_authority(invalid.as_bytes()), "{invalid}");
        }
    }

    #[test]
    fn a_host_stands_once_and_is_one() {
        let with = |fields: &str| check_text(&format!("GET / HTTP/1.1\r\nA: b\r\n{fields}\r\n"));
        for host in VALID.iter().chain(&["", ":", ":80"]) {
            assert_eq!(with(&format!("hOST:\t{host} \r\n")), Ok(()), "{host}");
        }
        for host in INVALID.iter().filter(|host| !host.ends_with(' ')) {
            let error = Err(HostError::Invalid);
            assert_eq!(with(&format!("Host: {host}\r\n")), error, "{host}");
        }
        assert_eq!(with(""), Err(HostError::Missing));
        for several in ["Host: a\r\nHost: a\r\n", "Host:\r\nHost:\r\n"] {
            assert_eq!(with(several), Err(HostError::Several));
        }
    }

    #[test]
    fn http_1_0_may_go_without_one() {
        let with = |fields: &str| check_text(&format!("GET / HTTP/1.0\r\n{fields}\r\n"));
        assert_eq!(with(""), Ok(()));
        assert_eq!(with("Host: a\r\n"), Ok(()));
        assert_eq!(with("Host: a b\r\n"), Err(HostError::Invalid));
        assert_eq!(with("Host: a\r\nHost: a\r\n"), Err(HostError::Several));
    }

    #[test]
    fn an_absolute_target_names_a_host_too() {
        let with = |target: &str| check_text(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        for target in [
            "/",
            "*",
            "/?u=http://",
            "http://b",
            "http://b:80/x",
            "ws://[::1]?q",
        ] {
            assert_eq!(with(target), Ok(()), "{target}");
        }
        for target in [
            "http://",
            "http:///x",
            "http://:80/",
            "http://b@c/",
            "http://b:c",
            "http://?q",
        ] {
            assert_eq!(with(target), Err(HostError::Target), "{target}");
        }
        let without = check_text("GET http://b/ HTTP/1.1\r\n\r\n");
        assert_eq!(without, Err(HostError::Missing));
    }
}
