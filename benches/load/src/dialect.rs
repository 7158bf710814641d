//! What other servers expect where crieur has its protocol: how to subscribe, how to publish with
//! one POST, what is answered, and what is delivered. Knows no sockets.
//!
//! Channels are called by the digits of their values. All that is set up at a server beforehand
//! is here too: nchan's and Pushpin's paths, and the application of those that speak Pusher's
//! protocol. `benches/services` starts them so.

use std::io::Write;
use std::net::SocketAddrV4;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::frame::{self, TEXT};
use crate::message::{self, Recipients};

/// The application that has to be set up; Soketi's defaults.
const PUSHER_EVENTS: &str = "/apps/app-id/events";
const PUSHER_KEY: &str = "app-key";
const PUSHER_SECRET: &str = "app-secret";

/// The name of every event.
const PUSHER_EVENT: &str = "n";

/// What a server speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// [The protocol](../../../docs/protocol.md), in all its variants.
    Crieur,
    /// A subscriber's WebSocket at `/sub/CHANNEL`, `POST /pub/CHANNEL`.
    Nchan,
    /// A WebSocket at `/sub/CHANNEL`, which the server's origin subscribes to the channel;
    /// `POST /publish/` at another address.
    Pushpin,
    /// Pusher's protocol 7 and its signed HTTP API: Soketi, Sockudo.
    Pusher,
}

/// A request that publishes one notification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post<'a> {
    pub(crate) host: SocketAddrV4,
    /// Whether the server is to close the connection behind its answer.
    pub(crate) is_last: bool,
    pub(crate) value: u32,
    pub(crate) notification: &'a [u8],
    /// What crieur is sent instead of the notification alone.
    pub(crate) payload: &'a [&'a [u8]],
}

impl Dialect {
    /// Where a subscriber's WebSocket is.
    pub(crate) fn subscriber_path(self, value: u32) -> String {
        let digits = message::VALUE_DIGITS;
        match self {
            Self::Crieur => "/".to_owned(),
            Self::Nchan | Self::Pushpin => format!("/sub/{value:0digits$}"),
            Self::Pusher => format!("/app/{PUSHER_KEY}?protocol=7&client=load&version=1.0"),
        }
    }

    /// Whether the upgrade alone subscribes.
    pub(crate) const fn subscribes_by_path(self) -> bool {
        matches!(self, Self::Nchan | Self::Pushpin)
    }

    /// How long a server is left alone where no Ping of a subscriber can tell that it has done all
    /// there was to do. Pushpin upgrades a connection before it has subscribed it, tells nobody when
    /// it has, and asks its origin about Pings: many at once, and it hangs up on some.
    pub(crate) const fn settling(self) -> Option<Duration> {
        match self {
            Self::Pushpin => Some(Duration::from_millis(500)),
            _ => None,
        }
    }

    /// Whether a server says something as soon as the connection is upgraded.
    pub(crate) const fn has_greeting(self) -> bool {
        matches!(self, Self::Pusher)
    }

    /// Whether a text is such a greeting.
    pub(crate) fn is_greeting(self, text: &[u8]) -> bool {
        self.has_greeting() && text.starts_with(b"{\"event\":\"pusher:connection_established\"")
    }

    /// What subscribes an upgraded connection to a value, where there is such a message.
    pub(crate) fn subscription(self, value: u32) -> Vec<u8> {
        let digits = message::VALUE_DIGITS;
        let text = match self {
            Self::Crieur => {
                format!("{{\"sender\":\"client\",\"subscriptions\":[\"{value:0digits$}\"]}}")
            }
            Self::Nchan | Self::Pushpin | Self::Pusher => format!(
                "{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{value:0digits$}\"}}}}"
            ),
        };
        text.into_bytes()
    }

    /// Whether that is what a subscription is to be answered.
    pub(crate) fn is_subscribed(self, answer: &[u8], value: u32) -> bool {
        let digits = message::VALUE_DIGITS;
        if self == Self::Crieur {
            return message::text_of(answer, "type") == Some("subscribed")
                && message::number_of(answer, "subscriptions") == Some(1);
        }
        message::text_of(answer, "event") == Some("pusher_internal:subscription_succeeded")
            && message::text_of(answer, "channel") == Some(&format!("{value:0digits$}"))
    }

    /// Appends the frame of a delivery.
    pub(crate) fn push_frame(self, value: u32, notification: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Crieur => message::push_delivery_frame(notification, out),
            Self::Nchan | Self::Pushpin => frame::push_server_frame(TEXT, &[notification], out),
            Self::Pusher => {
                let start = pusher_start("event", value);
                let mut escaped = Vec::with_capacity(notification.len() + 32);
                push_escaped(notification, &mut escaped);
                frame::push_server_frame(TEXT, &[start.as_bytes(), &escaped, b"\"}"], out);
            }
        }
    }

    /// Where the notification begins in a delivery, and whether it is a JSON string there.
    pub(crate) fn notification_at(self, crieur: usize) -> (usize, bool) {
        match self {
            Self::Crieur => (crieur, false),
            Self::Nchan | Self::Pushpin => (0, false),
            Self::Pusher => (pusher_start("event", 0).len(), true),
        }
    }

    /// Appends the request that publishes a notification.
    pub(crate) fn push_post(self, post: &Post<'_>, out: &mut Vec<u8>) {
        let digits = message::VALUE_DIGITS;
        let value = post.value;
        let mut body = Vec::with_capacity(post.notification.len() + 128);
        let path = match self {
            Self::Crieur => {
                post.payload
                    .iter()
                    .for_each(|piece| body.extend_from_slice(piece));
                "/publish".to_owned()
            }
            Self::Nchan => {
                body.extend_from_slice(post.notification);
                format!("/pub/{value:0digits$}")
            }
            Self::Pushpin => {
                let start = format!(
                    "{{\"items\":[{{\"channel\":\"{value:0digits$}\",\"formats\":{{\"ws-message\":{{\"content\":\""
                );
                body.extend_from_slice(start.as_bytes());
                push_escaped(post.notification, &mut body);
                body.extend_from_slice(b"\"}}}]}");
                "/publish/".to_owned()
            }
            Self::Pusher => {
                body.extend_from_slice(pusher_start("name", value).as_bytes());
                push_escaped(post.notification, &mut body);
                body.extend_from_slice(b"\"}");
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let credentials = (PUSHER_KEY, PUSHER_SECRET);
                let now = now.map_or(0, |now| now.as_secs());
                signed(PUSHER_EVENTS, credentials, &body, now)
            }
        };
        let last = if post.is_last {
            "Connection: close\r\n"
        } else {
            ""
        };
        // Writing to a vector can't fail.
        let _ = write!(
            out,
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{last}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            post.host,
            body.len()
        );
        out.extend_from_slice(&body);
    }

    /// Checks the answer's body, as far as a server tells something there.
    pub(crate) fn check_answer(self, body: &[u8], recipients: Recipients) -> Result<(), String> {
        let shown = String::from_utf8_lossy(body);
        let is_right = match self {
            Self::Crieur => return message::check_delivered(body, recipients),
            Self::Nchan => {
                let told = shown
                    .lines()
                    .find_map(|line| line.strip_prefix("active subscribers: "));
                let told = told.and_then(|count| count.trim().parse().ok());
                told.map(Recipients::Exactly) == Some(recipients)
            }
            Self::Pushpin => shown.trim_end() == "Published",
            // Pusher itself says {}, the others {"ok":true}.
            Self::Pusher => shown.starts_with('{') && !shown.contains("error"),
        };
        match is_right {
            true => Ok(()),
            false => Err(format!(
                "a publisher was told {shown:?}, where {recipients:?} have subscribed"
            )),
        }
    }
}

/// A JSON object of Pusher's up to the text of `data`.
fn pusher_start(name: &str, value: u32) -> String {
    let digits = message::VALUE_DIGITS;
    format!("{{\"{name}\":\"{PUSHER_EVENT}\",\"channel\":\"{value:0digits$}\",\"data\":\"")
}

/// JSON as the inside of a JSON string; ours has nothing to escape but quotation marks.
fn push_escaped(json: &[u8], out: &mut Vec<u8>) {
    for &byte in json {
        if byte == b'"' {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// A path with the query that signs a POST of the body, as Pusher's HTTP API has it.
fn signed(path: &str, (key, secret): (&str, &str), body: &[u8], now: u64) -> String {
    let md5 = hex(&Md5::digest(body));
    let query = format!("auth_key={key}&auth_timestamp={now}&auth_version=1.0&body_md5={md5}");
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(format!("POST\n{path}\n{query}").as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    format!("{path}?{query}&auth_signature={signature}")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Layout, Topic};

    const ALL: [Dialect; 4] = [
        Dialect::Crieur,
        Dialect::Nchan,
        Dialect::Pushpin,
        Dialect::Pusher,
    ];

    #[test]
    fn a_request_is_signed_as_in_pushers_documentation() {
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let credentials = ("278d425bdf160c739803", "7ad3773142a6692b25b8");
        assert_eq!(
            signed("/apps/3/events", credentials, body, 1_353_088_179),
            "/apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }

    #[test]
    fn sequence_numbers_are_found_in_all_deliveries() {
        for dialect in ALL {
            for topic in [Topic::Channel, Topic::Filter] {
                let layout = Layout::of(dialect, topic, 200).expect("long enough");
                let (mut notification, mut frame) = (Vec::new(), Vec::new());
                layout.push_notification(123_456, 7, &mut notification);
                layout.push_frame(7, &notification, &mut frame);
                let header = frame::scan(&frame).expect("a frame").expect("whole");
                let payload = &frame[header.header_len..];
                assert_eq!(layout.sequence_of(payload), Some(123_456), "{dialect:?}");
                assert!(frame.len() <= layout.frame_bytes(), "{dialect:?}");
            }
        }
    }

    #[test]
    fn posts_and_deliveries_are_those_that_the_servers_have() {
        let post = |dialect: Dialect| {
            let mut out = Vec::new();
            let post = Post {
                host: SocketAddrV4::new([127, 0, 0, 1].into(), 80),
                is_last: true,
                value: 7,
                notification: b"{\"a\":1}",
                payload: &[b"{}"],
            };
            dialect.push_post(&post, &mut out);
            let text = String::from_utf8(out).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains("\r\nConnection: close\r\n"));
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
            let target = head.split(' ').nth(1).expect("a target");
            let path = target.split('?').next().unwrap_or_default();
            (path.to_owned(), body.to_owned())
        };
        let of = |path: &str, body: &str| (path.to_owned(), body.to_owned());
        assert_eq!(post(Dialect::Crieur), of("/publish", "{}"));
        assert_eq!(post(Dialect::Nchan), of("/pub/000007", r#"{"a":1}"#));
        assert_eq!(
            post(Dialect::Pushpin),
            of(
                "/publish/",
                r#"{"items":[{"channel":"000007","formats":{"ws-message":{"content":"{\"a\":1}"}}}]}"#
            )
        );
        assert_eq!(
            post(Dialect::Pusher),
            of(
                "/apps/app-id/events",
                r#"{"name":"n","channel":"000007","data":"{\"a\":1}"}"#
            )
        );
        let mut frame = Vec::new();
        Dialect::Pusher.push_frame(7, br#"{"a":1}"#, &mut frame);
        assert_eq!(
            &frame[2..],
            br#"{"event":"n","channel":"000007","data":"{\"a\":1}"}"#
        );
    }

    #[test]
    fn answers_are_told_from_errors() {
        let three = Recipients::Exactly(3);
        let nchan = b"queued messages: 1\r\nlast requested: 0 sec. ago\r\nactive subscribers: 3\r\nlast message id: 1:0";
        for (dialect, body, is_right) in [
            (Dialect::Nchan, &nchan[..], true),
            (Dialect::Nchan, b"active subscribers: 2", false),
            (Dialect::Nchan, b"", false),
            (Dialect::Pushpin, b"Published\n", true),
            (Dialect::Pushpin, b"Invalid", false),
            (Dialect::Pusher, b"{\"ok\":true}", true),
            (Dialect::Pusher, b"{}", true),
            (Dialect::Pusher, b"{\"error\":\"no such app\"}", false),
            (Dialect::Crieur, b"{\"delivered\":3}", true),
            (Dialect::Crieur, b"{\"delivered\":2}", false),
        ] {
            assert_eq!(
                dialect.check_answer(body, three).is_ok(),
                is_right,
                "{dialect:?}"
            );
        }
    }
}
