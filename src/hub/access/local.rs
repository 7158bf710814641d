//! Whether a request comes from this host.
//!
//! Owns the one predicate by which a peer counts as local, [`is_local`], and the wider one by which
//! a browser does, [`is_on_this_host`]. Invariant: when in doubt, a peer is not local; nothing that
//! a web page can make a browser send passes the first, and nothing that a proxy hands on either.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::application::Request;
use crate::http::head::Head;

/// Fields that a browser adds where a page makes it ask for something.
const BROWSER_FIELDS: [&str; 2] = ["Origin", "Cookie"];

/// Fields that a proxy adds.
const PROXY_FIELDS: [&str; 3] = ["Forwarded", "Via", "X-Real-IP"];

/// The beginning of more of them.
const PROXY_PREFIX: &str = "X-Forwarded-";

/// Whether a request comes from a program on this host that means this host.
///
/// The address alone would not do: a proxy on this host speaks for the whole world, and so does
/// a browser that runs here. The name in `Host` keeps out a page whose own name was made to
/// point here (DNS rebinding).
#[must_use]
pub fn is_local(request: &Request<'_>) -> bool {
    is_on_this_host(request) && !is_from_browser(request.head)
}

/// Whether a request comes from this host and means it, a browser's too: enough to be shown what
/// any page may make a browser fetch, and not enough to change anything.
#[must_use]
pub fn is_on_this_host(request: &Request<'_>) -> bool {
    let head = request.head;
    request
        .peer
        .address
        .ip()
        .is_some_and(|ip| ip.to_canonical().is_loopback())
        && head
            .fields
            .only_value("Host")
            .is_some_and(is_loopback_authority)
        && head
            .authority()
            .is_none_or(|authority| is_loopback_authority(authority.as_bytes()))
        && !is_from_proxy(head)
}

/// Whether a request has a field that only a browser or a proxy adds.
#[must_use]
pub fn is_foreign(head: &Head<'_>) -> bool {
    is_from_browser(head) || is_from_proxy(head)
}

fn is_from_browser(head: &Head<'_>) -> bool {
    BROWSER_FIELDS.iter().any(|name| head.fields.has(name)) || is_from_another_site(head)
}

/// Whether a page of another site makes a browser ask: a GET for a picture, say, has no `Origin` (Fetch Metadata).
fn is_from_another_site(head: &Head<'_>) -> bool {
    head.fields.has("Sec-Fetch-Site")
        && !matches!(
            head.fields.only_value("Sec-Fetch-Site"),
            Some(b"same-origin" | b"none")
        )
}

fn is_from_proxy(head: &Head<'_>) -> bool {
    PROXY_FIELDS.iter().any(|name| head.fields.has(name)) || head.fields.has_prefixed(PROXY_PREFIX)
}

/// Whether `host`, or `host:port`, names this host by itself (RFC 9110 §7.2).
fn is_loopback_authority(authority: &[u8]) -> bool {
    let Ok(authority) = std::str::from_utf8(authority) else {
        return false;
    };
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => (is_loopback_v6(host), port),
            None => return false,
        },
        None => {
            let colon = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at(colon);
            (is_loopback_name(host), port)
        }
    };
    host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_loopback_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_loopback_v6(host: &str) -> bool {
    host.parse::<Ipv6Addr>()
        .is_ok_and(|address| address.to_canonical().is_loopback())
}

fn is_port(port: &str) -> bool {
    // Digits only: `parse` would take a sign.
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::application::{Lane, Peer, PeerAddress};
    use crate::hub::access::testing::head_of;
    use crate::time::Timestamp;

    fn is_local_from(address: &str, target: &str, fields: &str) -> bool {
        let text = format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
        let head = head_of(&text);
        is_local(&Request {
            peer: Peer {
                address: PeerAddress::Ip(address.parse().expect("an address")),
                lane: Lane::Clients,
            },
            head: &head,
            now: Timestamp::ZERO,
            unix_now: Duration::ZERO,
        })
    }

    #[test]
    fn addresses() {
        for (address, is_loopback) in [
            ("127.0.0.1:5", true),
            ("127.255.0.3:5", true),
            ("[::1]:5", true),
            ("[::ffff:127.0.0.1]:5", true),
            ("10.0.0.1:5", false),
            ("0.0.0.0:5", false),
            ("[::ffff:10.0.0.1]:5", false),
            ("[fe80::1]:5", false),
        ] {
            let is_local = is_local_from(address, "/", "Host: localhost\r\n");
            assert_eq!(is_local, is_loopback, "{address}");
        }
    }

    #[test]
    fn hosts() {
        for host in [
            "localhost",
            "LocalHost:8000",
            "127.0.0.1",
            "127.1.2.3:65535",
            "[::1]",
            "[::1]:8000",
            "[0:0:0:0:0:0:0:1]:1",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(
                is_local_from("127.0.0.1:5", "/", &format!("Host: {host}\r\n")),
                "{host}"
            );
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "localhost.",
            "127.0.0.1.example.org",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "128.0.0.1",
            "0.0.0.0",
            "::1",
            "[::1",
            "[::2]",
            "[::1]x",
            "localhost:",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "user@localhost",
            "localhost, localhost",
        ] {
            assert!(
                !is_local_from("127.0.0.1:5", "/", &format!("Host: {host}\r\n")),
                "{host}"
            );
        }
        assert!(!is_local_from("127.0.0.1:5", "/", ""));
        assert!(!is_local_from(
            "127.0.0.1:5",
            "/",
            "Host: localhost\r\nhost: localhost\r\n"
        ));
    }

    #[test]
    fn absolute_targets_have_to_name_this_host_too() {
        let host = "Host: localhost\r\n";
        assert!(is_local_from(
            "127.0.0.1:5",
            "http://127.0.0.1:8000/publish",
            host
        ));
        assert!(is_local_from(
            "127.0.0.1:5",
            "/?to=http://example.org",
            host
        ));
        assert!(!is_local_from(
            "127.0.0.1:5",
            "http://example.org/publish",
            host
        ));
        assert!(!is_local_from(
            "127.0.0.1:5",
            "http://localhost@example.org",
            host
        ));
    }

    #[test]
    fn fields_of_browsers_and_proxies() {
        for field in [
            "Origin: http://localhost:8000",
            "origin:",
            "Forwarded: for=1.2.3.4",
            "Via: 1.1 proxy",
            "X-Real-IP: 127.0.0.1",
            "X-Forwarded-For: 127.0.0.1",
            "x-forwarded-proto: https",
            "Cookie: a=b",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
            "Sec-Fetch-Site: none\r\nSec-Fetch-Site: none",
        ] {
            assert!(
                !is_local_from(
                    "127.0.0.1:5",
                    "/",
                    &format!("Host: localhost\r\n{field}\r\n")
                ),
                "{field}"
            );
            let text = format!("GET / HTTP/1.1\r\nHost: example.org\r\n{field}\r\n\r\n");
            assert!(is_foreign(&head_of(&text)), "{field}");
        }
        let own =
            "Host: localhost\r\nUser-Agent: php\r\nX-Request-Id: 7\r\nSec-Fetch-Site: none\r\n";
        assert!(is_local_from("127.0.0.1:5", "/", own));
        assert!(!is_foreign(&head_of(&format!(
            "GET / HTTP/1.1\r\n{own}\r\n"
        ))));
    }
}
