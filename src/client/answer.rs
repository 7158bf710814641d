//! What a server answers to a request, whole: its status, and what it says. Main type: [`Answer`].

use std::fmt;

use crate::http::head::ResponseHead;

use super::url::without_token;

/// What a port says that speaks TLS, or is said of it.
pub(super) const TLS: &str = "this port speaks TLS, which crieur does not: connect to the server itself, \
                              like ws://127.0.0.1:8000/, not to the proxy in front of it";

/// How much of a text is shown.
const TEXT_CHARS_MAX: usize = 200;

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The three digits of the status.
    pub status: u16,
    /// The content, in the main a line of text or JSON.
    pub body: String,
    /// Whether the content is for people to read: no page.
    is_text: bool,
    /// Where the server says that what was asked for is.
    location: Option<String>,
}

impl Answer {
    /// The answer with this head and this body.
    pub(super) fn new(head: &ResponseHead<'_>, body: &[u8]) -> Self {
        let field = |name| head.fields.only_value(name).map(String::from_utf8_lossy);
        let kind = field("content-type").unwrap_or_default();
        let is_redirect = (300..400).contains(&head.status_code);
        Self {
            status: head.status_code,
            body: String::from_utf8_lossy(body).trim_end().to_owned(),
            is_text: kind.starts_with("text/plain") || kind.starts_with("application/json"),
            location: field("location").filter(|_| is_redirect).map(Into::into),
        }
    }
}

/// Why it isn't what was hoped for.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // nginx, Caddy and Apache answer so to a request without TLS.
        if self.status == 400 && self.body.contains("HTTPS") {
            return f.write_str(TLS);
        }
        write!(f, "the server answered {}", self.status)?;
        if let Some(location) = &self.location {
            let location = without_token(location);
            return write!(f, " and refers to {}", shown(&location));
        }
        match self.body.lines().next() {
            Some(line) if self.is_text => write!(f, ": {}", shown(line)),
            _ => Ok(()),
        }
    }
}

/// As much of a text as is shown, without what a terminal would obey.
fn shown(text: &str) -> String {
    let chars = text.chars().filter(|c| !c.is_control());
    chars.take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> String {
        let head = ResponseHead::parse(text.as_bytes(), 1000);
        let (head, length) = head.expect("valid").expect("whole");
        Answer::new(&head, &text.as_bytes()[length..]).to_string()
    }

    #[test]
    fn an_answer_says_what_the_server_says() {
        for (text, expected) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "the server answered 404"),
            (
                "HTTP/1.1 403 F\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nno \u{1b}[1mway\nat all\n",
                "the server answered 403: no [1mway",
            ),
            (
                "HTTP/1.1 502 B\r\nContent-Type: text/html\r\n\r\n<html>",
                "the server answered 502",
            ),
            (
                "HTTP/1.1 301 M\r\nContent-Type: text/plain\r\nLocation: https://h/?token=secret\r\n\r\nx",
                "the server answered 301 and refers to https://h/?token=…",
            ),
            (
                "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
                TLS,
            ),
            (
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n\
                 <center>The plain HTTP request was sent to HTTPS port</center>",
                TLS,
            ),
        ] {
            assert_eq!(answer(text), expected);
        }
        let long = "x".repeat(2 * TEXT_CHARS_MAX);
        let text = format!("HTTP/1.1 400 B\r\nContent-Type: text/plain\r\n\r\n{long}");
        assert_eq!(answer(&text).matches('x').count(), TEXT_CHARS_MAX);
    }
}
