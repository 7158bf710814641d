//! The key by which the console, opened in a browser on this host, may publish.
//!
//! Owns from which requests the key is taken. Main type: [`ConsoleKey`], which doesn't keep the key itself.
//! Invariant: the key alone isn't enough: a page of another site, a name that was made to point here and a
//! proxy can't use it even if they know it.

use std::fmt;

use super::local::is_on_this_host;
use super::origin::is_own_page;
use super::token_file::TokenCheck;
use crate::application::{Lane, Request};
use crate::http::head::Head;

/// What browsers say of a request that a page of the same origin makes (Fetch Metadata §2.3).
const SITE: &str = "Sec-Fetch-Site";
const SAME_ORIGIN: &[u8] = b"same-origin";

/// The key of the console.
pub struct ConsoleKey(TokenCheck);

impl ConsoleKey {
    /// The key that this text is.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(TokenCheck::new(key.as_bytes()))
    }

    /// Whether the page of the console makes this request, and `shown` is its key.
    #[must_use]
    pub fn is_shown_by(&self, request: &Request<'_>, shown: &[u8]) -> bool {
        request.peer.lane == Lane::Clients
            && is_on_this_host(request)
            && is_from_console(request.head)
            && self.0.is_met_by(shown)
    }
}

/// Whether a page of this server makes a request, or a program that says the same of itself.
fn is_from_console(head: &Head<'_>) -> bool {
    let is_same_origin = || head.fields.only_value(SITE) == Some(SAME_ORIGIN);
    if head.fields.has("Origin") {
        // Not every browser has the other field.
        is_own_page(head) && (!head.fields.has(SITE) || is_same_origin())
    } else {
        // With GET, a page of the same origin sends none.
        is_same_origin()
    }
}

/// Shows nothing of it.
impl fmt::Debug for ConsoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleKey")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::application::{Peer, PeerAddress};
    use crate::hub::access::testing::head_of;
    use crate::time::Timestamp;

    const KEY: &str = "bm90aGluZyB0aGF0IGFueWJvZHkgaGFzIGRyYXduIQ";
    const HOST: &str = "Host: localhost:8000\r\n";
    const ORIGIN: &str = "Origin: http://localhost:8000\r\n";
    const SITE: &str = "Sec-Fetch-Site: same-origin\r\n";

    fn is_shown(lane: Lane, address: PeerAddress, line: &str, fields: &str, key: &str) -> bool {
        let text = format!("{line} HTTP/1.1\r\n{fields}\r\n");
        let request = Request {
            peer: Peer { address, lane },
            head: &head_of(&text),
            now: Timestamp::ZERO,
            unix_now: Duration::ZERO,
        };
        ConsoleKey::new(KEY).is_shown_by(&request, key.as_bytes())
    }

    fn is_shown_from(address: &str, fields: &str) -> bool {
        let address = PeerAddress::Ip(address.parse().expect("an address"));
        is_shown(Lane::Clients, address, "POST /publish", fields, KEY)
    }

    #[test]
    fn the_page_of_this_host_may_use_it() {
        for fields in [
            [HOST, ORIGIN, SITE].concat(),
            [HOST, ORIGIN].concat(),
            // A GET.
            [HOST, SITE].concat(),
            [
                HOST,
                ORIGIN,
                SITE,
                "Cookie: of=another-server-on-localhost\r\n",
            ]
            .concat(),
            "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n".to_owned(),
            "Host: [::1]:80\r\nOrigin: http://[::1]\r\n".to_owned(),
        ] {
            assert!(is_shown_from("127.0.0.1:5", &fields), "{fields}");
        }
    }

    #[test]
    fn nothing_but_the_key_is() {
        let address = PeerAddress::Ip("127.0.0.1:5".parse().expect("an address"));
        let fields = [HOST, ORIGIN, SITE].concat();
        for wrong in ["", &KEY[1..], &format!("{KEY}A"), &KEY.to_lowercase()] {
            let is_shown = is_shown(Lane::Clients, address, "POST /", &fields, wrong);
            assert!(!is_shown, "{wrong:?}");
        }
        assert_eq!(format!("{:?}", ConsoleKey::new(KEY)), "ConsoleKey");
    }

    #[test]
    fn pages_of_other_sites_may_not() {
        for fields in [
            "Origin: http://evil.example\r\n",
            "Origin: http://localhost:8001\r\n",
            "Origin: http://localhost\r\n",
            "Origin: http://127.0.0.1:8000\r\n",
            "Origin: https://localhost:8000\r\n",
            "Origin: capacitor://localhost:8000\r\n",
            "Origin: null\r\n",
            "Origin:\r\n",
            "Origin: http://localhost:8000\r\nOrigin: http://localhost:8000\r\n",
            "Origin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n",
            "Origin: http://localhost:8000\r\nSec-Fetch-Site: cross-site\r\n",
            "Origin: http://localhost:8000\r\nSec-Fetch-Site: same-site\r\n",
            "Origin: http://localhost:8000\r\nSec-Fetch-Site: none\r\n",
            "Origin: http://localhost:8000\r\nSec-Fetch-Site:\r\n",
            "Origin: http://localhost:8000\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n",
            // What an image or a link sends, and what is no page at all.
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Sec-Fetch-Site: none\r\n",
            "",
        ] {
            let fields = [HOST, fields].concat();
            assert!(!is_shown_from("127.0.0.1:5", &fields), "{fields}");
        }
    }

    #[test]
    fn names_that_were_made_to_point_here_may_not() {
        for name in [
            "evil.example",
            "localhost.evil.example:8000",
            "127.0.0.1.nip.io",
        ] {
            let fields = format!("Host: {name}\r\nOrigin: http://{name}\r\n{SITE}");
            assert!(!is_shown_from("127.0.0.1:5", &fields), "{fields}");
        }
    }

    #[test]
    fn proxies_other_hosts_and_other_lanes_may_not() {
        let fields = [HOST, ORIGIN, SITE].concat();
        for field in [
            "X-Forwarded-For: 127.0.0.1\r\n",
            "X-Forwarded-Proto: http\r\n",
            "X-Real-IP: 127.0.0.1\r\n",
            "Forwarded: for=127.0.0.1\r\n",
            "Via: 1.1 proxy\r\n",
        ] {
            let fields = [&fields, field].concat();
            assert!(!is_shown_from("127.0.0.1:5", &fields), "{fields}");
        }
        for address in ["192.0.2.1:5", "[::ffff:192.0.2.1]:5", "0.0.0.0:5"] {
            assert!(!is_shown_from(address, &fields), "{address}");
        }
        let local = PeerAddress::Ip("127.0.0.1:5".parse().expect("an address"));
        for (lane, address) in [
            (Lane::Publishers, local),
            (Lane::Clients, PeerAddress::Unix),
            (Lane::Clients, PeerAddress::Unknown),
        ] {
            let is_shown = is_shown(lane, address, "POST /publish", &fields, KEY);
            assert!(!is_shown, "{lane:?} {address}");
        }
        let elsewhere = "POST http://evil.example/publish";
        assert!(!is_shown(Lane::Clients, local, elsewhere, &fields, KEY));
    }
}
