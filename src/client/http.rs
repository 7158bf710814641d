//! Requests and answers of HTTP, as far as a client of this server needs them.
//!
//! Main type: [`Request`].

use std::time::{Duration, Instant};

use crate::http::head::ResponseHead;

use super::answer::Answer;
use super::error::ClientError;
use super::stream::Stream;
use super::url::Url;

/// The largest head that is taken as an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The largest content that is taken.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What an answer begins with.
const BEGIN: &[u8] = b"HTTP/";

/// What a record of TLS begins with: an alert or a handshake, of any version (RFC 8446 §5.1).
const TLS_BEGINS: [&[u8]; 2] = [&[21, 3], &[22, 3]];

/// A connection for one request.
#[derive(Debug)]
pub struct Request<'a> {
    stream: Stream,
    url: &'a Url,
    /// For the whole answer, once all is sent.
    timeout: Duration,
}

impl<'a> Request<'a> {
    /// Connects to the server of `url`, whose whole answer may then take as long as `timeout`.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(url: &'a Url, timeout: Duration) -> Result<Self, ClientError> {
        let stream = Stream::connect(url)?;
        Ok(Self {
            stream,
            url,
            timeout,
        })
    }

    /// Asks for what is there, and returns the answer, whatever its status.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(self) -> Result<Answer, ClientError> {
        self.send("GET", "", "")
    }

    /// Sends `json`, and returns the answer, whatever its status.
    ///
    /// # Errors
    /// Why there is none. The server may have taken what was sent, but for [`ClientError::NotHttp`] and
    /// [`ClientError::Tls`].
    pub fn post(self, json: &str) -> Result<Answer, ClientError> {
        let length = json.len();
        let fields = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        self.send("POST", &fields, json)
    }

    fn send(mut self, method: &str, fields: &str, body: &str) -> Result<Answer, ClientError> {
        let (target, host) = (self.url.target(), self.url.host_field());
        let token = self.url.token();
        let authorization = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        // Nobody answers in chunks to HTTP/1.0 (RFC 9112 §6.1).
        let head =
            format!("{method} {target} HTTP/1.0\r\nHost: {host}\r\n{fields}{authorization}\r\n");
        self.stream.write_all(head.as_bytes())?;
        // A server that refuses what is too long doesn't read on, and has said why.
        let written = self.stream.write_all(body.as_bytes());
        let deadline = Instant::now() + self.timeout;
        let mut unused = Vec::new();
        match read_head(&mut self.stream, &mut unused, deadline) {
            Ok(_) => read_answer(&mut self.stream, unused, deadline),
            Err(error) => Err(written.err().unwrap_or(error)),
        }
    }
}

/// The head at the start of `bytes` and its length, if it is there as a whole.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Option<(ResponseHead<'_>, usize)>, ClientError> {
    let begin = &bytes[..bytes.len().min(BEGIN.len())];
    if !BEGIN.starts_with(begin) {
        let is_tls = TLS_BEGINS.iter().any(|tls| bytes.starts_with(tls));
        // One byte of it could be anything.
        return match is_tls {
            true => Err(ClientError::Tls),
            false if bytes.len() == 1 => Ok(None),
            false => Err(ClientError::NotHttp),
        };
    }
    ResponseHead::parse(bytes, HEAD_BYTES_MAX).map_err(|_| ClientError::NotHttp)
}

/// Reads until the head of an answer is there, and returns its length.
pub(super) fn read_head(
    stream: &mut Stream,
    unused: &mut Vec<u8>,
    deadline: Instant,
) -> Result<usize, ClientError> {
    loop {
        if let Some((_, length)) = parse_head(unused)? {
            return Ok(length);
        }
        let read = stream.read_until(unused, deadline);
        read.map_err(|error| match error {
            ClientError::HungUp | ClientError::Io(_) if unused.is_empty() => ClientError::NoAnswer,
            error => error,
        })?;
    }
}

/// Reads the rest of the answer whose head is at the start of `unused`.
pub(super) fn read_answer(
    stream: &mut Stream,
    mut unused: Vec<u8>,
    deadline: Instant,
) -> Result<Answer, ClientError> {
    let whole = whole_length(&unused)?;
    while whole.is_none_or(|whole| unused.len() < whole) {
        if unused.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX {
            return Err(ClientError::NotHttp);
        }
        match stream.read_until(&mut unused, deadline) {
            Ok(()) => {}
            // Without a length, the end of the connection is that of the content (RFC 9112 §6.3).
            Err(ClientError::HungUp) if whole.is_none() => break,
            Err(error) => return Err(error),
        }
    }
    let (head, length) = parse_head(&unused)?.ok_or(ClientError::NotHttp)?;
    let end = whole.unwrap_or(unused.len());
    Ok(Answer::new(&head, &unused[length..end]))
}

/// How long an answer is with its content, if its head says so. What comes in chunks is a proxy's page, and isn't read.
fn whole_length(bytes: &[u8]) -> Result<Option<usize>, ClientError> {
    let (head, length) = parse_head(bytes)?.ok_or(ClientError::NotHttp)?;
    if head.fields.has("transfer-encoding") {
        return Ok(Some(length));
    }
    let announced = head.fields.only_value("content-length");
    let announced = announced.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    match announced {
        Some(announced) if announced > BODY_BYTES_MAX => Err(ClientError::NotHttp),
        announced => Ok(announced.map(|announced: usize| length + announced)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_speaks_is_known_by_its_first_bytes() {
        let parse = |bytes: &[u8]| match parse_head(bytes) {
            Ok(Some(_)) => "whole",
            Ok(None) => "more",
            Err(ClientError::Tls) => "TLS",
            Err(_) => "other",
        };
        for (bytes, expected) in [
            (&b""[..], "more"),
            (b"H", "more"),
            (b"HTTP/1.1 101 S\r\n", "more"),
            (b"HTTP/1.1 101 S\r\n\r\n", "whole"),
            (b"HTTP/2 200\r\n\r\n", "other"),
            (&[21], "more"),
            (&[21, 3, 1, 0, 2, 2, 70], "TLS"),
            (&[22, 3, 3], "TLS"),
            (&[21, 4], "other"),
            (b"SSH-2.0-x\r\n", "other"),
            (b"HELO", "other"),
        ] {
            assert_eq!(parse(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn the_length_of_an_answer_is_bounded() {
        let whole =
            |fields: &str| whole_length(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes());
        assert_eq!(whole("Content-Length: 3\r\n").ok(), Some(Some(41)));
        assert_eq!(whole("").ok(), Some(None));
        assert_eq!(whole("Transfer-Encoding: chunked\r\n").ok(), Some(Some(47)));
        let max = |length: usize| whole(&format!("Content-Length: {length}\r\n"));
        assert!(max(BODY_BYTES_MAX).is_ok() && max(BODY_BYTES_MAX + 1).is_err());
    }
}
