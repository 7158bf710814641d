//! The head of an HTTP/1.1 request or response (RFC 9112 §2-§5): first line and field lines.
//!
//! Strict where leniency lets two readers of one byte stream disagree: lines end in CRLF only,
//! nothing is between a name and its colon, no line is folded. Knows nothing of what the
//! fields mean.

use std::fmt;

use memchr::{memchr, memchr_iter};

use super::status::Status;

/// More field lines than any honest client sends.
pub const FIELDS_MAX: usize = 100;

/// The field lines of a head, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fields<'a>(Vec<(&'a str, &'a [u8])>);

/// The head of a response, as a client reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResponseHead<'a> {
    /// The three digits of the status.
    pub status_code: u16,
    /// The field lines.
    pub fields: Fields<'a>,
}

/// A request head that lies in the caller's buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head<'a> {
    /// The method, case-sensitive (RFC 9110 §9.1).
    pub method: &'a str,
    /// The request target as it was sent, visible ASCII.
    pub target: &'a str,
    /// The minor version of HTTP/1.
    pub minor_version: u8,
    /// The field lines.
    pub fields: Fields<'a>,
}

/// Why a head can't be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadError {
    /// More bytes or more fields than are allowed.
    TooLarge,
    /// Not `METHOD target HTTP/1.x`.
    RequestLine,
    /// A version of HTTP that isn't 1.x.
    Version,
    /// A line that is not `name: value` (RFC 9112 §5.1 and §5.2).
    Field,
}

impl HeadError {
    /// The answer that tells the client.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::TooLarge => Status::HEAD_TOO_LARGE,
            Self::RequestLine | Self::Field => Status::BAD_REQUEST,
            Self::Version => Status::VERSION_NOT_SUPPORTED,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request head is too large",
            Self::RequestLine => "the request line is not \"METHOD target HTTP/1.1\"",
            Self::Version => "only HTTP/1.1 is spoken here",
            Self::Field => "a field line is not \"name: value\"",
        })
    }
}

impl std::error::Error for HeadError {}

impl<'a> Head<'a> {
    /// Reads the head at the start of `bytes` and says how long it is, the empty line
    /// included; `None` if it isn't all there yet. `scanned` is how many of the bytes an
    /// earlier call has already seen, so that a head in many small pieces is searched once.
    ///
    /// # Errors
    /// [`HeadError`], also before the head is complete where its start already shows it.
    pub fn parse(
        bytes: &'a [u8],
        scanned: usize,
        head_bytes_max: usize,
    ) -> Result<Option<(Self, usize)>, HeadError> {
        // What can't begin a method will not become a request: TLS, a frame, noise.
        if bytes.first().is_some_and(|&byte| !is_token_byte(byte)) {
            return Err(HeadError::RequestLine);
        }
        let Some(length) = find_end(bytes, scanned) else {
            return if bytes.len() >= head_bytes_max {
                Err(HeadError::TooLarge)
            } else {
                Ok(None)
            };
        };
        if length > head_bytes_max {
            return Err(HeadError::TooLarge);
        }
        // Both CRLFs of the end go: the last field line loses its own as well.
        Self::parse_lines(&bytes[..length - 4]).map(|head| Some((head, length)))
    }

    fn parse_lines(block: &'a [u8]) -> Result<Self, HeadError> {
        let (request_line, rest) = split_line(block);
        let (method, target, minor_version) = parse_request_line(request_line)?;
        Ok(Self {
            method,
            target,
            minor_version,
            fields: Fields::parse(rest)?,
        })
    }

    /// Whether the client means to send another request (RFC 9112 §9.3). Of HTTP/1.0 it is never
    /// believed: the ways to say so were never agreed on.
    #[must_use]
    pub fn keeps_connection(&self) -> bool {
        self.minor_version >= 1 && !self.fields.has_token("connection", "close")
    }

    /// Whether an upgrade to WebSocket is asked for. HTTP/1.0 can't: there the field is ignored (RFC 9110
    /// §7.8).
    #[must_use]
    pub fn asks_for_websocket(&self) -> bool {
        self.minor_version >= 1 && self.fields.has_token("upgrade", "websocket")
    }

    /// The path of the target, without a query; of an absolute target too (RFC 9112 §3.2.2).
    #[must_use]
    pub fn path(&self) -> &'a str {
        let rest = self.split_absolute().map_or(self.target, |(_, rest)| rest);
        match rest.split(['?', '#']).next() {
            Some("") | None => "/",
            Some(path) => path,
        }
    }

    /// The authority of an absolute target, which counts in place of `Host` (RFC 9112 §3.2.2).
    #[must_use]
    pub fn authority(&self) -> Option<&'a str> {
        self.split_absolute().map(|(authority, _)| authority)
    }

    /// The authority of an absolute target, and what follows it.
    fn split_absolute(&self) -> Option<(&'a str, &'a str)> {
        if self.target.starts_with('/') {
            return None;
        }
        let (scheme, rest) = self.target.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        (!scheme.contains(['/', '?'])).then(|| rest.split_at(end))
    }
}

impl<'a> ResponseHead<'a> {
    /// Reads the head at the start of `bytes` and says how long it is; `None` if it isn't all
    /// there yet.
    ///
    /// # Errors
    /// As [`Head::parse`].
    pub fn parse(
        bytes: &'a [u8],
        head_bytes_max: usize,
    ) -> Result<Option<(Self, usize)>, HeadError> {
        let Some(length) = find_end(bytes, 0) else {
            return if bytes.len() >= head_bytes_max {
                Err(HeadError::TooLarge)
            } else {
                Ok(None)
            };
        };
        let (status_line, rest) = split_line(&bytes[..length - 4]);
        let status_code = parse_status_line(status_line).ok_or(HeadError::RequestLine)?;
        let fields = Fields::parse(rest)?;
        Ok(Some((
            Self {
                status_code,
                fields,
            },
            length,
        )))
    }
}

impl<'a> Fields<'a> {
    fn parse(mut rest: Option<&'a [u8]>) -> Result<Self, HeadError> {
        let mut fields = Vec::with_capacity(16);
        while let Some(block) = rest {
            let (line, next) = split_line(block);
            if fields.len() == FIELDS_MAX {
                return Err(HeadError::TooLarge);
            }
            fields.push(parse_field(line)?);
            rest = next;
        }
        Ok(Self(fields))
    }

    /// The values of every field called `name`, in order, without the white space around.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|&(_, value)| value)
    }

    /// Whether there is a field called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of the field called `name` if there is exactly one.
    #[must_use]
    pub fn only_value(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether a field called `name` begins with `prefix`.
    #[must_use]
    pub fn has_prefixed(&self, prefix: &str) -> bool {
        self.0.iter().any(|(field, _)| {
            field
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        })
    }

    /// Whether the comma-separated lists of all fields called `name` hold `token`, in any
    /// case (RFC 9110 §5.6.1).
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// The length of the head: to the end of the first empty line.
fn find_end(bytes: &[u8], scanned: usize) -> Option<usize> {
    // The end may have begun in the last three bytes that were seen before.
    let from = scanned.saturating_sub(3);
    memchr_iter(b'\n', &bytes[from..])
        .map(|position| from + position + 1)
        .find(|&end| bytes[..end].ends_with(b"\r\n\r\n"))
}

/// The first line and, if a CRLF ended it, what is behind. A line feed without its carriage
/// return ends nothing: it stays in the line, where it is refused.
fn split_line(block: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'\n', block) {
        Some(end) if block[..end].ends_with(b"\r") => (&block[..end - 1], Some(&block[end + 1..])),
        _ => (block, None),
    }
}

fn parse_request_line(line: &[u8]) -> Result<(&str, &str, u8), HeadError> {
    let line = std::str::from_utf8(line).map_err(|_| HeadError::RequestLine)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::RequestLine);
    };
    if method.is_empty() || !method.bytes().all(is_token_byte) {
        return Err(HeadError::RequestLine);
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HeadError::RequestLine);
    }
    match version.as_bytes() {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'0'..=b'9',
        ] => Ok((method, target, minor - b'0')),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(HeadError::Version),
        _ => Err(HeadError::RequestLine),
    }
}

/// The status of `HTTP/1.x 101 Phrase`; the phrase may be missing.
fn parse_status_line(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let digits = line
        .strip_prefix("HTTP/1.")?
        .get(1..)?
        .strip_prefix(' ')?
        .get(..3)?;
    digits.parse().ok()
}

fn parse_field(line: &[u8]) -> Result<(&str, &[u8]), HeadError> {
    let colon = line
        .iter()
        .position(|&byte| byte == b':')
        .ok_or(HeadError::Field)?;
    // A space before the colon, or the start of a folded line, is no token byte.
    let name = &line[..colon];
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(HeadError::Field);
    }
    let name = std::str::from_utf8(name).map_err(|_| HeadError::Field)?;
    let value = trim_blanks(&line[colon + 1..]);
    let is_value_byte = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    // Without an early exit the compiler looks at many bytes at once.
    if !value
        .iter()
        .fold(true, |all, &byte| all & is_value_byte(byte))
    {
        return Err(HeadError::Field);
    }
    Ok((name, value))
}

/// A value without the spaces and tabs around it (RFC 9110 §5.6.3). Nothing else is white space there:
/// a carriage return, a line feed or a form feed is what another reader could take for an end.
fn trim_blanks(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &value[start..end]
}

/// RFC 9110 §5.6.2: what a token is made of.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[byte as usize]
}

static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < others.len() {
        table[others[i] as usize] = true;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1024;

    fn parse(text: &str) -> Result<Option<(Head<'_>, usize)>, HeadError> {
        Head::parse(text.as_bytes(), 0, MAX)
    }

    fn head(text: &str) -> Head<'_> {
        parse(text).expect("valid").expect("complete").0
    }

    #[test]
    fn a_request_is_read() {
        let text =
            "GET /chat?x=1 HTTP/1.1\r\nHost: a:80\r\nX-Two:one\r\nx-two:  two \t\r\n\r\nrest";
        let (head, length) = parse(text).expect("valid").expect("complete");
        assert_eq!(&text[length..], "rest");
        assert_eq!(
            (head.method, head.target, head.minor_version),
            ("GET", "/chat?x=1", 1)
        );
        assert_eq!(head.path(), "/chat");
        assert_eq!(head.fields.only_value("HOST"), Some(&b"a:80"[..]));
        assert_eq!(
            head.fields.values("X-TWO").collect::<Vec<_>>(),
            [b"one", b"two"]
        );
        assert_eq!(head.fields.only_value("x-two"), None);
        assert!(
            head.fields.has("host")
                && !head.fields.has("hos")
                && head.fields.has_prefixed("X-T")
                && !head.fields.has_prefixed("X-Two-")
        );
    }

    #[test]
    fn every_split_point_is_incomplete_until_the_end() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]), Ok(None), "{end}");
            let resumed = Head::parse(text.as_bytes(), end, MAX)
                .expect("valid")
                .expect("complete");
            assert_eq!(resumed.1, text.len());
        }
    }

    #[test]
    fn tokens_are_found_in_lists_of_any_case() {
        let head =
            head("GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: x, UPGRADE ,y\r\n\r\n");
        assert!(head.fields.has_token("connection", "upgrade"));
        assert!(head.fields.has_token("connection", "keep-alive"));
        assert!(!head.fields.has_token("connection", "grade"));
        assert!(!head.fields.has_token("connection", "keep"));
    }

    #[test]
    fn a_response_is_read() {
        let text = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81";
        let (head, length) = ResponseHead::parse(text, MAX)
            .expect("valid")
            .expect("complete");
        assert_eq!((head.status_code, length), (101, text.len() - 1));
        assert!(head.fields.has_token("upgrade", "websocket"));
        for line in [
            "HTTP/1.1",
            "HTTP/1.1 1",
            "HTTP/2 200",
            "ICY 200 OK",
            "HTTP/1.1 2x0 OK",
        ] {
            let text = format!("{line}\r\n\r\n");
            assert!(ResponseHead::parse(text.as_bytes(), MAX).is_err(), "{line}");
        }
    }

    #[test]
    fn connections_that_are_kept() {
        for (text, stays) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            assert_eq!(head(text).keeps_connection(), stays, "{text:?}");
        }
    }

    #[test]
    fn paths() {
        for (target, path) in [
            ("/", "/"),
            ("/publish?a=/b", "/publish"),
            ("http://host:8000/publish?q", "/publish"),
            ("http://host", "/"),
            ("http://host?x=/y", "/"),
            ("/a?u=http://b/c", "/a"),
            ("*", "*"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(head(&text).path(), path, "{target}");
            let authority = target.starts_with("http").then(|| {
                if target.contains(":8") {
                    "host:8000"
                } else {
                    "host"
                }
            });
            assert_eq!(head(&text).authority(), authority, "{target}");
        }
    }

    #[test]
    fn request_lines_that_are_refused() {
        for line in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET / HTTP/1.10",
            "GET / http/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET /\t HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET / HTTP/1.1\nHost: a",
        ] {
            assert_eq!(
                parse(&format!("{line}\r\nHost: a\r\n\r\n")),
                Err(HeadError::RequestLine),
                "{line:?}"
            );
        }
        assert_eq!(parse("GET / HTTP/2.0\r\n\r\n"), Err(HeadError::Version));
        assert_eq!(head("GET / HTTP/1.0\r\n\r\n").minor_version, 0);
    }

    #[test]
    fn field_lines_that_are_refused() {
        for line in [
            "Host : a",
            " Host: a",
            "Host",
            ": a",
            "Ho st: a",
            "Host: a\r\n\tb",
            "Host: a\0b",
            "Host: a\rb",
            "Host: a\nX: b",
            // White to Rust, and an end of line to some.
            "Host: a\r",
            "Host:\ra",
            "Host: a\x0c",
            "Transfer-Encoding: \x0cchunked",
            "X:\nContent-Length: 5",
            "X: a\n",
            "X:\n",
        ] {
            assert_eq!(
                parse(&format!("GET / HTTP/1.1\r\n{line}\r\n\r\n")),
                Err(HeadError::Field),
                "{line:?}"
            );
        }
    }

    #[test]
    fn what_is_not_http_is_refused_at_its_first_byte() {
        for first in [0x16, 0x81, 0, b' ', b'\r'] {
            assert_eq!(Head::parse(&[first], 0, MAX), Err(HeadError::RequestLine));
        }
    }

    #[test]
    fn limits_at_max_and_one_more() {
        let with_length = |length: usize| {
            let start = "GET / HTTP/1.1\r\nX: ";
            format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
        };
        assert!(matches!(parse(&with_length(MAX)), Ok(Some((_, MAX)))));
        assert_eq!(parse(&with_length(MAX + 1)), Err(HeadError::TooLarge));
        assert_eq!(parse(&with_length(MAX)[..MAX - 1]), Ok(None));
        assert_eq!(
            parse(&with_length(MAX + 1)[..MAX]),
            Err(HeadError::TooLarge)
        );

        let with_fields =
            |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(count));
        assert!(parse(&with_fields(FIELDS_MAX)).is_ok());
        assert_eq!(
            parse(&with_fields(FIELDS_MAX + 1)),
            Err(HeadError::TooLarge)
        );
    }
}
