//! Responses of HTTP/1.1 (RFC 9112 §4, §6) as this server sends them: whole, with their date
//! (RFC 9110 §6.6.1), and with their length, so that the next one can follow.

use std::borrow::Cow;
use std::time::Duration;

use super::date::imf_fixdate;
use super::status::Status;

/// The interim response to a client that waits before it sends a body (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The status line.
    pub status: Status,
    /// Further fields; names and values are ours, so they need no escaping.
    pub fields: Vec<(&'static str, String)>,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Cow<'static, str>,
}

/// What the bytes of a response depend on beside what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occasion {
    /// The time since the Unix epoch.
    pub unix_now: Duration,
    /// Whether HEAD was asked: the body is only announced then (RFC 9110 §9.3.2).
    pub is_head: bool,
}

impl Response {
    /// A response that says `body`, one line of text.
    #[must_use]
    pub fn new(status: Status, body: impl Into<String>) -> Self {
        Self {
            status,
            fields: Vec::new(),
            content_type: "text/plain; charset=utf-8",
            body: Cow::Owned(body.into() + "\n"),
        }
    }

    /// A response that is the file `body`, as it is.
    #[must_use]
    pub const fn file(content_type: &'static str, body: &'static str) -> Self {
        Self {
            status: Status::OK,
            fields: Vec::new(),
            content_type,
            body: Cow::Borrowed(body),
        }
    }

    /// A response that is `json`, as it is.
    #[must_use]
    pub const fn json(status: Status, json: String) -> Self {
        Self {
            status,
            fields: Vec::new(),
            content_type: "application/json",
            body: Cow::Owned(json),
        }
    }

    /// The same with a field more.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The bytes that say this, and that nothing follows on the connection.
    #[must_use]
    pub fn encode(&self, occasion: Occasion) -> Vec<u8> {
        // RFC 9110 §7.8: a sender of Upgrade lists it in Connection.
        let has_upgrade = self.fields.iter().any(|(name, _)| *name == "Upgrade");
        let connection = if has_upgrade {
            "Connection: Upgrade, close\r\n"
        } else {
            "Connection: close\r\n"
        };
        self.encode_with(connection, occasion)
    }

    /// The same on a connection that stays, as it does by default in HTTP/1.1.
    #[must_use]
    pub fn encode_kept(&self, occasion: Occasion) -> Vec<u8> {
        self.encode_with("", occasion)
    }

    fn encode_with(&self, connection: &str, occasion: Occasion) -> Vec<u8> {
        let Status { code, phrase } = self.status;
        let body_len = self.body.len();
        let content_type = self.content_type;
        let date = imf_fixdate(occasion.unix_now);
        let mut text = format!(
            "HTTP/1.1 {code} {phrase}\r\nDate: {date}\r\n{connection}\
             Content-Type: {content_type}\r\nContent-Length: {body_len}\r\n"
        );
        for (name, value) in &self.fields {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        if !occasion.is_head {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Occasion = Occasion {
        unix_now: Duration::ZERO,
        is_head: false,
    };

    #[test]
    fn an_upgrade_that_is_asked_for_is_listed() {
        let response =
            Response::new(Status::UPGRADE_REQUIRED, "").with_field("Upgrade", "websocket");
        let text = String::from_utf8(response.encode(GET)).expect("text");
        assert!(text.contains("\r\nConnection: Upgrade, close\r\n"));
        assert!(text.contains("\r\nUpgrade: websocket\r\n"));
    }

    #[test]
    fn an_answer_to_head_announces_a_body_and_has_none() {
        let response = Response::file("text/css; charset=utf-8", "a{}");
        let encode = |is_head| {
            let occasion = Occasion { is_head, ..GET };
            String::from_utf8(response.encode(occasion)).expect("text")
        };
        let (whole, head) = (encode(false), encode(true));
        assert!(
            head.contains("\r\nContent-Type: text/css; charset=utf-8\r\nContent-Length: 3\r\n")
        );
        assert_eq!(whole, head + "a{}");
    }

    #[test]
    fn a_response_that_is_not_the_last_says_nothing_of_the_connection() {
        let response = Response::json(Status::OK, "{\"delivered\":3}".to_owned());
        assert_eq!(
            String::from_utf8(response.encode_kept(GET)).expect("text"),
            "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"delivered\":3}"
        );
    }

    #[test]
    fn a_response_states_its_length_and_its_end() {
        let response =
            Response::new(Status::UPGRADE_REQUIRED, "no").with_field("Sec-WebSocket-Version", "13");
        assert_eq!(
            String::from_utf8(response.encode(GET)).expect("text"),
            "HTTP/1.1 426 Upgrade Required\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 3\r\nSec-WebSocket-Version: 13\r\n\r\nno\n"
        );
    }
}
