//! What other servers expect where crieur has its protocol: how to subscribe, how to publish with
//! one POST, what is answered, and what is delivered. Knows no sockets.
//!
//! Channels are called by the digits of their values. All that is set up at a server beforehand
//! is here too: nchan's and Pushpin's paths, and the application of those that speak Pusher's
//! protocol. `benches/services` starts them so.

use std::io::Write;
use std::net::SocketAddrV4;
use std::time::{SystemTime, UNIX_EPOCH};

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
                signed(&body, now.map_or(0, |now| now.as_secs()))
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
            // Soketi says {"ok":true}, others {}.
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

/// The path and query that publish a body, signed as Pusher's HTTP API has it.
fn signed(body: &[u8], now: u64) -> String {
    let md5 = hex(&Md5::digest(body));
    let query =
        format!("auth_key={PUSHER_KEY}&auth_timestamp={now}&auth_version=1.0&body_md5={md5}");
    let mut mac = Hmac::<Sha256>::new_from_slice(PUSHER_SECRET.as_bytes())
        .expect("a key may have any length");
    mac.update(format!("POST\n{PUSHER_EVENTS}\n{query}").as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    format!("{PUSHER_EVENTS}?{query}&auth_signature={signature}")
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
